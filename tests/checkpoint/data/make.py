"""Makes the checkpoints that the tests keep, ``network.pt`` and ``network.safetensors``.

``python tests/checkpoint/data/make.py`` was run once, with the first version of the format. What it wrote is to be read
by every later version, so it is run again only to keep a file of another version, beside these.

Weights, inputs and scales are small multiples of powers of two: all sums are exact, on whatever machine.
"""

import sys
from pathlib import Path

import torch
from torch import nn

from brevq.checkpoint import save
from brevq.graph import calibrating
from brevq.nn import QuantConv2d, QuantLinear, QuantReLU
from injectors import (
    Int8ActPerTensorPoT,
    Int8WeightPerChannelPoT,
    Int8WeightPerTensorLSQ,
    Int8WeightPerTensorPoT,
    Int32Bias,
    Uint8ActPerTensorPoT,
)

HERE = Path(__file__).parent


def inputs():
    """Two images, ``(2, 1, 4, 4)``, of sixteenths between -1 and 1."""
    return ((torch.arange(32.0) * 7) % 33 - 16).reshape(2, 1, 4, 4) / 16


def float_network():
    """The architecture."""
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 4), nn.Linear(4, 2), nn.Linear(4, 2)
    )


def forward(network, x):
    """The sum of what the two heads say."""
    features = network[:4](x)
    return network[4](features) + network[5](features)


def quantized_network():
    """It, calibrated, with a learned scale that two layers share."""
    head = QuantLinear(4, 2, weight_quant=Int8WeightPerTensorLSQ)
    network = nn.Sequential(
        QuantConv2d(
            1,
            3,
            3,
            weight_quant=Int8WeightPerChannelPoT,
            weight_bit_width=4,
            bias_quant=Int32Bias,
            input_quant=Int8ActPerTensorPoT,
            return_quant_tensor=True,
        ),
        QuantReLU(act_quant=Uint8ActPerTensorPoT, bit_width=6),
        nn.Flatten(),
        QuantLinear(12, 4, weight_quant=Int8WeightPerTensorPoT),
        head,
        QuantLinear(4, 2, weight_quant=head.weight_quant),
    )
    _fill(network)
    with torch.no_grad(), calibrating(network.eval()):
        forward(network, inputs())
        head.weight_quant.tensor_quant.scaling_impl.value.fill_(127 / 32)  # as if training had come to a step of 1/32
    return network


@torch.no_grad()
def _fill(network):
    """Set weights and biases to eighths between -1 and 1."""
    for layer in network:
        for number, parameter in enumerate(p for p in layer.parameters(recurse=False)):
            values = (torch.arange(float(parameter.numel())) * 5 + number) % 17 - 8
            parameter.copy_(values.reshape(parameter.shape) / 8)


def main():
    """Write the files."""
    network = quantized_network()
    for name in ("network.pt", "network.safetensors"):
        save(network, HERE / name)
    with torch.no_grad():
        print(forward(network, inputs()).tolist(), network[4].quant_weight().scale.item())
    return 0


if __name__ == "__main__":
    sys.exit(main())
