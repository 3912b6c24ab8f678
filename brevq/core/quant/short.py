"""The short ways of integer quantizers whose parts are the usual ones: decided when they are made, equal in numbers."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from brevq.core.bit_width import BitWidthConst
from brevq.core.memo import ScaleMemo, is_watched
from brevq.core.quant.by_max import ByMax
from brevq.core.quant.int_base import FusedInt, IntQuant
from brevq.core.scaling.integer import IntScaling, PowerOfTwoIntScaling, StepScaling
from brevq.core.scaling.statistics import StatsScaling
from brevq.core.stats import AbsMax

# Up to here the quotient of a value and its own maximum's step is nearer to the last code than to the next.
_EXACT_BITS = 16
# In these a range over a number has the dtype that it has over a float32 tensor.
_WIDE = (torch.float32, torch.float64)


class ShortWays:
    """How a `RescalingIntQuant` quantizes: in as few passes as its parts allow, and else a part at a time.

    Args:
        int_quant: its integer grid.
        scaling_impl: what returns its range.
        int_scaling_impl: what returns its integer threshold.
        bit_width_impl: what returns its bit width.
        shifted: whether it has a zero-point.

    Attributes:
        fused: the grid in few passes; None where it is another one, or its number of bits changes.
        by_max: quantization by the tensor's own largest value; None where the parts do not come to that.
        int_threshold: the integer threshold, where it is known and stays; else None.
        memo: what keeps the scale of a range that stays; None where other parts decide on it, too.

    Examples:
        >>> from brevq.core.scaling import ConstScaling
        >>> grid = IntQuant(narrow_range=True, signed=True)
        >>> ways = ShortWays(grid, ConstScaling(1.0), IntScaling(True, True), BitWidthConst(4), shifted=False)
        >>> ways.fused, ways.by_max, ways.int_threshold
        (FusedInt(low=-7.0, high=7.0, straight=False, shifted=False), None, 7.0)
    """

    def __init__(
        self, int_quant: Module, scaling_impl: Module, int_scaling_impl: Module, bit_width_impl: Module, shifted: bool
    ) -> None:
        clips = shifted or not _covers(scaling_impl, int_scaling_impl)
        self.fused = fused_grid(int_quant, bit_width_impl, shifted, clips)
        self.by_max = None if clips else _by_max(scaling_impl, int_quant, bit_width_impl)
        self.int_threshold = _threshold(int_scaling_impl, bit_width_impl)
        remembers = self.int_threshold is not None and hasattr(type(scaling_impl), "in_force")
        self.memo = ScaleMemo() if remembers else None

    def __call__(self, quantizer: Any, x: Tensor, rectified: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """`x`, or ReLU of it, quantized and dequantized; then scale, zero-point and bit width.

        Args:
            quantizer: the `RescalingIntQuant`.
            x: a tensor of any shape.
            rectified: whether ReLU of it is meant.
        """
        # From the registry: `nn.Module.__getattr__`, asked at each call, takes longer than what is done here.
        buffers, modules = quantizer._buffers, quantizer._modules  # noqa: SLF001  # torch's
        bit_width = buffers["bit_width"]
        if bit_width is None:
            bit_width = modules["bit_width_impl"]()
        zero_point = buffers["zero_point"]
        found = None if self.by_max is None else self.by_max(x)
        if found is not None:
            return (*found, zero_point, bit_width)
        scale = self._scale(modules["scaling_impl"], modules["int_scaling_impl"], x, bit_width, rectified)
        if zero_point is None:
            zero_point = modules["zero_point_impl"](x, scale, bit_width)
        y = quantize(self.fused, modules["int_quant"], scale, zero_point, bit_width, x, rectified)
        return y, scale, zero_point, bit_width

    def clamps_at_zero(self, quantizer: Any) -> bool:
        """Whether all that is below zero becomes zero, and no value has a part in the scale.

        Args:
            quantizer: the `RescalingIntQuant`.
        """
        unsigned = self.fused is not None and self.fused.clamps_at_zero
        return unsigned and self.memo is not None and quantizer.scaling_impl.in_force() is not None

    @property
    def forgets_input(self) -> bool:
        """Whether less than the tensor is kept for the gradient."""
        return self.fused is not None and self.fused.forgets_input

    def rectifies(self, quantizer: Any, x: Tensor) -> bool:
        """Whether ReLU of `x` can be left to it: the scale can be had without, and nobody watches.

        Args:
            quantizer: the `RescalingIntQuant`.
            x: a tensor.
        """
        if self.fused is None or not (self.fused.clamps_at_zero and self.fused.forgets_input):
            return False
        takes = getattr(quantizer.scaling_impl, "rectifies", None)
        watched = is_watched(quantizer, quantizer.scaling_impl)
        return takes is not None and not watched and bool(takes(x))

    def _scale(self, scaling_impl: Any, int_scaling_impl: Any, x: Tensor, bit_width: Tensor, rectified: bool) -> Tensor:
        """The scale, computed once for a range that stays."""
        memo = self.memo
        stored = None if memo is None or is_watched(scaling_impl) else scaling_impl.in_force()
        if memo is None or stored is None:
            threshold = scaling_impl(x, rectified=True) if rectified else scaling_impl(x)
            return self._divide(threshold, int_scaling_impl, bit_width)
        known = memo.find(stored)
        if known is not None:
            return known
        with torch.no_grad():
            return memo.keep(stored, self._divide(scaling_impl(x), int_scaling_impl, bit_width))

    def _divide(self, threshold: Tensor, int_scaling_impl: Module, bit_width: Tensor) -> Tensor:
        """A range over its integer threshold, which is a number where it is known."""
        by = self.int_threshold
        if by is None or threshold.dtype not in _WIDE:
            scale: Tensor = threshold / int_scaling_impl(bit_width)
            return scale
        if threshold.is_cpu and not torch.compiler.is_compiling():
            return threshold / by
        # A constant tensor: compiled code may compute the power of two behind the threshold again for each value, and
        # elsewhere than on CPUs division by a number is rounded in another way.
        return _computed_once(threshold / torch.full((), by, dtype=threshold.dtype, device=threshold.device))


def known_bits(bit_width_impl: Module) -> int | None:
    """A number of bits that is known and stays; else None.

    Args:
        bit_width_impl: what returns it.

    Examples:
        >>> known_bits(BitWidthConst(4))
        4
    """
    return bit_width_impl.bits if type(bit_width_impl) is BitWidthConst else None


def constant_bits(bit_width_impl: Module) -> Tensor | None:
    """A number of bits that is known and stays, as a tensor of shape `()`; else None.

    Args:
        bit_width_impl: what returns it.

    Examples:
        >>> constant_bits(BitWidthConst(4))
        tensor(4.)
    """
    bits = known_bits(bit_width_impl)
    return None if bits is None else torch.full((), float(bits))


def fused_grid(int_quant: Module, bit_width_impl: Module, shifted: bool, clips: bool = True) -> FusedInt | None:
    """A grid in few passes, where it is the usual one and its number of bits is known and stays; else None.

    Args:
        int_quant: the grid.
        bit_width_impl: what returns its number of bits.
        shifted: whether there is a zero-point.
        clips: whether a value may be beyond the range. Default: True.

    Examples:
        >>> fused_grid(IntQuant(narrow_range=True, signed=True), BitWidthConst(4), shifted=False)
        FusedInt(low=-7.0, high=7.0, straight=False, shifted=False)
    """
    bits = known_bits(bit_width_impl)
    if type(int_quant) is not IntQuant or bits is None:
        return None
    own = int_quant.signed and int_quant.narrow_range and bits <= _EXACT_BITS
    fused: FusedInt | None = int_quant.fused(bits, shifted, clips or not own)
    return fused


@torch.jit.unused
def quantize(
    fused: FusedInt | None,
    int_quant: Module,
    scale: Tensor,
    zero_point: Tensor,
    bit_width: Tensor,
    x: Tensor,
    rectified: bool = False,
) -> Tensor:
    """`x` on a grid, in few passes where there is such a way.

    Args:
        fused: that way; None where there is none.
        int_quant: the grid.
        scale: the step; broadcasts to `x`, as the zero-point does.
        zero_point: the code of zero.
        bit_width: number of bits, shape `()`.
        x: a tensor of any shape.
        rectified: whether ReLU of it is meant, which the short way alone takes. Default: no.

    Examples:
        >>> grid = IntQuant(narrow_range=True, signed=True)
        >>> quantize(None, grid, torch.tensor(0.5), torch.tensor(0.0), torch.tensor(4.0), torch.tensor(0.7))
        tensor(0.5000)
    """
    if fused is None:
        composed: Tensor = int_quant(scale, zero_point, bit_width, x)
        return composed
    return fused(scale, zero_point, x, rectified)


def _computed_once(scale: Tensor) -> Tensor:
    """The same scale; compiled for a CPU it is written to memory, not computed again inside the loop over values."""
    # The compiler fuses no producer into what reads it as strided.
    compiled = torch.compiler.is_dynamo_compiling() and not torch.compiler.is_exporting()
    learns = scale.requires_grad and torch.is_grad_enabled()
    return scale.as_strided(scale.shape, scale.stride()) if compiled and scale.is_cpu and not learns else scale


def _threshold(int_scaling_impl: Module, bit_width_impl: Module) -> float | None:
    """An integer threshold that is known and stays; else None."""
    bits = known_bits(bit_width_impl)
    if bits is None or type(int_scaling_impl) not in (IntScaling, PowerOfTwoIntScaling, StepScaling):
        return None
    return _threshold_of(int_scaling_impl, bits)


@functools.lru_cache(maxsize=64)
def _threshold_of(int_scaling_impl: Module, bits: int) -> float:
    """The integer threshold of a number of bits, as it is computed in float32."""
    return float(int_scaling_impl(torch.tensor(float(bits), device="cpu")))


def _by_max(scaling_impl: Any, int_quant: Any, bit_width_impl: Module) -> ByMax | None:
    """Quantization by a tensor's own largest value, where the parts come to that and its codes are known; else None."""
    bits = known_bits(bit_width_impl)
    by_max = type(scaling_impl) is StatsScaling and type(scaling_impl.stats_impl) is AbsMax
    usual = type(int_quant) is IntQuant and int_quant.signed and int_quant.narrow_range and int_quant.is_usual()
    if not (by_max and usual) or bits is None or bits > _EXACT_BITS:
        return None
    return ByMax(scaling_impl, 2.0 ** (bits - 1) - 1)


def _covers(scaling_impl: Module, int_scaling_impl: Module) -> bool:
    """Whether a range that no value exceeds is put on the last codes of a narrow symmetric grid."""
    narrow = type(int_scaling_impl) is IntScaling and int_scaling_impl.signed and int_scaling_impl.narrow_range
    return narrow and bool(getattr(scaling_impl, "covers", False))
