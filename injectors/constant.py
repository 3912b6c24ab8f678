"""Recipes with a few levels and a constant scale."""

from __future__ import annotations

from typing import Any

from brevq.core.function_wrapper import TensorClampSte
from brevq.core.quant import ClampedBinaryQuant
from brevq.core.scaling import ConstScaling
from injectors.activation import Int8ActPerTensor
from injectors.bases import WeightQuant
from injectors.weight import Int8WeightPerTensor


class BinaryWeightPerTensorConst(WeightQuant):
    """Binary weights with a constant scale: ``w >= 0`` becomes 0.1, the others -0.1.

    All weights get the gradient, times the scale.

    Source: Courbariaux et al., 2015, https://arxiv.org/abs/1511.00363, section 2.3, with a scale.
    """

    tensor_quant: Any = ClampedBinaryQuant
    scaling_impl: Any = ConstScaling
    scaling_init = 0.1
    tensor_clamp_impl: Any = TensorClampSte


class TernaryWeightPerTensorConst(Int8WeightPerTensor):
    """Ternary weights with a constant scale, 0.1, and threshold, half of it: -0.1, zero or 0.1, whichever is nearest.

    All weights keep their gradient.

    Source: Hwang and Sung, 2014, https://doi.org/10.1109/SiPS.2014.6986082, with a straight-through gradient.
    """

    bit_width = 2
    scaling_impl = ConstScaling
    scaling_init = 0.1
    tensor_clamp_impl = TensorClampSte


class TernaryActPerTensorConst(Int8ActPerTensor):
    """Ternary activations: -1, zero or 1, whichever is nearest, with no gradient of what is beyond.

    Source: Hwang and Sung, 2014, https://doi.org/10.1109/SiPS.2014.6986082, with a straight-through gradient.
    """

    bit_width = 2
    narrow_range = True
    scaling_impl = ConstScaling
    scaling_init = 1.0
