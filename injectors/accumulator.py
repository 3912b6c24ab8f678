"""Recipes for weights whose norm is learned, and for weights that fit an accumulator.

What fits an accumulator depends on the input: the layer supplies its bit width and sign.
"""

from __future__ import annotations

from typing import Any

from brevq.core.function_wrapper import RoundToZeroSte, TensorClamp
from brevq.core.quant import DecoupledIntQuant, DecoupledRescalingIntQuant, DecoupledRescalingIntQuantWithInput
from brevq.core.restrict_val import LogFloatRestrictValue
from brevq.core.scaling import (
    AccumulatorAwareScaling,
    AccumulatorBound,
    CenteredAccumulatorBound,
    CenteredL1Norm,
    LearnedStatsScaling,
    WeightNormScaling,
)
from brevq.core.stats import L1Norm, L2Norm
from brevq.core.zero_point import MeanZeroPoint, ZeroZeroPoint
from injectors.weight import Int8WeightPerChannel


class Int8WeightNormPerChannel(Int8WeightPerChannel):
    """Signed 8-bit weights with a learned norm and a learned scale for each output channel.

    ``codes = round(g_c * w / (||w_c|| * scale_c))``, in the L2 norm; `g` starts as the norm of the weights, and the
    scale as ``max |w_c| / 127``. Both are learned as their logarithms.

    Source: Colbert et al., 2023, https://arxiv.org/abs/2301.13376.
    """

    tensor_quant: Any = DecoupledRescalingIntQuant
    decoupled_int_quant = DecoupledIntQuant
    tensor_clamp_impl = TensorClamp
    scaling_impl = LearnedStatsScaling
    restrict_scaling_impl = LogFloatRestrictValue
    pre_scaling_impl: Any = WeightNormScaling
    normalize_stats_impl: Any = L2Norm
    restrict_pre_scaling_impl = LogFloatRestrictValue
    pre_zero_point_impl: Any = ZeroZeroPoint


class Int8WeightPerChannelA2Q(Int8WeightNormPerChannel):
    """Signed 8-bit weights that no input makes overflow an accumulator of `accumulator_bit_width` bits.

    The L1 norm of each channel's codes is at most ``(2**(P - 1) - 1) * 2**(signed - N)``, for inputs of N bits.
    Codes are rounded toward zero.

    Source: Colbert et al., 2023, https://arxiv.org/abs/2308.13504.
    """

    tensor_quant = DecoupledRescalingIntQuantWithInput
    float_to_int_impl = RoundToZeroSte
    pre_scaling_impl = AccumulatorAwareScaling
    normalize_stats_impl: Any = L1Norm
    accumulator_bound_impl: Any = AccumulatorBound
    accumulator_bit_width = 32


class Int8WeightPerChannelA2QPlus(Int8WeightPerChannelA2Q):
    """Signed 8-bit weights, centred, that no input makes overflow an accumulator of `accumulator_bit_width` bits.

    Each channel's mean is subtracted before quantization. The L1 norm of its codes is then at most
    ``(2**P - 2) / (2**N - 1)``, for inputs of N bits: of unsigned inputs about twice as much as without centring.

    Source: Colbert et al., 2024, https://arxiv.org/abs/2401.10432.
    """

    normalize_stats_impl = CenteredL1Norm
    accumulator_bound_impl = CenteredAccumulatorBound
    pre_zero_point_impl = MeanZeroPoint
