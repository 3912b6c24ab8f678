"""Granularity: which values share a scale. The only place that knows about shapes.

A granularity answers three questions: how a tensor is laid out for statistics (one row for each scale), what shape
the scale has so that it broadcasts back to the tensor, and which scale belongs to which output channel.
"""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import Module

from brevq.errors import ArgumentError, ArgumentTypeError


class Peer:
    """A layer that shares a quantizer, referred to without keeping it alive; copies refer to the copied layer.

    Args:
        layer: the layer.

    Examples:
        >>> layer = torch.nn.Linear(2, 2)
        >>> Peer(layer)() is layer
        True
    """

    def __init__(self, layer: Module | None) -> None:
        self._reference = None if layer is None else weakref.ref(layer)

    def __call__(self) -> Any:
        """The layer, or None if it is gone."""
        return None if self._reference is None else self._reference()

    def __reduce__(self) -> tuple[type[Peer], tuple[Module | None]]:
        return Peer, (self(),)


class Granularity(ABC):
    """Which values share a scale.

    It holds no tensor, and so is no module, but a part of one. `split` lays a tensor out so that the scale broadcasts
    to it, and `join` takes that back; the core quantizer works in between. A quantizer that several layers share has
    one scale for all their weights: `peers` lists those layers, and statistics are then taken over the weights of all
    of them.
    """

    #: Whether `split` lays tensors out anew, so that the scale broadcasts to that and not to the tensor.
    regroups: ClassVar[bool] = False

    def __init__(self) -> None:
        self.peers: list[Peer] = []

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.extra_repr()})"

    @property
    def values_per_scale(self) -> int:
        """How many values share a scale, where the recipe says so: the size of a group or block; else 0."""
        return 0

    @property
    @abstractmethod
    def scale_shape(self) -> tuple[int, ...]:
        """Shape of the scale; it broadcasts to what `split` returns.

        Raises:
            ArgumentError: it depends on a tensor that is not known, so no parameter can have it.
        """

    @abstractmethod
    def rows(self, x: Tensor) -> Tensor:
        """What `split` returned, with all values that share a scale in the last dimension."""

    @abstractmethod
    def to_scale(self, statistic: Tensor) -> Tensor:
        """A statistic of the rows, one value for each, in the shape of the scale."""

    @abstractmethod
    def per_output(self, scale: Tensor) -> Tensor:
        """A weight's scale as a factor of the layer's bias: `()` or `(channels,)`.

        Raises:
            ArgumentError: an output has several scales.
        """

    @abstractmethod
    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether the scale could be shared with another tensor of this shape."""

    def split(self, x: Tensor) -> Tensor:
        """`x` laid out so that the scale broadcasts to it: by default as it is."""
        return x

    def join(self, x: Tensor, shape: torch.Size) -> Tensor:
        """What `split` returned for a tensor of `shape`, as it was: by default as it is."""
        return x

    @property
    def is_shared(self) -> bool:
        """Whether several layers share the scale."""
        return len(self.peers) > 1

    def extra_repr(self) -> str:
        """What is printed between the parentheses."""
        return ""

    def __call__(self, x: Tensor) -> Tensor:
        """The rows of which statistics are taken: those of `x`, or of all peers where there are several."""
        if not self.is_shared:
            return self.rows(x)
        weights = [_weight(layer) for layer in [peer() for peer in self.peers] if layer is not None]
        return torch.cat([self.rows(self.split(weight.to(x.dtype))) for weight in weights], dim=-1)

    def add_peer(self, layer: Module) -> None:
        """Count `layer`, which has a `weight`, among those that share the scale; once."""
        if not any(peer() is layer for peer in self.peers):
            self.peers = [*(peer for peer in self.peers if peer() is not None), Peer(layer)]

    def remove_peer(self, layer: Module) -> None:
        """Count `layer` no longer among those that share the scale."""
        self.peers = [peer for peer in self.peers if peer() is not layer]


def granularity_of(parts: Iterable[Module]) -> Granularity | None:
    """The first granularity that one of the parts of a quantizer has; None if none has one.

    Args:
        parts: the parts, those first that count first.

    Examples:
        >>> from brevq.core.stats import AbsMax
        >>> granularity_of([AbsMax(PerTensor())])
        PerTensor()
    """
    parts = list(parts)
    named = (vars(part)["granularity_impl"] for part in parts if "granularity_impl" in vars(part))
    others = (content for part in parts for content in vars(part).values() if isinstance(content, Granularity))
    return next(named, None) or next(others, None)


def _weight(layer: Any) -> Tensor:
    """The weight of a layer that is quantized, which some compute from their parameters."""
    weight: Tensor = layer.float_parameters(None)[0] if hasattr(layer, "float_parameters") else layer.weight
    return weight


class PerTensor(Granularity):
    """One scale for the whole tensor. The scale has shape `()`.

    Examples:
        >>> PerTensor()(torch.ones(2, 3)).shape
        torch.Size([6])
    """

    @property
    def scale_shape(self) -> tuple[int, ...]:
        """`()`."""
        return ()

    def rows(self, x: Tensor) -> Tensor:
        """All values of `x`, shape `(values,)`."""
        return x.reshape(-1)

    def to_scale(self, statistic: Tensor) -> Tensor:
        """The statistic, shape `()`."""
        return statistic if statistic.dim() == 0 else statistic.reshape(())

    def per_output(self, scale: Tensor) -> Tensor:
        """The scale itself."""
        return scale

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Always."""
        return True


class PerChannel(Granularity):
    """One scale for each index along one axis. The scale has that axis' size there and 1 elsewhere.

    Args:
        tensor_shape: shape of the tensor; the layer supplies it.
        channel_axis: the axis; negative ones count from the end. The layer supplies its output axis.

    Raises:
        ArgumentTypeError: the axis is not an integer.
        ArgumentError: the shape has no such axis.

    Examples:
        >>> per_channel = PerChannel(tensor_shape=(4, 3, 5, 5), channel_axis=0)
        >>> per_channel.scale_shape
        (4, 1, 1, 1)
        >>> per_channel(torch.ones(4, 3, 5, 5)).shape
        torch.Size([4, 75])
    """

    def __init__(self, tensor_shape: tuple[int, ...], channel_axis: int) -> None:
        super().__init__()
        shape = tuple(tensor_shape)
        self.channel_axis = axis_of("channel_axis", whole_axis("channel_axis", channel_axis), shape) % len(shape)
        self._scale_shape = tuple(n if i == self.channel_axis else 1 for i, n in enumerate(shape))

    @property
    def scale_shape(self) -> tuple[int, ...]:
        """The size of the channel axis there, 1 elsewhere."""
        return self._scale_shape

    def rows(self, x: Tensor) -> Tensor:
        """The values of each channel of `x`, shape `(channels, values)`."""
        return x.movedim(self.channel_axis, 0).unsqueeze(-1).flatten(1)

    def to_scale(self, statistic: Tensor) -> Tensor:
        """The statistic, one value for each channel, along the channel axis."""
        return statistic.reshape(self.scale_shape)

    def per_output(self, scale: Tensor) -> Tensor:
        """The scales in a row, shape `(channels,)`."""
        return scale.reshape(-1)

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether there are as many channels."""
        axis = self.channel_axis
        return len(shape) == len(self.scale_shape) and shape[axis] == self.scale_shape[axis]

    def extra_repr(self) -> str:
        """Axis and scale shape, for printing."""
        return f"channel_axis={self.channel_axis}, scale_shape={self.scale_shape}"


def whole_axis(name: str, axis: int) -> int:
    """`axis`, which is an integer.

    Args:
        name: what the argument is called, for the message.
        axis: what was given.

    Raises:
        ArgumentTypeError: it is something else; True and False count as that.

    Examples:
        >>> whole_axis("channel_axis", -1)
        -1
    """
    if isinstance(axis, bool) or not isinstance(axis, int):
        raise ArgumentTypeError(f"`{name}` (={axis!r}) must be the number of an axis, not {type(axis).__name__}")
    return axis


def axis_of(name: str, axis: int, shape: tuple[int, ...]) -> int:
    """`axis`, which is one of a tensor of `shape`.

    Args:
        name: what the argument is called, for the message.
        axis: number of the axis; negative ones count from the end.
        shape: shape of the tensor.

    Raises:
        ArgumentError: the tensor has no such axis, or none at all.

    Examples:
        >>> axis_of("channel_axis", -1, (2, 3))
        -1
    """
    if not -len(shape) <= axis < len(shape):
        axes = f"axes {-len(shape)} to {len(shape) - 1}" if shape else "no axes"
        raise ArgumentError(f"`{name}` (={axis}) is not an axis of a tensor of shape {tuple(shape)}, which has {axes}")
    return axis
