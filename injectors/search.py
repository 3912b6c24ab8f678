"""Recipes whose ranges or zero-points are searched for: by least squared error (MSE), or half-quadratically (HQO).

The ranges of weights are searched for once, and learned from there. Those of activations are searched for in each
batch that is observed, then fixed or learned.
"""

from __future__ import annotations

from typing import Any

from brevq.core.scaling import LearnedStatsScaling
from brevq.core.stats import MSE, AbsMinMax, HalfQuadraticOptimizerScale, HalfQuadraticOptimizerZeroPoint
from injectors.activation import Int8ActPerTensor, ShiftedUint8ActPerTensor, Uint8ActPerTensor
from injectors.group import ShiftedUint4WeightPerGroup, ShiftedUint8WeightPerChannel
from injectors.weight import Int8WeightPerChannel, Int8WeightPerTensor, ShiftedUint8WeightPerTensor


class Int8WeightPerTensorMSE(Int8WeightPerTensor):
    """Signed 8-bit weights with one learned scale, which starts where the squared error is smallest.

    ``scale = argmin_s sum (s * clamp(round(w / s), -127, 127) - w) ** 2``, s from 1 % to 100 % of ``max |w| / 127``.

    Source: Nagel et al., 2021, https://arxiv.org/abs/2106.08295, section 3.1.
    """

    scaling_impl = LearnedStatsScaling
    scaling_stats_impl = MSE


class Int8WeightPerChannelMSE(Int8WeightPerChannel):
    """Signed 8-bit weights with a learned scale for each output channel, which starts where its squared error is least.

    ``scale_c = argmin_s sum (s * clamp(round(w_c / s), -127, 127) - w_c) ** 2``.

    Source: Nagel et al., 2021, https://arxiv.org/abs/2106.08295, section 3.1.
    """

    scaling_impl = LearnedStatsScaling
    scaling_stats_impl = MSE


class Int8ActPerTensorMSE(Int8ActPerTensor):
    """Signed 8-bit activations, one scale, that of the smallest squared error of each batch, averaged.

    ``scale = argmin_s sum (s * clamp(round(x / s), -128, 127) - x) ** 2``, observed over batches, then fixed by
    calibration or learned in training.

    Source: Nagel et al., 2021, https://arxiv.org/abs/2106.08295, section 3.1.
    """

    scaling_stats_impl = MSE


class Uint8ActPerTensorMSE(Uint8ActPerTensor):
    """Unsigned 8-bit activations, one scale, that of the smallest squared error of each batch, averaged.

    ``scale = argmin_s sum (s * clamp(round(x / s), 0, 255) - x) ** 2``, observed over batches, then fixed by
    calibration or learned in training. For outputs of ReLU.

    Source: Nagel et al., 2021, https://arxiv.org/abs/2106.08295, section 3.1.
    """

    scaling_stats_impl = MSE


class Int8WeightPerTensorHQO(Int8WeightPerTensor):
    """Signed 8-bit weights with one learned scale, which starts where errors have the smallest p-norm, p = 0.7.

    ``scale = argmin_s sum |s * clamp(round(w / s), -127, 127) - w| ** p``, by half-quadratic splitting.

    Source: Badri and Shaji, 2023, https://mobiusml.github.io/hqq_blog/, with the scale in place of the zero-point.
    """

    scaling_impl = LearnedStatsScaling
    scaling_stats_impl = HalfQuadraticOptimizerScale


class Int8WeightPerChannelHQO(Int8WeightPerChannel):
    """Signed 8-bit weights with a learned scale for each output channel, which starts at the smallest 0.7-norm.

    ``scale_c = argmin_s sum |s * clamp(round(w_c / s), -127, 127) - w_c| ** p``, by half-quadratic splitting.

    Source: Badri and Shaji, 2023, https://mobiusml.github.io/hqq_blog/, with the scale in place of the zero-point.
    """

    scaling_impl = LearnedStatsScaling
    scaling_stats_impl = HalfQuadraticOptimizerScale


class ShiftedUint8WeightPerTensorHQO(ShiftedUint8WeightPerTensor):
    """Unsigned 8-bit weights with a zero-point of the smallest 0.7-norm of errors, which need not be a code.

    ``zero_point = argmin_z sum |clamp(round(w / scale + z), 0, 255) - z - w / scale| ** p``, by half-quadratic
    splitting, and ``scale = (max(w, 0) - min(w, 0)) / 255``.

    Source: Badri and Shaji, 2023, https://mobiusml.github.io/hqq_blog/.
    """

    zero_point_stats_impl: Any = HalfQuadraticOptimizerZeroPoint
    quantize_zero_point = False


class ShiftedUint8WeightPerChannelHQO(ShiftedUint8WeightPerChannel):
    """Unsigned 8-bit weights with a zero-point of the smallest 0.7-norm of errors for each output channel.

    ``zero_point_c = argmin_z sum |clamp(round(w_c / scale_c + z), 0, 255) - z - w_c / scale_c| ** p``; it need not be
    a code. ``scale_c = (max(w_c, 0) - min(w_c, 0)) / 255``.

    Source: Badri and Shaji, 2023, https://mobiusml.github.io/hqq_blog/.
    """

    zero_point_stats_impl: Any = HalfQuadraticOptimizerZeroPoint
    quantize_zero_point = False


class ShiftedUint4WeightPerGroupHQO(ShiftedUint4WeightPerGroup):
    """Unsigned 4-bit weights in groups: 64 share a scale and a zero-point of the smallest 0.7-norm of errors.

    ``zero_point_g = round(argmin_z sum |clamp(round(w_g / scale_g + z), 0, 15) - z - w_g / scale_g| ** p)``, by
    half-quadratic splitting, and ``scale_g = (max(w_g, 0) - min(w_g, 0)) / 15``.

    Source: Badri and Shaji, 2023, https://mobiusml.github.io/hqq_blog/, whose code rounds the zero-points of 4 bits.
    """

    group_size = 64
    zero_point_stats_impl: Any = HalfQuadraticOptimizerZeroPoint


class ShiftedUint8ActPerTensorHQO(ShiftedUint8ActPerTensor):
    """Unsigned 8-bit activations with a zero-point of the smallest 0.7-norm of errors, which need not be a code.

    ``zero_point = argmin_z sum |clamp(round(x / scale + z), 0, 255) - z - x / scale| ** p`` of each batch, and
    ``scale = (max(x, 0) - min(x, 0)) / 255``; both are averaged over batches, then fixed or learned.

    Source: Badri and Shaji, 2023, https://mobiusml.github.io/hqq_blog/, for activations.
    """

    scaling_stats_impl: Any = AbsMinMax
    zero_point_stats_impl: Any = HalfQuadraticOptimizerZeroPoint
    quantize_zero_point = False
