"""Granularity finer than a channel: groups, two-dimensional blocks, and rows or tokens."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from brevq.core.checks import flag
from brevq.core.function_wrapper.view import Granularity, axis_of, whole_axis
from brevq.errors import ArgumentError, ArgumentTypeError

_RAGGED = (
    "{what} (={size}) does not divide axis {axis} of a tensor of shape {shape}, which has {n} values. "
    "Choose a size that does, or set `pad = True`, which fills the last one up with zeros"
)
_NO_SHAPE = "the scale of {what} depends on the tensor: it can be computed from it, and not be a parameter"
_NO_BIAS = "{what} has several scales for one output, so there is no scale for a bias to be tied to"


class PerGroup(Granularity):
    """One scale for each run of `group_size` values along an axis.

    A tensor ``(out, in)`` split along axis 1 becomes ``(out, in / group_size, group_size)``, and its scale has shape
    ``(out, in / group_size, 1)``. Other axes come first, in their order.

    Args:
        group_size: number of values that share a scale.
        group_axis: the axis along which they lie; negative ones count from the end. None for that of a weight's inputs:
            of the first two axes the one that is not `channel_axis`, of one axis that one. Default: the last.
        pad: whether a last group that is not full is filled up with zeros, which statistics then see, or refused.
            Default: refused.
        tensor_shape: shape of the tensor, where it is known: learned scales need it; a layer supplies its weight's.
        channel_axis: the axis of a weight's outputs, which a layer supplies; for a `group_axis` of None. Default: 0.

    Raises:
        ArgumentTypeError: the axis is not an integer, or `pad` not True or False.
        ArgumentError: the size is no whole number above 0, the axis is none, the axis is None and there is no shape, or
            the size does not divide the axis and `pad` is False.

    Examples:
        >>> groups = PerGroup(group_size=32, tensor_shape=(8, 64))
        >>> groups.scale_shape, groups.split(torch.ones(8, 64)).shape
        ((8, 2, 1), torch.Size([8, 2, 32]))
    """

    regroups = True

    def __init__(
        self,
        group_size: int,
        group_axis: int | None = -1,
        pad: bool = False,
        tensor_shape: tuple[int, ...] | None = None,
        channel_axis: int = 0,
    ) -> None:
        super().__init__()
        self.group_size = _size("group_size", group_size)
        self.group_axis = (
            _input_axis(tensor_shape, channel_axis) if group_axis is None else whole_axis("group_axis", group_axis)
        )
        self.pad = flag("pad", pad)
        self.tensor_shape = tensor_shape
        if tensor_shape is not None:
            self._count(torch.Size(tensor_shape))

    @property
    def values_per_scale(self) -> int:
        """The size of a group."""
        return self.group_size

    @property
    def scale_shape(self) -> tuple[int, ...]:
        """The other axes, the number of groups, and 1."""
        if self.tensor_shape is None:
            raise ArgumentError(_NO_SHAPE.format(what="groups"))
        shape = list(self.tensor_shape)
        del shape[self.group_axis]
        return (*shape, self._count(torch.Size(self.tensor_shape)), 1)

    def rows(self, x: Tensor) -> Tensor:
        """What `split` returned: groups are rows already."""
        return x

    def to_scale(self, statistic: Tensor) -> Tensor:
        """The statistic, one value for each group, with a last dimension of 1."""
        return statistic.unsqueeze(-1)

    def per_output(self, scale: Tensor) -> Tensor:
        """Refused: an output has as many scales as groups."""
        raise ArgumentError(_NO_BIAS.format(what="a weight that is quantized in groups"))

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether it is the same shape."""
        return self.tensor_shape is not None and tuple(shape) == tuple(self.tensor_shape)

    def split(self, x: Tensor) -> Tensor:
        """`x` with the group axis last, and that in groups."""
        count = self._count(x.shape)
        last = x.movedim(self.group_axis, -1)
        missing = count * self.group_size - last.shape[-1]
        full = F.pad(last, (0, missing)) if missing else last
        return full.reshape(*full.shape[:-1], count, self.group_size)

    def join(self, x: Tensor, shape: torch.Size) -> Tensor:
        """Groups in a row again, without what was filled up, and the axis where it was."""
        n = shape[self.group_axis]
        return x.flatten(-2)[..., :n].movedim(-1, self.group_axis)

    def extra_repr(self) -> str:
        """Size and axis, for printing."""
        return f"group_size={self.group_size}, group_axis={self.group_axis}"

    def _count(self, shape: torch.Size) -> int:
        """The number of groups along the axis."""
        n = shape[axis_of("group_axis", self.group_axis, shape)]
        return _blocks("`group_size`", self.group_size, self.group_axis, n, shape, self.pad)


class PerBlock(Granularity):
    """One scale for each two-dimensional block; a weight of more dimensions is taken as ``(out, everything else)``.

    A tensor ``(out, in)`` becomes ``(out / rows, in / columns, rows * columns)``, and its scale has shape
    ``(out / rows, in / columns, 1)``.

    Args:
        block_shape: rows and columns of a block. Default: 128 by 128.
        pad: whether blocks that are not full are filled up with zeros, which statistics then see, or refused.
            Default: refused.
        tensor_shape: shape of the tensor, where it is known: learned scales need it; a layer supplies its weight's.

    Raises:
        ArgumentTypeError: the sizes are not two, or `pad` is not True or False.
        ArgumentError: a size is no whole number above 0, the tensor has one dimension, or a size does not divide its
            axis and `pad` is False.

    Source:
        DeepSeek-AI, 2024, https://arxiv.org/abs/2412.19437, section 3.3.2.

    Examples:
        >>> blocks = PerBlock(block_shape=(2, 4), tensor_shape=(4, 8))
        >>> blocks.scale_shape, blocks.split(torch.ones(4, 8)).shape
        ((2, 2, 1), torch.Size([2, 2, 8]))
    """

    regroups = True

    def __init__(
        self,
        block_shape: tuple[int, int] = (128, 128),
        pad: bool = False,
        tensor_shape: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__()
        self.block_shape = _rectangle(block_shape)
        self.pad = flag("pad", pad)
        self.tensor_shape = tensor_shape
        if tensor_shape is not None:
            self._counts(torch.Size(tensor_shape))

    @property
    def values_per_scale(self) -> int:
        """Rows times columns."""
        return self.block_shape[0] * self.block_shape[1]

    @property
    def scale_shape(self) -> tuple[int, ...]:
        """The number of blocks along both axes, and 1."""
        if self.tensor_shape is None:
            raise ArgumentError(_NO_SHAPE.format(what="blocks"))
        return (*self._counts(torch.Size(self.tensor_shape)), 1)

    def rows(self, x: Tensor) -> Tensor:
        """What `split` returned: blocks are rows already."""
        return x

    def to_scale(self, statistic: Tensor) -> Tensor:
        """The statistic, one value for each block, with a last dimension of 1."""
        return statistic.unsqueeze(-1)

    def per_output(self, scale: Tensor) -> Tensor:
        """Refused: an output has as many scales as blocks."""
        raise ArgumentError(_NO_BIAS.format(what="a weight that is quantized in blocks"))

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether it is the same shape."""
        return self.tensor_shape is not None and tuple(shape) == tuple(self.tensor_shape)

    def split(self, x: Tensor) -> Tensor:
        """`x` in blocks, the values of a block in a row."""
        (down, across), (rows, columns) = self._counts(x.shape), self.block_shape
        flat = x.flatten(1)
        missing = (0, across * columns - flat.shape[1], 0, down * rows - flat.shape[0])
        padded = F.pad(flat, missing) if any(missing) else flat
        return padded.reshape(down, rows, across, columns).transpose(1, 2).flatten(2)

    def join(self, x: Tensor, shape: torch.Size) -> Tensor:
        """Blocks side by side again, without what was filled up."""
        (down, across), (rows, columns) = self._counts(shape), self.block_shape
        flat = x.reshape(down, across, rows, columns).transpose(1, 2).reshape(down * rows, across * columns)
        return flat[: shape[0], : shape[1:].numel()].reshape(shape)

    def extra_repr(self) -> str:
        """Shape of a block, for printing."""
        return f"block_shape={self.block_shape}"

    def _counts(self, shape: torch.Size) -> tuple[int, int]:
        """The number of blocks along both axes."""
        if len(shape) < 2:
            raise ArgumentError(f"blocks have two dimensions, and a tensor of shape {tuple(shape)} has {len(shape)}")
        sizes = (shape[0], shape[1:].numel())
        down, across = (
            _blocks("`block_shape`", size, axis, n, shape, self.pad)
            for axis, (size, n) in enumerate(zip(self.block_shape, sizes, strict=True))
        )
        return down, across


class PerToken(Granularity):
    """One scale for each token, row or pixel: for all the values along the feature axis.

    An activation ``(batch, tokens, features)`` has a scale of shape ``(batch, tokens, 1)``.

    Args:
        feature_axis: the axis along which a scale is shared; negative ones count from the end. Default: the last.

    Raises:
        ArgumentTypeError: the axis is not an integer.

    Source:
        Yao et al., 2022, "ZeroQuant", https://arxiv.org/abs/2206.01861, section 4.1.

    Examples:
        >>> from brevq.core.stats import AbsMax
        >>> AbsMax(PerToken())(torch.tensor([[1.0, -2.0], [3.0, 0.0]]))
        tensor([[2.],
                [3.]])
    """

    def __init__(self, feature_axis: int = -1) -> None:
        super().__init__()
        self.feature_axis = whole_axis("feature_axis", feature_axis)

    @property
    def scale_shape(self) -> tuple[int, ...]:
        """Refused: it depends on the tensor."""
        raise ArgumentError(_NO_SHAPE.format(what="tokens"))

    def rows(self, x: Tensor) -> Tensor:
        """`x` with the features last."""
        axis_of("feature_axis", self.feature_axis, x.shape)
        return x.movedim(self.feature_axis, -1)

    def to_scale(self, statistic: Tensor) -> Tensor:
        """The statistic, one value for each token, with a dimension of 1 for the features."""
        return statistic.unsqueeze(-1).movedim(-1, self.feature_axis)

    def per_output(self, scale: Tensor) -> Tensor:
        """Refused: scales belong to inputs, not to outputs."""
        raise ArgumentError(_NO_BIAS.format(what="a tensor that is quantized by token"))

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Always: scales are computed for each tensor."""
        return True

    def extra_repr(self) -> str:
        """The axis, for printing."""
        return f"feature_axis={self.feature_axis}"


def _input_axis(shape: tuple[int, ...] | None, channel_axis: int) -> int:
    """The axis of a weight's inputs: the one of the first two that is not the outputs'."""
    if shape is None:
        raise ArgumentError("`group_axis` (=None) is the axis of a weight's inputs, and `tensor_shape` is not known")
    return 0 if len(shape) == 1 or channel_axis % len(shape) == 1 else 1


def _size(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ArgumentError(f"`{name}` (={value!r}) must be a whole number of values, 1 or more")
    return value


def _rectangle(block_shape: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns, both checked."""
    if not isinstance(block_shape, (tuple, list)) or len(block_shape) != 2:
        raise ArgumentTypeError(f"`block_shape` (={block_shape!r}) must be two numbers of values, rows and columns")
    rows, columns = block_shape
    return _size("block_shape", rows), _size("block_shape", columns)


def _blocks(what: str, size: int, axis: int, n: int, shape: torch.Size, pad: bool) -> int:
    """How many runs of `size` cover `n` values; a last one that is not full only with `pad`."""
    if n % size and not pad:
        raise ArgumentError(_RAGGED.format(what=what, size=size, axis=axis, shape=tuple(shape), n=n))
    return -(-n // size)
