"""All cases."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.case import Case, Growth

#: Sizes of tensors by what they are called: rows that divide into groups of 32.
SHAPES = {"1e3": (32, 32), "1e5": (320, 320), "1e6": (1000, 1024), "1e7": (3200, 3200)}
WEIGHTS = (
    "int8 per tensor",
    "int8 per channel",
    "int8 per group",
    "int8 per tensor, learned",
    "fp8e4m3 per tensor",
    "fp8e4m3 per channel",
    "fp8e4m3 per group",
)
ACTIVATIONS = (
    ("int8", "fixed"),
    ("int8", "learned"),
    ("int8", "statistics"),
    ("uint8", "learned"),
    ("uint8", "statistics"),
    ("fp8e4m3", "learned"),
    ("fp8e4m3", "statistics"),
    ("int8", "dynamic"),
    ("int8 per token", "dynamic"),
    ("int8 per group", "dynamic"),
    ("fp8e4m3 per token", "dynamic"),
)
#: What a quick run, of the middle sizes, is about.
QUICK = {"1e3", "1e6"}
DIRECTIONS = {"forward": False, "forward and backward": True}
FAKE = ("brevq", "Brevitas", "torchao", "torch", "naive")
NETWORKS = ("ResNet-18", "MobileNetV1", "GPT", "LSTM")
#: What a network is made with.
SIZES: dict[str, dict[str, Any]] = {
    "LSTM": {"network": "recurrent", "cell": "LSTM", "width": 64, "hidden": 256, "quantized": "all"}
}
CELLS = ("LSTM", "GRU", "RNN")
#: Time steps, batch, width, hidden size.
RECURRENT = ((32, 8, 64, 64), (32, 32, 128, 256))


def values(shape: tuple[int, ...], positive: bool = False) -> Tensor:
    """Normally distributed numbers, the same in each run."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return x.relu() if positive else x


def weight(shape: tuple[int, ...], recipe: str, backward: bool, compiled: bool = False) -> dict[str, Any]:
    """Arguments of a weight's fake-quantization."""
    return {"x": values(shape), "recipe": recipe, "backward": backward, "compiled": compiled}


def activation(shape: tuple[int, ...], recipe: str, phase: str, backward: bool, **rest: bool) -> dict[str, Any]:
    """Arguments of an activation's fake-quantization."""
    return {"x": values(shape, recipe == "uint8"), "recipe": recipe, "phase": phase, "backward": backward, **rest}


def batch(network: str) -> Tensor:
    """The input of a network."""
    generator = torch.Generator().manual_seed(0)
    if network == "GPT":
        return torch.randint(0, 512, (8, 128), generator=generator)
    return values({"LSTM": (32, 32, 64)}.get(network, (64, 3, 32, 32)))


def target(network: str) -> Tensor:
    """What a network is trained to say."""
    generator = torch.Generator().manual_seed(1)
    classes, shape = {"GPT": (512, (8, 128)), "LSTM": (10, (32,))}.get(network, (1000, (64,)))
    return torch.randint(0, classes, shape, generator=generator)


def training(network: str, scales: str, compiled: bool = False) -> dict[str, Any]:
    """Arguments of a step of training."""
    return {**evaluation(network, scales, compiled), "target": target(network)}


def evaluation(network: str, scales: str, compiled: bool = False) -> dict[str, Any]:
    """Arguments of an evaluation."""
    made = SIZES.get(network, {"network": network})
    return {**made, "batch": batch(network), "scales": scales, "compiled": compiled}


def construction() -> Iterator[Case]:
    """Layers, recipes and networks made, copied, loaded; submodules; the import."""
    both = ("brevq", "Brevitas")
    for quantized in ("weights", "one override", "all"):
        yield Case(f"construct a layer: {quantized}", "linear", partial(dict, quantized=quantized), both, "float")
    for quantized in ("weights", "all"):
        arguments = partial(dict, quantized=quantized)
        yield Case(f"modules of a layer: {quantized}", "linear", arguments, both, "float", "modules")
    yield Case("derive, plan and build a recipe", "recipe", dict, both, "float")
    yield Case("construct ResNet-50", "construct", partial(dict, network="ResNet-50"), both, "float", long=True)
    yield Case("deepcopy ResNet-18", "copied", partial(dict, network="ResNet-18"), both, "float", long=True)
    yield Case("load_state_dict of ResNet-18", "loaded", loading, both, "float", long=True)
    yield Case("import, with torch", "imported", dict, ("brevq", "Brevitas", "torchao"), "float", long=True)


def loading() -> dict[str, Any]:
    """Arguments of a load."""
    return {"network": "ResNet-18", "batch": batch("ResNet-18")[:2]}


def fake_quantization() -> Iterator[Case]:
    """Weights and activations by format, granularity, source of the scale, size and direction."""
    for size, shape in SHAPES.items():
        extended = size not in QUICK
        for direction, backward in DIRECTIONS.items():
            for recipe in WEIGHTS:
                name = f"weight {recipe}, {size}, {direction}"
                yield Case(name, "weight", partial(weight, shape, recipe, backward), FAKE, "clone", extended=extended)
            for recipe, phase in ACTIVATIONS:
                name = f"activation {recipe} {phase}, {size}, {direction}"
                arguments = partial(activation, shape, recipe, phase, backward)
                yield Case(name, "activation", arguments, FAKE, "clone", extended=extended)
        name = f"activation int8 fixed, {size}, evaluation"
        arguments = partial(activation, shape, "int8", "fixed", False, training=False)
        yield Case(name, "activation", arguments, FAKE, "clone", extended=extended)


def compiled_fake_quantization() -> Iterator[Case]:
    """The same, compiled, for the common recipes."""
    for direction, backward in DIRECTIONS.items():
        arguments = partial(weight, SHAPES["1e6"], "int8 per tensor", backward, True)
        yield Case(f"weight int8 per tensor, 1e6, {direction}, compiled", "weight", arguments, FAKE, "clone")
        arguments = partial(activation, SHAPES["1e6"], "int8", "learned", backward, compiled=True)
        yield Case(f"activation int8 learned, 1e6, {direction}, compiled", "activation", arguments, FAKE, "clone")


def saved() -> Iterator[Case]:
    """Bytes kept for the backward pass."""
    for measure in ("saved", "all saved"):
        for recipe in WEIGHTS:
            arguments = partial(weight, SHAPES["1e5"], recipe, True)
            yield Case(f"{measure}: weight {recipe}", "weight", arguments, FAKE, "clone", measure)
        for recipe, phase in ACTIVATIONS:
            arguments = partial(activation, SHAPES["1e5"], recipe, phase, True)
            yield Case(f"{measure}: activation {recipe} {phase}", "activation", arguments, FAKE, "clone", measure)


def networks() -> Iterator[Case]:
    """Steps of training and evaluation, in eager and compiled, and the memory of activations."""
    both = ("brevq", "Brevitas")
    for network in NETWORKS:
        for scales in ("learned", "fixed", "statistics"):
            arguments, minor = partial(training, network, scales), scales == "fixed"
            yield Case(f"train {network}, {scales}", "trained", arguments, both, "float", long=True, extended=minor)
            yield Case(f"memory {network}, {scales}", "trained", arguments, both, "float", "memory", True, minor)
        yield Case(f"evaluate {network}", "evaluated", partial(evaluation, network, "fixed"), both, "float", long=True)
    for network in NETWORKS[:3]:
        arguments = partial(evaluation, network, "fixed", True)
        yield Case(f"evaluate {network}, compiled", "evaluated", arguments, both, "float", long=True)
        arguments = partial(training, network, "learned", True)
        yield Case(f"train {network}, learned, compiled", "trained", arguments, both, "float", long=True, extended=True)


def recurrent(length: int, number: int, width: int, hidden: int, cell: str, quantized: str) -> dict[str, Any]:
    """Arguments of a recurrent network."""
    sizes = {"network": "recurrent", "cell": cell, "width": width, "hidden": hidden, "quantized": quantized}
    return {**sizes, "batch": values((length, number, width)), "scales": "learned"}


def recurrent_training(*sizes: Any) -> dict[str, Any]:
    """Arguments of a step of training of a recurrent network."""
    return {**recurrent(*sizes), "target": torch.zeros(sizes[1], dtype=torch.long)}


def recurrences() -> Iterator[Case]:
    """Recurrent layers beside a loop over torch's own cell."""
    both = ("brevq", "Brevitas")
    for sizes in RECURRENT:
        for cell in CELLS:
            for quantized in ("weights", "states", "all"):
                name = f"{cell} of {sizes[1:]}, {quantized}"
                arguments = partial(recurrent_training, *sizes, cell, quantized)
                yield Case(f"{name}, training", "trained", arguments, both, "float", extended=True)
                arguments = partial(recurrent, *sizes, cell, quantized)
                yield Case(f"{name}, evaluation", "evaluated", arguments, both, "float", extended=True)


def layers(number: int) -> dict[str, Any]:
    """Arguments of the construction of many layers."""
    return {"network": "layers", "number": number}


def evaluated_layers(number: int) -> dict[str, Any]:
    """Arguments of the evaluation of many layers."""
    return {**layers(number), "batch": values((8, 8)), "scales": "fixed"}


def trained_layers(number: int) -> dict[str, Any]:
    """Arguments of the training of many layers."""
    return {**layers(number), "batch": values((8, 8)), "scales": "learned", "target": torch.zeros(8, dtype=torch.long)}


def by_size(size: int) -> dict[str, Any]:
    """Arguments of a weight of some size."""
    return weight((size // 32, 32), "int8 per tensor", True)


def by_channels(channels: int) -> dict[str, Any]:
    """Arguments of a weight of the same size in more channels."""
    return weight((channels, 2**20 // channels), "int8 per channel", True)


def by_groups(groups: int) -> dict[str, Any]:
    """Arguments of a weight with more and more groups of 32."""
    return weight((groups // 4, 128), "int8 per group", True)


CASES = [
    *construction(),
    *fake_quantization(),
    *compiled_fake_quantization(),
    *saved(),
    *networks(),
    *recurrences(),
]
THREE = ("float", "brevq", "Brevitas")
GROWTHS = [
    Growth("construct layers", "construct", (1, 10, 100, 1000), layers, THREE),
    Growth("deepcopy layers", "copied", (1, 10, 100), layers, THREE),
    Growth("evaluate layers", "evaluated", (1, 10, 100, 1000), evaluated_layers, THREE),
    Growth("train layers", "trained", (1, 10, 100, 1000), trained_layers, THREE),
    Growth("weight by size", "weight", (2**10, 2**14, 2**18, 2**22), by_size, ("clone", "brevq", "Brevitas")),
    Growth("weight by channels", "weight", (1, 2**5, 2**10, 2**15), by_channels, ("clone", "brevq", "Brevitas")),
    Growth("weight by groups", "weight", (2**6, 2**10, 2**14), by_groups, ("clone", "brevq", "Brevitas")),
]
