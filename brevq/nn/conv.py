"""Quantized convolutions."""

from __future__ import annotations

from torch import Tensor, nn

from brevq.nn.layer import QuantLayer


class QuantConv(QuantLayer):
    """The base of quantized convolutions of any number of dimensions. Subclass it together with the twin."""

    def compute(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The convolution, with the layer's stride, padding, dilation and groups."""
        output: Tensor = self._conv_forward(x, weight, bias)  # type: ignore[operator]  # the twin's
        return output


class QuantConv1d(QuantConv, nn.Conv1d):
    """`torch.nn.Conv1d` with a quantized weight, and quantized bias, input and output where asked for.

    The constructor is that of `torch.nn.Conv1d`, then the recipes and overrides of `QuantLayer`. Input
    ``(batch, in_channels, length)``, output ``(batch, out_channels, length_out)``.

    Examples:
        >>> import torch
        >>> QuantConv1d(3, 8, 3, padding=1, weight_bit_width=4)(torch.randn(1, 3, 10)).shape
        torch.Size([1, 8, 10])
    """


class QuantConv2d(QuantConv, nn.Conv2d):
    """`torch.nn.Conv2d` with a quantized weight, and quantized bias, input and output where asked for.

    The constructor is that of `torch.nn.Conv2d`, then the recipes and overrides of `QuantLayer`. Input
    ``(batch, in_channels, height, width)``, output ``(batch, out_channels, height_out, width_out)``.

    Examples:
        >>> import torch
        >>> from injectors import Int8WeightPerChannel
        >>> layer = QuantConv2d(3, 8, 3, padding=1, weight_quant=Int8WeightPerChannel)
        >>> layer(torch.randn(1, 3, 10, 10)).shape, layer.quant_weight().scale.shape
        (torch.Size([1, 8, 10, 10]), torch.Size([8, 1, 1, 1]))
    """


class QuantConv3d(QuantConv, nn.Conv3d):
    """`torch.nn.Conv3d` with a quantized weight, and quantized bias, input and output where asked for.

    The constructor is that of `torch.nn.Conv3d`, then the recipes and overrides of `QuantLayer`. Input
    ``(batch, in_channels, depth, height, width)``, output ``(batch, out_channels, depth_out, height_out,
    width_out)``.

    Examples:
        >>> import torch
        >>> QuantConv3d(3, 8, 3, padding=1, weight_bit_width=4)(torch.randn(1, 3, 4, 6, 6)).shape
        torch.Size([1, 8, 4, 6, 6])
    """
