"""Recipes: quantizers declared as classes, ready to be given to layers, or to be subclassed.

Names are ``<Format><Role><Granularity>[<Scale>]``. A floating-point scale goes unnamed, ``PoT`` is a power of two,
``LSQ``, ``LSQPlus`` and ``TQT`` are learned, and ``A2Q`` is accumulator-aware. The bases that they are assembled from
are in `injectors.bases`.
"""

from injectors.accumulator import Int8WeightNormPerChannel, Int8WeightPerChannelA2Q, Int8WeightPerChannelA2QPlus
from injectors.activation import (
    BinaryActPerTensor,
    Int4ActPerTensor,
    Int8ActPerTensor,
    Int8ActPerTensorLSQ,
    Int8ActPerTensorPoT,
    ShiftedUint8ActPerTensor,
    Uint4ActPerTensor,
    Uint8ActPerTensor,
    Uint8ActPerTensorLSQ,
    Uint8ActPerTensorPoT,
)
from injectors.bias import Int8Bias, Int32Bias
from injectors.learned import (
    Int8ActPerTensorLearnedBits,
    Int8ActPerTensorTQT,
    Int8WeightPerChannelLSQPlus,
    Int8WeightPerTensorLearnedBits,
    Int8WeightPerTensorTQT,
    ShiftedUint8ActPerTensorLSQPlus,
    Uint8ActPerTensorLearnedBits,
    Uint8ActPerTensorTQT,
)
from injectors.weight import (
    BinaryWeightPerChannel,
    BinaryWeightPerTensor,
    Int4WeightPerChannel,
    Int4WeightPerChannelPoT,
    Int4WeightPerTensor,
    Int4WeightPerTensorPoT,
    Int8WeightPerChannel,
    Int8WeightPerChannelPoT,
    Int8WeightPerTensor,
    Int8WeightPerTensorLSQ,
    Int8WeightPerTensorPoT,
    ShiftedUint8WeightPerTensor,
    TernaryWeightPerChannel,
    TernaryWeightPerTensor,
)

__all__ = [
    "BinaryActPerTensor",
    "BinaryWeightPerChannel",
    "BinaryWeightPerTensor",
    "Int4ActPerTensor",
    "Int4WeightPerChannel",
    "Int4WeightPerChannelPoT",
    "Int4WeightPerTensor",
    "Int4WeightPerTensorPoT",
    "Int8ActPerTensor",
    "Int8ActPerTensorLSQ",
    "Int8ActPerTensorLearnedBits",
    "Int8ActPerTensorPoT",
    "Int8ActPerTensorTQT",
    "Int8Bias",
    "Int8WeightNormPerChannel",
    "Int8WeightPerChannel",
    "Int8WeightPerChannelA2Q",
    "Int8WeightPerChannelA2QPlus",
    "Int8WeightPerChannelLSQPlus",
    "Int8WeightPerChannelPoT",
    "Int8WeightPerTensor",
    "Int8WeightPerTensorLSQ",
    "Int8WeightPerTensorLearnedBits",
    "Int8WeightPerTensorPoT",
    "Int8WeightPerTensorTQT",
    "Int32Bias",
    "ShiftedUint8ActPerTensor",
    "ShiftedUint8ActPerTensorLSQPlus",
    "ShiftedUint8WeightPerTensor",
    "TernaryWeightPerChannel",
    "TernaryWeightPerTensor",
    "Uint4ActPerTensor",
    "Uint8ActPerTensor",
    "Uint8ActPerTensorLSQ",
    "Uint8ActPerTensorLearnedBits",
    "Uint8ActPerTensorPoT",
    "Uint8ActPerTensorTQT",
]
