"""Arguments that name recipes and libraries: what they stand for, and what a shell completes them to."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from brevq.errors import BrevqError

if TYPE_CHECKING:
    _ParamType = click.ParamType[Any]
else:
    _ParamType = click.ParamType  # older ones take no argument


class NotThereError(BrevqError, LookupError):
    """There is no such file, or no such recipe in it."""


class FileError(BrevqError, ImportError):
    """A file of recipes can not be run."""


class RecipeName(_ParamType):
    """The name of a recipe, of a library or in a file, which stands for that recipe.

    Args:
        kept: whether the command gets the name rather than the recipe. Default: False.
    """

    name = "name"

    def __init__(self, kept: bool = False) -> None:
        self.kept = kept

    @staticmethod
    def is_file(name: str) -> bool:
        """Whether a name is that of a file, or of a recipe in one.

        Args:
            name: what was written.
        """
        return name.endswith((".json", ".py")) or ".py:" in name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The recipe that a name stands for, or the name, if that is kept.

        Args:
            value: what was written.
            param: the argument.
            ctx: where it was written.
        """
        if self.kept or not isinstance(value, str) or (ctx is not None and ctx.resilient_parsing):
            return value  # while a shell completes a line, nothing is imported
        with told_as_usage():
            return found(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The names that begin so, of the recipes of libraries that have an index; files, where a name is a path.

        Args:
            ctx: where it is written.
            param: the argument.
            incomplete: what was written of it.
        """
        from brevq import recipes  # noqa: PLC0415  # it takes as long as all of --help

        listing = recipes.indexed()
        names = [row[0] for row in listing.rows()[1:]]
        summaries = dict(zip(names, listing, strict=True))
        summaries |= {it.prefixed: it for it in listing if ":" in incomplete}
        fitting = [CompletionItem(it, help=summaries[it].summary) for it in summaries if it.startswith(incomplete)]
        return fitting or [CompletionItem(incomplete, type="file")]


class LibraryName(_ParamType):
    """The name of an installed library."""

    name = "library"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The installed libraries whose names begin so; none is imported.

        Args:
            ctx: where it is written.
            param: the argument or option.
            incomplete: what was written of it.
        """
        from brevq import recipes  # noqa: PLC0415  # as above

        return [
            CompletionItem(it.name, help=f"{it.distribution} {it.version}")
            for it in recipes.libraries()
            if it.name.startswith(incomplete)
        ]


class RoleName(_ParamType):
    """A role of recipes."""

    name = "role"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The roles for which there are layers, and which begin so.

        Args:
            ctx: where it is written.
            param: the option.
            incomplete: what was written of it.
        """
        from brevq.recipes import ROLES  # noqa: PLC0415  # as above

        return [CompletionItem(role) for role in ROLES if role.startswith(incomplete)]


@contextlib.contextmanager
def told_as_usage() -> Iterator[None]:
    """A name that nothing has is wrong usage.

    Examples:
        >>> with told_as_usage():
        ...     raise NotThereError("There is no file 'mine.py'.")
        Traceback (most recent call last):
        ...
        click.exceptions.UsageError: There is no file 'mine.py'.
    """
    try:
        yield
    except LookupError as error:
        if not isinstance(error, BrevqError):
            raise
        raise click.UsageError(str(error), click.get_current_context(silent=True)) from error


def found(name: str) -> Any:
    """The recipe that a name stands for.

    Args:
        name: of an installed library, ``FILE.py:Name``, or ``FILE.json``.

    Raises:
        NotThereError: there is no such file, or it has no such recipe.
        RecipeLookupError: no library has such a recipe.
        BrevqError: the file or the library can not be read.
    """
    from brevq import inject, recipes  # noqa: PLC0415  # as above

    if name.endswith(".json"):
        return inject.load(read(name))
    if not RecipeName.is_file(name):
        return recipes.get(name)
    if name.endswith(".py"):
        words = ", ".join(f"{name}:{it}" for it in recipes_in(run(name))) or "none"
        raise recipes.RecipeLookupError(f"`{name}` is a file: say which recipe of it is meant; there are {words}.")
    path, _, word = name.rpartition(":")
    return _one_of(path, word, recipes_in(run(path)))


def derived(recipe: Any, overrides: Mapping[str, Any]) -> Any:
    """The recipe with some names overridden, if any are.

    Args:
        recipe: a recipe class.
        overrides: names and contents.
    """
    return recipe.let(**overrides) if overrides else recipe


def read(path: str) -> str:
    """The text of a file.

    Args:
        path: where it is.

    Raises:
        NotThereError: there is none.
        BrevqError: it is no text.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise NotThereError(f"There is no file '{path}'.") from None
    except UnicodeDecodeError as error:
        raise FileError(f"'{path}' is no text in UTF-8: {error}") from error


def run(path: str) -> ModuleType:
    """The module that a file of Python code is, run as if it was imported from its folder.

    Args:
        path: where it is.

    Raises:
        NotThereError: there is none.
        FileError: it raises an error.
    """
    file = Path(path).resolve()
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if not file.is_file() or spec is None or spec.loader is None:
        raise NotThereError(f"There is no file '{path}'.")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(file.parent))
    sys.modules.setdefault(file.stem, module)  # recipes are named by their module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise FileError(f"'{path}' can not be run: {type(error).__name__}: {error}") from error
    return module


def recipes_in(module: ModuleType) -> dict[str, Any]:
    """The recipes of a module that was run from a file, by name: its own, and bases among them.

    Args:
        module: what `run` returned.
    """
    from brevq.recipes import recipes_of  # noqa: PLC0415  # as above

    recipes, bases = recipes_of(module, module.__name__)
    return {**recipes, **bases}


def _one_of(path: str, name: str, there: Mapping[str, Any]) -> Any:
    from brevq.inject.near import did_you_mean  # noqa: PLC0415  # as above

    if name not in there:
        raise NotThereError(
            f"'{path}' has no recipe `{name}`: there are {', '.join(there) or 'none'}.{did_you_mean(name, there)}"
        )
    return there[name]
