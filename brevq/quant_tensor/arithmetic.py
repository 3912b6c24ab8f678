"""Arithmetic that is exact on integer codes: sums on one grid, products on the product of two."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from brevq.errors import ArgumentError
from brevq.quant_tensor import ranges
from brevq.quant_tensor.producer import derived, describe_origin
from brevq.quant_tensor.tensor import QuantTensor, Zero, exact, plain_all

Call = Callable[..., Any]
Arguments = tuple[Any, ...]
Keywords = Mapping[str, Any]

_TWO_GRIDS = """
`{function}` of two quantized tensors is exact on one grid only, and these two have different {what}:
  {one}: {one_has}
  {other}: {other_has}

Three ways out:
  - share one quantizer, as brevq.nn.QuantEltwiseAdd and brevq.nn.QuantCat do, or one that both layers are given;
  - quantize one of them again, on the grid of the other: pass both through the same QuantIdentity;
  - leave the grid: {function} the values, x.value and y.value, and quantize the result where it has to be.
""".strip()


@exact("add __add__")
def _add(func: Call, args: Arguments, kwargs: Keywords) -> Any:
    """A sum of integers on one grid, on that grid with a bit more."""
    return _sum_or_difference(func, args, kwargs, ranges.added, signed=False)


@exact("sub subtract __sub__")
def _subtract(func: Call, args: Arguments, kwargs: Keywords) -> Any:
    """A difference of integers on one grid, on that grid with a bit more."""
    return _sum_or_difference(func, args, kwargs, ranges.subtracted, signed=True)


def _sum_or_difference(func: Call, args: Arguments, kwargs: Keywords, combined: Any, signed: bool) -> Any:
    if kwargs or len(args) != 2 or not all(map(_is_integer, args)):
        return NotImplemented
    x, y = args
    scale, zero_point = one_scale(func.__name__, x, y), func(x.spread()[1], y.spread()[1])
    span = combined(ranges.codes(x), ranges.codes(y))
    zero = Zero.AT_ZERO if {x.zero, y.zero} <= {Zero.AT_ZERO, Zero.NO_CODE} else Zero.SHIFTED
    zero = Zero.BETWEEN if Zero.BETWEEN in (x.zero, y.zero) else zero
    return _result(func, args, func(x.value, y.value), scale, zero_point, span, signed or x.signed or y.signed, zero)


@exact("cat concat concatenate stack hstack vstack dstack")
def _cat(func: Call, args: Arguments, kwargs: Keywords) -> Any:
    """Tensors of one grid side by side."""
    tensors, *rest = args
    if not isinstance(tensors, Sequence) or not all(isinstance(x, QuantTensor) for x in tensors):
        return NotImplemented
    first = tensors[0]
    if len({(x.float_format, x.zero in (Zero.NO_CODE, Zero.BETWEEN)) for x in tensors}) > 1:
        return NotImplemented
    value = func([x.value for x in tensors], *rest, **kwargs)
    if all(x.uniform for x in tensors):
        scale, zero_point = _one_grid(func.__name__, tensors)
    else:
        scales, zero_points = ([x.spread()[i].expand(x.value.shape) for x in tensors] for i in (0, 1))
        scale, zero_point = (func(parts, *rest, **kwargs) for parts in (scales, zero_points))
    if first.float_format is not None or first.zero is Zero.NO_CODE:
        return first.regrid(value, scale, zero_point)
    span, signed = ranges.codes(first), any(x.signed for x in tensors)
    for x in tensors[1:]:
        span = ranges.joined(span, ranges.codes(x))
    return _result(func, tensors, value, scale, zero_point, span, signed, first.zero)


def _one_grid(function: str, tensors: Sequence[QuantTensor]) -> tuple[Tensor, Tensor]:
    """The scale and the zero-point that tensors share."""
    first = tensors[0]
    scale, zero_point = first.spread()
    for x in tensors[1:]:
        scale = one_scale(function, first, x)
        _agree(function, "zero-points", first, x, first.spread()[1], x.spread()[1])
    return scale, zero_point


@exact("neg negative")
def _neg(func: Call, args: Arguments, kwargs: Keywords) -> Any:
    """The negative: codes and zero-point change sign."""
    (x,) = args
    if _is_symmetric(x):
        return x.keep(func(x.value))
    if x.float_format is not None:
        return NotImplemented
    scale, zero_point = x.spread()
    low, high = ranges.codes(x)
    return _result(func, args, func(x.value), scale, -zero_point, (-high, -low), True, x.zero)


@exact("abs absolute")
def _abs(func: Call, args: Arguments, kwargs: Keywords) -> Any:
    """The absolute value of integers about zero."""
    (x,) = args
    if not _is_integer(x) or x.zero is not Zero.AT_ZERO:
        return NotImplemented
    scale, zero_point = x.spread()
    low, high = ranges.codes(x)
    span = (torch.zeros_like(low), torch.maximum(-low, high))
    return _result(func, args, func(x.value), scale, zero_point, span, False, x.zero)


@exact("mul multiply")
def _multiply(func: Call, args: Arguments, kwargs: Keywords) -> Any:
    """A product of integers, whose scale is that of the factors multiplied; or of any codes with a power of two."""
    if kwargs or len(args) != 2:
        return NotImplemented
    x, y = args if isinstance(args[0], QuantTensor) else reversed(args)
    if isinstance(y, (int, float)):
        return _times_power_of_two(func, x, float(y))
    if not (_is_centred(x) and _is_centred(y)):
        return NotImplemented
    span = ranges.multiplied(ranges.centred(x), ranges.centred(y))
    return _product(func, (x, y), func(x.value, y.value), x.spread()[0] * y.spread()[0], span)


@exact("div divide true_divide")
def _divide(func: Call, args: Arguments, kwargs: Keywords) -> Any:
    """A quotient by a power of two."""
    if kwargs or len(args) != 2 or not isinstance(args[0], QuantTensor) or not isinstance(args[1], (int, float)):
        return NotImplemented
    return _times_power_of_two(func, args[0], float(args[1]))


def _times_power_of_two(func: Call, x: QuantTensor, factor: float) -> Any:
    """The same codes with a scale that is shifted."""
    if not (factor > 0 and math.isfinite(factor) and math.frexp(factor)[0] == 0.5):
        return NotImplemented
    shifted = x.keep(func(x.value, factor))
    shifted.scale = func(x.scale, factor)
    shifted.producer = derived(func.__name__, x.producer)
    return shifted


@exact("matmul mm bmm")
def _matmul(func: Call, args: Arguments, kwargs: Keywords) -> Any:
    """Sums of products along the last axis of one matrix and the last but one of the other."""
    if kwargs or len(args) != 2 or not all(map(_is_centred, args)):
        return NotImplemented
    x, y = args
    scale = _outer(x.spread()[0], y.spread()[0], x.value.dim(), y.value.dim())
    if scale is None:
        return NotImplemented
    return _sum_of_products(func, (x, y), func(x.value, y.value), scale, x.value.shape[-1])


def _outer(x: Tensor, y: Tensor, x_axes: int, y_axes: int) -> Tensor | None:
    """The scales of the elements of a product of matrices; None where a sum runs over several scales."""
    if x.dim() and (x.shape[-1] != 1 or x_axes < 2):
        return None
    if y.dim() == 1 and y_axes > 1:
        return x * y
    if y.dim() and (y_axes < 2 or y.shape[-2] != 1):
        return None
    return x * y


@exact("linear")
def _linear(func: Call, args: Arguments, kwargs: Keywords) -> Any:
    """A product with the transpose of a weight, and a bias on the grid of that product."""
    named = dict(zip(("input", "weight", "bias"), args, strict=False)) | dict(kwargs)
    x, weight, bias = named["input"], named["weight"], named.get("bias")
    if not (_is_centred(x) and _is_centred(weight)):
        return NotImplemented
    own = weight.spread()[0]
    scale = _outer(x.spread()[0], own.transpose(-2, -1) if own.dim() > 1 else own, x.value.dim(), 2)
    if scale is None or own.dim() == 1:
        return NotImplemented
    scale = scale if x.value.dim() > 1 or scale.dim() == 0 else scale.squeeze(0)
    plain = (x.value, weight.value, None if bias is None else plain_all(bias))
    return _with_bias(func, (x, weight), func(*plain), scale, x.value.shape[-1], bias, ())


@exact("conv1d conv2d conv3d")
def _conv(func: Call, args: Arguments, kwargs: Keywords) -> Any:
    """A convolution: sums of products over the channels of a group and the kernel."""
    names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
    return _convolved(func, dict(zip(names, args, strict=False)) | dict(kwargs), transposed=False)


@exact("conv_transpose1d conv_transpose2d conv_transpose3d")
def _conv_transpose(func: Call, args: Arguments, kwargs: Keywords) -> Any:
    """A transposed convolution: as many products meet in one sum as the stride lets taps of the kernel meet."""
    names = ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation")
    return _convolved(func, dict(zip(names, args, strict=False)) | dict(kwargs), transposed=True)


def _convolved(func: Call, named: dict[str, Any], transposed: bool) -> Any:
    x, weight, bias, groups = named["input"], named["weight"], named.get("bias"), named.get("groups", 1)
    if not (_is_centred(x) and _is_centred(weight) and x.uniform):
        return NotImplemented
    kernel = weight.value.shape[2:]
    scale = _scale_of_outputs(x.spread()[0], weight.spread()[0], groups if transposed else 1, int(transposed))
    if scale is None:
        return NotImplemented
    taps = math.prod(kernel)
    channels = weight.value.shape[1]
    if transposed:
        strides, dilations = (_tuple(named.get(name, 1), len(kernel)) for name in ("stride", "dilation"))
        taps = math.prod(
            -(-size // (stride // math.gcd(stride, dilation)))
            for size, stride, dilation in zip(kernel, strides, dilations, strict=True)
        )
        channels = weight.value.shape[0] // groups
    y = func(**plain_all(named))
    return _with_bias(func, (x, weight), y, scale, channels * taps, bias, (1,) * len(kernel))


def _scale_of_outputs(x: Tensor, weight: Tensor, groups: int, axis: int) -> Tensor | None:
    """The scales of the outputs of a convolution, one or one a channel; None where a sum runs over several."""
    if weight.dim() == 0:
        return x * weight
    channels = weight.shape[axis]
    if weight.numel() != channels:
        return None
    per_channel = (x * weight.reshape(-1)).repeat(groups)
    return per_channel.reshape(-1, *(1,) * (weight.dim() - 2))


def _with_bias(
    func: Call, args: Any, y: Tensor, scale: Tensor, terms: int, bias: Any, trailing: tuple[int, ...]
) -> Any:
    """A sum of products, and a bias on its grid; a plain bias leaves the grid."""
    if bias is None:
        return _sum_of_products(func, args, y, scale, terms)
    if not _is_integer(bias):
        return NotImplemented
    own = bias.spread()[0]
    own = own.reshape(-1, *trailing) if own.dim() else own
    products = _sum_of_products(func, args, y, scale, terms)
    _agree(func.__name__, "scales", products, bias, scale, own)
    span = ranges.added(ranges.codes(products), ranges.codes(bias))
    return _product(func, args, y, scale, span)


def _sum_of_products(func: Call, args: Any, y: Tensor, scale: Tensor, terms: int) -> QuantTensor:
    x, weight = args
    span = ranges.repeated(ranges.multiplied(ranges.centred(x), ranges.centred(weight)), terms)
    return _product(func, args, y, scale, span)


def _product(func: Call, args: Any, y: Tensor, scale: Tensor, span: ranges.Range) -> QuantTensor:
    """What is made of products: its zero is code zero."""
    signed = any(x.signed or x.zero is Zero.SHIFTED for x in args)
    return _result(func, args, y, scale, torch.zeros_like(scale), span, signed, Zero.AT_ZERO)


@exact("sum")
def _sum(func: Call, args: Arguments, kwargs: Keywords) -> Any:
    """A sum along axes, of integers that share a scale."""
    return _reduced(func, args, kwargs, mean=False)


@exact("mean")
def _mean(func: Call, args: Arguments, kwargs: Keywords) -> Any:
    """A mean along axes, of integers that share a scale: their sum, with a finer scale."""
    return _reduced(func, args, kwargs, mean=True)


def _reduced(func: Call, args: Arguments, kwargs: Keywords, mean: bool) -> Any:
    x = args[0]
    if not _is_integer(x) or not x.uniform or kwargs.get("dtype") is not None:
        return NotImplemented
    value = func(x.value, *args[1:], **kwargs)
    return _window(func, x, value, x.value.numel() // max(1, value.numel()), mean)


def _average_pool(dimensions: int) -> Any:
    """The rule of average pooling over windows of one size."""
    names = ("input", "kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")

    def pool(func: Call, args: Arguments, kwargs: Keywords) -> Any:
        """Means of windows of one size, zeros beyond the border among them."""
        named = dict(zip(names, args, strict=False)) | dict(kwargs)
        x, divisor = named["input"], named.get("divisor_override")
        padded = any(_tuple(named.get("padding", 0), dimensions))
        uneven = named.get("ceil_mode", False) or (padded and not named.get("count_include_pad", True))
        if not _is_integer(x) or not x.uniform or uneven or (padded and x.zero is not Zero.AT_ZERO) or divisor:
            return NotImplemented
        value = func(x.value, *args[1:], **kwargs)
        return _window(func, x, value, math.prod(_tuple(named["kernel_size"], dimensions)), True)

    return pool


def _adaptive_average_pool(dimensions: int) -> Any:
    """The rule of adaptive average pooling, where the output's size divides the input's."""

    def pool(func: Call, args: Arguments, kwargs: Keywords) -> Any:
        """Means of windows of one size."""
        x = args[0]
        if not _is_integer(x) or not x.uniform:
            return NotImplemented
        value = func(x.value, *args[1:], **kwargs)
        sizes = [(before, after) for before, after in zip(x.value.shape, value.shape, strict=True)][-dimensions:]
        if any(before % after for before, after in sizes):
            return NotImplemented
        return _window(func, x, value, math.prod(before // after for before, after in sizes), True)

    return pool


def _window(func: Call, x: QuantTensor, value: Tensor, terms: int, mean: bool) -> QuantTensor:
    """What came of adding up `terms` values."""
    scale, zero_point = x.spread()
    span = ranges.repeated(ranges.codes(x), terms)
    return _result(func, (x,), value, scale / terms if mean else scale, zero_point * terms, span, x.signed, x.zero)


def _result(
    func: Call,
    args: Sequence[Any],
    value: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    span: ranges.Range,
    signed: bool,
    zero: Zero,
) -> QuantTensor:
    """A tensor of integers, in as many bits as its range takes."""
    producer = derived(func.__name__, *(x.producer for x in args if isinstance(x, QuantTensor)))
    bits = ranges.bits(span, signed)
    # Two codes apart are -1 and 1 no more: a sum of them is an even number, and zero is one.
    zero = Zero.AT_ZERO if zero is Zero.NO_CODE else zero
    return QuantTensor(value, scale, zero_point, bits, signed, zero=zero, producer=producer)


def one_scale(function: str, x: QuantTensor, y: QuantTensor) -> Tensor:
    """The scale that two tensors share.

    Tensors of one quantizer share it by definition, also while it observes and its scale moves from call to call.

    Args:
        function: what is to be done with the tensors, for the message.
        x: one tensor.
        y: the other.

    Raises:
        ArgumentError: the scales differ.
    """
    scale, other = x.spread()[0], y.spread()[0]
    same_quantizer = x.producer is not None and x.producer is y.producer and not isinstance(x.producer, tuple)
    if not same_quantizer:
        _agree(function, "scales", x, y, scale, other)
    return other if other.numel() >= scale.numel() else scale


def _agree(function: str, what: str, x: QuantTensor, y: QuantTensor, mine: Tensor, other: Tensor) -> None:
    """Refuse two grids that differ; compiled code, which can not branch on them, refuses when it runs."""
    if mine is other:
        return
    names = describe_origin(x.producer), describe_origin(y.producer)
    if torch.compiler.is_compiling():
        torch._assert_async((mine == other).all(), f"{function}: {what} of {names[0]} and {names[1]} differ")  # noqa: SLF001
    elif not bool((mine == other).all()):
        raise ArgumentError(
            _TWO_GRIDS.format(
                function=function,
                what=what,
                one=names[0],
                one_has=_short(mine),
                other=names[1],
                other_has=_short(other),
            )
        )


def _short(part: Tensor) -> str:
    """A scale or zero-point, as messages show it."""
    if part.numel() == 1:
        return f"{part.item():g}"
    return f"{part.numel()} of them, from {part.min().item():g} to {part.max().item():g}"


def _tuple(size: Any, dimensions: int) -> tuple[int, ...]:
    return (size,) * dimensions if isinstance(size, int) else tuple(size) * (dimensions if len(size) == 1 else 1)


def _is_integer(x: Any) -> bool:
    return isinstance(x, QuantTensor) and x.float_format is None


def _is_symmetric(x: QuantTensor) -> bool:
    """Whether the negative of each value is on the grid as well."""
    if x.float_format is not None:
        return x.float_format.min == -x.float_format.max
    return x.zero is Zero.NO_CODE or (x.zero is Zero.AT_ZERO and x.narrow and x.signed)


def _is_centred(x: Any) -> bool:
    """Whether codes less the zero-point are integers."""
    return _is_integer(x) and x.zero is not Zero.BETWEEN


for _n in (1, 2, 3):
    exact(f"avg_pool{_n}d")(_average_pool(_n))
    exact(f"adaptive_avg_pool{_n}d")(_adaptive_average_pool(_n))
