"""Average pooling of integers.

Pooling by maximum and up-sampling need no layers of their own: `torch.nn.MaxPool2d`, `torch.nn.AdaptiveMaxPool2d`,
`torch.nn.Upsample` with ``mode="nearest"`` and `torch.nn.PixelShuffle`, of any dimension, keep a `QuantTensor`.
"""

from __future__ import annotations

from torch import nn

from brevq.nn.accumulator import QuantTruncation

_UNEVEN = (
    "{layer} adds up windows of integers, and the sums lie on no one grid: the values of a window need one scale and "
    "one zero-point, and all windows one size, "
)


class TruncAvgPool2d(QuantTruncation, nn.AvgPool2d):
    """`torch.nn.AvgPool2d` on integers: the sum of each window, cut to fewer bits, by default rounded to 8.

    ``scale = input scale / area * factor`` and ``codes = round(sum of codes / factor)``, where the sum takes as many
    bits as its range needs, and ``factor = 2 ** (those bits - 8)``. The division by the area is in the scale alone.
    Of an area that is a power of two, input and output have the same scale. A tensor in bfloat16, which holds no sum
    exactly, may get a code that is off by one. Input ``(batch, channels, height, width)``, a `QuantTensor` of integers.

    Args:
        *args: those of `torch.nn.AvgPool2d`.
        trunc_quant: recipe or quantizer for the sums; None to leave them as they are. Default: `Int8TruncRound`.
        return_quant_tensor: whether the output is a `QuantTensor`. Default: False.
        **keywords: those of `torch.nn.AvgPool2d`, and overrides of names of the recipe, without a prefix.

    Examples:
        >>> import torch
        >>> from brevq.nn import QuantIdentity
        >>> pool = TruncAvgPool2d(2, return_quant_tensor=True)
        >>> x = QuantIdentity(return_quant_tensor=True)(torch.tensor([[[[1.0, 2.0], [-1.0, -2.0]]]]))
        >>> x.int().flatten(), pool(x).int().flatten(), bool(x.scale == pool(x).scale)
        (tensor([  64,  127,  -64, -128], dtype=torch.int8), tensor([0], dtype=torch.int8), True)
    """

    off_grid = _UNEVEN + (
        "which they have with ceil_mode=False, count_include_pad=True and divisor_override=None; padding needs a code "
        "that stands for zero"
    )


class TruncAdaptiveAvgPool2d(QuantTruncation, nn.AdaptiveAvgPool2d):
    """`torch.nn.AdaptiveAvgPool2d` on integers: the sum of each window, cut to fewer bits, by default rounded to 8.

    As `TruncAvgPool2d`; the output's height and width divide the input's. Input ``(batch, channels, height, width)``,
    a `QuantTensor` of integers.

    Args:
        *args: those of `torch.nn.AdaptiveAvgPool2d`.
        trunc_quant: recipe or quantizer for the sums; None to leave them as they are. Default: `Int8TruncRound`.
        return_quant_tensor: whether the output is a `QuantTensor`. Default: False.
        **keywords: those of `torch.nn.AdaptiveAvgPool2d`, and overrides of names of the recipe, without a prefix.

    Examples:
        >>> import torch
        >>> from brevq.nn import QuantReLU
        >>> pool = TruncAdaptiveAvgPool2d(1, bit_width=4, return_quant_tensor=True)
        >>> x = QuantReLU(return_quant_tensor=True)(torch.ones(1, 1, 2, 2))
        >>> x.int().flatten(), pool(x).int().flatten()
        (tensor([255, 255, 255, 255], dtype=torch.uint8), tensor([15], dtype=torch.uint8))
    """

    off_grid = _UNEVEN + "which they have where the output's height and width divide the input's"
