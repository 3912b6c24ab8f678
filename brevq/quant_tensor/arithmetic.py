"""Arithmetic that is exact on integer codes, element by element: sums on one grid, products on the product of two."""

from __future__ import annotations

import math
from typing import Any

import torch

from brevq.quant_tensor import ranges
from brevq.quant_tensor.grids import Arguments, Call, Keywords, is_centred, is_integer, one_scale, result
from brevq.quant_tensor.producer import derived
from brevq.quant_tensor.tensor import QuantTensor, Zero, exact


@exact("add __add__ __radd__")
def _add(func: Call, args: Arguments, kwargs: Keywords) -> Any:
    """A sum of integers on one grid, on that grid with a bit more; with a zero, as `sum()` begins, what it was."""
    if not kwargs and isinstance(args[0], QuantTensor) and isinstance(args[1], (int, float)) and args[1] == 0:
        return args[0].keep(func(args[0].value, args[1]))
    return _sum_or_difference(func, args, kwargs, ranges.added, signed=False)


@exact("sub subtract __sub__")
def _subtract(func: Call, args: Arguments, kwargs: Keywords) -> Any:
    """A difference of integers on one grid, on that grid with a bit more."""
    return _sum_or_difference(func, args, kwargs, ranges.subtracted, signed=True)


def _sum_or_difference(func: Call, args: Arguments, kwargs: Keywords, combined: Any, signed: bool) -> Any:
    if kwargs or len(args) != 2 or not all(map(is_integer, args)):
        return NotImplemented
    x, y = args
    scale, zero_point = one_scale(func.__name__, x, y), func(x.spread()[1], y.spread()[1])
    span = combined(ranges.codes(x), ranges.codes(y))
    zero = Zero.AT_ZERO if {x.zero, y.zero} <= {Zero.AT_ZERO, Zero.NO_CODE} else Zero.SHIFTED
    zero = Zero.BETWEEN if Zero.BETWEEN in (x.zero, y.zero) else zero
    return result(func, args, func(x.value, y.value), scale, zero_point, span, signed or x.signed or y.signed, zero)


@exact("neg negative")
def _neg(func: Call, args: Arguments, kwargs: Keywords) -> Any:
    """The negative: codes and zero-point change sign."""
    (x,) = args
    if _is_symmetric(x):
        return x.keep(func(x.value))
    if x.float_format is not None:
        return NotImplemented
    scale, zero_point = x.spread()
    low, high = ranges.codes(x)
    return result(func, args, func(x.value), scale, -zero_point, (-high, -low), True, x.zero)


@exact("abs absolute")
def _abs(func: Call, args: Arguments, kwargs: Keywords) -> Any:
    """The absolute value of what lies about zero."""
    (x,) = args
    if x.float_format is not None and _is_symmetric(x):
        return x.keep(func(x.value))
    if not is_integer(x) or x.zero is not Zero.AT_ZERO:
        return NotImplemented
    scale, zero_point = x.spread()
    low, high = ranges.codes(x)
    span = (torch.zeros_like(low), torch.maximum(-low, high))
    return result(func, args, func(x.value), scale, zero_point, span, False, x.zero)


def _is_symmetric(x: QuantTensor) -> bool:
    """Whether the negative of each value is on the grid as well."""
    if x.float_format is not None:
        return x.float_format.min == -x.float_format.max
    return x.zero is Zero.NO_CODE or (x.zero is Zero.AT_ZERO and x.narrow and x.signed)


@exact("mul multiply __mul__ __rmul__")
def _multiply(func: Call, args: Arguments, kwargs: Keywords) -> Any:
    """A product of integers, whose scale is that of the factors multiplied; or of any codes with a power of two."""
    if kwargs or len(args) != 2:
        return NotImplemented
    x, y = args if isinstance(args[0], QuantTensor) else reversed(args)
    if isinstance(y, (int, float)):
        return _times_power_of_two(func, x, float(y))
    if not (is_centred(x) and is_centred(y)):
        return NotImplemented
    span = ranges.multiplied(ranges.centred(x), ranges.centred(y))
    scale = x.spread()[0] * y.spread()[0]
    signed = any(z.signed or z.zero is Zero.SHIFTED for z in (x, y))
    return result(func, (x, y), func(x.value, y.value), scale, torch.zeros_like(scale), span, signed, Zero.AT_ZERO)


@exact("outer ger")
def _outer(func: Call, args: Arguments, kwargs: Keywords) -> Any:
    """All products of the integers of two vectors, each of one scale."""
    if not all(is_integer(x) and x.uniform for x in args):
        return NotImplemented
    return _multiply(func, args, kwargs)


@exact("square pow __pow__")
def _square(func: Call, args: Arguments, kwargs: Keywords) -> Any:
    """The square of integers, which is never negative; other powers leave the grid."""
    x, *power = args
    if kwargs or not is_centred(x) or not all(isinstance(n, (int, float)) and n == 2 for n in power):
        return NotImplemented
    low, high = ranges.centred(x)
    largest = torch.maximum(-low, high)
    scale = x.spread()[0] * x.spread()[0]
    span = (torch.zeros_like(low), largest * largest)
    return result(func, (x,), func(x.value, *power), scale, torch.zeros_like(scale), span, False, Zero.AT_ZERO)


@exact("div divide true_divide __truediv__")
def _divide(func: Call, args: Arguments, kwargs: Keywords) -> Any:
    """A quotient by a power of two."""
    if kwargs or len(args) != 2 or not isinstance(args[0], QuantTensor) or not isinstance(args[1], (int, float)):
        return NotImplemented
    return _times_power_of_two(func, args[0], float(args[1]))


def _times_power_of_two(func: Call, x: QuantTensor, factor: float) -> Any:
    """The same codes with a scale that is shifted."""
    if not (factor > 0 and math.isfinite(factor) and math.frexp(factor)[0] == 0.5):
        return NotImplemented
    shifted = x.keep(func(x.value, factor))
    shifted.scale = func(x.scale, factor)
    shifted.producer = derived(func.__name__, x.producer)
    return shifted
