"""What quantization is compared with: the limit of memory, the formula as it is, torch's own operator, float layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.libraries import Library, NotOfferedError
from benchmarks.networks import Kit


class Clone(Library):
    """A copy: each value is read and written once."""

    def weight(self, recipe: str, weight: nn.Parameter) -> Callable[[Tensor], Tensor]:
        return torch.clone

    def activation(self, recipe: str, phase: str, x: Tensor) -> Callable[[Tensor], Tensor]:
        return torch.clone


#: Formats to the smallest and the largest code.
CODES = {"int8": (-128, 127), "uint8": (0, 255)}


#: Granularities to the shape in which values that share a scale lie along the second dimension.
BLOCKS: dict[str, Callable[[Tensor], tuple[int, int]]] = {
    "per tensor": lambda x: (1, x.numel()),
    "per channel": lambda x: (x.shape[0], x[0].numel()),
    "per group": lambda x: (x.numel() // 32, 32),
}


class Naive(Library):
    """``clamp(round(x / scale), low, high) * scale``, as one would write it, with a straight-through gradient."""

    def weight(self, recipe: str, weight: nn.Parameter) -> Callable[[Tensor], Tensor]:
        number_format, granularity = recipe.split(" ", 1)
        if number_format != "int8" or granularity not in BLOCKS:
            raise NotOfferedError

        def quantize(x: Tensor) -> Tensor:
            seen = x.view(BLOCKS[granularity](x))
            scale = seen.detach().abs().amax(1, keepdim=True) / 127
            y = torch.clamp(torch.round(seen / scale), -127, 127) * scale
            return (seen + (y - seen).detach()).view_as(x)

        return quantize

    def activation(self, recipe: str, phase: str, x: Tensor) -> Callable[[Tensor], Tensor]:
        if recipe not in CODES or phase not in {"fixed", "dynamic"}:
            raise NotOfferedError
        low, high = CODES[recipe]
        fixed = x.abs().max() / high

        def quantize(x: Tensor) -> Tensor:
            scale = fixed if phase == "fixed" else x.detach().abs().max() / high
            y = torch.clamp(torch.round(x / scale), low, high) * scale
            return x + (y - x).detach()

        return quantize


class Torch(Library):
    """`torch.fake_quantize_per_tensor_affine`, and its twin for channels, with a scale that is computed before."""

    def weight(self, recipe: str, weight: nn.Parameter) -> Callable[[Tensor], Tensor]:
        largest = weight.detach().abs()
        if recipe == "int8 per channel":
            scale = largest.amax(1) / 127
            zeros = torch.zeros_like(scale, dtype=torch.int32)
            return lambda x: torch.fake_quantize_per_channel_affine(x, scale, zeros, 0, -127, 127)
        if recipe != "int8 per tensor":
            raise NotOfferedError
        one_scale = largest.max().item() / 127
        return lambda x: torch.fake_quantize_per_tensor_affine(x, one_scale, 0, -127, 127)

    def activation(self, recipe: str, phase: str, x: Tensor) -> Callable[[Tensor], Tensor]:
        if recipe not in CODES or phase != "fixed":
            raise NotOfferedError
        low, high = CODES[recipe]
        scale = x.detach().abs().max().item() / high
        return lambda x: torch.fake_quantize_per_tensor_affine(x, scale, 0, low, high)


class Loop(nn.Module):
    """What a user writes without a layer: a recurrent cell, called for each time step."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: Tensor) -> tuple[Tensor, Any]:
        state, outputs = None, []
        for step in x.unbind(0):
            state = self.cell(step, state)
            outputs.append(state[0] if isinstance(state, tuple) else state)
        return torch.stack(outputs), state


class Float(Library):
    """Layers of torch. A recurrent layer is a loop over its cell, as is every one whose states are quantized."""

    def linear(self, quantized: str) -> Callable[[], nn.Module]:
        return lambda: nn.Linear(64, 64)

    def recipe(self) -> Callable[[], Any]:
        return lambda: nn.Linear(64, 64)

    def kit(self, scales: str) -> Kit:
        cells = {"LSTM": nn.LSTMCell, "GRU": nn.GRUCell, "RNN": nn.RNNCell}
        return Kit(
            nn.Conv2d,
            nn.Linear,
            nn.Linear,
            nn.ReLU,
            nn.Identity,
            lambda cell, width, hidden, quantized: Loop(cells[cell](width, hidden)),
        )

    def settle(self, model: nn.Module, batch: Tensor, scales: str) -> None:
        pass
