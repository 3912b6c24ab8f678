"""Batches that several processes share: one statistic of them all."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist


def shared() -> bool:
    """Whether batches are spread over several processes: a default process group of more than one is there.

    Examples:
        >>> shared()
        False
    """
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def union(x: Tensor) -> Tensor:
    """The batches of all processes one after the other, or `x` itself where there is one process.

    All processes have to call it, each with its own batch; batches may differ in size. The gradient goes back to the
    process that each value came from.

    Args:
        x: a batch, the samples along the first dimension.

    Examples:
        >>> union(torch.tensor([1.0, 2.0]))
        tensor([1., 2.])
    """
    if not shared():
        return x
    sizes = _sizes(x)
    full = x.new_zeros(max(sizes), *x.shape[1:])
    batches: Tensor = _Gathered.apply(torch.cat([x, full[: max(sizes) - len(x)]]))  # type: ignore[no-untyped-call]
    return torch.cat([batch[:size] for batch, size in zip(batches, sizes, strict=True)])


def _sizes(x: Tensor) -> list[int]:
    """The number of samples of each process."""
    sizes = [torch.zeros(1, dtype=torch.int64, device=x.device) for _ in range(dist.get_world_size())]
    dist.all_gather(sizes, torch.tensor([len(x)], device=x.device))
    return [int(size) for size in sizes]


class _Gathered(torch.autograd.Function):
    """The tensors of all processes, stacked; all of one shape."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        stacked = x.new_empty(dist.get_world_size(), *x.shape)
        dist.all_gather(list(stacked), x.contiguous())
        return stacked

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        grad = grad.contiguous()
        dist.all_reduce(grad)
        return grad[dist.get_rank()]
