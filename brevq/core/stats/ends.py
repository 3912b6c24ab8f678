"""Both ends of rows, with the gradient of each in few passes.

They are two reductions, which CPUs do faster than the one of `torch.aminmax`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from brevq.function.recording import recorded

#: From how many values on memory takes longer than the calls of operations.
_MANY = 2**14

#: Those whose numbers count equal values exactly, and up to how many.
_DTYPES, _COUNTABLE = (torch.float32, torch.float64), 2**24


def ends(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The lowest and the highest value of each row; the gradient is shared by all values that are it.

    Args:
        rows: shape `(..., values)`, one value at least.

    Returns:
        Both in shape `(...)`; NaN of rows that have one.

    Examples:
        >>> rows = torch.tensor([[1.0, -3.0, 1.0], [0.0, 0.5, 2.0]], requires_grad=True)
        >>> lowest, highest = ends(rows)
        >>> highest.sum().backward()
        >>> lowest.tolist(), highest.tolist(), rows.grad.tolist()
        ([-3.0, 0.0], [1.0, 2.0], [[0.5, 0.0, 0.5], [0.0, 0.0, 1.0]])
    """
    learns = rows.requires_grad and torch.is_grad_enabled()
    exact = rows.dtype in _DTYPES and rows.shape[-1] <= _COUNTABLE
    if not (learns and exact and rows.numel() >= _MANY) or recorded():
        return rows.amin(dim=-1), rows.amax(dim=-1)
    both: tuple[Tensor, Tensor] = _Ends.apply(rows)  # type: ignore[no-untyped-call]  # torch's
    return both


class _Ends(torch.autograd.Function):
    """`ends`, and their gradients."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Both ends; of the rows nothing is copied."""
        lowest, highest = rows.amin(dim=-1), rows.amax(dim=-1)
        ctx.save_for_backward(rows, lowest, highest)
        ctx.set_materialize_grads(False)
        return lowest, highest

    @staticmethod
    def backward(ctx: Any, of_lowest: Tensor | None, of_highest: Tensor | None) -> Tensor | None:
        """The gradient of the rows, where one of the ends has any."""
        rows, lowest, highest = ctx.saved_tensors
        parts = [
            _shared(grad, rows.detach(), end.detach())
            for grad, end in ((of_lowest, lowest), (of_highest, highest))
            if grad is not None
        ]
        return sum(parts[1:], parts[0]) if parts else None


def _shared(grad: Tensor, rows: Tensor, end: Tensor) -> Tensor:
    """The gradient of one end, in equal parts at the values that are it."""
    # As numbers, which are faster to work with than booleans.
    equal = torch.eq(rows, end.unsqueeze(-1), out=torch.empty_like(rows))
    return equal * (grad / equal.sum(dim=-1)).unsqueeze(-1)
