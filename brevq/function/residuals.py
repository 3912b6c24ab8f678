"""What the gradients of integer fake quantization need of its input, in 16 bits for each value.

That of a value inside the range is how far it lies from its code, in steps: the residual, from -0.5 to 0.5. Of one
outside it is a number whose sign says on which side, and whose magnitude is 1.5 at least. In half precision a residual
is known to within `2**-13` steps.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from brevq.function.masks import equal, pass_where
from brevq.function.pieces import PIECE, can_be_divided, divided

#: Between the largest residual, 0.5, and the least magnitude that stands for a side, 1.5.
_BETWEEN = 1.0

#: From how many values on there is memory to save; and the longest range, in steps.
_MANY, _SHORT = 2**12, 255

#: From how many values on gradients go piece by piece.
_DIVIDED_FROM = 2**16

#: What was kept of the input, the scale, and the zero-point.
Kept = tuple[Tensor, Tensor, Tensor | None]
#: The lowest and the highest code.
Ends = tuple[float, float]


def saves_memory(x: Tensor, ends: Ends) -> bool:
    """Whether residuals take less memory than `x` itself, which some others keep anyway, and are short.

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
    """Whether a range has at most 256 codes, and zero among them, and ends with codes.

    Args:
        low: the lowest code.
        high: the highest code.

    Examples:
        >>> is_short(0.0, 255.0), is_short(-256.0, 255.0), is_short(-8.0, 7.5)
        (True, False, False)
    """
    return low <= 0 <= high and high - low <= _SHORT and low % 1 == high % 1 == 0


def of_steps(steps: Tensor, codes: Tensor, clamped: Tensor, out: Tensor | None = None) -> Tensor:
    """The residuals, float16, in the shape and layout of `steps`.

    Args:
        steps: ``x / scale + zero_point``; overwritten.
        codes: these, rounded; overwritten.
        clamped: these, clamped.
        out: where the residuals are written to. Default: a new tensor.

    Examples:
        >>> steps = torch.tensor([0.5, 1.75, 9.0, -9.0, float("nan")])
        >>> of_steps(steps, steps.round(), steps.round().clamp(-8, 7)).tolist()
        [0.5, -0.25, 4.0, -2.0, nan]
    """
    # What is clamped counts twice, so that it is beyond any residual: both differences have the same sign.
    residuals = steps.add_(codes.sub_(clamped, alpha=2))
    return residuals.half() if out is None else out.copy_(residuals)


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

    Examples:
        >>> kept = of_steps(torch.tensor([0.25, 9.0]), torch.tensor([0.0, 9.0]), torch.tensor([0.0, 7.0]))
        >>> gradients(torch.ones(2), (kept, torch.tensor(0.5), None), (True, True, False), (-8.0, 7.0))
        (tensor([1., 0.]), tensor(6.7500), None)
    """
    residuals, *parameters = kept
    if needs[1] and can_be_divided((grad, residuals), parameters, _DIVIDED_FROM):
        by_products = _by_products(grad, kept, ends)
        if by_products is not None:
            return by_products
    return _one_by_one(grad, kept, needs, ends)


def _by_products(grad: Tensor, kept: Kept, ends: Ends) -> tuple[Tensor, Tensor, Tensor | None] | None:
    """The same for one scale, by scalar products; None where the scale's gradient is not finite."""
    residuals, scale, zero_point = kept
    of_input = torch.empty_like(grad)
    (low, high), unit = _sides(ends)
    within, beyond, blocked = [], [], []
    for above, part, out in divided((grad, residuals, of_input), 2 * PIECE):
        distance = part.to(grad.dtype)
        torch.ops.aten.hardtanh_backward.grad_input(above, distance, -_BETWEEN, _BETWEEN, grad_input=out)
        within.append(torch.dot(out, distance))
        sides = torch.ops.aten.hardshrink.out(distance, _BETWEEN, out=distance).clamp_(low, high)
        beyond.append(torch.dot(above, sides))
        if zero_point is not None:
            blocked.append(torch.sub(above, out, out=distance).sum())
    of_scale = torch.stack(beyond).sum().mul_(unit) - torch.stack(within).sum()
    of_zero_point = None
    if zero_point is not None:
        of_blocked = torch.stack(blocked).sum()
        of_scale, of_zero_point = of_scale - zero_point * of_blocked, of_blocked * -scale
    return (of_input, of_scale, of_zero_point) if of_scale.isfinite() else None


def _one_by_one(
    grad: Tensor, kept: Kept, needs: tuple[bool, ...], ends: Ends
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The same of any scale, an operation at a time."""
    residuals, scale, zero_point = kept
    distance = residuals.to(grad.dtype)
    residual = distance.clamp(-0.5, 0.5)
    inside = equal(distance, residual, out=torch.empty_like(distance))
    of_scale = None
    if needs[1]:
        (low, high), unit = _sides(ends)
        slope = torch.ops.aten.hardshrink.out(distance, _BETWEEN, out=distance).clamp_(low, high).mul_(unit)
        slope.addcmul_(inside, residual, value=-1)
        if zero_point is not None:
            slope.sub_(zero_point).addcmul_(inside, zero_point)
        product = slope.mul_(grad) if grad.stride() == slope.stride() else grad * slope
        of_scale = product.sum_to_size(scale.shape)
    of_input = pass_where(inside, grad)
    of_zero_point = None
    if zero_point is not None and needs[2]:
        of_zero_point = (grad - of_input).mul_(-scale).sum_to_size(zero_point.shape)
    return of_input, of_scale, of_zero_point


def _sides(ends: Ends) -> tuple[Ends, float]:
    """The ends divided by the larger magnitude, to which what stands for a side is clamped; and that magnitude."""
    low, high = ends
    unit = max(-low, high) or 1.0  # of zero alone
    return (low / unit, high / unit), unit


def recorded_gradients(
    grad: Tensor, kept: Kept, needs: tuple[bool, ...], ends: Ends
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """The gradients that `gradients` has, as functions of the incoming one, of scale and zero-point, to be recorded.

    On the input they depend not at all: to a straight-through estimator a code moves as its value does, so that the
    residual stays.

    Args:
        grad: the incoming gradient.
        kept: the residuals; scale and zero-point, which broadcast to them.
        needs: whether input, scale and zero-point receive a gradient.
        ends: the lowest and the highest code.

    Examples:
        >>> kept = of_steps(torch.tensor([0.25, 9.0]), torch.tensor([0.0, 9.0]), torch.tensor([0.0, 7.0]))
        >>> recorded_gradients(torch.ones(2), (kept, torch.tensor(0.5), None), (True, True, False), (-8.0, 7.0))
        (tensor([1., 0.]), tensor(6.7500), None)
    """
    residuals, scale, zero_point = kept
    distance = residuals.to(grad.dtype)
    inside = distance.abs() < _BETWEEN
    of_input = torch.where(inside, grad, 0.0)
    of_scale = of_zero_point = None
    if needs[1]:
        (low, high), unit = _sides(ends)
        codes = distance.clamp(low, high) * unit
        centred = codes if zero_point is None else codes - zero_point
        of_scale = (grad * torch.where(inside, -distance, centred)).sum_to_size(scale.shape)
    if zero_point is not None and needs[2]:
        of_zero_point = (torch.where(inside, 0.0, grad) * -scale).sum_to_size(zero_point.shape)
    return of_input if needs[0] else None, of_scale, of_zero_point


def _is_kept_by_source(x: Tensor) -> bool:
    """Whether the function that made `x` keeps it for its own gradient, as ReLU, softmax and others of torch do."""
    source: Any = type(x.grad_fn)
    return hasattr(source, "_saved_result")
