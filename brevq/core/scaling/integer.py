"""Integer thresholds: what the range of a quantizer is divided by to give the scale."""

import torch
from torch import Tensor
from torch.nn import Module

from brevq.function.ops import max_int, min_int
from brevq.function.ops_ste import tensor_clamp


class IntScaling(Module):
    """The integer that the end of the range falls on.

    Unsigned: the largest code. Signed: the negative of the smallest code, 127 for narrow int8 and 128 for the full
    range.

    Args:
        signed: whether the grid has negative codes.
        narrow_range: whether the range gives up one code.

    Examples:
        >>> IntScaling(signed=True, narrow_range=True)(torch.tensor(8.0))
        tensor(127.)
        >>> IntScaling(signed=True, narrow_range=False)(torch.tensor(8.0))
        tensor(128.)
    """

    stateless = True

    def __init__(self, signed: bool, narrow_range: bool) -> None:
        super().__init__()
        self.signed = signed
        self.narrow_range = narrow_range

    def forward(self, bit_width: Tensor) -> Tensor:
        """The threshold for a grid of `bit_width` bits, a scalar tensor."""
        if self.signed:
            return -min_int(self.signed, self.narrow_range, bit_width)
        return max_int(self.signed, self.narrow_range, bit_width)


class PowerOfTwoIntScaling(Module):
    """The power of two at the end of the range, so that a power-of-two range gives a power-of-two scale.

    ``2 ** (bit_width - 1)`` when signed, ``2 ** bit_width`` when not.

    Args:
        signed: whether the grid has negative codes.

    Examples:
        >>> PowerOfTwoIntScaling(signed=True)(torch.tensor(8.0))
        tensor(128.)
    """

    stateless = True

    def __init__(self, signed: bool) -> None:
        super().__init__()
        self.signed = signed

    def forward(self, bit_width: Tensor) -> Tensor:
        """The threshold for a grid of `bit_width` bits, a scalar tensor."""
        return torch.exp2(bit_width - 1) if self.signed else torch.exp2(bit_width)


class StepScaling(Module):
    """The number of steps from the lowest code to the highest: ``2 ** bit_width - 1``, signed or not, narrow one less.

    The threshold of grids with a zero-point, whose range is the whole width of a tensor.

    Args:
        narrow_range: whether the range gives up one code. Default: False.
        power_of_two_steps: whether it is ``2 ** bit_width``, so that a power-of-two range gives a power-of-two scale.
            Default: False.

    Examples:
        >>> StepScaling()(torch.tensor(8.0)), StepScaling(power_of_two_steps=True)(torch.tensor(8.0))
        (tensor(255.), tensor(256.))
    """

    stateless = True

    def __init__(self, narrow_range: bool = False, power_of_two_steps: bool = False) -> None:
        super().__init__()
        self.narrow_range = narrow_range
        self.power_of_two_steps = power_of_two_steps

    def forward(self, bit_width: Tensor) -> Tensor:
        """The threshold for a grid of `bit_width` bits, a scalar tensor."""
        return torch.exp2(bit_width) if self.power_of_two_steps else max_int(False, self.narrow_range, bit_width)


class TruncMsbScaling(Module):
    """The factor by which an integer shrinks when only its most significant bits are kept.

    ``2 ** (input_bit_width - output_bit_width)``.

    Examples:
        >>> TruncMsbScaling()(torch.zeros(1), torch.tensor(8.0), torch.tensor(4.0), torch.tensor(True))
        tensor(16.)
    """

    stateless = True

    def forward(
        self, scaling_input: Tensor, input_bit_width: Tensor, output_bit_width: Tensor, signed: Tensor
    ) -> Tensor:
        """The factor, a scalar tensor; the values and the sign do not matter to it."""
        return torch.exp2(input_bit_width - output_bit_width)


class TruncLsbScaling(Module):
    """The factor by which an integer shrinks when its least significant bits are kept: 1, what is beyond is clipped.

    Examples:
        >>> TruncLsbScaling()(torch.zeros(1), torch.tensor(8.0), torch.tensor(4.0), torch.tensor(True))
        tensor(1.)
    """

    stateless = True

    def forward(
        self, scaling_input: Tensor, input_bit_width: Tensor, output_bit_width: Tensor, signed: Tensor
    ) -> Tensor:
        """The factor, a scalar tensor, whatever the codes, their bits and their sign."""
        return torch.ones_like(output_bit_width)


class TruncRangeScaling(Module):
    """The factor by which an integer shrinks when a range of its codes is kept, and what is beyond is clipped.

    ``range_impl(codes) / 2 ** (output_bit_width - signed)``, between 1, which keeps the least significant bits, and
    ``2 ** (input_bit_width - output_bit_width)``, which keeps the most significant ones. With a power-of-two range it
    is a shift.

    Args:
        scaling_impl: returns the range of codes, such as `RuntimeStatsScaling`.

    Examples:
        >>> from brevq.core.scaling import ConstScaling
        >>> scaling = TruncRangeScaling(ConstScaling(32.0))
        >>> scaling(torch.zeros(1), torch.tensor(8.0), torch.tensor(4.0), torch.tensor(True))
        tensor(4.)
    """

    def __init__(self, scaling_impl: Module) -> None:
        super().__init__()
        self.scaling_impl = scaling_impl

    def forward(
        self, scaling_input: Tensor, input_bit_width: Tensor, output_bit_width: Tensor, signed: Tensor
    ) -> Tensor:
        """The factor, in the shape of the range, for codes of any shape; `signed` says whether they may be negative."""
        threshold = torch.exp2(output_bit_width - signed.to(output_bit_width.dtype))
        largest = torch.exp2(input_bit_width - output_bit_width)
        one = torch.ones_like(largest)
        scale = self.scaling_impl(scaling_input) / threshold
        return tensor_clamp(scale, torch.minimum(largest, one), torch.maximum(largest, one))
