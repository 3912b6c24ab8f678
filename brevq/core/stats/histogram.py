"""Ranges from a histogram of magnitudes: a percentile, and the thresholds of information theory.

A histogram is made in one pass after that for its end, and replaces sorting: its cost grows with the number of values
alone, and tensors of any size work. Ranges are whole numbers of bins, so fractions of the largest magnitude; the
fraction is constant to the gradient. Values of half precision are told apart, and counted, as in float32, and their
ranges are float32.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import Module

from brevq.core.checks import at_least_one, between, positive
from brevq.core.function_wrapper import Granularity, PerTensor
from brevq.function.recording import recorded

#: By how much, in nats, a smaller range has to be better than a larger one: more than sums in float32 are off by.
MARGIN = 1e-5

#: Values are counted in pieces of about as many, which fit into a CPU's caches, and of no fewer of a row.
_PIECE, _SHORTEST = 2**16, 2**10


class HistogramPercentile(Module):
    """A percentile of the absolute values, to within one bin of a histogram from zero to the largest of them.

    The upper end of the bin that holds the k-th smallest, ``k = floor(q / 100 * n + 1/2)``, at least the first: never
    below that value, and above it by ``max |x| / histogram_bins`` at most. NaN gives NaN.

    Args:
        granularity_impl: which values are reduced together. Default: all of them.
        high_percentile_q: the percentile, in percent, above 0 and at most 100. Default: 99.999.
        histogram_bins: number of bins. Default: 2048.

    Raises:
        ArgumentError: the percentile is out of range, or there are no bins.

    Examples:
        >>> HistogramPercentile(high_percentile_q=50.0, histogram_bins=8)(torch.tensor([1.0, -1.9, 3.0, -4.0]))
        tensor(2.)
    """

    def __init__(
        self,
        granularity_impl: Granularity | None = None,
        high_percentile_q: float = 99.999,
        histogram_bins: int = 2048,
    ) -> None:
        super().__init__()
        self.granularity_impl = granularity_impl or PerTensor()
        self.high_percentile_q = between("high_percentile_q", positive("high_percentile_q", high_percentile_q), 0, 100)
        self.histogram_bins = at_least_one("histogram_bins", histogram_bins)

    def forward(self, x: Tensor) -> Tensor:
        """The percentiles of `x`, in the shape of the scale."""
        rows = self.granularity_impl(x).abs()
        end = rows.amax(dim=-1, keepdim=True)
        counts = bin_counts(rows.detach(), end.detach(), self.histogram_bins)
        k = max(1, math.floor(self.high_percentile_q / 100 * rows.shape[-1] + 0.5))
        below = (counts.cumsum(dim=-1) < k).sum(dim=-1, keepdim=True)
        return self.granularity_impl.to_scale(((below + 1) / self.histogram_bins * end).squeeze(-1))


class KLDivergence(Module):
    """The threshold that loses the least information: it minimizes the Kullback-Leibler divergence of a histogram.

    For each candidate, a number of bins from the integer threshold up, the distribution of the magnitudes, those above
    clipped into the last bin, is compared with what is left of the unclipped ones when only as many levels as the
    threshold are told apart: the counts of each level, spread evenly over its bins that are not empty. The candidate
    with the smallest ``sum p * log(p / q)`` is taken, beginning with the largest; a smaller one has to be better by
    0.00001. So that it is finite, `q` is mixed with 0.0001 of the uniform distribution. Zeros are on the grid anyway,
    and do not count. NaN gives NaN.

    Args:
        bit_width_impl: the bit width of the grid.
        int_scaling_impl: the integer threshold, as many levels as there are magnitudes: 127 for narrow int8.
        granularity_impl: which values share a threshold. Default: all of them.
        histogram_bins: number of bins; with fewer than levels the largest magnitude is taken. Default: 2048.
        histogram_stride: number of bins from candidate to candidate; 1 is the finest and slowest. Default: 16.

    Raises:
        ArgumentError: the number of bins or the stride is zero.

    Source:
        Migacz, 2017, "8-bit Inference with TensorRT", GPU Technology Conference, where it is called entropy
        calibration.

    Examples:
        >>> from brevq.core.bit_width import BitWidthConst
        >>> from brevq.core.scaling import IntScaling
        >>> stats = KLDivergence(BitWidthConst(4), IntScaling(True, True), histogram_bins=64, histogram_stride=1)
        >>> stats(torch.cat([torch.linspace(-1.0, 1.0, 1001), torch.tensor([4.0])]))  # the outlier is clipped
        tensor(1.)
    """

    #: Share of the uniform distribution in what the histogram is compared with.
    SMOOTHING = 1e-4

    def __init__(
        self,
        bit_width_impl: Module,
        int_scaling_impl: Module,
        granularity_impl: Granularity | None = None,
        histogram_bins: int = 2048,
        histogram_stride: int = 16,
    ) -> None:
        super().__init__()
        self.bit_width_impl = bit_width_impl
        self.int_scaling_impl = int_scaling_impl
        self.granularity_impl = granularity_impl or PerTensor()
        self.histogram_bins = at_least_one("histogram_bins", histogram_bins)
        self.histogram_stride = at_least_one("histogram_stride", histogram_stride)

    def forward(self, x: Tensor) -> Tensor:
        """The thresholds of `x`, in the shape of the scale."""
        rows = self.granularity_impl(x).abs()
        levels = self.int_scaling_impl(self.bit_width_impl()).detach()
        largest = rows.amax(dim=-1, keepdim=True)
        fraction = _search(rows.detach(), levels, self.histogram_bins, self.histogram_stride, self._divergence)
        return self.granularity_impl.to_scale((fraction * largest).squeeze(-1))

    def _divergence(self, kept: Tensor, clipped: Tensor, level: Tensor) -> Tensor:
        """The divergence for `kept` bins, shape `(..., bins)`, the rest being `clipped`, shape `(..., 1)`."""
        occupied = (kept > 0).to(kept.dtype)
        mean = _merge(kept, level) / _merge(occupied, level).clamp_min(1)
        q = mean[..., level] * occupied / kept.sum(dim=-1, keepdim=True).clamp_min(1)
        q = (1 - self.SMOOTHING) * q + self.SMOOTHING / kept.shape[-1]
        p = torch.cat([kept[..., :-1], kept[..., -1:] + clipped], dim=-1)
        p = p / p.sum(dim=-1, keepdim=True).clamp_min(1)
        return torch.xlogy(p, p / q).sum(dim=-1, keepdim=True)


class Entropy(Module):
    """The threshold whose levels carry the most information: it maximizes the entropy of the quantized magnitudes.

    For each candidate, a number of bins of a histogram from the integer threshold up, the magnitudes are told apart
    in as many levels of equal width as the threshold, those above being in the last one; the candidate with the
    largest ``-sum p * log(p)`` over levels is taken, beginning with the largest; a smaller one has to be better by
    0.00001. Zeros do not count. NaN gives NaN. What TensorRT calls entropy calibration is `KLDivergence`; this one
    clips more.

    Args:
        bit_width_impl: the bit width of the grid.
        int_scaling_impl: the integer threshold, as many levels as there are magnitudes: 127 for narrow int8.
        granularity_impl: which values share a threshold. Default: all of them.
        histogram_bins: number of bins; with fewer than levels the largest magnitude is taken. Default: 2048.
        histogram_stride: number of bins from candidate to candidate; 1 is the finest and slowest. Default: 16.

    Raises:
        ArgumentError: the number of bins or the stride is zero.

    Source:
        Qin et al., 2020, "Forward and Backward Information Retention", https://arxiv.org/abs/1909.10788, section 3.1,
        which maximizes the entropy of binary weights.

    Examples:
        >>> from brevq.core.bit_width import BitWidthConst
        >>> from brevq.core.scaling import IntScaling
        >>> stats = Entropy(BitWidthConst(3), IntScaling(True, True), histogram_bins=64, histogram_stride=1)
        >>> stats(torch.tensor([0.5, 1.5, 2.5, 8.0]))  # three levels of 2.5 hold two, one and one
        tensor(7.5000)
    """

    def __init__(
        self,
        bit_width_impl: Module,
        int_scaling_impl: Module,
        granularity_impl: Granularity | None = None,
        histogram_bins: int = 2048,
        histogram_stride: int = 16,
    ) -> None:
        super().__init__()
        self.histogram_bins = at_least_one("histogram_bins", histogram_bins)
        self.histogram_stride = at_least_one("histogram_stride", histogram_stride)
        self.granularity_impl = granularity_impl or PerTensor()
        self.bit_width_impl = bit_width_impl
        self.int_scaling_impl = int_scaling_impl

    def forward(self, x: Tensor) -> Tensor:
        """The most informative ranges of `x`, in the shape of the scale."""
        rows = self.granularity_impl(x).abs()
        levels = self.int_scaling_impl(self.bit_width_impl()).detach()
        fraction = _search(rows.detach(), levels, self.histogram_bins, self.histogram_stride, _negative_entropy)
        return self.granularity_impl.to_scale((fraction * rows.amax(dim=-1, keepdim=True)).squeeze(-1))


def bin_counts(magnitude: Tensor, end: Tensor, number: int, counted: Tensor | None = None) -> Tensor:
    """How many values are in each of `number` equal bins from 0 to `end`, which belongs to the last.

    Args:
        magnitude: values of 0 or more, shape `(..., values)`; NaN counts as 0.
        end: upper end of the last bin, shape `(..., 1)`; of zero, all values are in the first bin.
        number: number of bins.
        counted: which values count, as booleans in the shape of `magnitude`. Default: all.

    Returns:
        Whole numbers, shape `(..., number)`.

    Examples:
        >>> bin_counts(torch.tensor([0.1, 0.5, 0.9, 1.0]), torch.tensor([1.0]), 2)
        tensor([1, 3])
    """
    per_unit = number / at_least_float32(end)
    histogram = torch.zeros(*magnitude.shape[:-1], number, dtype=torch.int64, device=magnitude.device)
    size = magnitude.shape[-1] if recorded() else max(_SHORTEST, _PIECE // max(1, histogram[..., 0].numel()))
    marks = itertools.repeat(None) if counted is None else torch.split(counted, size, dim=-1)
    for values, marked in zip(torch.split(magnitude, size, dim=-1), marks, strict=False):
        index = (at_least_float32(values) * per_unit).nan_to_num_(nan=0.0).clamp_(0, number - 1).to(torch.int64)
        histogram.scatter_add_(-1, index, torch.ones_like(index) if marked is None else marked.to(torch.int64))
    return histogram


def at_least_float32(x: Tensor) -> Tensor:
    """`x` in its dtype, or in float32 if it has half precision, which tells no more than 256 bins apart.

    Args:
        x: of any shape.

    Examples:
        >>> at_least_float32(torch.ones(1, dtype=torch.bfloat16)).dtype
        torch.float32
    """
    return x.to(torch.promote_types(x.dtype, torch.float32))


@torch.no_grad()
def _search(
    rows: Tensor,
    levels: Tensor,
    number: int,
    stride: int,
    cost: Callable[[Tensor, Tensor, Tensor], Tensor],
) -> Tensor:
    """The fraction of each row's largest magnitude with the smallest cost, shape `(..., 1)`."""
    counts = bin_counts(rows, rows.amax(dim=-1, keepdim=True), number, rows > 0)
    counts = counts.to(torch.promote_types(rows.dtype, torch.float32))
    best = torch.ones_like(counts[..., :1])
    smallest = torch.full_like(best, torch.inf)
    for end in range(number, 0, -stride):
        level = torch.arange(end, device=rows.device) * levels.clamp_max(end).to(torch.int64) // end
        kept, clipped = counts[..., :end], counts[..., end:].sum(dim=-1, keepdim=True)
        current = torch.where(levels <= end, cost(kept, clipped, level), torch.inf)
        better = current < smallest - MARGIN
        best = torch.where(better, end / number, best)
        smallest = torch.where(better, current, smallest)
    return best


def _merge(values: Tensor, level: Tensor) -> Tensor:
    """The sums of values by their level, shape `(..., bins)`, of which only the first ones are used."""
    return torch.zeros_like(values).index_add(-1, level, values)


def _negative_entropy(kept: Tensor, clipped: Tensor, level: Tensor) -> Tensor:
    """Minus the entropy of the levels, those that are clipped being in the last one."""
    counts = _merge(torch.cat([kept[..., :-1], kept[..., -1:] + clipped], dim=-1), level)
    p = counts / counts.sum(dim=-1, keepdim=True).clamp_min(1)
    return torch.xlogy(p, p).sum(dim=-1, keepdim=True)
