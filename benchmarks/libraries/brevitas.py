"""Brevitas, in the environment of the peers."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import brevitas.nn as bnn
import torch
from brevitas.inject.enum import ScalingPerOutputType
from brevitas.proxy.groupwise_float_parameter_quant import GroupwiseWeightFloatQuantProxyFromInjector
from brevitas.proxy.groupwise_int_parameter_quant import GroupwiseWeightQuantProxyFromInjector
from brevitas.quant import (
    Int8ActPerTensorFloat,
    Int8WeightPerChannelFloat,
    Int8WeightPerTensorFloat,
    Uint8ActPerTensorFloat,
)
from brevitas.quant.float_quant_ocp import (
    Fp8e4m3OCPActPerTensorFloat,
    Fp8e4m3OCPWeightPerChannelFloat,
    Fp8e4m3OCPWeightPerTensorFloat,
)
from torch import Tensor, nn

from benchmarks.libraries import Library, NotOfferedError
from benchmarks.networks import Kit


class Int8WeightPerGroup(Int8WeightPerChannelFloat):
    """Integers in groups of 32, with scales in floating-point."""

    proxy_class = GroupwiseWeightQuantProxyFromInjector
    scaling_per_output_type = ScalingPerOutputType.GROUP
    group_size = 32


class Fp8WeightPerGroup(Fp8e4m3OCPWeightPerChannelFloat):
    """Minifloats in groups of 32, with scales in floating-point."""

    proxy_class = GroupwiseWeightFloatQuantProxyFromInjector
    scaling_per_output_type = ScalingPerOutputType.GROUP
    group_size = 32


WEIGHTS = {
    "int8 per tensor": Int8WeightPerTensorFloat,
    "int8 per channel": Int8WeightPerChannelFloat,
    "int8 per group": Int8WeightPerGroup,
    "fp8e4m3 per tensor": Fp8e4m3OCPWeightPerTensorFloat,
    "fp8e4m3 per channel": Fp8e4m3OCPWeightPerChannelFloat,
    "fp8e4m3 per group": Fp8WeightPerGroup,
}
ACTIVATIONS = {
    "int8": Int8ActPerTensorFloat,
    "uint8": Uint8ActPerTensorFloat,
    "fp8e4m3": Fp8e4m3OCPActPerTensorFloat,
}
#: What the recipes of dynamic scales leave open.
DYNAMIC: dict[str, dict[str, Any]] = {
    "int8 per group": {"group_size": 32, "group_dim": -1},
    "int8 per token": {
        "dynamic_scaling_broadcastable_fn": lambda scale, shape: scale.view(*shape[:-1], 1),
        "scaling_stats_permute_dims": None,
    },
}
#: Statistics for ever, or for one step.
STEPS = {"statistics": 2**30, "fixed": 1, "learned": 1}


def dynamic(recipe: str) -> Any:
    """A recipe with scales of each input; those that the package has are among its examples."""
    from brevitas_examples.common.generative import quantizers  # noqa: PLC0415  # it needs more than the library does

    names = {
        "int8": "Int8DynamicActPerTensorFloat",
        "int8 per token": "Int8DynamicActPerRowFloat",
        "int8 per group": "Int8DynamicActPerGroupFloat",
    }
    return getattr(quantizers, names[recipe])


class WeightQuant(nn.Module):
    """The quantized weight of a layer."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer.quant_weight().value


class Brevitas(Library):
    """Brevitas."""

    imports = ("torch", "brevitas.nn")

    def weight(self, recipe: str, weight: nn.Parameter) -> Callable[[Tensor], Tensor]:
        if recipe not in WEIGHTS:
            raise NotOfferedError
        layer = bnn.QuantLinear(*reversed(weight.shape), bias=False, weight_quant=WEIGHTS[recipe])
        layer.weight.data.copy_(weight.data)
        layer.weight = weight
        return WeightQuant(layer)

    def activation(self, recipe: str, phase: str, x: Tensor) -> Callable[[Tensor], Tensor]:
        if phase == "dynamic":
            if recipe.startswith("fp8"):
                raise NotOfferedError
            return bnn.QuantIdentity(act_quant=dynamic(recipe), **DYNAMIC.get(recipe, {}))
        layer = bnn.QuantIdentity(act_quant=ACTIVATIONS[recipe], collect_stats_steps=STEPS[phase])
        self.settle(layer, x, phase)
        return layer

    def linear(self, quantized: str) -> Callable[[], nn.Module]:
        quants: dict[str, dict[str, Any]] = {
            "weights": {},
            "one override": {"weight_bit_width": 4},
            "all": {"input_quant": Int8ActPerTensorFloat, "output_quant": Int8ActPerTensorFloat},
        }
        return lambda: bnn.QuantLinear(64, 64, **quants[quantized])

    def recipe(self) -> Callable[[], Any]:
        layer = nn.Linear(64, 64)
        counter = itertools.count(1)

        def derive() -> Any:
            derived = Int8WeightPerTensorFloat.let(scaling_min_val=1e-9 * next(counter))
            return derived.let(module=layer, tracked_parameter_list=[layer.weight]).tensor_quant

        return derive

    def kit(self, scales: str) -> Kit:
        steps = {"collect_stats_steps": STEPS[scales]}
        signed, unsigned = Int8ActPerTensorFloat.let(**steps), Uint8ActPerTensorFloat.let(**steps)

        def recurrent(cell: str, width: int, hidden: int, quantized: str) -> nn.Module:
            if cell == "GRU" or quantized == "weights":
                raise NotOfferedError  # the state of its layers is always quantized
            rest = ("bias_quant", "gate_acc_quant", "sigmoid_quant", "tanh_quant", "cell_state_quant")
            if cell == "RNN":
                rest = ("bias_quant", "gate_acc_quant")
            off = dict.fromkeys(rest) if quantized == "states" else {}
            layer = {"LSTM": bnn.QuantLSTM, "RNN": bnn.QuantRNN}[cell]
            options = {} if "cell_state_quant" not in off else {"cat_output_cell_states": False}
            return layer(width, hidden, io_quant=signed, **off, **options)

        return Kit(
            bnn.QuantConv2d,
            bnn.QuantLinear,
            partial(bnn.QuantLinear, input_quant=signed),
            partial(bnn.QuantReLU, act_quant=unsigned),
            partial(bnn.QuantIdentity, act_quant=signed),
            recurrent,
        )

    def settle(self, model: nn.Module, batch: Tensor, scales: str) -> None:
        with torch.no_grad():
            for _ in range(3):  # the statistics of one step, then the step that makes a parameter of them
                model.train()(batch)
        if scales == "fixed":
            for name, parameter in model.named_parameters():
                parameter.requires_grad_("scaling_impl" not in name)
