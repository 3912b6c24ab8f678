"""Which tensor of a layer each of its quantizers is for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial, singledispatch
from typing import Any

import attrs
from torch import Tensor, nn

from brevq.errors import ArgumentError
from brevq.frozen import FrozenQuantizer, FrozenTensor
from brevq.nn.in_projection import QuantInProjections
from brevq.nn.layer import QuantLayer
from brevq.nn.module import QuantModule
from brevq.nn.recurrent_layer import QuantRecurrent
from brevq.nn.unrolling import PartQuantizers
from brevq.quant_tensor import QuantTensor
from brevq.quantizer import Quantizer

_STORED = ("weight", "bias")
#: What stands where a layer has a quantizer.
QUANTIZERS = (Quantizer, FrozenTensor)


@attrs.frozen
class Target:
    """A tensor of a layer that a quantizer is for.

    Args:
        tensor: what it is called: the name of a parameter, or ``input``.
        given: the quantizer, or what it left of a tensor that is frozen.
        look: returns the tensor as `forward` would quantize it now, or, of activations, what holds their grid.
        size: number of values that are stored; 0 of activations. Default: 0.
    """

    tensor: str
    given: Quantizer | FrozenTensor
    look: Callable[[], QuantTensor]
    size: int = 0

    @property
    def quantizer(self) -> Quantizer:
        """The quantizer; of a tensor that is frozen the one that it came from."""
        return self.given.origin if isinstance(self.given, FrozenTensor) else self.given

    @property
    def frozen(self) -> bool:
        """Whether codes, or scales, are constants now."""
        return isinstance(self.given, (FrozenTensor, FrozenQuantizer))

    @property
    def stored(self) -> bool:
        """Whether the tensor is part of the model, and not what flows through it."""
        return self.quantizer.role in _STORED


def quantizers_of(layer: nn.Module) -> dict[str, Any]:
    """The quantizers that a layer has itself, by name; those in tables by table and key. Frozen tensors are some too.

    Args:
        layer: any module.

    Examples:
        >>> from brevq.nn import QuantLinear, QuantRNN
        >>> list(quantizers_of(QuantLinear(2, 2))), list(quantizers_of(QuantRNN(2, 2)))
        (['weight_quant'], ['weight_quant.ih_l0', 'weight_quant.hh_l0'])
    """
    found: dict[str, Any] = {}
    for name, child in layer.named_children():
        if isinstance(child, QUANTIZERS):
            found[name] = child
        elif isinstance(child, PartQuantizers):
            found.update({f"{name}.{key}": quantizer for key, quantizer in child.items()})
    return found


def targets_of(layer: nn.Module) -> list[Target]:
    """All that the quantizers of a layer are for: first what it stores, then what flows through it.

    Args:
        layer: any module.

    Examples:
        >>> from brevq.nn import QuantLinear
        >>> from injectors import Int8ActPerTensor
        >>> layer = QuantLinear(3, 2, input_quant=Int8ActPerTensor)
        >>> [(target.tensor, target.size) for target in targets_of(layer)]
        [('weight', 6), ('input', 0)]
    """
    stored = list(stored_targets(layer))
    known = {id(target.given) for target in stored}
    flowing = {name: quantizer for name, quantizer in quantizers_of(layer).items() if id(quantizer) not in known}
    return [*stored, *(Target(_plain(name), quantizer, quantizer.current) for name, quantizer in flowing.items())]


@singledispatch
def stored_targets(layer: nn.Module) -> Iterator[Target]:
    """The tensors that a layer stores, and the quantizers that these have; register more kinds of layers for more.

    Of a layer that is not known, a quantizer whose recipe is for weights or biases serves the tensor of its name
    (``kernel_quant`` the one called ``kernel``), or else the parameter of the shape that its layer supplies.

    Args:
        layer: any module.
    """
    for name, quantizer in quantizers_of(layer).items():
        if getattr(quantizer, "role", "weight") in _STORED:
            tensor, values = _served(layer, name)
            size = quantizer.elements if values is None else values.numel()
            yield Target(tensor, quantizer, partial(_peek, quantizer, layer, tensor), size)


@stored_targets.register
def _layer(layer: QuantLayer) -> Iterator[Target]:
    """Weight and bias of a layer with one weight."""
    for argument, look in (("weight_quant", layer.quant_weight), ("bias_quant", layer.quant_bias)):
        quantizer = getattr(layer, argument, None)
        if quantizer is not None:
            yield Target(_plain(argument), quantizer, look, _supplied_size(layer, argument))


@stored_targets.register
def _in_projections(layer: QuantInProjections) -> Iterator[Target]:
    """The weights of attention's projections, which are one or three, and their bias."""
    packed = layer.in_proj_weight is not None
    names = ["in_proj_weight"] if packed else ["q_proj_weight", "k_proj_weight", "v_proj_weight"]
    for place, (argument, name) in enumerate(zip(("weight_quant", "key_weight_quant", "value_weight_quant"), names)):  # noqa: B905  # one or three
        quantizer = getattr(layer, argument)
        look = layer.quant_weight if packed else partial(_separate, layer, place)
        if quantizer is not None:
            yield Target(name, quantizer, look, getattr(layer, name).numel())
    if layer.bias_quant is not None:
        yield Target("in_proj_bias", layer.bias_quant, layer.quant_bias, layer.in_proj_bias.numel())


@stored_targets.register
def _recurrent(layer: QuantRecurrent) -> Iterator[Target]:
    """The matrices and biases of a recurrent layer."""
    for kind, table, look in (
        ("weight", layer.weight_quant, layer.quant_weight),
        ("bias", layer.bias_quant, layer.quant_bias),
    ):
        for part in table.parts if table is not None else ():
            name = f"{kind}_{part}"
            yield Target(name, table.of(part), partial(look, name), getattr(layer, name).numel())  # type: ignore[union-attr]  # it is there


def _plain(argument: str) -> str:
    """What a quantizer is for, by the name that its layer has for it: ``hidden.l0`` of ``hidden_quant.l0``."""
    name, dot, key = argument.partition(".")
    return name.removesuffix("_quant") + dot + key


def _supplied_size(layer: QuantModule, argument: str) -> int:
    return math.prod(layer.supplied_to(argument).get("tensor_shape", ()))


def _separate(layer: QuantInProjections, place: int) -> QuantTensor:
    return layer.quant_weights()[place]


def _served(layer: nn.Module, argument: str) -> tuple[str, Tensor | None]:
    """The name of the tensor that a quantizer of a layer that is not known serves, and the tensor if it is found."""
    name = _plain(argument)
    named = getattr(layer, name, None)
    if isinstance(named, Tensor):
        return name, named
    shape: Any = layer.supplied_to(argument).get("tensor_shape") if isinstance(layer, QuantModule) else None
    fitting = [(own, tensor) for own, tensor in layer.named_parameters(recurse=False) if tuple(tensor.shape) == shape]
    return fitting[0] if len(fitting) == 1 else (name, None)


def _peek(quantizer: Quantizer, layer: nn.Module, name: str) -> QuantTensor:
    tensor = getattr(layer, name, None)
    if tensor is None or quantizer.needs_scale or quantizer.needs_input:
        raise ArgumentError(f"how {type(layer).__name__} quantizes its {name}, it alone can tell")
    return quantizer.peek(tensor)
