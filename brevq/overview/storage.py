"""How many bytes a quantized tensor takes: codes, scales and zero-points.

Codes are packed to their bits, and each tensor is rounded up to whole bytes. A scale takes the 4 bytes of a float32,
unless it is a number of a format itself: then the bits of that. A zero-point takes the bits of a code, or 4 bytes where
it is not rounded to one. A bias on the accumulator's grid has no scale of its own.
"""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from brevq.core.bit_width import BitWidthConst
from brevq.core.formats import BlockFormat
from brevq.core.scaling import BlockScaling, QuantizedScaling
from brevq.overview.grids import scale_count
from brevq.quant_tensor import Zero
from brevq.quantizer import Quantizer

_FLOAT32 = 4


def packed(values: int, bits: int) -> int:
    """The bytes that codes take: ``ceil(values * bits / 8)``.

    Args:
        values: how many.
        bits: bits of each.

    Examples:
        >>> packed(3, 3)
        2
    """
    return -(-values * bits // 8)


def grid_bytes(quantizer: Quantizer, bits: int) -> int:
    """The bytes that the scales and zero-points of a weight or bias take.

    Args:
        quantizer: the quantizer.
        bits: bits of a code.

    Examples:
        >>> from injectors import Int4WeightPerChannel, MXFp4Weight
        >>> weight = {"tensor_shape": (8, 64), "channel_axis": 0}
        >>> grid_bytes(Quantizer(Int4WeightPerChannel, weight), 4), grid_bytes(Quantizer(MXFp4Weight, weight), 4)
        (32, 16)
    """
    if quantizer.needs_scale:
        return 0
    count = scale_count(quantizer) or 1
    zero_points = {Zero.SHIFTED: packed(count, bits), Zero.BETWEEN: _FLOAT32 * count}.get(quantizer.zero, 0)
    return _scale_bytes(quantizer, count) + zero_points


def _scale_bytes(quantizer: Quantizer, count: int) -> int:
    parts = list(quantizer.modules())
    blocks = [part for part in parts if isinstance(part, BlockScaling)]
    if blocks:
        return _of_blocks(blocks[0].block_format, quantizer.granularity)
    quantized = [part for part in parts if isinstance(part, QuantizedScaling)]
    return _of_quantized(quantized[0], count) if quantized else _FLOAT32 * count


def _of_blocks(block: BlockFormat, granularity: Any) -> int:
    """A scale for each block, a micro-exponent for each group, a float for the tensor: what the format has of these."""
    *rows, groups, _ = granularity.scale_shape
    blocks = math.prod(rows) * -(-groups * block.micro_size // block.size)
    micro = 0 if block.micro is None else packed(math.prod(rows) * groups, block.micro.bits)
    return packed(blocks, block.scale.bits) + micro + _FLOAT32 * block.tensor_scale


def _of_quantized(scaling: QuantizedScaling, count: int) -> int:
    """Codes of the scales, a float for each group of them, and their mean if that is taken off."""
    layouts = [getattr(part, "granularity_impl", None) for part in scaling.scale_quant.modules()]
    size = next((layout.values_per_scale for layout in layouts if layout is not None), 0) or count
    return packed(count, _code_bits(scaling.scale_quant)) + _FLOAT32 * (-(-count // size) + scaling.centered_scale)


def _code_bits(tensor_quant: nn.Module) -> int:
    constant = next((part for part in tensor_quant.modules() if isinstance(part, BitWidthConst)), None)
    number_format: Any = getattr(tensor_quant, "float_format", None)
    return int(constant()) if constant is not None else int(number_format.bits)
