"""Integer fake quantization by a tensor's own largest value: range, codes and gradients in as few passes as there are.

It is what weights do: no value exceeds the range, so that none is clipped, and the range's gradient reaches the few
values that are as large. `fake_quantize` and `abs_max`, one after the other, give the same values, bit for bit, and the
same gradients, to the rounding of one sum.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from brevq.function.largest import largest, signs_of_largest
from brevq.function.ops_ste import round_ste, scalar_clamp_min_ste
from brevq.function.pieces import PIECE
from brevq.function.recording import differentiate, is_differentiated, recorded

#: Rows are divided into stretches, of which the one with the largest value is looked for: the length of a stretch, for
#: rows of `_LONG` values or more and for shorter ones, or what of it divides the row.
_LONG, _OF_LONG, _OF_SHORT = 2**15, 1024, 128
#: Up to how many values looking at each takes less time than to look for the stretches.
_FEW = 2**15
#: Shorter stretches are not worth it: the row is one.
_SHORTEST = 32


def is_fused(rows: Tensor) -> bool:
    """Whether `fake_quantize_by_max` takes `rows`.

    Args:
        rows: a tensor.

    Examples:
        >>> is_fused(torch.ones(2)), is_fused(torch.ones(2).half())
        (True, False)
    """
    return rows.is_cpu and rows.dtype in (torch.float32, torch.float64) and not recorded()


def fake_quantize_by_max(rows: Tensor, floor: float, threshold: float) -> tuple[Tensor, Tensor]:
    """Rows on integer grids whose last code is their largest absolute value, and the scales of these grids.

    ``scale = max(max |row|, floor) / threshold`` and ``y = round(row / scale) * scale``. The gradient of a row is the
    identity's, and that of its range, ``(sum of grad * (codes - row / scale) + grad of scale) / threshold``, shared by
    all values that are as large; none where all are zero. Of a row whose largest value is infinite or NaN all are NaN.

    Args:
        rows: float32 or float64 on a CPU, contiguous, shape `(..., values)`, one value at least.
        floor: the least range.
        threshold: the last code, at most 2**15.

    Returns:
        The rows on their grids, in their shape, and scales of shape `(...)`.

    Examples:
        >>> rows = torch.tensor([[0.26, -1.0, 0.0]], requires_grad=True)
        >>> y, scale = fake_quantize_by_max(rows, 1e-10, 4.0)
        >>> y.sum().backward()
        >>> y.tolist(), scale.tolist(), [round(number, 2) for number in rows.grad[0].tolist()]
        ([[0.25, -1.0, 0.0]], [0.25], [1.0, 1.01, 1.0])
    """
    if rows.requires_grad and torch.is_grad_enabled():
        y, scale = _ByMax.apply(rows, floor, threshold)  # type: ignore[no-untyped-call]  # torch's
        return y, scale
    return _quantized(rows, largest(rows), floor, threshold)


def on_grids(rows: Tensor, scale: Tensor) -> Tensor:
    """Rows on the grids of their scales, the values of `fake_quantize_by_max`; for where no gradient is recorded.

    Args:
        rows: shape `(..., values)`.
        scale: shape `(...)`.

    Examples:
        >>> rows = torch.tensor([[0.26, -1.0, 0.0]])
        >>> on_grids(rows, fake_quantize_by_max(rows, 1e-10, 4.0)[1]).tolist()
        [[0.25, -1.0, 0.0]]
    """
    steps = scale.unsqueeze(-1) if scale.dim() > 0 else scale
    return (rows / steps).round_().mul_(steps)


class _ByMax(torch.autograd.Function):
    """`fake_quantize_by_max`, and its gradients."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, floor: float, threshold: float) -> tuple[Tensor, Tensor]:
        """The rows on their grids, and the scales."""
        stretches = largest(_in_stretches(rows))
        maxima = stretches.squeeze(-1) if stretches.shape[-1] == 1 else stretches.amax(dim=-1)
        y, scale = _quantized(rows, maxima, floor, threshold)
        ctx.floor, ctx.threshold = floor, threshold
        ctx.save_for_backward(rows, stretches, maxima, scale)
        ctx.set_materialize_grads(False)
        return y, scale

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, grad_scale: Tensor | None) -> tuple[Tensor | None, None, None]:
        """The gradient of the rows, from those of values and scales, where there are any."""
        rows, stretches, maxima, scale = ctx.saved_tensors
        given = [above for above in (grad, grad_scale) if above is not None]
        if not given:
            return None, None, None
        if any(is_differentiated(above) for above in given):
            return _again(rows, ctx.floor, ctx.threshold, grad, grad_scale), None, None
        of_rows = torch.zeros_like(rows) if grad is None else torch.empty_like(rows)
        shares = [] if grad is None else [_passed(rows, scale, grad, of_rows)]
        shares += [] if grad_scale is None else [grad_scale]
        of_range = functools.reduce(torch.add, shares) / ctx.threshold
        if maxima.numel() == 1:
            _give_to_largest_of_one(of_rows.view(-1), rows.view(-1), stretches.view(-1), maxima.item(), of_range)
        elif stretches.shape[-1] == 1 or rows.numel() <= _FEW:
            _give_to_largest_of_all(of_rows, rows, maxima, of_range)
        else:
            _give_to_largest(of_rows, rows, stretches, maxima, of_range)
        return of_rows, None, None


def _quantized(rows: Tensor, maxima: Tensor, floor: float, threshold: float) -> tuple[Tensor, Tensor]:
    """The rows on their grids, and the scales."""
    scale = maxima.clamp_min(floor).div_(threshold)
    return on_grids(rows, scale), scale


def _again(
    rows: Tensor, floor: float, threshold: float, grad: Tensor | None, grad_scale: Tensor | None
) -> Tensor | None:
    """The gradient of `rows` with what it depends on, an operation at a time."""
    shares = [above is not None for above in (grad, grad_scale)]

    def composed(rows: Tensor) -> tuple[Tensor, ...]:
        scale = scalar_clamp_min_ste(rows.abs().amax(dim=-1), floor) / threshold
        both = round_ste(rows / scale.unsqueeze(-1)) * scale.unsqueeze(-1), scale
        return tuple(output for output, counts in zip(both, shares, strict=True) if counts)

    return differentiate(composed, [rows], [above for above in (grad, grad_scale) if above is not None])[0]


def _in_stretches(rows: Tensor) -> Tensor:
    """The rows divided into stretches, shape `(..., stretches, values)`; one where they can not be divided well."""
    values = rows.shape[-1]
    size = math.gcd(values, _OF_LONG if values >= _LONG else _OF_SHORT)
    return rows.view(*rows.shape[:-1], -1, size if size >= _SHORTEST else values)


def _passed(rows: Tensor, scale: Tensor, grad: Tensor, out: Tensor) -> Tensor:
    """``sum of grad * (codes - row / scale)`` of each row, shape `(...)`; `grad` is written to `out` on the way."""
    values, size = rows.shape[-1], PIECE * torch.get_num_threads()
    if rows.numel() <= size:
        return _passed_piece(scale.unsqueeze(-1), rows, grad, out)
    flat = (rows.reshape(-1, values), grad.reshape(-1, values), out.view(-1, values))
    scales = scale.reshape(-1, 1)
    if len(scales) > 1:
        sums = [_passed_piece(*parts) for parts in _whole_rows((scales, *flat), values)]
        return torch.cat(sums).view(scale.shape)
    pieces = [torch.split(tensor, size, dim=-1) for tensor in flat]
    return torch.stack([_passed_piece(scales, *parts) for parts in zip(*pieces, strict=True)]).sum(0).view(scale.shape)


def _whole_rows(tensors: tuple[Tensor, ...], values: int) -> Iterator[tuple[Tensor, ...]]:
    """Pieces of tensors of as many rows, one of each at a time; `values` are in a row."""
    number = max(1, PIECE * torch.get_num_threads() // values)
    if len(tensors[0]) <= number:
        return iter([tensors])
    return zip(*(torch.split(tensor, number) for tensor in tensors), strict=True)


def _passed_piece(scale: Tensor, rows: Tensor, grad: Tensor, out: Tensor) -> Tensor:
    """The same of some rows, or of a part of one; `out` is a buffer first, as fresh memory costs more."""
    steps = torch.div(rows, scale, out=out)
    # Not a scalar product: of rows in one piece the sum has the order that operations one by one have.
    sums = steps.round().sub_(steps).mul_(grad).sum(dim=-1)
    out.copy_(grad)
    return sums


def _give_to_largest_of_one(of_row: Tensor, row: Tensor, stretches: Tensor, maximum: float, of_range: Tensor) -> None:
    """Add the gradient of the range of one row to those of the values that are as large, in equal shares."""
    if not math.isfinite(maximum):
        of_row.fill_(math.nan)
        return
    size = len(row) // len(stretches)
    found = torch.nonzero(stretches == maximum).view(-1).tolist()
    first, size = (size * found[0], size) if len(found) == 1 else (0, len(row))
    part, of_part = row.narrow(0, first, size), of_row.narrow(0, first, size)
    places = torch.nonzero(part.abs() == maximum).view(-1)
    # A zero has no sign, and so no share.
    shares = part.index_select(0, places).sign_().mul_(of_range / len(places))
    of_part.index_copy_(0, places, shares.add_(of_part.index_select(0, places)))


def _give_to_largest_of_all(of_rows: Tensor, rows: Tensor, maxima: Tensor, of_range: Tensor) -> None:
    """Add the gradients of ranges to those of the values that are as large, in equal shares; all are looked at."""
    values = rows.shape[-1]
    flat = (of_rows.view(-1, values), rows.view(-1, values), maxima.view(-1, 1), of_range.reshape(-1, 1))
    for of_some, some, maximum, given in _whole_rows(flat, values):
        signs = signs_of_largest(some, maximum)
        of_some.addcmul_(signs, given / signs.abs().sum(dim=-1, keepdim=True).clamp_min_(1))
    _spoil(of_rows, maxima)


def _give_to_largest(of_rows: Tensor, rows: Tensor, stretches: Tensor, maxima: Tensor, of_range: Tensor) -> None:
    """Add the gradients of ranges to those of the values that are as large, in equal shares.

    Only stretches are looked at that hold such a value: ``stretches`` are their own maxima.
    """
    size = rows.shape[-1] // stretches.shape[-1]
    row, column = torch.nonzero((stretches == maxima.unsqueeze(-1)).view(-1, stretches.shape[-1]), as_tuple=True)
    place = row * stretches.shape[-1] + column
    there = rows.view(-1, size).index_select(0, place)
    equal = (there.abs() == maxima.view(-1)[row].unsqueeze(-1)).to(rows.dtype)
    count = torch.zeros_like(maxima).view(-1).index_add_(0, row, equal.sum(dim=-1)).clamp_min_(1)
    share = (of_range.reshape(-1) / count)[row].unsqueeze(-1)
    of_rows.view(-1, size).index_add_(0, place, equal.mul_(there.sign()).mul_(share))
    _spoil(of_rows, maxima)


def _spoil(of_rows: Tensor, maxima: Tensor) -> None:
    """Make NaN of the gradients of rows whose largest value is infinite or NaN."""
    if not math.isfinite(maxima.amax()):
        of_rows[~maxima.isfinite()] = math.nan
