"""Core quantizers: a tensor in, its dequantized self, scale, zero-point and bit width out."""

from brevq.core.quant.binary import BinaryQuant, ClampedBinaryQuant
from brevq.core.quant.delay import DelayWrapper
from brevq.core.quant.float import FloatQuant
from brevq.core.quant.int import (
    DecoupledRescalingIntQuant,
    DecoupledRescalingIntQuantWithInput,
    PrescaledRestrictIntQuant,
    PrescaledRestrictIntQuantWithInputBitWidth,
    RescalingIntQuant,
    TruncIntQuant,
)
from brevq.core.quant.int_base import DecoupledIntQuant, IntQuant
from brevq.core.quant.ternary import TernaryQuant

__all__ = [
    "BinaryQuant",
    "ClampedBinaryQuant",
    "DecoupledIntQuant",
    "DecoupledRescalingIntQuant",
    "DecoupledRescalingIntQuantWithInput",
    "DelayWrapper",
    "FloatQuant",
    "IntQuant",
    "PrescaledRestrictIntQuant",
    "PrescaledRestrictIntQuantWithInputBitWidth",
    "RescalingIntQuant",
    "TernaryQuant",
    "TruncIntQuant",
]
