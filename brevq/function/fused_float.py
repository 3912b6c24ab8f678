"""Quantization to floating-point numbers in few passes over memory, with the gradients that belong to it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from brevq.function.fused import fits
from brevq.function.masks import equal, pass_where, through_mask
from brevq.function.ops_ste import round_ste, scalar_clamp_ste, straight_through
from brevq.function.recording import differentiate, is_differentiated

# Of each dtype: integers as wide, where among their bits the exponent is, and the largest power of two.
_EXPONENT = {
    torch.float32: (torch.int32, 0x7F800000, 2.0**127),
    torch.float64: (torch.int64, 0x7FF0000000000000, 2.0**1023),
}

#: From how many values on a CPU's caches hold no buffer, so that the tensor goes piece by piece; and how many values a
#: piece has, times the number of threads.
_LARGE, _PIECE = 2**18, 2**17


@dataclasses.dataclass(frozen=True)
class Numbers:
    """Numbers that have `mantissa_bits` after the leading one, from a smallest exponent on, up to an end.

    Below `smallest_normal` they are as far apart as they are from there to its double. Beyond the ends, what rounds
    there becomes the end, or infinity, or NaN.

    Args:
        low: the lowest number.
        high: the highest number.
        mantissa_bits: bits after the leading one.
        smallest_normal: the power of two where exponents begin. Default: infinity, there are none, and neighbours are
            one apart, divided by two to the power of `mantissa_bits`.
        overflow: what is beyond the ends: infinity, NaN, or None for the end itself. Default: None.
        negative_zero: whether there is a minus zero. Default: True.

    Examples:
        >>> Numbers(-6.0, 6.0, 1, 1.0)  # FP4 E2M1
        Numbers(low=-6.0, high=6.0, mantissa_bits=1, smallest_normal=1.0, overflow=None, negative_zero=True)
    """

    low: float
    high: float
    mantissa_bits: int
    smallest_normal: float = math.inf
    overflow: float | None = None
    negative_zero: bool = True

    @property
    def uniform(self) -> bool:
        """Whether neighbours are equally far apart everywhere."""
        return self.smallest_normal == math.inf


def fake_quantize_float(x: Tensor, scale: Tensor, numbers: Numbers, straight: bool = False) -> Tensor:
    """`x` on scaled floating-point numbers: ``cast(x / scale) * scale``; `cast` rounds to the nearest, halves to even.

    Where what is beyond the ends becomes the end, so does the result: an infinite one becomes the largest of its dtype.

    The gradient of `x` is the identity's where the number was not clamped and zero where it was. That of the scale is
    the sum of ``number - x / scale`` where it was not clamped and of ``number`` where it was.

    What is kept for the gradient: `x`, where the scale receives one; else a byte for each value, or nothing where
    `straight`.

    Args:
        x: floating-point tensor of any shape.
        scale: the value of the number 1, positive; broadcasts to `x`.
        numbers: the numbers there are.
        straight: whether all of `x` is known to be within the ends, so that nothing is clamped. Default: no.

    Examples:
        >>> x = torch.tensor([0.3, 1.4, -9.0], requires_grad=True)
        >>> y = fake_quantize_float(x, torch.tensor(0.5), Numbers(-6.0, 6.0, 1, 1.0))
        >>> y.sum().backward()
        >>> y.tolist(), x.grad.tolist()
        ([0.25, 1.5, -3.0], [1.0, 1.0, 0.0])
    """
    plain = x.dtype in _EXPONENT and fits(scale, x)
    if not plain or torch._C._are_functorch_transforms_active():  # noqa: SLF001  # no public name
        return _composed(x, scale, numbers, straight)
    if torch.compiler.is_compiling():
        return _compilable(x, scale, numbers, straight)
    if not ((x.requires_grad or scale.requires_grad) and torch.is_grad_enabled()):
        return _quantized(x, scale, numbers)[0]
    y: Tensor = _FakeQuantizeFloat.apply(x, scale, numbers, straight)  # type: ignore[no-untyped-call]  # torch's
    return y


class _FakeQuantizeFloat(torch.autograd.Function):
    """`fake_quantize_float`, and its gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, numbers: Numbers, straight: bool) -> Tensor:
        """`x` on the numbers; what is kept depends on who receives a gradient."""
        ctx.numbers, ctx.straight = numbers, straight
        ctx.of_input_alone = not ctx.needs_input_grad[1]
        y, inside = _quantized(x, scale, numbers, masked=ctx.of_input_alone and not straight)
        ctx.save_for_backward(*((x, scale) if not ctx.of_input_alone else () if inside is None else (inside,)))
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of input and scale."""
        record = is_differentiated(grad)
        if ctx.of_input_alone:
            return through_mask(grad, ctx.saved_tensors, record), None, None, None
        x, scale = ctx.saved_tensors
        if record:
            if not ctx.needs_input_grad[0]:
                found = differentiate(lambda scale: _composed(x, scale, ctx.numbers, ctx.straight), [scale], grad)
                return None, *found, None, None
            both = differentiate(lambda x, scale: _composed(x, scale, ctx.numbers, ctx.straight), [x, scale], grad)
            return *both, None, None
        return (*_gradients(grad, x, scale, ctx.numbers, ctx.straight), None, None)


def _quantized(x: Tensor, scale: Tensor, numbers: Numbers, masked: bool = False) -> tuple[Tensor, Tensor | None]:
    """`x` on the numbers; and, where asked for, 1 for each that was not clamped and 0 for others, a byte each."""
    if not _goes_in_pieces(x, scale):
        return _quantized_to(None, None, x, scale, numbers, masked)
    y, inside = torch.empty_like(x), torch.empty_like(x, dtype=torch.int8) if masked else None
    for part_of_scale, part, out, mask in _pieces(scale, x, y, y if inside is None else inside):
        _quantized_to(out, mask, part, part_of_scale, numbers, masked)
    return y, inside


def _quantized_to(
    out: Tensor | None, mask: Tensor | None, x: Tensor, scale: Tensor, numbers: Numbers, masked: bool
) -> tuple[Tensor, Tensor | None]:
    """What `_quantized` returns, written to `out` and `mask` where they are given."""
    if not masked:
        rounded = _round_(torch.div(x, scale, out=out), numbers)
        return _rescale_(_settled(rounded, numbers, out=rounded), scale, numbers), None
    settled, inside = _settled_and_inside(_round_(x / scale, numbers), numbers, out)
    inside = inside.to(torch.int8) if mask is None else mask.copy_(inside)
    return _rescale_(settled, scale, numbers), inside


def _round_(codes: Tensor, numbers: Numbers) -> Tensor:
    """The numbers nearest to some, were there no ends; in place."""
    return _rounded(codes, numbers, out=codes)


def _rounded(codes: Tensor, numbers: Numbers, out: Tensor | None = None) -> Tensor:
    """The numbers nearest to some, were there no ends."""
    if numbers.uniform:
        per_one = 2.0**numbers.mantissa_bits
        return torch.mul(codes, per_one, out=out).round_().mul_(1 / per_one)
    step = _step(codes, numbers)
    return torch.div(codes, step, out=out).round_().mul_(step)


def _step(codes: Tensor, numbers: Numbers) -> Tensor:
    """The distance between neighbours around each of some numbers, in a buffer of its own."""
    power, largest = _power(codes)
    return power.clamp_(numbers.smallest_normal, largest).mul_(2.0**-numbers.mantissa_bits)


def _power(codes: Tensor) -> tuple[Tensor, float]:
    """The largest powers of two that are no larger than some numbers, zero of subnormals; and the largest of all."""
    integers, mask, largest = _EXPONENT[codes.dtype]
    return torch.bitwise_and(codes.view(integers), mask).view(codes.dtype), largest


def _settled(rounded: Tensor, numbers: Numbers, out: Tensor | None = None) -> Tensor:
    """What becomes of numbers that may be beyond the ends, or minus zero."""
    if numbers.overflow is None:
        settled = torch.clamp(rounded, numbers.low, numbers.high, out=out)
    else:
        above = rounded if numbers.low < 0 else rounded.clamp_min(numbers.low)
        beyond = torch.sign(above).mul_(numbers.overflow)
        settled = torch.where(above.abs() > numbers.high, beyond, above, out=out)
    return settled if numbers.negative_zero else settled.add_(0.0)


def _settled_and_inside(rounded: Tensor, numbers: Numbers, out: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """What `_settled` returns; and, in the place of `rounded`, 1 for each that is not beyond the ends, else 0."""
    settled = _settled(rounded, numbers, out)
    clamped = settled if numbers.overflow is None else torch.clamp(rounded, numbers.low, numbers.high)
    return settled, equal(rounded, clamped, out=rounded)


def _rescale_(settled: Tensor, scale: Tensor, numbers: Numbers) -> Tensor:
    """Numbers times the scale, in place; finite where the numbers are."""
    y = settled.mul_(scale)
    end = torch.finfo(y.dtype).max
    return y.clamp_(-end, end) if numbers.overflow is None else y


def _gradients(grad: Tensor, x: Tensor, scale: Tensor, numbers: Numbers, straight: bool) -> tuple[Tensor, Tensor]:
    """The gradients of input and scale, from what was quantized."""
    if not (_goes_in_pieces(x, scale) and grad.is_contiguous()):
        return _gradients_of(None, grad, x, scale, numbers, straight)
    of_input = grad if straight else torch.empty_like(x)
    of_scale = [
        _gradients_of(out, above, part, part_of_scale, numbers, straight)[1]
        for part_of_scale, part, above, out in _pieces(scale, x, grad, of_input)
    ]
    return of_input, torch.cat(of_scale) if _has_rows(scale, x) else torch.stack(of_scale).sum(dim=0)


def _gradients_of(
    out: Tensor | None, grad: Tensor, x: Tensor, scale: Tensor, numbers: Numbers, straight: bool
) -> tuple[Tensor, Tensor]:
    """What `_gradients` returns, with the gradient of the input written to `out`."""
    codes = x / scale
    rounded = _rounded(codes, numbers)
    if straight:
        residual, of_input = _settled(rounded, numbers, out=rounded).sub_(codes), grad
    else:
        residual, inside = _settled_and_inside(rounded, numbers)
        residual.addcmul_(inside, codes, value=-1)
        of_input = pass_where(inside, grad, out)
    # In the layout that the product of both has, which is the order of summation.
    product = residual.mul_(grad) if grad.stride() == residual.stride() else grad * residual
    return of_input, product.sum_to_size(scale.shape)


def _goes_in_pieces(x: Tensor, scale: Tensor) -> bool:
    """Whether a tensor goes piece by piece: a large one that is one piece of memory, and has several rows."""
    return x.numel() >= _LARGE and x.is_cpu and x.is_contiguous() and (scale.dim() == 0 or x.shape[0] > 1)


def _has_rows(scale: Tensor, x: Tensor) -> bool:
    """Whether each row of a tensor has a scale of its own."""
    return scale.dim() == x.dim() > 0 and scale.shape[0] > 1


def _pieces(scale: Tensor, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Pieces of the scale and of tensors, rows that belong together, which share memory with the whole."""
    if scale.dim() == 0:
        tensors = tuple(tensor.view(-1) for tensor in tensors)
    rows = max(1, _PIECE * torch.get_num_threads() * len(tensors[0]) // tensors[0].numel())
    split = [torch.split(tensor, rows) for tensor in tensors]
    scales = torch.split(scale, rows) if _has_rows(scale, tensors[0]) else [scale] * len(split[0])
    return zip(scales, *split, strict=True)


def _composed(x: Tensor, scale: Tensor, numbers: Numbers, straight: bool) -> Tensor:
    """`fake_quantize_float`, an operation at a time."""
    codes = x / scale
    power, largest = _power(codes.detach())
    step = (1.0 if numbers.uniform else power.clamp(numbers.smallest_normal, largest)) * 2.0**-numbers.mantissa_bits
    rounded = round_ste(codes / step) * step
    within = rounded if straight else torch.clamp(rounded, numbers.low, numbers.high)
    y = straight_through(within, _settled(rounded.detach(), numbers)) * scale
    end = torch.finfo(y.dtype).max
    return scalar_clamp_ste(y, -end, end) if numbers.overflow is None else y


def _compilable(x: Tensor, scale: Tensor, numbers: Numbers, straight: bool) -> Tensor:
    """`fake_quantize_float` with the gradients of `_gradients`, bit for bit, of operations that compilers fuse."""
    codes = x.detach() / scale.detach()
    rounded = _rounded(codes, numbers)
    settled = _settled(rounded, numbers)
    y = _rescale_(settled.clone(), scale.detach(), numbers)
    if not torch.is_grad_enabled():
        return y
    # Only the gradients of what follows are used: each input times, detached, what its gradient is.
    inside = rounded == torch.clamp(rounded, numbers.low, numbers.high)
    passed = codes if straight else inside.to(codes.dtype) * codes
    slope = (x if straight else torch.where(inside, x, 0.0)) + (settled - passed) * scale
    return straight_through(slope, y)
