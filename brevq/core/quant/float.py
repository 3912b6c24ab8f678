"""Quantization to a number format, scaled: minifloats, and the elements of block formats."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import Module

from brevq.core.checks import called
from brevq.core.formats import FloatFormat, IntFormat, NumberFormat, cast_ste
from brevq.core.formats.floating import held
from brevq.core.function_wrapper import RoundSte, usual
from brevq.core.quant.delay import delay_of
from brevq.core.quant.jit import compile_if_asked
from brevq.core.scaling.floating import FloatScaling, kept_bits, largest_number
from brevq.errors import ArgumentError
from brevq.function.fused_float import Numbers, fake_quantize_float
from brevq.function.ops_ste import round_ste, scalar_clamp_ste, straight_through, tensor_clamp

#: Up to as many bits float32 holds every integer.
_FLOAT32_BITS = 24


class FloatQuant(Module):
    """Quantization to a floating-point format whose range is scaled to that of the tensor.

    ``scale = scaling_impl(x) / float_scaling_impl()`` and ``y = cast(x / scale) * scale``, where ``cast`` rounds the
    mantissa at the exponent of each value. The gradient of `x` is the identity's within the format's range and zero
    beyond it; the scale receives its own.

    Corner cases are the format's: beyond the range the largest number where it saturates, else infinity or NaN; NaN
    stays NaN. Where the format saturates, so does `y`: what is beyond the largest number of the dtype becomes that.

    Fewer bits than the format has, as `bit_width_impl` gives them, are taken off its mantissa: the numbers that are
    left are numbers of the format. A learned bit width gets the gradient of the distance between numbers, as if
    rounding were the identity, and of the largest number.

    Args:
        float_format: the format; elements of blocks may be integers, so an `IntFormat` is one too.
        scaling_impl: returns the range of a tensor.
        float_scaling_impl: returns the number of the format on which the end of the range falls. Default: None, 1:
            what `scaling_impl` returns is the scale, as of `BlockScaling`.
        float_to_int_impl: rounds mantissas to integers. Default: `RoundSte()`, halves to even.
        quant_delay_steps: number of training steps to delay quantization for. Default: 0.
        bit_width_impl: the number of bits, those of the format at most; sign and exponent keep theirs. For a format
            that saturates. Default: None, those of the format.

    Raises:
        ArgumentError: there is a `bit_width_impl`, and the format does not saturate.

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
        bit_width_impl: Module | None = None,
    ) -> None:
        super().__init__()
        if bit_width_impl is not None and not getattr(float_format, "saturating", False):
            raise ArgumentError(f"`float_format` (={float_format}) must saturate for a `bit_width_impl` to cut it")
        self.bit_width_impl = called("bit_width_impl", bit_width_impl)
        self.float_format = float_format
        self.scaling_impl = called("scaling_impl", scaling_impl, "x")
        self.float_scaling_impl = called("float_scaling_impl", float_scaling_impl)
        self.saturates: bool = getattr(float_format, "saturating", True)  # integers do
        self.float_to_int_impl = called("float_to_int_impl", float_to_int_impl or usual(RoundSte), "x")
        self.delay_wrapper = delay_of(quant_delay_steps)
        rounds_to_nearest = bit_width_impl is None and type(self.float_to_int_impl) is RoundSte
        self.numbers = _numbers(float_format) if rounds_to_nearest and self.delay_wrapper is None else None
        self.covered = _covers(scaling_impl, float_scaling_impl)
        self.register_buffer("zero_point", torch.zeros(()), persistent=False)
        own_bits = torch.tensor(float(float_format.bits)) if bit_width_impl is None else None
        self.register_buffer("bit_width", own_bits, persistent=False)
        compile_if_asked(self)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """`x`, of any shape, quantized and dequantized; then scale, zero-point and bit width of the whole format."""
        scale = self.scaling_impl(x)
        if self.float_scaling_impl is not None:
            scale = scale / self.float_scaling_impl()
        if self.numbers is not None:
            return fake_quantize_float(x, scale, self.numbers, self.covered), scale, self.zero_point, self.bit_width
        if self.bit_width_impl is None:
            bit_width = self.bit_width
            y = cast_ste(self.float_format, x / scale, self.float_to_int_impl) * scale
        else:
            bit_width = kept_bits(self.float_format, self.bit_width_impl())
            y = cut_ste(self.float_format, bit_width, x / scale, self.float_to_int_impl) * scale
        if self.saturates:
            y = scalar_clamp_ste(y, -torch.finfo(y.dtype).max, torch.finfo(y.dtype).max)
        if self.delay_wrapper is not None:
            y = self.delay_wrapper(x, y)
        return y, scale, self.zero_point, bit_width


def cut_ste(
    float_format: NumberFormat, bit_width: Tensor, x: Tensor, round_impl: Callable[[Tensor], Tensor] = round_ste
) -> Tensor:
    """The numbers that `x` rounds to, of a saturating format whose mantissa is cut until `bit_width` bits are left.

    Args:
        float_format: the format.
        bit_width: number of bits, shape `()`, from those of sign and exponent to those of the format; differentiable.
        x: tensor of any shape, float32 or float64.
        round_impl: rounds mantissas to integers, with a straight-through gradient. Default: halves to even.

    Examples:
        >>> from brevq.core.formats.catalogue import FP8_E4M3
        >>> cut_ste(FP8_E4M3, torch.tensor(6.0), torch.tensor([1.2, 1.3, 1000.0]))
        tensor([  1.0000,   1.5000, 384.0000])
    """
    step = float_format.step(x.detach()) * torch.exp2(float_format.bits - bit_width)
    rounded = round_impl(x / step) * step
    high = largest_number(float_format, bit_width).to(x.dtype)
    clipped = tensor_clamp(rounded, torch.clamp_min(-high, held(float_format.min, x.dtype)), high)
    return straight_through(clipped, float_format.settle(clipped.detach()))


def _float_numbers(float_format: FloatFormat) -> Numbers | None:
    """The numbers of a floating-point format; None where float32 does not hold them, or there is no zero among them."""
    held_in_float32 = float_format.min_exponent >= -126 and float_format.max <= torch.finfo(torch.float32).max
    if not held_in_float32 or (float_format.signed and not float_format.has_zero):
        return None
    beyond = math.inf if float_format.has_inf else math.nan
    return Numbers(
        float_format.min,
        float_format.max,
        float_format.mantissa_bits,
        float_format.smallest_normal,
        None if float_format.saturating else beyond,
        float_format.has_negative_zero,
    )


def _int_numbers(int_format: IntFormat) -> Numbers | None:
    """The numbers of an integer format; None where float32 does not hold them."""
    if int_format.bits > _FLOAT32_BITS:
        return None
    return Numbers(int_format.min, int_format.max, int_format.fraction_bits, negative_zero=False)


_NUMBERS_OF: dict[type, Callable[..., Numbers | None]] = {FloatFormat: _float_numbers, IntFormat: _int_numbers}


def _numbers(number_format: NumberFormat) -> Numbers | None:
    """The numbers of a format, as they are quantized to in few passes; None of a format that has others."""
    numbers_of = _NUMBERS_OF.get(type(number_format))
    return None if numbers_of is None else numbers_of(number_format)


def _covers(scaling_impl: Module, float_scaling_impl: Module | None) -> bool:
    """Whether a range that no value exceeds is put on the largest number of a format that is signed, and not cut."""
    if type(float_scaling_impl) is not FloatScaling or float_scaling_impl.bit_width_impl is not None:
        return False
    return float_scaling_impl.float_format.signed and bool(getattr(scaling_impl, "covers", False))
