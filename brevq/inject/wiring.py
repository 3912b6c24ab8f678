"""Seeing a recipe: how it is wired."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from brevq.errors import ArgumentTypeError
from brevq.inject.analyse import ROOT, analyse, short
from brevq.inject.faults import label
from brevq.inject.pages import check_recipe
from brevq.inject.plan import Node, Plan, plan_of
from brevq.inject.resolve import check_for

if TYPE_CHECKING:
    from brevq.drawing import Drawing


@attrs.frozen
class Line:
    """One name of a wiring tree: how deep it stands, what it is, and where that comes from.

    `kind` is one of *declared*, *supplied* by a layer and *default* of a constructor; `replaces` says what it
    overrides of which recipe, and is empty where it overrides nothing.
    """

    depth: int
    name: str
    content: str
    origin: str
    branch: str = attrs.field(default="", eq=False)
    kind: str = attrs.field(default="declared", eq=False)
    replaces: str = attrs.field(default="", eq=False)


@attrs.frozen
class Wiring:
    """The wiring tree of a recipe; prints as text, and as a table in a notebook."""

    recipe: str
    lines: tuple[Line, ...]
    supplied: tuple[str, ...] = ()

    def __str__(self) -> str:
        left = [f"{line.branch}{line.name} = {line.content}" for line in self.lines]
        width = max(map(len, left))
        rows = [f"{text.ljust(width)}  {line.origin}".rstrip() for text, line in zip(left, self.lines, strict=True)]
        return "\n".join([self.recipe, *rows, *self.supplied])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from brevq.drawing import escape  # noqa: PLC0415  # pages load when there is one to write

        rows = [
            f'<tr><td style="text-align:left;padding-left:{0.5 + 1.5 * line.depth}em"><code>{escape(line.name)}</code>'
            f'</td><td style="text-align:left"><code>{escape(line.content)}</code></td>'
            f'<td style="text-align:left">{escape(line.origin)}</td></tr>'
            for line in self.lines
        ]
        head = "".join(f'<th style="text-align:left">{word}</th>' for word in ("name", "part", "declared by"))
        foot = "".join(f"<br>{escape(text)}" for text in self.supplied)
        body = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
        return f"<div><strong>{escape(self.recipe)}</strong>{body}{foot}</div>"

    def drawn(self) -> Drawing:
        """The wiring tree as a picture."""
        from brevq.drawing import Row, wiring_tree  # noqa: PLC0415  # pictures load when there is one to draw

        rows = [Row(line.depth, line.name, line.content, line.origin, line.kind, line.replaces) for line in self.lines]
        return wiring_tree(self.recipe, rows, self.supplied)


def explain(recipe: Any, owner: Any = None) -> Wiring:
    """The wiring tree of `recipe`, from ``tensor_quant`` down: each name, what it is, and the class that declared it.

    Names that no class declares appear with the default of the constructor that asks for them: they are what could
    be overridden.

    Args:
        recipe: a recipe class.
        owner: a layer that the recipe is for, whose shapes, dtype and device are then shown. Default: none.

    Returns:
        A tree that prints itself, as text and in a notebook.

    Raises:
        RecipeError: the recipe has faults; all of them are listed.
        ArgumentTypeError: `recipe` is not a recipe, or `owner` is not a layer.

    Examples:
        >>> from brevq.inject import Injector
        >>> class Grid:
        ...     def __init__(self, bits, signed=True): ...
        >>> class Recipe(Injector):
        ...     tensor_quant = Grid
        >>> class Int4(Recipe):
        ...     bits = 4
        >>> print(explain(Int4))
        Int4
        tensor_quant = Grid  Recipe
        ├─ bits = 4          Int4
        └─ signed = True     default of Grid
    """
    check_recipe("recipe", recipe)
    supplies = _supplies(recipe, owner)
    check_for(recipe, supplies)
    tree = _Tree(plan_of(recipe, ROOT, supplies), supplies, type(owner).__name__)
    return Wiring(recipe.__name__, tuple(tree.lines(ROOT)), _footer(supplies, owner))


def _supplies(recipe: Any, owner: Any) -> Mapping[str, Any]:
    if owner is None:
        return {}
    if not hasattr(owner, "supplies"):
        raise ArgumentTypeError(f"`owner` (={owner!r}) must be a layer that recipes can be given to")
    supplies: Mapping[str, Any] = owner.supplies(recipe)
    return supplies


def _footer(supplies: Mapping[str, Any], owner: Any) -> tuple[str, ...]:
    if not supplies:
        return ()
    words = ", ".join(f"{name} = {content}" for name, content in supplies.items())
    return (f"{type(owner).__name__} supplies {words}",)


class _Tree:
    """The lines of a wiring tree, from the root down; a part that was shown before is not shown again."""

    def __init__(self, plan: Plan, supplies: Mapping[str, Any], owner: str) -> None:
        self.plan = plan
        self.supplies = supplies
        self.owner = owner
        self.seen: set[str] = set()

    def lines(self, name: str, depth: int = 0, branch: str = "", stem: str = "") -> Iterator[Line]:
        """The line of `name`, drawn behind `branch`, and those below it, drawn behind `stem`."""
        node = self.plan.nodes[name]
        again = name in self.seen and bool(node.below)
        self.seen.add(name)
        content = _content(node, self.supplies) + (" (above)" if again else "")
        kind = "supplied" if node.spec.kind == "supplied" else "declared"
        origin = _origin(node, self.supplies, self.owner)
        yield Line(depth, name, content, origin, branch, kind, _replaced(self.plan.recipe, node))
        if not again:
            yield from self._below(node, depth + 1, stem)

    def _below(self, node: Node, depth: int, stem: str) -> Iterator[Line]:
        defaults = {key: text for key, text in _defaults(node) if key not in self.plan.recipe.__declared__}
        names = [*node.below, *defaults]
        for name in names:
            branch, below = ("└─ ", "   ") if name is names[-1] else ("├─ ", "│  ")
            if name in defaults:
                yield Line(depth, name, defaults[name], f"default of {node.built.label}", stem + branch, "default")
            else:
                yield from self.lines(name, depth, stem + branch, stem + below)


def _content(node: Node, supplies: Mapping[str, Any]) -> str:
    if node.spec.kind == "supplied":
        return str(supplies[node.name]) if node.name in supplies else str(node.spec.content)
    if node.spec.kind == "data" and isinstance(node.spec.content, type):
        return node.spec.content.__name__
    if node.returns is not None:
        return node.returns.label
    return node.spec.label


def _replaced(recipe: Any, node: Node) -> str:
    """What a recipe that is inherited from has in the place of a part, and which one; empty if none has."""
    below = recipe.__mro__[recipe.__mro__.index(node.by) + 1 :]
    for base in below:
        own = vars(base).get("__own__", {})
        if node.name in own:
            content = own[node.name]
            words = content.__name__ if isinstance(content, type) else analyse(node.name, content).label
            return f"{words} of {label(base)}"
    return ""


def _origin(node: Node, supplies: Mapping[str, Any], owner: str) -> str:
    if node.spec.kind == "supplied":
        return f"supplied by {owner}" if node.name in supplies else f"supplied by the layer ({label(node.by)})"
    return f"{label(node.by)} (@value)" if node.returns is not None else label(node.by)


def _defaults(node: Node) -> Iterator[tuple[str, str]]:
    """The optional arguments that what is built under the name takes, with their defaults."""
    spec = node.built
    if spec.kind != "class" or not spec.optional:
        return
    found = inspect.signature(spec.content).parameters
    for key in spec.optional:
        yield key, short(found[key].default)
