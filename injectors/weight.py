"""Recipes for weights."""

from __future__ import annotations

from typing import Any

from brevq.core.function_wrapper import PerChannel, PerTensor, TensorClampSte
from brevq.core.quant import BinaryQuant, TernaryQuant
from brevq.core.restrict_val import FloatRestrictValue, PowerOfTwoRestrictValue
from brevq.core.scaling import LearnedStatsScaling, LsqGradientScale, LsqIntScaledAve, StatsScaling
from brevq.core.stats import AbsAve, AbsAveAboveThreshold, AbsMinMax, NegativeMinOrZero
from brevq.core.zero_point import StatsZeroPoint
from injectors.bases import IntWeight, WeightQuant


class Int8WeightPerTensor(IntWeight):
    """Signed 8-bit weights, one scale for the tensor: ``scale = max |w| / 127``, codes -127 to 127.

    Source: Jacob et al., 2018, https://arxiv.org/abs/1712.05877, section 3.1, with a symmetric range.
    """

    bit_width = 8


class Int8WeightPerChannel(Int8WeightPerTensor):
    """Signed 8-bit weights, one scale for each output channel: ``scale_c = max |w_c| / 127``.

    Source: Krishnamoorthi, 2018, https://arxiv.org/abs/1806.08342, section 2.6.
    """

    granularity_impl = PerChannel


class Int4WeightPerTensor(Int8WeightPerTensor):
    """Signed 4-bit weights, one scale for the tensor: ``scale = max |w| / 7``, codes -7 to 7.

    Source: Jacob et al., 2018, https://arxiv.org/abs/1712.05877, section 3.1, with a symmetric range.
    """

    bit_width = 4


class Int4WeightPerChannel(Int8WeightPerChannel):
    """Signed 4-bit weights, one scale for each output channel: ``scale_c = max |w_c| / 7``.

    Source: Krishnamoorthi, 2018, https://arxiv.org/abs/1806.08342, section 2.6.
    """

    bit_width = 4


class Int8WeightPerTensorPoT(Int8WeightPerTensor):
    """Signed 8-bit fixed-point weights, one power-of-two scale: ``scale = 2 ** ceil(log2 max |w|) / 128``.

    What is rounded up to the code 128 is clipped to 127, and keeps its gradient.

    Source: Jain et al., 2020, https://arxiv.org/abs/1903.08066, section 3.
    """

    restrict_scaling_impl = PowerOfTwoRestrictValue
    tensor_clamp_impl: Any = TensorClampSte


class Int8WeightPerChannelPoT(Int8WeightPerChannel):
    """Signed 8-bit fixed-point weights, a power-of-two scale for each output channel.

    ``scale_c = 2 ** ceil(log2 max |w_c|) / 128``.

    Source: Jain et al., 2020, https://arxiv.org/abs/1903.08066, section 3, per channel.
    """

    restrict_scaling_impl = PowerOfTwoRestrictValue
    tensor_clamp_impl: Any = TensorClampSte


class Int4WeightPerTensorPoT(Int8WeightPerTensorPoT):
    """Signed 4-bit fixed-point weights, one power-of-two scale: ``scale = 2 ** ceil(log2 max |w|) / 8``.

    Source: Jain et al., 2020, https://arxiv.org/abs/1903.08066, section 3.
    """

    bit_width = 4


class Int4WeightPerChannelPoT(Int8WeightPerChannelPoT):
    """Signed 4-bit fixed-point weights, a power-of-two scale for each output channel.

    ``scale_c = 2 ** ceil(log2 max |w_c|) / 8``.

    Source: Jain et al., 2020, https://arxiv.org/abs/1903.08066, section 3, per channel.
    """

    bit_width = 4


class ShiftedUint8WeightPerTensor(Int8WeightPerTensor):
    """Unsigned 8-bit weights with a zero-point: ``scale = (max(w, 0) - min(w, 0)) / 255``, codes 0 to 255.

    ``zero_point = round(-min(w, 0) / scale)``.

    Source: Jacob et al., 2018, https://arxiv.org/abs/1712.05877, section 2.1.
    """

    signed = False
    narrow_range = False
    tensor_clamp_impl: Any = TensorClampSte
    scaling_stats_impl = AbsMinMax
    zero_point_impl = StatsZeroPoint
    zero_point_stats_impl = NegativeMinOrZero


class Int8WeightPerTensorLSQ(Int8WeightPerTensor):
    """Signed 8-bit weights with one learned scale, which starts from ``2 * mean |w| / sqrt(127)``.

    Its gradient is multiplied by ``1 / sqrt(n * 127)``, ``n`` being the number of weights.

    Source: Esser et al., 2020, https://arxiv.org/abs/1902.08153, section 2.
    """

    scaling_impl = LearnedStatsScaling
    scaling_stats_impl = LsqIntScaledAve
    gradient_scale_impl = LsqGradientScale


class BinaryWeightPerTensor(WeightQuant):
    """Binary weights, one scale for the tensor: ``w >= 0`` becomes ``mean |w|``, the others ``-mean |w|``.

    Source: Rastegari et al., 2016, https://arxiv.org/abs/1603.05279, section 3.1.
    """

    tensor_quant = BinaryQuant
    scaling_impl = StatsScaling
    scaling_stats_impl = AbsAve
    granularity_impl: Any = PerTensor
    restrict_scaling_impl = FloatRestrictValue
    scaling_min_val = 1e-10


class BinaryWeightPerChannel(BinaryWeightPerTensor):
    """Binary weights, one scale for each output channel: ``w_c >= 0`` becomes ``mean |w_c|``, the others its negative.

    Source: Rastegari et al., 2016, https://arxiv.org/abs/1603.05279, section 3.1.
    """

    granularity_impl = PerChannel


class TernaryWeightPerTensor(WeightQuant):
    """Ternary weights, one scale for the tensor: minus the scale, zero or the scale, whichever is nearest.

    The scale is the mean of all ``|w|`` above ``0.7 * mean |w|``. Weights that are zero get no gradient of their own,
    so this fits networks that were trained in float; ``Int8WeightPerTensor.let(bit_width=2)``, which has three levels
    too, trains better from the start.

    Source: Li et al., 2016, https://arxiv.org/abs/1605.04711, section 2, with nearest levels.
    """

    tensor_quant = TernaryQuant
    threshold = 0.5
    scaling_impl = StatsScaling
    scaling_stats_impl = AbsAveAboveThreshold
    granularity_impl: Any = PerTensor
    restrict_scaling_impl = FloatRestrictValue
    scaling_min_val = 1e-10


class TernaryWeightPerChannel(TernaryWeightPerTensor):
    """Ternary weights, one scale for each output channel: minus the scale, zero or the scale, whichever is nearest.

    The scale of a channel is the mean of all ``|w_c|`` above ``0.7 * mean |w_c|``. Weights that are zero get no
    gradient of their own, so this fits networks that were trained in float; ``Int8WeightPerChannel.let(bit_width=2)``,
    which has three levels too, trains better from the start.

    Source: Li et al., 2016, https://arxiv.org/abs/1605.04711, section 2, with nearest levels.
    """

    granularity_impl = PerChannel
