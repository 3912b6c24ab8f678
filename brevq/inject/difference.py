"""Seeing two recipes: the names in which they differ."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs

from brevq.inject.faults import label
from brevq.inject.pages import check_recipe
from brevq.inject.plan import plan_of


@attrs.frozen
class Difference:
    """A name in which two recipes differ: its content and its declaring class on either side, or a dash."""

    name: str
    left: str
    left_by: str
    right: str
    right_by: str


@attrs.frozen
class Diff:
    """The differences between two recipes; prints as a table, and can be iterated over."""

    left: str
    right: str
    rows: tuple[Difference, ...]

    def __iter__(self) -> Iterator[Difference]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def _cells(self) -> list[tuple[str, str, str]]:
        head = ("", self.left, self.right)
        return [head, *((row.name, _by(row.left, row.left_by), _by(row.right, row.right_by)) for row in self.rows)]

    def __str__(self) -> str:
        if not self.rows:
            return f"{self.left} and {self.right} declare the same."
        cells = self._cells()
        widths = [max(len(row[i]) for row in cells) for i in range(3)]
        return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in cells)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from brevq.drawing import escape  # noqa: PLC0415  # pages load when there is one to write

        if not self.rows:
            return escape(str(self))
        head, *rows = self._cells()
        cell = '<td style="text-align:left"><code>{}</code></td>'
        body = "".join(f"<tr>{''.join(cell.format(escape(text)) for text in row)}</tr>" for row in rows)
        tops = "".join(f'<th style="text-align:left">{escape(text)}</th>' for text in head)
        return f"<table><thead><tr>{tops}</tr></thead><tbody>{body}</tbody></table>"


def diff(left: Any, right: Any) -> Diff:
    """The names in which two recipes differ, each with its content and declaring class on both sides.

    A `@value` that returns a class counts as that class, where it can be computed without a layer.

    Args:
        left: a recipe class.
        right: another.

    Returns:
        The differences, in the order of the names; it prints itself, as text and in a notebook.

    Raises:
        ArgumentTypeError: one of them is not a recipe.

    Examples:
        >>> from brevq.inject import Injector
        >>> class Int8(Injector):
        ...     bits = 8
        >>> class Int4(Int8):
        ...     bits = 4
        >>> print(diff(Int8, Int4))
              Int8      Int4
        bits  8 (Int8)  4 (Int4)
    """
    check_recipe("left", left)
    check_recipe("right", right)
    ours, theirs = _contents(left), _contents(right)
    rows = []
    for name in sorted({*ours, *theirs}):
        if name in ours and name in theirs and _same(ours[name][0], theirs[name][0]):
            continue
        rows.append(Difference(name, *_side(ours.get(name)), *_side(theirs.get(name))))
    return Diff(left.__name__, right.__name__, tuple(rows))


def _contents(recipe: Any) -> dict[str, tuple[Any, str]]:
    """What a recipe has under each name, and where from: of a `@value` that returns a class, that class."""
    found = {name: (declared.content, label(declared.by)) for name, declared in recipe.__declared__.items()}
    for name, node in plan_of(recipe).nodes.items():
        if node.returns is not None:
            found[name] = (node.returns.content, f"{label(node.by)}, @value")
    return found


def _same(left: Any, right: Any) -> bool:
    if left is right:
        return True
    try:
        return type(left) is type(right) and bool(left == right) and repr(left) == repr(right)
    except Exception:  # noqa: BLE001  # contents whose comparison is no truth value, such as tensors, count as different
        return False


def _side(found: tuple[Any, str] | None) -> tuple[str, str]:
    if found is None:
        return "-", ""
    content, by = found
    return content.__name__ if isinstance(content, type) else repr(content), by


def _by(content: str, by: str) -> str:
    return f"{content} ({by})" if by else content
