"""The wiring of a recipe as a picture: a tree of names, what each is, and where it comes from."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from brevq.drawing.markup import element, escape
from brevq.drawing.picture import BLUE, ORANGE, Drawing, cut, rect, strokes, text, width_of

_ROW, _INDENT, _DOT = 21.0, 18.0, 3.0
_LONGEST = 58


@attrs.frozen
class Row:
    """One name of a wiring tree.

    Args:
        depth: how deep it stands; 0 is the root.
        name: the name.
        content: what it is.
        origin: where that comes from.
        kind: *declared*, *default* of a constructor, or *supplied* by a layer.
        replaces: what it overrides; empty where it overrides nothing. Default: nothing.
    """

    depth: int
    name: str
    content: str
    origin: str
    kind: str
    replaces: str = ""


def wiring_tree(title: str, rows: Sequence[Row], notes: Sequence[str] = ()) -> Drawing:
    """The picture of a wiring tree: overridden names in a box, what a layer supplies with an orange dot, defaults pale.

    Args:
        title: what is wired.
        rows: its names, the root first, each before those below it.
        notes: lines to write below.

    Examples:
        >>> root = Row(0, "tensor_quant", "IntQuant", "Int8", "declared")
        >>> wiring_tree("Int4", [root, Row(1, "bits", "4", "Int4", "declared", "8 of Int8")]).height
        80.0
    """
    names = max((_INDENT * row.depth + width_of(row.name, mono=True) for row in rows), default=0) + 32
    contents = max((width_of(cut(row.content, _LONGEST), mono=True) for row in rows), default=0) + 28
    origins = max((width_of(_origin(row)) for row in rows), default=0)
    shapes = [_branches(rows)]
    for number, row in enumerate(rows):
        shapes.append(_row(row, number * _ROW, names, contents, names + contents + origins))
    legend = _legend(rows)
    bottom = len(rows) * _ROW + 4
    for line in (*legend, *(text(0, 0, note, fill_opacity=0.85) for note in notes)):
        bottom += 17
        shapes.append(element("g", line, transform=f"translate(0 {bottom:g})"))
    width = max([names + contents + origins, *(width_of(note) for note in notes), 400.0])
    words = "\n".join(f"{'  ' * row.depth}{row.name} = {row.content}  ({_origin(row)})" for row in rows)
    return Drawing(width + 8, bottom + (17.0 if legend or notes else 0.0), tuple(shapes), title, words)


def _row(row: Row, top: float, names: float, contents: float, width: float) -> str:
    """A name, what it is, and where that comes from."""
    left, base = _INDENT * row.depth + 12, top + 15
    weight = "bold" if row.replaces else None
    pale = 0.65 if row.kind == "default" else None
    colour, style = (ORANGE, "italic") if row.kind == "supplied" else (None, None)
    parts = [
        text(left, base, row.name, mono=True, font_weight=weight, fill_opacity=pale),
        text(
            names, base, cut(row.content, _LONGEST), mono=True, font_weight=weight, font_style=style, fill_opacity=pale
        ),
        text(names + contents, base, _origin(row), fill_opacity=pale or 0.85),
    ]
    if row.replaces:
        box = rect(0, top + 1, width + 6, _ROW - 2, rx=4, fill=BLUE, fill_opacity=0.16, stroke=BLUE)
        parts.insert(0, box)
    dot = element("circle", cx=left - 7, cy=base - 4, r=_DOT, fill=colour or BLUE, fill_opacity=pale)
    hint = element("title", escape(f"{row.name} = {row.content}\n{_origin(row)}"))
    return element("g", hint, *parts, dot, class_=f"row {row.kind}{' overridden' if row.replaces else ''}")


def _origin(row: Row) -> str:
    return f"{row.origin}, replaces {cut(row.replaces, _LONGEST)}" if row.replaces else row.origin


def _branches(rows: Sequence[Row]) -> str:
    """The lines from each name to the one that asks for it."""
    path, above = [], {}
    for number, row in enumerate(rows):
        middle = number * _ROW + 11
        above[row.depth] = middle
        if row.depth:
            left = _INDENT * (row.depth - 1) + 5
            path.append(f"M{left:g} {above[row.depth - 1] + 4:g}V{middle:g}h{_INDENT - 4:g}")
    return strokes("".join(path) or "M0 0", stroke_opacity=0.3)


def _legend(rows: Sequence[Row]) -> list[str]:
    """What the colours mean, as far as they occur."""
    entries = [
        (any(row.replaces for row in rows), BLUE, "overrides what a base recipe declares"),
        (any(row.kind == "supplied" for row in rows), ORANGE, "supplied by the layer"),
    ]
    x, parts = 0.0, []
    for occurs, colour, words in entries:
        if occurs:
            parts += [rect(x, -9, 10, 10, rx=2, fill=colour, fill_opacity=0.8), text(x + 15, 0, words)]
            x += width_of(words) + 36
    if any(row.kind == "default" for row in rows):
        parts.append(text(x, 0, "pale: default of a constructor, could be overridden", fill_opacity=0.65))
    return ["".join(parts)] if parts else []
