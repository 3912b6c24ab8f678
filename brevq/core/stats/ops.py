"""Statistics of one tensor. Each reduces the rows that its granularity lays out to one value for each scale.

All take `granularity_impl`, which defaults to one row for the whole tensor, and return a tensor in the shape of
the scale: `()` per tensor, `(channels, 1, ...)` per channel.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import Module

from brevq.core.checks import between, positive
from brevq.core.function_wrapper import Granularity, PerTensor
from brevq.core.stats.ends import ends
from brevq.core.stats.order import kth_smallest, kth_smallest_magnitude, kth_smallest_of_relu
from brevq.core.stats.unit import near_one
from brevq.function.largest import abs_max


class AbsMax(Module):
    """The largest absolute value: ``max |x|``.

    Args:
        granularity_impl: which values are reduced together. Default: all of them.

    Examples:
        >>> AbsMax()(torch.tensor([1.0, -3.0, 2.0]))
        tensor(3.)
    """

    #: No value exceeds it.
    covers = True

    def __init__(self, granularity_impl: Granularity | None = None) -> None:
        super().__init__()
        self.granularity_impl = granularity_impl or PerTensor()

    def forward(self, x: Tensor) -> Tensor:
        """The statistic of `x`, in the shape of the scale."""
        return self.granularity_impl.to_scale(abs_max(self.granularity_impl(x)))


class AbsMinMax(Module):
    """The width of the smallest interval that holds all values and zero: ``max(x, 0) - min(x, 0)``.

    Zero belongs to it because a zero-point has to represent it: without, a tensor that lies wholly on one side of
    zero would be clipped. An interval that is wider than the largest number of the dtype is clipped to it, both ends by
    the same factor, that of `NegativeMinOrZero`.

    Args:
        granularity_impl: which values are reduced together. Default: all of them.

    Examples:
        >>> AbsMinMax()(torch.tensor([-1.0, 3.0]))
        tensor(4.)
        >>> AbsMinMax()(torch.tensor([2.0, 3.0]))
        tensor(3.)
    """

    def __init__(self, granularity_impl: Granularity | None = None) -> None:
        super().__init__()
        self.granularity_impl = granularity_impl or PerTensor()

    def forward(self, x: Tensor) -> Tensor:
        """The statistic of `x`, in the shape of the scale."""
        lowest, highest = ends(self.granularity_impl(x))
        high, low = torch.relu(highest), torch.relu(-lowest)
        fits = fitting(low, high)
        return self.granularity_impl.to_scale(high * fits + low * fits)


class AbsAve(Module):
    """The mean absolute value: ``mean |x|``, which makes binary weights optimal in the least squares sense.

    It is finite where all values are.

    Args:
        granularity_impl: which values are reduced together. Default: all of them.

    Source:
        Rastegari et al., 2016, "XNOR-Net", https://arxiv.org/abs/1603.05279

    Examples:
        >>> AbsAve()(torch.tensor([1.0, -3.0]))
        tensor(2.)
    """

    def __init__(self, granularity_impl: Granularity | None = None) -> None:
        super().__init__()
        self.granularity_impl = granularity_impl or PerTensor()

    def forward(self, x: Tensor) -> Tensor:
        """The statistic of `x`, in the shape of the scale."""
        magnitude, unit = summable(self.granularity_impl(x).abs())
        return self.granularity_impl.to_scale(saturating(magnitude.mean(dim=-1), unit))


class AbsAveAboveThreshold(Module):
    """The mean of the absolute values above a fraction of their mean: the scale of ternary weights.

    With ``t = ternary_fraction * mean |x|``, the mean of all ``|x| > t``; zero where there are none.

    Args:
        granularity_impl: which values are reduced together. Default: all of them.
        ternary_fraction: fraction of the mean absolute value. Default: 0.7, as in the source.

    Raises:
        ArgumentError: the fraction is negative or 1 or more (a constant tensor would then have no value above it).

    Source:
        Li et al., 2016, "Ternary Weight Networks", https://arxiv.org/abs/1605.04711

    Examples:
        >>> AbsAveAboveThreshold()(torch.tensor([0.1, -3.0, 5.0]))
        tensor(4.)
    """

    def __init__(self, granularity_impl: Granularity | None = None, ternary_fraction: float = 0.7) -> None:
        super().__init__()
        self.granularity_impl = granularity_impl or PerTensor()
        self.ternary_fraction = between("ternary_fraction", ternary_fraction, 0, 0.999)

    def forward(self, x: Tensor) -> Tensor:
        """The statistic of `x`, in the shape of the scale."""
        magnitude, unit = summable(self.granularity_impl(x).abs())
        above = magnitude > self.ternary_fraction * magnitude.mean(dim=-1, keepdim=True)
        count = above.sum(dim=-1).clamp_min(1)
        return self.granularity_impl.to_scale(saturating((magnitude * above).sum(dim=-1) / count, unit))


class AbsPercentile(Module):
    """A percentile of the absolute values: the k-th smallest, ``k = floor(q / 100 * n + 1/2)``, at least the first.

    NaN gives NaN. Where several magnitudes are that one, one of them receives the gradient.

    Args:
        granularity_impl: which values are reduced together. Default: all of them.
        high_percentile_q: the percentile, in percent, above 0 and at most 100. Default: 99.999.

    Raises:
        ArgumentError: the percentile is out of range.

    Examples:
        >>> AbsPercentile(high_percentile_q=50.0)(torch.tensor([1.0, -2.0, 3.0, -4.0]))
        tensor(2.)
    """

    def __init__(self, granularity_impl: Granularity | None = None, high_percentile_q: float = 99.999) -> None:
        super().__init__()
        self.granularity_impl = granularity_impl or PerTensor()
        self.high_percentile_q = _percent("high_percentile_q", high_percentile_q)

    def forward(self, x: Tensor) -> Tensor:
        """The statistic of `x`, in the shape of the scale."""
        rows = self.granularity_impl(x)
        k = _high_rank(rows.shape[-1], self.high_percentile_q)
        return self.granularity_impl.to_scale(kth_smallest_magnitude(rows, k))

    def of_relu(self, x: Tensor) -> Tensor:
        """The statistic of ReLU of `x`, without computing ReLU of all of it.

        Args:
            x: a tensor of any shape.

        Returns:
            In the shape of the scale; value and gradient are those by way of ReLU.

        Examples:
            >>> AbsPercentile(high_percentile_q=50.0).of_relu(torch.tensor([1.0, -2.0, 3.0, 4.0]))
            tensor(1.)
        """
        rows = self.granularity_impl(x)
        k = _high_rank(rows.shape[-1], self.high_percentile_q)
        return self.granularity_impl.to_scale(kth_smallest_of_relu(rows, k))


class PercentileInterval(Module):
    """The width of the interval between two percentiles and zero: ``max(high, 0) - min(low, 0)``.

    One that is wider than the largest number of the dtype is clipped to it. NaN gives NaN.

    Args:
        granularity_impl: which values are reduced together. Default: all of them.
        low_percentile_q: the lower percentile, in percent: the k-th smallest, ``k = ceil(q / 100 * n)``.
            Default: 0.001.
        high_percentile_q: the upper percentile, in percent. Default: 99.999.

    Raises:
        ArgumentError: a percentile is out of range.

    Examples:
        >>> PercentileInterval()(torch.tensor([-1.0, 0.0, 3.0]))
        tensor(4.)
    """

    def __init__(
        self,
        granularity_impl: Granularity | None = None,
        low_percentile_q: float = 0.001,
        high_percentile_q: float = 99.999,
    ) -> None:
        super().__init__()
        self.granularity_impl = granularity_impl or PerTensor()
        self.high_percentile_q = between("high_percentile_q", high_percentile_q, 0, 100)
        self.low_percentile_q = between("low_percentile_q", low_percentile_q, 0, self.high_percentile_q)

    def forward(self, x: Tensor) -> Tensor:
        """The statistic of `x`, in the shape of the scale."""
        rows = self.granularity_impl(x)
        n = rows.shape[-1]
        high = torch.relu(kth_smallest(rows, _high_rank(n, self.high_percentile_q)))
        low = torch.relu(-kth_smallest(rows, _low_rank(n, self.low_percentile_q)))
        fits = fitting(low, high)
        return self.granularity_impl.to_scale(high * fits + low * fits)


class MeanSigmaStd(Module):
    """The mean of the absolute values and `sigma` standard deviations more: ``mean |x| + sigma * std |x|``.

    The deviation is the unbiased one; of a single value it is zero. Where it is zero, so is its gradient. Nothing is
    added to the variance: Brevitas adds 1e-8, which is below float32's rounding for deviations above 0.3, and more than
    the deviation itself for those below 0.0001. What is beyond the largest number of the dtype becomes that.

    Args:
        granularity_impl: which values are reduced together. Default: all of them.
        sigma: number of standard deviations, above 0. Default: 3.

    Raises:
        ArgumentError: `sigma` is not above zero.

    Examples:
        >>> MeanSigmaStd(sigma=2.0)(torch.tensor([1.0, -1.0, 1.0]))
        tensor(1.)
        >>> MeanSigmaStd(sigma=2.0)(torch.tensor([1.0, 3.0, -5.0]))
        tensor(7.)
    """

    def __init__(self, granularity_impl: Granularity | None = None, sigma: float = 3.0) -> None:
        super().__init__()
        self.granularity_impl = granularity_impl or PerTensor()
        self.sigma = positive("sigma", sigma)

    def forward(self, x: Tensor) -> Tensor:
        """The statistic of `x`, in the shape of the scale."""
        rows, unit = summable(self.granularity_impl(x).abs())
        return self.granularity_impl.to_scale(saturating(rows.mean(dim=-1) + self.sigma * deviation(rows), unit))


class NegativeMinOrZero(Module):
    """The smallest value if it is negative, else zero: ``min(x, 0)``, from which a zero-point is computed.

    Where ``max(x, 0) - min(x, 0)`` is beyond the largest number of the dtype, it is as much closer to zero as makes
    that width fit, with both ends times the same factor.

    Args:
        granularity_impl: which values are reduced together. Default: all of them.

    Examples:
        >>> NegativeMinOrZero()(torch.tensor([-1.0, 3.0]))
        tensor(-1.)
        >>> NegativeMinOrZero()(torch.tensor([2.0, 3.0]))
        tensor(0.)
    """

    def __init__(self, granularity_impl: Granularity | None = None) -> None:
        super().__init__()
        self.granularity_impl = granularity_impl or PerTensor()

    def forward(self, x: Tensor) -> Tensor:
        """The statistic of `x`, in the shape of the scale."""
        lowest, highest = ends(self.granularity_impl(x))
        return self.granularity_impl.to_scale(_lower_end(lowest, highest))


class NegativePercentileOrZero(Module):
    """A low percentile if it is negative, else zero.

    Where the distance between it and the largest value is beyond the largest number of the dtype, it is as much closer
    to zero as makes that fit. NaN gives NaN.

    Args:
        granularity_impl: which values are reduced together. Default: all of them.
        low_percentile_q: the percentile, in percent: the k-th smallest, ``k = ceil(q / 100 * n)``. Default: 0.001.

    Raises:
        ArgumentError: the percentile is out of range.

    Examples:
        >>> NegativePercentileOrZero()(torch.tensor([-1.0, 3.0]))
        tensor(-1.)
    """

    def __init__(self, granularity_impl: Granularity | None = None, low_percentile_q: float = 0.001) -> None:
        super().__init__()
        self.granularity_impl = granularity_impl or PerTensor()
        self.low_percentile_q = between("low_percentile_q", low_percentile_q, 0, 100)

    def forward(self, x: Tensor) -> Tensor:
        """The statistic of `x`, in the shape of the scale."""
        rows = self.granularity_impl(x)
        lowest = kth_smallest(rows, _low_rank(rows.shape[-1], self.low_percentile_q))
        return self.granularity_impl.to_scale(_lower_end(lowest, rows.amax(dim=-1)))


def deviation(rows: Tensor) -> Tensor:
    """The unbiased standard deviation of each row; of a single value zero, and where it is zero so is its gradient.

    Args:
        rows: shape `(..., values)`.

    Examples:
        >>> deviation(torch.tensor([[1e-30, 3e-30, 5e-30], [2.0, 2.0, 2.0]]))
        tensor([2.0000e-30, 0.0000e+00])
    """
    scaled, unit = near_one(rows)
    return scaled.std(dim=-1, correction=1 if rows.shape[-1] > 1 else 0) / unit.squeeze(-1)


@torch.no_grad()
def fitting(low: Tensor, high: Tensor) -> Tensor:
    """The factor by which an interval around zero fits the dtype: 1, unless it is wider than the largest number.

    Args:
        low: the distance of its lower end from zero, of any shape; 0 or more.
        high: that of its upper end, in the same shape.

    Returns:
        Factors in that shape; 1 where an end is infinite, NaN where one is NaN.

    Examples:
        >>> fitting(torch.tensor([1.0, 3e38]), torch.tensor([2.0, 3e38]))
        tensor([1.0000, 0.5671])
    """
    # A little less than the largest: a scale times a number of steps may be rounded up.
    limits = torch.finfo(low.dtype)
    half = limits.max * (1 - 2.0**-20) / 2
    width = (low / 2 + high / 2).clamp_min(limits.tiny)
    return torch.where(torch.isinf(width), 1.0, (half / width).clamp_max(1.0))


def summable(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows times a power of two that keeps their sums finite, and that power: 1, unless values are huge.

    Args:
        rows: shape `(..., values)`.

    Returns:
        The rows, and units of shape `(...)`, which are constant to the gradient: the square root of the smallest number
        for values above that of the largest, 2**64 in float32, else 1.

    Examples:
        >>> summable(torch.tensor([[3e38, 3e38], [1.0, 2.0]]))[0].sum(dim=-1)
        tensor([3.2526e+19, 3.0000e+00])
    """
    power = 2.0 ** (math.frexp(torch.finfo(rows.dtype).max)[1] // 2)
    largest = abs_max(rows.detach())
    unit = torch.where(largest > power, torch.full_like(largest, 1 / power), 1.0)
    return rows * unit.unsqueeze(-1), unit


def saturating(value: Tensor, unit: Tensor) -> Tensor:
    """What is `value` in a unit: ``value / unit``, the largest number of the dtype where that is beyond it.

    Args:
        value: 0 or more, of any shape; infinities and NaN stay.
        unit: powers of two, in the same shape.

    Examples:
        >>> saturating(torch.tensor([3.0, 3.0, torch.inf]), torch.tensor([0.5, 1e-38, 1.0]))
        tensor([6.0000e+00, 3.0000e+38, inf])
    """
    quotient = value / unit
    beyond = torch.isinf(quotient) & torch.isfinite(value)
    return torch.where(beyond, torch.finfo(value.dtype).max * (1 - 2.0**-20), quotient)


def _lower_end(lowest: Tensor, highest: Tensor) -> Tensor:
    """`lowest`, or zero where it is positive, and closer to zero where the interval up to `highest` does not fit."""
    low = torch.clamp_max(lowest, 0.0)
    return low * fitting(-low, torch.relu(highest))


def _percent(name: str, value: float) -> float:
    """A percentage above 0."""
    return between(name, positive(name, value), 0, 100)


def _high_rank(n: int, q: float) -> int:
    """Which of `n` values in their order a high percentile is: ``floor(q / 100 * n + 1/2)``."""
    return math.floor(q / 100 * n + 0.5)


def _low_rank(n: int, q: float) -> int:
    """Which of `n` values in their order a low percentile is: ``ceil(q / 100 * n)``."""
    return math.ceil(q / 100 * n)
