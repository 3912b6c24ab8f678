"""Integer fake quantization in few passes over memory.

It has the values of its composed form, operation by operation, so that they are equal bit for bit; a zero may have
the other sign. What it saves is memory traffic: one buffer is worked on in place, and for the gradient as little is
kept as it can be had from. Gradients are those of the composed form, to rounding:

- that of a tensor is passed on as it is where the composed form multiplies and divides it by the scale;
- that of a scale is one sum of residuals, where the composed form subtracts one long sum from another. Eager code keeps
  residuals of up to 256 codes in 16 bits, see `brevq.function.residuals`; it adds up those of large tensors in another
  order, see `brevq.function.products`; and both count infinite values, which the composed form makes NaN of, with the
  code that they were clamped to.

In compiled code the same values and gradients are made of operations that the compiler fuses itself. In the transforms
of `torch.func`, and for gradients of gradients, the composed form is used.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from brevq.function import products, residuals
from brevq.function.masks import equal, pass_where, through_mask
from brevq.function.ops_ste import round_ste, straight_through
from brevq.function.pieces import PIECE, can_be_divided, divided, pieces
from brevq.function.recording import differentiate, is_differentiated, recorded

#: Those that are computed in place; half precision is computed in the composed form.
_DTYPES = (torch.float32, torch.float64)

#: Where ReLU blocks, this stands for ``x / scale``: it rounds below all codes, so that it is clamped to zero.
_BLOCKED = -4.0

#: From how many values on quantization goes piece by piece: without residuals, and with them, which take more buffers.
_MANY, _MANY_SHORT = 2**21, 2**17


def fake_quantize(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor | None,
    low: float,
    high: float,
    straight: bool = False,
    rectified: bool = False,
) -> Tensor:
    """`x` on an integer grid: ``(clamp(round(x / scale + zero_point), low, high) - zero_point) * scale``.

    The gradient of `x` is the identity's where the code was not clamped and zero where it was. That of the scale is the
    sum of ``code - zero_point - x / scale`` where it was not clamped and of ``code - zero_point`` where it was; that of
    the zero-point is the sum of ``-scale`` where it was.

    What is kept for the gradient, where the scale or the zero-point receives one: two bytes for each value of a
    float32 tensor of 4096 values or more, with at most 256 codes, zero among them, and not `straight`; else, and
    where something else keeps `x` anyway, `x`. Where `x` alone receives one: a byte for each value, or nothing where
    `straight`. With two bytes the error of the scale's gradient, beyond its rounding, is at most 2**-13 times the sum
    of the magnitudes of the incoming gradients.

    Args:
        x: floating-point tensor of any shape.
        scale: the step, positive; broadcasts to `x`.
        zero_point: the code of zero; broadcasts to `x`. None means 0, which is not added.
        low: the lowest code.
        high: the highest code.
        straight: whether clamping passes gradients, to `x` and to the scale, as if it were the identity. Default: no.
        rectified: whether ReLU of `x` is quantized; its output need not be kept. Where ``x / scale`` is so small that
            it is rounded to zero, the gradient is that of zero. Default: no.

    Source:
        Esser et al., 2020, "Learned Step Size Quantization", section 2.1, https://arxiv.org/abs/1902.08153, for the
        gradient of the scale.

    Examples:
        >>> x = torch.tensor([0.26, -9.0], requires_grad=True)
        >>> y = fake_quantize(x, torch.tensor(0.5), None, -8.0, 7.0)
        >>> y.sum().backward()
        >>> y.tolist(), x.grad.tolist()
        ([0.5, -4.0], [1.0, 0.0])
    """
    if rectified:
        return _rectified(x, scale, zero_point, low, high, straight)
    plain = x.dtype in _DTYPES and fits(scale, x) and (zero_point is None or fits(zero_point, x))
    if not plain or torch._C._are_functorch_transforms_active():  # noqa: SLF001  # no public name
        return _composed(x, scale, zero_point, low, high, straight)
    if torch.compiler.is_compiling():
        return _compilable(x, scale, zero_point, low, high, straight)
    learns = x.requires_grad or scale.requires_grad or (zero_point is not None and zero_point.requires_grad)
    if not (learns and torch.is_grad_enabled()):
        return _quantized(x, _Grid(scale, zero_point, low, high))[0]
    y: Tensor
    learned = scale.requires_grad or (zero_point is not None and zero_point.requires_grad)
    if learned and not straight and residuals.saves_memory(x, (low, high)):
        y = _FakeQuantizeShort.apply(x, scale, zero_point, low, high, False)  # type: ignore[no-untyped-call]  # torch's
    else:
        y = _FakeQuantize.apply(x, scale, zero_point, low, high, straight, False)  # type: ignore[no-untyped-call]  # torch's
    return y


def _rectified(x: Tensor, scale: Tensor, zero_point: Tensor | None, low: float, high: float, straight: bool) -> Tensor:
    """`fake_quantize` of ReLU, in one where clamping blocks the same gradients as ReLU, and more."""
    plain = x.dtype in _DTYPES and fits(scale, x) and x.requires_grad and torch.is_grad_enabled()
    if not plain or zero_point is not None or low != 0 or straight or recorded():
        return fake_quantize(torch.relu(x), scale, zero_point, low, high, straight)
    y: Tensor
    if not scale.requires_grad:
        y = _FakeQuantize.apply(x, scale, None, low, high, False, True)  # type: ignore[no-untyped-call]  # torch's
    elif residuals.saves_memory(x, (low, high)):
        y = _FakeQuantizeShort.apply(x, scale, None, low, high, True)  # type: ignore[no-untyped-call]  # torch's
    else:
        y = fake_quantize(torch.relu(x), scale, None, low, high)
    return y


class _FakeQuantize(torch.autograd.Function):
    """`fake_quantize`, and its gradients."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        scale: Tensor,
        zero_point: Tensor | None,
        low: float,
        high: float,
        straight: bool,
        rectified: bool,
    ) -> Tensor:
        """`x` on its grid; what is kept depends on who receives a gradient."""
        ctx.low, ctx.high, ctx.straight = low, high, straight
        ctx.of_input_alone = not any(ctx.needs_input_grad[1:3])
        masked = ctx.of_input_alone and not straight
        y, inside = _quantized(x, _Grid(scale, zero_point, low, high, rectified), masked)
        if not ctx.of_input_alone:
            ctx.save_for_backward(x, scale, zero_point)
        elif inside is not None:
            ctx.save_for_backward(inside)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of input, scale and zero-point."""
        record = is_differentiated(grad)
        if ctx.of_input_alone:
            return (through_mask(grad, ctx.saved_tensors, record), *(None,) * 6)
        gradients = _recorded_gradients if record else _gradients
        return (
            *gradients(grad, ctx.saved_tensors, ctx.needs_input_grad, (ctx.low, ctx.high, ctx.straight)),
            *(None,) * 4,
        )


class _FakeQuantizeShort(torch.autograd.Function):
    """`fake_quantize`, and its gradients from residuals."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: Tensor, zero_point: Tensor | None, low: float, high: float, rectified: bool
    ) -> Tensor:
        """`x` on its grid; residuals, scale and zero-point are kept."""
        ctx.ends = low, high
        y, kept = _quantized_short(x, _Grid(scale, zero_point, low, high, rectified))
        ctx.save_for_backward(kept, scale, zero_point)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of input, scale and zero-point."""
        gradients = residuals.recorded_gradients if is_differentiated(grad) else residuals.gradients
        return (*gradients(grad, ctx.saved_tensors, ctx.needs_input_grad, ctx.ends), *(None,) * 3)


@functools.cache
def _kernels(device: str) -> ModuleType | None:
    """What computes in one pass over memory, on devices of a kind: on GPUs where there is Triton; else None."""
    if device != "cuda" or importlib.util.find_spec("triton") is None:
        return None
    return importlib.import_module("brevq.function.triton_kernels")


class _Grid(NamedTuple):
    """An integer grid; one of `rectified` values begins at zero, and has no zero-point."""

    scale: Tensor
    zero_point: Tensor | None
    low: float
    high: float
    rectified: bool = False

    def steps(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """``x / scale + zero_point``, in a buffer of its own; below all codes where ReLU blocks."""
        if self.rectified:
            return torch.threshold_(torch.div(x, self.scale, out=out), 0.0, _BLOCKED)
        steps = torch.div(x, self.scale, out=out)
        return steps if self.zero_point is None else steps.add_(self.zero_point)

    def dequantize(self, codes: Tensor) -> Tensor:
        """``(codes - zero_point) * scale``, in place."""
        return (codes if self.zero_point is None else codes.sub_(self.zero_point)).mul_(self.scale)

    def quantize(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """`x` on the grid, written to `out` where it is given."""
        return self.dequantize(self.steps(x, out).round_().clamp_(self.low, self.high))

    def quantize_and_mask(
        self, x: Tensor, out: Tensor | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The same, and 1 for each code that was not clamped and 0 for others, written to `mask` where it is given."""
        codes = self.steps(x).round_()
        clamped = torch.clamp(codes, self.low, self.high, out=out)
        inside = equal(codes, clamped, out=codes)
        return self.dequantize(clamped), inside.to(torch.int8) if mask is None else mask.copy_(inside)


def _quantized(x: Tensor, grid: _Grid, masked: bool = False) -> tuple[Tensor, Tensor | None]:
    """`x` on the grid; and, where asked for, 1 for each code that was not clamped and 0 for others, a byte each."""
    kernels = _kernels(x.device.type)
    if kernels is not None and not grid.rectified:
        found: tuple[Tensor, Tensor | None] = kernels.quantized(x, *grid[:4], masked)
        return found
    if not can_be_divided((x,), (grid.scale, grid.zero_point), _MANY):
        return grid.quantize_and_mask(x) if masked else (grid.quantize(x), None)
    y = torch.empty_like(x)
    if not masked:
        for part, out in divided((x, y), 2 * PIECE):
            grid.quantize(part, out)
        return y, None
    inside = torch.empty_like(x, dtype=torch.int8)
    for part, out, mask in divided((x, y, inside)):
        grid.quantize_and_mask(part, out, mask)
    return y, inside


def _quantized_short(x: Tensor, grid: _Grid) -> tuple[Tensor, Tensor]:
    """`x`, quantized, and its residuals."""
    y, kept = torch.empty_like(x), torch.empty_like(x, dtype=torch.float16)
    for part, out, of_part in pieces((x, y, kept), (grid.scale, grid.zero_point), _MANY_SHORT, 2 * PIECE):
        steps = grid.steps(part)
        codes = steps.round()
        torch.clamp(codes, grid.low, grid.high, out=out)
        residuals.of_steps(steps, codes, out, out=of_part)
        grid.dequantize(out)
    return y, kept


def _gradients(
    grad: Tensor,
    saved: tuple[Tensor, Tensor, Tensor | None],
    needs: tuple[bool, ...],
    limits: tuple[float, float, bool],
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The gradients of input, scale and zero-point, from what was quantized."""
    kernels = _kernels(grad.device.type)
    if kernels is not None:
        by_kernel: tuple[Tensor, Tensor | None, Tensor | None] = kernels.gradients(grad, saved, needs, limits)
        return by_kernel
    if needs[1] and products.takes_products(grad, saved, *limits[:2]):
        by_products = products.gradients(grad, saved, limits)
        if by_products is not None:
            return by_products
    return _gradients_of(grad, saved, needs, limits)


def _gradients_of(
    grad: Tensor,
    saved: tuple[Tensor, Tensor, Tensor | None],
    needs: tuple[bool, ...],
    limits: tuple[float, float, bool],
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The same, an operation at a time."""
    (x, scale, zero_point), (low, high, straight) = saved, limits
    steps = x / scale
    codes = steps.round() if zero_point is None else (steps + zero_point).round_()
    residual = codes.clamp(low, high)
    inside = None if straight else equal(codes, residual, out=codes)
    of_scale = None
    if needs[1]:
        residual = residual if zero_point is None else residual.sub_(zero_point)
        residual = residual.sub_(steps) if inside is None else residual.addcmul_(inside, steps, value=-1)
        # In the layout that the product of both has, which is the order of summation.
        product = residual.mul_(grad) if grad.stride() == residual.stride() else grad * residual
        of_scale = product.sum_to_size(scale.shape)
    of_input = grad if inside is None else pass_where(inside, grad)
    of_zero_point = None
    if zero_point is not None and needs[2]:
        of_zero_point = (grad - of_input).mul_(-scale).sum_to_size(zero_point.shape)
    return of_input, of_scale, of_zero_point


def _recorded_gradients(
    grad: Tensor,
    saved: tuple[Tensor, Tensor, Tensor | None],
    needs: tuple[bool, ...],
    limits: tuple[float, float, bool],
) -> tuple[Tensor | None, ...]:
    """The same gradients, with what they depend on, by way of the composed form."""
    wanted = [tensor for tensor, needed in zip(saved, needs, strict=False) if tensor is not None and needed]

    def composed(*inputs: Tensor) -> Tensor:
        given = iter(inputs)
        x, scale, zero_point = (next(given) if needed else part for part, needed in zip(saved, needs, strict=False))
        return _composed(x, scale, zero_point, *limits)  # type: ignore[arg-type]  # the first two are there

    found = iter(differentiate(composed, wanted, grad))
    return tuple(next(found) if needed else None for needed in needs[:3])


def _composed(x: Tensor, scale: Tensor, zero_point: Tensor | None, low: float, high: float, straight: bool) -> Tensor:
    """`fake_quantize`, an operation at a time."""
    codes = round_ste(x / scale if zero_point is None else x / scale + zero_point)
    inside = torch.clamp(codes, low, high)
    inside = straight_through(codes, inside) if straight else inside
    return (inside if zero_point is None else inside - zero_point) * scale


def _compilable(x: Tensor, scale: Tensor, zero_point: Tensor | None, low: float, high: float, straight: bool) -> Tensor:
    """`fake_quantize` with the gradients of `_gradients_of`, bit for bit, of operations that compilers fuse."""
    shift = None if zero_point is None else zero_point.detach()
    steps = x.detach() / scale.detach()
    codes = torch.round(steps if shift is None else steps + shift)
    clamped = torch.clamp(codes, low, high)
    centred = clamped if shift is None else clamped - shift
    y = centred * scale.detach()
    if not torch.is_grad_enabled():
        return y
    # Only the gradients of what follows are used: each input times, detached, what its gradient is.
    inside = torch.ones_like(codes) if straight else (codes == clamped).to(codes.dtype)
    slope = (x if straight else torch.where(inside > 0, x, 0.0)) + (centred - inside * steps) * scale
    if zero_point is not None:
        slope = slope + (inside - 1) * scale.detach() * zero_point
    return straight_through(slope, y)


def fits(part: Tensor, x: Tensor) -> bool:
    """Whether a scale or zero-point leaves the shape and the dtype of `x` as they are.

    Args:
        part: what `x` is divided by, or is added to it.
        x: any tensor.

    Examples:
        >>> fits(torch.ones(3, 1), torch.ones(3, 4)), fits(torch.ones(3, 1), torch.ones(4))
        (True, False)
    """
    if part.dim() == 0:
        return part.dtype == x.dtype or x.dim() > 0
    sizes = zip(reversed(part.shape), reversed(x.shape), strict=False)
    return part.dtype == x.dtype and part.dim() <= x.dim() and all(size in (1, whole) for size, whole in sizes)
