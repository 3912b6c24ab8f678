"""Integer and fixed-point formats: two's complement and unsigned, of any number of bits."""

from __future__ import annotations

import math

import attrs
import torch
from torch import Tensor

from brevq.core.checks import flag, whole_bits
from brevq.errors import ArgumentError, ArgumentTypeError


def check_flag(format_: object, attribute: attrs.Attribute[bool], value: bool) -> None:
    """Refuse what is neither True nor False, as an attribute's validator."""
    flag(attribute.name, value)


def check_name(format_: object, attribute: attrs.Attribute[str], name: str) -> None:
    """Refuse a name that is no text, as an attribute's validator."""
    if not isinstance(name, str):
        raise ArgumentTypeError(f"`{attribute.name}` (={name!r}) must be a text, not {type(name).__name__}")


def _check_bits(format_: IntFormat, attribute: object, bits: int) -> None:
    whole_bits("bits", bits, signed=format_.signed)


def _check_fraction(format_: IntFormat, attribute: object, fraction_bits: int) -> None:
    if isinstance(fraction_bits, bool) or not isinstance(fraction_bits, int) or not 0 <= fraction_bits <= format_.bits:
        raise ArgumentError(
            f"`fraction_bits` (={fraction_bits!r}) must be a whole number of bits from 0 to `bits` (={format_.bits})"
        )


@attrs.frozen
class IntFormat:
    """An integer format. The integer ``i`` stands for ``i / 2 ** fraction_bits``, which is ``i`` unless asked for.

    Corner cases: values beyond the range saturate, infinities among them, to the largest number within it that their
    dtype has: of 32 bits, float32 has 2 ** 31 - 128, and not 2 ** 31 - 1. NaN stays NaN in `cast`, and has no code;
    there is one zero.

    Args:
        bits: number of bits, from 1 (2 if signed) to 32.
        signed: whether there are negative numbers, in two's complement. Default: True.
        narrow: whether the range gives up one code: the smallest if signed, else the largest. Default: False.
        fraction_bits: number of bits after the binary point, at most `bits`. Default: 0.

    Raises:
        ArgumentTypeError: the number of bits is not a number, or `signed` or `narrow` not True or False.
        ArgumentError: a number of bits is not whole or out of range.

    Source: Open Compute Project, "OCP Microscaling Formats (MX) Specification", version 1.0, section 5.3, whose INT8
        has 6 bits after the binary point.

    Examples:
        >>> int4 = IntFormat(4)
        >>> int4.min, int4.max
        (-8.0, 7.0)
        >>> int4.cast(torch.tensor([0.5, 1.5, -9.0]))
        tensor([ 0.,  2., -8.])
        >>> int4.encode(torch.tensor([-1.0, 7.0]))
        tensor([15,  7])
        >>> print(int4, IntFormat(8, fraction_bits=6))
        int4 int8/64
    """

    signed: bool = attrs.field(default=True, kw_only=True, validator=check_flag)
    bits: int = attrs.field(validator=_check_bits)
    narrow: bool = attrs.field(default=False, kw_only=True, validator=check_flag)
    fraction_bits: int = attrs.field(default=0, kw_only=True, validator=_check_fraction)

    @property
    def min(self) -> float:
        """The smallest number."""
        return self._number(-int(2 ** (self.bits - 1)) + self.narrow if self.signed else 0)

    @property
    def max(self) -> float:
        """The largest number."""
        return self._number(int(2 ** (self.bits - self.signed)) - 1 - (self.narrow and not self.signed))

    @property
    def exponent_bits(self) -> int:
        """Bits of the exponent: none."""
        return 0

    @property
    def max_exponent(self) -> int:
        """Exponent of the largest power of two."""
        return math.frexp(self.max)[1] - 1

    @property
    def mantissa_bits(self) -> int:
        """Bits after the leading one of the largest number."""
        return self.max_exponent + self.fraction_bits

    def cast(self, x: Tensor) -> Tensor:
        """The nearest numbers to `x`, of any shape, halves to even, in the dtype of `x`."""
        wide = x.double()
        step = self.step(wide)
        return self._within(torch.round(wide / step) * step, x.dtype).to(x.dtype)

    def step(self, x: Tensor) -> Tensor:
        """The distance between the numbers of the format, in the shape and dtype of `x`."""
        return torch.full_like(x, self._number(1))

    def settle(self, rounded: Tensor) -> Tensor:
        """What becomes of multiples of `step`: they saturate, and there is one zero."""
        return self._within(rounded, rounded.dtype)

    def encode(self, x: Tensor) -> Tensor:
        """The bit patterns of the nearest numbers to `x`, as int64.

        Raises:
            ArgumentError: `x` has a NaN.
        """
        if bool(torch.isnan(x).any()):
            raise ArgumentError(f"{self} has no code for NaN")
        integers = self.cast(x.double()) * 2.0**self.fraction_bits
        return torch.remainder(integers.to(torch.int64), int(2**self.bits))

    def decode(self, codes: Tensor) -> Tensor:
        """The numbers that bit patterns stand for, as float64.

        Args:
            codes: integers from 0 to ``2 ** bits - 1``, without the one that a narrow range gives up.

        Raises:
            ArgumentError: a code is out of range.
        """
        check_codes(str(self), codes, self.bits)
        patterns = codes.to(torch.int64)
        if self.narrow and bool((patterns == self._given_up).any()):
            raise ArgumentError(
                f"codes of {self} are integers from 0 to {2**self.bits - 1} without {self._given_up}, "
                "which the narrow range gives up"
            )
        wrapped = torch.where(patterns >= 2 ** (self.bits - 1), patterns - 2**self.bits, patterns)
        return (wrapped if self.signed else patterns).double() / 2.0**self.fraction_bits

    def values(self) -> Tensor:
        """All numbers of the format, sorted, as float64."""
        scale = 2.0**self.fraction_bits
        return torch.arange(int(self.min * scale), int(self.max * scale) + 1, dtype=torch.float64) / scale

    def __str__(self) -> str:
        fraction = f"/{2**self.fraction_bits}" if self.fraction_bits else ""
        return f"{'' if self.signed else 'u'}int{self.bits}{'_narrow' if self.narrow else ''}{fraction}"

    @property
    def _given_up(self) -> int:
        """The code that a narrow range does without."""
        return int(2 ** (self.bits - 1)) if self.signed else int(2**self.bits) - 1

    def _within(self, rounded: Tensor, dtype: torch.dtype) -> Tensor:
        """Multiples of `step`, saturated to what both the format and `dtype` have."""
        return rounded.clamp(self._end(self.min, dtype), self._end(self.max, dtype)) + 0.0

    def _end(self, number: float, dtype: torch.dtype) -> float:
        """An end of the range, or the number of `dtype` next to it on the side of zero."""
        info = torch.finfo(dtype)
        inward = number - math.fmod(number, 2.0**self.max_exponent * info.eps)
        return min(max(inward, -info.max), info.max)

    def _number(self, integer: int) -> float:
        """What an integer stands for."""
        return math.ldexp(integer, -self.fraction_bits)


def check_codes(format_name: str, codes: Tensor, bits: int) -> None:
    """Refuse what can be no bit pattern of a format.

    Args:
        format_name: what the format is called, for the message.
        codes: the bit patterns.
        bits: number of bits of the format.

    Raises:
        ArgumentError: a code is negative, has too many bits, or is no integer.

    Examples:
        >>> check_codes("int4", torch.tensor([0, 15]), 4)
    """
    if codes.is_floating_point() or bool(((codes.long() < 0) | (codes.long() >= 2**bits)).any()):
        raise ArgumentError(f"codes of {format_name} are integers from 0 to {2**bits - 1}")
