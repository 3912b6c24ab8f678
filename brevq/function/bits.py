"""ReLU that keeps one bit of each value for its gradient, and not its result."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from brevq.function.masks import through_mask
from brevq.function.recording import is_differentiated, recorded

#: Below as many values there is no memory to save.
_MANY = 2**12

#: Eight bytes of 0 or 1 as one number, times this, have the eight bits in the highest byte.
_GATHER = 0x0102_0408_1020_4080

#: A byte as eight equal ones, and of each one bit.
_REPEAT, _ONE_EACH = 0x0101_0101_0101_0101, -0x7FBF_DFEF_F7FB_FDFF


def relu(x: Tensor) -> Tensor:
    """``max(x, 0)``, as `torch.nn.functional.relu`, for results that nobody else keeps.

    The gradient is the identity's where `x` is above zero, or NaN, and zero elsewhere. Kept for it is one bit of each
    value; torch keeps the result, which costs nothing where a layer that follows keeps it too.

    Args:
        x: a tensor of any shape.

    Examples:
        >>> x = torch.linspace(-1, 1, 5000, requires_grad=True)
        >>> y = relu(x)
        >>> [kept.numel() for kept in y.grad_fn.saved_tensors]
        [625]
        >>> y.sum().backward()
        >>> y.sum().item(), x.grad.sum().item()
        (1250.25, 2500.0)
    """
    plain = not recorded() and type(x) is Tensor and x.numel() >= _MANY
    if not (plain and x.requires_grad and torch.is_grad_enabled()):
        return F.relu(x)
    y: Tensor = _ReLU.apply(x)  # type: ignore[no-untyped-call]  # torch's
    return y


class _ReLU(torch.autograd.Function):
    """`relu`, and its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """ReLU; one bit of each value is kept."""
        y = torch.relu(x)
        ctx.layout = y.shape, y.stride()
        ctx.save_for_backward(_packed(y))
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        """The gradient where a bit is set, else zero."""
        (bits,) = ctx.saved_tensors
        return through_mask(grad, (_unpacked(bits, *ctx.layout),), is_differentiated(grad))


def _packed(y: Tensor) -> Tensor:
    """Whether each value is not zero, eight to a byte, in the order of memory."""
    flags = y.to(torch.bool)
    flat = torch.as_strided(flags, (flags.numel(),), (1,))
    whole = flat if flat.numel() % 8 == 0 else F.pad(flat, (0, -flat.numel() % 8))
    return whole.view(torch.int64).mul(_GATHER).bitwise_right_shift_(56).to(torch.uint8)


def _unpacked(bits: Tensor, shape: tuple[int, ...], strides: tuple[int, ...]) -> Tensor:
    """Not zero where a bit is set, uint8."""
    flags = bits.to(torch.int64).mul_(_REPEAT).bitwise_and_(_ONE_EACH).view(torch.uint8)
    return torch.as_strided(flags, shape, strides)
