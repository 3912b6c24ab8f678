"""Integer quantizers: an integer grid together with what gives it scale, zero-point and bit width."""

import functools
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import Module

from brevq.core.bit_width import BitWidthConst
from brevq.core.checks import called
from brevq.core.function_wrapper import TensorClamp, usual
from brevq.core.memo import ScaleMemo, is_watched
from brevq.core.quant.by_max import ByMax
from brevq.core.quant.delay import delay_of
from brevq.core.quant.int_base import FusedInt, IntQuant
from brevq.core.quant.jit import compile_if_asked
from brevq.core.scaling.integer import IntScaling, PowerOfTwoIntScaling, StepScaling, TruncMsbScaling
from brevq.core.scaling.statistics import StatsScaling
from brevq.core.stats import AbsMax
from brevq.core.zero_point import ZeroZeroPoint
from brevq.function.ops import max_int, min_int
from brevq.function.ops_ste import is_scripting, round_ste

# Up to here the quotient of a value and its own maximum's step is nearer to the last code than to the next.
_EXACT_BITS = 16
# In these a range over a number has the dtype that it has over a float32 tensor.
_WIDE = (torch.float32, torch.float64)


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
        fused: FusedInt | None
        by_max: ByMax | None
        int_threshold: float | None
        memo: ScaleMemo | None

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
        self.register_buffer("zero_point", None if shifted else torch.tensor(0.0), persistent=False)
        self.register_buffer("bit_width", _constant(bit_width_impl), persistent=False)
        clips = shifted or not _covers(scaling_impl, int_scaling_impl)
        int_threshold = _threshold(int_scaling_impl, bit_width_impl)
        # Plain values, past what is done for tensors and modules that are set.
        vars(self).update(
            fused=_fused(int_quant, bit_width_impl, shifted, clips),
            by_max=None if clips else _by_max(scaling_impl, int_quant, bit_width_impl),
            int_threshold=int_threshold,
            memo=ScaleMemo() if int_threshold is not None and hasattr(type(scaling_impl), "in_force") else None,
        )
        compile_if_asked(self)

    @torch.jit.unused
    def clamps_at_zero(self) -> bool:
        """Whether all that is below zero becomes zero, and no value has a part in the scale."""
        unsigned = self.fused is not None and self.fused.clamps_at_zero
        scaling_impl: Any = self.scaling_impl
        return unsigned and self.memo is not None and scaling_impl.in_force() is not None

    @torch.jit.unused
    def forgets_input(self) -> bool:
        """Whether less than `x` is kept for the gradient."""
        return self.fused is not None and self.fused.forgets_input

    @torch.jit.unused
    def rectifies(self, x: Tensor) -> bool:
        """Whether ReLU of `x` can be left to it: no value has a part in the scale, and nobody watches."""
        if self.fused is None or not (self.fused.clamps_at_zero and self.fused.forgets_input):
            return False
        scaling_impl: Any = self.scaling_impl
        is_settled = getattr(scaling_impl, "is_settled", None)
        return is_settled is not None and not is_watched(scaling_impl) and bool(is_settled(x))

    def forward(self, x: Tensor, rectified: bool = False) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """`x`, of any shape, quantized and dequantized; then scale, zero-point and bit width.

        With `rectified` ReLU of `x` is, which `rectifies` says when to ask for.
        """
        bit_width = self.bit_width
        if bit_width is None:
            bit_width = self.bit_width_impl()
        if is_scripting():
            x = torch.relu(x) if rectified else x
            scale = self.scaling_impl(x) / self.int_scaling_impl(bit_width)
        else:
            short = _by_max_alone(self, x, bit_width)
            if short is not None:
                return short
            scale = _scale(self, x, bit_width)
        zero_point = self.zero_point
        if zero_point is None:
            zero_point = self.zero_point_impl(x, scale, bit_width)
        if is_scripting():
            y = self.int_quant(scale, zero_point, bit_width, x)
        else:
            y = _quantize(self.fused, self.int_quant, scale, zero_point, bit_width, x, rectified)
        return y, scale, zero_point, bit_width


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
        self.register_buffer("bit_width", _constant(bit_width_impl), persistent=False)
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
        self.register_buffer("zero_point", torch.tensor(0.0), persistent=False)
        self.register_buffer("bit_width", _constant(bit_width_impl), persistent=False)
        self.fused = _fused(int_quant, bit_width_impl, shifted=False)
        compile_if_asked(self)

    def forward(self, x: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """`x`, of any shape, quantized and dequantized by `scale`; then scale, zero-point and bit width."""
        bit_width = self.bit_width
        if bit_width is None:
            bit_width = self.bit_width_impl()
        if is_scripting():
            y = self.int_quant(scale, self.zero_point, bit_width, x)
        else:
            y = _quantize(self.fused, self.int_quant, scale, self.zero_point, bit_width, x)
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
        self.register_buffer("zero_point", torch.tensor(0.0), persistent=False)
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
        self.register_buffer("bit_width", _constant(bit_width_impl), persistent=False)
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


def _bits(bit_width_impl: Module) -> int | None:
    """A number of bits that is known and stays; else None."""
    return bit_width_impl.bits if type(bit_width_impl) is BitWidthConst else None


def _constant(bit_width_impl: Module) -> Tensor | None:
    """A number of bits that is known and stays, as a tensor; else None."""
    bits = _bits(bit_width_impl)
    return None if bits is None else torch.tensor(float(bits))


def _threshold(int_scaling_impl: Module, bit_width_impl: Module) -> float | None:
    """An integer threshold that is known and stays; else None."""
    bits = _bits(bit_width_impl)
    if bits is None or type(int_scaling_impl) not in (IntScaling, PowerOfTwoIntScaling, StepScaling):
        return None
    return _threshold_of(int_scaling_impl, bits)


@functools.lru_cache(maxsize=64)
def _threshold_of(int_scaling_impl: Module, bits: int) -> float:
    """The integer threshold of a number of bits, as it is computed in float32."""
    return float(int_scaling_impl(torch.tensor(float(bits), device="cpu")))


def _fused(int_quant: Module, bit_width_impl: Module, shifted: bool, clips: bool = True) -> FusedInt | None:
    """A grid in few passes, where it is the usual one and its number of bits is known and stays; else None."""
    bits = _bits(bit_width_impl)
    if type(int_quant) is not IntQuant or bits is None:
        return None
    own = int_quant.signed and int_quant.narrow_range and bits <= _EXACT_BITS
    fused: FusedInt | None = int_quant.fused(bits, shifted, clips or not own)
    return fused


def _by_max(scaling_impl: Any, int_quant: Any, bit_width_impl: Module) -> ByMax | None:
    """Quantization by a tensor's own largest value, where the parts come to that and its codes are known; else None."""
    bits = _bits(bit_width_impl)
    by_max = type(scaling_impl) is StatsScaling and type(scaling_impl.stats_impl) is AbsMax
    usual = type(int_quant) is IntQuant and int_quant.signed and int_quant.narrow_range and int_quant.is_usual()
    if not (by_max and usual) or bits is None or bits > _EXACT_BITS:
        return None
    return ByMax(scaling_impl, 2.0 ** (bits - 1) - 1)


def _covers(scaling_impl: Module, int_scaling_impl: Module) -> bool:
    """Whether a range that no value exceeds is put on the last codes of a narrow symmetric grid."""
    narrow = type(int_scaling_impl) is IntScaling and int_scaling_impl.signed and int_scaling_impl.narrow_range
    return narrow and bool(getattr(scaling_impl, "covers", False))


@torch.jit.unused
def _scale(quantizer: Any, x: Tensor, bit_width: Tensor) -> Tensor:
    """The scale of a `RescalingIntQuant`, computed once for a range that stays."""
    memo, scaling_impl = quantizer.memo, quantizer.scaling_impl
    stored = None if memo is None or is_watched(scaling_impl) else scaling_impl.in_force()
    if stored is None:
        return _divide(scaling_impl(x), quantizer.int_threshold, quantizer.int_scaling_impl, bit_width)
    known: Tensor | None = memo.find(stored)
    if known is not None:
        return known
    with torch.no_grad():
        scale = _divide(scaling_impl(x), quantizer.int_threshold, quantizer.int_scaling_impl, bit_width)
    kept: Tensor = memo.keep(stored, scale)
    return kept


def _divide(threshold: Tensor, by: float | None, int_scaling_impl: Module, bit_width: Tensor) -> Tensor:
    """A range over its integer threshold; elsewhere than on CPUs division by a number is rounded in another way."""
    if by is None or not threshold.is_cpu or threshold.dtype not in _WIDE or torch.compiler.is_compiling():
        scale: Tensor = threshold / int_scaling_impl(bit_width)
        return scale
    return threshold / by


@torch.jit.unused
def _by_max_alone(quantizer: Any, x: Tensor, bit_width: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
    """What a `RescalingIntQuant` returns for a tensor that is quantized by its own largest value; else None."""
    found = None if quantizer.by_max is None else quantizer.by_max(x)
    return None if found is None else (*found, quantizer.zero_point, bit_width)


@torch.jit.unused
def _quantize(
    fused: FusedInt | None,
    int_quant: Module,
    scale: Tensor,
    zero_point: Tensor,
    bit_width: Tensor,
    x: Tensor,
    rectified: bool = False,
) -> Tensor:
    """`x` on the grid, or ReLU of it."""
    if fused is None:
        composed: Tensor = int_quant(scale, zero_point, bit_width, x)
        return composed
    return fused(scale, zero_point, x, rectified)
