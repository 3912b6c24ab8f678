"""Recipes that round weights by another scale than they are dequantized by: decoupled, with a learned norm, and A2Q.

What fits an accumulator depends on the input: the layer supplies its bit width and sign.
"""

from __future__ import annotations

from typing import Any

from brevq.core.function_wrapper import PerChannel, RoundToZeroSte, TensorClamp, TensorClampSte
from brevq.core.quant import DecoupledIntQuant, DecoupledRescalingIntQuant, DecoupledRescalingIntQuantWithInput
from brevq.core.restrict_val import LogFloatRestrictValue
from brevq.core.scaling import (
    AccumulatorAwareScaling,
    AccumulatorBound,
    CenteredAccumulatorBound,
    CenteredL1Norm,
    LearnedStatsScaling,
    StatsScaling,
    WeightNormScaling,
)
from brevq.core.stats import AbsMaxL2, L1Norm, L2Norm
from brevq.core.zero_point import MeanZeroPoint, ZeroZeroPoint
from brevq.inject import Injector
from injectors.weight import Int4WeightPerTensor, Int8WeightPerChannel


class DecoupledParts(Injector):
    """Parts list of weights that are rounded by their own range, at every step, and dequantized by a learned one.

    ``codes = round(w * threshold / stats(w))`` and ``scale = t / threshold``. The learned ``t`` starts as the
    statistic. Left to declare: `scaling_stats_impl`, and all that integer weights ask for.
    """

    tensor_quant: Any = DecoupledRescalingIntQuant
    decoupled_int_quant: Any = DecoupledIntQuant
    pre_scaling_impl: Any = StatsScaling
    pre_zero_point_impl: Any = ZeroZeroPoint
    scaling_impl: Any = LearnedStatsScaling
    tensor_clamp_impl: Any = TensorClampSte


class Int8WeightPerChannelDecoupled(DecoupledParts, Int8WeightPerChannel):
    """Signed 8-bit weights, rounded by their range, with a learned scale: ``codes = round(127 * w / max |w_c|)``.

    The scale of a channel starts as ``max |w_c| / 127``. It is learned, and moves no code.

    Source: Pappalardo, 2023, "Brevitas", https://github.com/Xilinx/brevitas, whose decoupled weights it takes up.
    """


class Int4WeightPerTensorDecoupled(DecoupledParts, Int4WeightPerTensor):
    """Signed 4-bit weights, rounded by a mean range of channels, with one learned scale.

    ``codes = round(7 * w / r)``, where ``r`` is the root mean square over output channels of ``max |w_c|``. The scale
    starts as ``r / 7``, and is learned; it moves no code. For weights whose channels differ much, such as depthwise
    ones.

    Source: Pappalardo, 2023, "Brevitas", https://github.com/Xilinx/brevitas, whose decoupled weights it takes up.
    """

    scaling_stats_impl = AbsMaxL2
    channel_granularity_impl: Any = PerChannel


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
