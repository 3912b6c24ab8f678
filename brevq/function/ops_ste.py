"""Straight-through estimators: functions with a step in their value and none in their gradient.

Quantization is piecewise constant, so its true gradient is zero almost everywhere. A straight-through estimator
keeps the value and replaces the gradient, usually by that of the identity (Bengio et al., 2013,
https://arxiv.org/abs/1308.3432). What each function here replaces it with stands in its docstring.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# TorchScript reads comments inside functions, and would take this one's for a type.
is_scripting = torch.jit.is_scripting  # type: ignore[attr-defined]  # torch does not list it


class _StraightThrough(torch.autograd.Function):
    """The value of the second argument with the gradient of the first."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        """The second argument; nothing is saved, as the gradient passes as it comes."""
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """The gradient, for the first argument."""
        return grad, None


class _TransformedStraightThrough(_StraightThrough):
    """The same in the transforms of `torch.func`, whose form takes four times as long to call."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, y: Tensor) -> Tensor:  # type: ignore[override]  # torch's other form
        """The second argument."""
        return y.view_as(y)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        """Nothing is saved."""


def straight_through(x: Tensor, y: Tensor) -> Tensor:
    """The value of `y` with the gradient of `x`.

    Args:
        x: tensor of any shape; receives the whole gradient.
        y: tensor of the shape and dtype of `x`; receives none.

    Returns:
        `y`, bit for bit (minus zero, infinities and NaN included).

    Examples:
        >>> x = torch.tensor([0.3, 1.7], requires_grad=True)
        >>> straight_through(x, torch.floor(x)).sum().backward()
        >>> x.grad
        tensor([1., 1.])
    """
    if is_scripting():
        # TorchScript knows no autograd.Function. The difference is +0 wherever x is finite, and y - (+0) is y.
        return y.detach() - (x.detach() - x).nan_to_num()
    else:  # noqa: RET505  # TorchScript leaves a branch uncompiled only where it is an explicit else
        return _apply_straight_through(x, y)


@torch.jit.unused
def _apply_straight_through(x: Tensor, y: Tensor) -> Tensor:
    if not torch.is_grad_enabled():
        return y
    transformed = torch._C._are_functorch_transforms_active()  # noqa: SLF001  # no public name
    function = _TransformedStraightThrough if transformed else _StraightThrough
    result: Tensor = function.apply(x, y.detach())  # type: ignore[no-untyped-call]  # torch's
    return result


def round_ste(x: Tensor) -> Tensor:
    """`x` rounded to the nearest integer, halves to the even one; the gradient is the identity's.

    Args:
        x: tensor of any shape.

    Examples:
        >>> round_ste(torch.tensor([-1.5, -0.4, 0.5, 1.5]))
        tensor([-2., -0.,  0.,  2.])
    """
    return straight_through(x, torch.round(x))


def ceil_ste(x: Tensor) -> Tensor:
    """`x` rounded up to an integer; the gradient is the identity's.

    Args:
        x: tensor of any shape.

    Examples:
        >>> ceil_ste(torch.tensor([-1.5, 0.2]))
        tensor([-1.,  1.])
    """
    return straight_through(x, torch.ceil(x))


def floor_ste(x: Tensor) -> Tensor:
    """`x` rounded down to an integer; the gradient is the identity's.

    Args:
        x: tensor of any shape.

    Examples:
        >>> floor_ste(torch.tensor([-1.5, 0.2]))
        tensor([-2.,  0.])
    """
    return straight_through(x, torch.floor(x))


def round_to_zero_ste(x: Tensor) -> Tensor:
    """`x` with its fraction cut off, as integer division in C does; the gradient is the identity's.

    Args:
        x: tensor of any shape.

    Examples:
        >>> round_to_zero_ste(torch.tensor([-1.7, 1.7]))
        tensor([-1.,  1.])
    """
    return straight_through(x, torch.trunc(x))


def dpu_round_ste(x: Tensor) -> Tensor:
    """`x` rounded as AMD's DPU does: to nearest, negative halves up, other halves to even; identity gradient.

    Args:
        x: tensor of any shape.

    Examples:
        >>> dpu_round_ste(torch.tensor([-1.5, -0.5, 0.5, 1.5, -1.6]))
        tensor([-1., -0.,  0.,  2., -2.])
    """
    negative_half = (x < 0) & (x - torch.floor(x) == 0.5)
    return straight_through(x, torch.where(negative_half, torch.ceil(x), torch.round(x)))


def tensor_clamp(x: Tensor, min_val: Tensor, max_val: Tensor) -> Tensor:
    """`x` limited to the interval from `min_val` to `max_val`, with the true gradient.

    The gradient reaches `x` inside the interval, ends included, and the limit that was hit outside it.

    Args:
        x: tensor of any shape.
        min_val: lower limit, broadcastable to `x`.
        max_val: upper limit, broadcastable to `x`.

    Examples:
        >>> tensor_clamp(torch.tensor([-3.0, 0.5, 3.0]), torch.tensor(-1.0), torch.tensor(1.0))
        tensor([-1.0000,  0.5000,  1.0000])
    """
    return torch.clamp(x, min_val, max_val)


def tensor_clamp_ste(x: Tensor, min_val: Tensor, max_val: Tensor) -> Tensor:
    """`x` limited to the interval from `min_val` to `max_val`; the gradient of `x` is the identity's everywhere.

    Args:
        x: tensor of any shape.
        min_val: lower limit, broadcastable to `x`; receives no gradient.
        max_val: upper limit, broadcastable to `x`; receives no gradient.

    Examples:
        >>> tensor_clamp_ste(torch.tensor([-3.0, 0.5]), torch.tensor(-1.0), torch.tensor(1.0))
        tensor([-1.0000,  0.5000])
    """
    return straight_through(x, torch.clamp(x, min_val, max_val))


def scalar_clamp_ste(x: Tensor, min_val: float, max_val: float) -> Tensor:
    """`x` limited to the interval between two numbers; the gradient is the identity's everywhere.

    Args:
        x: tensor of any shape.
        min_val: lower limit.
        max_val: upper limit.

    Examples:
        >>> scalar_clamp_ste(torch.tensor([-3.0, 0.5]), -1.0, 1.0)
        tensor([-1.0000,  0.5000])
    """
    return straight_through(x, torch.clamp(x, min_val, max_val))


def scalar_clamp_min_ste(x: Tensor, min_val: float) -> Tensor:
    """`x`, at least `min_val`; the gradient is the identity's everywhere.

    Args:
        x: tensor of any shape.
        min_val: lower limit.

    Examples:
        >>> scalar_clamp_min_ste(torch.tensor([-3.0, 0.5]), 0.0)
        tensor([0.0000, 0.5000])
    """
    return straight_through(x, torch.clamp_min(x, min_val))


def binary_sign_ste(x: Tensor) -> Tensor:
    """The sign of `x` as -1 or 1, where zero counts as positive; the gradient is the identity's.

    Args:
        x: tensor of any shape.

    Examples:
        >>> binary_sign_ste(torch.tensor([-0.2, 0.0, 4.0]))
        tensor([-1.,  1.,  1.])
    """
    # NaN compares false: it is carried through by hand, so that it stays visible downstream.
    sign = torch.where(x >= 0, torch.ones_like(x), -torch.ones_like(x))
    return straight_through(x, torch.where(torch.isnan(x), x, sign))


def ternary_sign_ste(x: Tensor) -> Tensor:
    """The sign of `x` as -1, 0 or 1; the gradient is the identity's.

    Args:
        x: tensor of any shape.

    Examples:
        >>> ternary_sign_ste(torch.tensor([-0.2, 0.0, 4.0]))
        tensor([-1.,  0.,  1.])
    """
    return straight_through(x, torch.where(torch.isnan(x), x, torch.sign(x)))


def abs_binary_sign_grad(x: Tensor) -> Tensor:
    """The absolute value of `x`, whose gradient at zero is 1 instead of 0, so that a learned scale can leave zero.

    The gradient is 1 where ``x >= 0`` and -1 where ``x < 0``.

    Args:
        x: tensor of any shape.

    Examples:
        >>> x = torch.tensor([-2.0, 0.0, 3.0], requires_grad=True)
        >>> abs_binary_sign_grad(x).sum().backward()
        >>> x.grad
        tensor([-1.,  1.,  1.])
    """
    return torch.where(x >= 0, x, -x)


def round_half_up_ste(x: Tensor) -> Tensor:
    """`x` rounded to the nearest integer, halves up; the gradient is the identity's.

    Exact: what is just below a half is rounded down, where ``floor(x + 1/2)`` would round it up.

    Args:
        x: tensor of any shape.

    Examples:
        >>> round_half_up_ste(torch.tensor([-1.5, -0.5, 0.5, 1.4]))
        tensor([-1., -0.,  1.,  1.])
    """
    down = torch.floor(x)
    return straight_through(x, torch.where(x - down >= 0.5, torch.ceil(x), down))


def round_half_away_ste(x: Tensor) -> Tensor:
    """`x` rounded to the nearest integer, halves away from zero, as C's `round` does; the gradient is the identity's.

    Args:
        x: tensor of any shape.

    Examples:
        >>> round_half_away_ste(torch.tensor([-1.5, -0.5, 0.5, 1.4]))
        tensor([-2., -1.,  1.,  1.])
    """
    whole = torch.trunc(x)
    away = (torch.abs(x - whole) >= 0.5).to(x.dtype)
    return straight_through(x, whole + torch.copysign(away, x))


def stochastic_round_ste(x: Tensor, uniform: Tensor) -> Tensor:
    """`x` rounded to one of its two neighbours, at random, so that it stays the same on average; identity gradient.

    Away from zero where ``uniform < |x - trunc(x)|``, which is exact for every finite `x`, else toward it.

    Args:
        x: tensor of any shape.
        uniform: random numbers from 0 to 1, 1 excluded, in the shape of `x`.

    Source:
        Gupta et al., 2015, "Deep Learning with Limited Numerical Precision", https://arxiv.org/abs/1502.02551

    Examples:
        >>> stochastic_round_ste(torch.tensor([-1.5, -1.5, 0.2, 2.0]), torch.tensor([0.4, 0.6, 0.1, 0.0]))
        tensor([-2., -1.,  1.,  2.])
    """
    whole = torch.trunc(x)
    away = (uniform < torch.abs(x - whole)).to(x.dtype)
    return straight_through(x, whole + torch.copysign(away, x))
