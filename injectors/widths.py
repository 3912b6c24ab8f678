"""Recipes for floating-point formats by the widths of exponent and mantissa, constant or learned."""

from __future__ import annotations

from typing import Any

from brevq.core.bit_width import BitWidthParameter
from brevq.core.formats import FloatFormat
from brevq.inject import Injector, value
from injectors.floating import FloatAct, FloatWeight


class FloatWidths(Injector):
    """Parts list of a floating-point format that is declared by its widths; all its codes are finite numbers.

    ``largest number = 2 ** (2 ** E - 1 - exponent_bias) * (2 - 2 ** -M)``. Left to declare: `exponent_bit_width`, E,
    1 to 10, and `mantissa_bit_width`, M, 0 to 10. `exponent_bias` may be declared too, and is
    ``2 ** (E - 1) - 1`` without. A scale takes the bias up: it matters to casts, which have none.

    Source: Kuzmin et al., 2022, https://arxiv.org/abs/2208.09225, section 2.
    """

    @value
    def float_format(exponent_bit_width: int, mantissa_bit_width: int, exponent_bias: int | None = None) -> FloatFormat:
        """The format of these widths, without infinities and NaN."""
        name = f"e{exponent_bit_width}m{mantissa_bit_width}"
        bias: dict[str, Any] = {} if exponent_bias is None else {"bias": exponent_bias}
        return FloatFormat(name, exponent_bit_width, mantissa_bit_width, **bias)


class Fp8e4m3WeightPerTensor(FloatWidths, FloatWeight):
    """Weights in floating-point of any widths, 4 exponent and 3 mantissa bits unless declared: one scale.

    ``scale = max |w| / 480``, the largest number: no codes are kept for infinities and NaN.
    ``let(exponent_bit_width=3, mantissa_bit_width=2)`` gives another format.

    Source: Kuzmin et al., 2022, https://arxiv.org/abs/2208.09225, section 2.
    """

    exponent_bit_width = 4
    mantissa_bit_width = 3


class Fp8e4m3ActPerTensor(FloatWidths, FloatAct):
    """Activations in floating-point of any widths, 4 exponent and 3 mantissa bits unless declared: one scale.

    ``scale = percentile |x| / 480``, the largest number: no codes are kept for infinities and NaN. The percentile,
    99.999 %, is observed over batches, then fixed by calibration or learned in training.

    Source: Kuzmin et al., 2022, https://arxiv.org/abs/2208.09225, section 2, with a percentile for the range.
    """

    exponent_bit_width = 4
    mantissa_bit_width = 3


class Fp8e4m3WeightPerTensorLearnedBits(Fp8e4m3WeightPerTensor):
    """Weights in floating-point with a learned mantissa width, which starts from 3 bits and stays at 0 to 3.

    ``scale = max |w| / 2 ** 8 / (2 - 2 ** -M)``. The 4 exponent bits stay. Without a loss on bits, such as
    `brevq.loss.BitWidthLoss`, nothing speaks for fewer.

    Source: Kuzmin et al., 2022, https://arxiv.org/abs/2208.09225, section 4, with the mantissa of a fixed exponent.
    """

    bit_width_impl: Any = BitWidthParameter

    @value
    def bit_width(float_format: FloatFormat) -> int:
        """All bits of the format, to start from."""
        return float_format.bits

    @value
    def min_bit_width(float_format: FloatFormat) -> int:
        """Those of sign and exponent."""
        return float_format.bits - float_format.mantissa_bits
