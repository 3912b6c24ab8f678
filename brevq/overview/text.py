"""A summary as text."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

from brevq.overview.rows import COLUMNS, Row

#: The fewest characters that a line of the table may be asked to have.
NARROWEST = 60

_FIRST, _SECOND = "layer", "recipe"
_GAP, _INDENT = "  ", "  "
#: What a table does without, one after the other, where it is too wide.
_DISPENSABLE = ("less", "phase", "granularity", "scale", _SECOND)
#: To how many characters names may be shortened where the table is too wide, first these, then those.
_SHORT = ((_FIRST, 24), (_SECOND, 20), (_FIRST, 20), (_SECOND, 12))


def table(rows: Sequence[Row], totals: Mapping[str, str], width: int) -> str:
    """The table, and the totals under it.

    Args:
        rows: its rows.
        totals: what is said at its end, by headings.
        width: how many characters a line may have.
    """
    widths, left_out = _fitted(rows, width)
    rule = "─" * _total(widths)
    body = [_line({name: name for name in widths}, widths), rule, *(_row(row, widths) for row in rows), rule]
    hint = {"left out": f"{', '.join(left_out)}, for want of room: a wider text() has more"} if left_out else {}
    return "\n".join([*(line.rstrip() for line in body), *_ending({**totals, **hint}, max(len(rule), NARROWEST))])


def _fitted(rows: Sequence[Row], width: int) -> tuple[dict[str, int], list[str]]:
    """Characters of each column, and the columns that there is no room for: names give way before columns do."""
    columns = [name for name in COLUMNS if any(row.cells.get(name) for row in rows)]
    left_out: list[str] = []
    for name in (None, *_DISPENSABLE):
        if name in columns:
            columns.remove(name)
            left_out.append(name)
        widths = _widths(rows, columns, width)
        if _total(widths) <= width:
            break
    return widths, left_out


def _widths(rows: Sequence[Row], columns: Sequence[str], width: int) -> dict[str, int]:
    """Characters of each column; names are shortened where there is too little room."""
    widths = {name: max([len(name), *(len(row.cells.get(name, "")) for row in rows)]) for name in columns}
    widths = {_FIRST: max([len(_FIRST), *(len(_name(row)) for row in rows if not row.kind)]), **widths}
    spanning = max([len(_name(row)) for row in rows if row.kind and row.cells], default=0)
    widths[_FIRST] += max(0, spanning - _span(widths))
    for name, least in _SHORT:
        if name in widths:
            widths[name] = max(min(widths[name], least), widths[name] - max(0, _total(widths) - width))
    return widths


def _total(widths: Mapping[str, int]) -> int:
    return sum(widths.values()) + len(_GAP) * (len(widths) - 1)


def _span(widths: Mapping[str, int]) -> int:
    """Characters for the name of a layer, which has no recipe: those of that column too."""
    return widths[_FIRST] + (len(_GAP) + widths[_SECOND] if _SECOND in widths else 0)


def _name(row: Row) -> str:
    return f"{row.name}{_GAP}{row.kind}" if row.kind else _INDENT + row.name


def _row(row: Row, widths: Mapping[str, int]) -> str:
    if not row.kind:
        return _line({_FIRST: _name(row), **row.cells}, widths)
    if not row.cells:
        return _shortened(_name(row), _total(widths))
    rest = {name: width for name, width in widths.items() if name not in (_FIRST, _SECOND)}
    return _line({_FIRST: _name(row), **row.cells}, {_FIRST: _span(widths), **rest})


def _line(cells: Mapping[str, str], widths: Mapping[str, int]) -> str:
    fitted = {name: _shortened(cells.get(name, ""), width) for name, width in widths.items()}
    return _GAP.join(
        f"{words:{'>' if COLUMNS.get(name, False) else '<'}{widths[name]}}" for name, words in fitted.items()
    )


def _shortened(words: str, width: int) -> str:
    """Words that fit, their middle left out where they are too long: the ends of paths and recipes tell the most."""
    if len(words) <= width:
        return words
    kept = (width - 1) // 3
    return words[:kept] + "…" + words[len(words) - (width - 1 - kept) :]


def _ending(totals: Mapping[str, str], width: int) -> list[str]:
    """The totals, their headings in a column, long ones on several lines."""
    room = max(map(len, totals), default=0) + len(_GAP)
    lines: list[str] = []
    for heading, words in totals.items():
        wrapped = textwrap.wrap(words, width - room, break_on_hyphens=False)
        lines += [f"{'' if place else heading:<{room}}{line}" for place, line in enumerate(wrapped)]
    return lines
