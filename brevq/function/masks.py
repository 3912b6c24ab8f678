"""Masks of values that were not clamped: 1 for these, 0 for others, as numbers, which are faster than booleans."""

from __future__ import annotations

import torch
from torch import Tensor

from brevq.function.pieces import can_be_divided, divided

#: From how many values on a gradient goes piece by piece.
_DIVIDED_FROM = 2**21


def equal(x: Tensor, y: Tensor, out: Tensor) -> Tensor:
    """1 where `x` equals `y`, which NaN does not, else 0.

    Args:
        x: any shape.
        y: its shape.
        out: where the result is written to: of a floating-point dtype; may be `x`.

    Examples:
        >>> x = torch.tensor([1.0, 2.0, float("nan")])
        >>> equal(x, torch.tensor([1.0, 3.0, float("nan")]), out=x)
        tensor([1., 0., 0.])
    """
    found: Tensor = torch.eq(x, y, out=out)
    return found


def pass_where(inside: Tensor, grad: Tensor, out: Tensor | None = None) -> Tensor:
    """`grad` where `inside` is 1, and 0 where it is 0, even of an infinite one.

    Args:
        inside: in the dtype and shape of `grad`.
        grad: a gradient.
        out: where the result is written to. Default: in place of `inside`.

    Examples:
        >>> pass_where(torch.tensor([1.0, 0.0]), torch.tensor([-3.0, float("inf")]))
        tensor([-3.,  0.])
    """
    out = inside if out is None else out
    passed: Tensor = torch.ops.aten.threshold_backward.grad_input(grad, inside, 0, grad_input=out)
    return passed


def through_mask(grad: Tensor, saved: tuple[Tensor, ...], record: bool) -> Tensor:
    """The gradient of an input, zero where the mask is that was saved; as it comes where none was.

    Args:
        grad: the incoming gradient.
        saved: the mask, int8, in the shape of `grad`; or nothing.
        record: whether the gradient may be differentiated itself.

    Examples:
        >>> through_mask(torch.tensor([2.0, 3.0]), (torch.tensor([1, 0], dtype=torch.int8),), record=False)
        tensor([2., 0.])
    """
    if not saved:
        return grad
    (inside,) = saved
    if record:
        return torch.where(inside > 0, grad, 0.0)
    if not can_be_divided((grad, inside), (), _DIVIDED_FROM):
        return pass_where(inside.to(grad.dtype), grad)
    passed = torch.empty_like(grad)
    for above, mask, out in divided((grad, inside, passed)):
        pass_where(out.copy_(mask), above)
    return passed
