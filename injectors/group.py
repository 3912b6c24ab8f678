"""Recipes for weights with a zero-point for each channel, and for weights in groups and blocks.

A last group that is not full counts as filled up with zeros; ``pad = False`` refuses it.
"""

from __future__ import annotations

from brevq.core.function_wrapper import PerBlock, PerChannel, PerGroup
from injectors.floating import Fp8e4m3OCPWeightPerTensor
from injectors.weight import Int8WeightPerTensor, ShiftedUint8WeightPerTensor


class Int8WeightPerGroup(Int8WeightPerTensor):
    """Signed 8-bit weights in groups: 32 along the inputs share ``scale_g = max |w_g| / 127``, codes -127 to 127.

    Source: Yao et al., 2022, https://arxiv.org/abs/2206.01861, section 4.1, with groups of 32.
    """

    granularity_impl = PerGroup
    group_size = 32
    group_axis = 1
    pad = True


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


class ShiftedUint8WeightPerGroup(ShiftedUint8WeightPerTensor):
    """Unsigned 8-bit weights in groups: 32 share a zero-point and ``scale_g = (max(w_g, 0) - min(w_g, 0)) / 255``.

    ``zero_point_g = round(-min(w_g, 0) / scale_g)``, codes 0 to 255. Groups lie along the inputs.

    Source: Yao et al., 2022, https://arxiv.org/abs/2206.01861, section 4.1, with a zero-point.
    """

    granularity_impl = PerGroup
    group_size = 32
    group_axis = 1
    pad = True


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
