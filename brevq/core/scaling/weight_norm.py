"""Weight normalization before quantization, and the interval that normally distributed weights fill."""

from __future__ import annotations

from torch import Tensor
from torch.nn import Module

from brevq.core.checks import called, positive, restriction, statistic
from brevq.core.function_wrapper import Granularity, PerTensor
from brevq.core.interfaces import Restriction, Statistic
from brevq.core.restrict_val import LogFloatRestrictValue
from brevq.core.scaling.learned import LearnedStatsScaling
from brevq.core.scaling.statistics import StatsScaling
from brevq.core.stats.ops import deviation, saturating, summable


class NormalInterval(Module):
    """The end of the interval that a normal distribution fills: ``max |mean +- sigma * std| = |mean| + sigma * std``.

    The deviation is the unbiased one; of a single value it is zero. What is beyond the largest number of the dtype
    becomes that.

    Args:
        granularity_impl: which values are reduced together. Default: all of them.
        sigma: number of standard deviations, above 0. Default: 3.

    Raises:
        ArgumentError: `sigma` is not above zero.

    Source:
        Bhalgat et al., 2020, "LSQ+", section 3.2, https://arxiv.org/abs/2004.09576

    Examples:
        >>> import torch
        >>> NormalInterval(sigma=2.0)(torch.tensor([-1.0, -2.0, -3.0]))
        tensor(4.)
    """

    def __init__(self, granularity_impl: Granularity | None = None, sigma: float = 3.0) -> None:
        super().__init__()
        self.granularity_impl = granularity_impl or PerTensor()
        self.sigma = positive("sigma", sigma)

    def forward(self, x: Tensor) -> Tensor:
        """The statistic of `x`, in the shape of the scale."""
        rows, unit = summable(self.granularity_impl(x))
        return self.granularity_impl.to_scale(saturating(rows.mean(dim=-1).abs() + self.sigma * deviation(rows), unit))


class WeightNormScaling(Module):
    """The range to round by of weights whose norm is learned: ``scaling_impl(x) * norm(x) / g``.

    With the range ``r`` to dequantize by, quantization is that of the normalized weight ``g * x / norm(x)`` in the
    range ``r``. The learned norm `g` starts as the norm of the first tensor, where weight normalization does nothing.
    It is learned as its logarithm. The restriction's floor stands in for the norm of a channel of zeros.

    Args:
        scaling_impl: returns the range to dequantize by; the one that the quantizer itself is given.
        normalize_stats_impl: the norm, such as `L2Norm`.
        restrict_pre_scaling_impl: which values norms may take. Default: `LogFloatRestrictValue()`.

    Source:
        Colbert et al., 2023, "Quantized Neural Networks for Low-Precision Accumulation with Guaranteed Overflow
        Avoidance", https://arxiv.org/abs/2301.13376, and Salimans and Kingma, 2016, "Weight Normalization",
        https://arxiv.org/abs/1602.07868

    Examples:
        >>> from brevq.core.scaling import ConstScaling
        >>> from brevq.core.stats import L2Norm
        >>> import torch
        >>> scaling = WeightNormScaling(ConstScaling(0.5), L2Norm())
        >>> scaling(torch.tensor([3.0, 4.0])).item(), scaling(torch.tensor([6.0, 8.0])).item()
        (0.5, 1.0)
    """

    def __init__(
        self,
        scaling_impl: Module,
        normalize_stats_impl: Statistic,
        restrict_pre_scaling_impl: Restriction | None = None,
    ) -> None:
        super().__init__()
        restrict: Restriction = restriction(
            "restrict_pre_scaling_impl", restrict_pre_scaling_impl or LogFloatRestrictValue()
        )
        self.scaling_impl = called("scaling_impl", scaling_impl, "x")
        self.norm = StatsScaling(statistic("normalize_stats_impl", normalize_stats_impl), restrict)
        self.learned_norm = LearnedStatsScaling(normalize_stats_impl, restrict)

    def forward(self, x: Tensor) -> Tensor:
        """The ranges to round `x` by, in the shape of the scale."""
        # The ratio first: it is exactly 1 in the beginning.
        ratio: Tensor = self.norm(x) / self.learned_norm(x)
        threshold: Tensor = self.scaling_impl(x) * ratio
        return threshold
