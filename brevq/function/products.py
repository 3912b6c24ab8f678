"""The gradients of integer fake quantization of large tensors with one scale: a scalar product, in few passes.

The gradient of the scale is the product of the incoming one with residuals,
``code - zero_point - [not clamped] * x / scale``. What is not clamped is told by the quotient, so that no mask is made.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from brevq.function.pieces import PIECE, can_be_divided, divided

#: From how many values on memory takes longer than the calls of operations.
_DIVIDED_FROM = 2**16

#: Up to this code, code + 0.5, where rounding changes, and its neighbours are numbers of float32.
_LARGEST_CODE = 2**21


def takes_products(grad: Tensor, saved: tuple[Tensor, Tensor, Tensor | None], low: float, high: float) -> bool:
    """Whether `gradients` applies: a large tensor with one scale, and codes up to 2**21.

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
    return -_LARGEST_CODE <= low <= high <= _LARGEST_CODE and can_be_divided((x, grad), parameters, _DIVIDED_FROM)


def gradients(
    grad: Tensor, saved: tuple[Tensor, Tensor, Tensor | None], limits: tuple[float, float, bool]
) -> tuple[Tensor, Tensor, Tensor | None] | None:
    """The gradients of input, scale and zero-point; None where that of the scale is not finite.

    These are those of the formula, but for the order in which they are added.

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
    ends = _first_clamped(low, high, x.dtype)
    of_scale, blocked = [], []
    # Written to again for each piece: fresh memory is in no cache.
    buffers = x.new_empty(2, 2 * PIECE * torch.get_num_threads())
    for above, part, out in divided((grad, x, of_input), 2 * PIECE):
        quotients = torch.div(part, scale, out=buffers[0, : len(part)])
        steps = quotients if zero_point is None else quotients + zero_point
        residuals = torch.round(steps, out=buffers[1, : len(part)]).clamp_(low, high)
        if zero_point is not None:
            residuals.sub_(zero_point)
        of_scale.append(
            torch.dot(above, residuals.sub_(quotients if straight else _inside(quotients, steps, ends, out)))
        )
        if not straight:
            _inside(above, steps, ends, out)
        if zero_point is not None:
            blocked.append(torch.sub(above, out, out=steps).sum())
    total = torch.stack(of_scale).sum()
    if not total.isfinite():
        return None
    return of_input, total, None if zero_point is None else torch.stack(blocked).sum().mul_(-scale)


def _inside(x: Tensor, steps: Tensor, ends: tuple[float, float], out: Tensor) -> Tensor:
    """`x` where `steps` are between two numbers, and zero elsewhere, written to `out`."""
    inside: Tensor = torch.ops.aten.hardtanh_backward.grad_input(x, steps, *ends, grad_input=out)
    return inside


@functools.cache
def _first_clamped(low: float, high: float, dtype: torch.dtype) -> tuple[float, float]:
    """The nearest steps, below and above, that are rounded to no code: halves, or where these are, their neighbours."""
    first, last = math.ceil(low), math.floor(high)
    ends = torch.tensor([first - 0.5, last + 0.5], dtype=dtype, device="cpu")
    beyond = torch.nextafter(ends, torch.tensor([-math.inf, math.inf], dtype=dtype, device="cpu"))
    least = beyond[0] if first % 2 == 0 else ends[0]
    most = beyond[1] if last % 2 == 0 else ends[1]
    return least.item(), most.item()
