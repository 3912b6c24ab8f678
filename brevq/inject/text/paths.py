"""Import paths, ``package.module:Name``: from a thing to its path, and back without running what a path names."""

from __future__ import annotations

import enum
import importlib
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import attrs

from brevq.inject._package import PackageValue
from brevq.inject.text.faulty import Faulty

_NOTHING = object()

_NO_PATH = (
    "{place} (={path!r}) is no import path, `package.module:Name`, or has a name that begins with two underscores."
)
_NOT_ALLOWED = (
    "{place} (={path!r}) is {whose}of `{package}`, which is not allowed: allowed are {allowed}.\n"
    "If you trust it: load(text, allowed=(..., {package!r}))."
)
_NO_MODULE = "{place} (={path!r}) can not be imported: {error}."
_NO_NAME = "{place} (={path!r}) does not exist: there is no `{name}` in {module}."
_WRONG_KIND = "{place} (={path!r}) must be {wanted}, and is {kind}."


@attrs.frozen
class Kind:
    """A kind of thing that a path may name: what it is called, and whether something is one.

    Examples:
        >>> NAMED["class"].fits(dict), NAMED["class"].fits(4)
        (True, False)
    """

    what: str
    fits: Callable[[Any], bool]


def is_recipe(content: Any) -> bool:
    """Whether `content` is a recipe class.

    Args:
        content: anything.

    Examples:
        >>> is_recipe(dict)
        False
    """
    return isinstance(content, type) and "__declared__" in vars(content)


def is_data(content: Any) -> bool:
    """Whether `content` is a class of plain data: made by `attrs.frozen`.

    Args:
        content: anything.

    Examples:
        >>> is_data(Kind), is_data(dict)
        (True, False)
    """
    return isinstance(content, type) and attrs.has(content) and content.__hash__ is not None


#: What a path may name, by the field that holds the path.
NAMED = {
    "base": Kind("a recipe", is_recipe),
    "class": Kind("a class, and no recipe", lambda content: isinstance(content, type) and not is_recipe(content)),
    "enum": Kind("an Enum class", lambda content: isinstance(content, enum.EnumMeta)),
    "attrs": Kind("a class made by attrs.frozen", is_data),
    "value": Kind("a `@value`", lambda content: isinstance(content, PackageValue)),
}


def path_of(content: Any) -> str | None:
    """The shortest import path of a class or of a `@value`: the outermost package that has it under its name.

    Args:
        content: a class or a `@value`.

    Returns:
        The path; None where nothing has it under its name, as with what is defined in a function or in ``__main__``.

    Examples:
        >>> from brevq.inject import Injector
        >>> path_of(Injector), path_of(type("Local", (), {}))
        ('brevq.inject:Injector', None)
    """
    module, name = home(content)
    if not _speakable(f"{module}:{name}"):
        return None
    for outer in _outwards_in(module):
        if outer in sys.modules and _find(sys.modules[outer], name) is content:
            return f"{outer}:{name}"
    return None


def home(content: Any) -> tuple[str, str]:
    """The module and the qualified name under which a class or a `@value` was defined.

    Args:
        content: a class or a `@value`.

    Examples:
        >>> home(Kind)
        ('brevq.inject.text.paths', 'Kind')
    """
    named = content.function if isinstance(content, PackageValue) else content
    return str(named.__module__), str(named.__qualname__)


def fetch(place: str, field: str, path: Any, allowed: tuple[str, ...]) -> Any:
    """What a path names; its module is imported, if that is allowed, and nothing is called.

    Args:
        place: where the path stands, for messages.
        field: one of `NAMED`, which says what kind of thing the path must name.
        path: the import path.
        allowed: packages and modules that may be imported from.

    Raises:
        Faulty: it is no path, it is not allowed, it does not exist, or it names another kind of thing.

    Examples:
        >>> fetch("`part`", "class", "collections:OrderedDict", ("collections",))
        <class 'collections.OrderedDict'>
    """
    here = {"place": place, "path": path}
    if not isinstance(path, str) or not _speakable(path):
        raise Faulty(_NO_PATH.format(**here))
    module, name = path.split(":")
    _refuse_foreign(module, allowed, here, "")
    try:
        holder = importlib.import_module(module)
    except (Exception, SystemExit) as error:  # noqa: BLE001  # whatever a module raises when it is imported is told
        raise Faulty(_NO_MODULE.format(**here, error=f"{type(error).__name__}: {error}"), cause=error) from None
    content = _find(holder, name)
    kind = NAMED[field]
    if content is _NOTHING:
        raise Faulty(_NO_NAME.format(**here, name=name, module=module))
    if not kind.fits(content):
        raise Faulty(_WRONG_KIND.format(**here, wanted=kind.what, kind=_called(content)))
    # A module also has what it imported from elsewhere.
    _refuse_foreign(home(content)[0], allowed, here, "a name for something ")
    return content


def _refuse_foreign(module: str, allowed: tuple[str, ...], here: dict[str, str], whose: str) -> None:
    if not any(module == package or module.startswith(f"{package}.") for package in allowed):
        listed = ", ".join(allowed) or "none"
        raise Faulty(_NOT_ALLOWED.format(**here, whose=whose, package=module.split(".", maxsplit=1)[0], allowed=listed))


def _speakable(path: str) -> bool:
    """Whether it reads as an import path without names that are Python's own."""
    module, colon, name = path.partition(":")
    words = [*module.split("."), *name.split(".")]
    return bool(colon) and all(word.isidentifier() and not word.startswith("__") for word in words)


def _outwards_in(module: str) -> Iterator[str]:
    """The packages that a module is in, the outermost first, and the module itself."""
    words = module.split(".")
    return (".".join(words[:count]) for count in range(1, len(words) + 1))


def _find(holder: Any, name: str) -> Any:
    """What a module has under a qualified name: read from what modules, classes and recipes hold, running nothing."""
    for word in name.split("."):
        if not isinstance(holder, (ModuleType, type)):
            return _NOTHING
        names = vars(holder)["__own__"] if is_recipe(holder) else vars(holder)
        holder = names.get(word, _NOTHING)
    return holder


def _called(content: Any) -> str:
    """What something is called in a message."""
    if is_recipe(content):
        return "a recipe"
    return "another class" if isinstance(content, type) else f"of type {type(content).__name__}"
