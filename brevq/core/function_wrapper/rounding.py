"""Rounding to integers, as modules: what a recipe names as its `float_to_int_impl`."""

from __future__ import annotations

import torch
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

    stateless = True

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

    stateless = True

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

    stateless = True

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

    stateless = True

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

    stateless = True

    def forward(self, x: Tensor) -> Tensor:
        """`x`, of any shape, rounded."""
        return ops_ste.dpu_round_ste(x)


class RoundHalfUpSte(Module):
    """Rounding to nearest, halves up, with a straight-through gradient.

    Examples:
        >>> import torch
        >>> RoundHalfUpSte()(torch.tensor([-1.5, 0.5]))
        tensor([-1.,  1.])
    """

    stateless = True

    def forward(self, x: Tensor) -> Tensor:
        """`x`, of any shape, rounded, halves up."""
        return ops_ste.round_half_up_ste(x)


class RoundHalfAwaySte(Module):
    """Rounding to nearest, halves away from zero as C does it, with a straight-through gradient.

    Examples:
        >>> import torch
        >>> RoundHalfAwaySte()(torch.tensor([-1.5, 0.5]))
        tensor([-2.,  1.])
    """

    stateless = True

    def forward(self, x: Tensor) -> Tensor:
        """`x`, of any shape, rounded, halves away from zero."""
        return ops_ste.round_half_away_ste(x)


class StochasticRoundSte(Module):
    """Rounding to one of two neighbours, at random, which keeps the mean, with a straight-through gradient.

    A number is rounded up with the probability of its fraction, 1.25 to 2 in one of four cases, to within 2 ** -24.

    Args:
        deterministic_inference: whether evaluation rounds to nearest, halves to even. Default: True.
        rounding_generator: where random numbers come from, on the device of the tensors. Default: torch's own
            generator, which `torch.manual_seed` seeds.

    Source:
        Gupta et al., 2015, "Deep Learning with Limited Numerical Precision", https://arxiv.org/abs/1502.02551

    Examples:
        >>> import torch
        >>> rounding = StochasticRoundSte(rounding_generator=torch.Generator().manual_seed(0))
        >>> rounding(torch.full((1000,), 1.25)).unique()
        tensor([1., 2.])
        >>> rounding.eval()(torch.tensor([1.25, 1.75]))
        tensor([1., 2.])
    """

    def __init__(self, deterministic_inference: bool = True, rounding_generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.deterministic_inference = deterministic_inference
        self.rounding_generator = rounding_generator

    def forward(self, x: Tensor) -> Tensor:
        """`x`, of any shape, rounded at random; to nearest in evaluation, where that is deterministic."""
        if self.deterministic_inference and not self.training:
            return ops_ste.round_ste(x)
        # Half precision would draw few different numbers.
        dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
        uniform = torch.rand(x.shape, generator=self.rounding_generator, dtype=dtype, device=x.device)
        return ops_ste.stochastic_round_ste(x, uniform)
