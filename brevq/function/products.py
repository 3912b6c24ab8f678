"""The gradients of integer fake quantization of large tensors with one scale, by scalar products.

With ``y = scale * (code - zero_point)`` and `gx` the gradient of `x`, which is the incoming `g` and zero where it was
clamped, the gradient of the scale, ``sum of g * (code - zero_point - [not clamped] * x / scale)``, is
``<g, code - zero_point> - <gx, x / scale>``: no residual is made, and no mask. Where clamping passes gradients there is
no mask anyway, and one product with the residuals is exacter.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from brevq.function.pieces import PIECE, can_be_divided, divided

#: From how many values on memory takes longer than the calls of operations.
_MANY = 2**16

#: Up to which code halves are exact in float32, and so are the limits of what is not clamped.
_LAST = 2**21


def takes_products(grad: Tensor, saved: tuple[Tensor, Tensor, Tensor | None], low: float, high: float) -> bool:
    """Whether `gradients` takes these: large tensors with one scale, whose codes float32 can halve.

    Args:
        grad: the incoming gradient.
        saved: what was quantized, its scale, and its zero-point.
        low: the lowest code.
        high: the highest code.

    Examples:
        >>> x, scale = torch.ones(2**16), torch.tensor(0.1)
        >>> takes_products(x, (x, scale, None), -8.0, 7.0), takes_products(x[:9], (x[:9], scale, None), -8.0, 7.0)
        (True, False)
    """
    x, *parameters = saved
    return -_LAST <= low <= high <= _LAST and can_be_divided((x, grad), parameters, _MANY)


def gradients(
    grad: Tensor, saved: tuple[Tensor, Tensor, Tensor | None], limits: tuple[float, float, bool]
) -> tuple[Tensor, Tensor, Tensor | None] | None:
    """The gradients of input, scale and zero-point; None where a number is not finite, which has rules of its own.

    That of the input is exact. That of the scale has the error of scalar products, as the gradient of the formula has.

    Args:
        grad: the incoming gradient.
        saved: what was quantized, its scale, and its zero-point, which `takes_products`.
        limits: the lowest and the highest code, and whether clamping passes gradients.

    Examples:
        >>> x = torch.tensor([0.3, -1.2, 9.0, -9.0])
        >>> gradients(torch.ones(4), (x, torch.tensor(0.5), None), (-4.0, 3.0, False))
        (tensor([1., 1., 0., 0.]), tensor(-0.2000), None)
    """
    (x, scale, zero_point), (low, high, straight) = saved, limits
    of_input = grad if straight else torch.empty_like(x)
    least, most = _around(low, high, x.dtype)
    of_scale, blocked = [], []
    for above, part, out in divided((grad, x, of_input), 2 * PIECE):
        quotients = part / scale
        steps = quotients if zero_point is None else quotients + zero_point
        if straight:
            codes = steps.round().clamp_(low, high)
            of_scale.append(torch.dot(above, _centred(codes, zero_point).sub_(quotients)))
        else:
            torch.ops.aten.hardtanh_backward.grad_input(above, steps, least, most, grad_input=out)
            of_quotients = torch.dot(out, quotients)
            codes = steps.round_().clamp_(low, high)
            of_scale.append(torch.dot(above, _centred(codes, zero_point)).sub_(of_quotients))
        if zero_point is not None:
            blocked.append(torch.sub(above, out, out=codes).sum())
    total = torch.stack(of_scale).sum()
    if not total.isfinite():
        return None
    return of_input, total, None if zero_point is None else torch.stack(blocked).sum().mul_(-scale)


def _centred(codes: Tensor, zero_point: Tensor | None) -> Tensor:
    """``codes - zero_point``, in place."""
    return codes if zero_point is None else codes.sub_(zero_point)


@functools.cache
def _around(low: float, high: float, dtype: torch.dtype) -> tuple[float, float]:
    """The numbers next to those that are rounded to a code, which halves are where the code beyond them is even."""
    first, last = math.ceil(low), math.floor(high)
    ends = torch.tensor([first - 0.5, last + 0.5], dtype=dtype, device="cpu")
    beyond = torch.nextafter(ends, torch.tensor([-math.inf, math.inf], dtype=dtype, device="cpu"))
    least = beyond[0] if first % 2 == 0 else ends[0]
    most = beyond[1] if last % 2 == 0 else ends[1]
    return least.item(), most.item()
