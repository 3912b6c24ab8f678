"""Recipes for weights with a zero-point for each channel, and for weights in groups and blocks.

Groups may have scales that are quantized themselves, which is double quantization. A last group that is not full
counts as filled up with zeros; ``pad = False`` refuses it.
"""

from __future__ import annotations

from typing import Any

from brevq.core.formats.catalogue import (
    FP4_E2M1,
    FP6_E2M3,
    FP6_E3M2,
    FP8_E4M3,
    FP8_E4M3FNUZ,
    FP8_E5M2,
    FP8_E5M2FNUZ,
)
from brevq.core.function_wrapper import PerBlock, PerChannel, PerGroup
from brevq.core.scaling import QuantizedScaling, StatsScaling
from brevq.inject import Injector, build, value
from injectors.dynamic import Fp8e4m3OCPActPerGroupDynamic
from injectors.floating import FloatWeight, Fp8e4m3OCPWeightPerTensor
from injectors.weight import Int8WeightPerTensor, ShiftedUint8WeightPerTensor


class WeightGroups(Injector):
    """Parts list of weights in groups of 32 along their inputs: ``scale_g`` is that of a group.

    Source: Yao et al., 2022, https://arxiv.org/abs/2206.01861, section 4.1, with groups of 32.
    """

    granularity_impl: Any = PerGroup
    group_size = 32
    group_axis = None
    pad = True


class Int8WeightPerGroup(WeightGroups, Int8WeightPerTensor):
    """Signed 8-bit weights in groups: 32 along the inputs share ``scale_g = max |w_g| / 127``, codes -127 to 127.

    Source: Yao et al., 2022, https://arxiv.org/abs/2206.01861, section 4.1, with groups of 32.
    """


class Int4WeightPerGroup(Int8WeightPerGroup):
    """Signed 4-bit weights in groups: 32 along the inputs share ``scale_g = max |w_g| / 7``, codes -7 to 7.

    Source: Yao et al., 2022, https://arxiv.org/abs/2206.01861, section 4.1, with groups of 32.
    """

    bit_width = 4


class ShiftedUint8WeightPerChannel(ShiftedUint8WeightPerTensor):
    """Unsigned 8-bit weights, a zero-point for each output channel: ``scale_c = (max(w_c, 0) - min(w_c, 0)) / 255``.

    ``zero_point_c = round(-min(w_c, 0) / scale_c)``, codes 0 to 255.

    Source: Krishnamoorthi, 2018, https://arxiv.org/abs/1806.08342, sections 2.1 and 2.6.
    """

    granularity_impl = PerChannel


class ShiftedUint4WeightPerChannel(ShiftedUint8WeightPerChannel):
    """Unsigned 4-bit weights, a zero-point for each output channel: ``scale_c = (max(w_c, 0) - min(w_c, 0)) / 15``.

    ``zero_point_c = round(-min(w_c, 0) / scale_c)``, codes 0 to 15.

    Source: Frantar et al., 2022, https://arxiv.org/abs/2210.17323, section 5.
    """

    bit_width = 4


class ShiftedUint8WeightPerGroup(WeightGroups, ShiftedUint8WeightPerTensor):
    """Unsigned 8-bit weights in groups: 32 share a zero-point and ``scale_g = (max(w_g, 0) - min(w_g, 0)) / 255``.

    ``zero_point_g = round(-min(w_g, 0) / scale_g)``, codes 0 to 255. Groups lie along the inputs.

    Source: Yao et al., 2022, https://arxiv.org/abs/2206.01861, section 4.1, with a zero-point.
    """


class ShiftedUint4WeightPerGroup(ShiftedUint8WeightPerGroup):
    """Unsigned 4-bit weights in groups: 128 share a zero-point and ``scale_g = (max(w_g, 0) - min(w_g, 0)) / 15``.

    ``zero_point_g = round(-min(w_g, 0) / scale_g)``, codes 0 to 15. Groups lie along the inputs.

    Source: Lin et al., 2023, https://arxiv.org/abs/2306.00978, section 5.1.
    """

    bit_width = 4
    group_size = 128


class Fp8e4m3OCPWeightPerBlock(Fp8e4m3OCPWeightPerTensor):
    """Weights in 8-bit floating-point in blocks: 128 by 128 share ``scale_b = max |w_b| / 448``.

    4 exponent and 3 mantissa bits.

    Source: DeepSeek-AI, 2024, https://arxiv.org/abs/2412.19437, section 3.3.2.
    """

    granularity_impl = PerBlock
    block_shape = (128, 128)
    pad = True


class FloatWeightPerGroup(WeightGroups, FloatWeight):
    """Floating-point weights in groups: 32 along the inputs share ``scale_g = max |w_g| / float_format.max``.

    Left to declare: `float_format`.

    Source: Yao et al., 2022, https://arxiv.org/abs/2206.01861, section 4.1, for groups.
    """


class Fp8e4m3OCPWeightPerGroup(FloatWeightPerGroup):
    """Weights in 8-bit floating-point in groups: 32 along the inputs share ``scale_g = max |w_g| / 448``.

    4 exponent and 3 mantissa bits.

    Source: Micikevicius et al., 2022, https://arxiv.org/abs/2209.05433, for the format.
    """

    float_format = FP8_E4M3


class Fp8e5m2OCPWeightPerGroup(FloatWeightPerGroup):
    """Weights in 8-bit floating-point in groups: 32 along the inputs share ``scale_g = max |w_g| / 57344``.

    5 exponent and 2 mantissa bits.

    Source: Micikevicius et al., 2022, https://arxiv.org/abs/2209.05433, for the format.
    """

    float_format = FP8_E5M2


class Fp8e4m3FNUZWeightPerGroup(FloatWeightPerGroup):
    """Weights in 8-bit floating-point in groups: 32 along the inputs share ``scale_g = max |w_g| / 240``.

    4 exponent and 3 mantissa bits, no minus zero.

    Source: Noune et al., 2022, https://arxiv.org/abs/2206.02915, for the format.
    """

    float_format = FP8_E4M3FNUZ


class Fp8e5m2FNUZWeightPerGroup(FloatWeightPerGroup):
    """Weights in 8-bit floating-point in groups: 32 along the inputs share ``scale_g = max |w_g| / 57344``.

    5 exponent and 2 mantissa bits, no minus zero.

    Source: Noune et al., 2022, https://arxiv.org/abs/2206.02915, for the format.
    """

    float_format = FP8_E5M2FNUZ


class Fp6e3m2WeightPerGroup(FloatWeightPerGroup):
    """Weights in 6-bit floating-point in groups: 32 along the inputs share ``scale_g = max |w_g| / 28``.

    3 exponent and 2 mantissa bits.

    Source: OCP Microscaling Formats Specification, version 1.0, section 5.3, for the format.
    """

    float_format = FP6_E3M2


class Fp6e2m3WeightPerGroup(FloatWeightPerGroup):
    """Weights in 6-bit floating-point in groups: 32 along the inputs share ``scale_g = max |w_g| / 7.5``.

    2 exponent and 3 mantissa bits.

    Source: OCP Microscaling Formats Specification, version 1.0, section 5.3, for the format.
    """

    float_format = FP6_E2M3


class Fp4e2m1WeightPerGroup(FloatWeightPerGroup):
    """Weights in 4-bit floating-point in groups: 32 along the inputs share ``scale_g = max |w_g| / 6``.

    2 exponent bits and 1 mantissa bit.

    Source: OCP Microscaling Formats Specification, version 1.0, section 5.3, for the format.
    """

    float_format = FP4_E2M1


class DoubleQuantParts(Injector):
    """Parts list of scales that another recipe quantizes: ``scale = (q(range - m) + m) / threshold``.

    ``m`` is the mean of all ranges where `centered_scale` is True, else zero. Left to declare: `scale_recipe`, which
    is to need nothing from a layer, as dynamic activations, ``Int8ActPerGroupDynamic`` say.

    Source: Dettmers et al., 2023, https://arxiv.org/abs/2305.14314, section 3.
    """

    scaling_impl: Any = QuantizedScaling
    range_impl: Any = StatsScaling
    centered_scale = False

    @value
    def scale_quant(scale_recipe: Any) -> Any:
        """The quantizer of the scales, a new one for each quantizer of weights."""
        return build(scale_recipe)


class Int4WeightPerGroupDoubleQuant(DoubleQuantParts, Int4WeightPerGroup):
    """Signed 4-bit weights in groups of 64, whose scales are in 8-bit floating-point: 256 share a scale of their own.

    ``scale_g = (q(max |w_g| - m) + m) / 7``, where ``m`` is the mean of the groups' largest absolute values; codes -7
    to 7. With its part of both scales, a weight takes 4.127 bits.

    Source: Dettmers et al., 2023, https://arxiv.org/abs/2305.14314, section 3, on an integer grid.
    """

    group_size = 64
    centered_scale = True
    scale_recipe = Fp8e4m3OCPActPerGroupDynamic.let(group_size=256)
