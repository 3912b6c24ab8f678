"""What all plots share: axes to draw on, and how they look."""

from __future__ import annotations

from typing import Any

from brevq.errors import require

#: Colours: what is quantized, its grid, what is float, what is clipped; and of several curves.
QUANTIZED, GRID, FLOAT, CLIPPED = "#1f6f8b", "#33475b", "#8a8f98", "#d9663d"
CURVES = ("#1f6f8b", "#d9663d", "#6b9a45", "#8e6bb0", "#b58b00", "#4a4a4a")
_LINES = "#e6e6e6"


def axes_for(ax: Any, wide: float = 6.4, high: float = 3.8) -> Any:
    """The axes to draw on: those that were given, or those of a new figure, which pyplot knows nothing of.

    Args:
        ax: axes of matplotlib, or None.
        wide: width of a new figure, in inches.
        high: its height.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    require("plot", "matplotlib")
    if ax is not None:
        return ax
    from matplotlib.figure import Figure  # noqa: PLC0415  # it is an extra, and takes its time

    return Figure(figsize=(wide, high), dpi=120, layout="constrained").add_subplot()


def dress(ax: Any, title: str, x: str, y: str, lines: str = "y") -> None:
    """Title, labels, and no more lines than it takes to read.

    Args:
        ax: the axes.
        title: what is shown.
        x: label of the horizontal axis, with its unit.
        y: label of the vertical one.
        lines: across which axis lines help reading: ``x`` or ``y``.
    """
    ax.set_title(title, loc="left", size=11)
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    ax.grid(axis=lines, color=_LINES)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


def legend_above(ax: Any, columns: int = 3) -> None:
    """A legend between title and data, where it covers nothing.

    Args:
        ax: the axes, which have a title.
        columns: how many entries a line has.
    """
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=columns, frameon=False, fontsize=8.5, borderaxespad=0.2)
    ax.set_title(ax.get_title(loc="left"), loc="left", size=11, pad=24)
