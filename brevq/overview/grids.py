"""What the grid of a quantizer is now, in words and numbers."""

from __future__ import annotations

import math

import attrs
import torch
from torch import Tensor

from brevq.core.function_wrapper import Granularity
from brevq.core.phase import Phase
from brevq.core.quant import TernaryQuant
from brevq.core.scaling import BlockScaling
from brevq.errors import ArgumentError, BrevqError
from brevq.overview.targets import Target
from brevq.quant_tensor import QuantTensor
from brevq.quantizer import Grid, Quantizer

NO_DATA, BY_INPUT, TIED, UNKNOWN = "no data yet", "of each input", "input x weight", "unknown"
FROZEN = "frozen"


@attrs.frozen
class GridNow:
    """The grid of a quantizer.

    Args:
        bits: number of bits of a code now; None where nothing tells before data comes.
        format: ``int``, ``uint``, ``binary``, ``ternary``, or the name of a floating-point format.
        granularity: what shares a scale, such as ``channel`` or ``group of 32``.
        scales: how many scales there are; None if that depends on the input.
        scale: the scales; None if they are not known.
        unknown: why they are not known, or empty.
        phase: what the statistics are doing, or ``frozen``; None without such.
        quantized: what was looked at; None where that can not be had.
    """

    bits: int | None
    format: str
    granularity: str
    scales: int | None
    scale: Tensor | None
    unknown: str
    phase: str | None
    quantized: QuantTensor | None


def grid_now(target: Target) -> GridNow:
    """The grid of a quantizer, without disturbing it: to be called within `undisturbed`.

    Args:
        target: the quantizer, and what it is for.
    """
    quantizer = target.quantizer
    phase = FROZEN if target.frozen else quantizer.phase
    quantized = _looked_at(target)
    bits = _bits(quantizer, quantized)
    scale, unknown = _scale(target, quantized)
    return GridNow(
        bits=bits,
        format=_format(quantizer, bits),
        granularity=_granularity(quantizer),
        scales=scale_count(quantizer),
        scale=scale,
        unknown=unknown,
        phase=None if phase is None else str(phase),
        quantized=quantized,
    )


def scale_count(quantizer: Quantizer) -> int | None:
    """How many scales a quantizer has; None if that depends on what it quantizes.

    Args:
        quantizer: the quantizer.

    Examples:
        >>> from injectors import Int8ActPerTensor, Int8ActPerTokenDynamic
        >>> scale_count(Quantizer(Int8ActPerTensor, {})), scale_count(Quantizer(Int8ActPerTokenDynamic, {}))
        (1, None)
    """
    if quantizer.granularity is None:
        return 1
    try:
        return math.prod(quantizer.granularity.scale_shape)
    except ArgumentError:
        return None


def follows_input(quantizer: Quantizer) -> bool:
    """Whether the scale is computed from each input anew.

    Args:
        quantizer: a quantizer of activations.
    """
    return quantizer.phase is None and any(hasattr(part, "stats_impl") for part in quantizer.modules())


def _looked_at(target: Target) -> QuantTensor | None:
    """What is quantized now; None where it is not known, as before data comes, or on the meta device."""
    in_context = not target.stored and _needs_context(target.quantizer)
    if target.quantizer.grid.is_meta or in_context or _has_no_data(target):
        return None
    try:
        return target.look()
    except BrevqError:
        return None


def _needs_context(quantizer: Quantizer) -> bool:
    """Whether it needs the scale or the bit width of a tensor besides that."""
    return quantizer.needs_scale or quantizer.needs_input


def _has_no_data(target: Target) -> bool:
    return not target.stored and not target.frozen and target.quantizer.phase is Phase.EMPTY


def _bits(quantizer: Quantizer, quantized: QuantTensor | None) -> int | None:
    """The number of bits now; of one on the meta device, the number that its recipe begins with."""
    if quantized is not None:
        return int(quantized.bit_width)
    known = 0 if quantizer.grid.is_meta else Grid.read(quantizer.grid).bits
    declared = quantizer.recipe.bit_width if "bit_width" in quantizer.recipe else None
    return known or getattr(quantizer.float_format, "bits", None) or declared or _bits_of_new(quantizer)


def _bits_of_new(quantizer: Quantizer) -> int | None:
    """The number of bits that a new quantizer of the same recipe has, where there are numbers."""
    if not quantizer.grid.is_meta:
        return None
    supplied = {**quantizer._supplied, "device": torch.device("cpu")}  # noqa: SLF001  # what it is built from, too
    return Grid.read(Quantizer(quantizer.recipe, supplied).grid).bits or None


def _format(quantizer: Quantizer, bits: int | None) -> str:
    if quantizer.float_format is not None:
        return str(quantizer.float_format)
    if not quantizer.signed:
        return "uint"
    ternary = isinstance(quantizer.tensor_quant, TernaryQuant) or (bits == 2 and quantizer.narrow)
    return "binary" if bits == 1 else "ternary" if ternary else "int"


def _granularity(quantizer: Quantizer) -> str:
    """What shares a scale: the blocks of a block format, else what the granularity is called, and its size."""
    block = next((part.block_format for part in quantizer.modules() if isinstance(part, BlockScaling)), None)
    if block is not None:
        return f"block of {block.size}"
    granularity = quantizer.granularity
    if granularity is None:
        return "accumulator" if quantizer.needs_scale else "tensor"
    return type(granularity).__name__.removeprefix("Per").lower() + _size(granularity)


def _size(granularity: Granularity) -> str:
    shape = getattr(granularity, "block_shape", None) or getattr(granularity, "group_size", None)
    return "" if shape is None else f" of {shape}" if isinstance(shape, int) else f" of {'x'.join(map(str, shape))}"


def _scale(target: Target, quantized: QuantTensor | None) -> tuple[Tensor | None, str]:
    """The scales, or why they are not known."""
    quantizer = target.quantizer
    if _has_no_data(target):
        return None, NO_DATA
    if not target.stored and not target.frozen and (follows_input(quantizer) or _needs_context(quantizer)):
        return None, BY_INPUT
    if quantized is not None and not quantized.scale.is_meta:
        return quantized.scale.detach(), ""
    return None, TIED if quantizer.needs_scale else UNKNOWN
