"""Networks whose layers hand quantized tensors to each other, and a step of their training."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import brevq.nn as qnn
from injectors import Int8WeightPerChannel, Int8WeightPerTensorLSQ, Int32Bias, ShiftedUint8ActPerTensor

STEPS = {"collect_stats_steps": 3}


class Residual(nn.Module):
    """Convolutions with tied biases around a residual sum, then pooling, concatenation and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.input = qnn.QuantIdentity(return_quant_tensor=True, **STEPS)
        self.conv = qnn.QuantConv2d(2, 2, 3, padding=1, weight_quant=Int8WeightPerChannel, bias_quant=Int32Bias)
        self.sum = qnn.QuantIdentity(return_quant_tensor=True, **STEPS)
        self.relu = qnn.QuantReLU(return_quant_tensor=True, **STEPS)
        self.classify = qnn.QuantLinear(16, 3, bias_quant=Int32Bias)

    def forward(self, x: Tensor) -> Any:
        """Three numbers for each image of 2 by 8 by 8."""
        y = self.sum(self.conv(self.input(x))) + self.sum(x)
        y = F.max_pool2d(self.relu(y), 4)
        return self.classify(torch.cat([y, y], dim=1).flatten(1))


def sequential() -> nn.Module:
    """Convolution with a tied bias, normalisation, activation, and a linear layer with shifted inputs."""
    return nn.Sequential(
        qnn.QuantIdentity(return_quant_tensor=True, **STEPS),
        qnn.QuantConv2d(2, 4, 3, weight_quant=Int8WeightPerChannel, bias_quant=Int32Bias),
        nn.BatchNorm2d(4),
        qnn.QuantReLU(**STEPS),
        nn.Flatten(),
        qnn.QuantLinear(144, 3, input_quant=ShiftedUint8ActPerTensor, input_collect_stats_steps=4),
    )


def learned() -> nn.Module:
    """Learned scales of weights, which begin with the first batch."""
    return nn.Sequential(
        nn.Flatten(),
        qnn.QuantIdentity(return_quant_tensor=True, **STEPS),
        qnn.QuantLinear(128, 8, weight_quant=Int8WeightPerTensorLSQ, bias_quant=Int32Bias, return_quant_tensor=True),
        qnn.QuantHardTanh(**STEPS),
        qnn.QuantLinear(8, 3),
    )


NETWORKS: dict[str, Callable[[], nn.Module]] = {"residual": Residual, "sequential": sequential, "learned": learned}


def images(number: int = 2, seed: int = 0) -> Tensor:
    """Images of 2 by 8 by 8, whose range differs from seed to seed."""
    return torch.randn(number, 2, 8, 8, generator=torch.Generator().manual_seed(seed)) * (1 + seed)
