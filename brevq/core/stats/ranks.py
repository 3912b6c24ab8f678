"""Batches that are spread over processes: one statistic of them all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist
from torch.utils.checkpoint import checkpoint


def shared() -> bool:
    """Whether there are several processes: a default process group of more than one.

    Examples:
        >>> shared()
        False
    """
    return Ranks().shared


class Ranks:
    """The processes whose batches count as one.

    All of them have to ask for each statistic together, as they do for batch normalisation over processes: each with
    its own batch, which may be of another shape than the others', or empty.

    A copy is of the same processes. A pickle knows no group: what is read from it is alone, where a group was given.

    Args:
        group: the process group. Default: that of all processes.
        alone: whether this process counts by itself. Default: False.

    Examples:
        >>> Ranks().shared, Ranks().sizes(torch.zeros(2, 3))
        (False, [6])
    """

    def __init__(self, group: Any = None, alone: bool = False) -> None:
        self.group = group
        self.alone = alone

    @property
    def shared(self) -> bool:
        """Whether there is more than one process."""
        return (
            not self.alone
            and dist.is_available()
            and dist.is_initialized()
            and dist.get_world_size(self.group) > 1  # -1 where this process does not belong to the group
        )

    def sizes(self, x: Tensor) -> list[int]:
        """The number of values in the batch of each process.

        Args:
            x: the batch of this one.
        """
        if not self.shared:
            return [x.numel()]
        sizes = torch.zeros(dist.get_world_size(self.group), dtype=torch.int64, device=x.device)
        sizes[dist.get_rank(self.group)] = x.numel()
        dist.all_reduce(sizes, group=self.group)
        counts: list[int] = sizes.tolist()
        return counts

    def totals(self, sums: Tensor) -> list[str]:
        """What sums of this process' batches are for all processes, exactly, as text: NaN equals itself.

        Args:
            sums: shape `(batches,)`, as many as in every other process.

        Examples:
            >>> Ranks().totals(torch.tensor([3.0, torch.nan]))
            ['0x1.8000000000000p+1', 'nan']
        """
        if self.shared:
            sums = sums.clone()
            dist.all_reduce(sums, group=self.group)
        return [total.hex() for total in sums.tolist()]

    def statistic(self, stats_impl: Callable[[Tensor], Tensor], x: Tensor, sizes: list[int]) -> Tensor:
        """A statistic of the batches of all processes; its gradient goes to the process that a value came from.

        What the others sent is not kept for the gradient: it is sent again.

        Args:
            stats_impl: the statistic.
            x: the batch of this process.
            sizes: what `sizes` says.

        Examples:
            >>> Ranks().statistic(torch.amax, torch.tensor([1.0, 2.0]), [2])
            tensor(2.)
        """
        if not self.shared:
            return stats_impl(x)

        def of_all(x: Tensor) -> Tensor:
            """The statistic of the values of all processes."""
            return stats_impl(self._union(x, _channel_axis(stats_impl), sizes))

        result: Tensor = checkpoint(of_all, x, use_reentrant=False, preserve_rng_state=False)
        return result

    def _union(self, x: Tensor, axis: int | None, sizes: list[int]) -> Tensor:
        """The values of all processes; those of one channel stay together.

        One row, or, with an axis of channels, a tensor of as many dimensions as `x` has, all values of a channel along
        one other.
        """
        values = x.reshape(1, -1) if axis is None else x.movedim(axis, 0).unsqueeze(-1).flatten(1)
        counts = [size // len(values) for size in sizes]
        filling = values.new_zeros(len(values), max(counts) - values.shape[1])
        gathered: Tensor = _Gathered.apply(torch.cat([values, filling], dim=1), self.group)  # type: ignore[no-untyped-call]
        union = torch.cat([part[:, :count] for part, count in zip(gathered, counts, strict=True)], dim=1)
        if axis is None:
            return union.squeeze(0)
        return union.reshape(*union.shape, *(1,) * (x.dim() - 2)).movedim(0, axis)

    def __deepcopy__(self, memo: dict[int, Any]) -> Ranks:
        return self

    def __reduce__(self) -> tuple[type[Ranks], tuple[None, bool]]:
        return Ranks, (None, self.alone or self.group is not None)


def _channel_axis(stats_impl: Any) -> int | None:
    """The axis whose indices a statistic keeps apart; None if it takes all values together."""
    granularity = getattr(stats_impl, "channel_granularity_impl", getattr(stats_impl, "granularity_impl", None))
    axis: int | None = getattr(granularity, "channel_axis", None)
    return axis


class _Gathered(torch.autograd.Function):
    """The tensors of all processes, stacked; all of one shape."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Any) -> Tensor:
        """``(processes, *shape of x)``."""
        ctx.group = group
        stacked = x.new_empty(dist.get_world_size(group), *x.shape)
        dist.all_gather(list(stacked), x.contiguous(), group=group)
        return stacked

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """What all processes say of this one's tensor, added up."""
        grad = grad.contiguous()
        own = torch.empty_like(grad[0])
        dist.reduce_scatter(own, list(grad), group=ctx.group)
        return own, None
