"""A summary as HTML, for notebooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from brevq.drawing import element, escape
from brevq.overview.rows import COLUMNS, Row

_LINE = "1px solid rgba(128, 128, 128, 0.45)"
_CELL = "padding: 0.2em 1em 0.2em 0; text-align: {side}; white-space: nowrap; font-variant-numeric: tabular-nums"
_LAYER = f"border-top: {_LINE}; padding-top: 0.45em"
_TENSOR = "padding-left: 1.4em"
_PALE = "opacity: 0.7"


def table(rows: Sequence[Row], totals: Mapping[str, str]) -> str:
    """The table, and the totals under it, in one element, which has no script and loads nothing.

    Args:
        rows: its rows.
        totals: what is said at its end, by headings.
    """
    columns = [name for name in COLUMNS if any(row.cells.get(name) for row in rows)]
    head = element("tr", *(_cell("th", name, name, _PALE) for name in ["layer", *columns]))
    body = element("tbody", *(_row(row, columns) for row in rows))
    layers = element("table", element("thead", head), body, style="border-collapse: collapse")
    facts = [element("tr", _cell("th", "", name, _PALE), _fact(words)) for name, words in totals.items()]
    return element("div", layers, element("table", *facts, style="margin-top: 0.8em"), class_="brevq")


def _row(row: Row, columns: Sequence[str]) -> str:
    kind = " " + element("span", escape(row.kind), style=_PALE) if row.kind else ""
    name = element("b", escape(row.name)) + kind if row.kind else escape(row.name)
    line = _LAYER if row.kind else ""
    if row.kind:
        spanned = [name for name in columns if not row.cells or name == "recipe"]
        first = element("td", name, colspan=1 + len(spanned), style=f"{_style('')}; {line}")
    else:
        spanned, first = [], element("td", name, style=f"{_style('')}; {_TENSOR}")
    cells = [_cell("td", column, row.cells.get(column, ""), line) for column in columns if column not in spanned]
    return element("tr", first, *cells)


def _cell(tag: str, column: str, words: str, style: str = "") -> str:
    return element(tag, escape(words) or " ", style="; ".join(filter(None, [_style(column), style])))


def _fact(words: str) -> str:
    return element("td", escape(words), style="text-align: left")


def _style(column: str) -> str:
    return _CELL.format(side="right" if COLUMNS.get(column, False) else "left")
