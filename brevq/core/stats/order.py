"""Order statistics: the k-th smallest value, or magnitude, of each row; near an end of the order without sorting.

The `number` values of a row that are furthest out lie in the `number` blocks whose own extremes are the furthest out:
what another block holds is no further out than these extremes, of which there are enough. So one reduction over the
row, and a selection among few, give what a selection among all gives, to the bit.

Where several values are the k-th smallest the gradient goes to one of them, and it is not said to which. A zero may
have the other sign.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from brevq.function.largest import abs_max
from brevq.function.recording import recorded

#: From how many values on a selection among all takes longer than the calls of operations that choose few.
_MANY = 2**14

#: How many times more values than extremes a row must have, for both steps of their selection to be small.
_FAR_MORE = 64


def kth_smallest(rows: Tensor, k: int) -> Tensor:
    """The k-th smallest value of each row, from the first to the last; NaN of rows that have one.

    Args:
        rows: shape `(..., values)`, one value at least.
        k: counts from 1; what is below or above is taken as the first or the last.

    Returns:
        Shape `(...)`.

    Examples:
        >>> kth_smallest(torch.tensor([[3.0, -1.0, 2.0], [0.0, 5.0, 4.0]]), 2)
        tensor([2., 4.])
    """
    k = _counted(rows, k)
    from_above = rows.shape[-1] - k + 1
    if _is_near_an_end(rows, k):
        return -_smallest_of_largest(-_holding(rows, k, _depth), k)
    if _is_near_an_end(rows, from_above):
        return _smallest_of_largest(_holding(rows, from_above, _height), from_above)
    return _composed(rows, k)


def kth_smallest_magnitude(rows: Tensor, k: int) -> Tensor:
    """The k-th smallest absolute value of each row, from the first to the last; NaN of rows that have one.

    Args:
        rows: shape `(..., values)`, one value at least.
        k: counts from 1; what is below or above is taken as the first or the last.

    Returns:
        Shape `(...)`.

    Examples:
        >>> kth_smallest_magnitude(torch.tensor([3.0, -4.0, 2.0]), 2)
        tensor(3.)
    """
    k = _counted(rows, k)
    from_above = rows.shape[-1] - k + 1
    if _is_near_an_end(rows, from_above):
        return _smallest_of_largest(_holding(rows, from_above, abs_max).abs(), from_above)
    return _composed(rows.abs(), k)


def kth_smallest_of_relu(rows: Tensor, k: int) -> Tensor:
    """The k-th smallest value of ReLU of each row; near the upper end without computing ReLU of all.

    Args:
        rows: shape `(..., values)`, one value at least.
        k: counts from 1; what is below or above is taken as the first or the last.

    Returns:
        Shape `(...)`; its gradient goes where it would go by way of ReLU.

    Examples:
        >>> kth_smallest_of_relu(torch.tensor([3.0, -4.0, 2.0]), 2)
        tensor(2.)
    """
    k = _counted(rows, k)
    from_above = rows.shape[-1] - k + 1
    if _is_near_an_end(rows, from_above):
        return _smallest_of_largest(torch.relu(_holding(rows, from_above, _height_of_relu)), from_above)
    return kth_smallest_magnitude(torch.relu(rows), k)


def _counted(rows: Tensor, k: int) -> int:
    """`k` as one of the places that a row has."""
    return min(max(k, 1), rows.shape[-1])


def _composed(rows: Tensor, k: int) -> Tensor:
    """`kth_smallest` by a selection among all."""
    largest = rows.detach().amax(dim=-1)
    return torch.where(torch.isnan(largest), largest, rows.kthvalue(k, dim=-1).values)


def _is_near_an_end(rows: Tensor, number: int) -> bool:
    """Whether as many extremes are found faster among few."""
    return not recorded() and rows.numel() >= _MANY and rows.shape[-1] >= _FAR_MORE * number


def _holding(rows: Tensor, number: int, extreme: Callable[[Tensor], Tensor]) -> Tensor:
    """A few values of each row, with the `number` that are furthest out among them, and NaN if the row has one.

    Args:
        rows: shape `(..., values)`.
        number: how many extremes are asked for.
        extreme: how far out the values of a block, shape `(..., blocks, size)`, reach; NaN counts as furthest.
    """
    places = _places(rows, number, extreme)
    if rows.dim() == 1:
        return rows.index_select(0, places)
    few: Tensor = rows.gather(-1, places)
    return few


@torch.no_grad()
def _places(rows: Tensor, number: int, extreme: Callable[[Tensor], Tensor]) -> Tensor:
    """Where the values are that `_holding` returns: all of the blocks that reach furthest, and what fills no block."""
    n = rows.shape[-1]
    # About as many blocks as values of those that are chosen; a power of two, which reductions like.
    size = 2 ** round(math.log2(n / number) / 2)
    whole = n - n % size
    reach = extreme(rows[..., :whole].reshape(*rows.shape[:-1], -1, size))
    blocks = reach.topk(number, dim=-1, sorted=False).indices
    places: Tensor = (blocks.unsqueeze(-1) * size + torch.arange(size, device=rows.device)).flatten(-2)
    if whole == n:
        return places
    rest = torch.arange(whole, n, device=rows.device).expand(*places.shape[:-1], -1)
    return torch.cat([places, rest], dim=-1)


def _smallest_of_largest(few: Tensor, number: int) -> Tensor:
    """The smallest of the `number` largest values of each row; NaN of rows that have one."""
    largest = few.topk(number, dim=-1).values
    first = largest[..., 0].detach()
    return torch.where(torch.isnan(first), first, largest[..., -1])


def _height(blocks: Tensor) -> Tensor:
    """How far up each block reaches."""
    return blocks.amax(dim=-1)


def _height_of_relu(blocks: Tensor) -> Tensor:
    """How far up ReLU of each block reaches."""
    return torch.relu(blocks.amax(dim=-1))


def _depth(blocks: Tensor) -> Tensor:
    """How far down each block reaches."""
    return -blocks.amin(dim=-1)
