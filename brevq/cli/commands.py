"""The commands of `brevq`, and their options.

What a command needs is imported when it runs: most of it imports torch, which takes longer than ``--help`` may.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

import brevq as package
from brevq.cli import output, require
from brevq.cli.groups import NearGroup
from brevq.cli.names import LibraryName, RecipeName, RoleName, derived, found, told_as_usage
from brevq.cli.overrides import set_option
from brevq.errors import ArgumentError

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(cls=NearGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package.__version__, prog_name="brevq")
def brevq() -> None:
    """Quantizers for PyTorch, assembled by dependency injection.

    NAME is a recipe of an installed library, Int8WeightPerTensor, or acme:Int3Weight where several have one of that
    name; or a recipe in a file, FILE.py:Name, or FILE.json that `export` wrote.
    """


@brevq.command(name="list", short_help="List the recipes of installed libraries.")
@click.option("--library", type=LibraryName(), help="Those of this library.")
@click.option("--bits", type=click.IntRange(min=1), help="Those whose numbers have so many bits.")
@click.option("--role", type=RoleName(), help="Those for this: weight, activation, bias, truncation.")
@json_option
def list_(library: str | None, bits: int | None, role: str | None, as_json: bool) -> None:
    """List the recipes of all installed libraries, or those that fit.

    Exits with 1 if the library that was asked for can not be imported. Others that can not are told, and hide none.
    """
    from brevq import recipes  # noqa: PLC0415  # it takes as long as all of --help

    with told_as_usage():
        listing = recipes.list(library, bits, role)
    if as_json:
        output.as_json(output.listing_as_json(listing))
    elif listing:
        output.table(listing)
    else:
        click.echo("No recipe fits.", err=True)
    output.problems(listing)
    if library is not None and any(problem.recipe is None for problem in listing.problems):
        sys.exit(1)


@brevq.command(short_help="Show what a recipe is: role, bits, granularity, scale.")
@click.argument("name", type=RecipeName(kept=True))
@set_option
@json_option
def show(name: str, overrides: dict[str, Any], as_json: bool) -> None:
    """Show what a recipe is: its role, format, bits, granularity, scale and source."""
    from brevq import recipes  # noqa: PLC0415  # it takes as long as all of --help

    with told_as_usage():
        plain = not overrides and not RecipeName.is_file(name)
        record = recipes.record(name) if plain else recipes.describe(derived(found(name), overrides))
    output.as_json(record.as_json()) if as_json else click.echo(output.card(record))


@brevq.command(short_help="Draw how a recipe is wired, as text.")
@click.argument("recipe", metavar="NAME", type=RecipeName())
@set_option
@json_option
def explain(recipe: Any, overrides: dict[str, Any], as_json: bool) -> None:
    """Draw how a recipe is wired: each name, the part that it stands for, and the class that declared it."""
    from brevq import inject  # noqa: PLC0415  # it takes as long as all of --help

    wiring = inject.explain(derived(recipe, overrides))
    output.as_json(output.wiring_as_json(wiring)) if as_json else click.echo(str(wiring))


@brevq.command(short_help="Compare two recipes.")
@click.argument("left", metavar="A", type=RecipeName())
@click.argument("right", metavar="B", type=RecipeName())
@json_option
def diff(left: Any, right: Any, as_json: bool) -> None:
    """Compare two recipes: the names in which they differ, what each has there, and the class that declared it.

    Exits with 0 whether they differ or not.
    """
    from brevq import inject  # noqa: PLC0415  # it takes as long as all of --help

    differences = inject.diff(left, right)
    output.as_json(output.diff_as_json(differences)) if as_json else click.echo(str(differences))


@brevq.command(short_help="Find all faults of recipes: by name, or of a file or library.")
@click.argument("places", metavar="FILE_OR_NAME...", nargs=-1, required=True, type=RecipeName(kept=True))
@click.option("--allow", "allowed", multiple=True, help="A package that FILE.json may import from, beside libraries.")
@json_option
def check(places: tuple[str, ...], allowed: tuple[str, ...], as_json: bool) -> None:
    """Find all faults of recipes.

    Each is a recipe, an installed library, FILE.json that `export` wrote, or FILE.py, which is run, and whose recipes
    are checked. Exits with 1 if there are faults.
    """
    from brevq.cli.checks import checked  # noqa: PLC0415  # it takes as long as all of --help

    with told_as_usage():
        results = [result for place in places for result in checked(place, allowed)]
    output.checks_as_json(results) if as_json else output.checks(results)
    if any(result.faults for result in results):
        sys.exit(1)


@brevq.command(short_help="Draw how a recipe is wired, and its numbers, as SVG.")
@click.argument("recipe", metavar="NAME", type=RecipeName())
@set_option
@click.option(
    "-o",
    "--out",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="File to write, which ends in .svg. Default: standard output.",
)
def draw(recipe: Any, overrides: dict[str, Any], out: Path | None) -> None:
    """Draw how a recipe is wired and which numbers it can represent, as SVG."""
    if out is not None and out.suffix.lower() != ".svg":
        raise click.BadParameter(f"'{out}' must end in .svg, which is what is written.", param_hint="'--out'")
    from brevq.draw import svg  # noqa: PLC0415  # it needs torch, which takes seconds

    output.write(svg(derived(recipe, overrides)), out)


@brevq.command(short_help="Write a recipe as JSON, which others can read.")
@click.argument("recipe", metavar="NAME", type=RecipeName())
@set_option
@click.option(
    "-o",
    "--out",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="File to write. Default: standard output.",
)
def export(recipe: Any, overrides: dict[str, Any], out: Path | None) -> None:
    """Write a recipe as JSON: its base, what is overridden, and its fingerprint.

    `brevq.inject.load` reads it, and so do the other commands.
    """
    from brevq import inject  # noqa: PLC0415  # it takes as long as all of --help

    output.write(inject.dump(derived(recipe, overrides)), out)


@brevq.command(short_help="Write the index of a library, by which it is listed at once.")
@click.argument("library", type=LibraryName())
@click.option("--check", "only_check", is_flag=True, help="Write nothing; exit with 1 if the index is not current.")
def index(library: str, only_check: bool) -> None:
    """Write the index of an installed library: what `list` and `show` tell of it, in its package's folder.

    With an index, a library need not be imported to be listed. Add index.json to the package's data.
    """
    from brevq.cli.indexing import update  # noqa: PLC0415  # it takes as long as all of --help

    with told_as_usage():
        click.echo(update(library, only_check))


@brevq.command(name="new-library", short_help="Begin a library of recipes: an installable package.")
@click.argument("name")
@click.option(
    "--folder",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    default=Path(),
    help="Folder in which the library gets a folder of its own. Default: this one.",
)
def new_library(name: str, folder: Path) -> None:
    """Begin a library of recipes: a package that can be installed, with a recipe, its test and a README."""
    from brevq.cli.library import create  # noqa: PLC0415  # it takes as long as all of --help

    try:
        made = create(name, folder)
    except ArgumentError as error:
        raise click.BadParameter(str(error), param_hint="'NAME'") from error
    click.echo(f"Wrote {made}. Its README.rst says what to do next.")


@brevq.command(short_help="Quantize a small network and see what it costs.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, writable=True, path_type=Path),
    default=Path("quickstart-out"),
    show_default=True,
    help="Folder to write to; made if need be. Files of an earlier run are replaced.",
)
@click.option("--epochs", type=click.IntRange(min=1), default=6, show_default=True, help="Epochs of each training.")
@click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Of the split and the training."
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Processor threads. On so small a network more than one make it no faster.",
)
def quickstart(out: Path, epochs: int, seed: int, threads: int) -> None:
    """Quantize a small network to 8, 4, 3, 2 bits, ternary and binary.

    Trains a network on real handwritten digits in float, gives its weights to quantized twins with 8-bit
    activations, and measures each: as rounded, and after a short training. Takes about a minute, and leaves a
    picture, a table and a checkpoint in the folder.
    """
    require("demo", "matplotlib", "mlxtend", "numpy")
    from brevq.cli.quickstart.results import Settings  # noqa: PLC0415  # it imports torch, which takes a second
    from brevq.cli.quickstart.run import run  # noqa: PLC0415  # it needs torch, which takes seconds

    run(out, Settings(epochs, seed, threads))
