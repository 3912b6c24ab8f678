"""How the statistics of batches become one: averages, the largest, or a percentile of all values.

Each is a pure function of what was gathered, of a batch's statistic, and of the number of batches before it, so that
the state, its phases and its `state_dict` stay where they are, in `RuntimeStats`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import Module

from brevq.core.checks import at_least_one, between, called, positive, statistic
from brevq.core.function_wrapper import Granularity, PerTensor
from brevq.core.interfaces import Statistic
from brevq.core.stats.histogram import at_least_float32, bin_counts
from brevq.core.stats.ops import fitting
from brevq.errors import ArgumentError

_OTHER_BINS = (
    "a percentile over `histogram_bins` (={known}) bins can not gather a statistic of {given}. "
    "Its statistic is `AbsHistogram`, with as many bins"
)


class Running(Protocol):
    """What gathers the statistics of batches."""

    def __call__(self, average: Tensor, statistic: Tensor, steps: Tensor, /) -> Tensor:
        """What is gathered after a batch.

        Args:
            average: what was gathered before; zeros before the first batch.
            statistic: that of the batch, in the shape of `average`.
            steps: number of batches before it, shape `()`.
        """


class MovingAverage:
    """An exponential average: ``(1 - momentum) * average + momentum * statistic``, beginning with the first batch.

    Args:
        scaling_stats_momentum: weight of a new batch, from 0 to 1. Default: 0.1.

    Raises:
        ArgumentError: the momentum is out of range.

    Examples:
        >>> running = MovingAverage(scaling_stats_momentum=0.5)
        >>> running(torch.tensor(2.0), torch.tensor(4.0), steps=torch.tensor(1))
        tensor(3.)
    """

    def __init__(self, scaling_stats_momentum: float = 0.1) -> None:
        self.momentum = between("scaling_stats_momentum", scaling_stats_momentum, 0, 1)

    def __call__(self, average: Tensor, statistic: Tensor, steps: Tensor) -> Tensor:
        """The average after a batch, all of one shape; `steps` batches came before it."""
        moved = (1 - self.momentum) * average + self.momentum * statistic
        return torch.where(steps == 0, statistic, moved)


class TrueAverage:
    """The mean of all batches, each with the same weight: ``average + (statistic - average) / (steps + 1)``.

    Examples:
        >>> TrueAverage()(torch.tensor(2.0), torch.tensor(5.0), steps=torch.tensor(2))
        tensor(3.)
    """

    def __call__(self, average: Tensor, statistic: Tensor, steps: Tensor) -> Tensor:
        """The mean after a batch, all of one shape; `steps` batches came before it."""
        return average + (statistic - average) / (steps + 1)


class RunningMax:
    """The statistic of largest magnitude of all batches: the largest maximum, or the lowest negative minimum.

    Examples:
        >>> RunningMax()(torch.tensor([3.0, -3.0]), torch.tensor([2.0, -5.0]), steps=torch.tensor(1))
        tensor([ 3., -5.])
    """

    def __call__(self, average: Tensor, statistic: Tensor, steps: Tensor) -> Tensor:
        """The largest after a batch, all of one shape; `steps` batches came before it."""
        return torch.where(statistic.abs() > average.abs(), statistic, average)


class AbsHistogram(Module):
    """The histogram of the absolute values of a batch, to be gathered by `RunningPercentile`.

    Its end is a power of two above the largest magnitude, at most twice it, so that histograms with different ends
    are added exactly; the last one of float32 is 2 ** 127, and what is beyond counts as that. Where a value is infinite
    or NaN, all of its histogram is. It receives no gradient. Counts of values of half precision are float32.

    Args:
        granularity_impl: which values are counted together; its scales' shape must be known. Default: all of them.
        histogram_bins: number of bins. Default: 2048.

    Raises:
        ArgumentError: there are no bins.

    Examples:
        >>> AbsHistogram(histogram_bins=4)(torch.tensor([0.5, -1.0, 3.0]))  # counts up to 1, 2, 3 and 4, and that end
        tensor([1., 1., 0., 1., 4.])
    """

    def __init__(self, granularity_impl: Granularity | None = None, histogram_bins: int = 2048) -> None:
        super().__init__()
        self.granularity_impl = granularity_impl or PerTensor()
        self.histogram_bins = at_least_one("histogram_bins", histogram_bins)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """The counts of `x` and the end of the last bin, shape `(*scale_shape, histogram_bins + 1)`."""
        rows = self.granularity_impl(x).abs()
        largest = at_least_float32(rows.amax(dim=-1, keepdim=True))
        last = math.frexp(torch.finfo(largest.dtype).max)[1] - 1
        power = torch.ldexp(torch.ones_like(largest), torch.frexp(largest).exponent.clamp_max(last))
        end = torch.where(largest > 0, power, largest)
        histogram = torch.cat([bin_counts(rows, end, self.histogram_bins).to(end.dtype), end], dim=-1)
        histogram = torch.where(torch.isfinite(largest), histogram, largest)
        return histogram.reshape(self.state_shape(self.granularity_impl.scale_shape))

    def state_shape(self, scale_shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of what comes back for scales of a shape, which `RunningPercentile` gathers."""
        return (*scale_shape, self.histogram_bins + 1)


class RunningPercentile:
    """A percentile of the absolute values of all batches, from the sum of their histograms.

    Batches are those of `AbsHistogram`; their sum is the histogram of all values, whatever their order and their
    ends, exactly so up to 2 ** 24 values in a bin, and else as float32 rounds sums. The percentile that `read` gives
    is the upper end of the bin that holds the k-th smallest of all n values, ``k = floor(q / 100 * n + 1/2)``, at
    least the first: above that value, by less than ``2 * max |x| / histogram_bins``.

    Args:
        high_percentile_q: the percentile, in percent, above 0 and at most 100. Default: 99.999.
        histogram_bins: number of bins, that of `AbsHistogram`. Default: 2048.

    Raises:
        ArgumentError: the percentile is out of range, there are no bins, or a statistic is no such histogram.

    Examples:
        >>> running, batch = RunningPercentile(50.0, histogram_bins=8), AbsHistogram(histogram_bins=8)
        >>> average = torch.zeros(running.state_shape(()))
        >>> for steps, values in enumerate([[0.1, 0.2], [0.9, 3.5]]):
        ...     average = running(average, batch(torch.tensor(values)), torch.tensor(steps))
        >>> running.read(average)  # 0.2 is in the first bin, which ends at 0.5
        tensor(0.5000)
    """

    def __init__(self, high_percentile_q: float = 99.999, histogram_bins: int = 2048) -> None:
        self.high_percentile_q = between("high_percentile_q", positive("high_percentile_q", high_percentile_q), 0, 100)
        self.histogram_bins = at_least_one("histogram_bins", histogram_bins)

    def state_shape(self, scale_shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of what is gathered for scales of a shape."""
        return (*scale_shape, self.histogram_bins + 1)

    def read(self, average: Tensor) -> Tensor:
        """The percentile of what was gathered, in the shape of the scale."""
        counts, end = average[..., :-1].double(), average[..., -1]  # of many batches float32 can not count all values
        k = torch.floor(self.high_percentile_q / 100 * counts.sum(dim=-1, keepdim=True) + 0.5).clamp_min(1)
        below = (counts.cumsum(dim=-1) < k).sum(dim=-1)
        return (below + 1).clamp_max(self.histogram_bins) / self.histogram_bins * end

    def __call__(self, average: Tensor, statistic: Tensor, steps: Tensor) -> Tensor:
        """The histogram after a batch; `steps` batches came before it."""
        if statistic.shape[-1:] != (self.histogram_bins + 1,):
            raise ArgumentError(_OTHER_BINS.format(known=self.histogram_bins, given=f"shape {tuple(statistic.shape)}"))
        end = torch.maximum(average[..., -1:], statistic[..., -1:])
        return torch.cat([_widened(average, end) + _widened(statistic, end), end], dim=-1)


class TwoSided(Module):
    """A statistic of the negative values and one of the positive ones: ``[stats(relu(-x)), stats(relu(x))]``.

    The two sides of an interval around zero, to be gathered by `RunningInterval`: of activations, for a range with a
    zero-point. Values of the other side count as zeros.

    Args:
        side_stats_impl: the statistic of magnitudes, such as `AbsMax`, `AbsPercentile` or `AbsHistogram`.

    Raises:
        ArgumentTypeError: it is no statistic.

    Examples:
        >>> from brevq.core.stats import AbsMax
        >>> TwoSided(AbsMax())(torch.tensor([-1.0, 0.5, 3.0]))
        tensor([1., 3.])
    """

    def __init__(self, side_stats_impl: Statistic) -> None:
        super().__init__()
        self.side_stats_impl = statistic("side_stats_impl", side_stats_impl)
        self.granularity_impl = side_stats_impl.granularity_impl

    def forward(self, x: Tensor) -> Tensor:
        """The statistics of `x`, negative side first, shape `(2, ...)`."""
        return torch.stack([self.side_stats_impl(torch.relu(-x)), self.side_stats_impl(torch.relu(x))])

    def state_shape(self, scale_shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of what comes back for scales of a shape, which `RunningInterval` gathers."""
        of_side: Callable[[tuple[int, ...]], tuple[int, ...]] = getattr(self.side_stats_impl, "state_shape", tuple)
        return (2, *of_side(scale_shape))


class RunningInterval:
    """An interval around zero, whose sides are gathered over all batches, each by itself.

    Of ranges, `read` gives the width; `RuntimeStatsZeroPoint` reads the lower end. So both belong to one interval,
    which the largest width and the lowest minimum of different batches do not. Batches are those of `TwoSided`.

    Args:
        side_running_impl: how the sides of batches become one, such as `RunningMax`, or `RunningPercentile` of
            `AbsHistogram`.

    Raises:
        ArgumentTypeError: it takes other arguments.

    Examples:
        >>> from brevq.core.stats import AbsMax
        >>> running, batch = RunningInterval(RunningMax()), TwoSided(AbsMax())
        >>> average = torch.zeros(running.state_shape(()))
        >>> for steps, values in enumerate([[-1.0, 0.5], [0.0, 2.0]]):
        ...     average = running(average, batch(torch.tensor(values)), torch.tensor(steps))
        >>> running.read(average), running.lowest.read(average)
        (tensor(3.), tensor(-1.))
    """

    def __init__(self, side_running_impl: Running) -> None:
        self.sides = _Sides(called("side_running_impl", side_running_impl, "average", "statistic", "steps"))
        self.lowest = _LowerEnd(self.sides)

    def state_shape(self, scale_shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of what is gathered for scales of a shape."""
        return self.sides.state_shape(scale_shape)

    def read(self, average: Tensor) -> Tensor:
        """The width of what was gathered, in the shape of the scale."""
        low, high = self.sides.read(average)
        fits = fitting(low, high)
        width: Tensor = low * fits + high * fits
        return width

    def __call__(self, average: Tensor, statistic: Tensor, steps: Tensor) -> Tensor:
        """The sides after a batch, all of one shape; `steps` batches came before it."""
        sides: Tensor = self.sides(average, statistic, steps)
        return sides


class _LowerEnd:
    """The lower end of an interval whose sides are gathered."""

    def __init__(self, sides: _Sides) -> None:
        self.sides = sides

    def state_shape(self, scale_shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of what is gathered for scales of a shape: both sides."""
        return self.sides.state_shape(scale_shape)

    def read(self, average: Tensor) -> Tensor:
        """The lower end: zero, or below."""
        low, high = self.sides.read(average)
        lowest: Tensor = -low * fitting(low, high)
        return lowest

    def __call__(self, average: Tensor, statistic: Tensor, steps: Tensor) -> Tensor:
        sides: Tensor = self.sides(average, statistic, steps)
        return sides


class _Sides:
    """Both sides of an interval, gathered by one component that takes any leading dimensions."""

    def __init__(self, running_impl: Running) -> None:
        self.running_impl = running_impl

    def state_shape(self, scale_shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of what is gathered for scales of a shape: both sides."""
        of_side: Callable[[tuple[int, ...]], tuple[int, ...]] = getattr(self.running_impl, "state_shape", tuple)
        return (2, *of_side(scale_shape))

    def read(self, average: Tensor) -> Tensor:
        """Both sides, as what gathers them reads them."""
        read: Callable[[Tensor], Tensor] | None = getattr(self.running_impl, "read", None)
        return average if read is None else read(average)

    def __call__(self, average: Tensor, statistic: Tensor, steps: Tensor) -> Tensor:
        return self.running_impl(average, statistic, steps)


def _widened(histogram: Tensor, end: Tensor) -> Tensor:
    """The counts of a histogram in as many bins up to a larger `end`: bins that are that much wider."""
    counts, ratio = histogram[..., :-1], torch.nan_to_num(histogram[..., -1:] / end)
    index = (torch.arange(counts.shape[-1], device=counts.device) * ratio).to(torch.int64)
    return torch.zeros_like(counts).scatter_add(-1, index, counts)
