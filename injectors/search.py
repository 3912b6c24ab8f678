"""Recipes whose ranges or zero-points are searched for: by least squared error (MSE), or half-quadratically (HQO).

The ranges and zero-points of weights are searched for once, and learned from there; those of block formats, which have
few candidates, at every call. Those of activations are searched for in each batch that is observed, then fixed or
learned. The grid that is searched on, `search_grid_impl`, is the one that is quantized to.
"""

from __future__ import annotations

from typing import Any

from brevq.core.scaling import LearnedStatsScaling
from brevq.core.stats import (
    MSE,
    AbsMinMax,
    BlockGrid,
    FormatGrid,
    HalfQuadraticOptimizerScale,
    HalfQuadraticOptimizerZeroPoint,
    IntervalSearch,
    MSEInterval,
    NearestGrid,
    NegativeMSEOrZero,
)
from brevq.core.zero_point import LearnedStatsZeroPoint
from brevq.inject import Injector
from injectors.activation import Int8ActPerTensor, ShiftedUint8ActPerTensor, Uint8ActPerTensor
from injectors.block import MXFp8e4m3Weight, MXInt8Weight
from injectors.floating import Fp8e4m3OCPActPerTensor, Fp8e4m3OCPWeightPerChannel, Fp8e4m3OCPWeightPerTensor
from injectors.group import ShiftedUint4WeightPerGroup, ShiftedUint8WeightPerChannel
from injectors.weight import Int8WeightPerChannel, Int8WeightPerTensor, ShiftedUint8WeightPerTensor


class ShiftedMSE(Injector):
    """Parts list of least squared error with a zero-point: ``scale = (high - low) / threshold``, `low` on a code.

    The ends of the interval are searched for together, one in the place of ``min(x, 0)``, one of ``max(x, 0)``.
    """

    search_grid_impl: Any = NearestGrid
    interval_search_impl: Any = IntervalSearch
    scaling_stats_impl: Any = MSEInterval
    zero_point_stats_impl: Any = NegativeMSEOrZero


class Int8WeightPerTensorMSE(Int8WeightPerTensor):
    """Signed 8-bit weights with one learned scale, which starts where the squared error is smallest.

    ``scale = argmin_s sum (s * clamp(round(w / s), -127, 127) - w) ** 2``, s from 1 % to 100 % of ``max |w| / 127``.

    Source: Nagel et al., 2021, https://arxiv.org/abs/2106.08295, section 3.1.
    """

    scaling_impl = LearnedStatsScaling
    scaling_stats_impl = MSE
    search_grid_impl: Any = NearestGrid


class Int8WeightPerChannelMSE(Int8WeightPerChannel):
    """Signed 8-bit weights with a learned scale for each output channel, which starts where its squared error is least.

    ``scale_c = argmin_s sum (s * clamp(round(w_c / s), -127, 127) - w_c) ** 2``.

    Source: Nagel et al., 2021, https://arxiv.org/abs/2106.08295, section 3.1.
    """

    scaling_impl = LearnedStatsScaling
    scaling_stats_impl = MSE
    search_grid_impl: Any = NearestGrid


class Int8ActPerTensorMSE(Int8ActPerTensor):
    """Signed 8-bit activations, one scale, that of the smallest squared error of each batch, averaged.

    ``scale = argmin_s sum (s * clamp(round(x / s), -128, 127) - x) ** 2``, observed over batches, then fixed by
    calibration or learned in training.

    Source: Nagel et al., 2021, https://arxiv.org/abs/2106.08295, section 3.1.
    """

    scaling_stats_impl = MSE
    search_grid_impl: Any = NearestGrid


class Uint8ActPerTensorMSE(Uint8ActPerTensor):
    """Unsigned 8-bit activations, one scale, that of the smallest squared error of each batch, averaged.

    ``scale = argmin_s sum (s * clamp(round(x / s), 0, 255) - x) ** 2``, observed over batches, then fixed by
    calibration or learned in training. For outputs of ReLU.

    Source: Nagel et al., 2021, https://arxiv.org/abs/2106.08295, section 3.1.
    """

    scaling_stats_impl = MSE
    search_grid_impl: Any = NearestGrid


class ShiftedUint8WeightPerTensorMSE(ShiftedMSE, ShiftedUint8WeightPerTensor):
    """Unsigned 8-bit weights with a zero-point, both learned, which start where the squared error is smallest.

    ``scale = (high - low) / 255`` and ``zero_point = round(-low / scale)``, where ``low`` and ``high`` are 1 % to 100 %
    of ``min(w, 0)`` and ``max(w, 0)``.

    Source: Nagel et al., 2021, https://arxiv.org/abs/2106.08295, section 3.1.
    """

    scaling_impl = LearnedStatsScaling
    zero_point_impl: Any = LearnedStatsZeroPoint


class ShiftedUint8WeightPerChannelMSE(ShiftedMSE, ShiftedUint8WeightPerChannel):
    """Unsigned 8-bit weights, a learned zero-point for each output channel, which starts at the least squared error.

    ``scale_c = (high_c - low_c) / 255`` and ``zero_point_c = round(-low_c / scale_c)``, where ``low_c`` and ``high_c``
    are 1 % to 100 % of ``min(w_c, 0)`` and ``max(w_c, 0)``. Scales are learned too.

    Source: Nagel et al., 2021, https://arxiv.org/abs/2106.08295, section 3.1.
    """

    scaling_impl = LearnedStatsScaling
    zero_point_impl: Any = LearnedStatsZeroPoint


class ShiftedUint8ActPerTensorMSE(ShiftedMSE, ShiftedUint8ActPerTensor):
    """Unsigned 8-bit activations with a zero-point, both those of the smallest squared error of each batch, averaged.

    ``scale = (high - low) / 255`` and ``zero_point = round(-low / scale)``, where ``low`` and ``high`` are 1 % to 100 %
    of ``min(x, 0)`` and ``max(x, 0)``; observed over batches, then fixed or learned.

    Source: Nagel et al., 2021, https://arxiv.org/abs/2106.08295, section 3.1.
    """


class Fp8e4m3OCPWeightPerTensorMSE(Fp8e4m3OCPWeightPerTensor):
    """Weights in 8-bit floating-point, one learned scale, which starts where the squared error is smallest.

    ``scale = argmin_s sum (s * cast(w / s) - w) ** 2``, s from 1 % to 100 % of ``max |w| / 448``. 4 exponent and 3
    mantissa bits; ``let(float_format=...)`` searches on another format.

    Source: Kuzmin et al., 2022, https://arxiv.org/abs/2208.09225, section 5, with the format of OCP.
    """

    scaling_impl = LearnedStatsScaling
    scaling_stats_impl = MSE
    search_grid_impl: Any = FormatGrid


class Fp8e4m3OCPWeightPerChannelMSE(Fp8e4m3OCPWeightPerChannel):
    """Weights in 8-bit floating-point, a learned scale for each output channel, at first that of least squared error.

    ``scale_c = argmin_s sum (s * cast(w_c / s) - w_c) ** 2``. 4 exponent and 3 mantissa bits;
    ``let(float_format=...)`` searches on another format.

    Source: Kuzmin et al., 2022, https://arxiv.org/abs/2208.09225, section 5, with the format of OCP.
    """

    scaling_impl = LearnedStatsScaling
    scaling_stats_impl = MSE
    search_grid_impl: Any = FormatGrid


class Fp8e4m3OCPActPerTensorMSE(Fp8e4m3OCPActPerTensor):
    """Activations in 8-bit floating-point, one scale, that of the smallest squared error of each batch, averaged.

    ``scale = argmin_s sum (s * cast(x / s) - x) ** 2``, observed over batches, then fixed or learned. 4 exponent and 3
    mantissa bits; ``let(float_format=...)`` searches on another format.

    Source: Kuzmin et al., 2022, https://arxiv.org/abs/2208.09225, section 5, with the format of OCP.
    """

    scaling_stats_impl = MSE
    search_grid_impl: Any = FormatGrid


class MXFp8e4m3WeightMSE(MXFp8e4m3Weight):
    """Weights in OCP MXFP8 (E4M3): 32 weights share the power of two of the smallest squared error.

    One of ``2 ** (floor(log2 max |w|) - 8)``, twice that, and what is a half or less of it.

    Source: OCP Microscaling Formats Specification, version 1.0, section 6.3, which leaves the choice of scales open.
    """

    scaling_stats_impl = MSE
    search_grid_impl: Any = BlockGrid
    mse_iters = 8
    mse_reach = 2.0


class MXInt8WeightMSE(MXInt8Weight):
    """Weights in OCP MXINT8: 32 weights share the power of two of the smallest squared error, in steps of 1/64.

    One of ``2 ** floor(log2 max |w|)``, twice that, and what is a half or less of it.

    Source: OCP Microscaling Formats Specification, version 1.0, section 6.3, which leaves the choice of scales open.
    """

    scaling_stats_impl = MSE
    search_grid_impl: Any = BlockGrid
    mse_iters = 8
    mse_reach = 2.0


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
    splitting, and ``scale = (max(w, 0) - min(w, 0)) / 255``; both are learned from there.

    Source: Badri and Shaji, 2023, https://mobiusml.github.io/hqq_blog/.
    """

    scaling_impl = LearnedStatsScaling
    zero_point_impl: Any = LearnedStatsZeroPoint
    zero_point_stats_impl: Any = HalfQuadraticOptimizerZeroPoint
    quantize_zero_point = False


class ShiftedUint8WeightPerChannelHQO(ShiftedUint8WeightPerChannel):
    """Unsigned 8-bit weights with a zero-point of the smallest 0.7-norm of errors for each output channel.

    ``zero_point_c = argmin_z sum |clamp(round(w_c / scale_c + z), 0, 255) - z - w_c / scale_c| ** p``; it need not be
    a code. ``scale_c = (max(w_c, 0) - min(w_c, 0)) / 255``. Both are learned from there.

    Source: Badri and Shaji, 2023, https://mobiusml.github.io/hqq_blog/.
    """

    scaling_impl = LearnedStatsScaling
    zero_point_impl: Any = LearnedStatsZeroPoint
    zero_point_stats_impl: Any = HalfQuadraticOptimizerZeroPoint
    quantize_zero_point = False


class ShiftedUint4WeightPerGroupHQO(ShiftedUint4WeightPerGroup):
    """Unsigned 4-bit weights in groups: 64 share a scale and a zero-point of the smallest 0.7-norm of errors.

    ``zero_point_g = round(argmin_z sum |clamp(round(w_g / scale_g + z), 0, 15) - z - w_g / scale_g| ** p)``, by
    half-quadratic splitting, and ``scale_g = (max(w_g, 0) - min(w_g, 0)) / 15``; both are learned from there.

    Source: Badri and Shaji, 2023, https://mobiusml.github.io/hqq_blog/, whose code rounds the zero-points of 4 bits.
    """

    group_size = 64
    scaling_impl = LearnedStatsScaling
    zero_point_impl: Any = LearnedStatsZeroPoint
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
