"""Thresholds of floating-point formats: what the range of a quantizer is divided by to give the scale."""

import torch
from torch import Tensor
from torch.nn import Module

from brevq.core.checks import called
from brevq.core.formats import FloatFormat, NumberFormat


def kept_bits(float_format: NumberFormat, bit_width: Tensor) -> Tensor:
    """How many bits are left of a format that is cut to `bit_width`: sign and exponent at least, all of its at most.

    Args:
        float_format: the format.
        bit_width: number of bits, shape `()`, differentiable within these limits.

    Examples:
        >>> from brevq.core.formats.catalogue import FP8_E4M3
        >>> kept_bits(FP8_E4M3, torch.tensor(6.0)), kept_bits(FP8_E4M3, torch.tensor(2.0))
        (tensor(6.), tensor(5.))
    """
    return torch.clamp(bit_width, float_format.bits - float_format.mantissa_bits, float_format.bits)


def largest_number(float_format: NumberFormat, bit_width: Tensor) -> Tensor:
    """The largest number of a format whose mantissa is cut to ``M`` bits: ``2 ** E * (2 - 2 ** -M)``, if that is in it.

    ``E`` is the format's largest exponent.

    Args:
        float_format: the format.
        bit_width: number of bits that are left of it, shape `()`, differentiable; see `kept_bits`.

    Examples:
        >>> from brevq.core.formats.catalogue import FP8_E4M3
        >>> largest_number(FP8_E4M3, torch.tensor(6.0)), largest_number(FP8_E4M3, torch.tensor(8.0))
        (tensor(384.), tensor(448.))
    """
    mantissa_bits = bit_width - (float_format.bits - float_format.mantissa_bits)
    significand = 2 - torch.exp2(-mantissa_bits)
    return torch.clamp_max(2.0**float_format.max_exponent * significand, float_format.max)


class FloatScaling(Module):
    """The largest number of a floating-point format: the range ends there.

    Args:
        float_format: the format.
        bit_width_impl: the number of bits that the format is cut to; see `FloatQuant`. Default: its own.

    Examples:
        >>> from brevq.core.formats.catalogue import FP8_E4M3
        >>> FloatScaling(FP8_E4M3)()
        tensor(448.)
    """

    value: Tensor

    def __init__(self, float_format: FloatFormat, bit_width_impl: Module | None = None) -> None:
        super().__init__()
        self.float_format = float_format
        self.bit_width_impl = called("bit_width_impl", bit_width_impl)
        self.register_buffer("value", torch.tensor(float_format.max), persistent=False)

    def forward(self) -> Tensor:
        """The threshold, shape `()`."""
        if self.bit_width_impl is None:
            return self.value
        return largest_number(self.float_format, kept_bits(self.float_format, self.bit_width_impl()))


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
