"""Thresholds of floating-point formats: what the range of a quantizer is divided by to give the scale."""

import torch
from torch import Tensor
from torch.nn import Module

from brevq.core.formats import FloatFormat


class FloatScaling(Module):
    """The largest number of a floating-point format: the range ends there.

    Args:
        float_format: the format.

    Examples:
        >>> from brevq.core.formats.catalogue import FP8_E4M3
        >>> FloatScaling(FP8_E4M3)()
        tensor(448.)
    """

    value: Tensor

    def __init__(self, float_format: FloatFormat) -> None:
        super().__init__()
        self.register_buffer("value", torch.tensor(float_format.max), persistent=False)

    def forward(self) -> Tensor:
        """The threshold, shape `()`."""
        return self.value


class PowerOfTwoFloatScaling(Module):
    """The largest power of two of a floating-point format, so that a power-of-two range gives a power-of-two scale.

    Args:
        float_format: the format.

    Source:
        Open Compute Project, "OCP Microscaling Formats (MX) Specification", version 1.0, section 6.3.

    Examples:
        >>> from brevq.core.formats.catalogue import FP8_E4M3
        >>> PowerOfTwoFloatScaling(FP8_E4M3)()
        tensor(256.)
    """

    value: Tensor

    def __init__(self, float_format: FloatFormat) -> None:
        super().__init__()
        largest = 2.0**float_format.max_exponent
        self.register_buffer("value", torch.tensor(largest), persistent=False)

    def forward(self) -> Tensor:
        """The threshold, shape `()`."""
        return self.value
