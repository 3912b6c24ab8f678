"""Ranges and zero-points of least squared error on integer grids with a zero-point, searched for together."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import Module

from brevq.core.function_wrapper import Granularity, PerTensor
from brevq.core.interfaces import Restriction
from brevq.core.stats.grids import NearestGrid
from brevq.core.stats.ops import fitting
from brevq.core.stats.search import candidates, least, restricted
from brevq.core.stats.unit import unit_power


class IntervalSearch(Module):
    """The interval around zero whose integer grid, its lower end on the lowest code, has the least squared error.

    It begins as ``low = min(x, 0)`` and ``high = max(x, 0)``. Four passes follow, each over the multiples
    ``mse_reach * k / mse_iters`` for k from `mse_iters` to 1: of both ends alike; of the first `low`, with the width as
    it is; of the first width, with `low` as it is; of the first `low`, with `high` as it is. None adds to the error,
    ``mean (s * (clamp(round(x / s + z)) - z) - x) ** 2``, where ``s = (high - low) / int_threshold`` and
    ``z = clamp(round(lowest code - low / s))``. Where the zero-point is a code, the lower end that comes back is the
    value that the lowest code stands for. Errors are squared in units of a power of two, so none overflows or vanishes.
    An interval that is wider than the largest number of the dtype is clipped to it first, both ends by the same factor.
    NaN gives NaN, and so do infinities.

    Args:
        search_grid_impl: the integer grid.
        granularity_impl: which values share an interval. Default: all of them.
        restrict_scaling_impl: which values the width may take; candidates are compared as they will be used.
            Default: any.
        quantize_zero_point: whether the zero-point is a code; if not, it is neither rounded nor clamped. Default: True.
        mse_iters: number of candidates of each pass. Default: 100.
        mse_reach: the largest multiple. Default: 1.

    Raises:
        ArgumentError: there are no candidates, or the reach is not above zero.

    Source:
        Nagel et al., 2021, https://arxiv.org/abs/2106.08295, section 3.1, with both ends of the range.

    Examples:
        >>> from brevq.core.bit_width import BitWidthConst
        >>> from brevq.core.scaling import IntScaling
        >>> grid = NearestGrid(BitWidthConst(2), IntScaling(False, False), signed=False, narrow_range=False)
        >>> search = IntervalSearch(grid, mse_iters=5)
        >>> search(torch.tensor([-1.0, 0.0, 1.0, 2.0] * 32 + [4.0]))  # codes 0 to 3, of -1 to 2: the outlier is clipped
        (tensor(-1.), tensor(3.))
    """

    def __init__(
        self,
        search_grid_impl: NearestGrid,
        granularity_impl: Granularity | None = None,
        restrict_scaling_impl: Restriction | None = None,
        quantize_zero_point: bool = True,
        mse_iters: int = 100,
        mse_reach: float = 1.0,
    ) -> None:
        super().__init__()
        self.grid = search_grid_impl
        self.granularity_impl = granularity_impl or PerTensor()
        self.restrict_scaling_impl = restrict_scaling_impl
        self.quantize_zero_point = quantize_zero_point
        self.candidates = candidates(mse_iters, mse_reach)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The lower ends and the widths, in the shape of the scale, as constant multiples of those of `x`."""
        rows = self.granularity_impl(x)
        low = rows.amin(dim=-1, keepdim=True).clamp_max(0.0)
        high = rows.amax(dim=-1, keepdim=True).clamp_min(0.0)
        fits = fitting(-low, high)
        low = low * fits
        width = high * fits - low
        best_low, best_width = self._search(rows.detach(), low.detach(), width.detach())
        return self._like(low, best_low), self._like(width, best_width)

    def _like(self, start: Tensor, found: Tensor) -> Tensor:
        """What was found, to the bit, with the gradient of the multiple of `start` that it is."""
        multiple = torch.where(start == 0, 1.0, found / start.detach()) * start
        exact = multiple + torch.where(start == 0, 0.0, found - multiple).detach()
        return self.granularity_impl.to_scale(exact.squeeze(-1))

    @torch.no_grad()
    def _search(self, rows: Tensor, low: Tensor, width: Tensor) -> tuple[Tensor, Tensor]:
        """The best end on the lowest code, and the best width, for each row; both have shape `(..., 1)`."""
        unit = unit_power(width)

        def error(low: Tensor, width: Tensor) -> Tensor:
            return self._error(rows, low, width, unit)

        one, infinite = torch.ones_like(low), torch.full_like(low, torch.inf)
        b, smallest = least(lambda k: error(k * low, k * width), self.candidates, one, infinite)
        a, smallest = least(lambda k: error(k * low, b * width), self.candidates, b, smallest)
        b, smallest = least(lambda k: error(a * low, k * width), self.candidates, b, smallest)
        high = a * low + b * width
        best, _ = least(lambda k: error(k * low, high - k * low), self.candidates, a, smallest)
        # What was compared, to the bit: rounding could take it below a power of two.
        chosen = torch.where(best == a, b * width, high - best * low)
        scale, zero_point = self._code(best * low, chosen)
        return (self.grid.lowest() - zero_point) * scale, chosen

    def _error(self, rows: Tensor, low: Tensor, width: Tensor, unit: Tensor) -> Tensor:
        """The mean squared error of each row with its interval, in units that keep its squares finite."""
        scale, zero_point = self._code(low, width)
        error: Tensor = (self.grid(rows / scale + zero_point) - zero_point) * scale - rows
        return (error * unit).square().mean(dim=-1, keepdim=True)

    def _code(self, low: Tensor, width: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and zero-point of intervals."""
        scale = self.grid.scale(restricted(width, self.restrict_scaling_impl))
        zero_point = self.grid.lowest() - low / scale
        return scale, self.grid(zero_point) if self.quantize_zero_point else zero_point


class MSEInterval(Module):
    """The width of the interval of least squared error, as `IntervalSearch` finds it.

    The range that goes with `NegativeMSEOrZero` as the statistic of the zero-point.

    Args:
        interval_search_impl: the search.

    Examples:
        >>> from brevq.core.bit_width import BitWidthConst
        >>> from brevq.core.scaling import IntScaling
        >>> grid = NearestGrid(BitWidthConst(2), IntScaling(False, False), signed=False, narrow_range=False)
        >>> MSEInterval(IntervalSearch(grid, mse_iters=5))(torch.tensor([-1.0, 0.0, 1.0, 2.0] * 32 + [4.0]))
        tensor(3.)
    """

    def __init__(self, interval_search_impl: IntervalSearch) -> None:
        super().__init__()
        self.interval_search_impl = interval_search_impl
        self.granularity_impl = interval_search_impl.granularity_impl

    def forward(self, x: Tensor) -> Tensor:
        """The ranges of `x`, in the shape of the scale."""
        width: Tensor = self.interval_search_impl(x)[1]
        return width


class NegativeMSEOrZero(Module):
    """The lower end of the interval of least squared error, zero or negative, as `IntervalSearch` finds it.

    The statistic of the zero-point that goes with the range `MSEInterval`.

    Args:
        interval_search_impl: the search.

    Examples:
        >>> from brevq.core.bit_width import BitWidthConst
        >>> from brevq.core.scaling import IntScaling
        >>> grid = NearestGrid(BitWidthConst(2), IntScaling(False, False), signed=False, narrow_range=False)
        >>> NegativeMSEOrZero(IntervalSearch(grid, mse_iters=5))(torch.tensor([-1.0, 0.0, 1.0, 2.0] * 32 + [4.0]))
        tensor(-1.)
    """

    def __init__(self, interval_search_impl: IntervalSearch) -> None:
        super().__init__()
        self.interval_search_impl = interval_search_impl
        self.granularity_impl = interval_search_impl.granularity_impl

    def forward(self, x: Tensor) -> Tensor:
        """The values on the lowest code, in the shape of the scale."""
        low: Tensor = self.interval_search_impl(x)[0]
        return low
