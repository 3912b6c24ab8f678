"""Scales that another quantizer quantizes: the second of two levels."""

from __future__ import annotations

from torch import Tensor
from torch.nn import Module

from brevq.core.checks import flag, positive
from brevq.core.function_wrapper import PerTensor, granularity_of
from brevq.core.restrict_val import TINY
from brevq.function.ops_ste import scalar_clamp_min_ste


class QuantizedScaling(Module):
    """Ranges that are quantized themselves, all of a tensor's laid in a row: ``max(scale_quant(r - m) + m, floor)``.

    ``r = range_impl(x)``, and ``m`` is the mean of the ranges if they are centered, else zero. As a scale is its range
    over a constant, the codes of the ranges are those of the scales. The gradient flows through both levels.

    Args:
        range_impl: returns the ranges of a tensor, such as `StatsScaling`.
        scale_quant: quantizer of the ranges: ``x -> (y, scale, zero_point, bit_width)``. Where a part of it is a
            `Granularity`, such as `PerGroup`, that says which of them share a scale of their own.
        centered_scale: whether the mean is taken off before, and added again after: so a signed grid serves numbers
            that are all positive. Default: False.
        scaling_min_val: the floor, through which gradients pass: ranges that are rounded to zero or below are that.
            Default: None, the smallest normal float32.

    Raises:
        ArgumentTypeError: `centered_scale` is not True or False, or the floor not a number.
        ArgumentError: the floor is not above zero.

    Source:
        Dettmers et al., 2023, "QLoRA", https://arxiv.org/abs/2305.14314, section 3, double quantization.

    Examples:
        >>> import torch
        >>> from brevq.core.formats.catalogue import FP8_E4M3
        >>> from brevq.core.function_wrapper import PerGroup
        >>> from brevq.core.quant import FloatQuant
        >>> from brevq.core.scaling import FloatScaling, StatsScaling
        >>> from brevq.core.stats import AbsMax
        >>> scale_quant = FloatQuant(FP8_E4M3, StatsScaling(AbsMax()), FloatScaling(FP8_E4M3))
        >>> scaling = QuantizedScaling(StatsScaling(AbsMax(PerGroup(2))), scale_quant)
        >>> scaling(torch.tensor([[[1.0, -4.48], [0.5, 1.03]]]))  # steps of 0.08 around 1
        tensor([[[4.4800],
                 [1.0400]]])
    """

    def __init__(
        self,
        range_impl: Module,
        scale_quant: Module,
        centered_scale: bool = False,
        scaling_min_val: float | None = None,
    ) -> None:
        super().__init__()
        self.range_impl = range_impl
        self.scale_quant = scale_quant
        self.centered_scale = flag("centered_scale", centered_scale)
        self.floor = TINY if scaling_min_val is None else positive("scaling_min_val", scaling_min_val)
        self._layout = granularity_of(scale_quant.modules()) or PerTensor()

    def forward(self, x: Tensor) -> Tensor:
        """The ranges of `x`, in the shape of the scale."""
        ranges = self.range_impl(x)
        # In float64, because the sum of finite numbers may be infinite.
        mean = ranges.double().mean().to(ranges.dtype) if self.centered_scale else 0.0
        return scalar_clamp_min_ste(self._quantized(ranges - mean) + mean, self.floor)

    def _quantized(self, ranges: Tensor) -> Tensor:
        """The numbers nearest to `ranges`, of any shape."""
        row = ranges.reshape(-1)
        y: Tensor = self.scale_quant(self._layout.split(row))[0]
        return self._layout.join(y, row.shape).reshape(ranges.shape)
