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
from brevq.core.stats.unit import near_one


class AbsMax(Module):
    """The largest absolute value: ``max |x|``.

    Args:
        granularity_impl: which values are reduced together. Default: all of them.

    Examples:
        >>> AbsMax()(torch.tensor([1.0, -3.0, 2.0]))
        tensor(3.)
    """

    def __init__(self, granularity_impl: Granularity | None = None) -> None:
        super().__init__()
        self.granularity_impl = granularity_impl or PerTensor()

    def forward(self, x: Tensor) -> Tensor:
        """The statistic of `x`, in the shape of the scale."""
        return self.granularity_impl.to_scale(self.granularity_impl(x).abs().amax(dim=-1))


class AbsMinMax(Module):
    """The width of the smallest interval that holds all values and zero: ``max(x, 0) - min(x, 0)``.

    Zero belongs to it because a zero-point has to represent it: without, a tensor that lies wholly on one side of
    zero would be clipped.

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
        rows = self.granularity_impl(x)
        width = torch.relu(rows.amax(dim=-1)) + torch.relu(-rows.amin(dim=-1))
        return self.granularity_impl.to_scale(width)


class AbsAve(Module):
    """The mean absolute value: ``mean |x|``, which makes binary weights optimal in the least squares sense.

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
        return self.granularity_impl.to_scale(self.granularity_impl(x).abs().mean(dim=-1))


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
        magnitude = self.granularity_impl(x).abs()
        above = magnitude > self.ternary_fraction * magnitude.mean(dim=-1, keepdim=True)
        count = above.sum(dim=-1).clamp_min(1)
        return self.granularity_impl.to_scale((magnitude * above).sum(dim=-1) / count)


class AbsPercentile(Module):
    """A percentile of the absolute values: the k-th smallest, ``k = floor(q / 100 * n + 1/2)``, at least the first.

    NaN gives NaN.

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
        rows = self.granularity_impl(x).abs()
        return self.granularity_impl.to_scale(_percentile(rows, self.high_percentile_q))


class PercentileInterval(Module):
    """The width of the interval between two percentiles and zero: ``max(high, 0) - min(low, 0)``.

    NaN gives NaN.

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
        high = torch.relu(_percentile(rows, self.high_percentile_q))
        low = torch.relu(-_low_percentile(rows, self.low_percentile_q))
        return self.granularity_impl.to_scale(high + low)


class MeanSigmaStd(Module):
    """The mean of the absolute values and `sigma` standard deviations more: ``mean |x| + sigma * std |x|``.

    The deviation is the unbiased one; of a single value it is zero. Where it is zero, so is its gradient. Nothing is
    added to the variance: Brevitas adds 1e-8, which is below float32's rounding for deviations above 0.3, and more than
    the deviation itself for those below 0.0001.

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
        rows = self.granularity_impl(x).abs()
        return self.granularity_impl.to_scale(rows.mean(dim=-1) + self.sigma * deviation(rows))


class NegativeMinOrZero(Module):
    """The smallest value if it is negative, else zero: ``min(x, 0)``, from which a zero-point is computed.

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
        lowest = self.granularity_impl(x).amin(dim=-1)
        return self.granularity_impl.to_scale(torch.clamp_max(lowest, 0.0))


class NegativePercentileOrZero(Module):
    """A low percentile if it is negative, else zero.

    NaN gives NaN.

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
        lowest = _low_percentile(self.granularity_impl(x), self.low_percentile_q)
        return self.granularity_impl.to_scale(torch.clamp_max(lowest, 0.0))


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


def _percent(name: str, value: float) -> float:
    """A percentage above 0."""
    return between(name, positive(name, value), 0, 100)


def _percentile(rows: Tensor, q: float) -> Tensor:
    """The k-th smallest of each row, ``k = floor(q / 100 * n + 1/2)``, at least the first."""
    k = math.floor(q / 100 * rows.shape[-1] + 0.5)
    return _kth(rows, k)


def _low_percentile(rows: Tensor, q: float) -> Tensor:
    """The k-th smallest of each row, ``k = ceil(q / 100 * n)``, at least the first."""
    return _kth(rows, math.ceil(q / 100 * rows.shape[-1]))


def _kth(rows: Tensor, k: int) -> Tensor:
    """The k-th smallest of each row, from the first to the last; NaN of rows that have one, which sorts behind all."""
    n = rows.shape[-1]
    largest = rows.detach().amax(dim=-1)
    return torch.where(torch.isnan(largest), largest, rows.kthvalue(min(max(k, 1), n), dim=-1).values)
