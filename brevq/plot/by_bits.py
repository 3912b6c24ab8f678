"""Accuracy against bits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

from brevq.errors import ArgumentError, ArgumentTypeError
from brevq.plot.canvas import CURVES, FLOAT, axes_for, dress, legend_above

#: What was measured, by bit width.
Points: TypeAlias = Mapping[float, float]

_NO_BITS = "`bits` must say at which bit widths to evaluate: accuracy(evaluate, [8, 4, 2])"
_BITS_TWICE = "`bits` is for a function that is evaluated; what was measured has its bit widths itself"
_NOTHING = "there is nothing to plot: no bit width was measured"
_NO_POINTS = (
    "`measured` must be accuracies by bit width, such as {{8: 0.97, 4: 0.95}}, several of these by name, or a function "
    "of the bit width, not {kind}"
)


def accuracy_by_bits(evaluate: Callable[[int], float], bits: Iterable[int]) -> dict[int, float]:
    """What a function returns at each bit width.

    Args:
        evaluate: takes a number of bits, and returns the accuracy with as many: it makes the model, trains or
            calibrates it, and tests it.
        bits: the numbers of bits.

    Returns:
        The accuracies by bit width, in the order given.

    Examples:
        >>> accuracy_by_bits(lambda bits: 1 - 2.0**-bits, [1, 2, 4])
        {1: 0.5, 2: 0.75, 4: 0.9375}
    """
    return {width: float(evaluate(width)) for width in bits}


def accuracy(
    measured: Points | Mapping[str, Points] | Callable[[int], float],
    bits: Iterable[int] | None = None,
    baseline: float | None = None,
    metric: str = "accuracy",
    ax: Any = None,
) -> Any:
    """Plot accuracy, or another metric, against bit widths.

    Args:
        measured: accuracies by bit width; several of these by name, each a curve; or a function that returns the
            accuracy for a number of bits.
        bits: at which numbers of bits to call that function.
        baseline: accuracy in float, shown as a line. Default: None.
        metric: what is measured, for the label. Default: accuracy. Metrics that stay between 0 and 1 are shown in
            percent.
        ax: axes of matplotlib to draw on. Default: those of a new figure.

    Returns:
        The axes, with a line for each curve, in the order given, and one for the baseline.

    Raises:
        ArgumentTypeError: `measured` is something else.
        ArgumentError: nothing was measured, or `bits` is missing, or there is nothing to evaluate at them.
        MissingExtraError: matplotlib is not installed.

    Examples:
        >>> axes = accuracy({"rounded": {8: 0.97, 4: 0.91, 2: 0.34}, "trained": {8: 0.97, 2: 0.94}}, baseline=0.973)
        >>> [line.get_label() for line in axes.lines]
        ['rounded', 'trained', 'float, 97.3%']
        >>> axes.lines[0].get_xydata().tolist()
        [[2.0, 0.34], [4.0, 0.91], [8.0, 0.97]]
    """
    curves = _curves(measured, bits)
    ax = axes_for(ax)
    values = [value for points in curves.values() for value in points.values()]
    percent = all(0 <= value <= 1 for value in values)
    for place, (name, points) in enumerate(curves.items()):
        widths = sorted(points)
        colour = CURVES[place % len(CURVES)]
        ax.plot(widths, [points[width] for width in widths], "o-", color=colour, markersize=5, label=name)
    if baseline is not None:
        label = f"float, {baseline:.1%}" if percent else f"float, {baseline:.4g}"
        ax.axhline(baseline, color=FLOAT, linestyle=(0, (5, 3)), linewidth=1.2, label=label)
    dress(ax, f"{metric.capitalize()} against bits", "bits", metric)
    ax.set_xticks(sorted({width for points in curves.values() for width in points}))
    if percent:
        ax.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.4g}%")
    if len(ax.lines) > 1 or any(curves):
        legend_above(ax)
    return ax


def _curves(measured: Any, bits: Iterable[int] | None) -> dict[str, Points]:
    """The curves by name; one alone has none."""
    if callable(measured):
        if bits is None:
            raise ArgumentError(_NO_BITS)
        measured = accuracy_by_bits(measured, bits)
    elif bits is not None:
        raise ArgumentError(_BITS_TWICE)
    if not isinstance(measured, Mapping):
        raise ArgumentTypeError(_NO_POINTS.format(kind=type(measured).__name__))
    named = {str(name): points for name, points in measured.items() if isinstance(points, Mapping)}
    if named and len(named) < len(measured):
        raise ArgumentTypeError(_NO_POINTS.format(kind="some of each"))
    curves: dict[str, Points] = named or {"": measured}
    if not any(curves.values()):
        raise ArgumentError(_NOTHING)
    return curves
