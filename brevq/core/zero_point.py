"""Zero-points: the integer code that stands for zero."""

import torch
from torch import Tensor
from torch.nn import Module, Parameter

from brevq.core.function_wrapper import Granularity, PerTensor
from brevq.core.interfaces import Grid, Statistic
from brevq.core.stats.runtime import RuntimeStats


class ZeroZeroPoint(Module):
    """The zero-point of symmetric quantization: zero.

    Examples:
        >>> ZeroZeroPoint()(torch.randn(3), torch.tensor(0.1), torch.tensor(8.0))
        tensor(0.)
    """

    zero: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("zero", torch.tensor(0.0), persistent=False)

    def forward(self, x: Tensor, scale: Tensor, bit_width: Tensor) -> Tensor:
        """Zero, shape `()`."""
        return self.zero


class StatsZeroPoint(Module):
    """The zero-point that puts a statistic of the tensor, its minimum, on the lowest code.

    ``clamp(round(-stats(x) / scale))``, recomputed at every call.

    Args:
        int_quant: the integer grid; its `to_int` rounds and clamps.
        zero_point_stats_impl: the statistic, zero or negative.

    Examples:
        >>> from brevq.core.quant import IntQuant
        >>> from brevq.core.stats import NegativeMinOrZero
        >>> zero_point = StatsZeroPoint(IntQuant(narrow_range=False, signed=False), NegativeMinOrZero())
        >>> zero_point(torch.tensor([-1.0, 3.0]), torch.tensor(0.1), torch.tensor(8.0))
        tensor(10.)
    """

    def __init__(self, int_quant: Grid, zero_point_stats_impl: Statistic) -> None:
        super().__init__()
        self.int_quant = int_quant
        self.stats_impl = zero_point_stats_impl

    def forward(self, x: Tensor, scale: Tensor, bit_width: Tensor) -> Tensor:
        """The zero-point of `x`, in the shape of the scale, in codes."""
        return _on_grid(self.int_quant, self.stats_impl(x), scale, bit_width)


class RuntimeStatsZeroPoint(Module):
    """The zero-point of activations, from a statistic that is observed over batches, then fixed or learned.

    ``clamp(round(-stats / scale))``; see `RuntimeStats` for the phases.

    Args:
        int_quant: the integer grid; its `to_int` rounds and clamps.
        zero_point_stats_impl: the statistic of one batch, zero or negative.
        collect_stats_steps: number of training batches before it is learned. Default: 300.
        scaling_stats_momentum: weight of a new batch in the average, from 0 to 1. Default: 0.1.

    Raises:
        ArgumentError: the number of steps is below 1, or the momentum out of range.

    Examples:
        >>> from brevq.core.quant import IntQuant
        >>> from brevq.core.stats import NegativeMinOrZero
        >>> zero_point = RuntimeStatsZeroPoint(IntQuant(narrow_range=False, signed=False), NegativeMinOrZero())
        >>> zero_point(torch.tensor([-1.0, 3.0]), torch.tensor(0.1), torch.tensor(8.0)).item()
        10.0
    """

    def __init__(
        self,
        int_quant: Grid,
        zero_point_stats_impl: Statistic,
        collect_stats_steps: int = 300,
        scaling_stats_momentum: float = 0.1,
    ) -> None:
        super().__init__()
        self.int_quant = int_quant
        self.runtime_stats = RuntimeStats(zero_point_stats_impl, None, collect_stats_steps, scaling_stats_momentum)

    def forward(self, x: Tensor, scale: Tensor, bit_width: Tensor) -> Tensor:
        """The zero-point to use for `x`, in the shape of the scale, in codes.

        Raises:
            UncalibratedError: in evaluation, no data having been seen.
        """
        return _on_grid(self.int_quant, self.runtime_stats(x), scale, bit_width)


class ParameterZeroPoint(Module):
    """A learned zero-point: ``clamp(round(value))``, with a straight-through gradient.

    Args:
        int_quant: the integer grid; its `to_int` rounds and clamps.
        zero_point_init: the code to start from. Default: 0.
        granularity_impl: how many zero-points there are. Default: one.

    Examples:
        >>> from brevq.core.quant import IntQuant
        >>> zero_point = ParameterZeroPoint(IntQuant(narrow_range=False, signed=False), zero_point_init=3.0)
        >>> zero_point(torch.randn(3), torch.tensor(0.1), torch.tensor(8.0)).item()
        3.0
    """

    def __init__(
        self, int_quant: Grid, zero_point_init: float = 0.0, granularity_impl: Granularity | None = None
    ) -> None:
        super().__init__()
        self.int_quant = int_quant
        self.value = Parameter(torch.full((granularity_impl or PerTensor()).scale_shape, float(zero_point_init)))

    def forward(self, x: Tensor, scale: Tensor, bit_width: Tensor) -> Tensor:
        """The zero-point, in the shape of the scale, in codes."""
        one = torch.ones_like(scale)
        return _on_grid(self.int_quant, -self.value, one, bit_width)


def _on_grid(int_quant: Grid, lowest: Tensor, scale: Tensor, bit_width: Tensor) -> Tensor:
    """The code of ``-lowest``: the shift that puts `lowest` on code zero."""
    return int_quant.to_int(scale, torch.zeros_like(scale), bit_width, -lowest)
