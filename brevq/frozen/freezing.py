"""Freezing models for deployment."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import nn

from brevq.core.phase import Phase
from brevq.errors import ArgumentError, ArgumentTypeError, NonFiniteError, UncalibratedError
from brevq.frozen.codes import FrozenTensor
from brevq.frozen.constants import settled
from brevq.frozen.layer import put_in
from brevq.frozen.origin import shed
from brevq.frozen.parts import Part
from brevq.frozen.plan import Plan
from brevq.nn.module import QuantModule
from brevq.quantizer import Quantizer

Model = TypeVar("Model", bound=nn.Module)

_TRAINING = "{names} in training mode, and what is frozen is what evaluation computes: call model.eval() first"
_UNCALIBRATED = """
These quantizers have seen no data, so they have no range to freeze:
{names}

Nothing was frozen. Calibrate or train the model first; or remove those that are not in use:

    with brevq.graph.calibrating(model):
        for batch in batches:
            model(batch)
""".strip()
_CALIBRATING = "`{name}` is being calibrated: freeze the model after that"
_META = "`{name}` is on the meta device, where there are no values to freeze: load the model first"
_NOT_FINITE = "`{name}` has a NaN or an infinity, which has no code. Nothing was frozen"


def freeze(model: Model, keep_float: bool = False) -> Model:
    """Bring a model into its form for deployment, in place: weights as integer codes, settled quantizers as constants.

    Weights and quantized biases become codes in the fewest bytes: up to 8 bits packed without gaps, up to 16 bits
    int16, then int32; floating-point numbers their bit patterns. They are decoded where a layer reads them. Quantizers
    of activations whose range is settled keep scale, zero-point and bit width as constants; dynamic ones stay as they
    are. Outputs are those of evaluation before, bit for bit (a zero may change its sign). What is no constant, and what
    has no quantizer, stays in float: `memory` says what and why. Frozen layers stay in evaluation whatever `train` is
    told; gradients pass through them to their inputs.

    Either all is frozen, or an error leaves the model as it was. What is frozen already stays so.

    Args:
        model: a model in evaluation, calibrated or trained.
        keep_float: whether the float weights are kept beside the codes, for `unfreeze` to put the very same parameters
            back. They are no part of the state. Default: False, they are dropped, and `unfreeze` puts back what the
            codes stand for.

    Returns:
        The model.

    Raises:
        ArgumentTypeError: `model` is not a module.
        ArgumentError: it is in training, is being calibrated, or is on the meta device.
        UncalibratedError: quantizers of activations have seen no data; all are listed.
        NonFiniteError: a weight has a NaN or an infinity.

    Examples:
        >>> import brevq
        >>> from brevq.nn import QuantLinear
        >>> model = nn.Sequential(QuantLinear(64, 32, weight_bit_width=4), nn.ReLU(), QuantLinear(32, 8)).eval()
        >>> x = torch.randn(2, 64)
        >>> before = model(x)
        >>> model = brevq.freeze(model)
        >>> torch.equal(model(x), before), model[0].weight_quant.codes.nbytes
        (True, 1024)
    """
    if not isinstance(model, nn.Module):
        raise ArgumentTypeError(f"`model` must be a module, not {type(model).__name__}")
    _check(model)
    for step in list(Plan(model, lambda _, quantizer: settled(quantizer), _encoded, keep_float).steps()):
        put_in(step.layer, step.frozen, step.modules)
        for tensor in () if keep_float else step.frozen.tensors.values():
            shed(tensor.origin)
    return model


@torch.no_grad()
def _encoded(name: str, layer: Any, part: Part) -> FrozenTensor:
    """The codes of a parameter."""
    quantized = part.quantize()
    if not bool(quantized.value.isfinite().all()):
        raise NonFiniteError(_NOT_FINITE.format(name=name))
    return FrozenTensor(part.quantizer, quantized, getattr(layer, part.name).shape)


def _check(model: nn.Module) -> None:
    """Refuse what can not be frozen."""
    layers = [(name, module) for name, module in model.named_modules() if isinstance(module, QuantModule)]
    training = [f"`{name or type(layer).__name__}`" for name, layer in layers if layer.training]
    if training:
        shown = ", ".join(training[:3]) + (f" and {len(training) - 3} more" if len(training) > 3 else "")
        raise ArgumentError(_TRAINING.format(names=f"{shown} {'is' if len(training) == 1 else 'are'}"))
    quantizers = [(name, module) for name, module in model.named_modules() if isinstance(module, Quantizer)]
    for name, quantizer in quantizers:
        if quantizer.grid.is_meta:
            raise ArgumentError(_META.format(name=name))
        if quantizer.calibrating:
            raise ArgumentError(_CALIBRATING.format(name=name))
    empty = [f"  {name} ({q.recipe.__name__})" for name, q in quantizers if q.observes and q.phase == Phase.EMPTY]
    if empty:
        raise UncalibratedError(_UNCALIBRATED.format(names="\n".join(empty)))
