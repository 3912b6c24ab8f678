"""Ranges that come from what flows through the network."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import Module

from brevq.core.checks import called, restriction, statistic
from brevq.core.interfaces import Restriction, Statistic
from brevq.core.memo import is_pure, is_watched
from brevq.core.phase import Phase
from brevq.core.restrict_val import FloatRestrictValue
from brevq.core.scaling.learned import LsqGradientScale
from brevq.core.stats.running import Running
from brevq.core.stats.runtime import RuntimeStats


class RuntimeStatsScaling(Module):
    """A statistic of activations, observed over batches, then fixed or learned.

    See `RuntimeStats` for the phases. Networks that are trained with it pass from observed to learned ranges by
    themselves after `collect_stats_steps` batches; calibration does it explicitly.

    Args:
        scaling_stats_impl: the statistic of one batch.
        restrict_scaling_impl: which values the range may take. Default: `FloatRestrictValue()`.
        collect_stats_steps: number of training batches before the range is learned. Default: 300.
        scaling_stats_momentum: weight of a new batch in the average, from 0 to 1. Default: 0.1.
        gradient_scale_impl: what the range's gradient is multiplied by, such as `LsqGradientScale`. Default: 1.
        running_impl: how the statistics of batches become one, such as `RunningMax`. Default: a moving average.

    Raises:
        ArgumentError: the number of steps is below 1, or the momentum out of range.

    Examples:
        >>> import torch
        >>> from brevq.core.stats import AbsMax
        >>> scaling = RuntimeStatsScaling(AbsMax())
        >>> scaling(torch.tensor([1.0, -3.0])).item()
        3.0
        >>> scaling.phase
        Phase.OBSERVE
    """

    #: Whether the values of a batch have no part in how the gradient is scaled.
    _scales_blindly: bool
    #: Whether the stored number alone decides on the range.
    _stores_alone: bool

    def __init__(
        self,
        scaling_stats_impl: Statistic,
        restrict_scaling_impl: Restriction | None = None,
        collect_stats_steps: int = 300,
        scaling_stats_momentum: float = 0.1,
        gradient_scale_impl: Module | None = None,
        running_impl: Running | None = None,
    ) -> None:
        super().__init__()
        self.gradient_scale_impl = called("gradient_scale_impl", gradient_scale_impl, "stored", "x")
        self.restrict_scaling_impl: Restriction = restriction(
            "restrict_scaling_impl", restrict_scaling_impl or FloatRestrictValue()
        )
        # Plain values, past what is done for tensors and modules that are set.
        vars(self).update(
            _scales_blindly=type(gradient_scale_impl) in (type(None), LsqGradientScale),
            _stores_alone=gradient_scale_impl is None and is_pure(self.restrict_scaling_impl),
        )
        self.runtime_stats = RuntimeStats(
            statistic("scaling_stats_impl", scaling_stats_impl),
            self.restrict_scaling_impl.encode,
            collect_stats_steps,
            scaling_stats_momentum,
            called("running_impl", running_impl, "average", "statistic", "steps"),
        )

    @property
    def phase(self) -> Phase:
        """What the statistic is doing now."""
        return self.runtime_stats.phase

    def in_force(self) -> Tensor | None:
        """The range as it is stored, where it is one number on a CPU that no input changes, and that needs no gradient.

        None elsewhere, and where more than this number decides what is returned.
        """
        # From the registry: `nn.Module.__getattr__`, asked at each call, takes longer than what is done here.
        stats: Any = self._modules["runtime_stats"]
        stored: Tensor | None = stats.in_force() if self._stores_alone and not is_watched(stats) else None
        return stored

    def rectifies(self, x: Tensor) -> bool:
        """Whether the ranges for ReLU of `x` can be had without it, and nobody watches.

        Args:
            x: a tensor.
        """
        unseen = self._scales_blindly and not is_watched(self.runtime_stats)
        return unseen and self.runtime_stats.rectifies(x)

    def forward(self, x: Tensor, rectified: bool = False) -> Tensor:
        """The ranges to use for `x`, in the shape of the scale.

        Args:
            x: a tensor of any shape.
            rectified: whether ReLU of it is meant, where `rectifies` allows that. Default: no.

        Raises:
            UncalibratedError: in evaluation, no data having been seen.
        """
        stored = self.runtime_stats(x, rectified=True) if rectified else self.runtime_stats(x)
        if self.gradient_scale_impl is not None:
            stored = self.gradient_scale_impl(stored, x)
        return self.restrict_scaling_impl(stored)
