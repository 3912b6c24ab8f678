"""Integer ranges: the smallest and the largest code of an integer grid."""

from __future__ import annotations

import torch
from torch import Tensor


def max_int(signed: bool, narrow_range: bool, bit_width: Tensor) -> Tensor:
    """The largest integer code on a grid of `bit_width` bits.

    ``2 ** (bit_width - 1) - 1`` when signed, ``2 ** bit_width - 1`` when not; the narrow unsigned range gives up
    its largest code.

    Args:
        signed: whether the grid has negative codes.
        narrow_range: whether the range gives up one code.
        bit_width: number of bits, a scalar tensor.

    Returns:
        A scalar tensor that is differentiable in `bit_width`.

    Examples:
        >>> max_int(signed=True, narrow_range=False, bit_width=torch.tensor(8.0))
        tensor(127.)
        >>> max_int(signed=False, narrow_range=False, bit_width=torch.tensor(8.0))
        tensor(255.)
    """
    if signed:
        return 2.0 ** (bit_width - 1) - 1
    if narrow_range:
        return 2.0**bit_width - 2
    return 2.0**bit_width - 1


def min_int(signed: bool, narrow_range: bool, bit_width: Tensor) -> Tensor:
    """The smallest integer code on a grid of `bit_width` bits.

    ``-2 ** (bit_width - 1)`` when signed, one more when also narrow, and zero when unsigned.

    Args:
        signed: whether the grid has negative codes.
        narrow_range: whether the range gives up one code.
        bit_width: number of bits, a scalar tensor.

    Returns:
        A scalar tensor that is differentiable in `bit_width`.

    Examples:
        >>> min_int(signed=True, narrow_range=False, bit_width=torch.tensor(8.0))
        tensor(-128.)
        >>> min_int(signed=True, narrow_range=True, bit_width=torch.tensor(8.0))
        tensor(-127.)
    """
    if signed and narrow_range:
        return 1 - 2.0 ** (bit_width - 1)
    if signed:
        return -(2.0 ** (bit_width - 1))
    return torch.zeros_like(bit_width)
