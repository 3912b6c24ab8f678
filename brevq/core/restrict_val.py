"""Which values a scale may take: any, logarithmic, powers of two, or integers.

A restriction stands between a number that is observed or learned and the scale that is used. It has two halves:
`encode` takes a positive number to where it is stored and learned (its logarithm, say), and calling the module
takes what is stored to the restricted, positive value. Both respect the floor `scaling_min_val`.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from brevq.core.checks import kept, positive
from brevq.core.function_wrapper import CeilSte, RoundSte
from brevq.function.ops_ste import abs_binary_sign_grad, scalar_clamp_min_ste, scalar_clamp_ste

#: The smallest normal float32: the floor of logarithms where a recipe asks for none.
TINY = torch.finfo(torch.float32).tiny
# The largest logarithm of which float32 has the power, and the largest exponent of a power of two in it.
_LARGEST_LOG = 128 - 2.0**-17
_LARGEST_EXPONENT = 127.0


class FloatRestrictValue(Module):
    """Any positive number: ``max(|stored|, scaling_min_val)``, stored as it is.

    Args:
        scaling_min_val: the floor, through which gradients pass; None for the smallest normal float32, with which
            zeros stay zeros.

    Raises:
        ArgumentError: the floor is not above zero.

    Examples:
        >>> FloatRestrictValue(scaling_min_val=0.5)(torch.tensor([0.1, -2.0]))
        tensor([0.5000, 2.0000])
    """

    stateless = True

    def __init__(self, scaling_min_val: float | None = None) -> None:
        super().__init__()
        self.floor = TINY if scaling_min_val is None else positive("scaling_min_val", scaling_min_val)

    def encode(self, value: Tensor) -> Tensor:
        """`value`, unchanged."""
        return value

    def forward(self, stored: Tensor) -> Tensor:
        """The positive value of `stored`, of any shape."""
        return scalar_clamp_min_ste(abs_binary_sign_grad(stored), self.floor)


class LogFloatRestrictValue(Module):
    """Any positive number, stored and learned as its base-2 logarithm: ``2 ** max(stored, log2(scaling_min_val))``.

    Beyond the largest float32 it is that, to rounding. Gradients pass through both limits.

    Args:
        scaling_min_val: the floor; None for the smallest normal float32.

    Raises:
        ArgumentError: the floor is not above zero.

    Examples:
        >>> restrict = LogFloatRestrictValue()
        >>> restrict(restrict.encode(torch.tensor(0.3)))
        tensor(0.3000)
    """

    stateless = True

    def __init__(self, scaling_min_val: float | None = None) -> None:
        super().__init__()
        self.floor = TINY if scaling_min_val is None else positive("scaling_min_val", scaling_min_val)

    def encode(self, value: Tensor) -> Tensor:
        """The base-2 logarithm of `value`, or of the floor where it is below."""
        return torch.log2(scalar_clamp_min_ste(value, self.floor))

    def forward(self, stored: Tensor) -> Tensor:
        """Two to the power of `stored`, of any shape."""
        return torch.exp2(scalar_clamp_ste(stored, math.log2(self.floor), _LARGEST_LOG))


class PowerOfTwoRestrictValue(Module):
    """A power of two, stored as its exponent: ``2 ** round(max(stored, log2(scaling_min_val)))``.

    Multiplication by such a scale is a shift, which is what fixed-point hardware does. By default the exponent is
    rounded up, so that no value that fitted the original range is clipped. It ends at 127, that of the largest power
    of two that float32 has: a range beyond is clipped to it. Gradients pass through both limits.

    Args:
        restrict_value_float_to_int_impl: rounding of the exponent. Default: `CeilSte()`.
        scaling_min_val: the floor; None for the smallest normal float32.

    Raises:
        ArgumentError: the floor is not above zero.

    Source:
        Jain et al., 2020, "Trained Quantization Thresholds", https://arxiv.org/abs/1903.08066

    Examples:
        >>> restrict = PowerOfTwoRestrictValue()
        >>> restrict(restrict.encode(torch.tensor([0.3, 4.0])))
        tensor([0.5000, 4.0000])
    """

    stateless = True

    #: Integer thresholds are powers of two as well, so that scales, their quotients, are too.
    power_of_two = True

    def __init__(
        self, restrict_value_float_to_int_impl: Module | None = None, scaling_min_val: float | None = None
    ) -> None:
        super().__init__()
        self.float_to_int_impl = restrict_value_float_to_int_impl or CeilSte()
        self.floor = TINY if scaling_min_val is None else positive("scaling_min_val", scaling_min_val)

    def __setattr__(self, name: str, content: Any) -> None:
        """Set an attribute, but not another rounding than that which it was made with."""
        kept(self, name, "float_to_int_impl")
        super().__setattr__(name, content)

    def encode(self, value: Tensor) -> Tensor:
        """The base-2 logarithm of `value`, or of the floor where it is below."""
        return torch.log2(scalar_clamp_min_ste(value, self.floor))

    def forward(self, stored: Tensor) -> Tensor:
        """Two to the power of `stored` rounded, of any shape."""
        limited = scalar_clamp_ste(stored, math.log2(self.floor), _LARGEST_EXPONENT)
        exponent: Tensor = self.float_to_int_impl(limited)
        return torch.exp2(exponent)


class IntRestrictValue(Module):
    """A positive integer: ``max(round(|stored|), 1)``, stored as it is.

    Args:
        restrict_value_float_to_int_impl: rounding. Default: `RoundSte()`.
        scaling_min_val: the floor, at least 1; None for 1.

    Raises:
        ArgumentError: the floor is not above zero.

    Examples:
        >>> IntRestrictValue()(torch.tensor([0.2, 2.7]))
        tensor([1., 3.])
    """

    stateless = True

    def __init__(
        self, restrict_value_float_to_int_impl: Module | None = None, scaling_min_val: float | None = None
    ) -> None:
        super().__init__()
        self.float_to_int_impl = restrict_value_float_to_int_impl or RoundSte()
        self.floor = 1.0 if scaling_min_val is None else max(1.0, positive("scaling_min_val", scaling_min_val))

    def __setattr__(self, name: str, content: Any) -> None:
        """Set an attribute, but not another rounding than that which it was made with."""
        kept(self, name, "float_to_int_impl")
        super().__setattr__(name, content)

    def encode(self, value: Tensor) -> Tensor:
        """`value`, unchanged."""
        return value

    def forward(self, stored: Tensor) -> Tensor:
        """The positive integer of `stored`, of any shape."""
        return scalar_clamp_min_ste(self.float_to_int_impl(abs_binary_sign_grad(stored)), self.floor)
