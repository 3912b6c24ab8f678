"""What a quantizer is, read off its recipe and its parts when it is made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
from torch import Tensor, nn

from brevq.core.bit_width import BitWidthConst
from brevq.core.function_wrapper import Granularity, granularity_of
from brevq.core.stats import RuntimeStats
from brevq.core.zero_point import ZeroZeroPoint
from brevq.errors import ArgumentError
from brevq.inject.analyse import parameters
from brevq.quant_tensor import Zero
from brevq.quantizer.grid import Grid


@attrs.frozen
class Nature:
    """What stays as it is, whatever the quantizer sees and learns.

    Args:
        role: what the recipe is for; None if it does not say.
        signed: whether the grid has negative codes.
        zero: where zero lies on it.
        float_format: the format of floating-point numbers; None of integers.
        granularity: which values share a scale; None if no part says so, which means all of them.
        observes: whether a statistic is gathered over batches.
        needs_scale: whether the core quantizer asks for a scale.
        needs_input: whether it asks for the bit width of the layer's input.
        grid: the grid in numbers.
    """

    role: str | None
    signed: bool
    zero: Zero
    float_format: Any
    granularity: Granularity | None
    observes: bool
    needs_scale: bool
    needs_input: bool
    grid: Grid

    @classmethod
    def of(cls, recipe: Any, tensor_quant: nn.Module, parts: Sequence[nn.Module]) -> Nature:
        """The nature of a quantizer.

        Args:
            recipe: its recipe.
            tensor_quant: the core quantizer.
            parts: all parts of that, itself the first.

        Raises:
            ArgumentError: the recipe and its number format contradict each other.
        """
        float_format = getattr(tensor_quant, "float_format", None)
        asks = parameters(type(tensor_quant).forward)[0]
        granularity = granularity_of(parts)
        grid = Grid(
            bits=_bits(tensor_quant, parts),
            signed=_is_signed(recipe, float_format),
            narrow=any(vars(part).get("narrow_range", False) for part in parts),
            exponent_bits=getattr(float_format, "exponent_bits", 0),
            exponent_bias=getattr(float_format, "bias", 0),
            values_per_scale=0 if granularity is None else granularity.values_per_scale,
        )
        return cls(
            role=str(recipe.role) if "role" in recipe else None,
            signed=grid.signed,
            zero=_zero(tensor_quant, grid),
            float_format=float_format,
            granularity=granularity,
            observes=any(isinstance(part, RuntimeStats) for part in parts),
            needs_scale="scale" in asks,
            needs_input="input_bit_width" in asks,
            grid=grid,
        )


def _is_signed(recipe: Any, float_format: Any) -> bool:
    """Whether the grid has negative codes: a number format says so itself, else the recipe."""
    stated = bool(recipe.signed) if "signed" in recipe else None
    if float_format is None:
        return stated is not False
    if stated is not None and stated != float_format.signed:
        raise ArgumentError(
            f"{recipe.__name__} says `signed` (={stated}), and its format {float_format} is "
            f"{'signed' if float_format.signed else 'unsigned'}: leave `signed` to the format"
        )
    return bool(float_format.signed)


def _bits(tensor_quant: nn.Module, parts: Sequence[nn.Module]) -> int:
    """Number of bits; 0 where they are learned, or not known yet."""
    constant = next((part for part in parts if isinstance(part, BitWidthConst)), None)
    if constant is not None:
        return constant.bits
    bit_width = getattr(tensor_quant, "bit_width", None)
    return int(bit_width) if isinstance(bit_width, Tensor) and not bit_width.is_meta else 0


def _zero(tensor_quant: nn.Module, grid: Grid) -> Zero:
    """Where zero lies on the grid of a core quantizer."""
    zero_point_impl = getattr(tensor_quant, "zero_point_impl", None)
    if grid.bits == 1 and grid.signed:
        return Zero.NO_CODE
    if zero_point_impl is None or isinstance(zero_point_impl, ZeroZeroPoint):
        return Zero.AT_ZERO
    return Zero.SHIFTED if getattr(zero_point_impl, "quantize_zero_point", True) else Zero.BETWEEN
