"""Integer formats: two's complement and unsigned, of any number of bits."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor

from brevq.core.checks import whole_bits
from brevq.errors import ArgumentError


def _check_bits(format_: IntFormat, attribute: object, bits: int) -> None:
    whole_bits("bits", bits, signed=format_.signed)


@attrs.frozen
class IntFormat:
    """An integer format. Values are the integers themselves, at scale 1.

    Corner cases: values beyond the range saturate, infinities among them; NaN stays NaN in `cast`, and has no code;
    there is one zero.

    Args:
        bits: number of bits, from 1 (2 if signed) to 32.
        signed: whether there are negative numbers, in two's complement. Default: True.
        narrow: whether the range gives up one code: the smallest if signed, else the largest. Default: False.

    Raises:
        ArgumentTypeError: the number of bits is not a number.
        ArgumentError: the number of bits is not whole or out of range.

    Examples:
        >>> int4 = IntFormat(4)
        >>> int4.min, int4.max
        (-8, 7)
        >>> int4.cast(torch.tensor([0.5, 1.5, -9.0]))
        tensor([ 0.,  2., -8.])
        >>> int4.encode(torch.tensor([-1.0, 7.0]))
        tensor([15,  7])
        >>> print(int4)
        int4
    """

    signed: bool = attrs.field(default=True, kw_only=True)
    bits: int = attrs.field(validator=_check_bits)
    narrow: bool = attrs.field(default=False, kw_only=True)

    @property
    def min(self) -> int:
        """The smallest number."""
        return -int(2 ** (self.bits - 1)) + self.narrow if self.signed else 0

    @property
    def max(self) -> int:
        """The largest number."""
        return int(2 ** (self.bits - 1)) - 1 if self.signed else int(2**self.bits) - 1 - self.narrow

    def cast(self, x: Tensor) -> Tensor:
        """The nearest numbers to `x`, of any shape, halves to even, in the dtype of `x`."""
        wide = torch.round(x.double()).clamp(self.min, self.max)
        return wide.to(x.dtype)

    def encode(self, x: Tensor) -> Tensor:
        """The bit patterns of the nearest numbers to `x`, as int64.

        Raises:
            ArgumentError: `x` has a NaN.
        """
        if bool(torch.isnan(x).any()):
            raise ArgumentError(f"{self} has no code for NaN")
        return torch.remainder(self.cast(x.double()).to(torch.int64), int(2**self.bits))

    def decode(self, codes: Tensor) -> Tensor:
        """The numbers that bit patterns stand for, as float64.

        Args:
            codes: integers from 0 to ``2 ** bits - 1``.

        Raises:
            ArgumentError: a code is out of range.
        """
        check_codes(str(self), codes, self.bits)
        numbers = codes.to(torch.int64)
        wrapped = torch.where(numbers >= 2 ** (self.bits - 1), numbers - 2**self.bits, numbers)
        return (wrapped if self.signed else numbers).double()

    def values(self) -> Tensor:
        """All numbers of the format, sorted, as float64."""
        return torch.arange(self.min, self.max + 1, dtype=torch.float64)

    def __str__(self) -> str:
        return f"{'' if self.signed else 'u'}int{self.bits}{'_narrow' if self.narrow else ''}"


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
