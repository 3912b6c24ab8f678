"""What a library offers to the benchmark. A new one overrides what it can do, and is named in `LIBRARIES`."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from benchmarks.networks import Kit


class NotOfferedError(Exception):
    """The library has nothing of the kind; its place in the table stays empty."""


class Library:
    """A library that offers nothing.

    Recipes are named by format and granularity: ``int8 per tensor``, ``fp8e4m3 per channel``, ``int8 per group`` (of
    32); scales of activations by their phase: *fixed*, *learned*, *statistics* (observed and used) and *dynamic*.
    """

    #: What a user of the library imports.
    imports: tuple[str, ...] = ("torch",)

    def weight(self, recipe: str, weight: nn.Parameter) -> Callable[[Tensor], Tensor]:
        """A function that fake-quantizes the weight."""
        raise NotOfferedError

    def activation(self, recipe: str, phase: str, x: Tensor) -> Callable[[Tensor], Tensor]:
        """A function that fake-quantizes activations such as `x`."""
        raise NotOfferedError

    def linear(self, quantized: str) -> Callable[[], nn.Module]:
        """A function that makes a linear layer of 64 by 64; *weights* are quantized, or *all*, input and output too."""
        raise NotOfferedError

    def recipe(self) -> Callable[[], Any]:
        """A function that derives a new recipe with one override, and builds it."""
        raise NotOfferedError

    def kit(self, scales: str) -> Kit:
        """Layers with 8-bit weights and activations, whose scales are those of a phase."""
        raise NotOfferedError

    def settle(self, model: nn.Module, batch: Tensor, scales: str) -> None:
        """Bring the activation scales of a network into their phase."""
        raise NotOfferedError


#: Name to module and class. Those of `PEERS` live in the environment of the peers.
LIBRARIES = {
    "clone": ("plain", "Clone"),
    "naive": ("plain", "Naive"),
    "torch": ("plain", "Torch"),
    "float": ("plain", "Float"),
    "brevq": ("ours", "Brevq"),
    "Brevitas": ("brevitas", "Brevitas"),
    "torchao": ("torchao", "TorchAO"),
}
PEERS = ("Brevitas", "torchao")


def library(name: str) -> Library:
    """The library of a name; imported here, as each environment has some of them only."""
    module, attribute = LIBRARIES[name]
    found: Library = getattr(importlib.import_module(f"benchmarks.libraries.{module}"), attribute)()
    return found
