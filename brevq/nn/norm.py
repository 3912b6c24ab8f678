"""Quantized normalizations."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from brevq.errors import ArgumentError
from brevq.nn.layer import QuantLayer
from brevq.nn.module import QuantModule
from brevq.quant_tensor import describe, plain
from brevq.quantizer import Quantizer
from injectors import Int8WeightPerTensor

_NO_OUTPUT_QUANT = (
    "{layer} got `return_quant_tensor=True` without an `output_quant`: normalized values lie on no grid. "
    "Give it an `output_quant`"
)
_NO_ACCUMULATOR = (
    "{layer} got `bias_quant={recipe}`, which takes the scale of an accumulator, and normalized values have none: use "
    "a recipe with a scale of its own, such as injectors.Int8BiasPerTensor"
)
_CHANNELS = "{layer} has {ours} channels, and its input of shape {shape} has {theirs}"
_NO_STATISTICS = (
    "{layer} has no running statistics (track_running_stats=False): its scale and bias are those of a batch of more "
    "than one value per channel, and there is none"
)
_SHARED = (
    "{layer} was given a `weight_quant` that serves other layers. What it quantizes is no weight, so it can not be "
    "counted into their statistics: give it the recipe, {recipe}"
)


class QuantNorm(QuantLayer):
    """The base of normalizations over features, whose affine weight and bias are quantized.

    Subclass it together with the twin. Statistics and normalization are float; without an affine weight there is none
    to quantize.

    Raises:
        ArgumentError: a `bias_quant` that asks for the scale of an accumulator; or `return_quant_tensor` without an
            `output_quant`.
    """

    normalized_shape: Any
    eps: Any

    def check_quants(self, quants: Mapping[str, Any], return_quant_tensor: bool) -> None:
        """Refuse a `QuantTensor` without a quantizer of the output."""
        if return_quant_tensor and quants["output_quant"] is None:
            raise ArgumentError(_NO_OUTPUT_QUANT.format(layer=type(self).__name__))

    @property
    def operations_per_value(self) -> int:
        """One, the affine weight."""
        return 1

    def bound(self, argument: str, given: Any) -> Quantizer | None:
        """The quantizer that an argument stands for; one of the bias with a scale of its own."""
        quantizer = super().bound(argument, given)
        if argument == "bias_quant" and quantizer is not None and quantizer.needs_scale:
            raise ArgumentError(_NO_ACCUMULATOR.format(layer=type(self).__name__, recipe=quantizer.recipe.__name__))
        return quantizer


class QuantLayerNorm(QuantNorm, nn.LayerNorm):
    """`torch.nn.LayerNorm` with a quantized affine weight, and quantized bias, input and output where asked for.

    ``y = (x - mean) / sqrt(var + eps) * weight + bias``, of which the weight and the bias are quantized. The
    constructor is that of `torch.nn.LayerNorm`, then the recipes and overrides of `QuantLayer`. Input and output
    ``(..., *normalized_shape)``. A `bias_quant` needs a scale of its own.

    Source: Ba et al., 2016, https://arxiv.org/abs/1607.06450.

    Examples:
        >>> from injectors import Int8ActPerTensor, Int8BiasPerTensor
        >>> layer = QuantLayerNorm(16, bias_quant=Int8BiasPerTensor, output_quant=Int8ActPerTensor)
        >>> layer(torch.randn(2, 5, 16)).shape
        torch.Size([2, 5, 16])
    """

    def compute(self, x: Any, weight: Any, bias: Any) -> Any:
        """Features less their mean, over their standard deviation, times the weight, plus the bias."""
        return F.layer_norm(x, self.normalized_shape, weight, bias, self.eps)


class QuantRMSNorm(QuantNorm, nn.RMSNorm):  # type: ignore[misc]  # the twin's `forward` calls its input `x`
    """`torch.nn.RMSNorm` with a quantized affine weight, and quantized input and output where asked for.

    ``y = x / sqrt(mean(x ** 2) + eps) * weight``. The constructor is that of `torch.nn.RMSNorm`, then `weight_quant`
    (default `Int8WeightPerTensor`), `input_quant` and `output_quant` (default None), and the overrides of
    `QuantLayer`. Input and output ``(..., *normalized_shape)``.

    Source: Zhang and Sennrich, 2019, https://arxiv.org/abs/1910.07467.

    Examples:
        >>> QuantRMSNorm(16, weight_bit_width=4)(torch.randn(2, 5, 16)).shape
        torch.Size([2, 5, 16])
    """

    quants = {  # noqa: RUF012  # a ClassVar of the base
        "weight_quant": Int8WeightPerTensor,
        "input_quant": None,
        "output_quant": None,
    }

    bias = None
    bias_quant = None

    def compute(self, x: Any, weight: Any, bias: None) -> Any:
        """Features over their root mean square, times the weight."""
        return F.rms_norm(x, self.normalized_shape, weight, self.eps)


class QuantBatchNorm(QuantLayer, _BatchNorm):
    """The base of batch normalizations as a quantized scale and bias for each channel. Subclass it with the twin.

    ``y = x * w + b``, where ``w = weight / sqrt(var + eps)`` and ``b = bias - mean * w``. It is `w` that `weight_quant`
    quantizes, and `b` that `bias_quant` does. Mean and variance are those of the batch in training, through which
    gradients go, and running ones in evaluation; running ones are updated exactly as the twin does. Without affine
    parameters the weight is 1 and the bias 0. With ``weight_quant=None`` it is the twin.

    With `return_quant_tensor` and without an `output_quant`, an input on a grid and a `bias_quant` tied to it, such as
    `Int32Bias`, give an output on the grid of input times `w`.

    Args:
        *args: positional arguments of the twin.
        weight_quant: recipe for `w`; None for float, and then the bias is float too. Default: `Int8WeightPerTensor`.
        bias_quant: recipe or quantizer for `b`; None for float. Default: None.
        input_quant: recipe or quantizer for the input; None for as it comes. Default: None.
        output_quant: recipe or quantizer for the output; None for float. Default: None.
        return_quant_tensor: whether the output is a `QuantTensor`. Default: False.
        **keywords: keyword arguments of the twin, and overrides of names of the recipes.

    Raises:
        ArgumentError: the input has another number of channels, or there is a quantizer of other layers for `w`.

    Source:
        Ioffe and Szegedy, 2015, https://arxiv.org/abs/1502.03167, section 3.1, whose inference is a scale and a bias.
    """

    def __setattr__(self, name: str, content: Any) -> None:
        """Set an attribute; what the weight's quantizer serves is no weight, and takes no part in shared statistics."""
        QuantModule.__setattr__(self, name, content)

    @property
    def operations_per_value(self) -> int:
        """One, the scale."""
        return 1

    def bound(self, argument: str, given: Any) -> Quantizer | None:
        """The quantizer that an argument stands for: of scale and bias also where the twin has no such parameters."""
        granularity = given.granularity if argument == "weight_quant" and isinstance(given, Quantizer) else None
        if granularity is not None and granularity.peers:
            raise ArgumentError(_SHARED.format(layer=type(self).__name__, recipe=given.recipe.__name__))
        return QuantModule.bound(self, argument, given)

    def supplied_to(self, argument: str) -> dict[str, Any]:
        """Dtype and device of the parameters or running statistics; to scale and bias also their shape and axis."""
        tensor = next(itertools.chain(self.parameters(recurse=False), self.buffers(recurse=False)), None)
        about: dict[str, Any] = {} if tensor is None else {"dtype": tensor.dtype, "device": tensor.device}
        if argument in ("weight_quant", "bias_quant"):
            about["tensor_shape"] = (self.num_features,)
        if argument == "weight_quant":
            about["channel_axis"] = self.channel_axis
        return about

    def compute(self, x: Any, weight: Any, bias: Any) -> Any:
        """``x * w + b``; in training the running statistics move on."""
        if self.weight_quant is None:
            return _BatchNorm.forward(self, x)
        self._check_input_dim(x)  # type: ignore[no-untyped-call]  # torch's
        if x.shape[1] != self.num_features:
            names = {"layer": describe(self), "ours": self.num_features}
            raise ArgumentError(_CHANNELS.format(**names, theirs=x.shape[1], shape=tuple(x.shape)))
        if self.training:
            self._track(plain(x))
        along_channels = (-1, *(1,) * (x.dim() - 2))
        w, b = (part.to(x.dtype).reshape(along_channels) for part in (weight, bias))
        return x * w + b

    @torch.no_grad()
    def _track(self, x: Tensor) -> None:
        """Update the running statistics, as the twin does."""
        _BatchNorm.forward(self, x)

    def float_parameters(self, x: Any) -> tuple[Any, Any]:
        """`w` and `b`; the parameters themselves where the twin computes."""
        return (self.weight, self.bias) if self.weight_quant is None else self._scale_and_bias(x)

    def _scale_and_bias(self, x: Any) -> tuple[Tensor, Tensor]:
        """`w` and `b`, shape ``(channels,)``, in float32 or float64."""
        mean, variance = self._statistics(x)
        weight = torch.ones_like(variance) if self.weight is None else self.weight
        bias = torch.zeros_like(mean) if self.bias is None else self.bias
        w = weight / torch.sqrt(variance + self.eps)
        return w, bias - mean * w

    def _statistics(self, x: Any) -> tuple[Tensor, Tensor]:
        """Mean and variance: those of a batch in training, or where none are kept; else the running ones."""
        running = self.running_mean, self.running_var
        if (self.training or running[0] is None) and self._is_batch(x):
            values = _wide(plain(x))
            variance, mean = torch.var_mean(values, dim=(0, *range(2, values.dim())), correction=0)
            return mean, variance
        if running[0] is None or running[1] is None:
            raise ArgumentError(_NO_STATISTICS.format(layer=describe(self)))
        return _wide(running[0]), _wide(running[1])

    def _is_batch(self, x: Any) -> bool:
        """Whether `x` has several values for each channel, and is not there for its scale alone."""
        return x is not None and x.shape[1:2] == (self.num_features,) and x.numel() > self.num_features


def _wide(x: Tensor) -> Tensor:
    """`x` in float32, or in float64 where it is that."""
    return x if x.dtype == torch.float64 else x.float()


class QuantBatchNorm1d(QuantBatchNorm, nn.BatchNorm1d):
    """`torch.nn.BatchNorm1d` as a quantized scale and bias for each channel: ``y = x * w + b``.

    The constructor is that of `torch.nn.BatchNorm1d`, then the recipes and overrides of `QuantBatchNorm`. Input and
    output ``(batch, channels)`` or ``(batch, channels, length)``.

    Examples:
        >>> QuantBatchNorm1d(4, weight_bit_width=4)(torch.randn(8, 4)).shape
        torch.Size([8, 4])
    """


class QuantBatchNorm2d(QuantBatchNorm, nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d` as a quantized scale and bias for each channel: ``y = x * w + b``.

    The constructor is that of `torch.nn.BatchNorm2d`, then the recipes and overrides of `QuantBatchNorm`. Input and
    output ``(batch, channels, height, width)``.

    Examples:
        >>> from injectors import Int8ActPerTensor, Int32Bias
        >>> layer = QuantBatchNorm2d(
        ...     4, bias_quant=Int32Bias, input_quant=Int8ActPerTensor, return_quant_tensor=True, weight_bit_width=4
        ... )
        >>> y = layer(torch.randn(8, 4, 5, 5))
        >>> y.is_valid, y.bit_width
        (True, tensor(33.))
    """
