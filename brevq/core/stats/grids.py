"""Grids that ranges are searched on: integers, floating-point formats and block formats, rounding to nearest.

A search asks two things of a grid: the scale that goes with a range, and the numbers nearest to a scaled tensor.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import Module

from brevq.core.formats import BlockFormat, NumberFormat, cast_ste
from brevq.errors import ArgumentError
from brevq.function.ops import max_int, min_int

_COUPLED = (
    "`block_format` (={name}) has two levels of scales, and the best scale of a group depends on that of others: "
    "search with a format that has one, such as MXFP4"
)


class NearestGrid(Module):
    """An integer grid to search on: codes nearest to numbers of steps, ``clamp(round(steps), min_int, max_int)``.

    Args:
        bit_width_impl: the bit width of the grid.
        int_scaling_impl: the integer threshold, for a bit width.
        signed: whether the grid has negative codes.
        narrow_range: whether the range gives up one code.

    Examples:
        >>> from brevq.core.bit_width import BitWidthConst
        >>> from brevq.core.scaling import IntScaling
        >>> NearestGrid(BitWidthConst(3), IntScaling(True, True), True, True)(torch.tensor([-4.6, 1.4]))
        tensor([-3.,  1.])
    """

    def __init__(self, bit_width_impl: Module, int_scaling_impl: Module, signed: bool, narrow_range: bool) -> None:
        super().__init__()
        self.bit_width_impl = bit_width_impl
        self.int_scaling_impl = int_scaling_impl
        self.signed = signed
        self.narrow_range = narrow_range

    def forward(self, steps: Tensor) -> Tensor:
        """The codes of `steps`, of any shape."""
        highest = max_int(self.signed, self.narrow_range, self.bit_width_impl())
        return torch.clamp(torch.round(steps), self.lowest(), highest)

    def scale(self, threshold: Tensor) -> Tensor:
        """The scales of ranges, of any shape: ranges over the integer threshold."""
        return threshold / self.threshold()

    def lowest(self) -> Tensor:
        """The smallest code, shape `()`."""
        return min_int(self.signed, self.narrow_range, self.bit_width_impl())

    def threshold(self) -> Tensor:
        """The integer threshold, shape `()`, constant to the gradient."""
        threshold: Tensor = self.int_scaling_impl(self.bit_width_impl()).detach()
        return threshold


class FormatGrid(Module):
    """A floating-point format to search on: ``float_format.cast``, with ranges over its threshold as scales.

    Corner cases are the format's; candidates at which a format that does not saturate overflows are never the best. A
    format that is cut to fewer bits, by a `bit_width_impl`, is searched on with all of them.

    Args:
        float_format: the format.
        float_scaling_impl: the number of the format on which the end of the range falls.

    Examples:
        >>> from brevq.core.formats.catalogue import FP4_E2M1
        >>> from brevq.core.scaling import FloatScaling
        >>> grid = FormatGrid(FP4_E2M1, FloatScaling(FP4_E2M1))
        >>> grid.scale(torch.tensor(12.0)), grid(torch.tensor([0.3, 2.6, 9.0]))
        (tensor(2.), tensor([0.5000, 3.0000, 6.0000]))
    """

    def __init__(self, float_format: NumberFormat, float_scaling_impl: Module) -> None:
        super().__init__()
        self.float_format = float_format
        self.float_scaling_impl = float_scaling_impl

    def forward(self, steps: Tensor) -> Tensor:
        """The numbers of the format nearest to `steps`, of any shape."""
        return cast_ste(self.float_format, steps)

    def scale(self, threshold: Tensor) -> Tensor:
        """The scales of ranges, of any shape."""
        scale: Tensor = threshold / self.float_scaling_impl()
        return scale


class BlockGrid(Module):
    """A block format to search on: the numbers of its elements, with the scales that its rule gives to ranges.

    Args:
        block_format: the format, with one level of scales.

    Raises:
        ArgumentError: the format has micro-exponents or a tensor scale.

    Examples:
        >>> from brevq.core.formats.catalogue import MXFP4
        >>> grid = BlockGrid(MXFP4)
        >>> grid.scale(torch.tensor([7.0, 9.0])), grid(torch.tensor([0.3, 2.6, 9.0]))
        (tensor([1., 2.]), tensor([0.5000, 3.0000, 6.0000]))
    """

    def __init__(self, block_format: BlockFormat) -> None:
        super().__init__()
        if block_format.micro is not None or block_format.tensor_scale:
            raise ArgumentError(_COUPLED.format(name=block_format))
        self.block_format = block_format

    def forward(self, steps: Tensor) -> Tensor:
        """The elements nearest to `steps`, of any shape."""
        return cast_ste(self.block_format.element, steps)

    def scale(self, threshold: Tensor) -> Tensor:
        """The scales of ranges, of any shape, as numbers of their format."""
        return self.block_format.scale_of(threshold)
