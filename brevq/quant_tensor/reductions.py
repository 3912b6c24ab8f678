"""Sums and means of integers that share a scale: along axes, and over windows."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from brevq.quant_tensor import ranges
from brevq.quant_tensor.grids import (
    Arguments,
    Call,
    Keywords,
    has_zero,
    is_centred,
    is_integer,
    result,
    shared_along,
    shared_over,
    sizes,
)
from brevq.quant_tensor.tensor import QuantTensor, Rule, Zero, exact


@exact("sum")
def _sum(func: Call, args: Arguments, kwargs: Keywords) -> Any:
    """A sum along axes, of integers that share a scale."""
    return _reduced(func, args, kwargs, mean=False)


@exact("mean")
def _mean(func: Call, args: Arguments, kwargs: Keywords) -> Any:
    """A mean along axes, of integers that share a scale: their sum, with a finer scale."""
    return _reduced(func, args, kwargs, mean=True)


def _reduced(func: Call, args: Arguments, kwargs: Keywords, mean: bool) -> Any:
    x, *rest = args
    axes = rest[0] if rest else kwargs.get("dim", kwargs.get("axis"))
    every = range(x.value.dim()) if isinstance(x, QuantTensor) else ()
    axes = (axes,) if isinstance(axes, int) else (axes or every)
    if not is_integer(x) or not shared_over(x, axes) or kwargs.get("dtype") is not None or x.value.numel() == 0:
        return NotImplemented
    value = func(x.value, *rest, **kwargs)
    scale, zero_point = x.spread() if x.uniform else (_first_along(part, x, axes, value) for part in x.spread())
    return _window(func, x, value, scale, zero_point, x.value.numel() // value.numel(), mean)


def _first_along(part: Tensor, x: QuantTensor, axes: Any, value: Tensor) -> Tensor:
    """A scale or zero-point that is the same along some axes, without those where the values have lost them."""
    full = part.reshape(*(1,) * (x.value.dim() - part.dim()), *part.shape)
    return full if value.dim() == full.dim() else full.amax(tuple(axes))


@exact("cumsum")
def _cumulated(func: Call, args: Arguments, kwargs: Keywords) -> Any:
    """Running sums along an axis, as wide as the last of them."""
    x, *rest = args
    axis = rest[0] if rest else kwargs.get("dim", kwargs.get("axis"))
    if not is_centred(x) or not isinstance(axis, int) or not shared_over(x, (axis,)) or x.value.dim() == 0:
        return NotImplemented
    if kwargs.get("dtype") is not None:
        return NotImplemented
    scale = x.spread()[0]
    span = ranges.repeated(ranges.centred(x), x.value.shape[axis])
    signed = x.signed or x.zero is Zero.SHIFTED
    value = func(x.value, *rest, **kwargs)
    return result(func, (x,), value, scale, torch.zeros_like(scale), span, signed, Zero.AT_ZERO)


def _average_pool(dimensions: int) -> Rule:
    """The rule of average pooling over windows of one size."""
    names = ("input", "kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")

    def pool(func: Call, args: Arguments, kwargs: Keywords) -> Any:
        """Means of windows of one size, zeros beyond the border among them."""
        named = dict(zip(names, args, strict=False)) | dict(kwargs)
        x, divisor = named["input"], named.get("divisor_override")
        padded = any(sizes(named.get("padding", 0), dimensions))
        uneven = named.get("ceil_mode", False) or (padded and not named.get("count_include_pad", True))
        if not is_integer(x) or not shared_along(x, dimensions) or uneven or (padded and not has_zero(x)) or divisor:
            return NotImplemented
        value = func(x.value, *args[1:], **kwargs)
        scale, zero_point = x.spread()
        return _window(func, x, value, scale, zero_point, math.prod(sizes(named["kernel_size"], dimensions)), True)

    return pool


def _adaptive_average_pool(dimensions: int) -> Rule:
    """The rule of adaptive average pooling, where the output's size divides the input's."""

    def pool(func: Call, args: Arguments, kwargs: Keywords) -> Any:
        """Means of windows of one size."""
        x = args[0]
        if not is_integer(x) or not shared_along(x, dimensions):
            return NotImplemented
        value = func(x.value, *args[1:], **kwargs)
        pairs = list(zip(x.value.shape, value.shape, strict=True))[-dimensions:]
        if any(before == 0 or after == 0 or before % after for before, after in pairs):
            return NotImplemented
        scale, zero_point = x.spread()
        terms = math.prod([before // after for before, after in pairs])  # no generator: it breaks compiled graphs
        return _window(func, x, value, scale, zero_point, terms, True)

    return pool


def _window(
    func: Call, x: QuantTensor, value: Tensor, scale: Tensor, zero_point: Tensor, terms: int, mean: bool
) -> QuantTensor:
    """What came of adding up `terms` values."""
    span = ranges.repeated(ranges.codes(x), terms)
    return result(func, (x,), value, scale / terms if mean else scale, zero_point * terms, span, x.signed, x.zero)


for _n in (1, 2, 3):
    exact(f"avg_pool{_n}d")(_average_pool(_n))
    exact(f"adaptive_avg_pool{_n}d")(_adaptive_average_pool(_n))
