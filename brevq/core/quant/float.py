"""Quantization to a number format, scaled: minifloats, and the elements of block formats."""

import torch
from torch import Tensor
from torch.nn import Module

from brevq.core.formats import NumberFormat, cast_ste
from brevq.core.function_wrapper import RoundSte
from brevq.core.quant.delay import DelayWrapper
from brevq.core.quant.jit import compile_if_asked


class FloatQuant(Module):
    """Quantization to a floating-point format whose range is scaled to that of the tensor.

    ``scale = scaling_impl(x) / float_scaling_impl()`` and ``y = cast(x / scale) * scale``, where ``cast`` rounds the
    mantissa at the exponent of each value. The gradient of `x` is the identity's within the format's range and zero
    beyond it; the scale receives its own.

    Corner cases are the format's: beyond the range the largest number where it saturates, else infinity or NaN; NaN
    stays NaN.

    Args:
        float_format: the format; elements of blocks may be integers, so an `IntFormat` is one too.
        scaling_impl: returns the range of a tensor.
        float_scaling_impl: returns the number of the format on which the end of the range falls. Default: None, 1:
            what `scaling_impl` returns is the scale, as of `BlockScaling`.
        float_to_int_impl: rounds mantissas to integers. Default: `RoundSte()`, halves to even.
        quant_delay_steps: number of training steps to delay quantization for. Default: 0.

    Examples:
        >>> from brevq.core.formats.catalogue import FP4_E2M1
        >>> from brevq.core.scaling import ConstScaling, FloatScaling
        >>> float_quant = FloatQuant(FP4_E2M1, ConstScaling(3.0), FloatScaling(FP4_E2M1))
        >>> out, scale, zero_point, bit_width = float_quant(torch.tensor([0.3, 1.1, -2.6, 7.0]))
        >>> out
        tensor([ 0.2500,  1.0000, -3.0000,  3.0000])
        >>> scale, bit_width
        (tensor(0.5000), tensor(4.))
    """

    zero_point: Tensor
    bit_width: Tensor

    def __init__(
        self,
        float_format: NumberFormat,
        scaling_impl: Module,
        float_scaling_impl: Module | None = None,
        float_to_int_impl: Module | None = None,
        quant_delay_steps: int = 0,
    ) -> None:
        super().__init__()
        self.float_format = float_format
        self.scaling_impl = scaling_impl
        self.float_scaling_impl = float_scaling_impl
        self.float_to_int_impl = float_to_int_impl or RoundSte()
        self.delay_wrapper = DelayWrapper(quant_delay_steps)
        self.register_buffer("zero_point", torch.tensor(0.0), persistent=False)
        self.register_buffer("bit_width", torch.tensor(float(float_format.bits)), persistent=False)
        compile_if_asked(self)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """`x`, of any shape, quantized and dequantized; then scale, zero-point and bit width of the whole format."""
        scale = self.scaling_impl(x)
        if self.float_scaling_impl is not None:
            scale = scale / self.float_scaling_impl()
        y = cast_ste(self.float_format, x / scale, self.float_to_int_impl) * scale
        return self.delay_wrapper(x, y), scale, self.zero_point, self.bit_width
