"""The texts of what can be wrong with a recipe. A fault is told as a path from the root down to its place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs

from brevq.inject.analyse import Spec, signature
from brevq.inject.near import did_you_mean, nearest

#: From the root down: names, each with what it is.
Path = tuple[tuple[str, str], ...]


@attrs.frozen
class Fault:
    """One thing that is wrong: a text of several lines.

    `cause` is the error that it came from, if one was raised; `near` says whether it is a near miss.
    """

    text: str
    cause: Exception | None = None
    near: bool = False


@attrs.frozen
class Missing:
    """A name that is asked for and that nothing provides."""

    name: str
    path: Path
    asked_by: Spec | None

    def near(self, unused: Iterable[str]) -> str | None:
        """The one of the `unused` names that was probably meant to provide it."""
        return nearest(self.name, unused)

    def fault(self, near: str | None, recipe: Any) -> Fault:
        """The fault, which names the near miss where there is one."""
        lines = [f"Nothing provides `{self.name}`."]
        if self.asked_by is not None:
            lines += ["", draw((*self.path, (self.name, "?"))), "", f"{signature(self.asked_by)} asks for it."]
        else:
            lines += [
                "It is the part that layers ask for: a core quantizer, such as brevq.core.quant.RescalingIntQuant."
            ]
        if near:
            by = recipe.__declared__[near].by
            lines += [f"{label(by)} declares `{near}`, which nothing takes. Did you mean `{self.name}`?"]
        else:
            derived = ".let(" in recipe.__name__
            here = "" if derived else f"`{self.name} = ...` in {label(recipe)}, or "
            lines += [f"Declare it: {here}{label(recipe)}.let({self.name}=...)."]
        return Fault("\n".join(lines))


def label(recipe: type) -> str:
    """What a recipe is called as the origin of a name; overrides are left out, since the name is one of them.

    Args:
        recipe: the recipe class.

    Examples:
        >>> label(type("Int8.let(bit_width=4)", (), {}))
        'Int8.let(...)'
    """
    return recipe.__name__.split(".let(")[0] + (".let(...)" if ".let(" in recipe.__name__ else "")


def unused(name: str, by: type, names: Iterable[str]) -> Fault:
    """A name that is declared by the class `by` and that nothing takes; `names` are those that are taken."""
    hint = did_you_mean(name, names)
    out = hint or " Remove it, or declare a part that takes it."
    return Fault(f"Nothing takes `{name}`, which {label(by)} declares.{out}", near=bool(hint))


def cycle(path: Path, name: str, recipe: Any) -> Fault:
    """A name that needs itself: `path` leads to where it is asked for again."""
    start = [key for key, _ in path].index(name)
    steps = [(key, f"{what}, declared by {label(recipe.__declared__[key].by)}") for key, what in path[start:]]
    drawn = draw((*steps, (name, "again")))
    return Fault(
        f"`{name}` needs itself.\n\n{drawn}\n\nOverride one of them with a part that does not ask for the next."
    )


def wrong_kind(path: Path, name: str, by: type, complaint: str) -> Fault:
    """Something that is declared by the class `by` and that can be no part."""
    return Fault(f"{complaint}\n\n{draw((*path, (name, f'declared by {label(by)}')))}")


def none_component(path: Path, name: str, by: type, asked_by: Spec) -> Fault:
    """A component that the class `by` declares as None, where `asked_by` has no default for it."""
    return Fault(
        f"`{name}` is None, declared by {label(by)}, and {signature(asked_by)} needs a component.\n\n"
        f"{draw((*path, (name, 'None')))}"
    )


def not_supplied(path: Path, name: str, what: str, recipe: type) -> Fault:
    """A name that a layer supplies, where there is no layer."""
    return Fault(
        f"`{name}` ({what}) is supplied by the layer that a recipe is given to, and nothing supplies it here.\n"
        f"Give the recipe to a layer, or declare the name: {label(recipe)}.let({name}=...).\n\n"
        f"{draw((*path, (name, 'supplied by a layer')))}"
    )


def raised(path: Path, error: Exception, arguments: Mapping[str, str]) -> Fault:
    """A constructor or a `@value` that raised; `arguments` are the plain values that it got, with their origin."""
    lines = [f"{path[-1][1]} raised {type(error).__name__}: {error}", "", draw(path)]
    if arguments:
        lines += [f"{'  ' * (len(path) + 1)}{name} = {origin}" for name, origin in arguments.items()]
    return Fault("\n".join(lines), error)


def draw(path: Iterable[tuple[str, str]]) -> str:
    """A path, one name a line, each indented below the one that asks for it.

    Examples:
        >>> print(draw((("tensor_quant", "IntQuant"), ("signed", "?"))))
          tensor_quant: IntQuant
            signed: ?
    """
    return "\n".join(f"{'  ' * (depth + 1)}{name}: {label}" for depth, (name, label) in enumerate(path))


def report(recipe: Any, found: Sequence[Fault]) -> str:
    """The text of an error: the recipe, and all its faults.

    Args:
        recipe: the recipe class.
        found: its faults, at least one.
    """
    if len(found) == 1:
        return f"Can not build {recipe.__name__}.\n\n{found[0].text}"
    blocks = [f"{number}. {_hang(fault.text)}" for number, fault in enumerate(found, start=1)]
    return f"Can not build {recipe.__name__}: {len(found)} faults.\n\n" + "\n\n".join(blocks)


def _hang(text: str) -> str:
    return "\n".join("   " + line if line and i else line for i, line in enumerate(text.split("\n")))
