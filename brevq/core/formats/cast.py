"""What all number formats have in common, and the cast to one that gradients pass through."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from brevq.core.formats.floating import held
from brevq.function.ops_ste import round_ste, straight_through


@runtime_checkable
class NumberFormat(Protocol):
    """A number format: `FloatFormat` or `IntFormat`."""

    @property
    def bits(self) -> int:
        """Number of bits of a code."""

    @property
    def signed(self) -> bool:
        """Whether there are negative numbers."""

    @property
    def min(self) -> float:
        """The smallest number."""

    @property
    def max(self) -> float:
        """The largest number."""

    @property
    def exponent_bits(self) -> int:
        """Bits of the exponent; 0 of an integer."""

    @property
    def max_exponent(self) -> int:
        """Exponent of the largest power of two."""

    @property
    def mantissa_bits(self) -> int:
        """Bits after the leading one of the largest number."""

    def cast(self, x: Tensor) -> Tensor:
        """The nearest numbers to `x`."""

    def step(self, x: Tensor) -> Tensor:
        """The distance between the numbers of the format around `x`."""

    def settle(self, rounded: Tensor) -> Tensor:
        """What becomes of multiples of `step`: the corner cases of the format."""

    def encode(self, x: Tensor) -> Tensor:
        """The bit patterns of the nearest numbers to `x`."""

    def decode(self, codes: Tensor) -> Tensor:
        """The numbers that bit patterns stand for."""

    def values(self) -> Tensor:
        """All finite numbers, sorted."""


def cast_ste(number_format: NumberFormat, x: Tensor, round_impl: Callable[[Tensor], Tensor] = round_ste) -> Tensor:
    """The numbers of a format that `x` rounds to; the gradient is the identity's within its range, zero beyond.

    Args:
        number_format: the format.
        x: tensor of any shape, float32 or float64.
        round_impl: rounds mantissas to integers, with a straight-through gradient. Default: halves to even.

    Examples:
        >>> from brevq.core.formats.catalogue import FP4_E2M1
        >>> x = torch.tensor([0.3, 2.6, 9.0], requires_grad=True)
        >>> y = cast_ste(FP4_E2M1, x)
        >>> y.sum().backward()
        >>> y.detach(), x.grad
        (tensor([0.5000, 3.0000, 6.0000]), tensor([1., 1., 0.]))
    """
    step = number_format.step(x.detach())
    rounded = round_impl(x / step) * step
    clipped = torch.clamp(rounded, held(number_format.min, x.dtype), held(number_format.max, x.dtype))
    return straight_through(clipped, number_format.settle(rounded.detach()))
