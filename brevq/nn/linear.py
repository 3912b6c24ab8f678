"""Quantized linear layers."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from brevq.function.recomputed import linear
from brevq.nn.layer import QuantLayer


class QuantLinear(QuantLayer, nn.Linear):
    """`torch.nn.Linear` with a quantized weight, and quantized bias, input and output where asked for.

    The constructor is that of `torch.nn.Linear`, then the recipes and overrides of `QuantLayer`. Input
    ``(..., in_features)``, output ``(..., out_features)``.

    Examples:
        >>> import torch
        >>> from injectors import Int8ActPerTensor
        >>> layer = QuantLinear(64, 10, weight_bit_width=4, input_quant=Int8ActPerTensor)
        >>> layer(torch.randn(2, 64)).shape
        torch.Size([2, 10])
        >>> layer.quant_weight().int().unique().numel() <= 15
        True
    """

    def compute(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """``x @ weight.T + bias``."""
        source = self.source_of(x, weight)
        return F.linear(x, weight, bias) if source is None else linear(x, weight, bias, source)
