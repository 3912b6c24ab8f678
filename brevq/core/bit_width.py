"""Bit widths: constant, changed at run time, taken from the input, or learned."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import Module, Parameter

from brevq.core.checks import MAX_BIT_WIDTH, whole_bits
from brevq.errors import ArgumentError
from brevq.function.ops_ste import abs_binary_sign_grad, round_ste

_TOO_FEW = (
    "the checkpoint's bit width (={bits:g}) must not be below `min_bit_width` (={least}): declare a lower minimum, or "
    "`override_pretrained_bit_width` to keep the bit width that is declared"
)


class BitWidthConst(Module):
    """A constant number of bits.

    It holds no tensor: what it returns is on torch's default device, and core quantizers keep it on their own.

    Args:
        bit_width: whole number of bits, 1 to 32.
        signed: whether the grid has negative codes, which takes at least 2 bits. Default: not known here.

    Raises:
        ArgumentTypeError: the bit width is not a number.
        ArgumentError: the bit width is not whole or out of range.

    Examples:
        >>> BitWidthConst(4)()
        tensor(4.)
    """

    stateless = True

    def __init__(self, bit_width: int, signed: bool | None = None) -> None:
        super().__init__()
        self.bits = whole_bits("bit_width", bit_width, signed)

    def forward(self) -> Tensor:
        """The number of bits, shape `()`."""
        return torch.tensor(float(self.bits))

    def extra_repr(self) -> str:
        """The number of bits, for printing."""
        return str(self.bits)


class BitWidthMutable(Module):
    """A number of bits that can be changed at run time, and that a checkpoint carries.

    What is not learned and changes all the same: a schedule from many bits to few, or a search over mixed precision.

    Args:
        bit_width: whole number of bits to start from, 1 to 32.
        signed: whether the grid has negative codes, which takes at least 2 bits. Default: not known here.

    Raises:
        ArgumentTypeError: the bit width is not a number.
        ArgumentError: the bit width is not whole or out of range.

    Examples:
        >>> bit_width = BitWidthMutable(8)
        >>> bit_width.set(4)
        >>> bit_width(), bit_width.state_dict()["bit_width"]
        (tensor(4.), tensor(4.))
    """

    bit_width: Tensor

    def __init__(self, bit_width: int, signed: bool | None = None) -> None:
        super().__init__()
        self.signed = signed
        bits = whole_bits("bit_width", bit_width, signed)
        self.register_buffer("bit_width", torch.tensor(float(bits)))

    def forward(self) -> Tensor:
        """The number of bits, shape `()`."""
        # A copy: what was computed with the old number keeps it, for its gradient too.
        return self.bit_width.clone()

    def set(self, bit_width: int) -> None:
        """Change the number of bits, from the next tensor on.

        Args:
            bit_width: whole number of bits, 1 to 32, or 2 to 32 of a signed grid.

        Raises:
            ArgumentTypeError: it is not a number.
            ArgumentError: it is not whole or out of range; the old number stays.
        """
        self.bit_width.fill_(whole_bits("bit_width", bit_width, self.signed))


class BitWidthFromInput(Module):
    """The input's number of bits, less some: ``clamp(input_bit_width - bit_width_to_remove, min, max)``.

    By default all bits are kept. The gradient reaches the input's bit width where nothing was clamped.

    Args:
        bit_width_to_remove: whole number of bits to give up, 0 to 32. Default: 0.
        min_bit_width: the fewest bits that may be left. Default: 2.
        max_bit_width: the most bits that may be left. Default: 32.
        signed: whether the grid has negative codes, which takes at least 2 bits. Default: not known here.

    Raises:
        ArgumentTypeError: a bit width is not a number.
        ArgumentError: a bit width is not whole or out of range, or the limits exclude each other.

    Examples:
        >>> BitWidthFromInput(bit_width_to_remove=3)(torch.tensor(8.0))
        tensor(5.)
        >>> BitWidthFromInput(max_bit_width=16)(torch.tensor(32.0))
        tensor(16.)
    """

    def __init__(
        self,
        bit_width_to_remove: int = 0,
        min_bit_width: int = 2,
        max_bit_width: int = MAX_BIT_WIDTH,
        signed: bool | None = None,
    ) -> None:
        super().__init__()
        removed = bit_width_to_remove
        self.bit_width_to_remove = 0 if removed == 0 else whole_bits("bit_width_to_remove", removed)
        self.min_bit_width = whole_bits("min_bit_width", min_bit_width, signed)
        self.max_bit_width = whole_bits("max_bit_width", max_bit_width, signed)
        if self.max_bit_width < self.min_bit_width:
            raise ArgumentError(
                f"`max_bit_width` (={max_bit_width}) must not be below `min_bit_width` (={min_bit_width})"
            )

    def forward(self, input_bit_width: Tensor) -> Tensor:
        """The number of bits, shape `()`, for an input of `input_bit_width` bits, shape `()`."""
        return torch.clamp(input_bit_width - self.bit_width_to_remove, self.min_bit_width, self.max_bit_width)


class BitWidthParameter(Module):
    """A learned number of bits: ``min_bit_width + round(|offset|)``, with a straight-through gradient.

    A checkpoint says what the minimum was, so that it has its own number of bits with another minimum, too. One of a
    `BitWidthMutable` loads as well, and is where learning goes on from.

    Args:
        bit_width: whole number of bits to start from, 1 to 32.
        min_bit_width: the fewest bits that it may become. Default: 2.
        signed: whether the grid has negative codes, which takes at least 2 bits. Default: not known here.
        override_pretrained_bit_width: whether the number of bits stays what it is when a checkpoint is loaded,
            whether or not that has one. Default: False.

    Raises:
        ArgumentTypeError: a bit width is not a number.
        ArgumentError: a bit width is not whole or out of range, or the start, or that of a checkpoint that is loaded,
            is below the minimum.

    Examples:
        >>> BitWidthParameter(4)()
        tensor(4., grad_fn=<ClampMaxBackward0>)
    """

    least: Tensor

    def __init__(
        self,
        bit_width: int,
        min_bit_width: int = 2,
        signed: bool | None = None,
        override_pretrained_bit_width: bool = False,
    ) -> None:
        super().__init__()
        self.override_pretrained_bit_width = override_pretrained_bit_width
        self.min_bit_width = whole_bits("min_bit_width", min_bit_width, signed)
        bits = whole_bits("bit_width", bit_width, signed)
        if bits < self.min_bit_width:
            raise ArgumentError(f"`bit_width` (={bits}) must not be below `min_bit_width` (={self.min_bit_width})")
        self.offset = Parameter(torch.tensor(float(bits - self.min_bit_width)))
        # For checkpoints: what the offset counts from.
        self.register_buffer("least", torch.tensor(float(self.min_bit_width)))

    def forward(self) -> Tensor:
        """The number of bits, shape `()`, at most 32."""
        bits = round_ste(abs_binary_sign_grad(self.offset)) + self.min_bit_width
        return torch.clamp_max(bits, MAX_BIT_WIDTH)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        least = state_dict.pop(prefix + "least", self.min_bit_width)
        mutable = state_dict.pop(prefix + "bit_width", None)
        offset = state_dict.get(prefix + "offset")
        if self.override_pretrained_bit_width:
            state_dict[prefix + "offset"] = self.offset.detach()
        elif mutable is not None:
            state_dict[prefix + "offset"] = self._counted_from(mutable, torch.zeros_like(mutable))
        elif offset is not None and least != self.min_bit_width:
            state_dict[prefix + "offset"] = self._counted_from(least, offset.abs())
        state_dict[prefix + "least"] = torch.tensor(float(self.min_bit_width))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def _counted_from(self, least: Tensor, offset: Tensor) -> Tensor:
        """The offset from this minimum of as many bits as an `offset` from another, `least`, gives."""
        whole = torch.round(offset) + least - self.min_bit_width
        if whole < 0:
            raise ArgumentError(_TOO_FEW.format(bits=whole + self.min_bit_width, least=self.min_bit_width))
        moved = torch.clamp_min(offset + least - self.min_bit_width, 0)
        # A half may be rounded to even the other way from there.
        return torch.where(torch.round(moved) == whole, moved, whole)
