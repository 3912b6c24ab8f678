"""Limiting to an interval, as modules: what a recipe names as its `tensor_clamp_impl`."""

from __future__ import annotations

from torch import Tensor
from torch.nn import Module

from brevq.errors import ArgumentError
from brevq.function import ops_ste


class TensorClamp(Module):
    """Limiting to an interval of tensors, with the true gradient: none for what was clipped.

    Examples:
        >>> import torch
        >>> TensorClamp()(torch.tensor([-3.0, 0.5]), torch.tensor(-1.0), torch.tensor(1.0))
        tensor([-1.0000,  0.5000])
    """

    stateless = True

    def forward(self, x: Tensor, min_val: Tensor, max_val: Tensor) -> Tensor:
        """`x`, of any shape, between limits that broadcast to it."""
        return ops_ste.tensor_clamp(x, min_val, max_val)


class TensorClampSte(Module):
    """Limiting to an interval of tensors, with a straight-through gradient: clipped values keep moving.

    Examples:
        >>> import torch
        >>> TensorClampSte()(torch.tensor([-3.0, 0.5]), torch.tensor(-1.0), torch.tensor(1.0))
        tensor([-1.0000,  0.5000])
    """

    stateless = True

    def forward(self, x: Tensor, min_val: Tensor, max_val: Tensor) -> Tensor:
        """`x`, of any shape, between limits that broadcast to it."""
        return ops_ste.tensor_clamp_ste(x, min_val, max_val)


class ScalarClampSte(Module):
    """Limiting to an interval of numbers, with a straight-through gradient.

    Args:
        min_val: lower limit.
        max_val: upper limit.

    Raises:
        ArgumentError: the lower limit is above the upper one.

    Examples:
        >>> import torch
        >>> ScalarClampSte(-1.0, 1.0)(torch.tensor([-3.0, 0.5]))
        tensor([-1.0000,  0.5000])
    """

    stateless = True

    def __init__(self, min_val: float, max_val: float) -> None:
        super().__init__()
        if not min_val <= max_val:
            raise ArgumentError(f"`min_val` (={min_val!r}) must not exceed `max_val` (={max_val!r})")
        self.min_val = float(min_val)
        self.max_val = float(max_val)

    def forward(self, x: Tensor) -> Tensor:
        """`x`, of any shape, between the limits."""
        return ops_ste.scalar_clamp_ste(x, self.min_val, self.max_val)


class ScalarClampMinSte(Module):
    """Limiting from below by a number, with a straight-through gradient.

    Args:
        min_val: lower limit.

    Examples:
        >>> import torch
        >>> ScalarClampMinSte(0.0)(torch.tensor([-3.0, 0.5]))
        tensor([0.0000, 0.5000])
    """

    stateless = True

    def __init__(self, min_val: float) -> None:
        super().__init__()
        self.min_val = float(min_val)

    def forward(self, x: Tensor) -> Tensor:
        """`x`, of any shape, at least the limit."""
        return ops_ste.scalar_clamp_min_ste(x, self.min_val)
