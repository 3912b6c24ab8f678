"""Binary quantization: two levels, minus and plus the scale."""

import torch
from torch import Tensor
from torch.nn import Module

from brevq.core.checks import called
from brevq.core.function_wrapper import TensorClamp, usual
from brevq.core.quant.delay import delay_of
from brevq.core.quant.jit import compile_if_asked
from brevq.errors import ArgumentError
from brevq.function.ops_ste import binary_sign_ste


class BinaryQuant(Module):
    """Binary quantization of a tensor: ``scale`` where ``x >= 0``, ``-scale`` elsewhere.

    ``y = binary_sign_ste(x) * scale``. The gradient passes straight through the sign, for all of `x`.

    Args:
        scaling_impl: returns the scale of a tensor.
        signed: whether there are negative levels; binary levels are minus and plus, so only True. Default: True.
        quant_delay_steps: number of training steps to delay quantization for. Default: 0.

    Raises:
        ArgumentError: `signed` is False.

    Examples:
        >>> from brevq.core.scaling import ConstScaling
        >>> binary_quant = BinaryQuant(ConstScaling(0.1))
        >>> inp = torch.Tensor([0.04, -0.6, 3.3])
        >>> out, scale, zero_point, bit_width = binary_quant(inp)
        >>> out
        tensor([ 0.1000, -0.1000,  0.1000])
        >>> scale
        tensor(0.1000)
        >>> zero_point
        tensor(0.)
        >>> bit_width
        tensor(1.)
    """

    zero_point: Tensor
    bit_width: Tensor

    def __init__(self, scaling_impl: Module, signed: bool = True, quant_delay_steps: int = 0) -> None:
        super().__init__()
        _check_signed(signed)
        self.scaling_impl = called("scaling_impl", scaling_impl, "x")
        self.delay_wrapper = delay_of(quant_delay_steps)
        self.register_buffer("zero_point", torch.zeros(()), persistent=False)
        self.register_buffer("bit_width", torch.tensor(1.0), persistent=False)
        compile_if_asked(self)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """`x`, of any shape, quantized and dequantized; then scale, zero-point and bit width."""
        scale = self.scaling_impl(x)
        y = binary_sign_ste(x) * scale
        if self.delay_wrapper is not None:
            y = self.delay_wrapper(x, y)
        return y, scale, self.zero_point, self.bit_width


class ClampedBinaryQuant(Module):
    """Binary quantization of a tensor that is limited to minus and plus the scale before.

    ``y = binary_sign_ste(clamp(x, -scale, scale)) * scale``: the values are those of `BinaryQuant`, and the
    gradient is zero outside the limits, as Hubara et al. train binary networks
    (https://arxiv.org/abs/1602.02830).

    Args:
        scaling_impl: returns the scale of a tensor.
        tensor_clamp_impl: limits a tensor. Default: `TensorClamp()`.
        quant_delay_steps: number of training steps to delay quantization for. Default: 0.

    Examples:
        >>> from brevq.core.scaling import ConstScaling
        >>> binary_quant = ClampedBinaryQuant(ConstScaling(0.1))
        >>> inp = torch.Tensor([0.04, -0.6, 3.3]).requires_grad_(True)
        >>> out, scale, zero_point, bit_width = binary_quant(inp)
        >>> out
        tensor([ 0.1000, -0.1000,  0.1000], grad_fn=<MulBackward0>)
        >>> out.backward(torch.Tensor([1.0, 1.0, 1.0]))
        >>> inp.grad
        tensor([0.1000, 0.0000, 0.0000])
        >>> scale
        tensor(0.1000)
        >>> zero_point
        tensor(0.)
        >>> bit_width
        tensor(1.)
    """

    zero_point: Tensor
    bit_width: Tensor

    def __init__(
        self, scaling_impl: Module, tensor_clamp_impl: Module | None = None, quant_delay_steps: int = 0
    ) -> None:
        super().__init__()
        self.scaling_impl = called("scaling_impl", scaling_impl, "x")
        self.tensor_clamp_impl = called(
            "tensor_clamp_impl", tensor_clamp_impl or usual(TensorClamp), "x", "min_val", "max_val"
        )
        self.delay_wrapper = delay_of(quant_delay_steps)
        self.register_buffer("zero_point", torch.zeros(()), persistent=False)
        self.register_buffer("bit_width", torch.tensor(1.0), persistent=False)
        compile_if_asked(self)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """`x`, of any shape, quantized and dequantized; then scale, zero-point and bit width."""
        scale = self.scaling_impl(x)
        clamped = self.tensor_clamp_impl(x, -scale, scale)
        y = binary_sign_ste(clamped) * scale
        if self.delay_wrapper is not None:
            y = self.delay_wrapper(x, y)
        return y, scale, self.zero_point, self.bit_width


def _check_signed(signed: bool) -> None:
    if not signed:
        raise ArgumentError("`signed` (=False) must be True: the levels of binary quantization are -scale and scale")
