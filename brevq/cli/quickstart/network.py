"""The network of the quickstart, in float and quantized."""

from __future__ import annotations

from typing import Any

from torch import nn

from brevq.nn import QuantConv2d, QuantLinear, QuantReLU
from brevq.overview import Record, summary
from injectors import Uint8ActPerTensor


def float_network() -> nn.Sequential:
    """Three strided convolutions and a linear layer, 33,914 parameters.

    Takes images `(n, 1, 28, 28)`, returns the logits of ten digits, `(n, 10)`.

    Examples:
        >>> sum(parameter.numel() for parameter in float_network().parameters())
        33914
    """
    return nn.Sequential(
        nn.Conv2d(1, 16, 5, stride=2, padding=2, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64 * 4 * 4, 10),
    )


def quantized_network(recipe: Any) -> nn.Sequential:
    """The quantized twin of `float_network`: all weights by `recipe`, all inputs of layers on 8 bits.

    Each module stands where its float twin does, so the float network's `state_dict` loads strictly. Pixels are
    bytes already and lose nothing.

    Args:
        recipe: a weight recipe.

    Examples:
        >>> from injectors import Int4WeightPerChannel
        >>> twin = quantized_network(Int4WeightPerChannel)
        >>> twin.load_state_dict(float_network().state_dict(), strict=True)
        <All keys matched successfully>
    """
    return nn.Sequential(
        QuantConv2d(1, 16, 5, stride=2, padding=2, bias=False, weight_quant=recipe, input_quant=Uint8ActPerTensor),
        nn.BatchNorm2d(16),
        QuantReLU(),
        QuantConv2d(16, 32, 3, stride=2, padding=1, bias=False, weight_quant=recipe),
        nn.BatchNorm2d(32),
        QuantReLU(),
        QuantConv2d(32, 64, 3, stride=2, padding=1, bias=False, weight_quant=recipe),
        nn.BatchNorm2d(64),
        QuantReLU(),
        nn.Flatten(),
        QuantLinear(64 * 4 * 4, 10, weight_quant=recipe),
    )


def weight_bits(network: nn.Module) -> int:
    """What a weight of the network is stored in: 32 bits in float, 2 when ternary, 1 when binary.

    Args:
        network: a float or quantized network, all of whose layers have the same recipe.

    Examples:
        >>> weight_bits(float_network())
        32
    """
    return max(record.bits or 0 for record in _weights(network))


def weight_bytes(network: nn.Module) -> int:
    """What the weights of all convolutions and linear layers take when packed to their bits, scales included.

    They are counted as `brevq.summary` counts them: each layer is rounded up to bytes, and a quantized one takes 4
    bytes more for each of its scales. Biases and normalisation stay float and do not count.

    Args:
        network: a float or quantized network.

    Examples:
        >>> from injectors import Int4WeightPerChannel
        >>> weight_bytes(nn.Linear(8, 2)), weight_bytes(QuantLinear(8, 2, weight_quant=Int4WeightPerChannel))
        (64, 16)
    """
    return sum(record.bytes for record in _weights(network))


def _weights(network: nn.Module) -> list[Record]:
    """The weights of all convolutions and linear layers; normalisation has some, too."""
    return [
        record
        for record in summary(network).records
        if record.tensor == "weight" and isinstance(network.get_submodule(record.layer), (nn.Conv2d, nn.Linear))
    ]
