"""What a library has: its recipes, the bases that others derive from, and what is wrong with it."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import attrs

from brevq.errors import BrevqError
from brevq.inject.installed import Library, package_of
from brevq.inject.plan import plan_of
from brevq.inject.text.paths import is_recipe, path_of
from brevq.recipes.records import Record, describe


class LibraryError(BrevqError, ImportError):
    """A library of recipes can not be imported."""


@attrs.frozen
class Problem:
    """A library, or a recipe of one, that can not be listed.

    Args:
        library: the library.
        recipe: name of the recipe; None where it is the whole library.
        reason: why.
        cause: the error that it came from.

    Examples:
        >>> library = Library("acme", "acme.recipes", "acme-quant", "1.2")
        >>> print(Problem(library, "Int3Weight", "it lacks bits", ValueError()))
        acme:Int3Weight: it lacks bits
    """

    library: Library
    recipe: str | None
    reason: str
    cause: BaseException = attrs.field(eq=False, repr=False)

    def __str__(self) -> str:
        return f"{self.library.name}:{self.recipe}: {self.reason}" if self.recipe else self.reason


@attrs.frozen
class Contents:
    """What a library has.

    Args:
        records: its recipes, in its own order.
        bases: names of the recipes that are there to derive from, and can not be built themselves.
        problems: recipes that can not be built, and are no bases.
    """

    records: tuple[Record, ...]
    bases: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()


def import_library(library: Library) -> ModuleType:
    """The module that has the recipes of a library, imported.

    Args:
        library: what a distribution declares.

    Raises:
        LibraryError: it can not be imported.

    Examples:
        >>> import_library(Library("acme", "no_such_module", "acme-quant", "1.2"))
        Traceback (most recent call last):
        ...
        brevq.recipes.contents.LibraryError: Library acme (no_such_module, of acme-quant 1.2) can not be imported:
        ModuleNotFoundError: No module named 'no_such_module'
    """
    if not library.is_module:
        raise LibraryError(f"Library {library} can not be imported: `{library.module}` is no import path of a module")
    try:
        return importlib.import_module(library.module)
    except (Exception, SystemExit) as error:
        reason = f"{type(error).__name__}: {error}"
        raise LibraryError(f"Library {library} can not be imported: {reason}") from error


def contents_of(library: Library) -> Contents:
    """What a library has, found by importing it.

    Its recipes are those that ``__all__`` of its module names; without that, the public names of recipes that the
    module has not imported from another package. A recipe that lacks names, and from which others of the library
    derive, is a base.

    Args:
        library: what a distribution declares.

    Raises:
        LibraryError: it can not be imported.

    Examples:
        >>> from brevq.inject.installed import installed
        >>> [stock] = [library for library in installed() if library.name == "injectors"]
        >>> contents_of(stock).records[0].name
        'BFP16Act'
    """
    recipes, bases = recipes_of_library(library)
    records, problems = [], []
    for name, recipe in recipes.items():
        try:
            records.append(describe(recipe, name, library.name, library.module))
        except Exception as error:  # noqa: BLE001  # whatever a recipe of others raises is told
            problems.append(Problem(library, name, str(error), error))
    return Contents(tuple(records), tuple(bases), tuple(problems))


def recipes_of_library(library: Library) -> tuple[dict[str, Any], dict[str, Any]]:
    """The recipes of a library by name, and the bases among them apart, as `recipes_of` finds them.

    Args:
        library: what a distribution declares; it is imported.

    Raises:
        LibraryError: it can not be imported.
    """
    return recipes_of(import_library(library), package_of(library.module))


def recipes_of(module: ModuleType, package: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The recipes of a module by name, and the bases among them, which are there to derive from, apart.

    Args:
        module: what may have recipes.
        package: the package that the module is of; recipes of other packages count where ``__all__`` names them.

    Examples:
        >>> import injectors.bases
        >>> recipes, bases = recipes_of(injectors.bases, "injectors")
        >>> "IntWeight" in recipes, "WeightQuant" in bases
        (True, True)
    """
    found = _recipes(module, package)
    bases = {name: recipe for name, recipe in found.items() if _is_base(recipe, found)}
    return {name: recipe for name, recipe in found.items() if name not in bases}, bases


def _recipes(module: ModuleType, package: str) -> Mapping[str, Any]:
    """The recipes of a module by name."""
    names = getattr(module, "__all__", None)
    if names is not None:
        found = {name: getattr(module, name, None) for name in names}
        return {name: content for name, content in found.items() if is_recipe(content)}
    public = {name: content for name, content in vars(module).items() if not name.startswith("_")}
    return {name: content for name, content in public.items() if is_recipe(content) and _is_own(content, package)}


def _is_own(recipe: Any, package: str) -> bool:
    """Whether a recipe is of a package: defined in it, or derived by `let`, and under its name nowhere."""
    path = path_of(recipe)
    return path is None or f"{path.split(':')[0]}.".startswith(f"{package}.")


def _is_base(recipe: Any, recipes: Mapping[str, Any]) -> bool:
    derived = any(issubclass(other, recipe) for other in recipes.values() if other is not recipe)
    return derived and bool(plan_of(recipe).missing)
