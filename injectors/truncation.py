"""Recipes that cut integers to fewer bits: sums of average pooling, and accumulators.

What is cut, and on which grid it lies, comes with each tensor: its scale, zero-point, bit width and sign.
"""

from __future__ import annotations

from typing import Any

from brevq.core.bit_width import BitWidthConst
from brevq.core.function_wrapper import FloorSte, PerTensor, RoundSte
from brevq.core.quant import TruncIntQuant
from brevq.core.restrict_val import PowerOfTwoRestrictValue
from brevq.core.scaling import RuntimeStatsScaling, TruncLsbScaling, TruncMsbScaling, TruncRangeScaling
from brevq.core.stats import AbsPercentile
from brevq.inject import Injector, supplied


class TruncQuant(Injector):
    """Base of all truncation recipes: their role, and integers that keep their sign.

    ``codes = round(input codes / factor)``, clamped to the new grid, and ``scale = input scale * factor``. Left to
    declare: `bit_width`, `float_to_int_impl`, and `trunc_scaling_impl` with what it asks for.

    Source: Jacob et al., 2018, https://arxiv.org/abs/1712.05877, section 2.2, for the shift of an accumulator.
    """

    role = "truncation"
    dtype = supplied("dtype of the layer")
    device = supplied("device of the layer")
    tensor_quant: Any = TruncIntQuant
    bit_width_impl: Any = BitWidthConst
    narrow_range = False


class Int8Trunc(TruncQuant):
    """Integers cut to their 8 most significant bits: ``codes = floor(codes / 2 ** (N - 8))`` of N bits.

    The last bits are dropped, as a shift to the right drops them. Scale and zero-point follow: the scale grows as
    much, and the zero-point shrinks.

    Source: Pappalardo, 2023, "Brevitas", https://github.com/Xilinx/brevitas, whose truncation it takes up.
    """

    bit_width = 8
    float_to_int_impl: Any = FloorSte
    trunc_scaling_impl: Any = TruncMsbScaling


class Int4Trunc(Int8Trunc):
    """Integers cut to their 4 most significant bits: ``codes = floor(codes / 2 ** (N - 4))`` of N bits.

    Source: Pappalardo, 2023, "Brevitas", https://github.com/Xilinx/brevitas, whose truncation it takes up.
    """

    bit_width = 4


class Int8TruncRound(Int8Trunc):
    """Integers rounded to their 8 most significant bits: ``codes = round(codes / 2 ** (N - 8))`` of N bits.

    Halves go to even codes. What is rounded beyond the largest code is clipped.

    Source: Jacob et al., 2018, https://arxiv.org/abs/1712.05877, section 2.2, for a shift that rounds.
    """

    float_to_int_impl = RoundSte


class Int8TruncShiftRoundSaturate(Int8TruncRound):
    """Integers shifted by as many bits as their range leaves unused, rounded, and clipped to 8 bits.

    ``codes = round(codes / f)`` with ``f = 2 ** ceil(log2 percentile |codes|) / 2 ** (8 - signed)``, but at least 1
    and at most ``2 ** (N - 8)``. The percentile, 99.999 %, is observed over batches, then fixed by calibration or
    learned in training after 300.

    Source: Jain et al., 2020, https://arxiv.org/abs/1903.08066, section 3, for the codes of an accumulator.
    """

    trunc_scaling_impl = TruncRangeScaling
    scaling_impl = RuntimeStatsScaling
    restrict_scaling_impl = PowerOfTwoRestrictValue
    scaling_min_val = 1e-10
    scaling_stats_impl = AbsPercentile
    granularity_impl = PerTensor
    high_percentile_q = 99.999
    collect_stats_steps = 300
    scaling_stats_momentum = 0.1


class Int16Clamp(TruncQuant):
    """Integers clipped to 16 bits, with the scale and the zero-point that they have: an accumulator that saturates.

    Source: Jacob et al., 2018, https://arxiv.org/abs/1712.05877, section 2.4, for casts that saturate.
    """

    bit_width = 16
    float_to_int_impl: Any = RoundSte
    trunc_scaling_impl: Any = TruncLsbScaling
