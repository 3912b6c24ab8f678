"""Recipes: quantizers declared as classes, ready to be given to layers, or to be subclassed.

Names are ``<Format><Role><Granularity>[<Scale>]``; a floating-point scale goes unnamed, ``PoT`` is a power of two
and ``LSQ`` a learned step size. The bases that they are assembled from are in `injectors.bases`.
"""

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
    "Int8ActPerTensorPoT",
    "Int8Bias",
    "Int8WeightPerChannel",
    "Int8WeightPerChannelPoT",
    "Int8WeightPerTensor",
    "Int8WeightPerTensorLSQ",
    "Int8WeightPerTensorPoT",
    "Int32Bias",
    "ShiftedUint8ActPerTensor",
    "ShiftedUint8WeightPerTensor",
    "TernaryWeightPerChannel",
    "TernaryWeightPerTensor",
    "Uint4ActPerTensor",
    "Uint8ActPerTensor",
    "Uint8ActPerTensorLSQ",
    "Uint8ActPerTensorPoT",
]
