"""The commands of `brevq`, and their options."""

from __future__ import annotations

from pathlib import Path

import click

import brevq as package
from brevq.cli import require


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package.__version__, prog_name="brevq")
def brevq() -> None:
    """Quantizers for PyTorch, assembled by dependency injection."""


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
    from brevq.cli.quickstart.run import run  # noqa: PLC0415  # as above

    run(out, Settings(epochs, seed, threads))
