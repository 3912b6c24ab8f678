"""Bit widths: constant or learned."""

import torch
from torch import Tensor
from torch.nn import Module, Parameter

from brevq.core.checks import MAX_BIT_WIDTH, whole_bits
from brevq.errors import ArgumentError
from brevq.function.ops_ste import abs_binary_sign_grad, round_ste


class BitWidthConst(Module):
    """A constant number of bits.

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

    bit_width: Tensor

    def __init__(self, bit_width: int, signed: bool | None = None) -> None:
        super().__init__()
        bits = whole_bits("bit_width", bit_width, signed)
        self.register_buffer("bit_width", torch.tensor(float(bits)), persistent=False)

    def forward(self) -> Tensor:
        """The number of bits, shape `()`."""
        return self.bit_width


class BitWidthParameter(Module):
    """A learned number of bits: ``min_bit_width + round(|offset|)``, with a straight-through gradient.

    Args:
        bit_width: whole number of bits to start from, 1 to 32.
        min_bit_width: the fewest bits that it may become. Default: 2.
        signed: whether the grid has negative codes, which takes at least 2 bits. Default: not known here.

    Raises:
        ArgumentTypeError: a bit width is not a number.
        ArgumentError: a bit width is not whole or out of range, or the start is below the minimum.

    Examples:
        >>> BitWidthParameter(4)()
        tensor(4., grad_fn=<ClampMaxBackward0>)
    """

    def __init__(self, bit_width: int, min_bit_width: int = 2, signed: bool | None = None) -> None:
        super().__init__()
        self.min_bit_width = whole_bits("min_bit_width", min_bit_width, signed)
        bits = whole_bits("bit_width", bit_width, signed)
        if bits < self.min_bit_width:
            raise ArgumentError(f"`bit_width` (={bits}) must not be below `min_bit_width` (={self.min_bit_width})")
        self.offset = Parameter(torch.tensor(float(bits - self.min_bit_width)))

    def forward(self) -> Tensor:
        """The number of bits, shape `()`, at most 32."""
        bits = round_ste(abs_binary_sign_grad(self.offset)) + self.min_bit_width
        return torch.clamp_max(bits, MAX_BIT_WIDTH)
