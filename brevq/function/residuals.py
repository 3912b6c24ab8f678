"""What the gradients of integer fake quantization need of its input, in 16 bits for each value.

That of a value inside the range is how far it lies from its code, in steps: the residual, from -0.5 to 0.5. Of one
outside it is the side. Of NaN it is that it was none. The residual is stored to within `2**-17` steps; float32 knows it
no better of codes from 128 on, for the quotient ``x / scale`` has as large a rounding error there.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from brevq.function.pieces import can_be_divided, divided

#: What stands for a residual of one step.
_UNIT = 65_000

#: What lies between the largest residual and the least that stands for another thing: the sides, and NaN.
_INSIDE, _OUTSIDE, _NAN = _UNIT / 2 + 0.5, 32_767, -32_768

#: From how many values on there is memory to save; and the longest range, in steps, whose residuals are worth it.
_MANY, _SHORT = 2**12, 255

#: From how many values on gradients go piece by piece.
_MANY_DIVIDED = 2**16

#: What was kept of the input, the scale, and the zero-point.
Kept = tuple[Tensor, Tensor, Tensor | None]
#: The lowest and the highest code.
Ends = tuple[float, float]


def saves_memory(x: Tensor, ends: Ends) -> bool:
    """Whether residuals take less memory than `x` itself, which some others keep anyway, and are as exact.

    Args:
        x: what is quantized.
        ends: the lowest and the highest code.

    Examples:
        >>> x = torch.ones(5000, requires_grad=True)
        >>> saves_memory(x, (0.0, 255.0)), saves_memory(x + 1, (0.0, 255.0)), saves_memory(x.relu(), (0.0, 255.0))
        (False, True, False)
    """
    if not is_short(*ends) or x.dtype != torch.float32 or x.numel() < _MANY:
        return False
    # A leaf belongs to someone, and some functions keep their result for their own gradient.
    return not (x.is_leaf or _is_kept_by_source(x))


def is_short(low: float, high: float) -> bool:
    """Whether a range has no more codes than residuals are exact for, and zero among them.

    Args:
        low: the lowest code.
        high: the highest code.

    Examples:
        >>> is_short(0.0, 255.0), is_short(-256.0, 255.0)
        (True, False)
    """
    return low <= 0 <= high and high - low <= _SHORT


def of_steps(steps: Tensor, codes: Tensor, clamped: Tensor, out: Tensor | None = None) -> Tensor:
    """The residuals, int16, in the shape and layout of `steps`.

    Args:
        steps: ``x / scale + zero_point``; overwritten.
        codes: these, rounded; overwritten.
        clamped: these, clamped.
        out: where the residuals are written to. Default: a new tensor.

    Examples:
        >>> steps = torch.tensor([0.5, 1.75, 9.0, -9.0, math.nan])
        >>> of_steps(steps, steps.round(), steps.round().clamp(-8, 7)).tolist()
        [32500, -16250, 32767, -32767, -32768]
    """
    # What is clamped counts twice, so that it is beyond any residual: both differences have the same sign.
    residuals = steps.add_(codes.sub_(clamped, alpha=2)).mul_(_UNIT).round_()
    residuals.clamp_(-_OUTSIDE, _OUTSIDE).nan_to_num_(nan=_NAN)
    return residuals.to(torch.int16) if out is None else out.copy_(residuals)


def gradients(
    grad: Tensor, kept: Kept, needs: tuple[bool, ...], ends: Ends
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The gradients of input, scale and zero-point.

    That of the input is the incoming one, and zero where the code was clamped, exactly. That of the scale is the sum of
    ``code - zero_point - x / scale`` where it was not clamped and of ``code - zero_point`` where it was, each times
    the incoming gradient; NaN where one of its values was.

    Args:
        grad: the incoming gradient.
        kept: the residuals; scale and zero-point, which broadcast to them.
        needs: whether input, scale and zero-point receive a gradient.
        ends: the lowest and the highest code.
    """
    residuals, *parameters = kept
    divided_ = can_be_divided((grad, residuals), parameters, _MANY_DIVIDED)
    found = _by_products(grad, kept, ends) if divided_ else None
    of_input, of_scale, of_zero_point = _gradients_of(grad, kept, needs, ends) if found is None else found
    return of_input, None if of_scale is None else _spoilt(of_scale, residuals), of_zero_point


def _by_products(grad: Tensor, kept: Kept, ends: Ends) -> tuple[Tensor, Tensor, Tensor | None] | None:
    """The same but for NaN, of one scale, by scalar products; None where they are not finite."""
    residuals, scale, zero_point = kept
    of_input = torch.empty_like(grad)
    of_scale, blocked = [], []
    for above, part, out in divided((grad, residuals, of_input)):
        distance = part.to(grad.dtype)
        torch.ops.aten.hardtanh_backward.grad_input(above, distance, -_INSIDE, _INSIDE, grad_input=out)
        of_residuals = torch.dot(out, distance)
        outside = torch.ops.aten.hardshrink.out(distance, _INSIDE, out=distance).clamp_(*ends)
        of_scale.append(torch.dot(above, outside).sub_(of_residuals, alpha=1 / _UNIT))
        if zero_point is not None:
            blocked.append(torch.sub(above, out, out=distance).sum())
    total = torch.stack(of_scale).sum()
    if zero_point is None:
        return (of_input, total, None) if total.isfinite() else None
    of_blocked = torch.stack(blocked).sum()
    total = total - zero_point * of_blocked
    return (of_input, total, of_blocked * -scale) if total.isfinite() else None


def _gradients_of(
    grad: Tensor, kept: Kept, needs: tuple[bool, ...], ends: Ends
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The same but for NaN, an operation at a time."""
    residuals, scale, zero_point = kept
    distance = residuals.to(grad.dtype)
    of_input = torch.empty_like(distance)
    torch.ops.aten.hardtanh_backward.grad_input(grad, distance, -_INSIDE, _INSIDE, grad_input=of_input)
    of_scale = None
    if needs[1]:
        slope = _slope(distance, zero_point, ends)
        product = slope.mul_(grad) if grad.stride() == slope.stride() else grad * slope
        of_scale = product.sum_to_size(scale.shape)
    of_zero_point = None
    if zero_point is not None and needs[2]:
        of_zero_point = (grad - of_input).mul_(-scale).sum_to_size(zero_point.shape)
    return of_input, of_scale, of_zero_point


def recorded_gradients(
    grad: Tensor, kept: Kept, needs: tuple[bool, ...], ends: Ends
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """The same gradients, which depend on the incoming one, on the scale and on the zero-point, and can be recorded.

    On the input they depend not at all: to a straight-through estimator a code moves as its value does, so that the
    residual stays.

    Args:
        grad: the incoming gradient.
        kept: the residuals; scale and zero-point, which broadcast to them.
        needs: whether input, scale and zero-point receive a gradient.
        ends: the lowest and the highest code.
    """
    residuals, scale, zero_point = kept
    distance = residuals.to(grad.dtype)
    inside = distance.abs() <= _INSIDE
    of_input = torch.where(inside, grad, 0.0)
    of_scale = of_zero_point = None
    if needs[1]:
        codes = torch.where(distance == _NAN, math.nan, distance.clamp(*ends))
        centred = codes if zero_point is None else codes - zero_point
        of_scale = (grad * torch.where(inside, distance / -_UNIT, centred)).sum_to_size(scale.shape)
    if zero_point is not None and needs[2]:
        of_zero_point = (torch.where(inside, 0.0, grad) * -scale).sum_to_size(zero_point.shape)
    return of_input if needs[0] else None, of_scale, of_zero_point


def _slope(distance: Tensor, zero_point: Tensor | None, ends: Ends) -> Tensor:
    """The derivative of each value with respect to the scale; `distance` is overwritten."""
    low, high = ends
    # Outside half a step too far, by which the residual, which is as large there, brings it back.
    outside: Tensor = torch.ops.aten.hardshrink(distance, _INSIDE)
    if zero_point is None:
        slope = outside.clamp_(low - 0.5, high + 0.5)
    else:
        within = torch.eq(outside, 0, out=torch.empty_like(outside))
        slope = outside.clamp_(low - 0.5, high + 0.5).sub_(zero_point).addcmul_(within, zero_point)
    slope.add_(distance.clamp_(-_UNIT / 2, _UNIT / 2), alpha=-1 / _UNIT)
    return slope


def _spoilt(of_scale: Tensor, residuals: Tensor) -> Tensor:
    """The gradients of scales, NaN for each that has quantized one."""
    shape = (*(1,) * (residuals.dim() - of_scale.dim()), *of_scale.shape)
    shared = [axis for axis, size in enumerate(shape) if size != residuals.shape[axis]]
    lowest = residuals.amin(shared, keepdim=True) if shared else residuals
    return torch.where(lowest.view(of_scale.shape) == _NAN, math.nan, of_scale)


def _is_kept_by_source(x: Tensor) -> bool:
    """Whether the function that made `x` keeps it for its own gradient, as ReLU, softmax and others of torch do."""
    source: Any = type(x.grad_fn)
    return hasattr(source, "_saved_result")
