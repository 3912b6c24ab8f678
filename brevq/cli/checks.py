"""Checking recipes: one, those of a library, or those of a file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import attrs

from brevq import recipes
from brevq.cli.names import NotThereError, found, read, run
from brevq.errors import RecipeError
from brevq.inject import check, load
from brevq.inject.installed import packages
from brevq.inject.plan import plan_of
from brevq.recipes import recipes_of


@attrs.frozen
class Result:
    """What was found of a recipe.

    Args:
        name: of the recipe, or the file.
        faults: all that is wrong with it, as text; None where nothing is.
        lacks: names that a base leaves to those that derive from it.

    Examples:
        >>> Result("Int8", None).told, Result("IntWeight", None, ("bit_width",)).told
        ('no faults', 'a base, which leaves to declare: bit_width')
    """

    name: str
    faults: str | None
    lacks: tuple[str, ...] = ()

    @property
    def told(self) -> str:
        """What was found, in words."""
        if self.faults:
            return f"faults\n\n{self.faults}\n"
        return f"a base, which leaves to declare: {', '.join(self.lacks)}" if self.lacks else "no faults"


def checked(place: str, allowed: Iterable[str] = ()) -> Iterator[Result]:
    """What is found of the recipes at a place.

    Args:
        place: the name of a recipe or of a library, ``FILE.json``, ``FILE.py``, or ``FILE.py:Name``.
        allowed: packages that ``FILE.json`` may import from, beside those that `load` may by default.

    Raises:
        NotThereError: there is no such file, or it has no such recipe.
        RecipeLookupError: no library has such a recipe.
        BrevqError: a file or a library can not be read.

    Examples:
        >>> [result.told for result in checked("Int8WeightPerTensor")]
        ['no faults']
    """
    if place.endswith(".json"):
        return iter([_try(place, lambda: load(read(place), [*packages(), *allowed]))])
    if place.endswith(".py"):
        return _all_of(place, *recipes_of(module := run(place), module.__name__))
    libraries = [library for library in recipes.libraries() if place in (library.name, library.module)]
    if libraries:
        return _all_of(place, *recipes.recipes_of_library(libraries[0]))
    recipe = found(place)
    return iter([_try(place, lambda: check(recipe))])


def _all_of(place: str, sound: dict[str, Any], bases: dict[str, Any]) -> Iterator[Result]:
    """What is found of the recipes of a module, the bases after the others."""
    if not sound and not bases:
        raise NotThereError(f"'{place}' has no recipes.")
    for name, recipe in sound.items():
        yield _try(f"{place}:{name}", lambda recipe=recipe: check(recipe))
    for name, recipe in bases.items():
        yield Result(f"{place}:{name}", None, tuple(gap.name for gap in plan_of(recipe).missing))


def _try(name: str, find_faults: Any) -> Result:
    try:
        find_faults()
    except RecipeError as error:
        return Result(name, str(error))
    return Result(name, None)
