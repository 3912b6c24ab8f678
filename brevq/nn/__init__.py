"""Quantized layers: twins of those in `torch.nn`, with recipes for weight, bias, input and output."""

from brevq.nn.activation import QuantIdentity, QuantReLU
from brevq.nn.conv import QuantConv1d, QuantConv2d, QuantConv3d
from brevq.nn.linear import QuantLinear

__all__ = ["QuantConv1d", "QuantConv2d", "QuantConv3d", "QuantIdentity", "QuantLinear", "QuantReLU"]
