"""brevq."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import brevq.nn as qnn
import injectors
from benchmarks.libraries import Library, NotOfferedError
from benchmarks.networks import Kit
from brevq.graph import calibrating
from brevq.inject import build

#: Longer than any run: statistics are observed in every step.
FOR_EVER = {"collect_stats_steps": 2**30}

WEIGHTS = {
    "int8 per tensor": injectors.Int8WeightPerTensor,
    "int8 per channel": injectors.Int8WeightPerChannel,
    "int8 per group": injectors.Int8WeightPerGroup,
    "int8 per tensor, learned": injectors.Int8WeightPerTensorLSQ,
    "fp8e4m3 per tensor": injectors.Fp8e4m3OCPWeightPerTensor,
    "fp8e4m3 per channel": injectors.Fp8e4m3OCPWeightPerChannel,
    "fp8e4m3 per group": injectors.Fp8e4m3OCPWeightPerGroup,
}
ACTIVATIONS = {
    "int8": injectors.Int8ActPerTensor,
    "uint8": injectors.Uint8ActPerTensor,
    "fp8e4m3": injectors.Fp8e4m3OCPActPerTensor,
}
DYNAMIC = {
    "int8": injectors.Int8ActPerTensorDynamic,
    "int8 per token": injectors.Int8ActPerTokenDynamic,
    "int8 per group": injectors.Int8ActPerGroupDynamic,
    "fp8e4m3 per token": injectors.Fp8e4m3OCPActPerTokenDynamic,
}
RECURRENT = {"LSTM": qnn.QuantLSTM, "GRU": qnn.QuantGRU, "RNN": qnn.QuantRNN}


def recurrent(cell: str, width: int, hidden: int, quantized: str, **phase: Any) -> nn.Module:
    """A recurrent layer, of whose activations none, the states, or all are quantized."""
    layer = RECURRENT[cell]
    signed, unsigned = injectors.Int8ActPerTensor.let(**phase), injectors.Uint8ActPerTensor.let(**phase)
    states = {"hidden_quant": signed}
    rest = {"input": signed, "accumulator": signed, "cell": signed, "gate": unsigned, "tanh": signed}
    offered = {f"{name}_quant": recipe for name, recipe in rest.items() if name == "input" or name_in(layer, name)}
    quants: dict[str, dict[str, Any]] = {"weights": {}, "states": states, "all": states | offered}
    made: nn.Module = layer(width, hidden, **quants[quantized])
    return made


def name_in(layer: Any, name: str) -> bool:
    """Whether a recurrent layer quantizes what is called so."""
    return f"{name}_quant" in layer.quants


class WeightQuant(nn.Module):
    """The quantized weight of a layer, as the layer's own forward pass computes it."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        quantized: Tensor = self.layer.quant_weight().value
        return quantized


class Brevq(Library):
    """brevq."""

    imports = ("torch", "brevq")

    def weight(self, recipe: str, weight: nn.Parameter) -> Callable[[Tensor], Tensor]:
        layer = qnn.QuantLinear(*reversed(weight.shape), bias=False, weight_quant=WEIGHTS[recipe])
        layer.weight = weight
        return WeightQuant(layer)

    def activation(self, recipe: str, phase: str, x: Tensor) -> Callable[[Tensor], Tensor]:
        if phase == "dynamic":
            return qnn.QuantIdentity(act_quant=DYNAMIC[recipe])
        overrides = FOR_EVER if phase == "statistics" else {}
        layer = qnn.QuantIdentity(act_quant=ACTIVATIONS[recipe], **overrides)
        self.settle(layer, x, phase)
        return layer

    def linear(self, quantized: str) -> Callable[[], nn.Module]:
        quants: dict[str, dict[str, Any]] = {
            "weights": {},
            "one override": {"weight_bit_width": 4},
            "all": {"input_quant": injectors.Int8ActPerTensor, "output_quant": injectors.Int8ActPerTensor},
        }
        return lambda: qnn.QuantLinear(64, 64, **quants[quantized])

    def recipe(self) -> Callable[[], Any]:
        supplied = {"tensor_shape": (64, 64), "channel_axis": 0, "dtype": torch.float32, "device": None}
        counter = itertools.count(1)
        return lambda: build(injectors.Int8WeightPerTensor.let(scaling_min_val=1e-9 * next(counter)), supplied)

    def kit(self, scales: str) -> Kit:
        phase = FOR_EVER if scales == "statistics" else {}
        signed, unsigned = injectors.Int8ActPerTensor.let(**phase), injectors.Uint8ActPerTensor.let(**phase)
        return Kit(
            qnn.QuantConv2d,
            qnn.QuantLinear,
            partial(qnn.QuantLinear, input_quant=signed),
            partial(qnn.QuantReLU, act_quant=unsigned),
            partial(qnn.QuantIdentity, act_quant=signed),
            partial(recurrent, **phase),
        )

    def settle(self, model: nn.Module, batch: Tensor, scales: str) -> None:
        if scales == "statistics":
            with torch.no_grad():
                model(batch)
            return
        if scales not in {"fixed", "learned"}:
            raise NotOfferedError
        with torch.no_grad(), calibrating(model, then=scales):
            model(batch)
        model.train()  # what observes no more is left out from here
