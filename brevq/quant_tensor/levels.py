"""The numbers of a grid, as data for pictures."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from brevq.core.formats import BlockFormat, FloatFormat, IntFormat, NumberFormat
from brevq.core.quant import TernaryQuant
from brevq.core.quant.float import cut_ste
from brevq.drawing import Levels, short_number

#: Formats of more bits than this are told by their ends, and not listed.
_MOST_BITS = 16
BINARY = Levels("binary", (-1.0, 1.0), -1.0, 1.0, 2, notes=("Two numbers: minus and plus the scale.",))
TERNARY = Levels("ternary", (-1.0, 0.0, 1.0), -1.0, 1.0, 3, notes=("Three numbers: minus the scale, zero, the scale.",))


def integer_levels(bits: int, signed: bool, narrow: bool) -> Levels:
    """The codes of integers; of one signed bit -1 and 1.

    Args:
        bits: number of bits, above 0.
        signed: whether there are negative codes.
        narrow: whether the range gives up one code.

    Examples:
        >>> integer_levels(2, signed=True, narrow=True).values
        (-1.0, 0.0, 1.0)
    """
    if bits == 1 and signed:
        return BINARY
    # As of `IntFormat`, which ends at 32 bits; accumulators do not.
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    name = f"{'' if signed else 'u'}int{bits}{' narrow' if narrow else ''}"
    return Levels.integers(name, low + (narrow and signed), high - (narrow and not signed))


@functools.lru_cache(maxsize=64)
def format_levels(number_format: NumberFormat, bits: int | None = None) -> Levels:
    """The numbers of a format.

    Args:
        number_format: the format.
        bits: how many bits are left of it, where its mantissa is cut. Default: all.

    Examples:
        >>> from brevq.core.formats.catalogue import FP4_E2M1
        >>> format_levels(FP4_E2M1).values[-4:]
        (2.0, 3.0, 4.0, 6.0)
        >>> format_levels(FP4_E2M1, 3).values[-4:]
        (0.0, 1.0, 2.0, 4.0)
    """
    kept = number_format.bits if bits is None else bits
    name = str(number_format) if kept == number_format.bits else f"{number_format} cut to {kept} bits"
    if number_format.bits > _MOST_BITS:
        low, high, count = number_format.min, number_format.max, 2**number_format.bits
        return Levels(name, (), low, high, count, isinstance(number_format, IntFormat))
    numbers = number_format.values()
    if kept != number_format.bits:
        numbers = torch.unique(cut_ste(number_format, torch.tensor(float(kept)), numbers) + 0.0)
    values = tuple(numbers.tolist())
    if not isinstance(number_format, FloatFormat):
        return Levels(name, values, values[0], values[-1], len(values))
    subnormal = number_format.has_zero and number_format.mantissa_bits > 0
    marks = [(number_format.max, "largest"), (number_format.smallest_normal, "smallest normal")]
    marks += [(number_format.smallest, "smallest subnormal")] if subnormal else []
    return Levels(
        name,
        values,
        values[0],
        values[-1],
        len(values),
        uniform=False,
        marks=tuple(marks),
        smallest_normal=number_format.smallest_normal if subnormal else None,
        notes=(", ".join(f"{what} {short_number(number)}" for number, what in marks), _special(number_format)),
    )


def _special(number_format: FloatFormat) -> str:
    """What the codes stand for that stand for no number of their own."""
    decoded = number_format.decode(torch.arange(2**number_format.bits))
    infinities, nans = int(decoded.isinf().sum()), int(decoded.isnan().sum())
    words = [
        f"infinities: {infinities or 'none'}",
        f"NaN: {nans or 'none'}",
        f"minus zero: {'one' if number_format.has_negative_zero else 'none'}",
        f"overflow {'saturates' if number_format.saturating else 'does not saturate'}",
    ]
    fields = f"{number_format.exponent_bits} exponent bits of bias {number_format.bias}"
    return f"{fields}, {number_format.mantissa_bits} mantissa bits; codes of special meaning: {', '.join(words)}"


def block_note(block_format: BlockFormat) -> str:
    """How the scales of a block format are held, in a sentence.

    Args:
        block_format: the format.

    Examples:
        >>> from brevq.core.formats.catalogue import NVFP4
        >>> block_note(NVFP4)
        'nvfp4: 16 elements share a scale in fp8_e4m3 (rule "nearest"), the whole tensor a float32 scale; 4.5 bits each'
    """
    words = [
        f'{block_format.size} elements share a scale in {block_format.scale} (rule "{block_format.rule.value}")',
        "" if block_format.micro is None else f"{block_format.micro_size} a micro-exponent in {block_format.micro}",
        "the whole tensor a float32 scale" if block_format.tensor_scale else "",
    ]
    return f"{block_format}: {', '.join(filter(None, words))}; {block_format.bits_per_element:g} bits each"


def levels_of(x: Any) -> Levels:
    """The numbers that a quantized tensor chooses from, in steps of its scale.

    Args:
        x: a `QuantTensor`.

    Examples:
        >>> from brevq.quant_tensor import QuantTensor
        >>> x = QuantTensor(torch.ones(1), torch.tensor(1.0), torch.tensor(0.0), torch.tensor(4.0), signed=True)
        >>> levels_of(x).name
        'int4'
    """
    if x.bit_width.is_meta or x.bit_width.numel() != 1:
        return Levels.unknown("a bit width that is not known here")
    bits = round(float(x.bit_width.detach()))
    if isinstance(getattr(x.producer, "tensor_quant", None), TernaryQuant):
        return TERNARY
    if x.float_format is not None:
        return format_levels(x.float_format, bits)
    zero = _zero_point(x.zero_point)
    return integer_levels(bits, x.signed, x.narrow).noted(zero)


def _zero_point(zero_point: Tensor) -> str:
    """Where zero lies, where it does not lie at code 0."""
    if zero_point.is_meta or not zero_point.numel() or not bool(zero_point.any()):
        return ""
    low, high = zero_point.min().item(), zero_point.max().item()
    codes = f"code {short_number(low)} stands" if low == high else f"codes from {low:g} to {high:g} stand"
    return f"{codes} for zero"
