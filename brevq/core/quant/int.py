"""Integer quantizers: an integer grid together with what gives it scale, zero-point and bit width."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import Module

from brevq.core.checks import called
from brevq.core.function_wrapper import TensorClamp, usual
from brevq.core.quant.delay import delay_of
from brevq.core.quant.jit import compile_if_asked
from brevq.core.quant.short import ShortWays, constant_bits, fused_grid, quantize
from brevq.core.scaling.integer import TruncMsbScaling
from brevq.core.zero_point import ZeroZeroPoint
from brevq.function.ops import max_int, min_int
from brevq.function.ops_ste import is_scripting, round_ste


class RescalingIntQuant(Module):
    """Integer quantization whose scale is a range divided by an integer threshold.

    ``scale = scaling_impl(x) / int_scaling_impl(bit_width)``.

    Args:
        int_quant: the integer grid, such as `IntQuant`.
        scaling_impl: returns the range of a tensor: the threshold in float.
        int_scaling_impl: returns the integer threshold for a bit width.
        zero_point_impl: returns the zero-point for a tensor, scale and bit width.
        bit_width_impl: returns the bit width.

    Examples:
        >>> from brevq.core.scaling import ConstScaling
        >>> from brevq.core.zero_point import ZeroZeroPoint
        >>> from brevq.core.scaling import IntScaling
        >>> from brevq.core.quant import IntQuant
        >>> from brevq.core.bit_width import BitWidthConst
        >>> int_quant_wrapper = RescalingIntQuant(
        ...                         IntQuant(narrow_range=True, signed=True),
        ...                         ConstScaling(0.1),
        ...                         IntScaling(signed=True, narrow_range=True),
        ...                         ZeroZeroPoint(),
        ...                         BitWidthConst(4))
        >>> inp = torch.Tensor([0.042, -0.053, 0.31, -0.44])
        >>> out, scale, zero_point, bit_width = int_quant_wrapper(inp)
        >>> out
        tensor([ 0.0429, -0.0571,  0.1000, -0.1000])
        >>> scale
        tensor(0.0143)
        >>> zero_point
        tensor(0.)
        >>> bit_width
        tensor(4.)
    """

    zero_point: Tensor | None
    bit_width: Tensor | None
    if TYPE_CHECKING:  # TorchScript takes no attribute of another class
        short: ShortWays

    def __init__(
        self,
        int_quant: Module,
        scaling_impl: Module,
        int_scaling_impl: Module,
        zero_point_impl: Module,
        bit_width_impl: Module,
    ) -> None:
        super().__init__()
        self.int_quant = called("int_quant", int_quant, "scale", "zero_point", "bit_width", "x")
        self.scaling_impl = called("scaling_impl", scaling_impl, "x")
        self.int_scaling_impl = called("int_scaling_impl", int_scaling_impl, "bit_width")
        self.zero_point_impl = called("zero_point_impl", zero_point_impl, "x", "scale", "bit_width")
        self.bit_width_impl = called("bit_width_impl", bit_width_impl)
        shifted = type(zero_point_impl) is not ZeroZeroPoint
        self.register_buffer("zero_point", None if shifted else torch.zeros(()), persistent=False)
        self.register_buffer("bit_width", constant_bits(bit_width_impl), persistent=False)
        # A plain object, past what is done for tensors and modules that are set.
        vars(self)["short"] = ShortWays(int_quant, scaling_impl, int_scaling_impl, bit_width_impl, shifted)
        compile_if_asked(self)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """`x`, of any shape, quantized and dequantized; then scale, zero-point and bit width."""
        if is_scripting():
            bit_width = self.bit_width
            if bit_width is None:
                bit_width = self.bit_width_impl()
            scale = self.scaling_impl(x) / self.int_scaling_impl(bit_width)
            zero_point = self.zero_point
            if zero_point is None:
                zero_point = self.zero_point_impl(x, scale, bit_width)
            return self.int_quant(scale, zero_point, bit_width, x), scale, zero_point, bit_width
        else:  # noqa: RET505  # TorchScript leaves a branch uncompiled only where it is an explicit else
            return self.quantized(x)

    @torch.jit.unused
    def quantized(self, x: Tensor, rectified: bool = False) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What `forward` returns, of `x` or, where `short.rectifies` allows it, of its ReLU.

        Args:
            x: a tensor of any shape.
            rectified: whether ReLU of it is meant. Default: no.
        """
        return self.short(self, x, rectified)


class DecoupledRescalingIntQuant(Module):
    """Integer quantization that rounds by one range and dequantizes by another.

    ``pre_scale = pre_scaling_impl(x) / int_scaling_impl(bit_width)`` and
    ``scale = scaling_impl(x) / int_scaling_impl(bit_width)``.

    Args:
        decoupled_int_quant: the integer grid, such as `DecoupledIntQuant`.
        pre_scaling_impl: returns the range to round by.
        scaling_impl: returns the range to dequantize by.
        int_scaling_impl: returns the integer threshold for a bit width.
        pre_zero_point_impl: returns the zero-point to round by, for a tensor, scale and bit width.
        zero_point_impl: returns the zero-point to dequantize by, for a tensor, scale and bit width.
        bit_width_impl: returns the bit width.

    Examples:
        >>> from brevq.core.bit_width import BitWidthConst
        >>> from brevq.core.quant import DecoupledIntQuant
        >>> from brevq.core.scaling import ConstScaling, IntScaling
        >>> from brevq.core.zero_point import ZeroZeroPoint
        >>> quant = DecoupledRescalingIntQuant(
        ...     DecoupledIntQuant(narrow_range=True, signed=True),
        ...     ConstScaling(0.14),
        ...     ConstScaling(0.07),
        ...     IntScaling(signed=True, narrow_range=True),
        ...     ZeroZeroPoint(),
        ...     ZeroZeroPoint(),
        ...     BitWidthConst(4))
        >>> out, scale, zero_point, bit_width, pre_scale, pre_zero_point = quant(torch.tensor([0.042, -0.44]))
        >>> out, scale, pre_scale
        (tensor([ 0.0200, -0.0700]), tensor(0.0100), tensor(0.0200))
    """

    #: What the range to round by is computed from.
    pre_scaled: tuple[str, ...] = ("x",)

    bit_width: Tensor | None

    def __init__(
        self,
        decoupled_int_quant: Module,
        pre_scaling_impl: Module,
        scaling_impl: Module,
        int_scaling_impl: Module,
        pre_zero_point_impl: Module,
        zero_point_impl: Module,
        bit_width_impl: Module,
    ) -> None:
        super().__init__()
        self.decoupled_int_quant = called(
            "decoupled_int_quant",
            decoupled_int_quant,
            *("pre_scale", "pre_zero_point", "scale", "zero_point", "bit_width", "x"),
        )
        self.pre_scaling_impl = called("pre_scaling_impl", pre_scaling_impl, *self.pre_scaled)
        self.scaling_impl = called("scaling_impl", scaling_impl, "x")
        self.int_scaling_impl = called("int_scaling_impl", int_scaling_impl, "bit_width")
        self.pre_zero_point_impl = called("pre_zero_point_impl", pre_zero_point_impl, "x", "pre_scale", "bit_width")
        self.zero_point_impl = called("zero_point_impl", zero_point_impl, "x", "scale", "bit_width")
        self.bit_width_impl = called("bit_width_impl", bit_width_impl)
        self.register_buffer("bit_width", constant_bits(bit_width_impl), persistent=False)
        compile_if_asked(self)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """`x` quantized and dequantized; then scale, zero-point, bit width, pre-scale and pre-zero-point."""
        return self.rescale(x, self.pre_scaling_impl(x))

    def rescale(self, x: Tensor, pre_threshold: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """What `forward` returns, for a range to round by that is known: `pre_threshold`, in the scale's shape."""
        bit_width = self.bit_width
        if bit_width is None:
            bit_width = self.bit_width_impl()
        int_threshold = self.int_scaling_impl(bit_width)
        pre_scale = pre_threshold / int_threshold
        pre_zero_point = self.pre_zero_point_impl(x, pre_scale, bit_width)
        scale = self.scaling_impl(x) / int_threshold
        zero_point = self.zero_point_impl(x, scale, bit_width)
        y = self.decoupled_int_quant(pre_scale, pre_zero_point, scale, zero_point, bit_width, x)
        return y, scale, zero_point, bit_width, pre_scale, pre_zero_point


class DecoupledRescalingIntQuantWithInput(DecoupledRescalingIntQuant):
    """Decoupled integer quantization whose rounding range depends on the integers that it will be multiplied with.

    As `DecoupledRescalingIntQuant`, with ``pre_scaling_impl(x, input_bit_width, input_is_signed)``: what
    accumulator-aware weights need (Colbert et al., 2023, "A2Q", https://arxiv.org/abs/2308.13504).

    Args:
        decoupled_int_quant: the integer grid, such as `DecoupledIntQuant`.
        pre_scaling_impl: returns the range to round by, for a tensor and the input's bit width and sign.
        scaling_impl: returns the range to dequantize by.
        int_scaling_impl: returns the integer threshold for a bit width.
        pre_zero_point_impl: returns the zero-point to round by, for a tensor, scale and bit width.
        zero_point_impl: returns the zero-point to dequantize by, for a tensor, scale and bit width.
        bit_width_impl: returns the bit width.

    Examples:
        >>> from brevq.core.bit_width import BitWidthConst
        >>> from brevq.core.quant import DecoupledIntQuant
        >>> from brevq.core.scaling import ConstScaling, IntScaling
        >>> from brevq.core.zero_point import ZeroZeroPoint
        >>> class HalvedForSigned(Module):
        ...     def forward(self, x, input_bit_width, input_is_signed):
        ...         return torch.where(input_is_signed, 0.07, 0.14)
        >>> quant = DecoupledRescalingIntQuantWithInput(
        ...     DecoupledIntQuant(narrow_range=True, signed=True),
        ...     HalvedForSigned(),
        ...     ConstScaling(0.07),
        ...     IntScaling(signed=True, narrow_range=True),
        ...     ZeroZeroPoint(),
        ...     ZeroZeroPoint(),
        ...     BitWidthConst(4))
        >>> quant(torch.tensor([0.042, -0.44]), torch.tensor(8.0), torch.tensor(False))[0]
        tensor([ 0.0200, -0.0700])
    """

    pre_scaled = ("x", "input_bit_width", "input_is_signed")

    def forward(
        self, x: Tensor, input_bit_width: Tensor, input_is_signed: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """`x` quantized and dequantized; then scale, zero-point, bit width, pre-scale and pre-zero-point."""
        return self.rescale(x, self.pre_scaling_impl(x, input_bit_width, input_is_signed))


class PrescaledRestrictIntQuant(Module):
    """Integer quantization with a scale that is given, and zero-point zero: the usual quantization of a bias.

    Args:
        int_quant: the integer grid, such as `IntQuant`.
        bit_width_impl: returns the bit width.

    Examples:
        >>> from brevq.core.bit_width import BitWidthConst
        >>> from brevq.core.quant import IntQuant
        >>> quant = PrescaledRestrictIntQuant(IntQuant(narrow_range=True, signed=True), BitWidthConst(4))
        >>> out, scale, zero_point, bit_width = quant(torch.tensor([0.042, -0.44]), torch.tensor(0.01))
        >>> out
        tensor([ 0.0400, -0.0700])
    """

    zero_point: Tensor
    bit_width: Tensor | None

    def __init__(self, int_quant: Module, bit_width_impl: Module) -> None:
        super().__init__()
        self.int_quant = called("int_quant", int_quant, "scale", "zero_point", "bit_width", "x")
        self.bit_width_impl = called("bit_width_impl", bit_width_impl)
        self.register_buffer("zero_point", torch.zeros(()), persistent=False)
        self.register_buffer("bit_width", constant_bits(bit_width_impl), persistent=False)
        self.fused = fused_grid(int_quant, bit_width_impl, shifted=False)
        compile_if_asked(self)

    def forward(self, x: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """`x`, of any shape, quantized and dequantized by `scale`; then scale, zero-point and bit width."""
        bit_width = self.bit_width
        if bit_width is None:
            bit_width = self.bit_width_impl()
        if is_scripting():
            y = self.int_quant(scale, self.zero_point, bit_width, x)
        else:
            y = quantize(self.fused, self.int_quant, scale, self.zero_point, bit_width, x)
        return y, scale, self.zero_point, bit_width


class PrescaledRestrictIntQuantWithInputBitWidth(Module):
    """Integer quantization with a scale that is given, and a bit width computed from one that is given.

    The zero-point is zero.

    Args:
        int_quant: the integer grid, such as `IntQuant`.
        bit_width_impl: takes the input's bit width and returns the one to quantize to.

    Examples:
        >>> from brevq.core.scaling import ConstScaling
        >>> from brevq.core.function_wrapper import Identity
        >>> from brevq.core.quant import IntQuant
        >>> int_quant = IntQuant(narrow_range=True, signed=True)
        >>> int_quant_wrapper = PrescaledRestrictIntQuantWithInputBitWidth(int_quant, Identity())
        >>> scale, input_bit_width = torch.tensor(0.01), torch.tensor(4.)
        >>> inp = torch.Tensor([0.042, -0.053, 0.31, -0.44])
        >>> out, scale, zero_point, bit_width = int_quant_wrapper(inp, scale, input_bit_width)
        >>> out
        tensor([ 0.0400, -0.0500,  0.0700, -0.0700])
        >>> scale
        tensor(0.0100)
        >>> zero_point
        tensor(0.)
        >>> bit_width
        tensor(4.)
    """

    zero_point: Tensor

    def __init__(self, int_quant: Module, bit_width_impl: Module) -> None:
        super().__init__()
        self.int_quant = called("int_quant", int_quant, "scale", "zero_point", "bit_width", "x")
        self.bit_width_impl = called("bit_width_impl", bit_width_impl, "input_bit_width")
        self.register_buffer("zero_point", torch.zeros(()), persistent=False)
        compile_if_asked(self)

    def forward(self, x: Tensor, scale: Tensor, input_bit_width: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """`x`, of any shape, quantized and dequantized by `scale`; then scale, zero-point and bit width."""
        bit_width = self.bit_width_impl(input_bit_width)
        y = self.int_quant(scale, self.zero_point, bit_width, x)
        return y, scale, self.zero_point, bit_width


class TruncIntQuant(Module):
    """Requantization from one integer format to another with fewer bits; the sign is kept.

    The codes of the input, ``round(x / scale + zero_point)``, are divided by the truncation scale, rounded by
    `float_to_int_impl` and clamped to the new range; the scale grows by the truncation scale, and the zero-point
    shrinks by it.

    Args:
        float_to_int_impl: rounds the divided codes; hardware that cuts bits off floors them.
        bit_width_impl: returns the bit width to truncate to.
        trunc_scaling_impl: returns the truncation scale. Default: `TruncMsbScaling()`, which keeps the most
            significant bits.
        narrow_range: whether the range gives up one code. Default: False.
        tensor_clamp_impl: limits to the range. Default: `TensorClamp()`.
        quant_delay_steps: number of training steps to delay quantization for. Default: 0.

    Examples:
        >>> from brevq.core.quant import TruncIntQuant
        >>> from brevq.core.function_wrapper import RoundSte
        >>> from brevq.core.bit_width import BitWidthConst
        >>> trunc_quant = TruncIntQuant(RoundSte(), BitWidthConst(4))
        >>> scale, zero_point, bit_width, signed = (
        ...     torch.tensor(0.01), torch.tensor(0.), torch.tensor(8.), torch.tensor(True))
        >>> inp = torch.Tensor([0.04, -0.05, 0.31, -0.44])
        >>> out, scale, zero_point, bit_width = trunc_quant(inp, scale, zero_point, bit_width, signed)
        >>> out
        tensor([ 0.0000, -0.0000,  0.3200, -0.4800])
        >>> scale
        tensor(0.1600)
        >>> zero_point
        tensor(0.)
        >>> bit_width
        tensor(4.)
    """

    bit_width: Tensor | None

    def __init__(
        self,
        float_to_int_impl: Module,
        bit_width_impl: Module,
        trunc_scaling_impl: Module | None = None,
        narrow_range: bool = False,
        tensor_clamp_impl: Module | None = None,
        quant_delay_steps: int = 0,
    ) -> None:
        super().__init__()
        self.float_to_int_impl = called("float_to_int_impl", float_to_int_impl, "x")
        self.bit_width_impl = called("bit_width_impl", bit_width_impl)
        self.trunc_scaling_impl = called(
            "trunc_scaling_impl",
            trunc_scaling_impl or usual(TruncMsbScaling),
            *("codes", "input_bit_width", "bit_width", "signed"),
        )
        self.narrow_range = narrow_range
        self.tensor_clamp_impl = called(
            "tensor_clamp_impl", tensor_clamp_impl or usual(TensorClamp), "x", "min_val", "max_val"
        )
        self.register_buffer("bit_width", constant_bits(bit_width_impl), persistent=False)
        self.delay_wrapper = delay_of(quant_delay_steps)
        compile_if_asked(self)

    def min_int(self, bit_width: Tensor, signed: Tensor) -> Tensor:
        """The smallest code of `bit_width` bits, a scalar tensor; `signed` is one too."""
        return torch.where(
            signed, min_int(True, self.narrow_range, bit_width), min_int(False, self.narrow_range, bit_width)
        )

    def max_int(self, bit_width: Tensor, signed: Tensor) -> Tensor:
        """The largest code of `bit_width` bits, a scalar tensor; `signed` is one too."""
        return torch.where(
            signed, max_int(True, self.narrow_range, bit_width), max_int(False, self.narrow_range, bit_width)
        )

    def forward(
        self, x: Tensor, scale: Tensor, zero_point: Tensor, input_bit_width: Tensor, signed: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """`x`, which lies on the input's grid, requantized; then the new scale, zero-point and bit width."""
        codes = round_ste(x / scale + zero_point)
        bit_width = self.bit_width
        if bit_width is None:
            bit_width = self.bit_width_impl()
        trunc_scale = self.trunc_scaling_impl(codes, input_bit_width, bit_width, signed)
        codes = self.float_to_int_impl(codes / trunc_scale)
        codes = self.tensor_clamp_impl(codes, self.min_int(bit_width, signed), self.max_int(bit_width, signed))
        new_scale = scale * trunc_scale
        new_zero_point = zero_point / trunc_scale
        y = (codes - new_zero_point) * new_scale
        if self.delay_wrapper is not None:
            y = self.delay_wrapper(x, y)
        return y, new_scale, new_zero_point, bit_width
