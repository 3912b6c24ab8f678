"""Weights that fit an accumulator: however the input turns out, its sums of products do not overflow.

Of a dot product of integers, ``sum w_i * x_i``, the inputs `x`, codes without a zero-point, are limited by their bit
width N. It fits a signed accumulator of P bits if the codes of the weights have a small enough L1 norm. So the norm
of each channel is normalized to a learned length that is limited, and codes are rounded toward zero, which only makes
them smaller.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import Module

from brevq.core.checks import called, restriction, statistic, whole_bits
from brevq.core.function_wrapper import Granularity, PerTensor, RoundToZeroSte
from brevq.core.interfaces import Restriction, Statistic
from brevq.core.restrict_val import LogFloatRestrictValue
from brevq.core.scaling.learned import LearnedStatsScaling
from brevq.core.scaling.statistics import StatsScaling
from brevq.core.stats.ops import saturating, summable
from brevq.errors import ArgumentError

#: What bounds are reduced by, for the rounding of norms and quotients in float32: the guarantee is one of integers.
MARGIN = 2.0**-14
#: From here on restrictions may hold less than the norm, to which the bound applies.
LARGEST_NORM = 2.0**126
_WAY_OUT = "so that sums can overflow the accumulator: round toward zero, `float_to_int_impl = RoundToZeroSte`"
_ROUNDS_AWAY = f"`float_to_int_impl` (={{name}}()) takes {{value:g}} to {{code:g}}, away from zero, {_WAY_OUT}"
_LEARNS = f"`float_to_int_impl` (={{name}}()) learns whether to round away from zero, {_WAY_OUT}"
#: What centred norms are raised by, as a fraction of the norm before centring, for the rounding of what is left.
CENTRING_MARGIN = 2.0**-20


class AccumulatorBound(Module):
    """The largest L1 norm of integer weights that no input makes overflow: ``(2**(P - 1) - 1) * 2**(signed - N)``.

    Args:
        accumulator_bit_width: the accumulator's bits, P, its sign included; 2 to 32. Default: 32.

    Raises:
        ArgumentTypeError: the number of bits is not a number.
        ArgumentError: it is not whole or out of range.

    Source:
        Colbert et al., 2023, "A2Q: Accumulator-Aware Quantization with Guaranteed Overflow Avoidance",
        https://arxiv.org/abs/2308.13504

    Examples:
        >>> AccumulatorBound(16)(torch.tensor(8.0), torch.tensor(True))
        tensor(255.9922)
    """

    def __init__(self, accumulator_bit_width: int = 32) -> None:
        super().__init__()
        self.accumulator_bit_width = whole_bits("accumulator_bit_width", accumulator_bit_width, signed=True)

    def forward(self, input_bit_width: Tensor, input_is_signed: Tensor) -> Tensor:
        """The bound, shape `()`, in codes, for an input of `input_bit_width` bits and a sign or none."""
        largest_sum = 2.0 ** (self.accumulator_bit_width - 1) - 1
        return largest_sum * torch.exp2(input_is_signed.to(input_bit_width.dtype) - input_bit_width)


class CenteredAccumulatorBound(Module):
    """The largest L1 norm of integer weights that come from centred ones: ``(2**P - 2) / (2**N - 1)``.

    Positive and negative weights then have half of it each, and only one half can meet the largest inputs. It does
    not matter whether the input has a sign.

    Args:
        accumulator_bit_width: the accumulator's bits, P, its sign included; 2 to 32. Default: 32.

    Raises:
        ArgumentTypeError: the number of bits is not a number.
        ArgumentError: it is not whole or out of range.

    Source:
        Colbert et al., 2024, "A2Q+: Improving Accumulator-Aware Weight Quantization",
        https://arxiv.org/abs/2401.10432

    Examples:
        >>> CenteredAccumulatorBound(16)(torch.tensor(8.0), torch.tensor(True))
        tensor(256.9961)
    """

    def __init__(self, accumulator_bit_width: int = 32) -> None:
        super().__init__()
        self.accumulator_bit_width = whole_bits("accumulator_bit_width", accumulator_bit_width, signed=True)

    def forward(self, input_bit_width: Tensor, input_is_signed: Tensor) -> Tensor:
        """The bound, shape `()`, in codes, for an input of `input_bit_width` bits."""
        largest_sums = 2.0**self.accumulator_bit_width - 2
        return largest_sums / (torch.exp2(input_bit_width) - 1)


class CenteredL1Norm(Module):
    """The L1 norm of what is left of the mean: ``sum |x - mean(x)|``.

    It is computed as twice the larger of its positive and its negative half, which are equal but for rounding, and
    raised by ``2**-20 * sum |x|``: what centring leaves is no more exact than that, and each half has to keep to its
    share of the accumulator. A norm beyond the largest number of the dtype becomes that.

    Args:
        granularity_impl: which values are reduced together. Default: all of them.

    Examples:
        >>> round(CenteredL1Norm()(torch.tensor([0.0, 3.0, 0.0])).item(), 4)
        4.0
    """

    def __init__(self, granularity_impl: Granularity | None = None) -> None:
        super().__init__()
        self.granularity_impl = granularity_impl or PerTensor()

    def forward(self, x: Tensor) -> Tensor:
        """The norm of `x`, in the shape of the scale."""
        rows, unit = summable(self.granularity_impl(x))
        centred = rows - rows.mean(dim=-1, keepdim=True)
        half = torch.maximum(torch.relu(centred).sum(dim=-1), torch.relu(-centred).sum(dim=-1))
        rounding = CENTRING_MARGIN * rows.detach().abs().sum(dim=-1)
        return self.granularity_impl.to_scale(saturating(2 * half + rounding, unit))


class AccumulatorAwareScaling(Module):
    """The range to round by of weights that fit an accumulator.

    ``norm(x) * max(scaling_impl(x) / g, int_scaling_impl(bit_width) / T)``: the first is `WeightNormScaling`, with the
    learned norm `g`; the second makes the L1 norm of the codes the bound `T`, for an input of a given bit width. The
    guarantee holds with rounding toward zero, `RoundToZeroSte`, and whatever is learned, infinities included. Norms are
    learned as their logarithms. Where the range is beyond the largest float32 it is infinite, and all codes are zero.

    Args:
        scaling_impl: returns the range to dequantize by; the one that the quantizer itself is given.
        normalize_stats_impl: the norm: `L1Norm`, or `CenteredL1Norm` of weights that `MeanZeroPoint` centres.
        accumulator_bound_impl: returns the bound: `AccumulatorBound`, or `CenteredAccumulatorBound`.
        int_scaling_impl: the integer threshold that ranges will be divided by.
        bit_width_impl: the bit width of the weights.
        restrict_pre_scaling_impl: which values norms may take. Default: `LogFloatRestrictValue()`.
        float_to_int_impl: rounds the weights to codes: toward zero. Default: `RoundToZeroSte()`.

    Raises:
        ArgumentError: `float_to_int_impl` rounds away from zero.

    Source:
        Colbert et al., 2023, "A2Q: Accumulator-Aware Quantization with Guaranteed Overflow Avoidance",
        https://arxiv.org/abs/2308.13504

    Examples:
        >>> from brevq.core.bit_width import BitWidthConst
        >>> from brevq.core.scaling import ConstScaling, IntScaling
        >>> from brevq.core.stats import L1Norm
        >>> scaling = AccumulatorAwareScaling(
        ...     ConstScaling(1.27), L1Norm(), AccumulatorBound(10), IntScaling(True, True), BitWidthConst(8))
        >>> weight = torch.tensor([0.6, -0.4])
        >>> pre_scale = scaling(weight, torch.tensor(8.0), torch.tensor(True)) / 127
        >>> torch.trunc(weight / pre_scale).tolist()  # the largest sum: 3 * 128 <= 511
        [2.0, -1.0]
    """

    def __init__(
        self,
        scaling_impl: Module,
        normalize_stats_impl: Statistic,
        accumulator_bound_impl: Module,
        int_scaling_impl: Module,
        bit_width_impl: Module,
        restrict_pre_scaling_impl: Restriction | None = None,
        float_to_int_impl: Module | None = None,
    ) -> None:
        super().__init__()
        _check_toward_zero(called("float_to_int_impl", float_to_int_impl or RoundToZeroSte(), "x"))
        restrict: Restriction = restriction(
            "restrict_pre_scaling_impl", restrict_pre_scaling_impl or LogFloatRestrictValue()
        )
        self.scaling_impl = called("scaling_impl", scaling_impl, "x")
        self.accumulator_bound_impl = called(
            "accumulator_bound_impl", accumulator_bound_impl, "input_bit_width", "input_is_signed"
        )
        self.int_scaling_impl = called("int_scaling_impl", int_scaling_impl, "bit_width")
        self.bit_width_impl = called("bit_width_impl", bit_width_impl)
        self.norm = StatsScaling(statistic("normalize_stats_impl", normalize_stats_impl), restrict)
        self.learned_norm = LearnedStatsScaling(normalize_stats_impl, restrict)

    def forward(self, x: Tensor, input_bit_width: Tensor, input_is_signed: Tensor) -> Tensor:
        """The ranges to round `x` by, in the shape of the scale; bit width and sign of the input have shape `()`."""
        limit = self.limit(input_bit_width, input_is_signed)
        norm, excess = self._norm(x)
        threshold: Tensor = norm * torch.maximum(self.scaling_impl(x) / self.learned_norm(x), limit * excess)
        return threshold

    def excess(self, x: Tensor, input_bit_width: Tensor, input_is_signed: Tensor) -> Tensor:
        """How often the learned norms of `x` would have to be halved to fit: ``max(log2(g / largest norm), 0)``.

        The largest norm is ``scale * T``, of ``scale = scaling_impl(x) / int_scaling_impl(bit_width)``. In the shape of
        the scale, in powers of two; what is above zero is cut by `forward`, and gets no gradient from there.
        """
        largest = self.scaling_impl(x) / self.limit(input_bit_width, input_is_signed)
        return torch.relu(torch.log2(self.learned_norm(x)) - torch.log2(largest))

    def _norm(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The norm of `x` as restrictions give it, and how many times as large it is where float32 can not hold it."""
        _, unit = summable(x.detach().flatten())
        norm = self.norm.stats_impl(x * unit)
        restrict = self.norm.restrict_scaling_impl
        held = restrict(restrict.encode(saturating(norm, unit.expand_as(norm))))
        excess = (norm.detach() / (held.detach() * unit)).clamp_min(1.0)
        return held, torch.where(held >= LARGEST_NORM, excess, 1.0)

    def limit(self, input_bit_width: Tensor, input_is_signed: Tensor) -> Tensor:
        """The integer threshold over the bound of an input of `input_bit_width` bits and a sign or none, shape `()`."""
        bound = (1 - MARGIN) * self.accumulator_bound_impl(input_bit_width, input_is_signed)
        limit: Tensor = self.int_scaling_impl(self.bit_width_impl()) / bound
        return limit


def _check_toward_zero(rounding: Module) -> None:
    """Refuse what takes a number to one of larger magnitude, and what learns where it takes it."""
    name = type(rounding).__name__
    if any(True for _ in rounding.parameters()):
        raise ArgumentError(_LEARNS.format(name=name))
    # Often enough to catch a rounding that is random.
    values = torch.tensor([0.25, 0.5, 0.75, 254.5], device="cpu").repeat(16)
    values = torch.cat([values, -values])
    for value, code in zip(values.tolist(), rounding(values).tolist(), strict=True):
        if abs(code) > abs(value):
            raise ArgumentError(_ROUNDS_AWAY.format(name=name, value=value, code=code))
