"""Ternary quantization: three levels, minus the scale, zero and the scale."""

import torch
from torch import Tensor
from torch.nn import Module

from brevq.core.checks import between, called
from brevq.core.quant.delay import delay_of
from brevq.core.quant.jit import compile_if_asked
from brevq.function.ops_ste import ternary_sign_ste


class TernaryQuant(Module):
    """Ternary quantization of a tensor: the signed scale where ``|x| > threshold * scale``, zero elsewhere.

    ``y = (|x| > threshold * scale) * ternary_sign_ste(x) * scale``. The gradient passes straight through the sign
    and is zero where `y` is.

    Args:
        scaling_impl: returns the scale of a tensor.
        threshold: the fraction of the scale, from 0 to 1, up to which values become zero; 0.5 rounds to nearest.
        quant_delay_steps: number of training steps to delay quantization for. Default: None, which means 0.

    Raises:
        ArgumentError: the threshold is out of range.

    Examples:
        >>> from brevq.core.scaling import ConstScaling
        >>> ternary_quant = TernaryQuant(ConstScaling(1.0), 0.5)
        >>> inp = torch.Tensor([0.04, -0.6, 3.3])
        >>> out, scale, zero_point, bit_width = ternary_quant(inp)
        >>> out
        tensor([ 0., -1.,  1.])
        >>> scale
        tensor(1.)
        >>> zero_point
        tensor(0.)
        >>> bit_width
        tensor(2.)
    """

    zero_point: Tensor
    bit_width: Tensor

    def __init__(self, scaling_impl: Module, threshold: float, quant_delay_steps: int | None = None) -> None:
        super().__init__()
        self.scaling_impl = called("scaling_impl", scaling_impl, "x")
        self.threshold = between("threshold", threshold, 0, 1)
        self.delay_wrapper = delay_of(quant_delay_steps)
        self.register_buffer("zero_point", torch.zeros(()), persistent=False)
        self.register_buffer("bit_width", torch.tensor(2.0), persistent=False)
        compile_if_asked(self)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """`x`, of any shape, quantized and dequantized; then scale, zero-point and bit width."""
        scale = self.scaling_impl(x)
        mask = (x.abs() > self.threshold * scale) | torch.isnan(x)
        y = mask * ternary_sign_ste(x) * scale
        if self.delay_wrapper is not None:
            y = self.delay_wrapper(x, y)
        return y, scale, self.zero_point, self.bit_width
