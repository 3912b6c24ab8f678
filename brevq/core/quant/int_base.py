"""Integer grids: rounding to codes and back, given scale, zero-point and bit width."""

import dataclasses
import functools
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from brevq.core.checks import called, flag, kept
from brevq.core.function_wrapper import Identity, RoundSte, TensorClamp, TensorClampSte, usual
from brevq.core.quant.delay import delay_of
from brevq.core.quant.jit import compile_if_asked
from brevq.function.fused import fake_quantize
from brevq.function.ops import max_int, min_int
from brevq.function.ops_ste import round_ste
from brevq.function.residuals import is_short

#: The clamps that `fake_quantize` knows, and whether their gradient is straight-through.
_STRAIGHT = {TensorClamp: False, TensorClampSte: True}


#: What an `IntQuant` is made of, once and for all.
_OWN = ("narrow_range", "signed", "input_view_impl", "float_to_int_impl", "tensor_clamp_impl")


@dataclasses.dataclass(frozen=True)
class FusedInt:
    """An integer grid between numbers that are known, in few passes over the tensor: what `IntQuant.fused` returns.

    Args:
        low: the lowest code.
        high: the highest code.
        straight: whether clamping passes gradients.
        shifted: whether there is a zero-point.

    Examples:
        >>> FusedInt(-8.0, 7.0, straight=False, shifted=False)(
        ...     torch.tensor(0.5), torch.tensor(0.0), torch.tensor([0.7, 99.0])
        ... )
        tensor([0.5000, 3.5000])
    """

    low: float
    high: float
    straight: bool
    shifted: bool

    @property
    def forgets_input(self) -> bool:
        """Whether less than the input is kept for the gradient, whatever receives one."""
        return not self.straight and is_short(self.low, self.high)

    @property
    def clamps_at_zero(self) -> bool:
        """Whether all that is below zero becomes zero."""
        return self.low == 0 and not self.shifted

    def __call__(self, scale: Tensor, zero_point: Tensor, x: Tensor, rectified: bool = False) -> Tensor:
        """`x`, or ReLU of it, quantized and dequantized; scale and zero-point broadcast to it."""
        shift = zero_point if self.shifted else None
        return fake_quantize(x, scale, shift, self.low, self.high, self.straight, rectified)


class IntQuant(Module):
    """Scaled, shifted, uniform integer quantization of a tensor.

    ``codes = clamp(round(x / scale + zero_point), min_int, max_int)`` and ``y = (codes - zero_point) * scale``. The
    gradient of `x` is the identity's where the code was not clamped and zero where it was; scale, zero-point and
    bit width receive theirs.

    Args:
        narrow_range: whether the range gives up one code, -127 to 127 instead of -128 to 127.
        signed: whether the grid has negative codes.
        input_view_impl: lays the tensor out for quantization. Default: as it comes, as `Identity()` does.
        float_to_int_impl: rounds to integers. Default: `RoundSte()`, halves to even.
        tensor_clamp_impl: limits to the range. Default: `TensorClamp()`.
        quant_delay_steps: number of training steps to delay quantization for. Default: 0.

    Examples:
        >>> import torch
        >>> from brevq.core.quant import IntQuant
        >>> int_quant = IntQuant(narrow_range=True, signed=True)
        >>> scale, zero_point, bit_width = torch.tensor(0.01), torch.tensor(0.), torch.tensor(4.)
        >>> inp = torch.Tensor([0.042, -0.053, 0.31, -0.44])
        >>> out = int_quant(scale, zero_point, bit_width, inp)
        >>> out
        tensor([ 0.0400, -0.0500,  0.0700, -0.0700])
    """

    def __init__(
        self,
        narrow_range: bool,
        signed: bool,
        input_view_impl: Module | None = None,
        float_to_int_impl: Module | None = None,
        tensor_clamp_impl: Module | None = None,
        quant_delay_steps: int = 0,
    ) -> None:
        super().__init__()
        self.narrow_range = flag("narrow_range", narrow_range)
        self.signed = flag("signed", signed)
        self.input_view_impl = called("input_view_impl", input_view_impl, "x")
        self.float_to_int_impl = called("float_to_int_impl", float_to_int_impl or usual(RoundSte), "x")
        self.tensor_clamp_impl = called(
            "tensor_clamp_impl", tensor_clamp_impl or usual(TensorClamp), "x", "min_val", "max_val"
        )
        self.delay_wrapper = delay_of(quant_delay_steps)
        self._compiled = compile_if_asked(self)

    @torch.jit.unused
    def __setattr__(self, name: str, content: Any) -> None:
        """Set an attribute, but nothing that says which grid it is."""
        kept(self, name, *_OWN)
        super().__setattr__(name, content)

    @torch.jit.unused
    def stateless(self) -> bool:
        """Whether it counts no steps, so that one serves all quantizers that round and clamp likewise."""
        return self.delay_wrapper is None and not self._compiled

    def min_int(self, bit_width: Tensor) -> Tensor:
        """The smallest code of `bit_width` bits, a scalar tensor."""
        return min_int(self.signed, self.narrow_range, bit_width)

    def max_int(self, bit_width: Tensor) -> Tensor:
        """The largest code of `bit_width` bits, a scalar tensor."""
        return max_int(self.signed, self.narrow_range, bit_width)

    @torch.jit.unused
    def is_usual(self) -> bool:
        """Whether it rounds halves to even and clamps, as a tensor comes and from the first step on."""
        as_it_comes = self.input_view_impl is None or type(self.input_view_impl) is Identity
        usual = as_it_comes and type(self.float_to_int_impl) is RoundSte
        return usual and type(self.tensor_clamp_impl) in _STRAIGHT and self.delay_wrapper is None

    @torch.jit.unused
    def fused(self, bits: int, shifted: bool, clips: bool = True) -> FusedInt | None:
        """The same grid for a number of bits that stays, in few passes; None where a part is not the usual one.

        Args:
            bits: number of bits.
            shifted: whether there is a zero-point.
            clips: whether a value may be beyond the range. Default: True.
        """
        if not self.is_usual():
            return None
        straight = _STRAIGHT[type(self.tensor_clamp_impl)]
        return FusedInt(*_ends(self.signed, self.narrow_range, bits), straight or not clips, shifted)

    def to_int(self, scale: Tensor, zero_point: Tensor, bit_width: Tensor, x: Tensor) -> Tensor:
        """The codes of `x`: whole numbers in the dtype of `x`, differentiable."""
        if self.input_view_impl is not None:
            x = self.input_view_impl(x)
        codes: Tensor = self.float_to_int_impl(x / scale + zero_point)
        codes = self.tensor_clamp_impl(codes, self.min_int(bit_width), self.max_int(bit_width))
        return codes

    def nearest_int(self, scale: Tensor, zero_point: Tensor, bit_width: Tensor, x: Tensor) -> Tensor:
        """The nearest codes of `x`, in its shape, halves to even, however the grid rounds: what zero-points are."""
        nearest = round_ste(x / scale + zero_point)
        codes: Tensor = self.tensor_clamp_impl(nearest, self.min_int(bit_width), self.max_int(bit_width))
        return codes

    def forward(self, scale: Tensor, zero_point: Tensor, bit_width: Tensor, x: Tensor) -> Tensor:
        """`x`, quantized and dequantized; scale and zero-point broadcast to it, bit width is a scalar tensor."""
        codes = self.to_int(scale, zero_point, bit_width, x)
        y = (codes - zero_point) * scale
        if self.delay_wrapper is not None:
            y = self.delay_wrapper(x, y)
        return y


class DecoupledIntQuant(Module):
    """Integer quantization that rounds by one scale and zero-point and dequantizes by another.

    ``codes = clamp(round(x / pre_scale + pre_zero_point), min_int, max_int)`` and
    ``y = (codes - zero_point) * scale``. Gradients are those of `IntQuant`, to both pairs.

    Args:
        narrow_range: whether the range gives up one code, -127 to 127 instead of -128 to 127.
        signed: whether the grid has negative codes.
        input_view_impl: lays the tensor out for quantization. Default: as it comes, as `Identity()` does.
        float_to_int_impl: rounds to integers. Default: `RoundSte()`, halves to even.
        tensor_clamp_impl: limits to the range. Default: `TensorClamp()`.
        quant_delay_steps: number of training steps to delay quantization for. Default: 0.

    Examples:
        >>> import torch
        >>> int_quant = DecoupledIntQuant(narrow_range=True, signed=True)
        >>> scale, zero_point, bit_width = torch.tensor(0.01), torch.tensor(0.), torch.tensor(4.)
        >>> pre_scale, pre_zero_point = torch.tensor(0.02), torch.tensor(0.)
        >>> inp = torch.Tensor([0.042, -0.053, 0.31, -0.44])
        >>> out = int_quant(pre_scale, pre_zero_point, scale, zero_point, bit_width, inp)
        >>> out
        tensor([ 0.0200, -0.0300,  0.0700, -0.0700])
    """

    def __init__(
        self,
        narrow_range: bool,
        signed: bool,
        input_view_impl: Module | None = None,
        float_to_int_impl: Module | None = None,
        tensor_clamp_impl: Module | None = None,
        quant_delay_steps: int = 0,
    ) -> None:
        super().__init__()
        self.int_quant = IntQuant(narrow_range, signed, input_view_impl, float_to_int_impl, tensor_clamp_impl)
        self.delay_wrapper = delay_of(quant_delay_steps)
        compile_if_asked(self)

    def min_int(self, bit_width: Tensor) -> Tensor:
        """The smallest code of `bit_width` bits, a scalar tensor."""
        return self.int_quant.min_int(bit_width)

    def max_int(self, bit_width: Tensor) -> Tensor:
        """The largest code of `bit_width` bits, a scalar tensor."""
        return self.int_quant.max_int(bit_width)

    def to_int(self, pre_scale: Tensor, pre_zero_point: Tensor, bit_width: Tensor, x: Tensor) -> Tensor:
        """The codes of `x`: whole numbers in the dtype of `x`, differentiable."""
        return self.int_quant.to_int(pre_scale, pre_zero_point, bit_width, x)

    def nearest_int(self, scale: Tensor, zero_point: Tensor, bit_width: Tensor, x: Tensor) -> Tensor:
        """The nearest codes of `x`, in its shape, halves to even, however the grid rounds: what zero-points are."""
        return self.int_quant.nearest_int(scale, zero_point, bit_width, x)

    def forward(
        self,
        pre_scale: Tensor,
        pre_zero_point: Tensor,
        scale: Tensor,
        zero_point: Tensor,
        bit_width: Tensor,
        x: Tensor,
    ) -> Tensor:
        """`x`, quantized by the first pair and dequantized by the second; all broadcast to it."""
        codes = self.to_int(pre_scale, pre_zero_point, bit_width, x)
        y = (codes - zero_point) * scale
        if self.delay_wrapper is not None:
            y = self.delay_wrapper(x, y)
        return y


@functools.lru_cache
def _ends(signed: bool, narrow_range: bool, bits: int) -> tuple[float, float]:
    """The lowest and the highest code, as they are computed in float32."""
    bit_width = torch.tensor(float(bits), device="cpu")
    return float(min_int(signed, narrow_range, bit_width)), float(max_int(signed, narrow_range, bit_width))
