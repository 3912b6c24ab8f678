"""Functions that choose among values, or put several tensors of one grid together: the codes stay as they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from brevq.quant_tensor import ranges
from brevq.quant_tensor.grids import (
    Arguments,
    Call,
    Keywords,
    has_zero,
    one_grid,
    result,
    shared_along,
)
from brevq.quant_tensor.tensor import QuantTensor, Rule, Zero, exact, plain, plain_all


@exact("cat concat concatenate stack hstack vstack dstack column_stack row_stack")
def _cat(func: Call, args: Arguments, kwargs: Keywords) -> Any:
    """Tensors of one grid side by side."""
    tensors, *rest = args
    if not isinstance(tensors, Sequence) or not _alike(tensors):
        return NotImplemented
    value = func([x.value for x in tensors], *rest, **kwargs)
    if all(x.uniform for x in tensors):
        scale, zero_point = one_grid(func.__name__, tensors)
    else:
        scales, zero_points = ([x.spread()[i].expand(x.value.shape) for x in tensors] for i in (0, 1))
        scale, zero_point = (func(parts, *rest, **kwargs) for parts in (scales, zero_points))
    return _together(func, tensors, value, scale, zero_point)


@exact("maximum minimum fmax fmin")
def _larger(func: Call, args: Arguments, kwargs: Keywords) -> Any:
    """The larger or smaller of two numbers of one grid."""
    if kwargs or len(args) != 2 or not _alike(args):
        return NotImplemented
    x, y = args
    return _together(func, args, func(x.value, y.value), *one_grid(func.__name__, args))


@exact("where")
def _where(func: Call, args: Arguments, kwargs: Keywords) -> Any:
    """One or the other number of one grid, or zero where that has a code."""
    if kwargs or len(args) != 3:
        return NotImplemented
    # The function has the condition first, the method has it second.
    x, y = (args[0] if isinstance(args[0], QuantTensor) else args[1]), args[2]
    value = func(*plain_all(args))
    if _alike((x, y)):
        return _together(func, (x, y), value, *one_grid(func.__name__, (x, y)))
    tensor, other = (x, y) if isinstance(x, QuantTensor) else (y, x)
    if not isinstance(tensor, QuantTensor) or not has_zero(tensor) or not _is_zero(other):
        return NotImplemented
    return tensor.keep(value)


def _alike(tensors: Sequence[Any]) -> bool:
    """Whether all are quantized tensors of one kind: the same format, and zero at a code or not."""
    if not tensors or not all(isinstance(x, QuantTensor) for x in tensors):
        return False
    kinds = {(x.float_format, Zero.AT_ZERO if x.zero is Zero.SHIFTED else x.zero) for x in tensors}
    return len(kinds) == 1


def _together(
    func: Call, tensors: Sequence[QuantTensor], value: Tensor, scale: Tensor, zero_point: Tensor
) -> QuantTensor:
    """What holds values of several tensors of one kind."""
    first = tensors[0]
    if first.float_format is not None or first.zero is Zero.NO_CODE:
        return first.regrid(value, scale, zero_point, func.__name__)
    span, signed = ranges.codes(first), any(x.signed for x in tensors)
    for x in tensors[1:]:
        span = ranges.joined(span, ranges.codes(x))
    zero = Zero.SHIFTED if any(x.zero is Zero.SHIFTED for x in tensors) else first.zero
    return result(func, tensors, value, scale, zero_point, span, signed, zero)


@exact("relu")
def _relu(func: Call, args: Arguments, kwargs: Keywords) -> Any:
    """Negative values become zero, where zero has a code."""
    x, *rest = args
    return x.keep(func(x.value, *rest, **kwargs)) if has_zero(x) else NotImplemented


@exact("clamp clip clamp_min clamp_max")
def _clamp(func: Call, args: Arguments, kwargs: Keywords) -> Any:
    """What lies below or above zero becomes zero, where zero has a code; other bounds leave the grid."""
    x, *rest = args
    bounds = [bound for bound in (*rest, *kwargs.values()) if bound is not None]
    if not isinstance(x, QuantTensor) or not has_zero(x) or not bounds or not all(map(_is_zero, bounds)):
        return NotImplemented
    return x.keep(func(x.value, *rest, **kwargs))


@exact("masked_fill")
def _mask(func: Call, args: Arguments, kwargs: Keywords) -> Any:
    """Some values become zero."""
    named = dict(zip(("input", "mask", "value"), args, strict=False)) | dict(kwargs)
    x, mask, value = named["input"], plain(named["mask"]), named["value"]
    if not isinstance(x, QuantTensor) or not has_zero(x) or not _is_zero(value):
        return NotImplemented
    return x.keep(func(x.value, mask, value))


@exact("tril triu")
def _triangle(func: Call, args: Arguments, kwargs: Keywords) -> Any:
    """Some values become zero."""
    x, *rest = args
    return x.keep(func(x.value, *rest, **kwargs)) if has_zero(x) else NotImplemented


def _is_zero(number: Any) -> bool:
    """Whether this is the number zero; what a tensor holds is not looked at."""
    return isinstance(number, (int, float)) and number == 0


@exact("max min amax amin sort msort topk median nanmedian mode kthvalue cummax cummin")
def _choose(func: Call, args: Arguments, kwargs: Keywords) -> Any:
    """Some of the values, all of one scale; indices, where there are any, are what they are."""
    x, *rest = args
    others = (*rest, *kwargs.values())
    if not isinstance(x, QuantTensor) or not x.uniform or any(isinstance(y, (Tensor, QuantTensor)) for y in others):
        return NotImplemented
    return _first(x, func(x.value, *rest, **kwargs))


def _first(x: QuantTensor, chosen: Any) -> Any:
    scale, zero_point = x.spread()
    if isinstance(chosen, Tensor):
        return x.regrid(chosen, scale, zero_point)
    values, indices = chosen
    together = (x.regrid(values, scale, zero_point), indices)
    return together if type(chosen) is tuple else type(chosen)(together)


def _pool(dimensions: int) -> Rule:
    """The rule of pooling by maximum over the last `dimensions`."""

    def pool(func: Call, args: Arguments, kwargs: Keywords) -> Any:
        """The largest value of each window, all of one scale."""
        x, *rest = args
        if not isinstance(x, QuantTensor) or not shared_along(x, dimensions):
            return NotImplemented
        return _first(x, func(x.value, *rest, **kwargs))

    return pool


@exact("interpolate upsample upsample_nearest")
def _resample(func: Call, args: Arguments, kwargs: Keywords) -> Any:
    """The nearest value; other ways to interpolate make new ones."""
    x, *rest = args
    mode = rest[2] if len(rest) > 2 else kwargs.get("mode", "nearest")
    if not isinstance(x, QuantTensor) or not mode.startswith("nearest") or not shared_along(x, x.value.dim() - 2):
        return NotImplemented
    return _first(x, func(x.value, *rest, **kwargs))


@exact("pad")
def _pad(func: Call, args: Arguments, kwargs: Keywords) -> Any:
    """Values between zeros, where zero has a code, or between copies of themselves."""
    named = dict(zip(("input", "pad", "mode", "value"), args, strict=False)) | dict(kwargs)
    x = named["input"]
    zeros = named.get("mode", "constant") == "constant"
    if not isinstance(x, QuantTensor) or not shared_along(x, len(named["pad"]) // 2):
        return NotImplemented
    if zeros and not (has_zero(x) and _is_zero(named.get("value") or 0)):
        return NotImplemented
    return _first(x, func(**{**named, "input": x.value}))


@exact("constant_pad_nd")
def _pad_with_constant(func: Call, args: Arguments, kwargs: Keywords) -> Any:
    """Values between zeros, where zero has a code."""
    named = dict(zip(("input", "pad", "value"), args, strict=False)) | dict(kwargs)
    return _pad(func, (), named)


@exact("unfold")
def _unfold(func: Call, args: Arguments, kwargs: Keywords) -> Any:
    """Windows side by side, with zeros beyond the border."""
    x, *rest = args
    if not isinstance(x, QuantTensor) or not x.uniform or not has_zero(x):
        return NotImplemented
    return _first(x, func(x.value, *rest, **kwargs))


for _n in (1, 2, 3):
    for _name in ("max_pool", "adaptive_max_pool"):
        exact(f"{_name}{_n}d {_name}{_n}d_with_indices")(_pool(_n))
