"""Floating-point formats of any exponent and mantissa width."""

from __future__ import annotations

import enum
import functools
import math

import attrs
import torch
from torch import Tensor

from brevq.core.formats.integer import check_codes, check_flag, check_name
from brevq.errors import ArgumentError

# Of each dtype: integers as wide, where among their bits the exponent is, and the largest power of two.
_EXPONENT = {
    torch.float32: (torch.int32, 0x7F800000, 2.0**127),
    torch.float64: (torch.int64, 0x7FF0000000000000, 2.0**1023),
}
_SMALLEST_FLOAT32 = 2.0**-149


class Special(enum.Enum):
    """Which codes of a floating-point format stand for no finite number.

    Examples:
        >>> Special("last").name
        'LAST'
    """

    NONE = "none"  #: all codes are finite numbers
    IEEE = "ieee"  #: the largest exponent holds infinities (mantissa zero) and NaN (any other)
    LAST = "last"  #: the last code of either sign is NaN; there is no infinity
    NEGATIVE_ZERO = "negative_zero"  #: the code of minus zero is NaN; there is no infinity and no minus zero


def _special(value: Special | str) -> Special:
    try:
        return Special(value)
    except ValueError:
        names = ", ".join(repr(member.value) for member in Special)
        raise ArgumentError(f"`special` (={value!r}) must be one of {names}") from None


def _check_width(name: str, value: object, low: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= 10:
        raise ArgumentError(f"`{name}` (={value!r}) must be a whole number of bits from {low} to 10")


def _check_mantissa(format_: FloatFormat, attribute: object, mantissa_bits: int) -> None:
    _check_width("mantissa_bits", mantissa_bits, 0)


def _check_special(format_: FloatFormat, attribute: object, has_zero: bool) -> None:
    special = format_.special
    if special is Special.NEGATIVE_ZERO and not (format_.signed and format_.has_zero):
        raise ArgumentError(
            f"`special` (='negative_zero') puts NaN in the place of minus zero, which a format with "
            f"`signed` (={format_.signed}) and `has_zero` (={has_zero}) does not have"
        )
    if format_.max <= 0:
        raise ArgumentError(
            f"`special` (={special.value!r}) leaves no number above zero with `exponent_bits` "
            f"(={format_.exponent_bits}) and `mantissa_bits` (={format_.mantissa_bits}): choose more bits, or 'none'"
        )


def _check_bias(format_: FloatFormat, attribute: object, bias: int) -> None:
    _check_width("exponent_bits", format_.exponent_bits, 1)
    low = 2**format_.exponent_bits - 1024
    high = 1022
    if isinstance(bias, bool) or not isinstance(bias, int) or not low <= bias <= high:
        raise ArgumentError(
            f"`bias` (={bias!r}) must be a whole number from {low} to {high}, so that float64 holds all numbers"
        )


@attrs.frozen
class FloatFormat:
    """A floating-point format: sign, exponent and mantissa, with the corner cases of a specification.

    A code with exponent field ``e`` and mantissa field ``m`` stands for ``2 ** (e - bias) * (1 + m / 2 ** M)``, and
    for ``2 ** (1 - bias) * m / 2 ** M`` where ``e`` is zero and there are subnormals.

    Corner cases, in `cast`: NaN stays NaN. What rounds beyond the largest number becomes that number if
    `saturating`, or the largest of its dtype where that ends before; else infinity where the format has one, else
    NaN. Infinities count as such. Minus zero stays, where the format has one. Halves go to the even mantissa. An
    unsigned format takes what is below its smallest number to that number; a signed one without zero takes what is
    nearer to zero than its smallest number to that, of the same sign, zero and minus zero among them.

    Args:
        name: what it is called.
        exponent_bits: bits of the exponent, 1 to 10.
        mantissa_bits: bits of the mantissa after the leading one, 0 to 10.
        bias: exponent bias. Default: ``2 ** (exponent_bits - 1) - 1``.
        special: which codes are infinities and NaN. Default: none.
        signed: whether there is a sign bit. Default: True.
        saturating: whether overflow gives the largest number. Default: True.
        has_zero: whether exponent field zero holds zero and subnormals, rather than one more power of two.
            Default: True.

    Raises:
        ArgumentTypeError: the name is no text, or `signed`, `saturating` or `has_zero` not True or False.
        ArgumentError: a width, `bias` or `special` is out of range, `special` is "negative_zero" where there is no
            minus zero, or no number above zero is left.

    Source: IEEE 754-2019 for the fields; Micikevicius et al., 2022, https://arxiv.org/abs/2209.05433, for NaN in the
        last code; Noune et al., 2022, https://arxiv.org/abs/2206.02915, for NaN in the place of minus zero.

    Examples:
        >>> e2m1 = FloatFormat("fp4_e2m1", 2, 1)
        >>> e2m1.values()
        tensor([-6.0000, -4.0000, -3.0000, -2.0000, -1.5000, -1.0000, -0.5000,  0.0000,
                 0.5000,  1.0000,  1.5000,  2.0000,  3.0000,  4.0000,  6.0000],
               dtype=torch.float64)
        >>> e2m1.cast(torch.tensor([0.25, 0.75, 2.5, 100.0]))
        tensor([0., 1., 2., 6.])
        >>> e2m1.encode(torch.tensor([-6.0])), e2m1.decode(torch.tensor([15]))
        (tensor([15]), tensor([-6.], dtype=torch.float64))
    """

    name: str = attrs.field(validator=check_name)
    exponent_bits: int
    mantissa_bits: int = attrs.field(validator=_check_mantissa)
    bias: int = attrs.field(kw_only=True, validator=_check_bias)
    special: Special = attrs.field(default=Special.NONE, converter=_special, kw_only=True)
    signed: bool = attrs.field(default=True, kw_only=True, validator=check_flag)
    saturating: bool = attrs.field(default=True, kw_only=True, validator=check_flag)
    has_zero: bool = attrs.field(default=True, kw_only=True, validator=[check_flag, _check_special])

    @bias.default
    def _default_bias(self) -> int:
        _check_width("exponent_bits", self.exponent_bits, 1)
        return int(2 ** (self.exponent_bits - 1) - 1)

    @property
    def bits(self) -> int:
        """Number of bits of a code."""
        return int(self.signed) + self.exponent_bits + self.mantissa_bits

    @property
    def has_inf(self) -> bool:
        """Whether the format has infinities."""
        return self.special is Special.IEEE

    @property
    def has_nan(self) -> bool:
        """Whether the format has a NaN."""
        return self.special is not Special.NONE and (self.special is not Special.IEEE or self.mantissa_bits > 0)

    @property
    def has_negative_zero(self) -> bool:
        """Whether the format has a minus zero."""
        return self.signed and self.has_zero and self.special is not Special.NEGATIVE_ZERO

    @property
    def min_exponent(self) -> int:
        """Exponent of the smallest normal number."""
        return int(self.has_zero) - self.bias

    @property
    def max(self) -> float:
        """The largest finite number."""
        reserved = {Special.IEEE: 2**self.mantissa_bits, Special.LAST: 1}.get(self.special, 0)
        last = 2 ** (self.exponent_bits + self.mantissa_bits) - 1 - reserved
        return self._number(last)

    @property
    def min(self) -> float:
        """The smallest number: the negative of the largest, or of an unsigned format zero or its first number."""
        return -self.max if self.signed else self._number(0)

    @property
    def smallest_normal(self) -> float:
        """The smallest normal number above zero."""
        return math.ldexp(1.0, self.min_exponent)

    @property
    def smallest(self) -> float:
        """The smallest number above zero."""
        return self._number(int(self.has_zero))

    @property
    def max_exponent(self) -> int:
        """Exponent of the largest power of two."""
        return math.frexp(self.max)[1] - 1

    def cast(self, x: Tensor) -> Tensor:
        """The nearest numbers to `x`, of any shape and floating dtype, in the dtype of `x`."""
        wide = x.double()
        step = self.step(wide)
        return self._settled(torch.round(wide / step) * step, x.dtype).to(x.dtype)

    def step(self, x: Tensor) -> Tensor:
        """The distance between the numbers of the format around `x`, were its exponents without an upper end.

        Args:
            x: tensor of any shape, float32 or float64.
        """
        if x.dtype == torch.float32 and not -126 <= self.min_exponent <= 127:
            return self.step(x.double()).float().clamp(_SMALLEST_FLOAT32, 2.0**127)
        integers, mask, largest = _EXPONENT[x.dtype]
        power = (x.detach().view(integers) & mask).view(x.dtype)  # of two, at most |x|; zero of subnormals
        return power.clamp(self.smallest_normal, largest) * 2.0**-self.mantissa_bits

    def settle(self, rounded: Tensor) -> Tensor:
        """What becomes of numbers with the format's mantissa: the corner cases of range, sign and zero.

        Args:
            rounded: multiples of `step`, infinities and NaN, of any shape.
        """
        return self._settled(rounded, rounded.dtype)

    def encode(self, x: Tensor) -> Tensor:
        """The bit patterns of the nearest numbers to `x`, as int64: sign, exponent, mantissa from the top.

        Raises:
            ArgumentError: `x` has a NaN, or an infinity, that the format has no code for.
        """
        nearest = self.cast(x.double())
        if bool(torch.isnan(nearest).any()) and not self.has_nan:
            raise ArgumentError(f"{self} has no code for NaN")
        magnitudes = self._magnitudes().to(x.device)
        magnitude = torch.bucketize(nearest.abs().nan_to_num(0.0, posinf=math.inf), magnitudes)
        sign = torch.signbit(nearest).long() << (self.bits - 1) if self.signed else torch.zeros_like(magnitude)
        codes: Tensor = torch.where(torch.isnan(nearest), self._nan_code(), magnitude + sign)
        return codes

    def decode(self, codes: Tensor) -> Tensor:
        """The numbers that bit patterns stand for, as float64.

        Args:
            codes: integers from 0 to ``2 ** bits - 1``.

        Raises:
            ArgumentError: a code is out of range.
        """
        check_codes(self.name, codes, self.bits)
        return self._table().to(codes.device)[codes.long()]

    def values(self) -> Tensor:
        """All finite numbers of the format, sorted, each once, as float64."""
        finite = self._table()[torch.isfinite(self._table())]
        numbers: Tensor = torch.unique(finite + 0.0)  # minus zero becomes zero
        return numbers

    def __str__(self) -> str:
        return self.name

    def _settled(self, rounded: Tensor, dtype: torch.dtype) -> Tensor:
        """What becomes of multiples of `step` that end up in `dtype`, which is theirs or a narrower one."""
        if self.saturating:
            end = torch.finfo(dtype).max
            within = rounded.clamp(max(self.min, -end), min(self.max, end))
        else:
            high = held(self.max, rounded.dtype)
            above = rounded if self.signed else rounded.clamp_min(held(self.min, rounded.dtype))
            beyond = torch.sign(above) * (math.inf if self.has_inf else math.nan)
            within = torch.where(above.abs() > high, beyond, above)
        if self.signed and not self.has_zero:
            return torch.copysign(within.abs().clamp_min(self.smallest), within)
        return within if self.has_negative_zero else within + 0.0

    def _number(self, magnitude: int) -> float:
        """What exponent and mantissa fields, taken as one integer, stand for as a finite number."""
        exponent, mantissa = divmod(magnitude, 2**self.mantissa_bits)
        if exponent == 0 and self.has_zero:
            return math.ldexp(mantissa, 1 - self.bias - self.mantissa_bits)
        return math.ldexp(2**self.mantissa_bits + mantissa, exponent - self.bias - self.mantissa_bits)

    def _nan_code(self) -> int:
        """The code of NaN: the one with the highest mantissa bit for IEEE, the positive last one, or minus zero's."""
        fields = self.exponent_bits + self.mantissa_bits
        if self.special is Special.NEGATIVE_ZERO:
            return int(2**fields)
        quiet = (2**self.exponent_bits - 1) * 2**self.mantissa_bits + 2**self.mantissa_bits // 2
        return int(quiet if self.special is Special.IEEE else 2**fields - 1)

    def _magnitudes(self) -> Tensor:
        return _magnitudes(self)

    def _table(self) -> Tensor:
        return _table(self)


def held(number: float, dtype: torch.dtype) -> float:
    """`number`, or infinity where it is beyond `dtype`.

    Args:
        number: a number of any size.
        dtype: a floating-point dtype.

    Examples:
        >>> held(1e40, torch.float32), held(-448.0, torch.float32)
        (inf, -448.0)
    """
    return number if abs(number) <= torch.finfo(dtype).max else math.copysign(math.inf, number)


@functools.cache
def _magnitudes(format_: FloatFormat) -> Tensor:
    """The numbers of all positive codes in order, up to the first that is not finite, or infinity."""
    table = _table(format_)[: 2 ** (format_.exponent_bits + format_.mantissa_bits)]
    return table[~torch.isnan(table)]


@functools.cache
def _table(format_: FloatFormat) -> Tensor:
    """The number of each code."""
    fields = format_.exponent_bits + format_.mantissa_bits
    positive = [format_._number(code) for code in range(2**fields)]  # noqa: SLF001  # a cached part of the class
    if format_.special is Special.LAST:
        positive[-1] = math.nan
    if format_.special is Special.IEEE:
        first = 2**fields - 2**format_.mantissa_bits
        positive[first:] = [math.inf] + [math.nan] * (2**format_.mantissa_bits - 1)
    negative = [-number for number in positive] if format_.signed else []
    if format_.special is Special.NEGATIVE_ZERO:
        negative[0] = math.nan
    return torch.tensor(positive + negative, dtype=torch.float64)
