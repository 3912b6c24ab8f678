"""Zero-points: the code that stands for zero.

A statistic of the tensor, its minimum, is put on the lowest code of the grid: 0 where it is unsigned, -128 of 8
signed bits, -127 of 8 narrow ones. The range that goes with it is the whole width of the tensor, over the number of
steps between the lowest and the highest code.
"""

import torch
from torch import Tensor
from torch.nn import Module, Parameter

from brevq.core.function_wrapper import Granularity, PerTensor
from brevq.core.interfaces import Grid, Statistic
from brevq.core.scaling.learned import LearnedStatsScaling
from brevq.core.stats.ops import summable
from brevq.core.stats.running import Running
from brevq.core.stats.runtime import RuntimeStats


class ZeroZeroPoint(Module):
    """The zero-point of symmetric quantization: zero.

    Examples:
        >>> ZeroZeroPoint()(torch.randn(3), torch.tensor(0.1), torch.tensor(8.0))
        tensor(0.)
    """

    stateless = True

    def forward(self, x: Tensor, scale: Tensor, bit_width: Tensor) -> Tensor:
        """Zero, shape `()`."""
        return torch.zeros((), device=scale.device)


class StatsZeroPoint(Module):
    """The zero-point that puts a statistic of the tensor, its minimum, on the lowest code.

    ``clamp(round(lowest code - stats(x) / scale))``, recomputed at every call: of weights it follows their training,
    and of activations it is dynamic quantization.

    Args:
        int_quant: the integer grid; its `nearest_int` rounds and clamps.
        zero_point_stats_impl: the statistic, zero or negative.
        quantize_zero_point: whether the zero-point is a code. If not, it is neither rounded nor clamped: the statistic
            is met exactly, and zero itself need not be. Default: True.

    Examples:
        >>> from brevq.core.quant import IntQuant
        >>> from brevq.core.stats import NegativeMinOrZero
        >>> zero_point = StatsZeroPoint(IntQuant(narrow_range=False, signed=False), NegativeMinOrZero())
        >>> zero_point(torch.tensor([-1.0, 3.0]), torch.tensor(0.1), torch.tensor(8.0))
        tensor(10.)
        >>> zero_point = StatsZeroPoint(IntQuant(narrow_range=False, signed=True), NegativeMinOrZero())
        >>> zero_point(torch.tensor([-1.0, 3.0]), torch.tensor(0.1), torch.tensor(8.0))
        tensor(-118.)
    """

    def __init__(self, int_quant: Grid, zero_point_stats_impl: Statistic, quantize_zero_point: bool = True) -> None:
        super().__init__()
        self.quantize_zero_point = quantize_zero_point
        self.int_quant = int_quant
        self.stats_impl = zero_point_stats_impl

    def forward(self, x: Tensor, scale: Tensor, bit_width: Tensor) -> Tensor:
        """The zero-point of `x`, in the shape of the scale, in codes."""
        return _on_lowest_code(self.int_quant, self.quantize_zero_point, self.stats_impl(x), scale, bit_width)


class LearnedStatsZeroPoint(Module):
    """A learned zero-point that starts from a statistic of the first tensor that it sees, put on the lowest code.

    ``clamp(round(lowest code - value / scale))``. What is learned is `value`, in the unit of the tensor: the offset of
    LSQ+. For weights: the first tensor is the weight at its first use. With a range that starts likewise, as
    `LearnedStatsScaling` does, both are computed once, and belong together.

    Args:
        int_quant: the integer grid; its `nearest_int` rounds and clamps.
        zero_point_stats_impl: the statistic to start from, zero or negative.
        quantize_zero_point: whether the zero-point is a code. If not, it is neither rounded nor clamped. Default: True.

    Source:
        Bhalgat et al., 2020, "LSQ+", section 3, https://arxiv.org/abs/2004.09576

    Examples:
        >>> from brevq.core.quant import IntQuant
        >>> from brevq.core.stats import NegativeMinOrZero
        >>> zero_point = LearnedStatsZeroPoint(IntQuant(narrow_range=False, signed=False), NegativeMinOrZero())
        >>> [zero_point(torch.tensor([x]), torch.tensor(0.1), torch.tensor(8.0)).item() for x in (-1.0, -7.0)]
        [10.0, 10.0]
    """

    def __init__(self, int_quant: Grid, zero_point_stats_impl: Statistic, quantize_zero_point: bool = True) -> None:
        super().__init__()
        self.quantize_zero_point = quantize_zero_point
        self.int_quant = int_quant
        self.learned_stats = LearnedStatsScaling(zero_point_stats_impl, _AnyNumber())

    def forward(self, x: Tensor, scale: Tensor, bit_width: Tensor) -> Tensor:
        """The zero-point, in the shape of the scale, in codes; `x` is looked at once."""
        return _on_lowest_code(self.int_quant, self.quantize_zero_point, self.learned_stats(x), scale, bit_width)


class RuntimeStatsZeroPoint(Module):
    """The zero-point of activations, from a statistic that is observed over batches, then fixed or learned.

    ``clamp(round(lowest code - stats / scale))``; see `RuntimeStats` for the phases. What is learned is the statistic,
    in the unit of the tensor: the offset of LSQ+.

    Args:
        int_quant: the integer grid; its `nearest_int` rounds and clamps.
        zero_point_stats_impl: the statistic of one batch, zero or negative.
        collect_stats_steps: number of training batches before it is learned. Default: 300.
        scaling_stats_momentum: weight of a new batch in the average, from 0 to 1. Default: 0.1.
        quantize_zero_point: whether the zero-point is a code. If not, it is neither rounded nor clamped. Default: True.
        running_impl: how the statistics of batches become one, as that of the range does: averages of both are those
            of an interval; for the largest, or a percentile, of all batches it is `RunningInterval`. Default: a moving
            average.

    Raises:
        ArgumentError: the number of steps is below 1, or the momentum out of range.

    Source:
        Bhalgat et al., 2020, "LSQ+", section 3, https://arxiv.org/abs/2004.09576

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
        quantize_zero_point: bool = True,
        running_impl: Running | None = None,
    ) -> None:
        super().__init__()
        self.quantize_zero_point = quantize_zero_point
        self.int_quant = int_quant
        # One that gathers both ends of an interval, to read its width, reads its lower end here.
        running = getattr(running_impl, "lowest", running_impl)
        self.runtime_stats = RuntimeStats(
            zero_point_stats_impl, None, collect_stats_steps, scaling_stats_momentum, running
        )

    def forward(self, x: Tensor, scale: Tensor, bit_width: Tensor) -> Tensor:
        """The zero-point to use for `x`, in the shape of the scale, in codes.

        Raises:
            UncalibratedError: in evaluation, no data having been seen.
        """
        return _on_lowest_code(self.int_quant, self.quantize_zero_point, self.runtime_stats(x), scale, bit_width)


class ParameterZeroPoint(Module):
    """A learned zero-point: ``clamp(round(value))``, with a straight-through gradient.

    Args:
        int_quant: the integer grid; its `nearest_int` rounds and clamps.
        zero_point_init: the code to start from. Default: 0.
        granularity_impl: how many zero-points there are. Default: one.
        quantize_zero_point: whether the zero-point is a code. If not, `value` is used as it is, as half-quadratic
            quantization needs it. Default: True.

    Source:
        Badri and Shaji, 2023, "Half-Quadratic Quantization of Large Machine Learning Models",
        https://mobiusml.github.io/hqq_blog

    Examples:
        >>> from brevq.core.quant import IntQuant
        >>> zero_point = ParameterZeroPoint(IntQuant(narrow_range=False, signed=False), zero_point_init=3.0)
        >>> zero_point(torch.randn(3), torch.tensor(0.1), torch.tensor(8.0)).item()
        3.0
    """

    def __init__(
        self,
        int_quant: Grid,
        zero_point_init: float = 0.0,
        granularity_impl: Granularity | None = None,
        quantize_zero_point: bool = True,
    ) -> None:
        super().__init__()
        self.int_quant = int_quant
        self.quantize_zero_point = quantize_zero_point
        self.value = Parameter(torch.full((granularity_impl or PerTensor()).scale_shape, float(zero_point_init)))

    def forward(self, x: Tensor, scale: Tensor, bit_width: Tensor) -> Tensor:
        """The zero-point, in the shape of the scale, in codes."""
        if not self.quantize_zero_point:
            return self.value
        return self.int_quant.nearest_int(torch.ones_like(scale), torch.zeros_like(scale), bit_width, self.value)


class MeanZeroPoint(Module):
    """The zero-point that puts the mean of a tensor on code zero: ``-mean(x) / scale``, neither rounded nor clamped.

    As the zero-point to round by, with `ZeroZeroPoint` to dequantize by, it centres weights before they are quantized:
    the codes are those of ``x - mean(x)``.

    Args:
        granularity_impl: which values are averaged together. Default: all of them.

    Source:
        Colbert et al., 2024, "A2Q+: Improving Accumulator-Aware Weight Quantization",
        https://arxiv.org/abs/2401.10432

    Examples:
        >>> MeanZeroPoint()(torch.tensor([1.0, 3.0]), torch.tensor(0.5), torch.tensor(8.0))
        tensor(-4.)
    """

    def __init__(self, granularity_impl: Granularity | None = None) -> None:
        super().__init__()
        self.granularity_impl = granularity_impl or PerTensor()

    def forward(self, x: Tensor, scale: Tensor, bit_width: Tensor) -> Tensor:
        """The zero-point of `x`, in the shape of the scale, in codes."""
        rows, unit = summable(self.granularity_impl(x))
        return -self.granularity_impl.to_scale(rows.mean(dim=-1) / unit) / scale


class _AnyNumber(Module):
    """No restriction at all, not even to positive numbers."""

    def encode(self, value: Tensor) -> Tensor:
        """`value`, unchanged."""
        return value

    def forward(self, stored: Tensor) -> Tensor:
        """What is stored, unchanged."""
        return stored


def _on_lowest_code(grid: Grid, quantize: bool, lowest: Tensor, scale: Tensor, bit_width: Tensor) -> Tensor:
    """The zero-point that puts `lowest` on the lowest code of `grid`, as a code if it is to be quantized."""
    lowest_code = grid.min_int(bit_width)
    return grid.nearest_int(scale, lowest_code, bit_width, -lowest) if quantize else lowest_code - lowest / scale
