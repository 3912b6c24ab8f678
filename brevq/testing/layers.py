"""The layers that recipes are tried on, by what they are for."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from brevq.errors import ArgumentError
from brevq.graph import calibrating
from brevq.nn import QuantConv1d, QuantConv2d, QuantConv3d, QuantIdentity, QuantLinear, QuantReLU
from brevq.quant_tensor import QuantTensor
from brevq.quantizer import Quantizer
from injectors import Int8ActPerTensor


class Sums(nn.Module):
    """What truncation recipes are for: sums of four quantized values, cut to fewer bits.

    Args:
        trunc_quant: the recipe that cuts.
        return_quant_tensor: whether it returns a `QuantTensor`. Default: False.

    Examples:
        >>> from injectors import Int8Trunc
        >>> with calibrating(sums := Sums(Int8Trunc).eval()):
        ...     sums(torch.randn(5, 16)).shape
        torch.Size([5, 13])
    """

    def __init__(self, trunc_quant: Any, return_quant_tensor: bool = False) -> None:
        super().__init__()
        self.input_quant = Quantizer(Int8ActPerTensor, {})
        self.trunc_quant = Quantizer(trunc_quant, {})
        self.return_quant_tensor = return_quant_tensor

    def forward(self, x: Tensor) -> Tensor | QuantTensor:
        """The sums along the last axis, three values fewer than came."""
        quantized = self.input_quant(x)
        sums = quantized.value.unfold(-1, 4, 1).sum(dim=-1)
        signed = torch.tensor(quantized.signed, device=x.device)
        truncated: QuantTensor = self.trunc_quant(
            sums, quantized.scale, quantized.zero_point, quantized.bit_width + 2, signed
        )
        return truncated if self.return_quant_tensor else truncated.value


@attrs.frozen
class Bench:
    """A layer to try a recipe on.

    Args:
        make: makes the layer.
        shape: shape of its input.
    """

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]

    def calibrated(self, device: torch.device | None = None) -> tuple[Any, Tensor]:
        """A layer in evaluation whose activations have seen some data, and that data."""
        layer, x = self.make().eval().to(device), torch.randn(self.shape).to(device)
        with calibrating(layer):
            layer(x)
        return layer, x


_WITH_WEIGHTS: dict[str, tuple[Callable[..., nn.Module], tuple[int, ...]]] = {
    "linear": (functools.partial(QuantLinear, 6, 4), (5, 6)),
    "conv1d": (functools.partial(QuantConv1d, 3, 4, 3), (2, 3, 9)),
    "conv2d": (functools.partial(QuantConv2d, 3, 4, 3), (2, 3, 7, 7)),
    "conv3d": (functools.partial(QuantConv3d, 3, 4, 3), (2, 3, 5, 5, 5)),
}
_ACTIVATIONS: dict[str, tuple[Callable[..., nn.Module], tuple[int, ...]]] = {
    "identity": (QuantIdentity, (5, 6)),
    "relu": (QuantReLU, (5, 6)),
}


def _weight(recipe: Any) -> Iterator[tuple[str, Bench]]:
    for kind, (layer, shape) in _WITH_WEIGHTS.items():
        yield kind, Bench(functools.partial(_with_weight, layer, recipe), shape)


def _with_weight(layer: Callable[..., Any], recipe: Any) -> nn.Module:
    """A layer with that weight; with a quantized input too where the recipe suits the integers of the input."""
    made: nn.Module = layer(weight_quant=recipe)
    needs_input = getattr(made.weight_quant, "needs_input", False)
    return layer(weight_quant=recipe, input_quant=Int8ActPerTensor) if needs_input else made


def _bias(recipe: Any) -> Iterator[tuple[str, Bench]]:
    for kind, (layer, shape) in _WITH_WEIGHTS.items():
        yield kind, Bench(functools.partial(layer, bias_quant=recipe, input_quant=Int8ActPerTensor), shape)


def _activation(recipe: Any) -> Iterator[tuple[str, Bench]]:
    for kind, (layer, shape) in _WITH_WEIGHTS.items():
        yield kind, Bench(functools.partial(layer, input_quant=recipe, output_quant=recipe), shape)
    for kind, (layer, shape) in _ACTIVATIONS.items():
        yield kind, Bench(functools.partial(layer, act_quant=recipe), shape)


def _truncation(recipe: Any) -> Iterator[tuple[str, Bench]]:
    yield "sums", Bench(functools.partial(Sums, recipe), (5, 16))


_BENCHES = {"weight": _weight, "bias": _bias, "activation": _activation, "truncation": _truncation}


def benches(recipe: Any) -> dict[str, Bench]:
    """The layers that a recipe serves by its role, by name.

    Args:
        recipe: a recipe class with a `role`: *weight*, *activation*, *bias* or *truncation*.

    Raises:
        ArgumentError: it has another role, or none.

    Examples:
        >>> from injectors import Int8WeightPerTensor
        >>> list(benches(Int8WeightPerTensor))
        ['linear', 'conv1d', 'conv2d', 'conv3d']
    """
    role = recipe.role if "role" in recipe else None
    if role not in _BENCHES:
        raise ArgumentError(
            f"`role` (={role!r}) of {recipe.__name__} must be one of {', '.join(_BENCHES)}: "
            "declare it, or override `layers` of the contract for layers of your own"
        )
    return dict(_BENCHES[role](recipe))


def _zero_weight(recipe: Any) -> QuantTensor:
    layer: Any = _with_weight(_WITH_WEIGHTS["linear"][0], recipe)
    nn.init.zeros_(layer.weight)
    layer(torch.randn(5, 6))
    quantized: QuantTensor = layer.quant_weight()
    return quantized


def _zero_activation(recipe: Any) -> Any:
    return QuantIdentity(act_quant=recipe, return_quant_tensor=True)(torch.zeros(5, 6))


def _zero_sums(recipe: Any) -> Any:
    return Sums(recipe, return_quant_tensor=True)(torch.zeros(5, 16))


#: What comes of zeros, by the role of the recipe that quantizes them.
ZEROS: dict[str | None, Callable[[Any], Any]] = {
    "weight": _zero_weight,
    "activation": _zero_activation,
    "truncation": _zero_sums,
}
