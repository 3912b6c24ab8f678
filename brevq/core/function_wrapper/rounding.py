"""Rounding to integers, as modules: what a recipe names as its `float_to_int_impl`."""

from __future__ import annotations

from torch import Tensor
from torch.nn import Module

from brevq.function import ops_ste


class RoundSte(Module):
    """Rounding to nearest, halves to even, with a straight-through gradient.

    Examples:
        >>> import torch
        >>> RoundSte()(torch.tensor([0.5, 1.5]))
        tensor([0., 2.])
    """

    def forward(self, x: Tensor) -> Tensor:
        """`x`, of any shape, rounded."""
        return ops_ste.round_ste(x)


class CeilSte(Module):
    """Rounding up, with a straight-through gradient.

    Examples:
        >>> import torch
        >>> CeilSte()(torch.tensor([0.2, 1.0]))
        tensor([1., 1.])
    """

    def forward(self, x: Tensor) -> Tensor:
        """`x`, of any shape, rounded up."""
        return ops_ste.ceil_ste(x)


class FloorSte(Module):
    """Rounding down, with a straight-through gradient.

    Examples:
        >>> import torch
        >>> FloorSte()(torch.tensor([0.8, -0.2]))
        tensor([ 0., -1.])
    """

    def forward(self, x: Tensor) -> Tensor:
        """`x`, of any shape, rounded down."""
        return ops_ste.floor_ste(x)


class RoundToZeroSte(Module):
    """Rounding toward zero, with a straight-through gradient.

    Examples:
        >>> import torch
        >>> RoundToZeroSte()(torch.tensor([1.8, -1.8]))
        tensor([ 1., -1.])
    """

    def forward(self, x: Tensor) -> Tensor:
        """`x`, of any shape, without its fraction."""
        return ops_ste.round_to_zero_ste(x)


class DPURoundSte(Module):
    """Rounding to nearest as AMD's DPU does it (negative halves up), with a straight-through gradient.

    Examples:
        >>> import torch
        >>> DPURoundSte()(torch.tensor([-1.5, 1.5]))
        tensor([-1.,  2.])
    """

    def forward(self, x: Tensor) -> Tensor:
        """`x`, of any shape, rounded."""
        return ops_ste.dpu_round_ste(x)
