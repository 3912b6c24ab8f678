"""Norms and averages of maxima: the statistics of weight normalization, of signed scales and of learned deviations."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import Module, Parameter

from brevq.core.checks import positive
from brevq.core.function_wrapper import Granularity, PerTensor
from brevq.core.stats.ops import deviation, saturating, summable
from brevq.core.stats.unit import near_one
from brevq.errors import ArgumentError

_ONE_SCALE = (
    "`granularity_impl` (={granularity}) must be `PerTensor()`: one number is computed from all channels. "
    "`channel_granularity_impl` says what a channel is"
)


class L1Norm(Module):
    """The sum of the absolute values: ``sum |x|``.

    Its gradient is the sign of each value, and zero at zero. A sum beyond the largest number of the dtype becomes that.

    Args:
        granularity_impl: which values are reduced together. Default: all of them.

    Source:
        Colbert et al., 2023, "A2Q", https://arxiv.org/abs/2308.13504, which bounds it.

    Examples:
        >>> L1Norm()(torch.tensor([1.0, -3.0]))
        tensor(4.)
    """

    def __init__(self, granularity_impl: Granularity | None = None) -> None:
        super().__init__()
        self.granularity_impl = granularity_impl or PerTensor()

    def forward(self, x: Tensor) -> Tensor:
        """The norms of `x`, in the shape of the scale."""
        rows, unit = summable(self.granularity_impl(x))
        return self.granularity_impl.to_scale(saturating(torch.linalg.vector_norm(rows, ord=1, dim=-1), unit))


class L2Norm(Module):
    """The Euclidean norm: ``sqrt(sum x ** 2)``.

    Its gradient is ``x / norm``, and zero where all values are zero. Squares are summed in units of a power of two, so
    none overflows or vanishes, however large or small the values are. A norm beyond the largest number of the dtype
    becomes that.

    Args:
        granularity_impl: which values are reduced together. Default: all of them.

    Source:
        Salimans and Kingma, 2016, "Weight Normalization", https://arxiv.org/abs/1602.07868

    Examples:
        >>> L2Norm()(torch.tensor([3.0, -4.0]))
        tensor(5.)
    """

    def __init__(self, granularity_impl: Granularity | None = None) -> None:
        super().__init__()
        self.granularity_impl = granularity_impl or PerTensor()

    def forward(self, x: Tensor) -> Tensor:
        """The Euclidean norms of `x`, in the shape of the scale."""
        return self.granularity_impl.to_scale(_euclidean(self.granularity_impl(x)))


class SignedAbsMax(Module):
    """The value of largest magnitude, with its sign turned: ``-x[argmax |x|]``, the first of several.

    A range that may be negative. Divided by 128 it gives the scale with which that value, whatever its sign, falls
    on code -128 of int8, so that no code is given up. It needs a scale that may be negative: the usual restrictions
    take the absolute value of a range.

    Args:
        granularity_impl: which values are reduced together. Default: all of them.

    Examples:
        >>> SignedAbsMax()(torch.tensor([1.0, -3.0, 2.0])), SignedAbsMax()(torch.tensor([1.0, 3.0, 2.0]))
        (tensor(3.), tensor(-3.))
    """

    def __init__(self, granularity_impl: Granularity | None = None) -> None:
        super().__init__()
        self.granularity_impl = granularity_impl or PerTensor()

    def forward(self, x: Tensor) -> Tensor:
        """The signed ranges of `x`, in the shape of the scale."""
        rows = self.granularity_impl(x)
        largest = rows.abs().argmax(dim=-1, keepdim=True)
        return self.granularity_impl.to_scale(-rows.gather(-1, largest).squeeze(-1))


class AbsMaxAve(Module):
    """The mean over channels of their largest absolute values: ``mean_c max |x_c|``.

    Args:
        channel_granularity_impl: what a channel is, such as `PerChannel`.
        granularity_impl: how many scales there are: one. Default: `PerTensor()`.

    Raises:
        ArgumentError: `granularity_impl` asks for more than one scale.

    Examples:
        >>> from brevq.core.function_wrapper import PerChannel
        >>> AbsMaxAve(PerChannel(tensor_shape=(2, 2), channel_axis=0))(torch.tensor([[1.0, -3.0], [5.0, 4.0]]))
        tensor(4.)
    """

    def __init__(self, channel_granularity_impl: Granularity, granularity_impl: Granularity | None = None) -> None:
        super().__init__()
        self.granularity_impl = _one_scale(granularity_impl)
        self.channel_granularity_impl = channel_granularity_impl

    def forward(self, x: Tensor) -> Tensor:
        """The mean of the maxima of `x`, shape `()`."""
        maxima, unit = summable(self.channel_granularity_impl(x).abs().amax(dim=-1).flatten())
        return self.granularity_impl.to_scale(saturating(maxima.mean(), unit))


class AbsMaxL2(Module):
    """The root mean square over channels of their largest absolute values: ``sqrt(mean_c (max |x_c|) ** 2)``.

    It is their Euclidean norm divided by the square root of their number.

    Args:
        channel_granularity_impl: what a channel is, such as `PerChannel`.
        granularity_impl: how many scales there are: one. Default: `PerTensor()`.

    Raises:
        ArgumentError: `granularity_impl` asks for more than one scale.

    Examples:
        >>> from brevq.core.function_wrapper import PerChannel
        >>> AbsMaxL2(PerChannel(tensor_shape=(2, 2), channel_axis=0))(torch.tensor([[1.0, -1.0], [7.0, 4.0]]))
        tensor(5.)
    """

    def __init__(self, channel_granularity_impl: Granularity, granularity_impl: Granularity | None = None) -> None:
        super().__init__()
        self.granularity_impl = _one_scale(granularity_impl)
        self.channel_granularity_impl = channel_granularity_impl

    def forward(self, x: Tensor) -> Tensor:
        """The root mean square of the maxima of `x`, shape `()`."""
        maxima, unit = summable(self.channel_granularity_impl(x).abs().amax(dim=-1).flatten())
        return self.granularity_impl.to_scale(saturating(_euclidean(maxima) / maxima.numel() ** 0.5, unit))


class MeanLearnedSigmaStd(Module):
    """The mean of the absolute values and a learned number of deviations more: ``mean |x| + sigma * std |x|``.

    The deviation is that of `MeanSigmaStd`. Each scale has a `sigma` of its own.

    Args:
        granularity_impl: which values are reduced together; its scales' shape must be known. Default: all of them.
        sigma: number of standard deviations to start from, above 0. Default: 3.

    Raises:
        ArgumentError: `sigma` is not above zero, or the number of scales depends on the tensor.

    Examples:
        >>> stats = MeanLearnedSigmaStd(sigma=2.0)
        >>> stats(torch.tensor([1.0, -1.0, 1.0])).detach(), stats.sigma.item()
        (tensor(1.), 2.0)
    """

    def __init__(self, granularity_impl: Granularity | None = None, sigma: float = 3.0) -> None:
        super().__init__()
        self.granularity_impl = granularity_impl or PerTensor()
        self.sigma = Parameter(torch.full(self.granularity_impl.scale_shape, positive("sigma", sigma)))

    def forward(self, x: Tensor) -> Tensor:
        """The statistic of `x`, in the shape of the scale."""
        rows, unit = summable(self.granularity_impl(x).abs())
        mean = self.granularity_impl.to_scale(rows.mean(dim=-1))
        stats = mean + self.sigma * self.granularity_impl.to_scale(deviation(rows))
        return saturating(stats, self.granularity_impl.to_scale(unit))


def _euclidean(rows: Tensor) -> Tensor:
    """The Euclidean norm of each row."""
    scaled, unit = near_one(rows)
    return saturating(torch.linalg.vector_norm(scaled, ord=2, dim=-1), unit.squeeze(-1))


def _one_scale(granularity: Granularity | None) -> Granularity:
    """`granularity` if it is one scale for the whole tensor, which it is by default."""
    if granularity is not None and not isinstance(granularity, PerTensor):
        raise ArgumentError(_ONE_SCALE.format(granularity=granularity))
    return granularity or PerTensor()
