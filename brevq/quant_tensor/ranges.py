"""Ranges of codes, and the bits that they take.

A range is a pair of scalar float64 tensors, lowest and highest; nothing reads them back from the device.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor

from brevq.function.ops import max_int, min_int

if TYPE_CHECKING:
    from brevq.quant_tensor.tensor import QuantTensor

Range: TypeAlias = tuple[Tensor, Tensor]


def codes(x: QuantTensor) -> Range:
    """The range of the codes of an integer grid.

    Args:
        x: the tensor that states it.
    """
    bits = x.bit_width.detach().double()
    high = max_int(x.signed, x.narrow, bits)
    # The codes of one signed bit are -1 and 1.
    return min_int(x.signed, x.narrow, bits), torch.where(bits == 1, torch.ones_like(high), high)


def centred(x: QuantTensor) -> Range:
    """The range of the codes less the zero-point, which times the scale are the values.

    Args:
        x: the tensor that states it.
    """
    low, high = codes(x)
    zero_point = x.zero_point.detach().double()
    return low - zero_point.amax(), high - zero_point.amin()


def added(a: Range, b: Range) -> Range:
    """The range of sums.

    Args:
        a: range of one summand.
        b: range of the other.
    """
    return a[0] + b[0], a[1] + b[1]


def subtracted(a: Range, b: Range) -> Range:
    """The range of differences.

    Args:
        a: range of what is subtracted from.
        b: range of what is subtracted.
    """
    return a[0] - b[1], a[1] - b[0]


def multiplied(a: Range, b: Range) -> Range:
    """The range of products.

    Args:
        a: range of one factor.
        b: range of the other.
    """
    corners = torch.stack([x * y for x in a for y in b])
    return corners.amin(), corners.amax()


def repeated(a: Range, times: int) -> Range:
    """The range of sums of that many numbers.

    Args:
        a: range of each.
        times: how many.
    """
    return a[0] * times, a[1] * times


def joined(a: Range, b: Range) -> Range:
    """The range that holds both.

    Args:
        a: one range.
        b: the other.
    """
    return torch.minimum(a[0], b[0]), torch.maximum(a[1], b[1])


def bits(span: Range, signed: bool) -> Tensor:
    """The smallest number of bits whose grid holds a range, shape `()`, float32.

    Args:
        span: the range.
        signed: whether the grid has negative codes.

    Examples:
        >>> bits((torch.tensor(-254.0), torch.tensor(254.0)), signed=True)
        tensor(9.)
        >>> bits((torch.tensor(0.0), torch.tensor(510.0)), signed=False)
        tensor(9.)
    """
    low, high = span
    levels = torch.maximum(-low, high + 1) if signed else high + 1
    mantissa, exponent = torch.frexp(levels)
    return (exponent - (mantissa == 0.5).int() + int(signed)).clamp(min=1 + int(signed)).float()
