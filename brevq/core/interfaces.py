"""What the parts ask of each other: the interfaces that a component of one's own has to satisfy."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from brevq.core.function_wrapper import Granularity


class Restriction(Protocol):
    """Which values a scale may take: `encode` to where it is stored, and a call back to the restricted value."""

    def encode(self, value: Tensor, /) -> Tensor:
        """A positive number as it is stored and learned."""

    def __call__(self, stored: Tensor, /) -> Tensor:
        """The restricted, positive value of what is stored."""


class Statistic(Protocol):
    """A number for each scale, computed from a tensor."""

    granularity_impl: Granularity

    def __call__(self, x: Tensor, /) -> Tensor:
        """The statistic of `x`, in the shape of the scale."""


class SearchGrid(Protocol):
    """A grid of numbers, with scales that follow from ranges, on which a range is searched for."""

    def scale(self, threshold: Tensor, /) -> Tensor:
        """The scale that goes with a range."""

    def __call__(self, steps: Tensor, /) -> Tensor:
        """The numbers of the grid nearest to `steps`, a tensor over its scale."""


class Grid(Protocol):
    """An integer grid, as zero-points need it: they are codes of it, and put the minimum on its lowest one."""

    def min_int(self, bit_width: Tensor, /) -> Tensor:
        """The lowest code."""

    def nearest_int(self, scale: Tensor, zero_point: Tensor, bit_width: Tensor, x: Tensor, /) -> Tensor:
        """The codes nearest to `x`, however the grid rounds."""
