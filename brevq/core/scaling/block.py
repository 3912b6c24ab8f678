"""Scales that are numbers of a format themselves."""

from __future__ import annotations

from torch import Tensor
from torch.nn import Module

from brevq.core.formats import BlockFormat
from brevq.core.interfaces import Statistic


class BlockScaling(Module):
    """The scales of a block format, from a statistic of the tensor itself: ``block_format.scale_of(stats(x))``.

    The statistic's groups are those of the format, in a row: ``PerGroup(block_format.group_size)``. The gradient
    flows through the statistic, and straight through the rounding of the scale, within the range of its format.

    Args:
        block_format: what is a block, and how its scale is chosen.
        scaling_stats_impl: the statistic of a group, which takes the place of its largest absolute value.

    Examples:
        >>> import torch
        >>> from brevq.core.formats.catalogue import MXFP4
        >>> from brevq.core.function_wrapper import PerGroup
        >>> from brevq.core.stats import AbsMax
        >>> scaling = BlockScaling(MXFP4, AbsMax(PerGroup(32)))
        >>> scaling(torch.linspace(-5.0, 0.7, 64).reshape(1, 2, 32))
        tensor([[[1.0000],
                 [0.5000]]])
    """

    def __init__(self, block_format: BlockFormat, scaling_stats_impl: Statistic) -> None:
        super().__init__()
        self.block_format = block_format
        self.stats_impl = scaling_stats_impl

    def forward(self, x: Tensor) -> Tensor:
        """The scales of `x`, ``(..., groups, group_size)``, as ``(..., groups, 1)``."""
        return self.block_format.scale_of(self.stats_impl(x))

    def extra_repr(self) -> str:
        """The format, for printing."""
        return str(self.block_format)
