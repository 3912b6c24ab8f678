"""Grids: which one two tensors share, and which one a result has."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from brevq.errors import ArgumentError
from brevq.quant_tensor import ranges
from brevq.quant_tensor.producer import derived, describe_origin
from brevq.quant_tensor.tensor import QuantTensor, Zero

Call: TypeAlias = Callable[..., Any]
Arguments: TypeAlias = tuple[Any, ...]
Keywords: TypeAlias = Mapping[str, Any]

_TWO_GRIDS = """
`{function}` of two quantized tensors is exact on one grid only, and these two have different {what}:
  {one}: {one_has}
  {other}: {other_has}

Three ways out:
  - share one quantizer, as brevq.nn.QuantEltwiseAdd and brevq.nn.QuantCat do, or one that both layers are given;
  - quantize one of them again, on the grid of the other: pass both through the same QuantIdentity;
  - leave the grid: {function} the values, x.value and y.value, and quantize the result where it has to be.
""".strip()


def result(
    func: Call,
    args: Sequence[Any],
    value: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    span: ranges.Range,
    signed: bool,
    zero: Zero,
) -> QuantTensor:
    """A tensor of integers, in as many bits as its range takes.

    Args:
        func: the function that it comes from.
        args: what the function took.
        value: the values.
        scale: the scale; broadcasts to the values.
        zero_point: the zero-point; broadcasts to the values.
        span: the range of the codes.
        signed: whether the grid has negative codes.
        zero: where zero lies.
    """
    producer = derived(func.__name__, *(x.producer for x in args if isinstance(x, QuantTensor)))
    bits = ranges.bits(span, signed)
    # Two codes apart are -1 and 1 no more: a sum of them is an even number, and zero is one.
    zero = Zero.AT_ZERO if zero is Zero.NO_CODE else zero
    return QuantTensor(value, scale, zero_point, bits, signed, zero=zero, producer=producer)


def one_grid(function: str, tensors: Sequence[QuantTensor]) -> tuple[Tensor, Tensor]:
    """The scale and the zero-point that tensors share.

    Args:
        function: what is to be done with the tensors, for the message.
        tensors: at least one tensor.

    Raises:
        ArgumentError: the scales differ, or the zero-points.
    """
    first = tensors[0]
    scale, zero_point = first.spread()
    for x in tensors[1:]:
        scale = one_scale(function, first, x)
        if not _one_moving_grid(first, x):
            agree(function, "zero-points", first, x, zero_point, x.spread()[1])
    return scale, zero_point


def one_scale(function: str, x: QuantTensor, y: QuantTensor) -> Tensor:
    """The scale that two tensors share.

    Tensors of one quantizer that observes share it by definition: its scale moves from call to call.

    Args:
        function: what is to be done with the tensors, for the message.
        x: one tensor.
        y: the other.

    Raises:
        ArgumentError: the scales differ.
    """
    scale, other = x.spread()[0], y.spread()[0]
    if not _one_moving_grid(x, y):
        agree(function, "scales", x, y, scale, other)
    return other if other.numel() >= scale.numel() else scale


def _one_moving_grid(x: QuantTensor, y: QuantTensor) -> bool:
    """Whether one quantizer made both tensors, and watches the range of what it quantizes."""
    return bool(getattr(x.producer, "observes", False)) and _is_one_module(x.producer, y.producer)


def _is_one_module(one: Any, other: Any) -> bool:
    """Whether two are one module; while it is exported, others stand for it, that have all of its attributes."""
    return one is other or getattr(one, "__dict__", one) is getattr(other, "__dict__", other)


def agree(function: str, what: str, x: QuantTensor, y: QuantTensor, mine: Tensor, other: Tensor) -> None:
    """Refuse two grids that differ; compiled code, which can not branch on them, refuses when it runs.

    Args:
        function: what is to be done with the tensors, for the message.
        what: what is compared: scales or zero-points.
        x: one tensor.
        y: the other.
        mine: the scale or zero-point of the one.
        other: that of the other.

    Raises:
        ArgumentError: they differ.
    """
    if mine is other or mine.is_meta or other.is_meta:
        return
    if torch.compiler.is_compiling():
        names = f"{describe_origin(x.producer)} and {describe_origin(y.producer)}"
        torch._assert_async((mine == other).all(), f"{function}: {what} of {names} differ")  # noqa: SLF001
    elif not bool((mine == other).all()):
        raise ArgumentError(
            _TWO_GRIDS.format(
                function=function,
                what=what,
                one=describe_origin(x.producer),
                one_has=_short(mine),
                other=describe_origin(y.producer),
                other_has=_short(other),
            )
        )


def _short(part: Tensor) -> str:
    """A scale or zero-point, as messages show it."""
    if part.numel() == 1:
        return f"{part.item():g}"
    return f"{part.numel()} of them, from {part.min().item():g} to {part.max().item():g}"


def is_integer(x: Any) -> bool:
    """Whether the codes are integers.

    Args:
        x: anything.
    """
    return isinstance(x, QuantTensor) and x.float_format is None


def is_centred(x: Any) -> bool:
    """Whether codes less the zero-point are integers.

    Args:
        x: anything.
    """
    return is_integer(x) and x.zero is not Zero.BETWEEN


def has_zero(x: QuantTensor) -> bool:
    """Whether a code stands for zero.

    Args:
        x: the tensor.
    """
    return x.zero in (Zero.AT_ZERO, Zero.SHIFTED) and not (x.float_format is not None and x.float_format.min > 0)


def shared_over(x: QuantTensor, axes: Sequence[int]) -> bool:
    """Whether values that differ along some axes alone share a scale.

    Args:
        x: the tensor.
        axes: the axes.
    """
    if x.uniform:
        return True
    if x.granularity is not None and x.granularity.regroups:
        return False
    missing = [x.value.dim() - part.dim() for part in (x.scale, x.zero_point)]
    parts = zip((x.scale, x.zero_point), missing, strict=True)
    places = [(part, axis % x.value.dim() - gap) for part, gap in parts for axis in axes]
    return all(place < 0 or part.shape[place] == 1 for part, place in places)


def shared_along(x: QuantTensor, dimensions: int) -> bool:
    """Whether values that differ in the last dimensions alone share a scale.

    Args:
        x: the tensor.
        dimensions: how many dimensions.
    """
    return shared_over(x, range(-dimensions, 0))


def sizes(size: Any, dimensions: int) -> tuple[int, ...]:
    """A size, stride or the like, which may be one number for all dimensions, for each of them.

    Args:
        size: a number, or one for each dimension.
        dimensions: how many dimensions.

    Examples:
        >>> sizes(3, 2), sizes([3], 2), sizes((3, 1), 2)
        ((3, 3), (3, 3), (3, 1))
    """
    return (size,) * dimensions if isinstance(size, int) else tuple(size) * (dimensions if len(size) == 1 else 1)
