"""The largest absolute value, in few passes over memory: bit for bit that of ``x.abs().amax(dim=-1)``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from brevq.function.recording import differentiate, is_differentiated, recorded

#: Those that have a route of their own; half precision is computed an operation at a time.
_DTYPES = (torch.float32, torch.float64)

#: From how many values on memory takes longer than the calls of operations.
_MANY = 2**14


def abs_max(rows: Tensor) -> Tensor:
    """The largest absolute value of each row; the gradient is shared by all values that have it, and zero at zero.

    Of a row whose largest value is infinite or NaN all gradients are NaN.

    Args:
        rows: shape `(..., values)`, one value at least.

    Returns:
        Shape `(...)`; NaN of rows that have one.

    Examples:
        >>> rows = torch.tensor([[1.0, -3.0, 3.0], [0.0, 0.5, 0.0]], requires_grad=True)
        >>> maxima = abs_max(rows)
        >>> maxima.sum().backward()
        >>> maxima.tolist(), rows.grad.tolist()
        ([3.0, 0.5], [[0.0, -0.5, 0.5], [0.0, 1.0, 0.0]])
    """
    if recorded() or rows.dtype not in _DTYPES:
        return rows.abs().amax(dim=-1)
    if not (rows.requires_grad and torch.is_grad_enabled()):
        return largest(rows)
    maxima: Tensor = _AbsMax.apply(rows)  # type: ignore[no-untyped-call]  # torch's
    return maxima


class _AbsMax(torch.autograd.Function):
    """`abs_max`, and its gradient."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        """The maxima."""
        maxima = largest(rows)
        ctx.save_for_backward(rows, maxima)
        return maxima

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor | None:
        """The gradient of the rows, zero but for the values that are as large."""
        saved: tuple[Tensor, Tensor] = ctx.saved_tensors
        rows, maxima = saved
        if is_differentiated(grad):
            return differentiate(lambda x: x.abs().amax(dim=-1), [rows], grad)[0]
        signs = signs_of_largest(rows, maxima.unsqueeze(-1))
        share = grad / signs.abs().sum(dim=-1).clamp_min_(1)
        return signs.mul_(share.unsqueeze(-1))


def signs_of_largest(rows: Tensor, maxima: Tensor) -> Tensor:
    """The sign of each value that is as large as the largest of its row, and 0 of others; of zeros, too.

    Args:
        rows: shape `(..., values)`.
        maxima: the largest absolute values, shape `(..., 1)`.

    Returns:
        In the shape of the rows; NaN in rows that have one, or an infinite value.

    Examples:
        >>> signs_of_largest(torch.tensor([[2.0, -3.0, 3.0], [0.0, 0.0, 0.0]]), torch.tensor([[3.0], [0.0]]))
        tensor([[ 0., -1.,  1.],
                [ 0.,  0.,  0.]])
    """
    signs = rows / torch.where(maxima == 0, 1, maxima)
    found: Tensor = torch.ops.aten.hardshrink.out(signs, _below_one(signs.dtype), out=signs)
    return found


def largest(rows: Tensor) -> Tensor:
    """``max |row|``, without a gradient; of many values from both ends: two reductions, and no buffer.

    Args:
        rows: shape `(..., values)`, one value at least.

    Returns:
        Shape `(...)`; NaN of rows that have one.

    Examples:
        >>> largest(torch.tensor([[1.0, -3.0], [0.0, 0.5]]))
        tensor([3.0000, 0.5000])
    """
    if rows.numel() < _MANY:
        return rows.abs().amax(dim=-1)
    return torch.maximum(rows.amax(dim=-1), -rows.amin(dim=-1)).abs()


def _below_one(dtype: torch.dtype) -> float:
    """The largest number below 1: a quotient by the largest value is above it where it is 1 or -1, and nowhere else."""
    return 1 - torch.finfo(dtype).eps / 2
