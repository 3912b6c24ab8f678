"""What a recipe declares, as JSON, and back.

Numbers, strings, truth values, None and lists are themselves. Anything else is an object that says by its fields what
it is: ``{"class": path}``, ``{"enum": path, "member": name}``, ``{"attrs": path, "fields": {...}}``,
``{"value": path}`` for a `@value`, ``{"this": steps}``, ``{"tuple": [...]}``, ``{"float": "nan"}``, and a recipe, with
`base` and `overrides`.
"""

from __future__ import annotations

import enum
import inspect
import keyword
import math
from collections.abc import Callable, Iterable
from typing import Any

import attrs

from brevq.errors import BrevqError
from brevq.inject._package import PackageThis, PackageValue
from brevq.inject.analyse import short
from brevq.inject.declare import This
from brevq.inject.plan import plan_of
from brevq.inject.text.faulty import Faulty, each, exactly
from brevq.inject.text.paths import fetch, is_data, is_recipe, path_of

#: How deep a text may be nested.
DEPTH = 64

_NO_HOME = (
    "{place} (={label}) can not be imported: `{module}` has no {what} under the name `{name}`.\n"
    "Define it at the top level of a module that others can import."
)
_FUNCTION = (
    "{place} (={label}) is a function, which can not be written.\n"
    "Compute the name with a `@value`, in a recipe at the top level of a module, and derive from that recipe."
)
_OBJECT = (
    "{place} (={label}) is an instance of {kind}, which can not be written.\n"
    "What can: numbers, strings, None, lists, tuples, Enum members, attrs.frozen data, classes and recipes.\n"
    "Declare one of them, or declare it in a recipe at the top level of a module, and derive from that recipe."
)
_PRIVATE = "{place} (={label}) refers to a name that begins with an underscore.\nRefer to a public name."
_NO_TAG = (
    "{place} is a JSON object with the fields {fields}, which stands for nothing.\n"
    "Those that do have one of these sets of fields: {known}."
)
_NO_KEY = "{place} overrides {name!r}, which is no name that a recipe can declare."


def write(place: str, content: Any) -> Any:
    """What a recipe declares, as JSON.

    Args:
        place: what it is called in messages.
        content: what is declared.

    Raises:
        Faulty: it can not be written; everything in it that can not be is named.

    Examples:
        >>> write("`shape`", (4, math.inf, dict))
        {'tuple': [4, {'float': 'inf'}, {'class': 'builtins:dict'}]}
    """
    for fits, written in _WRITTEN:
        if fits(content):
            return written(place, content)
    raise Faulty(_OBJECT.format(place=place, label=short(content), kind=type(content).__name__))


def write_recipe(place: str, recipe: Any) -> dict[str, Any]:
    """A recipe as the nearest recipe that can be imported, and what it declares differently.

    The nearest is that with the fewest differences. Names that only parts of other bases take, which the recipe has
    replaced, are left out.

    Args:
        place: what it is called in messages; empty for the recipe that is written itself.
        recipe: a recipe class.

    Raises:
        Faulty: an override can not be written; all that can not be are named.

    Examples:
        >>> from brevq.inject import Injector
        >>> write_recipe("", Injector.let(bits=4))
        {'base': 'brevq.inject:Injector', 'overrides': {'bits': 4}}
    """
    bases = [base for base in recipe.__mro__ if is_recipe(base) and path_of(base)]
    base = min(bases, key=lambda base: len(_overrides(recipe, base)))
    overrides = _overrides(recipe, base)
    lost = plan_of(recipe).taken - plan_of(base.let(**overrides)).taken
    kept = ((name, content) for name, content in overrides.items() if name not in lost)
    written = each(lambda name, content: write(inside(place, name), content), kept)
    return {"base": path_of(base), "overrides": written}


def read(place: str, text: Any, allowed: tuple[str, ...], depth: int = 0) -> Any:
    """What a recipe declares, from JSON.

    Args:
        place: what it is called in messages.
        text: parsed JSON.
        allowed: packages and modules that may be imported from.
        depth: how deep it is nested.

    Raises:
        Faulty: it stands for nothing, or for something that is not allowed; every fault is named.

    Examples:
        >>> read("`shape`", {"tuple": [4, {"float": "inf"}]}, allowed=())
        (4, inf)
    """
    if depth > DEPTH:
        raise Faulty(f"{place} is nested more than {DEPTH} deep.")
    if isinstance(text, list):
        return _read_items(place, text, allowed, depth)
    if not isinstance(text, dict):
        return text
    found = _READ.get(frozenset(text))
    if found is None:
        known = "; ".join(", ".join(sorted(fields)) for fields in _READ)
        raise Faulty(_NO_TAG.format(place=place, fields=", ".join(map(repr, text)) or "none", known=known))
    return found(place, text, allowed, depth + 1)


def read_recipe(place: str, text: dict[str, Any], allowed: tuple[str, ...], depth: int = 0) -> Any:
    """A recipe, from the `base` and the `overrides` of a JSON object.

    Args:
        place: what it is called in messages; empty for the recipe that is read itself.
        text: the object.
        allowed: packages and modules that may be imported from.
        depth: how deep it is nested.

    Raises:
        Faulty: the base or an override is wrong; every fault is named.

    Examples:
        >>> read_recipe("", {"base": "brevq.inject:Injector", "overrides": {"bits": 4}}, ("brevq",)).bits
        4
    """
    parts = {"base": text["base"], "overrides": text["overrides"]}

    def part(field: str, content: Any) -> Any:
        if field == "base":
            return fetch(inside(place, field), field, content, allowed)
        return _read_fields(inside(place, field), content, lambda name: inside(place, name), allowed, depth)

    done = each(part, parts.items())
    _refuse_names(place, done["overrides"])
    return _made(place, done["base"].let, done["overrides"])


def inside(place: str, name: str) -> str:
    """What a name is called in messages that stands in something called `place`.

    Args:
        place: what holds it; empty for the recipe itself.
        name: a name.

    Examples:
        >>> inside("", "bits"), inside("`format`", "bits")
        ('`bits`', '`format.bits`')
    """
    return f"`{place[1:-1]}.{name}`" if place else f"`{name}`"


def _overrides(recipe: Any, base: Any) -> dict[str, Any]:
    """What a recipe declares differently than one of those that it inherits from, sorted by name."""
    same = {name: declared.content for name, declared in base.__declared__.items()}
    return {
        name: declared.content
        for name, declared in sorted(recipe.__declared__.items())
        if name not in same or declared.content is not same[name]
    }


def _write_plain(place: str, content: Any) -> Any:
    return content


def _write_float(place: str, content: float) -> Any:
    return content if math.isfinite(content) else {"float": str(content)}


def _write_items(place: str, content: Iterable[Any]) -> list[Any]:
    items = [(f"{place[:-1]}[{index}]`", item) for index, item in enumerate(content)]
    return list(each(write, items).values())


def _write_tuple(place: str, content: Any) -> Any:
    return {"tuple": _write_items(place, content)}


def _write_class(place: str, content: Any) -> Any:
    return {"class": _importable(place, content, "class")}


def _write_enum(place: str, content: enum.Enum) -> Any:
    if type(content).__members__.get(content.name) is not content:  # flags that are combined have no name
        raise Faulty(_OBJECT.format(place=place, label=short(content), kind=type(content).__name__))
    return {"enum": _importable(place, type(content), "class"), "member": content.name}


def _write_attrs(place: str, content: Any) -> Any:
    def parts(field: str, inner: Any) -> Any:
        if field == "attrs":
            return _importable(place, inner, "class")
        return each(lambda name, value: write(inside(place, name), value), inner.items())

    return each(parts, [("attrs", type(content)), ("fields", _fields(content))])


def _write_value(place: str, content: Any) -> Any:
    return {"value": _importable(place, content, "`@value`")}


def _write_this(place: str, content: Any) -> Any:
    steps = content.__expression__
    if not all(_is_step(*step) for step in steps):
        raise Faulty(_PRIVATE.format(place=place, label=content))
    return {"this": [[kind, key] for kind, key in steps]}


def _write_function(place: str, content: Any) -> Any:
    raise Faulty(_FUNCTION.format(place=place, label=short(content)))


def _fields(content: Any) -> dict[str, Any]:
    """What the constructor of an attrs class is given, by the names of its arguments."""
    return {field.alias: getattr(content, field.name) for field in attrs.fields(type(content)) if field.init}


def _importable(place: str, content: Any, what: str) -> str:
    path = path_of(content)
    if path is None:
        named = content.function if isinstance(content, PackageValue) else content
        here = {"place": place, "label": short(content), "what": what}
        raise Faulty(_NO_HOME.format(**here, module=named.__module__, name=named.__qualname__))
    return path


def _is_step(kind: Any, key: Any) -> bool:
    """Whether it is a step from `this` that a text may take: to a public name, or to an item."""
    if kind == ".":
        return isinstance(key, str) and key.isidentifier() and not key.startswith("_")
    return kind == "[]" and type(key) in (int, str)


_PLAIN = (bool, int, str, type(None))
# One line a kind; the first that fits counts.
_WRITTEN: tuple[tuple[Callable[[Any], bool], Callable[[str, Any], Any]], ...] = (
    (lambda content: type(content) in _PLAIN, _write_plain),
    (lambda content: type(content) is float, _write_float),
    (lambda content: type(content) is list, _write_items),
    (lambda content: type(content) is tuple, _write_tuple),
    (is_recipe, write_recipe),
    (lambda content: isinstance(content, type), _write_class),
    (lambda content: isinstance(content, enum.Enum), _write_enum),
    (lambda content: isinstance(content, PackageValue), _write_value),
    (lambda content: isinstance(content, PackageThis), _write_this),
    (lambda content: is_data(type(content)), _write_attrs),
    (inspect.isroutine, _write_function),
)


def _read_items(place: str, text: list[Any], allowed: tuple[str, ...], depth: int) -> list[Any]:
    items = ((f"{place[:-1]}[{index}]`", item) for index, item in enumerate(text))
    return list(each(lambda where, item: read(where, item, allowed, depth + 1), items).values())


def _read_fields(
    place: str, text: Any, inner: Callable[[str], str], allowed: tuple[str, ...], depth: int
) -> dict[str, Any]:
    """The fields of a JSON object, each read; `inner` says what a field is called in messages."""
    if not isinstance(text, dict):
        raise Faulty(f"{place} (={short(text)}) must be a JSON object.")
    return each(lambda name, content: read(inner(name), content, allowed, depth + 1), text.items())


def _read_float(place: str, text: dict[str, Any], allowed: tuple[str, ...], depth: int) -> float:
    if text["float"] not in ("inf", "-inf", "nan"):
        raise Faulty(f"{place} (={short(text['float'])}) must be 'inf', '-inf' or 'nan'.")
    return float(text["float"])


def _read_tuple(place: str, text: dict[str, Any], allowed: tuple[str, ...], depth: int) -> tuple[Any, ...]:
    if not isinstance(text["tuple"], list):
        raise Faulty(f"{place} (={short(text['tuple'])}) must be a tuple, written as a JSON array.")
    return tuple(_read_items(place, text["tuple"], allowed, depth))


def _read_path(field: str) -> Callable[[str, dict[str, Any], tuple[str, ...], int], Any]:
    def read_path(place: str, text: dict[str, Any], allowed: tuple[str, ...], depth: int) -> Any:
        return fetch(place, field, text[field], allowed)

    return read_path


def _read_enum(place: str, text: dict[str, Any], allowed: tuple[str, ...], depth: int) -> Any:
    kind, member = fetch(place, "enum", text["enum"], allowed), text["member"]
    if not isinstance(member, str) or member not in kind.__members__:
        raise Faulty(f"{place} (={short(member)}) must be a member of {kind.__name__}: {', '.join(kind.__members__)}.")
    return kind.__members__[member]


def _read_attrs(place: str, text: dict[str, Any], allowed: tuple[str, ...], depth: int) -> Any:
    kind = fetch(place, "attrs", text["attrs"], allowed)
    fields = _read_fields(place, text["fields"], lambda name: inside(place, name), allowed, depth)
    exactly(f"{place}, of class {kind.__name__},", fields, [field.alias for field in attrs.fields(kind) if field.init])
    return _made(place, kind, fields)


def _read_this(place: str, text: dict[str, Any], allowed: tuple[str, ...], depth: int) -> Any:
    steps = text["this"]
    fits = isinstance(steps, list) and all(isinstance(step, list) and len(step) == 2 for step in steps)
    if not fits or not all(_is_step(*step) for step in steps):
        raise Faulty(
            f'{place} (={short(steps)}) must be steps to public names, [".", name], and to items, ["[]", key].'
        )
    return This(tuple((kind, key) for kind, key in steps))


def _refuse_names(place: str, overrides: Iterable[str]) -> None:
    """Refuse overrides of what is no name of a part."""
    wrong = [name for name in overrides if not name.isidentifier() or keyword.iskeyword(name) or name.startswith("__")]
    if wrong:
        raise Faulty(*(_NO_KEY.format(place=place or "The text", name=name) for name in wrong))


def _made(place: str, make: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    """What `make` gives for these arguments; what it raises becomes a fault."""
    try:
        return make(**arguments)
    except BrevqError as error:
        raise Faulty(f"{place + ': ' if place else ''}{error}", cause=error) from None
    except Exception as error:  # noqa: BLE001  # whatever the constructor of a data class raises is told
        raise Faulty(f"{place} can not be made: {type(error).__name__}: {error}", cause=error) from None


# By the fields of a JSON object, what it stands for.
_READ: dict[frozenset[str], Callable[[str, dict[str, Any], tuple[str, ...], int], Any]] = {
    frozenset(("float",)): _read_float,
    frozenset(("tuple",)): _read_tuple,
    frozenset(("class",)): _read_path("class"),
    frozenset(("enum", "member")): _read_enum,
    frozenset(("attrs", "fields")): _read_attrs,
    frozenset(("value",)): _read_path("value"),
    frozenset(("this",)): _read_this,
    frozenset(("base", "overrides")): read_recipe,
}
