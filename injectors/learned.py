"""Recipes whose thresholds, offsets or bit widths are learned: TQT, LSQ+, logarithms of ranges, and bit widths.

LSQ stands with the plain recipes, in `injectors.weight` and `injectors.activation`.
"""

from __future__ import annotations

from brevq.core.bit_width import BitWidthParameter
from brevq.core.function_wrapper import TensorClamp
from brevq.core.restrict_val import LogFloatRestrictValue
from brevq.core.scaling import LearnedStatsScaling, LsqGradientScale, NormalInterval
from brevq.core.stats import AbsMinMax, NegativeMinOrZero
from brevq.core.zero_point import RuntimeStatsZeroPoint
from injectors.activation import (
    Int8ActPerTensor,
    Int8ActPerTensorPoT,
    Uint8ActPerTensor,
    Uint8ActPerTensorPoT,
)
from injectors.weight import Int8WeightPerChannel, Int8WeightPerTensor, Int8WeightPerTensorPoT


class Int8WeightPerTensorTQT(Int8WeightPerTensorPoT):
    """Signed 8-bit fixed-point weights with a learned threshold: ``scale = 2 ** ceil(log2 t) / 128``.

    Codes are -128 to 127. ``log2 t`` is learned, and starts from ``|mean w| + 3 std w``. What was clipped has
    no gradient, and moves `t`.

    Source: Jain et al., 2020, https://arxiv.org/abs/1903.08066, section 3.
    """

    narrow_range = False
    tensor_clamp_impl = TensorClamp
    scaling_impl = LearnedStatsScaling
    scaling_stats_impl = NormalInterval


class Int8ActPerTensorTQT(Int8ActPerTensorPoT):
    """Signed 8-bit fixed-point activations with a learned threshold: ``scale = 2 ** ceil(log2 t) / 128``.

    ``log2 t`` is learned, and starts from that of a percentile, 99.999 %, of the first batch.

    Source: Jain et al., 2020, https://arxiv.org/abs/1903.08066, section 3, with a percentile for the start.
    """

    collect_stats_steps = 1


class Uint8ActPerTensorTQT(Uint8ActPerTensorPoT):
    """Unsigned 8-bit fixed-point activations with a learned threshold: ``scale = 2 ** ceil(log2 t) / 256``.

    ``log2 t`` is learned, and starts from that of a percentile, 99.999 %, of the first batch.

    Source: Jain et al., 2020, https://arxiv.org/abs/1903.08066, section 3, with a percentile for the start.
    """

    collect_stats_steps = 1


class Int8WeightPerChannelLSQPlus(Int8WeightPerChannel):
    """Signed 8-bit weights with a learned scale for each output channel: ``scale_c = t_c / 128``, codes -128 to 127.

    ``t_c`` starts from ``max |mean w_c +- 3 std w_c|``. Its gradient is multiplied by ``1 / sqrt(n * 127)``, ``n``
    being the number of weights of the channel.

    Source: Bhalgat et al., 2020, https://arxiv.org/abs/2004.09576, section 3, per channel.
    """

    narrow_range = False
    tensor_clamp_impl = TensorClamp
    scaling_impl = LearnedStatsScaling
    scaling_stats_impl = NormalInterval
    gradient_scale_impl = LsqGradientScale


class ShiftedUint8ActPerTensorLSQPlus(Uint8ActPerTensor):
    """Unsigned 8-bit activations with a learned scale and a learned offset, which need not be a code.

    ``codes = round((x - offset) / scale)``, 0 to 255. Both start from the first batch: the offset from its minimum, or
    zero, and the scale from the width of the batch and zero, over 255. The scale's gradient is multiplied by
    ``1 / sqrt(n * 255)``, ``n`` being the number of values in a sample.

    Source: Bhalgat et al., 2020, https://arxiv.org/abs/2004.09576, section 3.1, with extrema for the start.
    """

    scaling_stats_impl = AbsMinMax
    zero_point_impl = RuntimeStatsZeroPoint
    zero_point_stats_impl = NegativeMinOrZero
    quantize_zero_point = False
    gradient_scale_impl = LsqGradientScale
    batched = True
    collect_stats_steps = 1


class Int8WeightPerTensorLog(Int8WeightPerTensor):
    """Signed 8-bit weights with a scale that is learned as its logarithm: ``scale = 2 ** v / 127``.

    ``v`` starts from ``log2 max |w|``. Steps of training are then fractions of the scale, which stays positive.

    Source: Jain et al., 2020, https://arxiv.org/abs/1903.08066, for learning logarithms, without rounding them.
    """

    scaling_impl = LearnedStatsScaling
    restrict_scaling_impl = LogFloatRestrictValue


class Int8ActPerTensorLog(Int8ActPerTensor):
    """Signed 8-bit activations with a scale that is learned as its logarithm: ``scale = 2 ** v / 128``.

    ``v`` starts from the logarithm of a percentile, 99.999 %, whose logarithms are averaged over batches.

    Source: Jain et al., 2020, https://arxiv.org/abs/1903.08066, for learning logarithms, without rounding them.
    """

    restrict_scaling_impl = LogFloatRestrictValue


class Uint8ActPerTensorLog(Uint8ActPerTensor):
    """Unsigned 8-bit activations with a scale that is learned as its logarithm: ``scale = 2 ** v / 255``.

    ``v`` starts from the logarithm of a percentile, 99.999 %, averaged over batches. For outputs of ReLU.

    Source: Jain et al., 2020, https://arxiv.org/abs/1903.08066, for learning logarithms, without rounding them.
    """

    restrict_scaling_impl = LogFloatRestrictValue


class Int8WeightPerTensorLearnedBits(Int8WeightPerTensor):
    """Signed weights with a learned bit width, which starts from 8 and stays at 2 or more.

    ``scale = max |w| / (2 ** (bit_width - 1) - 1)``. Without a loss on bits, such as `brevq.loss.BitWidthLoss`,
    nothing speaks for fewer.

    Source: Uhlich et al., 2020, https://arxiv.org/abs/1905.11452, with a straight-through rounded bit width.
    """

    bit_width_impl = BitWidthParameter


class Int8ActPerTensorLearnedBits(Int8ActPerTensor):
    """Signed activations with a learned bit width, which starts from 8 and stays at 2 or more.

    ``scale = percentile |x| / 2 ** (bit_width - 1)``.

    Source: Uhlich et al., 2020, https://arxiv.org/abs/1905.11452, with a straight-through rounded bit width.
    """

    bit_width_impl = BitWidthParameter


class Uint8ActPerTensorLearnedBits(Uint8ActPerTensor):
    """Unsigned activations with a learned bit width, which starts from 8 and stays at 2 or more.

    ``scale = percentile |x| / (2 ** bit_width - 1)``. For outputs of ReLU.

    Source: Uhlich et al., 2020, https://arxiv.org/abs/1905.11452, with a straight-through rounded bit width.
    """

    bit_width_impl = BitWidthParameter
