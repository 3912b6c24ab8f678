"""Ranges and zero-points that are searched for: those whose grid is closest to the tensor.

All assume rounding to nearest. They look at the tensor in a fixed number of passes, without reading a number back
from the device, and hold a few tensors of its size. What is found is a factor of an ordinary statistic, or a distance
from it: the search itself is constant to the gradient, which is that of the statistic. A search takes many times as
long as the statistic: `LearnedStatsScaling` and `LearnedStatsZeroPoint` make one, `StatsScaling` and `StatsZeroPoint`
one at every call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.nn import Module

from brevq.core.checks import at_least_one, between, positive
from brevq.core.function_wrapper import Granularity, PerTensor
from brevq.core.interfaces import Restriction, SearchGrid
from brevq.core.stats.grids import NearestGrid
from brevq.core.stats.ops import fitting
from brevq.core.stats.unit import unit_power


class MSE(Module):
    """The range whose grid has the smallest mean squared error: a multiple of the largest absolute value.

    With candidates ``r_k = mse_reach * k / mse_iters * max |x|`` for k from 1 to `mse_iters`, the one with the smallest
    ``mean (s * grid(x / s) - x) ** 2``, where ``s = grid.scale(r_k)``; the largest of several. Zero is on code zero;
    for grids with a zero-point there is `MSEInterval`. Errors are squared in units of a power of two, so that what is
    found for a tensor times any number is that times the number. NaN gives NaN.

    Args:
        search_grid_impl: what values are rounded to: an integer grid, a floating-point format or a block format.
        granularity_impl: which values share a range. Default: all of them.
        restrict_scaling_impl: which values the range may take; candidates are compared as they will be used.
            Default: any.
        mse_iters: number of candidates; the range is found to within one `mse_iters`-th of the largest. Default: 100.
        mse_reach: the largest candidate, in largest absolute values. Default: 1. Where ranges or scales are rounded
            down to powers of two, as in OCP MX, 2 lets the search choose the next one.

    Raises:
        ArgumentError: there are no candidates, or the reach is not above zero.

    Source:
        Sung et al., 2015, https://arxiv.org/abs/1511.06488, section 2; as a grid search: Nagel et al., 2021,
        https://arxiv.org/abs/2106.08295, section 3.1.

    Examples:
        >>> from brevq.core.bit_width import BitWidthConst
        >>> from brevq.core.scaling import IntScaling
        >>> from brevq.core.stats import NearestGrid
        >>> grid = NearestGrid(BitWidthConst(2), IntScaling(True, True), signed=True, narrow_range=True)
        >>> x = torch.tensor([1.0, -1.0, 1.0, 1.0, 0.9, 2.0])
        >>> MSE(grid, mse_iters=10)(x)  # codes -1, 0, 1: the outlier is clipped
        tensor(1.2000)
    """

    def __init__(
        self,
        search_grid_impl: SearchGrid,
        granularity_impl: Granularity | None = None,
        restrict_scaling_impl: Restriction | None = None,
        mse_iters: int = 100,
        mse_reach: float = 1.0,
    ) -> None:
        super().__init__()
        self.grid = search_grid_impl
        self.granularity_impl = granularity_impl or PerTensor()
        self.restrict_scaling_impl = restrict_scaling_impl
        self.candidates = candidates(mse_iters, mse_reach)

    def forward(self, x: Tensor) -> Tensor:
        """The ranges of `x`, in the shape of the scale."""
        rows = self.granularity_impl(x)
        largest = rows.abs().amax(dim=-1, keepdim=True)
        best = self._search(rows.detach(), largest.detach())
        return self.granularity_impl.to_scale((best * largest).squeeze(-1))

    @torch.no_grad()
    def _search(self, rows: Tensor, largest: Tensor) -> Tensor:
        """The best multiple of `largest` for each row, which has shape `(..., 1)`."""
        unit = unit_power(largest)

        def error(multiple: float) -> Tensor:
            """The mean squared error of each row at a multiple of its largest value."""
            scale = self.grid.scale(restricted(multiple * largest, self.restrict_scaling_impl))
            return ((self.grid(rows / scale) * scale - rows) * unit).square().mean(dim=-1, keepdim=True)

        start = torch.ones_like(largest), torch.full_like(largest, torch.inf)
        return least(error, self.candidates, *start)[0]


class HalfQuadraticOptimizerScale(Module):
    """The range whose integer grid has errors of the smallest p-norm, p below 1, which forgives outliers.

    Beginning with ``s = max |x| / int_threshold``, each iteration splits the errors ``e = x - s * q`` of the codes
    ``q = clamp(round(x / s))`` into outliers ``o = shrink(e)`` and the rest, fits the scale to what is left,
    ``s = sum q * (x - o) / sum q ** 2``, and multiplies beta by kappa. With errors in steps,
    ``shrink(e) = sign(e) * relu(|e| - |e| ** (p - 1) / beta)``. The scale with the smallest ``sum |e| ** p`` of all,
    the first included, gives the range ``s * int_threshold``. Where all codes are zero the scale stays. Zero is on code
    zero. NaN gives NaN.

    Args:
        bit_width_impl: the bit width of the grid.
        int_scaling_impl: the integer threshold that the range will be divided by.
        signed: whether the grid has negative codes.
        narrow_range: whether the range gives up one code.
        granularity_impl: which values share a range. Default: all of them.
        hqo_impl: the number of iterations, p, beta and kappa. Default: `HalfQuadratic()`.

    Source:
        Badri and Shaji, 2023, "Half-Quadratic Quantization of Large Machine Learning Models",
        https://mobiusml.github.io/hqq_blog/, with the scale in place of the zero-point, and errors in steps, so that
        what is found for a tensor times two is twice what is found for the tensor.

    Examples:
        >>> from brevq.core.bit_width import BitWidthConst
        >>> from brevq.core.scaling import IntScaling
        >>> stats = HalfQuadraticOptimizerScale(BitWidthConst(3), IntScaling(True, True), True, True)
        >>> stats(torch.tensor([1.0, 2.0, -1.0, -2.0, 1.0, 3.5])) / 3  # the step; 3.5 counts as an outlier
        tensor(1.0311)
    """

    def __init__(
        self,
        bit_width_impl: Module,
        int_scaling_impl: Module,
        signed: bool,
        narrow_range: bool,
        granularity_impl: Granularity | None = None,
        hqo_impl: HalfQuadratic | None = None,
    ) -> None:
        super().__init__()
        self.grid = NearestGrid(bit_width_impl, int_scaling_impl, signed, narrow_range)
        self.granularity_impl = granularity_impl or PerTensor()
        self.hqo_impl = hqo_impl or HalfQuadratic()

    def forward(self, x: Tensor) -> Tensor:
        """The ranges of `x`, in the shape of the scale."""
        rows = self.granularity_impl(x)
        largest = rows.abs().amax(dim=-1, keepdim=True)
        start = (largest / self.grid.threshold()).detach()
        factor = self._search(rows.detach(), start) / start
        factor = torch.where(start == 0, 1.0, factor)
        return self.granularity_impl.to_scale((factor * largest).squeeze(-1))

    @torch.no_grad()
    def _search(self, rows: Tensor, scale: Tensor) -> Tensor:
        """The best scale for each row, shape `(..., 1)`, beginning with `scale`."""
        best, smallest = scale, torch.full_like(scale, torch.inf)
        for iteration in range(self.hqo_impl.hqo_iters + 1):
            codes = self.grid(rows / scale)
            error = rows - codes * scale
            norm = self.hqo_impl.norm(error)
            best = torch.where(norm < smallest, scale, best)
            smallest = torch.minimum(norm, smallest)
            inliers = rows - scale * self.hqo_impl(error / scale, iteration)
            weight = codes.square().sum(dim=-1, keepdim=True)
            scale = torch.where(weight > 0, (codes * inliers).sum(dim=-1, keepdim=True) / weight, scale)
        return best


class HalfQuadraticOptimizerZeroPoint(Module):
    """The value on the lowest code whose integer grid has errors of the smallest p-norm, which forgives outliers.

    A statistic for the zero-point, `zero_point_stats_impl`, to be used with the range `AbsMinMax`:
    ``s = (max(x, 0) - min(x, 0)) / int_threshold`` stays as it is. Beginning with ``z = min_int - min(x, 0) / s``,
    each iteration splits the errors ``e = x / s - (q - z)`` of the codes ``q = clamp(round(x / s + z))`` into
    outliers ``o = shrink(e)`` and the rest, fits the zero-point to what is left, ``z = mean (q - (x / s - o))``, and
    multiplies beta by kappa; `shrink` is that of `HalfQuadraticOptimizerScale`. The zero-point with the smallest
    ``sum |e| ** p`` of all, the first included, gives ``-z * s``. NaN gives NaN.

    Args:
        bit_width_impl: the bit width of the grid.
        int_scaling_impl: the integer threshold that the range is divided by.
        signed: whether the grid has negative codes.
        narrow_range: whether the range gives up one code.
        granularity_impl: which values share a zero-point. Default: all of them.
        hqo_impl: the number of iterations, p, beta and kappa. Default: `HalfQuadratic()`.

    Source:
        Badri and Shaji, 2023, "Half-Quadratic Quantization of Large Machine Learning Models",
        https://mobiusml.github.io/hqq_blog/, with errors in steps.

    Examples:
        >>> from brevq.core.bit_width import BitWidthConst
        >>> from brevq.core.scaling import IntScaling
        >>> stats = HalfQuadraticOptimizerZeroPoint(BitWidthConst(2), IntScaling(False, False), False, False)
        >>> stats(torch.tensor([-1.25, 0.0, 1.0, 1.0, 1.75]))  # the step is 1; it was -1.25
        tensor(-1.0979)
    """

    def __init__(
        self,
        bit_width_impl: Module,
        int_scaling_impl: Module,
        signed: bool,
        narrow_range: bool,
        granularity_impl: Granularity | None = None,
        hqo_impl: HalfQuadratic | None = None,
    ) -> None:
        super().__init__()
        self.granularity_impl = granularity_impl or PerTensor()
        self.hqo_impl = hqo_impl or HalfQuadratic()
        self.grid = NearestGrid(bit_width_impl, int_scaling_impl, signed, narrow_range)

    def forward(self, x: Tensor) -> Tensor:
        """The values on the lowest code, in the shape of the scale; the gradient is that of ``min(x, 0)``."""
        rows = self.granularity_impl(x)
        lowest = torch.clamp_max(rows.amin(dim=-1, keepdim=True), 0.0)
        lowest = lowest * fitting(-lowest, torch.relu(rows.amax(dim=-1, keepdim=True)))
        moved = self._search(rows.detach(), lowest.detach())
        return self.granularity_impl.to_scale((lowest + (moved - lowest).detach()).squeeze(-1))

    @torch.no_grad()
    def _search(self, rows: Tensor, lowest: Tensor) -> Tensor:
        """The value on the lowest code for each row, shape `(..., 1)`, beginning with `lowest`."""
        high = torch.relu(rows.amax(dim=-1, keepdim=True))
        high = high * fitting(torch.relu(-rows.amin(dim=-1, keepdim=True)), high)
        width = high - lowest
        scale = width / self.grid.threshold()
        start = zero_point = self.grid.lowest() - lowest / scale
        steps, best, smallest = rows / scale, start, torch.full_like(start, torch.inf)
        for iteration in range(self.hqo_impl.hqo_iters + 1):
            codes = self.grid(steps + zero_point)
            error = steps - (codes - zero_point)
            norm = self.hqo_impl.norm(error)
            best = torch.where(norm < smallest, zero_point, best)
            smallest = torch.minimum(norm, smallest)
            zero_point = (codes - (steps - self.hqo_impl(error, iteration))).mean(dim=-1, keepdim=True)
        return torch.where(width == 0, lowest, (self.grid.lowest() - best) * scale)


class HalfQuadratic(Module):
    """Half-quadratic splitting: how errors are split into outliers and the rest, and for how many iterations.

    The outliers of errors are ``shrink(e) = sign(e) * relu(|e| - |e| ** (p - 1) / beta)``, which minimizes, nearly,
    ``|o| ** p + beta / 2 * (o - e) ** 2``. Errors below ``beta ** (-1 / (2 - p))`` steps are no outliers: 0.17 by
    default.

    Args:
        hqo_iters: number of iterations. Default: 20.
        hqo_lp_norm: p, above 0 and at most 1; 1 is soft thresholding. Default: 0.7.
        hqo_beta: weight of the second term in the first iteration, for errors in steps. Default: 10.
        hqo_kappa: growth of beta in each iteration, from 1 to 1000. Default: 1.01.

    Raises:
        ArgumentError: an argument is out of range.

    Source:
        Badri and Shaji, 2023, "Half-Quadratic Quantization of Large Machine Learning Models",
        https://mobiusml.github.io/hqq_blog/

    Examples:
        >>> HalfQuadratic(hqo_lp_norm=1.0, hqo_beta=2.0)(torch.tensor([0.4, -2.0]), iteration=0)
        tensor([ 0.0000, -1.5000])
    """

    def __init__(
        self, hqo_iters: int = 20, hqo_lp_norm: float = 0.7, hqo_beta: float = 10.0, hqo_kappa: float = 1.01
    ) -> None:
        super().__init__()
        self.hqo_iters = at_least_one("hqo_iters", hqo_iters)
        self.hqo_lp_norm = between("hqo_lp_norm", positive("hqo_lp_norm", hqo_lp_norm), 0, 1)
        self.hqo_beta = positive("hqo_beta", hqo_beta)
        self.hqo_kappa = between("hqo_kappa", hqo_kappa, 1, 1000)

    def forward(self, error: Tensor, iteration: int) -> Tensor:
        """The outliers in `error`, of any shape, in steps; `iteration` counts from 0."""
        magnitude = error.abs()
        threshold = magnitude ** (self.hqo_lp_norm - 1) / (self.hqo_beta * self.hqo_kappa**iteration)
        return error.sign() * torch.relu(magnitude - threshold)

    def norm(self, error: Tensor) -> Tensor:
        """The sum over the last dimension of ``|e| ** p``, which stays, with size 1."""
        return (error.abs() ** self.hqo_lp_norm).sum(dim=-1, keepdim=True)


def candidates(mse_iters: int, mse_reach: float) -> tuple[float, ...]:
    """Multiples to try, the largest first: ``mse_reach * k / mse_iters`` for k from `mse_iters` to 1.

    Args:
        mse_iters: their number.
        mse_reach: the largest.

    Raises:
        ArgumentError: there are none, or the largest is not above zero.

    Examples:
        >>> candidates(4, 2.0)
        (2.0, 1.5, 1.0, 0.5)
    """
    number, reach = at_least_one("mse_iters", mse_iters), positive("mse_reach", mse_reach)
    return tuple(reach * k / number for k in range(number, 0, -1))


def least(
    error: Callable[[float], Tensor], candidates: Iterable[float], best: Tensor, smallest: Tensor
) -> tuple[Tensor, Tensor]:
    """The candidate of the smallest error for each row, the first of several, and that error.

    Args:
        error: the errors of all rows with a candidate, shape `(..., 1)`; NaN is never the smallest.
        candidates: what is tried, in this order.
        best: what there is before, for each row, in the shape of the errors.
        smallest: the errors of that; infinity if any candidate is better.

    Examples:
        >>> rows = torch.tensor([[2.0], [5.0]])
        >>> best, error = least(lambda candidate: (rows - candidate).abs(), [3.0, 1.0], rows, rows + torch.inf)
        >>> best.tolist(), error.tolist()
        ([[3.0], [3.0]], [[1.0], [2.0]])
    """
    for candidate in candidates:
        current = error(candidate)
        better = current < smallest
        best = torch.where(better, candidate, best)
        smallest = torch.where(better, current, smallest)
    return best, smallest


def restricted(threshold: Tensor, restrict: Restriction | None) -> Tensor:
    """Ranges as they will be used.

    Args:
        threshold: ranges, of any shape.
        restrict: which values they may take; None for any.

    Examples:
        >>> from brevq.core.restrict_val import PowerOfTwoRestrictValue
        >>> restricted(torch.tensor(3.0), PowerOfTwoRestrictValue()), restricted(torch.tensor(3.0), None)
        (tensor(4.), tensor(3.))
    """
    return threshold if restrict is None else restrict(restrict.encode(threshold))
