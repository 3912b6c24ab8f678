"""`fake_quantize` in one pass over memory on GPUs, forward and backward: kernels for Triton, and what launches them.

The values are those of `brevq.function.fused`, bit for bit: division is rounded to nearest, halves go to even, and
nothing is contracted. Gradients of a scale or zero-point are summed in another order, the same one each time.

The module can be imported anywhere, and computes where Triton can be imported.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

try:
    import triton  # type: ignore[import-not-found,unused-ignore]
    from triton import language as tl  # type: ignore[import-not-found,unused-ignore]
except ImportError:  # as on computers without a GPU
    triton = None

_jit: Callable[[Any], Any] = (lambda function: function) if triton is None else triton.jit

#: Values that a block of threads takes at once; and how many times it does so where it sums them up.
_BLOCK, _REPEATS = 1024, 8

#: Values next to each other that threads read together.
_NEIGHBOURS = 32


def quantized(
    x: Tensor, scale: Tensor, zero_point: Tensor | None, low: float, high: float, masked: bool = False
) -> tuple[Tensor, Tensor | None]:
    """`x` on an integer grid: ``(clamp(round(x / scale + zero_point), low, high) - zero_point) * scale``.

    Args:
        x: tensor of any shape, float32 or float64, on a GPU.
        scale: the step; broadcasts to `x`, and has its dtype.
        zero_point: the code of zero; likewise. None means 0, which is not added.
        low: the lowest code.
        high: the highest code.
        masked: whether it is asked for which codes were not clamped. Default: no.

    Returns:
        `y` in the shape and layout of `x`; and None, or where asked for, as int8, 1 for each code that was not
        clamped, and 0 for others.
    """
    y = torch.empty_like(x)
    inside = torch.empty_like(x, dtype=torch.int8) if masked else None
    layout = _layout(y, scale, zero_point)
    if not x.numel():
        return y, inside
    with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]  # torch's
        _quantize_kernel[(_ceil(x.numel(), _BLOCK),)](
            *(layout.ordered(x), layout.scale, layout.zero_point, layout.ordered(y)),
            layout.ordered(y if inside is None else inside),
            *(low, high, x.numel(), layout.channels, layout.inner),
            SHIFTED=zero_point is not None,
            MASKED=masked,
            BLOCK=_BLOCK,
        )
    return y, inside


def gradients(
    grad: Tensor,
    saved: tuple[Tensor, Tensor, Tensor | None],
    needs: tuple[bool, ...],
    limits: tuple[float, float, bool],
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The gradients of input, scale and zero-point, from what was quantized, which is computed again.

    Args:
        grad: the gradient that comes in, in the shape of the input.
        saved: input, scale and zero-point.
        needs: whether input, scale and zero-point need gradients.
        limits: the lowest code, the highest code, and whether clamping passes gradients.

    Returns:
        A gradient for each; None for a scale or zero-point that needs none.
    """
    (x, scale, zero_point), (low, high, straight) = saved, limits
    of_input = grad if straight else torch.empty_like(x)
    layout = _layout(x if straight else of_input, scale, zero_point)
    tile = _tile(layout)
    sums = torch.zeros(2, layout.channels, tile.splits, dtype=x.dtype, device=x.device)
    if x.numel():
        with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]  # torch's
            _gradients_kernel[(_ceil(layout.channels, tile.rows), tile.splits)](
                *(layout.ordered(grad), layout.ordered(x), layout.scale, layout.zero_point),
                *(layout.ordered(x if straight else of_input), sums),
                *(low, high, layout.channels, layout.inner, layout.values),
                SHIFTED=zero_point is not None,
                STRAIGHT=straight,
                ROWS=tile.rows,
                COLUMNS=tile.columns,
                REPEATS=_REPEATS,
            )
    of_scale, of_zero_point = sums.sum(dim=-1)
    shifted = zero_point is not None and needs[2]
    return (
        of_input,
        layout.reduced(of_scale, scale) if needs[1] else None,
        layout.reduced(of_zero_point, zero_point) if shifted and zero_point is not None else None,
    )


# --- how tensors are laid out ----------------------------------------------------------------------------------------


class _Layout(NamedTuple):
    """A tensor as ``(outer, channels, inner)``, in the order of its memory, where each channel has a scale."""

    order: tuple[int, ...]
    shape: tuple[int, ...]
    channels: int
    inner: int
    values: int  # of a channel
    scale: Tensor  # (channels)
    zero_point: Tensor

    def ordered(self, tensor: Tensor) -> Tensor:
        """A tensor with its axes in the order of memory; the same memory where that is possible."""
        return tensor.permute(self.order).contiguous()

    def reduced(self, of_channels: Tensor, part: Tensor) -> Tensor:
        """What belongs to the channels, in the shape of the scale or zero-point, summed where these are fewer."""
        back = [self.order.index(axis) for axis in range(len(self.order))]
        return of_channels.reshape(self.shape).permute(back).sum_to_size(part.shape)


def _layout(dense: Tensor, scale: Tensor, zero_point: Tensor | None) -> _Layout:
    """How a tensor without holes and its scales are laid out."""
    axes = dense.dim()
    order = tuple(sorted(range(axes), key=lambda axis: (-dense.stride()[axis], axis)))
    sizes = [dense.shape[axis] for axis in order]
    parts = [scale if part is None else part for part in (scale, zero_point)]
    parts = [part.reshape([1] * (axes - part.dim()) + list(part.shape)).permute(order) for part in parts]
    own = [axis for axis in range(axes) if any(part.shape[axis] > 1 for part in parts)]
    first, last = (own[0], own[-1] + 1) if own else (axes, axes)
    shape = (*[1] * first, *sizes[first:last], *[1] * (axes - last))
    flat = [part.to(dense.device, dense.dtype).expand(shape).reshape(-1).contiguous() for part in parts]
    channels, inner = math.prod(sizes[first:last]), math.prod(sizes[last:])
    return _Layout(order, shape, channels, inner, math.prod(sizes[:first]) * inner, *flat)


class _Tile(NamedTuple):
    """How many channels, and how many values of each, a block of threads takes; and in how many parts they are."""

    rows: int
    columns: int
    splits: int


def _tile(layout: _Layout) -> _Tile:
    """What a block of threads takes so that it has enough to do, of few channels or of small ones."""
    columns = min(_BLOCK, _power_of_two(layout.values))
    side_by_side = _NEIGHBOURS // min(_NEIGHBOURS, layout.inner)  # channels whose values are next to each other
    rows = min(max(_BLOCK // columns, side_by_side), _power_of_two(layout.channels))
    columns = min(columns, _BLOCK // rows)
    return _Tile(rows, columns, max(1, _ceil(layout.values, columns * _REPEATS)))


def _ceil(number: int, by: int) -> int:
    """The quotient of two integers, rounded up."""
    return -(-number // by)


def _power_of_two(number: int) -> int:
    """The smallest power of two that is no smaller."""
    return 1 << max(0, number - 1).bit_length()


# --- kernels: Triton's language, which looks like Python -------------------------------------------------------------


@_jit
def _codes(x: tl.tensor, scale: tl.tensor, zero_point: tl.tensor, SHIFTED: tl.constexpr) -> tl.tensor:  # noqa: N803  # Triton's custom
    """``x / scale``, and ``round(x / scale + zero_point)``."""
    if x.dtype == tl.float64:
        steps = x / scale
        near = 4503599627370496.0  # 2 ** 52: there is no fraction from here on
    else:
        steps = tl.div_rn(x, scale)
        near = 8388608.0  # 2 ** 23
    shifted = steps + zero_point if SHIFTED else steps
    size = tl.abs(shifted)
    # The sum with `near` has no fraction: it was rounded to nearest, halves to even.
    whole = tl.where(size < near, (size + near) - near, size)
    whole = tl.where(shifted < 0, -whole, whole)
    return steps, tl.where(shifted == 0, shifted, whole)  # minus zero stays


@_jit
def _clamped(codes: tl.tensor, low: tl.tensor, high: tl.tensor) -> tl.tensor:
    """Codes within the limits; NaN stays NaN."""
    return tl.where(codes < low, low, tl.where(codes > high, high, codes)).to(codes.dtype)


@_jit
def _sum(one: tl.tensor, other: tl.tensor) -> tl.tensor:
    """What numbers are summed up by."""
    return one + other


@_jit
def _quantize_kernel(
    x: tl.tensor,
    scale: tl.tensor,
    zero_point: tl.tensor,
    y: tl.tensor,
    inside: tl.tensor,
    low: tl.tensor,
    high: tl.tensor,
    number: tl.tensor,
    channels: tl.tensor,
    inner: tl.tensor,
    SHIFTED: tl.constexpr,  # noqa: N803  # Triton's custom
    MASKED: tl.constexpr,  # noqa: N803
    BLOCK: tl.constexpr,  # noqa: N803
) -> None:
    """`BLOCK` values in a row, each with the scale of its channel."""
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    there = place < number
    channel = (place // inner) % channels
    step = tl.load(scale + channel, mask=there, other=1.0)
    zero = tl.load(zero_point + channel, mask=there, other=0.0)
    _, codes = _codes(tl.load(x + place, mask=there, other=0.0), step, zero, SHIFTED)
    clamped = _clamped(codes, low, high)
    centred = clamped - zero if SHIFTED else clamped
    tl.store(y + place, centred * step, mask=there)
    if MASKED:
        tl.store(inside + place, (codes == clamped).to(tl.int8), mask=there)


@_jit
def _gradients_kernel(
    grad: tl.tensor,
    x: tl.tensor,
    scale: tl.tensor,
    zero_point: tl.tensor,
    of_input: tl.tensor,
    sums: tl.tensor,
    low: tl.tensor,
    high: tl.tensor,
    channels: tl.tensor,
    inner: tl.tensor,
    values: tl.tensor,
    SHIFTED: tl.constexpr,  # noqa: N803  # Triton's custom
    STRAIGHT: tl.constexpr,  # noqa: N803
    ROWS: tl.constexpr,  # noqa: N803
    COLUMNS: tl.constexpr,  # noqa: N803
    REPEATS: tl.constexpr,  # noqa: N803
) -> None:
    """`ROWS` channels, and of each `REPEATS` times `COLUMNS` values, summed up to one number for each channel."""
    part, splits = tl.program_id(1).to(tl.int64), tl.num_programs(1)
    channel = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    step = tl.load(scale + channel, mask=channel < channels, other=1.0)[:, None]
    zero = tl.load(zero_point + channel, mask=channel < channels, other=0.0)[:, None]
    of_scale = tl.full([ROWS, COLUMNS], 0.0, step.dtype)
    of_zero = tl.full([ROWS, COLUMNS], 0.0, step.dtype)
    for repeat in range(REPEATS):
        value = (part * REPEATS + repeat) * COLUMNS + tl.arange(0, COLUMNS)
        place = ((value // inner)[None, :] * channels + channel[:, None]) * inner + (value % inner)[None, :]
        there = (value < values)[None, :] & (channel < channels)[:, None]
        above = tl.load(grad + place, mask=there, other=0.0)
        steps, codes = _codes(tl.load(x + place, mask=there, other=0.0), step, zero, SHIFTED)
        clamped = _clamped(codes, low, high)
        residual = clamped - zero if SHIFTED else clamped
        if STRAIGHT:
            residual -= steps
        else:
            inside = codes == clamped
            passed = tl.where(inside, above, 0.0)
            tl.store(of_input + place, passed, mask=there)
            residual -= inside.to(steps.dtype) * steps
            of_zero += tl.where(there, above - passed, 0.0) * -step
        of_scale += tl.where(there, residual * above, 0.0)
    here = channel * splits + part
    tl.store(sums + here, tl.reduce(of_scale, 1, _sum), mask=channel < channels)
    tl.store(sums + channels * splits + here, tl.reduce(of_zero, 1, _sum), mask=channel < channels)
