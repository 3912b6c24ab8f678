"""Sums of products, exact on integer codes: products of matrices, linear layers and convolutions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from brevq.quant_tensor import ranges
from brevq.quant_tensor.grids import Arguments, Call, Keywords, agree, is_centred, result, sizes
from brevq.quant_tensor.tensor import QuantTensor, Zero, exact, plain_all


@exact("matmul __matmul__ mm bmm mv dot vdot linalg_matmul")
def _matmul(func: Call, args: Arguments, kwargs: Keywords) -> Any:
    """Sums of products along the last axis of one matrix and the last but one of the other."""
    if kwargs or len(args) != 2 or not all(map(is_centred, args)):
        return NotImplemented
    x, y = args
    scale = _outer(x.spread()[0], y.spread()[0], x.value.dim(), y.value.dim())
    if scale is None:
        return NotImplemented
    return _sum_of_products(func, args, func(x.value, y.value), scale, x.value.shape[-1])


@exact("addmm addmv baddbmm addbmm")
def _matmul_and_more(func: Call, args: Arguments, kwargs: Keywords) -> Any:
    """A product of matrices, and what lies on its grid."""
    if kwargs or len(args) != 3 or not all(map(is_centred, args)) or not all(x.uniform for x in args):
        return NotImplemented
    more, x, y = args
    value = func(*plain_all(args))
    # Each of the products of a batch is added to the last: `addbmm`.
    batch = x.value.shape[0] if x.value.dim() == 3 and value.dim() == 2 else 1
    return _sum_of_products(func, (x, y), value, x.spread()[0] * y.spread()[0], x.value.shape[-1] * batch, more)


def _outer(x: Tensor, y: Tensor, x_axes: int, y_axes: int) -> Tensor | None:
    """The scales of the elements of a product of matrices; None where a sum runs over several scales."""
    if x.dim() and (x_axes == 1 or x.shape[-1] != 1):
        return None
    if y.dim() and (y_axes == 1 or (y.dim() > 1 and y.shape[-2] != 1)):
        return None
    # A product with a vector has no axis where that has its only one.
    rows = x.squeeze(-1) if y_axes == 1 and x.dim() else x
    columns = y.squeeze(-2) if x_axes == 1 and y.dim() > 1 else y
    return rows * columns


@exact("linear")
def _linear(func: Call, args: Arguments, kwargs: Keywords) -> Any:
    """A product with the transpose of a weight, and a bias on the grid of that product."""
    named = dict(zip(("input", "weight", "bias"), args, strict=False)) | dict(kwargs)
    x, weight = named["input"], named["weight"]
    if not (is_centred(x) and is_centred(weight)):
        return NotImplemented
    own = weight.spread()[0]
    if own.dim() == 1:
        return NotImplemented
    scale = _outer(x.spread()[0], own.transpose(-2, -1) if own.dim() else own, x.value.dim(), weight.value.dim())
    if scale is None:
        return NotImplemented
    return _with_bias(func, (x, weight), named, scale, x.value.shape[-1], 0)


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
    x, weight, groups = named["input"], named["weight"], named.get("groups", 1)
    if not (is_centred(x) and is_centred(weight) and x.uniform):
        return NotImplemented
    kernel = weight.value.shape[2:]
    own = weight.spread()[0]
    scale = _scale_of_outputs(x.spread()[0], own, groups if transposed else 1, int(transposed), weight.value.dim())
    if scale is None:
        return NotImplemented
    taps = math.prod(kernel)
    channels = weight.value.shape[1]
    if transposed:
        strides, dilations = (sizes(named.get(name, 1), len(kernel)) for name in ("stride", "dilation"))
        # A list: a generator would break compiled graphs.
        meeting = [
            -(-size // (stride // math.gcd(stride, dilation)))
            for size, stride, dilation in zip(kernel, strides, dilations, strict=True)
        ]
        taps = math.prod(meeting)
        channels = weight.value.shape[0] // groups
    return _with_bias(func, (x, weight), named, scale, channels * taps, len(kernel))


def _scale_of_outputs(x: Tensor, weight: Tensor, groups: int, axis: int, axes: int) -> Tensor | None:
    """The scales of the outputs of a convolution, one or one a channel; None where a sum runs over several."""
    if weight.dim() == 0:
        return x * weight
    if weight.dim() != axes or weight.numel() != weight.shape[axis]:
        return None
    per_channel = (x * weight.reshape(-1)).repeat(groups)
    return per_channel.reshape(-1, *(1,) * (axes - 2))


def _with_bias(
    func: Call, args: Sequence[QuantTensor], named: dict[str, Any], scale: Tensor, terms: int, trailing: int
) -> Any:
    """A sum of products, and a bias on its grid; a plain bias leaves the grid."""
    bias = named.get("bias")
    if bias is not None and not is_centred(bias):
        return NotImplemented
    return _sum_of_products(func, args, func(**plain_all(named)), scale, terms, bias, trailing)


def _sum_of_products(
    func: Call,
    args: Sequence[QuantTensor],
    value: Tensor,
    scale: Tensor,
    terms: int,
    more: QuantTensor | None = None,
    trailing: int = 0,
) -> QuantTensor:
    """What is made of products, whose zero is code zero, and of what is added to them.

    Args:
        func: the function.
        args: the factors.
        value: the values.
        scale: the product of the scales; broadcasts to the values.
        terms: how many products make one sum, at most.
        more: what is added, if anything.
        trailing: how many dimensions the result has after those of what is added.
    """
    x, y = args
    span = ranges.repeated(ranges.multiplied(ranges.centred(x), ranges.centred(y)), terms)
    signed = any(z.signed or z.zero is Zero.SHIFTED for z in (*args, *(() if more is None else (more,))))
    if more is not None:
        own = more.spread()[0]
        own = own.reshape(*own.shape, *(1,) * trailing) if own.dim() else own
        products = result(func, args, value, scale, torch.zeros_like(scale), span, signed, Zero.AT_ZERO)
        agree(func.__name__, "scales", products, more, scale, own)
        span = ranges.added(span, ranges.centred(more))
    return result(func, args, value, scale, torch.zeros_like(scale), span, signed, Zero.AT_ZERO)
