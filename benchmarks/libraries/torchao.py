"""The fake quantizer of torchao, in the environment of the peers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torchao.quantization.qat import IntxFakeQuantizeConfig, IntxFakeQuantizer

from benchmarks.libraries import Library, NotOfferedError

WEIGHTS: dict[str, dict[str, Any]] = {
    "int8 per channel": {"granularity": "per_channel"},
    "int8 per group": {"group_size": 32},
}


class TorchAO(Library):
    """torchao: integers by channels, groups and tokens, with scales of each call."""

    imports = ("torch", "torchao")

    def weight(self, recipe: str, weight: nn.Parameter) -> Callable[[Tensor], Tensor]:
        if recipe not in WEIGHTS:
            raise NotOfferedError
        return IntxFakeQuantizer(IntxFakeQuantizeConfig(torch.int8, is_symmetric=True, **WEIGHTS[recipe]))

    def activation(self, recipe: str, phase: str, x: Tensor) -> Callable[[Tensor], Tensor]:
        if (recipe, phase) != ("int8 per token", "dynamic"):
            raise NotOfferedError
        return IntxFakeQuantizer(IntxFakeQuantizeConfig(torch.int8, "per_token", is_symmetric=False))
