"""Listing the recipes of all installed libraries, and finding one by its name."""

from __future__ import annotations

import functools
import html
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from types import ModuleType
from typing import Any, overload

import attrs

from brevq.errors import ArgumentTypeError, BrevqError
from brevq.inject.installed import GROUP, Library, installed
from brevq.inject.near import did_you_mean
from brevq.inject.text.paths import is_recipe
from brevq.recipes.contents import Contents, LibraryError, Problem, contents_of, import_library
from brevq.recipes.index import read_index
from brevq.recipes.records import Record, describe

#: The roles for which there are layers.
ROLES = ("activation", "bias", "truncation", "weight")

_NONE_INSTALLED = (
    f"No library of recipes is installed: no distribution declares an entry point of group `{GROUP}`.\n"
    "brevq itself does; install it by pip, from a checkout too: pip install -e ."
)


class RecipeLookupError(BrevqError, LookupError):
    """No recipe, or no library, has the name that was asked for, or several have it."""


@attrs.frozen
class Listing(Sequence[Record]):
    """Records of recipes; a sequence that prints itself as a table, in notebooks too.

    Args:
        records: the records.
        problems: libraries that could not be imported, and recipes that can not be built, each with the reason.

    Examples:
        >>> import brevq
        >>> listing = brevq.recipes.list(library="injectors", role="bias", bits=32)
        >>> print(listing)
        name       role  format  bits  granularity         scale
        Int32Bias  bias  int32   32    given by the layer  given by the layer
        >>> listing[0].signed, len(listing), listing.problems
        (True, 1, ())
    """

    records: tuple[Record, ...]
    problems: tuple[Problem, ...] = ()

    @overload
    def __getitem__(self, index: int) -> Record: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Record, ...]: ...

    def __getitem__(self, index: int | slice) -> Record | tuple[Record, ...]:
        return self.records[index]

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records)

    def rows(self) -> Sequence[tuple[str, ...]]:
        """The cells of the table, beginning with its head; the names are those that `get` takes."""
        counts = Counter(it.name for it in self.records)
        named = [it.prefixed if counts[it.name] > 1 else it.name for it in self.records]
        body = [_cells(name, it) for name, it in zip(named, self.records, strict=True)]
        head = ("name", "library", "role", "format", "bits", "granularity", "scale")
        table = [head, *body]
        alone = len({it.library for it in self.records}) < 2
        return [row[:1] + row[2:] for row in table] if alone else table

    def __str__(self) -> str:
        rows = self.rows()
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        return "\n".join([*lines, *map(str, self.problems)])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        head, *body = (tuple(map(html.escape, row)) for row in self.rows())
        cell = '<td style="text-align:left">'
        rows = "".join(f"<tr>{''.join(f'{cell}{text}</td>' for text in row)}</tr>" for row in body)
        tops = "".join(f'<th style="text-align:left">{text}</th>' for text in head)
        told = "".join(f"<p>{html.escape(str(problem))}</p>" for problem in self.problems)
        return f"<table><thead><tr>{tops}</tr></thead><tbody>{rows}</tbody></table>{told}"


def _cells(name: str, record: Record) -> tuple[str, ...]:
    bits = "" if record.bits is None else f"{'from ' if record.learned_bits else ''}{record.bits}"
    bits += "" if record.bits_with_scales is None else f" ({record.bits_with_scales:g})"
    return (name, record.library, record.role or "", record.format, bits, record.granularity, record.scale)


def libraries() -> tuple[Library, ...]:
    """The installed libraries of recipes, by name; none of them is imported.

    A name that two distributions use is replaced by the path of the module, so that each can be told by its own.

    Examples:
        >>> "injectors" in [library.name for library in libraries()]
        True
    """
    found = installed()
    counts = Counter(library.name for library in found)
    return tuple(attrs.evolve(it, name=it.module) if counts[it.name] > 1 else it for it in found)


def library(name: str) -> Library:
    """The installed library of a name.

    Args:
        name: of the library, or its module.

    Raises:
        RecipeLookupError: there is none, or two distributions use the name.

    Examples:
        >>> library("injectors").distribution
        'brevq'
    """
    return _libraries_named(name)[0]


def list(library: str | None = None, bits: int | None = None, role: str | None = None) -> Listing:  # noqa: A001
    """The recipes of all installed libraries, or those that fit.

    A library that has an index is not imported. One whose import fails hides no other: it is among the `problems` of
    the listing, with its cause.

    Args:
        library: name of a library, whose recipes are wanted. Default: all.
        bits: bits of a number, learned ones to begin with. Default: any.
        role: *weight*, *activation*, *bias*, *truncation*, or what a library has named. Default: any.

    Raises:
        RecipeLookupError: no library of that name is installed, or no recipe has that role.
        ArgumentTypeError: `bits` is no whole number.

    Examples:
        >>> [record.name for record in list("injectors", bits=2, role="weight")]
        ['TernaryWeightPerChannel', 'TernaryWeightPerTensor', 'TernaryWeightPerTensorConst']
    """
    if bits is not None and type(bits) is not int:
        raise ArgumentTypeError(f"`bits` (={bits!r}) must be a whole number")
    found = [_try_contents(it) for it in (libraries() if library is None else _libraries_named(library))]
    records = [it for contents in found for it in contents.records]
    if role is not None:
        _check_role(role, {it.role for it in records if it.role})
    fitting = [it for it in records if bits in (None, it.bits) and role in (None, it.role)]
    return Listing(tuple(fitting), tuple(problem for contents in found for problem in contents.problems))


def _check_role(role: str, found: set[str]) -> None:
    known = sorted({*ROLES, *found})
    if role not in known:
        raise RecipeLookupError(
            f"No recipe has the role `{role}`: roles are {', '.join(known)}.{did_you_mean(role, known)}"
        )


def indexed() -> Listing:
    """The recipes of the libraries that have an index; nothing is imported."""
    found = [read_index(library) for library in libraries()]
    return Listing(tuple(it for contents in found if contents for it in contents.records))


def get(name: str) -> Any:
    """The recipe of a name.

    Args:
        name: ``Int8WeightPerTensor``, or with the library that has it, ``acme:Int3Weight``. Modules of libraries
            will do in the place of libraries, ``injectors.bases:IntWeight``, so import paths are names too.

    Returns:
        The recipe class. Bases, which are not listed, are found with a prefix.

    Raises:
        RecipeLookupError: nothing has that name, or several libraries have it; they are listed.
        LibraryError: the library can not be imported.
        ArgumentTypeError: `name` is no string.

    Examples:
        >>> get("Int8WeightPerTensor") is get("injectors:Int8WeightPerTensor")
        True
        >>> get("Int8WeightPerTensr")
        Traceback (most recent call last):
        ...
        brevq.recipes.lookup.RecipeLookupError: No installed library has a recipe `Int8WeightPerTensr`.
        Did you mean `Int8WeightPerTensor`?
    """
    prefix, word = _split(name)
    return _get_from(prefix, word)


def record(name: str) -> Record:
    """The record of the recipe of a name; a library that has an index is not imported.

    Args:
        name: as `get` takes it.

    Raises:
        RecipeLookupError: nothing has that name, or several libraries have it; they are listed.
        LibraryError: the library can not be imported.
        RecipeError: the recipe has faults; all of them are listed.
        ArgumentTypeError: `name` is no string.

    Examples:
        >>> record("Int8WeightPerTensor").scale
        'StatsScaling of AbsMax'
    """
    prefix, word = _split(name)
    contents = [_try_contents(library) for library in _named(prefix)]
    listed = [it for content in contents for it in content.records if it.name == word]
    return listed[0] if listed else describe(_get_from(prefix, word), word, *_place(prefix))


def _split(name: str) -> tuple[str, str]:
    """The library, or module, and the name in it; of a name without a library, the one that has it.

    Raises:
        RecipeLookupError: no library has it, or several have.
    """
    if not isinstance(name, str):
        raise ArgumentTypeError(f"`name` (={name!r}) must be a string, such as 'Int8WeightPerTensor'")
    prefix, colon, word = name.partition(":")
    if colon:
        return prefix, word
    found = {library: _try_contents(library) for library in libraries()}
    having = [library for library, contents in found.items() if name in _names(contents)]
    if len(having) > 1:
        listed = ", ".join(f"{library.name}:{name}" for library in having)
        raise RecipeLookupError(f"Several libraries have a recipe `{name}`: say which, {listed}.")
    if not having:
        raise RecipeLookupError(_unknown(name, found.values()))
    return having[0].name, name


def _unknown(name: str, found: Collection[Contents]) -> str:
    if not found:
        return _NONE_INSTALLED
    names = [known for contents in found for known in _names(contents)]
    hint = did_you_mean(name, names) or " `brevq list` shows those that are installed."
    problems = [f"\n{problem}" for contents in found for problem in contents.problems]
    return f"No installed library has a recipe `{name}`.{hint}{''.join(problems)}"


def _names(contents: Contents) -> set[str]:
    """The names under which a library has recipes, those with faults too."""
    return {it.name for it in contents.records} | {it.recipe for it in contents.problems if it.recipe}


def _place(prefix: str) -> tuple[str, str]:
    """The name of the library that has a prefix, and the module that the prefix stands for."""
    library = _library_of(prefix)
    return library.name, library.module if prefix == library.name else prefix


def _get_from(prefix: str, name: str) -> Any:
    """The recipe of a name in a library, or in a module of one."""
    library = _library_of(prefix)
    module = import_library(library)
    if prefix not in (library.name, library.module):
        module = _module_of(library, prefix)
    recipe = _attribute(module, name)
    if not is_recipe(recipe):
        near = did_you_mean(name, [it for it, content in vars(module).items() if is_recipe(content)])
        raise RecipeLookupError(f"Library {library} has no recipe `{name}`.{near}")
    return recipe


def _module_of(library: Library, path: str) -> ModuleType:
    """A module of a library, imported.

    Raises:
        RecipeLookupError: there is none.
        LibraryError: it can not be imported.
    """
    try:
        return import_library(attrs.evolve(library, module=path))
    except LibraryError as error:
        cause = error.__cause__
        if isinstance(cause, ModuleNotFoundError) and f"{path}.".startswith(f"{cause.name}."):
            raise RecipeLookupError(f"Library {library} has no module `{path}`: {cause}") from cause
        raise


def _attribute(holder: Any, path: str) -> Any:
    """What something has under a name, or under names with dots between them; None if it has not."""
    return functools.reduce(lambda found, word: getattr(found, word, None), path.split("."), holder)


def _library_of(prefix: str) -> Library:
    """The library that has a name or a module, or a module above that."""
    below = [library for library in libraries() if prefix.startswith(f"{library.module}.")]
    return next(iter([*_named(prefix), *below]), None) or _libraries_named(prefix)[0]


def _named(name: str) -> tuple[Library, ...]:
    return tuple(library for library in libraries() if name in (library.name, library.module))


def _libraries_named(name: str) -> tuple[Library, ...]:
    """The libraries of a name.

    Raises:
        RecipeLookupError: there is none, or two distributions use it.
    """
    found = _named(name)
    if found:
        return found
    shared = [library for library in installed() if library.name == name]
    if shared:
        listed = ", ".join(map(str, shared))
        raise RecipeLookupError(f"Several libraries are called `{name}`: name the module of one, {listed}.")
    names = [library.name for library in libraries()]
    if not names:
        raise RecipeLookupError(_NONE_INSTALLED)
    near = did_you_mean(name, names)
    raise RecipeLookupError(f"No library `{name}` is installed: there are {', '.join(names)}.{near}")


def _try_contents(library: Library) -> Contents:
    """What a library has, by its index if it has one; if it can not be imported, that as its only problem."""
    try:
        return read_index(library) or contents_of(library)
    except LibraryError as error:
        return Contents((), (), (Problem(library, None, str(error), error.__cause__ or error),))
