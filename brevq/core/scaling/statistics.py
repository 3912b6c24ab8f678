"""Ranges that are recomputed from the tensor at every call."""

from __future__ import annotations

from torch import Tensor
from torch.nn import Module

from brevq.core.checks import restriction, statistic
from brevq.core.interfaces import Restriction, Statistic
from brevq.core.restrict_val import FloatRestrictValue

#: A range that is larger, divided by any last code, is no denormal number of float32.
_LEAST = 2.0**-100


class StatsScaling(Module):
    """A statistic of the tensor itself, recomputed at every call: ``restrict(stats(x))``.

    The usual choice for weights: the range follows the weights while they train, and there is no state to keep.
    For activations it is dynamic quantization. The gradient flows through the statistic.

    Args:
        scaling_stats_impl: the statistic.
        restrict_scaling_impl: which values the range may take. Default: `FloatRestrictValue()`.

    Examples:
        >>> import torch
        >>> from brevq.core.stats import AbsMax
        >>> StatsScaling(AbsMax())(torch.tensor([1.0, -3.0]))
        tensor(3.)
    """

    def __init__(self, scaling_stats_impl: Statistic, restrict_scaling_impl: Restriction | None = None) -> None:
        super().__init__()
        self.stats_impl = statistic("scaling_stats_impl", scaling_stats_impl)
        self.restrict_scaling_impl: Restriction = restriction(
            "restrict_scaling_impl", restrict_scaling_impl or FloatRestrictValue()
        )
        #: Whether no value exceeds the range, so that none is clipped. Restrictions other than a floor may shrink it,
        #: and divided by a denormal scale the largest value may be rounded beyond the last code.
        self.covers = getattr(scaling_stats_impl, "covers", False) and (
            type(self.restrict_scaling_impl) is FloatRestrictValue and self.restrict_scaling_impl.floor >= _LEAST
        )

    def forward(self, x: Tensor) -> Tensor:
        """The ranges of `x`, in the shape of the scale."""
        return self.restrict_scaling_impl(self.restrict_scaling_impl.encode(self.stats_impl(x)))
