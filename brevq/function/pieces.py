"""Large tensors piece by piece: what several operations work on stays in a CPU's caches from one to the next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

#: Values of a piece, times the number of threads: a few buffers of it are held by the cache of one core.
PIECE = 2**16


def can_be_divided(tensors: Sequence[Tensor], parameters: Sequence[Tensor | None], many: int) -> bool:
    """Whether tensors are worked on piece by piece: large ones, each one piece of memory in the same order.

    Args:
        tensors: of one shape.
        parameters: what belongs to all values, such as a scale: they are not divided, so that each must be one number.
        many: from how many values on it is worth it.

    Examples:
        >>> x = torch.ones(2, 50_000)
        >>> can_be_divided([x, x], [torch.tensor(0.1)], 2**16), can_be_divided([x, x], [torch.ones(2, 1)], 2**16)
        (True, False)
        >>> can_be_divided([x, torch.ones(50_000, 2).t()], [], 2**16)
        False
    """
    first = tensors[0]
    # A trace would have the number of pieces of its example for ever.
    if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]  # torch does not list it
        return False
    if first.numel() < many or not first.is_cpu or any(part is not None and part.dim() > 0 for part in parameters):
        return False
    if first.is_contiguous():
        return all(tensor.is_contiguous() for tensor in tensors)
    return first.dim() == 4 and all(tensor.is_contiguous(memory_format=torch.channels_last) for tensor in tensors)


def divided(tensors: Sequence[Tensor], size: int = PIECE) -> Iterator[tuple[Tensor, ...]]:
    """Pieces of tensors that can be divided, one of each at a time, each of one dimension, in the memory of the whole.

    Args:
        tensors: of one shape, as `can_be_divided` takes them.
        size: values of a piece, times the number of threads.

    Examples:
        >>> x = torch.arange(5)
        >>> torch.cat([part + double for part, double in divided([x, 2 * x], size=1)]).tolist()
        [0, 3, 6, 9, 12]
    """
    values = size * torch.get_num_threads()
    flat = (tensor.as_strided((tensor.numel(),), (1,)) for tensor in tensors)
    return zip(*(torch.split(tensor, values) for tensor in flat), strict=True)


def pieces(
    tensors: Sequence[Tensor], parameters: Sequence[Tensor | None], many: int, size: int = PIECE
) -> Iterator[tuple[Tensor, ...]]:
    """Pieces of tensors where these can be divided; else the tensors themselves, as one piece.

    Args:
        tensors: of one shape.
        parameters: what belongs to all values.
        many: from how many values on they are divided.
        size: values of a piece, times the number of threads.

    Examples:
        >>> [part.shape for (part,) in pieces([torch.ones(2, 3)], [], many=7)]
        [torch.Size([2, 3])]
    """
    return divided(tensors, size) if can_be_divided(tensors, parameters, many) else iter([tuple(tensors)])
