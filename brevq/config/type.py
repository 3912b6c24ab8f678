"""The words of the vocabulary: what each field of a `TensorSpec` may be. Each is a string too."""

from __future__ import annotations

import enum


class Word(str, enum.Enum):
    """Base of the vocabulary's enumerations: a member is its own value, a string."""

    def __str__(self) -> str:
        return str(self.value)


class QSchemeType(Word):
    """Which values share a scale.

    Examples:
        >>> print(QSchemeType("per_group"))
        per_group
    """

    per_tensor = "per_tensor"  #: all values of the tensor
    per_channel = "per_channel"  #: those with the same index along an axis; of weights only
    per_group = "per_group"  #: runs of `group_size` values along an axis
    per_block = "per_block"  #: two-dimensional blocks, `group_size` by `group_size`, 128 by default


class Dtype(Word):
    """What the values become: numbers of a format.

    Integers and the small floating-point formats are scaled. With 32 bits the scale is that of 2 ** 32 codes, of which
    float32 tells 2 ** 24 apart at any magnitude. bfloat16 and float16 are casts, without a scale. ``mx``,
    ``mx6``, ``mx9`` and ``bfp16`` are block formats, which bring their own scales.

    Examples:
        >>> Dtype("int8") is Dtype.int8
        True
    """

    int2 = "int2"  #: signed, -2 to 1; symmetric weights -1 to 1
    int3 = "int3"  #: signed, -4 to 3; symmetric weights -3 to 3
    int4 = "int4"  #: signed, -8 to 7; symmetric weights -7 to 7
    int8 = "int8"  #: signed, -128 to 127; symmetric weights -127 to 127
    int16 = "int16"  #: signed, 16 bits
    int32 = "int32"  #: signed, 32 bits
    uint2 = "uint2"  #: unsigned, 0 to 3
    uint4 = "uint4"  #: unsigned, 0 to 15
    uint8 = "uint8"  #: unsigned, 0 to 255
    uint16 = "uint16"  #: unsigned, 16 bits
    uint32 = "uint32"  #: unsigned, 32 bits
    bfloat16 = "bfloat16"  #: a cast, 8 exponent and 7 mantissa bits
    float16 = "float16"  #: a cast, 5 exponent and 10 mantissa bits
    fp8_e4m3 = "fp8_e4m3"  #: OCP FP8, 4 exponent and 3 mantissa bits, up to 448
    fp8_e5m2 = "fp8_e5m2"  #: OCP FP8, 5 exponent and 2 mantissa bits, up to 57344
    fp8_e5m3 = "fp8_e5m3"  #: 5 exponent and 3 mantissa bits and no sign, up to 114688; of activations only
    fp6_e3m2 = "fp6_e3m2"  #: 3 exponent and 2 mantissa bits, up to 28
    fp6_e2m3 = "fp6_e2m3"  #: 2 exponent and 3 mantissa bits, up to 7.5
    fp4 = "fp4"  #: 2 exponent bits and 1 mantissa bit, up to 6
    mx = "mx"  #: OCP MXFP8: 32 values in FP8 E4M3 share a scale in E8M0
    mx6 = "mx6"  #: 16 values share a power of two, each pair of them may halve it; 3 bits after the sign's
    mx9 = "mx9"  #: 16 values share a power of two, each pair of them may halve it; 6 bits after the sign's
    bfp16 = "bfp16"  #: block floating point: 8 values in int8 share a power of two


class ScaleType(Word):
    """Which numbers a scale may be.

    Scales are held in float32; all types but ``float`` and ``float32`` are grids coarser than that.

    Examples:
        >>> print(ScaleType("pof2"))
        pof2
    """

    float = "float"  #: any number above zero
    pof2 = "pof2"  #: powers of two, of ranges rounded up
    float32 = "float32"  #: as ``float``
    float16 = "float16"  #: the nearest number of float16
    bfloat16 = "bfloat16"  #: the nearest number of bfloat16
    float8_e5m3 = "float8_e5m3"  #: the nearest number with 5 exponent and 3 mantissa bits, and no sign
    float8_e8m0fnu = "float8_e8m0fnu"  #: the nearest power of two; of floating-point groups the OCP MX rule


class RoundType(Word):
    """How values between two numbers of the format are rounded.

    Examples:
        >>> print(RoundType("half_even"))
        half_even
    """

    round = "round"  #: to the nearest, halves up
    floor = "floor"  #: down
    half_even = "half_even"  #: to the nearest, halves to even


class DeviceType(Word):
    """What the quantized model is for, which limits what a specification may ask for, and decides what it leaves open.

    Examples:
        >>> print(DeviceType("IPU"))
        IPU
    """

    CPU = "CPU"  #: everything
    IPU = "IPU"  #: int8, per tensor, symmetric; scales are powers of two, without being asked for


class QuantizationMode(Word):
    """How a whole model is converted, which brevq can not do yet: `TensorSpec.recipe` refuses to be asked for one.

    Examples:
        >>> print(QuantizationMode("eager_mode"))
        eager_mode
    """

    eager_mode = "eager_mode"  #: layers are replaced one by one
    fx_graph_mode = "fx_graph_mode"  #: the traced graph is rewritten
