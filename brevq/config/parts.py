"""The part that only the vocabulary needs: scales on the grid of a format."""

from __future__ import annotations

from torch import Tensor
from torch.nn import Module

from brevq.core.formats import FloatFormat, cast_ste
from brevq.errors import ArgumentError


class FormatScaling(Module):
    """Ranges whose scale, the range over the threshold, is a number of a format.

    ``cast(range_impl(x) / threshold) * threshold``, which the quantizer divides by the threshold again. That gives
    the number of the format exactly where it and the threshold together have at most 24 significant bits.

    Corner cases: scales that round to zero are the smallest number above it; those beyond the format its largest.

    Args:
        range_impl: returns the range of a tensor, such as `StatsScaling`.
        scale_format: the format of the scales.
        int_scaling_impl: the threshold of an integer grid, for a bit width.
        bit_width_impl: the bit width of that grid.
        float_scaling_impl: the threshold of a floating-point format, which then counts.

    Raises:
        ArgumentError: there is neither threshold.

    Examples:
        >>> import torch
        >>> from brevq.core.formats.catalogue import FP4_E2M1, FP8_E5M3
        >>> from brevq.core.scaling import ConstScaling, FloatScaling
        >>> scaling = FormatScaling(ConstScaling(7.0), FP8_E5M3, float_scaling_impl=FloatScaling(FP4_E2M1))
        >>> scaling(torch.ones(2)) / 6  # 7 / 6 is 1.1667
        tensor(1.1250)
    """

    def __init__(
        self,
        range_impl: Module,
        scale_format: FloatFormat,
        int_scaling_impl: Module | None = None,
        bit_width_impl: Module | None = None,
        float_scaling_impl: Module | None = None,
    ) -> None:
        super().__init__()
        if float_scaling_impl is None and (int_scaling_impl is None or bit_width_impl is None):
            raise ArgumentError("give `int_scaling_impl` and `bit_width_impl`, or `float_scaling_impl`")
        self.range_impl = range_impl
        self.scale_format = scale_format
        self.int_scaling_impl = int_scaling_impl
        self.bit_width_impl = bit_width_impl
        self.float_scaling_impl = float_scaling_impl

    def forward(self, x: Tensor) -> Tensor:
        """The ranges of `x`, in the shape of the scale."""
        threshold = self.threshold()
        scale = cast_ste(self.scale_format, self.range_impl(x) / threshold)
        return scale.clamp_min(self.scale_format.smallest) * threshold

    def threshold(self) -> Tensor:
        """What the quantizer divides ranges by, shape `()`."""
        if self.float_scaling_impl is not None:
            threshold: Tensor = self.float_scaling_impl()
        elif self.int_scaling_impl is not None and self.bit_width_impl is not None:
            threshold = self.int_scaling_impl(self.bit_width_impl())
        return threshold

    def extra_repr(self) -> str:
        """The format, for printing."""
        return f"scale_format={self.scale_format}"
