"""Whole recipes: written as JSON, and read back."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from brevq.errors import ArgumentTypeError
from brevq.inject.analyse import short
from brevq.inject.installed import packages
from brevq.inject.pages import check_recipe
from brevq.inject.text.canonical import VERSION, hash_of
from brevq.inject.text.faulty import Faulty, each, exactly, report
from brevq.inject.text.values import read_recipe, write_recipe

_FIELDS = ("brevq_recipe", "base", "overrides", "fingerprint")
_VERSION = (
    "The text has version {found} of the schema (`brevq_recipe`), and this brevq reads version {version}.\n"
    "Write it anew with this brevq, or install one that reads it."
)
_CHANGED = (
    "The text says that it builds\n  {said}\nand what it describes builds\n  {found}\n"
    "It was changed after it was written, or a package that it names has changed since.\n"
    "Write it anew from its source; or, to accept what it describes, put the second line in the place of the first."
)


def dump(recipe: Any) -> str:
    """A recipe as text: the nearest recipe that can be imported, and what is overridden.

    What the text holds is told in the documentation, under "Recipes in files". The names of derived recipes and of
    those defined in functions are not written; what they declare is.

    Args:
        recipe: a recipe class.

    Returns:
        JSON, which is the same for the same base and overrides.

    Raises:
        RecipeError: the recipe has faults, or declares something that can not be written: a function, a class or a
            `@value` that has no import path, an object. All faults are listed.
        ArgumentTypeError: `recipe` is not a recipe.

    Examples:
        >>> from brevq.inject import Injector
        >>> print(dump(Injector.let(tensor_quant=dict)))
        {
          "brevq_recipe": 1,
          "base": "brevq.inject:Injector",
          "overrides": {
            "tensor_quant": {
              "class": "builtins:dict"
            }
          },
          "fingerprint": "sha256:31dac1b1a4f265a6f90f7465ee18f1e7182fd3bfafd4e241b51ae1b0a5931256"
        }
    """
    check_recipe("recipe", recipe)
    steps: dict[str, Callable[[], Any]] = {
        "written": lambda: write_recipe("", recipe),
        "fingerprint": lambda: hash_of(recipe),
    }
    with _told(f"Can not write {recipe.__name__}"):
        done = each(lambda _, step: step(), steps.items())
    text = {"brevq_recipe": VERSION, **done["written"], "fingerprint": done["fingerprint"]}
    return json.dumps(text, indent=2, allow_nan=False)


def load(text: str, allowed: Iterable[str] | None = None) -> Any:
    """The recipe that a text describes, as `let` would derive it.

    Nothing that the text carries is run. It names things by their import paths, and only what is defined in an allowed
    package is imported. Only data classes (`attrs.frozen`) are instantiated, and, to see that the recipe builds what it
    did when it was written, whatever `explain` would compute of it.

    Args:
        text: what `dump` wrote.
        allowed: packages and modules that may be imported from. Default: None, for ``brevq``, ``injectors`` and the
            packages of installed libraries of recipes, those that a distribution declares as entry points.

    Returns:
        A recipe with the fingerprint that the text states.

    Raises:
        RecipeError: the text is no JSON or has another schema; it names something that is not allowed, that does not
            exist or that is of the wrong kind; or it describes another recipe than it was written for.
        ArgumentTypeError: an argument is no string, or no collection of strings.

    Examples:
        >>> from brevq.inject import Injector
        >>> text = dump(Injector.let(tensor_quant=dict))
        >>> load(text, allowed=("brevq", "builtins")) is Injector.let(tensor_quant=dict)
        True
        >>> load(text, allowed=("brevq", "injectors"))
        Traceback (most recent call last):
        ...
        brevq.errors.RecipeError: Can not load the recipe.
        <BLANKLINE>
        `tensor_quant` (='builtins:dict') is of `builtins`, which is not allowed: allowed are brevq, injectors.
        If you trust it: load(text, allowed=(..., 'builtins')).
    """
    trusted = packages() if allowed is None else _names(allowed)
    if not isinstance(text, str):
        raise ArgumentTypeError(f"`text` (={short(text)}) must be a string, which `dump` wrote")
    with _told("Can not load the recipe"):
        return _checked(_parsed(text), trusted)


@contextlib.contextmanager
def _told(head: str) -> Iterator[None]:
    """Faults become an error that begins with `head`."""
    try:
        yield
    except Faulty as faulty:
        raise report(head, faulty) from faulty.cause
    except RecursionError:
        raise report(head, Faulty("It is nested too deeply, or its names refer to each other too often.")) from None


def _names(allowed: Iterable[str]) -> tuple[str, ...]:
    given = () if isinstance(allowed, str) else tuple(allowed)
    if isinstance(allowed, str) or not all(isinstance(package, str) for package in given):
        raise ArgumentTypeError(f"`allowed` (={allowed!r}) must be a collection of names of packages: ('brevq', ...)")
    return given


def _parsed(text: str) -> dict[str, Any]:
    """The JSON object that a text holds, if it has the fields of this version."""
    try:
        content = json.loads(text, object_pairs_hook=_object, parse_float=_float, parse_constant=_constant)
    except ValueError as error:
        raise Faulty(f"The text is no JSON: {error}.", cause=error) from None
    if not isinstance(content, dict):
        raise Faulty(f"The text is no JSON object, as `dump` writes it, but {short(content)}.")
    version = content.get("brevq_recipe", VERSION)
    if type(version) is not int or version != VERSION:
        raise Faulty(_VERSION.format(found=short(version), version=VERSION))
    exactly("The text", content, _FIELDS)
    return content


def _checked(content: dict[str, Any], allowed: tuple[str, ...]) -> Any:
    """The recipe that a parsed text describes, if it builds what the text says."""
    recipe = read_recipe("", {field: content[field] for field in ("base", "overrides")}, allowed)
    found = hash_of(recipe)
    if content["fingerprint"] != found:
        raise Faulty(_CHANGED.format(said=f"{content['fingerprint']!s:.71}", found=found))
    return recipe


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, each of whose fields stands there once."""
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        raise Faulty(*(f"A JSON object has the field `{name}` twice." for name in content if names.count(name) > 1))
    return content


def _float(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise Faulty(f'The number {digits:.40} is too large for a float. Infinity is written {{"float": "inf"}}.')
    return number


def _constant(word: str) -> float:
    raise Faulty(f'The text is no JSON: it has {word}, which is written {{"float": "..."}}.')
