"""Recipes for activations with other ranges than an observed percentile.

Those of each input itself, which is dynamic quantization; those of each batch in training, which is BatchQuant; the
largest of all that were observed; and shifted fixed-point ones.
"""

from __future__ import annotations

from typing import Any

from brevq.core.function_wrapper import PerChannel, PerGroup, PerToken, TensorClampSte
from brevq.core.restrict_val import PowerOfTwoRestrictValue
from brevq.core.scaling import LearnedFactorScaling, RuntimeStatsScaling, StatsScaling
from brevq.core.stats import (
    AbsMax,
    AbsMaxAve,
    AbsMinMax,
    NegativeMinOrZero,
    RunningInterval,
    RunningMax,
    TrueAverage,
    TwoSided,
)
from brevq.core.zero_point import StatsZeroPoint
from brevq.inject import Injector
from injectors.activation import Int8ActPerTensor, ShiftedUint8ActPerTensor, Uint8ActPerTensor
from injectors.bases import ActQuant, IntAct, IntParts
from injectors.floating import Fp8e4m3OCPActPerTensor


class DynamicAct(IntParts, ActQuant):
    """Symmetric, narrow, signed integer activations, whose range is that of each input itself.

    ``scale = max |x| / (2 ** (bit_width - 1) - 1)``. Left to declare: `bit_width`.
    """

    signed = True
    narrow_range = True
    scaling_impl: Any = StatsScaling
    scaling_stats_impl: Any = AbsMax


class Int8ActPerTensorDynamic(DynamicAct):
    """Signed 8-bit activations, one scale, computed from each input: ``scale = max |x| / 127``, codes -127 to 127.

    Source: Dettmers et al., 2022, https://arxiv.org/abs/2208.07339, section 2.1.
    """

    bit_width = 8


class Int8ActPerTokenDynamic(Int8ActPerTensorDynamic):
    """Signed 8-bit activations, a scale for each token, computed from it: ``scale_t = max |x_t| / 127``.

    A token is all the values along the last axis; `feature_axis` names another.

    Source: Yao et al., 2022, https://arxiv.org/abs/2206.01861, section 4.1.
    """

    granularity_impl = PerToken


class Int8ActPerGroupDynamic(Int8ActPerTensorDynamic):
    """Signed 8-bit activations in groups: 32 along the last axis share ``scale_g = max |x_g| / 127``, of each input.

    A last group that is not full counts as filled up with zeros.

    Source: Dettmers et al., 2021, https://arxiv.org/abs/2110.02861, section 2.1, on an integer grid in blocks of 32.
    """

    granularity_impl = PerGroup
    group_size = 32
    group_axis = -1
    pad = True


class ShiftedUint8ActPerTensorDynamic(DynamicAct):
    """Unsigned 8-bit activations with a zero-point, both computed from each input: ``(max(x, 0) - min(x, 0)) / 255``.

    That is the scale; ``zero_point = round(-min(x, 0) / scale)``, codes 0 to 255.

    Source: Dettmers et al., 2022, https://arxiv.org/abs/2208.07339, section 2.1.
    """

    bit_width = 8
    signed = False
    narrow_range = False
    tensor_clamp_impl = TensorClampSte
    scaling_stats_impl = AbsMinMax
    zero_point_impl = StatsZeroPoint
    zero_point_stats_impl = NegativeMinOrZero


class ShiftedUint8ActPerTokenDynamic(ShiftedUint8ActPerTensorDynamic):
    """Unsigned 8-bit activations, a scale and a zero-point for each token, computed from it.

    ``scale_t = (max(x_t, 0) - min(x_t, 0)) / 255`` and ``zero_point_t = round(-min(x_t, 0) / scale_t)``. A token is
    all the values along the last axis; `feature_axis` names another.

    Source: Yao et al., 2022, https://arxiv.org/abs/2206.01861, section 4.1, with a zero-point.
    """

    granularity_impl = PerToken


class Fp8e4m3OCPActPerTokenDynamic(Fp8e4m3OCPActPerTensor):
    """Activations in 8-bit floating-point, a scale for each token, computed from it: ``scale_t = max |x_t| / 448``.

    4 exponent and 3 mantissa bits.

    Source: Micikevicius et al., 2022, https://arxiv.org/abs/2209.05433, for the format.
    """

    scaling_impl = StatsScaling
    scaling_stats_impl = AbsMax
    granularity_impl: Any = PerToken


class Fp8e4m3OCPActPerGroupDynamic(Fp8e4m3OCPActPerTokenDynamic):
    """Activations in 8-bit floating-point in groups: 128 along the last axis share ``scale_g = max |x_g| / 448``.

    4 exponent and 3 mantissa bits. Scales are those of each input.

    Source: DeepSeek-AI, 2024, https://arxiv.org/abs/2412.19437, section 3.3.2.
    """

    granularity_impl = PerGroup
    group_size = 128
    group_axis = -1
    pad = True


class BatchQuantParts(Injector):
    """Parts list of ranges that are each batch's own in training, and the average of all batches in evaluation.

    ``range = s * mean_c max |x_c|`` over the channels, which are the second axis; the factor ``s`` is learned, and
    starts from 1. The average is a true one, with the same weight for each batch.
    """

    scaling_impl: Any = LearnedFactorScaling
    range_impl: Any = RuntimeStatsScaling
    scaling_stats_impl: Any = AbsMaxAve
    channel_granularity_impl: Any = PerChannel
    tensor_shape = (1, 1)
    channel_axis = 1
    running_impl: Any = TrueAverage
    #: More than training has: the range stays that of the batch.
    collect_stats_steps = 2**62


class Int8ActPerTensorBatchQuant(BatchQuantParts, IntAct):
    """Signed 8-bit activations, with the range of each batch in training: ``scale = s * mean_c max |x_c| / 128``.

    The mean is over channels, the second axis, and the factor ``s`` is learned. Evaluation uses the average over all
    batches, or what calibration observed, which then stays.

    Source: Bai et al., 2021, https://arxiv.org/abs/2105.08952, section 3.2, with a symmetric range.
    """

    bit_width = 8
    signed = True


class Uint8ActPerTensorBatchQuant(BatchQuantParts, IntAct):
    """Unsigned 8-bit activations, with the range of each batch in training: ``scale = s * mean_c max |x_c| / 255``.

    The mean is over channels, the second axis, and the factor ``s`` is learned. Evaluation uses the average over all
    batches, or what calibration observed, which then stays. For outputs of ReLU.

    Source: Bai et al., 2021, https://arxiv.org/abs/2105.08952, section 3.2, with a symmetric range.
    """

    bit_width = 8
    signed = False


class Int8ActPerTensorMax(Int8ActPerTensor):
    """Signed 8-bit activations, one scale: ``scale = max |x| / 128``, of all values that were observed.

    Fixed by calibration, or learned in training after 300 batches.

    Source: Wu et al., 2020, https://arxiv.org/abs/2004.09602, section 3.4.
    """

    scaling_stats_impl = AbsMax
    running_impl = RunningMax


class Uint8ActPerTensorMax(Uint8ActPerTensor):
    """Unsigned 8-bit activations, one scale: ``scale = max |x| / 255``, of all values that were observed.

    Fixed by calibration, or learned in training after 300 batches. For outputs of ReLU.

    Source: Wu et al., 2020, https://arxiv.org/abs/2004.09602, section 3.4.
    """

    scaling_stats_impl = AbsMax
    running_impl = RunningMax


class ShiftedUint8ActPerTensorMax(ShiftedUint8ActPerTensor):
    """Unsigned 8-bit activations with a zero-point: ``scale = (max x - min x) / 255``, of all values observed.

    The interval includes zero. Fixed by calibration, or learned in training after 300 batches.

    Source: Wu et al., 2020, https://arxiv.org/abs/2004.09602, section 3.4, with both extrema.
    """

    scaling_stats_impl: Any = TwoSided
    zero_point_stats_impl: Any = TwoSided
    side_stats_impl: Any = AbsMax
    running_impl: Any = RunningInterval
    side_running_impl: Any = RunningMax


class ShiftedUint8ActPerTensorPoT(ShiftedUint8ActPerTensor):
    """Unsigned 8-bit fixed-point activations with a zero-point: ``scale = 2 ** ceil(log2 (high - low)) / 256``.

    ``high`` and ``low`` are percentiles, 99.999 % and 0.001 %, of which the interval includes zero, observed over
    batches, then fixed or learned. ``zero_point = round(-low / scale)``.

    Source: Jain et al., 2020, https://arxiv.org/abs/1903.08066, section 3, with a zero-point.
    """

    restrict_scaling_impl = PowerOfTwoRestrictValue
