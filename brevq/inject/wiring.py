"""Seeing a recipe: how it is wired."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from brevq.errors import ArgumentTypeError
from brevq.inject.analyse import Spec
from brevq.inject.faults import label
from brevq.inject.pages import check_recipe, escape
from brevq.inject.plan import ROOT, Node, Plan, plan_of
from brevq.inject.resolve import check


@attrs.frozen
class Line:
    """One name of a wiring tree: how deep it stands, what it is, and where that comes from."""

    depth: int
    name: str
    content: str
    origin: str
    branch: str = attrs.field(default="", eq=False)


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
    check(recipe)
    supplies = _supplies(recipe, owner)
    plan = plan_of(recipe)
    lines = tuple(_tree(plan, ROOT, supplies, type(owner).__name__, set(), 0, "", ""))
    return Wiring(recipe.__name__, lines, _footer(supplies, owner))


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


def _tree(
    plan: Plan,
    name: str,
    supplies: Mapping[str, Any],
    owner: str,
    seen: set[str],
    depth: int,
    branch: str,
    stem: str,
) -> Iterator[Line]:
    """The line of `name` and those below it; what was shown before is not shown again."""
    node = plan.nodes[name]
    again = name in seen and bool(node.below)
    seen.add(name)
    content = _content(node, supplies) + (" (above)" if again else "")
    yield Line(depth, name, content, _origin(node, supplies, owner), branch)
    if again:
        return
    children: list[tuple[str, str | None]] = [(key, None) for key in node.below]
    children += [(key, default) for key, default in _defaults(node) if key not in plan.recipe.__declared__]
    for i, (key, default) in enumerate(children):
        last = i == len(children) - 1
        here, below = stem + ("└─ " if last else "├─ "), stem + ("   " if last else "│  ")
        if default is None:
            yield from _tree(plan, key, supplies, owner, seen, depth + 1, here, below)
        else:
            yield Line(depth + 1, key, default, f"default of {_built(node).label}", here)


def _built(node: Node) -> Spec:
    """What is built under the name: the class that a `@value` returned, or what is declared."""
    return node.returns or node.spec


def _content(node: Node, supplies: Mapping[str, Any]) -> str:
    if node.spec.kind == "supplied":
        return str(supplies[node.name]) if node.name in supplies else f"<{node.spec.label}>"
    if node.spec.kind == "data" and isinstance(node.spec.content, type):
        return node.spec.content.__name__
    if node.returns is not None:
        return node.returns.label
    return node.spec.label


def _origin(node: Node, supplies: Mapping[str, Any], owner: str) -> str:
    if node.spec.kind == "supplied":
        return f"supplied by {owner}" if node.name in supplies else f"supplied by the layer ({label(node.by)})"
    return f"{label(node.by)} (@value)" if node.returns is not None else label(node.by)


def _defaults(node: Node) -> Iterator[tuple[str, str]]:
    """The optional arguments that what is built under the name takes, with their defaults."""
    spec = _built(node)
    if spec.kind != "class" or not spec.optional:
        return
    found = inspect.signature(spec.content).parameters
    for key in spec.optional:
        yield key, repr(found[key].default)
