"""The option `--set name=content`: names of a recipe, and what they are to be."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import click

_WORDS = {"true": True, "false": False, "none": None}


def _read_all(ctx: click.Context, param: click.Parameter, texts: tuple[str, ...]) -> dict[str, Any]:
    """The overrides of all uses of the option; of a name that is set twice, the last."""
    return dict(_read(text) for text in texts)


set_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="NAME=CONTENT",
    callback=_read_all,
    help="Override a name: bit_width=4, signed=false, scaling_stats_impl=AbsMax, x_impl=acme.parts:Part. "
    "May be given several times.",
)


def _read(text: str) -> tuple[str, Any]:
    """A name and its content, from ``name=content``.

    >>> _read("bit_width=4"), _read("signed=false"), _read("block_shape=(128, 128)")
    (('bit_width', 4), ('signed', False), ('block_shape', (128, 128)))
    """
    name, equals, content = text.partition("=")
    if not equals or not name.strip().isidentifier():
        raise click.BadParameter(f"'{text}' must be NAME=CONTENT, such as bit_width=4.")
    return name.strip(), _content(content.strip())


def _content(text: str) -> Any:
    """What a text stands for: a literal of Python, a word, a class by its import path, or a component by its name."""
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return _imported(text) if ":" in text else _component(text)


def _imported(path: str) -> Any:
    """What an import path, ``package.module:Name``, leads to."""
    module, _, name = path.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (Exception, SystemExit) as error:  # whatever a module raises when it is imported is told
        raise click.BadParameter(f"'{path}' can not be imported: {error}.") from error


def _component(name: str) -> Any:
    """The part of brevq.core of a name."""
    from brevq.inject.near import did_you_mean  # noqa: PLC0415  # it takes as long as all of --help

    parts = {part: content for module in _modules() for part, content in vars(module).items() if _is_part(content)}
    if name not in parts:
        raise click.BadParameter(
            f"'{name}' is no number and no part of brevq.core.{did_you_mean(name, parts)} "
            "A part of another package is written package.module:Name, and text in quotes: name='\"text\"'."
        )
    return parts[name]


def _modules() -> Iterator[ModuleType]:
    """The public modules of `brevq.core`."""
    core = importlib.import_module("brevq.core")
    for found in pkgutil.iter_modules(core.__path__, "brevq.core."):
        yield importlib.import_module(found.name)
    yield importlib.import_module("brevq.core.formats.catalogue")


def _is_part(content: Any) -> bool:
    kind = content if isinstance(content, type) else type(content)
    return kind.__module__.startswith("brevq.core.")
