"""Bringing frozen models back to training."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any, TypeVar

import torch
from torch import nn

from brevq.errors import ArgumentTypeError, BrevqError
from brevq.frozen.codes import FrozenTensor
from brevq.frozen.layer import Frozen, Slot, frozen_layers, take_out
from brevq.frozen.origin import regrow
from brevq.frozen.parts import parts
from brevq.quantizer import Quantizer

Model = TypeVar("Model", bound=nn.Module)

_OTHERS = """
Quantized again, these weights have other values than they were frozen with:
{names}

Their scales follow from statistics that quantized weights do not share with float ones, or one parameter has several
quantizers. Evaluation differs from that of the frozen model by as much. To put back the floats, freeze with
keep_float=True, or load a state that was saved before freezing.
""".strip()
#: Rounding of a statistic: what differs by less is the same.
_ROUNDING = 2.0**-20


def unfreeze(model: Model) -> Model:
    """Bring a frozen model back, in place, so that it can be trained.

    All layers have their classes, parameters and quantizers again, with the state that these had: learned scales, bit
    widths, ranges and phases. **With** ``freeze(model, keep_float=True)`` the parameters are the very same ones, all of
    the state is what it was, bit for bit, and an optimizer that knew them goes on. Where other codes were loaded since,
    they hold what those stand for.

    **Without**, parameters are new, and hold what the codes stand for. Learned and constant scales are then the same,
    and so are the codes. Scales from statistics are taken of those values: the largest absolute value gives the same
    scale and codes, up to a rounding. Where a statistic gives others, as of accumulator-aware weights, a warning lists
    the weights. Learned roundings start again, from the integers that they had decided on. Parameters that were tied
    are tied again; if their codes differed, they have the values of the finer ones.

    Args:
        model: a model, frozen or not.

    Returns:
        The model, in evaluation; for training call ``model.train()``.

    Raises:
        ArgumentTypeError: `model` is not a module.

    Examples:
        >>> import brevq
        >>> from brevq.nn import QuantLinear
        >>> model = nn.Sequential(QuantLinear(16, 8, weight_bit_width=4)).eval()
        >>> codes = model[0].quant_weight().int()
        >>> model = brevq.unfreeze(brevq.freeze(model)).train()
        >>> torch.equal(model[0].quant_weight().int(), codes), model[0].weight.requires_grad
        (True, True)
    """
    if not isinstance(model, nn.Module):
        raise ArgumentTypeError(f"`model` must be a module, not {type(model).__name__}")
    layers = [(name, layer, layer.frozen) for name, layer in frozen_layers(model)]
    with torch.inference_mode(False):
        parameters = _parameters([frozen for _, _, frozen in layers])
        for _, layer, frozen in layers:
            for tensor in frozen.tensors.values():
                regrow(tensor.origin, tensor.quantized_shape)
            take_out(layer, {name: parameters[slot] for name, slot in frozen.slots.items()})
    others = [name for layer in layers for name in _others(*layer)]
    if others:
        warnings.warn(_OTHERS.format(names="\n".join(f"  {name}" for name in others)), stacklevel=2)
    return model


@torch.no_grad()
def _parameters(layers: list[Frozen]) -> dict[Slot, nn.Parameter]:
    """The parameters of all slots: those that were kept, else what the codes stand for, of tied ones the finest."""
    finest: dict[Slot, FrozenTensor] = {}
    for frozen in layers:
        for name, slot in frozen.slots.items():
            tensor = frozen.tensors[name]
            if slot not in finest or tensor.bit_width > finest[slot].bit_width:
                finest[slot] = tensor
    return {slot: _restored(slot, tensor) for slot, tensor in finest.items()}


def _restored(slot: Slot, tensor: FrozenTensor) -> nn.Parameter:
    if slot.parameter is None:
        return nn.Parameter(tensor.value(), slot.requires_grad)
    if tensor.loaded and not slot.elsewhere:
        slot.parameter.copy_(tensor.value())
    return slot.parameter


@torch.no_grad()
def _others(name: str, layer: Any, frozen: Frozen) -> Iterator[str]:
    """The parameters of a layer that was frozen whose quantized values have become others."""
    quantizers = {module for module in layer.modules() if isinstance(module, Quantizer)}
    for part in parts(layer, quantizers):
        tensor, slot = frozen.tensors.get(part.name), frozen.slots.get(part.name)
        if tensor is None or slot is None or slot.parameter is not None:
            continue
        try:
            value = part.quantize().value.reshape(tensor.shape)
        except BrevqError:  # of a quantizer that the layer was given since
            continue
        if not torch.allclose(value, tensor.value(), rtol=_ROUNDING, atol=0.0):
            yield f"{name}.{part.name}".removeprefix(".")
