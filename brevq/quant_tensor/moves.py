"""Functions that move values or leave them where they are: the codes stay as they are."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from brevq.errors import ArgumentTypeError
from brevq.quant_tensor.grids import Arguments, Call, Keywords, has_zero
from brevq.quant_tensor.tensor import QuantTensor, exact, plain_all

_IN_PLACE = (
    "`{function}` would change a QuantTensor in place, and leave it with values off its grid: "
    "use what the function returns that makes a new tensor, or change the values alone with x.value.{function}"
)


@exact(
    "reshape reshape_as flatten unflatten ravel permute transpose swapaxes swapdims movedim moveaxis t "
    "squeeze unsqueeze expand expand_as broadcast_to repeat tile repeat_interleave roll flip fliplr flipud rot90 "
    "narrow select index_select take take_along_dim gather chunk split split_with_sizes tensor_split hsplit vsplit "
    "dsplit unbind diagonal pixel_shuffle pixel_unshuffle channel_shuffle native_channel_shuffle masked_select "
    "__getitem__ atleast_1d atleast_2d atleast_3d"
)
def _move(func: Call, args: Arguments, kwargs: Keywords) -> Any:
    """Values change places, and scales go with them."""
    x, rest, keywords = args[0], plain_all(args[1:]), plain_all(kwargs)
    if not isinstance(x, QuantTensor):
        return NotImplemented
    values = func(x.value, *rest, **keywords)
    if x.uniform:
        return _each(x, values)
    scales, zero_points = (func(part.expand(x.value.shape), *rest, **keywords) for part in x.spread())
    if isinstance(values, Tensor):
        return x.regrid(values, _compact(scales), _compact(zero_points), func.__name__)
    return tuple(
        x.regrid(value, _compact(part), _compact(zero), func.__name__)
        for value, part, zero in zip(values, scales, zero_points, strict=True)
    )


@exact("view view_as")
def _view(func: Call, args: Arguments, kwargs: Keywords) -> Any:
    """As `reshape`; the bits of numbers read as those of another dtype have no grid."""
    x = args[0]
    if not isinstance(x, QuantTensor):
        return NotImplemented
    values = func(x.value, *plain_all(args[1:]), **plain_all(kwargs))
    if values.dtype != x.value.dtype:
        return values
    if x.uniform:
        return _each(x, values)
    scale, zero_point = (_compact(part.expand(x.value.shape).reshape(values.shape)) for part in x.spread())
    return x.regrid(values, scale, zero_point, func.__name__)


def _each(x: QuantTensor, values: Any) -> Any:
    scale, zero_point = x.spread()
    if isinstance(values, Tensor):
        return x.regrid(values, scale, zero_point)
    return tuple(x.regrid(value, scale, zero_point) for value in values)


def _compact(part: Tensor) -> Tensor:
    """A scale without the copies that expanding it made."""
    for axis, stride in enumerate(part.stride()):
        if stride == 0:
            part = part.narrow(axis, 0, min(1, part.shape[axis]))
    return part


@exact("embedding")
def _look_up(func: Call, args: Arguments, kwargs: Keywords) -> Any:
    """Rows of an embedding, which keep their scales."""
    named = dict(zip(("input", "weight", "padding_idx", "max_norm"), args, strict=False)) | dict(kwargs)
    indices, x = named["input"], named["weight"]
    if not isinstance(x, QuantTensor) or named.get("max_norm") is not None:
        return NotImplemented
    scale, zero_point = (_rows(func, indices, part) for part in x.spread())
    function = None if x.uniform else func.__name__
    named["weight"] = x.value
    return x.regrid(func(**named), scale, zero_point, function)


def _rows(func: Call, indices: Tensor, part: Tensor) -> Tensor:
    """The rows of a scale or zero-point that has one for each row of the embedding; else the same."""
    return func(indices, part) if part.dim() > 1 and part.shape[0] > 1 else part.reshape(part.shape[-1:])


@exact("clone contiguous positive")
def _stay(func: Call, args: Arguments, kwargs: Keywords) -> Any:
    """Values stay what and where they are."""
    x = args[0]
    return x.keep(func(x.value, *args[1:], **kwargs)) if isinstance(x, QuantTensor) else NotImplemented


@exact("detach")
def _detach(func: Call, args: Arguments, kwargs: Keywords) -> Any:
    """The same without gradients, grid and all."""
    return args[0].detach()


@exact("to half float double bfloat16 type_as cuda")
def _convert(func: Call, args: Arguments, kwargs: Keywords) -> Any:
    """Values of another dtype or on another device; what is no floating-point number has no grid."""
    x = args[0]
    if not isinstance(x, QuantTensor):
        return NotImplemented
    value = func(x.value, *plain_all(args[1:]), **plain_all(kwargs))
    return x.moved(value) if value.is_floating_point() else value


@exact("dropout dropout1d dropout2d dropout3d feature_dropout")
def _dropout(func: Call, args: Arguments, kwargs: Keywords) -> Any:
    """The values themselves in evaluation; in training, what stays is scaled by any number."""
    named = dict(zip(("input", "p", "training", "inplace"), args, strict=False)) | dict(kwargs)
    x, training = named["input"], named.get("training", named.get("train", True))
    return x if isinstance(x, QuantTensor) and not (training and named.get("p", 0.5)) else NotImplemented


@exact("alpha_dropout feature_alpha_dropout")
def _alpha_dropout(func: Call, args: Arguments, kwargs: Keywords) -> Any:
    """As other dropout, and in evaluation by default."""
    named = dict(zip(("input", "p", "training"), args, strict=False)) | dict(kwargs)
    return _dropout(func, (), {"training": False} | named)


def _refuse(func: Call, args: Arguments, kwargs: Keywords) -> Any:
    """A method that works in place is for plain tensors, to which quantized ones may be added and the like."""
    if isinstance(args[0], QuantTensor):
        raise ArgumentTypeError(_IN_PLACE.format(function=func.__name__))
    return NotImplemented


exact(
    " ".join(
        sorted(
            name
            for owner in (Tensor, torch, F)
            for name in dir(owner)
            if name.endswith("_") and not name.startswith("_") and not name.endswith("__")
        )
    )
)(_refuse)


@exact("requires_grad_")
def _require_gradients(func: Call, args: Arguments, kwargs: Keywords) -> Any:
    """The tensor itself, whose values have gradients from now on."""
    func(args[0].value, *args[1:], **kwargs)
    return args[0]


@exact("relu_")
def _relu_in_place(func: Call, args: Arguments, kwargs: Keywords) -> Any:
    """The tensor itself, whose negative values become zero, where zero has a code."""
    x = args[0]
    if not has_zero(x):
        return _refuse(func, args, kwargs)
    func(x.value)
    return x
