"""The short way of weights: range, grid and values from one look at the largest absolute value."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from brevq.core.memo import is_watched
from brevq.function.fused_max import fake_quantize_by_max, is_fused
from brevq.function.recomputed import Source, remember


class ByMax:
    """Quantization by a tensor's own largest absolute value, put on the last code of a symmetric grid.

    Args:
        scaling_impl: a `StatsScaling` of `AbsMax` with a `FloatRestrictValue`.
        threshold: the last code.

    Examples:
        >>> import torch
        >>> from brevq.core.scaling import StatsScaling
        >>> from brevq.core.stats import AbsMax
        >>> by_max = ByMax(StatsScaling(AbsMax()), 2.0)
        >>> x = torch.tensor([0.4, -1.0], requires_grad=True)
        >>> by_max(x)[0].tolist(), by_max(x.detach())[0].tolist()
        ([0.5, -1.0], [0.5, -1.0])
    """

    def __init__(self, scaling_impl: Any, threshold: float) -> None:
        self.scaling_impl = scaling_impl
        self.stats_impl = scaling_impl.stats_impl
        self.restrict_impl = scaling_impl.restrict_scaling_impl
        self.threshold = threshold

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor] | None:
        """`x` quantized, and its scale; None where it has to go the long way.

        That is where several tensors share a scale, rows do not lie one after the other in memory, or somebody watches
        a part that is passed by.

        Args:
            x: what the core quantizer is called with.
        """
        granularity = self.stats_impl.granularity_impl
        if not is_fused(x) or granularity.is_shared or self._is_watched() or x.numel() == 0:
            return None
        rows = granularity.rows(x)
        if not rows.is_contiguous() or rows.data_ptr() != x.data_ptr():
            return None
        limits = self.restrict_impl.floor, self.threshold
        y, scale = fake_quantize_by_max(rows, *limits)
        weight = y.view_as(x)
        if weight.requires_grad:
            remember(weight, Source(rows, scale, *limits))
        return weight, granularity.to_scale(scale)

    def _is_watched(self) -> bool:
        return is_watched(self.scaling_impl, self.stats_impl, self.restrict_impl)
