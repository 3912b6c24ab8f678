"""What the quickstart shows: a table, and a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from rich.table import Table

from brevq.cli.quickstart.results import Results, Row

_ROUNDED, _TRAINED, _FLOAT, _GRID = "#d9663d", "#1f6f8b", "#444444", "#e6e6e6"
_LEGIBLE = 0.015  # a label nearer than this to the other dot would touch it


def table(results: Results) -> Table:
    """One line for each network, the float one first.

    Args:
        results: of a run.
    """
    shown = Table(title="Accuracy on MNIST-5k, and what the weights take", title_justify="left")
    shown.add_column("network")
    shown.add_column("bits of a weight", justify="right")
    shown.add_column("bytes of weights", justify="right")
    shown.add_column("rounded", justify="right")
    shown.add_column("trained", justify="right")
    for row in (results.baseline, *results.rows):
        shown.add_row(row.name, str(row.weight_bits), _bytes(row, results), f"{row.rounded:.3f}", f"{row.trained:.3f}")
    return shown


def footnote(results: Results) -> str:
    """What the table's columns mean, and how much of them is chance.

    Args:
        results: of a run.
    """
    return (
        "rounded: the float weights, quantized; trained: after as many epochs more, of float as well.\n"
        "Bytes are packed weights and 4 bytes a scale; biases and normalisation stay float and are not counted.\n"
        f"{results.test_images} test images: a difference below {2 * results.standard_error:.3f} may be chance."
    )


def picture(results: Results, path: Path) -> None:
    """Draw accuracy against the weights' bits, and save it.

    Args:
        results: of a run.
        path: the image file; its suffix says which kind.
    """
    figure = Figure(figsize=(8, 4.8), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    _draw_float(axes, results)
    _draw_rows(axes, results)
    _dress(axes, results.rows)
    figure.savefig(path)


def _bytes(row: Row, results: Results) -> str:
    smaller = results.baseline.weight_bytes / row.weight_bytes
    return f"{row.weight_bytes:,} ({smaller:.1f}x less)" if smaller > 1 else f"{row.weight_bytes:,}"


def _draw_float(axes: Any, results: Results) -> None:
    level, error = results.baseline.rounded, 2 * results.standard_error
    axes.axhspan(level - error, level + error, color=_FLOAT, alpha=0.10, linewidth=0)
    label = f"float, {level:.1%} (band: chance, with {results.test_images} test images)"
    axes.axhline(level, color=_FLOAT, linestyle=(0, (5, 3)), linewidth=1.2, label=label)


def _draw_rows(axes: Any, results: Results) -> None:
    rows, places = results.rows, range(len(results.rows))
    rounded, trained = [row.rounded for row in rows], [row.trained for row in rows]
    axes.vlines(places, rounded, trained, color=_TRAINED, alpha=0.35, linewidth=2.5, zorder=2)
    axes.scatter(places, rounded, s=75, color="white", edgecolor=_ROUNDED, linewidth=2, zorder=3, label="rounded only")
    axes.scatter(places, trained, s=75, color=_TRAINED, zorder=4, label="after a short training")
    top = max(*trained, results.baseline.rounded + 2 * results.standard_error)
    for place, row in zip(places, rows, strict=True):
        _label(axes, row.trained, (place, top), (0, 7), ha="center", color=_TRAINED)
        if row.trained - row.rounded > _LEGIBLE:
            _label(axes, row.rounded, (place, row.rounded), (10, 0), va="center", color=_ROUNDED)


def _label(axes: Any, accuracy: float, place: tuple[float, float], offset: tuple[int, int], **style: str) -> None:
    axes.annotate(f"{accuracy:.1%}", place, offset, textcoords="offset points", size=9, **style)


def _dress(axes: Any, rows: tuple[Row, ...]) -> None:
    ticks = [f"{row.name}\n{row.weight_bits} bit, {row.weight_bytes / 1000:.1f} kB" for row in rows]
    axes.set_xticks(range(len(rows)), ticks, size=9)
    axes.set_xlim(-0.5, len(rows) - 0.4)
    axes.set_ylim(min(row.rounded for row in rows) - 0.04, 1.005)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_ylabel("accuracy")
    axes.set_title("Fewer bits for the weights of a small network on MNIST-5k", loc="left", size=12)
    axes.grid(axis="y", color=_GRID)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.legend(loc="lower left", frameon=False, fontsize=9)
