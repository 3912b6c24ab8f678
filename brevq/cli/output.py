"""What the commands print: tables on terminals, plain text in pipes, JSON for programs."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click

if TYPE_CHECKING:
    from brevq.cli.checks import Result
    from brevq.inject.difference import Diff
    from brevq.inject.wiring import Wiring
    from brevq.recipes import Listing, Record


def as_json(content: Any) -> None:
    """Print JSON.

    Args:
        content: what JSON can hold.
    """
    click.echo(json.dumps(content, indent=2))


def listing_as_json(listing: Listing) -> dict[str, Any]:
    """The records of a listing, and what could not be listed.

    Args:
        listing: what `brevq.recipes.list` returned.
    """
    problems = [{**attrs.asdict(it.library), "recipe": it.recipe, "reason": it.reason} for it in listing.problems]
    return {"recipes": [record.as_json() for record in listing], "problems": problems}


def wiring_as_json(wiring: Wiring) -> dict[str, Any]:
    """The lines of a wiring tree, each with its depth.

    Args:
        wiring: what `explain` returned.
    """
    kept = ("depth", "name", "content", "origin")
    return {"recipe": wiring.recipe, "lines": [{key: getattr(line, key) for key in kept} for line in wiring.lines]}


def diff_as_json(differences: Diff) -> dict[str, Any]:
    """The names in which two recipes differ.

    Args:
        differences: what `diff` returned.
    """
    return attrs.asdict(differences)


def checks_as_json(results: Sequence[Result]) -> None:
    """Print what was checked, as JSON.

    Args:
        results: one for each recipe.
    """
    as_json([attrs.asdict(result) for result in results])


def checks(results: Sequence[Result]) -> None:
    """Print what was checked: a line for each recipe, and what is wrong with those that have faults.

    Args:
        results: one for each recipe.
    """
    for result in results:
        click.echo(f"{result.name}: {result.told}")


def table(listing: Listing) -> None:
    """Print a listing; on a terminal, as many of its columns as fit.

    Args:
        listing: records, at least one.
    """
    if not sys.stdout.isatty():
        click.echo(str(attrs.evolve(listing, problems=())))
        return
    from rich.console import Console  # noqa: PLC0415  # for terminals only
    from rich.table import Table  # noqa: PLC0415  # as above
    from rich.text import Text  # noqa: PLC0415  # as above

    console = Console(highlight=False)
    head, *rows = listing.rows()
    count = _fitting(listing.rows(), console.width)
    grid = Table(*head[:count], box=None, pad_edge=False, header_style="bold")
    for row in rows:
        grid.add_row(*map(Text, row[:count]))
    console.print(grid)
    if count < len(head):
        left = ", ".join(head[count:])
        click.echo(f"This terminal is too narrow for: {left}. `brevq show NAME` tells them.", err=True)


def _fitting(rows: Sequence[Sequence[str]], width: int) -> int:
    """How many columns fit into a width, with two blanks between them; one at least."""
    ends = itertools.accumulate(max(map(len, column)) + 2 for column in zip(*rows, strict=True))
    return max(1, sum(end - 2 <= width for end in ends))


def problems(listing: Listing) -> None:
    """Print what could not be listed to standard error.

    Args:
        listing: what `brevq.recipes.list` returned.
    """
    for problem in listing.problems:
        click.echo(str(problem), err=True)


def card(record: Record) -> str:
    """What is told of a recipe, a line each.

    Args:
        record: of the recipe.
    """
    signed = {True: ", signed", False: ", unsigned", None: ""}[record.signed]
    scales = "" if record.bits_with_scales is None else f", with scales {record.bits_with_scales:g}"
    bits = "given by the layer" if record.bits is None else f"{'learned, from ' * record.learned_bits}{record.bits}"
    rows = {
        "library": record.library,
        "import": "from {} import {}".format(*record.path.split(":")) if record.path else "",
        "role": record.role or "",
        "format": record.format + signed,
        "bits": bits + scales,
        "granularity": record.granularity,
        "scale": record.scale,
        "source": record.source,
    }
    lines = [f"{name:<11}  {text}" for name, text in rows.items() if text]
    return "\n".join([record.name, record.summary.replace("``", ""), "", *lines])


def write(text: str, out: Path | None) -> None:
    """Write a text to a file, whose name is printed, or to standard output.

    Args:
        text: what to write.
        out: the file; None for standard output.
    """
    text = text.rstrip("\n") + "\n"
    if out is None:
        click.echo(text, nl=False)
        return
    out.write_text(text, encoding="utf-8", newline="\n")
    click.echo(f"Wrote {out}")
