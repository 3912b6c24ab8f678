"""Powers of two as units, one for each row, in which sums of squares neither overflow nor vanish."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from brevq.function.largest import abs_max


@torch.no_grad()
def unit_power(largest: Tensor) -> Tensor:
    """The power of two that takes the largest magnitude of a row into [1/2, 1), as near as the dtype has one.

    Args:
        largest: the largest magnitudes, of any shape; of zero, infinity and NaN some power of two.

    Examples:
        >>> unit_power(torch.tensor([3.0, 0.25, 0.0]))
        tensor([0.2500, 2.0000, 1.0000])
    """
    limit = -round(math.log2(torch.finfo(largest.dtype).tiny))
    exponent = torch.frexp(largest).exponent.clamp(-limit, limit)
    return torch.exp2(-exponent.to(largest.dtype))


def near_one(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows times their unit, and the units: what is homogeneous in the former is that of `rows` over the latter.

    Args:
        rows: shape `(..., values)`.

    Returns:
        The rows, and units of shape `(..., 1)`, which are constant to the gradient.

    Examples:
        >>> near_one(torch.tensor([6e30, 8e30]))[0].norm()
        tensor(0.9861)
    """
    unit = unit_power(abs_max(rows.detach()).unsqueeze(-1))
    return rows * unit, unit
