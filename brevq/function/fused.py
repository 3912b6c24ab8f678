"""Integer fake quantization in few passes over memory.

It has the values of its composed form, operation by operation, so that they are equal bit for bit; a zero may have
the other sign. What it saves is memory traffic: one buffer is worked on in place, and for the gradient as little is
kept as it can be had from. Gradients are those of the composed form, to rounding:

- that of a tensor is passed on as it is where the composed form multiplies and divides it by the scale;
- that of a scale is one sum of residuals, where the composed form subtracts one long sum from another; eager code keeps
  residuals of up to 256 codes in 16 bits, see `brevq.function.residuals`, and gives infinite values, which the composed
  form makes NaN of, the code that they were clamped to.

In compiled code the same values and gradients are made of operations that the compiler fuses itself. In the transforms
of `torch.func`, and for gradients of gradients, the composed form is used.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import math
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from brevq.function import residuals
from brevq.function.ops_ste import round_ste, straight_through
from brevq.function.recording import differentiate, is_differentiated, recorded

#: Those that are computed in place; half precision is computed in the composed form.
_DTYPES = (torch.float32, torch.float64)

#: From how many values on a CPU's caches hold no buffer, so that what takes several of them goes piece by piece; and
#: how many values a piece has, times the number of threads.
_LARGE, _PIECE = 2**20, 2**16

#: The same of what takes so many buffers that a part of the caches holds none.
_LARGE_SHORT = 2**17


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

    What is kept for the gradient: where the scale or the zero-point receives one two bytes for each value, or `x` where
    that is kept anyway, or is exact where these would not be: of float64, and of more than 256 codes. Else a byte for
    each value, or nothing where `straight`. Of two bytes the gradient of the scale has an error of at most 2**-17 times
    the sum of the incoming gradients, each without its sign, beyond that of its rounding.

    Args:
        x: floating-point tensor of any shape.
        scale: the step, positive; broadcasts to `x`.
        zero_point: the code of zero; broadcasts to `x`. None means 0, which is not added.
        low: the lowest code.
        high: the highest code.
        straight: whether clamping passes gradients, to `x` and to the scale, as if it were the identity. Default: no.
        rectified: whether ReLU of `x` is quantized; its output need not be kept. Default: no.

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
    plain = x.dtype in _DTYPES and _fits(scale, x) and (zero_point is None or _fits(zero_point, x))
    if not plain or torch._C._are_functorch_transforms_active():  # noqa: SLF001  # no public name
        return _composed(x, scale, zero_point, low, high, straight)
    if torch.compiler.is_compiling():
        return _compilable(x, scale, zero_point, low, high, straight)
    learns = x.requires_grad or scale.requires_grad or (zero_point is not None and zero_point.requires_grad)
    if not (learns and torch.is_grad_enabled()):
        return _quantized(x, scale, zero_point, low, high)[0]
    y: Tensor
    learned = scale.requires_grad or (zero_point is not None and zero_point.requires_grad)
    if learned and not straight and residuals.saves_memory(x, (low, high)):
        y = _FakeQuantizeShort.apply(x, scale, zero_point, low, high, False)  # type: ignore[no-untyped-call]  # torch's
    else:
        y = _FakeQuantize.apply(x, scale, zero_point, low, high, straight, False)  # type: ignore[no-untyped-call]  # torch's
    return y


def _rectified(x: Tensor, scale: Tensor, zero_point: Tensor | None, low: float, high: float, straight: bool) -> Tensor:
    """`fake_quantize` of ReLU, in one where clamping blocks the same gradients as ReLU, and more."""
    plain = x.dtype in _DTYPES and _fits(scale, x) and x.requires_grad and torch.is_grad_enabled()
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
        ctx.low, ctx.high, ctx.straight = low, high, straight
        ctx.of_input_alone = not any(ctx.needs_input_grad[1:3])
        masked = ctx.of_input_alone and not straight
        y, inside = _quantized(x, scale, zero_point, low, high, masked, rectified)
        if not ctx.of_input_alone:
            ctx.save_for_backward(x, scale, zero_point)
        elif inside is not None:
            ctx.save_for_backward(inside)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        record = is_differentiated(grad)
        if ctx.of_input_alone:
            return (_through_mask(grad, ctx.saved_tensors, record), *(None,) * 6)
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
        ctx.ends = low, high
        y, kept = _quantized_short(x, scale, zero_point, ctx.ends, rectified)
        ctx.save_for_backward(kept, scale, zero_point)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        gradients = residuals.recorded_gradients if is_differentiated(grad) else _gradients_short
        return (*gradients(grad, ctx.saved_tensors, ctx.needs_input_grad, ctx.ends), *(None,) * 3)


@functools.cache
def _kernels(device: str) -> ModuleType | None:
    """What computes in one pass over memory, on devices of a kind: on GPUs where there is Triton; else None."""
    if device != "cuda" or importlib.util.find_spec("triton") is None:
        return None
    return importlib.import_module("brevq.function.triton_kernels")


def _quantized(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor | None,
    low: float,
    high: float,
    masked: bool = False,
    rectified: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """`x` on the grid; and, where asked for, 1 for each code that was not clamped and 0 for others, a byte each."""
    kernels = _kernels(x.device.type)
    if kernels is not None and not rectified:
        found: tuple[Tensor, Tensor | None] = kernels.quantized(x, scale, zero_point, low, high, masked)
        return found
    codes = _steps(x, scale, zero_point, rectified).round_()
    if not masked:
        return _dequantize(codes.clamp_(low, high), scale, zero_point), None
    clamped = codes.clamp(low, high)
    inside = _equal(codes, clamped, out=codes).to(torch.int8)
    return _dequantize(clamped, scale, zero_point), inside


def _steps(x: Tensor, scale: Tensor, zero_point: Tensor | None, rectified: bool = False) -> Tensor:
    """``x / scale + zero_point``, in a buffer of its own; of `rectified` far below all codes where ReLU blocks."""
    steps = torch.threshold(x, 0.0, -math.inf).div_(scale) if rectified else x / scale
    return steps if zero_point is None else steps.add_(zero_point)


def _dequantize(codes: Tensor, scale: Tensor, zero_point: Tensor | None) -> Tensor:
    """``(codes - zero_point) * scale``, in place."""
    return (codes if zero_point is None else codes.sub_(zero_point)).mul_(scale)


def _equal(x: Tensor, y: Tensor, out: Tensor) -> Tensor:
    """1 where `x` equals `y`, which NaN does not, else 0: as numbers, which are faster to work with than booleans."""
    equal: Tensor = torch.eq(x, y, out=out)
    return equal


def _through_mask(grad: Tensor, saved: tuple[Tensor, ...], record: bool) -> Tensor:
    """The gradient of the input, zero where a mask that was saved is; there is none where it passes everywhere."""
    if not saved:
        return grad
    (inside,) = saved
    if record:
        return torch.where(inside > 0, grad, 0.0)
    return _pass_where(inside.to(grad.dtype), grad)


def _pass_where(inside: Tensor, grad: Tensor, out: Tensor | None = None) -> Tensor:
    """`grad` where `inside` is 1, and 0 where it is 0, even of an infinite one; by default in place of `inside`."""
    out = inside if out is None else out
    passed: Tensor = torch.ops.aten.threshold_backward.grad_input(grad, inside, 0, grad_input=out)
    return passed


def _quantized_short(
    x: Tensor, scale: Tensor, zero_point: Tensor | None, ends: tuple[float, float], rectified: bool
) -> tuple[Tensor, Tensor]:
    """`x`, quantized, and its residuals."""
    y, kept = torch.empty_like(x), torch.empty_like(x, dtype=torch.int16)
    if not _goes_in_pieces(x, x, scale, zero_point, _LARGE_SHORT):
        _short_piece(x, scale, zero_point, ends, rectified, y, kept)
        return y, kept
    size = _LARGE_SHORT * torch.get_num_threads()
    for part, of_y, of_kept in zip(*(torch.split(whole.view(-1), size) for whole in (x, y, kept)), strict=True):
        _short_piece(part, scale, zero_point, ends, rectified, of_y, of_kept)
    return y, kept


def _short_piece(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor | None,
    ends: tuple[float, float],
    rectified: bool,
    y: Tensor,
    kept: Tensor,
) -> None:
    """Write `x`, quantized, to `y`, and its residuals to `kept`."""
    steps = _steps(x, scale, zero_point, rectified)
    codes = steps.round()
    torch.clamp(codes, *ends, out=y)
    residuals.of_steps(steps, codes, y, out=kept)
    _dequantize(y, scale, zero_point)


def _gradients_short(
    grad: Tensor, kept: residuals.Kept, needs: tuple[bool, ...], ends: tuple[float, float]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """The gradients of input, scale and zero-point, from residuals."""
    of_input, of_scale, of_zero_point = _gradients_short_of(grad, kept, needs, ends)
    return of_input, None if of_scale is None else residuals.spoilt(of_scale, kept[0]), of_zero_point


def _gradients_short_of(
    grad: Tensor, kept: residuals.Kept, needs: tuple[bool, ...], ends: tuple[float, float]
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The same, but for NaN."""
    if not _goes_in_pieces(grad, *kept, _LARGE_SHORT):
        return residuals.gradients(grad, kept, needs, ends)
    of_input = torch.empty_like(grad)
    size = _LARGE_SHORT * torch.get_num_threads()
    pieces = zip(*(torch.split(whole.view(-1), size) for whole in (grad, kept[0], of_input)), strict=True)
    found = [residuals.gradients(above, (part, *kept[1:]), needs, ends, out) for above, part, out in pieces]
    return of_input, _total([of_scale for _, of_scale, _ in found]), _total([of_zero for _, _, of_zero in found])


def _gradients(
    grad: Tensor,
    saved: tuple[Tensor, Tensor, Tensor | None],
    needs: tuple[bool, ...],
    limits: tuple[float, float, bool],
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The gradients of input, scale and zero-point, from what was quantized."""
    x, scale, zero_point = saved
    kernels = _kernels(x.device.type)
    if kernels is not None:
        by_kernel: tuple[Tensor, Tensor | None, Tensor | None] = kernels.gradients(grad, saved, needs, limits)
        return by_kernel
    if not _goes_in_pieces(grad, *saved):
        return _gradients_of(grad, saved, needs, limits)
    of_input = grad if limits[2] else torch.empty_like(x)
    size = _PIECE * torch.get_num_threads()
    pieces = zip(*(torch.split(whole.view(-1), size) for whole in (grad, x, of_input)), strict=True)
    found = [_gradients_of(above, (part, scale, zero_point), needs, limits, out) for above, part, out in pieces]
    return of_input, _total([of_scale for _, of_scale, _ in found]), _total([of_zero for _, _, of_zero in found])


def _total(parts: Sequence[Tensor | None]) -> Tensor | None:
    """The sum of what is there."""
    given = [part for part in parts if part is not None]
    return torch.stack(given).sum(dim=0) if given else None


def _goes_in_pieces(grad: Tensor, x: Tensor, scale: Tensor, zero_point: Tensor | None, large: int = _LARGE) -> bool:
    """Whether gradients are computed piece by piece: of large tensors that are one piece of memory, with one scale."""
    one = scale.dim() == 0 and (zero_point is None or zero_point.dim() == 0)
    return one and x.numel() >= large and x.is_cpu and x.is_contiguous() and grad.is_contiguous()


def _gradients_of(
    grad: Tensor,
    saved: tuple[Tensor, Tensor, Tensor | None],
    needs: tuple[bool, ...],
    limits: tuple[float, float, bool],
    out: Tensor | None = None,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The gradients of input, scale and zero-point, from what was quantized; that of the input is written to `out`."""
    (x, scale, zero_point), (low, high, straight) = saved, limits
    steps = x / scale
    codes = steps.round() if zero_point is None else (steps + zero_point).round_()
    residual = codes.clamp(low, high)
    inside = None if straight else _equal(codes, residual, out=codes)
    of_scale = None
    if needs[1]:
        residual = residual if zero_point is None else residual.sub_(zero_point)
        residual = residual.sub_(steps) if inside is None else residual.addcmul_(inside, steps, value=-1)
        # In the layout that the product of both has, which is the order of summation.
        product = residual.mul_(grad) if grad.stride() == residual.stride() else grad * residual
        of_scale = product.sum_to_size(scale.shape)
    of_input = grad if inside is None else _pass_where(inside, grad, out)
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
    """`fake_quantize` with the gradients of `_gradients`, bit for bit, of operations that compilers fuse."""
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


def _fits(part: Tensor, x: Tensor) -> bool:
    """Whether a scale or zero-point leaves the shape and the dtype of `x` as they are."""
    if part.dim() == 0:
        return part.dtype == x.dtype or x.dim() > 0
    sizes = zip(reversed(part.shape), reversed(x.shape), strict=False)
    return part.dtype == x.dtype and part.dim() <= x.dim() and all(size in (1, whole) for size, whole in sizes)
