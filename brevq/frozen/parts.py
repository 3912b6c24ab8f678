"""Which parameters of a layer are quantized, by what, and which of them are constants in evaluation."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial, singledispatch
from typing import Any

import attrs

from brevq.nn.embedding import QuantLookUp
from brevq.nn.in_projection import QuantInProjections
from brevq.nn.layer import QuantLayer
from brevq.nn.module import QuantModule
from brevq.nn.norm import QuantBatchNorm
from brevq.nn.recurrent_layer import QuantRecurrent
from brevq.quant_tensor import QuantTensor
from brevq.quantizer import Quantizer

_PARAMETRIZED = (
    "`{name}` is computed from other parameters, as by torch.nn.utils.parametrize: make it one, and freeze again"
)
_OWN = "`{name}` is quantized after `float_parameters` of {layer} has computed it"
_NORMALIZED = (
    "its scale and bias follow from running statistics: brevq.nn.merge_all_bn merges them into the layer before"
)
_RENORMALIZED = "`max_norm` changes rows when they are looked up"
_INPUT_BITS = "its grid depends on the bit width of the input, which has no `input_quant`"
_INPUT_SCALE = "its scale is that of the input times that of the weight, and no constant"

#: Layers whose `float_parameters` gives the parameters themselves, in evaluation.
_THEMSELVES = (QuantLayer.float_parameters, QuantLookUp.float_parameters)


@attrs.frozen
class Part:
    """A parameter of a layer and what quantizes it.

    Args:
        name: name of the parameter.
        argument: the argument of the layer that its quantizer is for.
        key: which of a table of quantizers it is; None where there is one.
        quantizer: its quantizer.
        quantize: quantizes it, as evaluation does.
        why_not: why it is not a constant in evaluation; empty if it is.
    """

    name: str
    argument: str
    key: str | None
    quantizer: Quantizer
    quantize: Callable[[], QuantTensor]
    why_not: str


@singledispatch
def parts(layer: Any, settled: Collection[Quantizer]) -> list[Part]:
    """The quantized parameters of a layer.

    Args:
        layer: any module.
        settled: the quantizers of activations whose grid is constant.
    """
    return []


@parts.register
def _(layer: QuantLayer, settled: Collection[Quantizer]) -> list[Part]:
    return [
        *_part(layer, "weight", "weight_quant", layer.quant_weight, settled),
        *_part(layer, "bias", "bias_quant", layer.quant_bias, settled),
    ]


@parts.register
def _(layer: QuantInProjections, settled: Collection[Quantizer]) -> list[Part]:
    bias = _part(layer, "in_proj_bias", "bias_quant", layer.quant_bias, settled)
    if not layer.separate:
        return [*_part(layer, "in_proj_weight", "weight_quant", layer.quant_weight, settled), *bias]
    names = {
        "q_proj_weight": "weight_quant",
        "k_proj_weight": "key_weight_quant",
        "v_proj_weight": "value_weight_quant",
    }
    separate = [
        _part(layer, name, argument, partial(_separate, layer, place), settled)
        for place, (name, argument) in enumerate(names.items())
    ]
    return [*(part for one in separate for part in one), *bias]


@parts.register
def _(layer: QuantRecurrent, settled: Collection[Quantizer]) -> list[Part]:
    found: list[Part] = []
    for part in layer.weight_quant.parts if layer.weight_quant is not None else ():
        quantizer: Quantizer = layer.weight_quant.of(part)  # type: ignore[union-attr]  # it is a table
        quantize = partial(_matrix, layer, part)
        found.append(
            Part(f"weight_{part}", "weight_quant", part, quantizer, quantize, _absent(layer, f"weight_{part}"))
        )
    return [*found, *_biases(layer, settled)]


def _biases(layer: QuantRecurrent, settled: Collection[Quantizer]) -> list[Part]:
    """The quantized biases of a recurrent layer, which are constants all together or not at all."""
    if layer.bias_quant is None:
        return []
    found = []
    for part in layer.bias_quant.parts:
        quantizer, entering = layer.bias_quant.of(part), _entering(layer, part.partition("_")[2])
        known = not quantizer.needs_scale or entering in settled
        quantize = partial(_tied, layer, f"bias_{part}", entering if quantizer.needs_scale else None)
        why_not = _absent(layer, f"bias_{part}") or ("" if known else _INPUT_SCALE)
        found.append(Part(f"bias_{part}", "bias_quant", part, quantizer, quantize, why_not))
    reason = next((part.why_not for part in found if part.why_not), "")
    return [attrs.evolve(part, why_not=part.why_not or reason) for part in found]


def _entering(layer: QuantRecurrent, cell: str) -> Any:
    """The quantizer of what enters a direction of a layer of a recurrent one: the input, or the states below it."""
    below = int(cell.removesuffix("_reverse").removeprefix("l")) - 1
    if below < 0:
        return layer.input_quant
    return None if layer.hidden_quant is None else layer.hidden_quant.of(f"l{below}")


def _tied(layer: QuantRecurrent, name: str, entering: Any) -> QuantTensor:
    """A bias on the grid of a matrix and what enters it."""
    return layer.quant_bias(name, None if entering is None else entering.current())


def _part(
    layer: Any, name: str, argument: str, quantize: Callable[[], QuantTensor], settled: Collection[Quantizer]
) -> list[Part]:
    """A parameter of a layer with a weight, if it is quantized."""
    quantizer = getattr(layer, argument)
    if quantizer is None:
        return []
    return [Part(name, argument, None, quantizer, quantize, _why_not(layer, name, quantizer, settled))]


def _why_not(layer: Any, name: str, quantizer: Quantizer, settled: Collection[Quantizer]) -> str:
    """Why a parameter of a layer with a weight is no constant in evaluation."""
    if isinstance(layer, QuantBatchNorm):
        return _NORMALIZED
    if type(layer).float_parameters not in _THEMSELVES:
        return _OWN.format(name=name, layer=type(layer).__name__)
    if getattr(layer, "max_norm", None) is not None:
        return _RENORMALIZED
    several = any(getattr(layer, other, None) is not None for other in ("key_input_quant", "value_input_quant"))
    if quantizer.needs_scale and (several or layer.input_quant not in settled):
        return _INPUT_SCALE
    if quantizer.needs_input and (several or layer.input_quant is None):
        return _INPUT_BITS
    return _absent(layer, name)


def _absent(layer: Any, name: str) -> str:
    """Why a layer has no parameter of a name."""
    here = layer._parameters.get(name) is not None  # noqa: SLF001  # torch's
    return "" if here else _PARAMETRIZED.format(name=name)


def _separate(layer: QuantInProjections, place: int) -> QuantTensor:
    return layer.quant_weights()[place]


def _matrix(layer: QuantRecurrent, part: str) -> QuantTensor:
    """A matrix as its quantizer sees it: gate by gate, where each has a scale."""
    quantizer = layer.weight_quant.of(part)  # type: ignore[union-attr]  # it is a table
    quantized: QuantTensor = quantizer.peek(layer._matrices[part].weight)  # noqa: SLF001  # the shape is told nowhere else
    return quantized


def quantizers_of_activations(layer: QuantModule) -> dict[str, Any]:
    """The quantizers of a layer that quantize no parameter, or the tables of them, by their arguments.

    Args:
        layer: a layer.
    """
    return {
        argument: module
        for argument, module in layer._modules.items()  # noqa: SLF001  # those of other layers within it are theirs
        if argument.endswith("_quant") and module is not None and not argument.endswith(("weight_quant", "bias_quant"))
    }
