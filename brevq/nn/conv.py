"""Quantized convolutions, and transposed ones."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from brevq.function.recomputed import convolution
from brevq.nn.layer import QuantLayer
from brevq.quant_tensor import plain

#: How twins convolve, unless a subclass says how else.
_FORWARDS = tuple(vars(twin)["_conv_forward"] for twin in (nn.Conv1d, nn.Conv2d, nn.Conv3d))


class QuantConv(QuantLayer):
    """The base of quantized convolutions of any number of dimensions. Subclass it together with the twin."""

    def compute(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The convolution, with the layer's stride, padding, dilation and groups."""
        module: Any = self
        source = self.source_of(x, weight) if self._is_usual(x, weight) else None
        if source is None:
            output: Tensor = module._conv_forward(x, weight, bias)  # noqa: SLF001  # the twin's
            return output
        return convolution(x, weight, bias, source, module.stride, module.padding, module.dilation, module.groups)

    def _is_usual(self, x: Any, weight: Any) -> bool:
        """Whether the twin convolves a batch that is padded with zeros, and nobody says how else it does."""
        module: Any = self
        usual = type(module)._conv_forward in _FORWARDS  # noqa: SLF001  # the twin's
        numbers = type(module.stride) is type(module.padding) is type(module.dilation) is tuple
        zeros = module.padding_mode == "zeros" and numbers
        return usual and zeros and type(weight) is Tensor and x.dim() == weight.dim()


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


_TRANSPOSED = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)


class QuantConvTranspose(QuantLayer):
    """The base of quantized transposed convolutions of any number of dimensions. Subclass it together with the twin.

    A weight has shape ``(in_channels, out_channels / groups, *kernel_size)``, so a recipe per channel gives it
    ``out_channels / groups`` scales along axis 1, and each is shared by as many outputs as there are groups.
    """

    channel_axis = 1

    stride: Any
    padding: Any
    output_padding: Any
    dilation: Any
    groups: int
    kernel_size: tuple[int, ...]

    def compute(self, x: Any, weight: Any, bias: Any, output_size: list[int] | None = None) -> Any:
        """The transposed convolution, with the layer's stride, padding, dilation and groups.

        Args:
            x: the input, ``(batch, in_channels, *size)``, or without the batch.
            weight: the weight.
            bias: the bias, or None.
            output_size: which of the sizes that the stride allows the output has. Default: the one that
                `output_padding` says.
        """
        dimensions = len(self.kernel_size)
        padded = self._output_padding(  # type: ignore[operator]  # the twin's
            plain(x), output_size, self.stride, self.padding, self.kernel_size, dimensions, self.dilation
        )
        transposed = _TRANSPOSED[dimensions - 1]
        return transposed(x, weight, bias, self.stride, self.padding, padded, self.groups, self.dilation)

    def accumulator_scale(self, x: Any, weight: Any) -> Tensor:
        """The scale of what the layer accumulates: ``input scale * weight scale``, the same for each group.

        Args:
            x: the quantized input.
            weight: the quantized weight.

        Returns:
            A tensor of shape `()` or ``(out_channels,)``.

        Raises:
            ArgumentError: the input is a plain tensor, or an output has several scales.
        """
        scale = super().accumulator_scale(x, weight)
        return scale.repeat(self.groups) if scale.dim() else scale


class QuantConvTranspose1d(QuantConvTranspose, nn.ConvTranspose1d):
    """`torch.nn.ConvTranspose1d` with a quantized weight, and quantized bias, input and output where asked for.

    The constructor is that of `torch.nn.ConvTranspose1d`, then the recipes and overrides of `QuantLayer`. Input
    ``(batch, in_channels, length)``, and an `output_size` or None; output ``(batch, out_channels, length_out)``.

    Examples:
        >>> import torch
        >>> layer = QuantConvTranspose1d(3, 8, 3, stride=2, weight_bit_width=4)
        >>> layer(torch.randn(1, 3, 10)).shape, layer(torch.randn(1, 3, 10), output_size=[22]).shape
        (torch.Size([1, 8, 21]), torch.Size([1, 8, 22]))
    """


class QuantConvTranspose2d(QuantConvTranspose, nn.ConvTranspose2d):
    """`torch.nn.ConvTranspose2d` with a quantized weight, and quantized bias, input and output where asked for.

    The constructor is that of `torch.nn.ConvTranspose2d`, then the recipes and overrides of `QuantLayer`. Input
    ``(batch, in_channels, height, width)``, and an `output_size` or None; output ``(batch, out_channels, height_out,
    width_out)``.

    Examples:
        >>> import torch
        >>> from injectors import Int8WeightPerChannel
        >>> layer = QuantConvTranspose2d(4, 8, 3, groups=2, weight_quant=Int8WeightPerChannel)
        >>> layer(torch.randn(1, 4, 10, 10)).shape, layer.quant_weight().scale.shape
        (torch.Size([1, 8, 12, 12]), torch.Size([1, 4, 1, 1]))
    """


class QuantConvTranspose3d(QuantConvTranspose, nn.ConvTranspose3d):
    """`torch.nn.ConvTranspose3d` with a quantized weight, and quantized bias, input and output where asked for.

    The constructor is that of `torch.nn.ConvTranspose3d`, then the recipes and overrides of `QuantLayer`. Input
    ``(batch, in_channels, depth, height, width)``, and an `output_size` or None; output ``(batch, out_channels,
    depth_out, height_out, width_out)``.

    Examples:
        >>> import torch
        >>> QuantConvTranspose3d(3, 8, 3, weight_bit_width=4)(torch.randn(1, 3, 4, 6, 6)).shape
        torch.Size([1, 8, 6, 8, 8])
    """
