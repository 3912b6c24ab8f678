"""Numbers of which few are different, such as scales of a format: each once, and where it stands."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

#: Of more different numbers a byte can not say which.
_MOST = 256


class Repeated(nn.Module):
    """A constant tensor, in as few bytes as it takes exactly: as it is, or as a table of its numbers and one byte each.

    Scales of block formats are powers of two or numbers of 8 bits, whatever dtype they are held in, and zero-points are
    codes: of many, few are different.

    Args:
        tensor: a tensor of any shape.

    Examples:
        >>> scale = Repeated(torch.tensor([0.5, 0.25]).repeat(20).reshape(40, 1))
        >>> scale.values, scale.index.dtype, scale().shape
        (tensor([0.2500, 0.5000]), torch.uint8, torch.Size([40, 1]))
        >>> Repeated(torch.tensor(0.5)).index is None
        True
    """

    values: Tensor
    index: Tensor | None

    def __init__(self, tensor: Tensor) -> None:
        super().__init__()
        values, index = tensor.detach().clone(), None
        if tensor.numel() > 1:
            different, places = torch.unique(tensor, return_inverse=True)
            worth = (
                len(different) <= _MOST and tensor.numel() * (tensor.itemsize - 1) > len(different) * tensor.itemsize
            )
            same = torch.equal(different[places].view(torch.uint8), tensor.contiguous().view(torch.uint8))
            if worth and same:  # minus zero, and NaN, are not told apart
                values, index = different, places.to(torch.uint8)
        self.register_buffer("values", values)
        self.register_buffer("index", index)

    @property
    def nbytes(self) -> int:
        """Number of bytes that it takes."""
        return self.values.nbytes + (0 if self.index is None else self.index.nbytes)

    def forward(self) -> Tensor:
        """The tensor."""
        return self.values if self.index is None else self.values[self.index.int()]

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        """As many different numbers as the state has are taken: how many there are is no matter of the architecture."""
        for name in ("values", "index"):
            theirs = state_dict.get(prefix + name)
            if theirs is None:
                setattr(self, name, None if name == "index" else self.values)
            elif getattr(self, name) is None or getattr(self, name).shape != theirs.shape:
                setattr(self, name, torch.empty_like(theirs, device=self.values.device))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def extra_repr(self) -> str:
        """How many there are, for printing."""
        if self.index is None:
            return f"{self.values.numel()}"
        return f"{self.index.numel()}, of which {self.values.numel()} different"
