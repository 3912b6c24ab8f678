"""Functions that move values, choose among them, or fill up with zeros: the codes stay as they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from brevq.quant_tensor.tensor import QuantTensor, Zero, exact, plain_all

Call = Callable[..., Any]
Arguments = tuple[Any, ...]
Keywords = Mapping[str, Any]


@exact(
    "reshape reshape_as view view_as flatten unflatten ravel permute transpose swapaxes swapdims movedim moveaxis t "
    "squeeze unsqueeze expand expand_as broadcast_to repeat tile repeat_interleave roll flip fliplr flipud rot90 "
    "narrow select index_select take_along_dim gather chunk split split_with_sizes tensor_split hsplit vsplit dsplit "
    "unbind diagonal pixel_shuffle pixel_unshuffle channel_shuffle native_channel_shuffle masked_select __getitem__ "
    "atleast_1d atleast_2d atleast_3d"
)
def _move(func: Call, args: Arguments, kwargs: Keywords) -> Any:
    """Values change places, and scales go with them."""
    x, rest, keywords = args[0], plain_all(args[1:]), plain_all(kwargs)
    if not isinstance(x, QuantTensor):
        return NotImplemented
    values = func(x.value, *rest, **keywords)
    scale, zero_point = x.spread()
    if x.uniform:
        return _each(values, lambda value, _: x.regrid(value, scale, zero_point))
    scales, zero_points = (func(part.expand(x.value.shape), *rest, **keywords) for part in (scale, zero_point))
    if isinstance(values, Tensor):
        return x.regrid(values, _compact(scales), _compact(zero_points))
    return tuple(
        x.regrid(value, _compact(part), _compact(zero))
        for value, part, zero in zip(values, scales, zero_points, strict=True)
    )


def _each(values: Any, make: Callable[[Tensor, int], QuantTensor]) -> Any:
    if isinstance(values, Tensor):
        return make(values, 0)
    return tuple(make(value, i) for i, value in enumerate(values))


def _compact(part: Tensor) -> Tensor:
    """A scale without the copies that expanding it made."""
    for axis, stride in enumerate(part.stride()):
        if stride == 0:
            part = part.narrow(axis, 0, min(1, part.shape[axis]))
    return part


@exact("embedding")
def _look_up(func: Call, args: Arguments, kwargs: Keywords) -> Any:
    """Rows of an embedding, which keep their scales."""
    indices, x, *rest = args
    if not isinstance(x, QuantTensor) or kwargs.get("max_norm") is not None or any(part for part in rest[1:2]):
        return NotImplemented
    scale, zero_point = (part if part.dim() == 0 else func(indices, part) for part in x.spread())
    return x.regrid(func(indices, x.value, *rest, **kwargs), scale, zero_point)


@exact("clone contiguous detach positive requires_grad_")
def _stay(func: Call, args: Arguments, kwargs: Keywords) -> Any:
    """Values stay what and where they are."""
    x = args[0]
    return x.keep(func(x.value, *args[1:], **kwargs)) if isinstance(x, QuantTensor) else NotImplemented


@exact("to half float double bfloat16 type_as cuda")
def _convert(func: Call, args: Arguments, kwargs: Keywords) -> Any:
    """Values of another dtype or on another device; what is no floating-point number has no grid."""
    x = args[0]
    if not isinstance(x, QuantTensor):
        return NotImplemented
    value = func(x.value, *plain_all(args[1:]), **plain_all(kwargs))
    return x.to(value.device, value.dtype) if value.is_floating_point() else value


@exact("relu relu_")
def _relu(func: Call, args: Arguments, kwargs: Keywords) -> Any:
    """Negative values become zero, where zero has a code."""
    x = args[0]
    if not isinstance(x, QuantTensor) or not has_zero(x):
        return NotImplemented
    return x.keep(func(x.value, *args[1:], **kwargs))


@exact("max min amax amin sort topk median nanmedian kthvalue cummax cummin")
def _choose(func: Call, args: Arguments, kwargs: Keywords) -> Any:
    """Some of the values, all of one scale; indices, where there are any, are what they are."""
    x = args[0]
    if not isinstance(x, QuantTensor) or not x.uniform or any(isinstance(part, QuantTensor) for part in args[1:]):
        return NotImplemented
    return _first(x, func(x.value, *args[1:], **kwargs))


def _first(x: QuantTensor, chosen: Any) -> Any:
    scale, zero_point = x.spread()
    if isinstance(chosen, Tensor):
        return x.regrid(chosen, scale, zero_point)
    values, indices = chosen
    together = (x.regrid(values, scale, zero_point), indices)
    return together if type(chosen) is tuple else type(chosen)(together)


def _pool(dimensions: int) -> Any:
    """The rule of pooling by maximum over the last `dimensions`."""

    def pool(func: Call, args: Arguments, kwargs: Keywords) -> Any:
        """The largest value of each window, all of one scale."""
        x = args[0]
        if not isinstance(x, QuantTensor) or not _shared_along(x, dimensions):
            return NotImplemented
        return _first(x, func(x.value, *args[1:], **kwargs))

    return pool


@exact("interpolate upsample upsample_nearest")
def _resample(func: Call, args: Arguments, kwargs: Keywords) -> Any:
    """The nearest value; other ways to interpolate make new ones."""
    x, rest = args[0], args[1:]
    mode = rest[2] if len(rest) > 2 else kwargs.get("mode", "nearest")
    if not isinstance(x, QuantTensor) or not mode.startswith("nearest") or not _shared_along(x, x.value.dim() - 2):
        return NotImplemented
    return _first(x, func(x.value, *rest, **kwargs))


@exact("pad constant_pad_nd")
def _pad(func: Call, args: Arguments, kwargs: Keywords) -> Any:
    """Values between zeros, where zero has a code, or between copies of themselves."""
    named = dict(zip(("input", "pad", "mode", "value"), args, strict=False)) | dict(kwargs)
    x = named["input"]
    zeros = named.get("mode", "constant") == "constant"
    if not isinstance(x, QuantTensor) or not _shared_along(x, len(named["pad"]) // 2):
        return NotImplemented
    if zeros and not (has_zero(x) and not named.get("value")):
        return NotImplemented
    named["input"] = x.value
    return _first(x, func(**named))


@exact("unfold")
def _unfold(func: Call, args: Arguments, kwargs: Keywords) -> Any:
    """Windows side by side, with zeros beyond the border."""
    x = args[0]
    if not isinstance(x, QuantTensor) or not x.uniform or not has_zero(x):
        return NotImplemented
    return _first(x, func(x.value, *args[1:], **kwargs))


@exact("masked_fill")
def _mask(func: Call, args: Arguments, kwargs: Keywords) -> Any:
    """Some values become zero."""
    named = dict(zip(("input", "mask", "value"), args, strict=False)) | dict(kwargs)
    x, mask, value = named["input"], named["mask"], named["value"]
    if not isinstance(x, QuantTensor) or not has_zero(x) or isinstance(value, (Tensor, QuantTensor)) or value != 0:
        return NotImplemented
    return x.keep(func(x.value, mask, value)) if mask.dim() <= x.value.dim() else NotImplemented


@exact("dropout dropout1d dropout2d dropout3d")
def _dropout(func: Call, args: Arguments, kwargs: Keywords) -> Any:
    """The values themselves in evaluation; in training, what stays is scaled by any number."""
    named = dict(zip(("input", "p", "training", "inplace"), args, strict=False)) | dict(kwargs)
    x, training = named["input"], named.get("training", True)
    return x if isinstance(x, QuantTensor) and not (training and named.get("p", 0.5)) else NotImplemented


@exact("alpha_dropout feature_alpha_dropout")
def _alpha_dropout(func: Call, args: Arguments, kwargs: Keywords) -> Any:
    """As other dropout, and in evaluation by default."""
    named = dict(zip(("input", "p", "training"), args, strict=False)) | dict(kwargs)
    return _dropout(func, (), {"training": False} | named)


def has_zero(x: QuantTensor) -> bool:
    """Whether a code stands for zero.

    Args:
        x: the tensor.
    """
    return x.zero in (Zero.AT_ZERO, Zero.SHIFTED) and not (x.float_format is not None and x.float_format.min > 0)


def _shared_along(x: QuantTensor, dimensions: int) -> bool:
    """Whether values that differ in the last `dimensions` alone share a scale."""
    if x.uniform:
        return True
    if x.granularity is not None and x.granularity.regroups:
        return False
    return all(size == 1 for part in (x.scale, x.zero_point) for size in part.shape[-dimensions:])


for _n in (1, 2, 3):
    for _name in ("max_pool", "adaptive_max_pool"):
        exact(f"{_name}{_n}d {_name}{_n}d_with_indices")(_pool(_n))
