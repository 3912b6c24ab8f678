"""States of frozen models, loaded into models that are not frozen yet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from brevq.errors import ArgumentError, ArgumentTypeError
from brevq.frozen.codes import FrozenTensor
from brevq.frozen.constants import FrozenQuantizer, with_constants
from brevq.frozen.layer import put_in, take_out
from brevq.frozen.origin import has_shed, shed
from brevq.frozen.parts import Part
from brevq.frozen.plan import Plan, Step
from brevq.inject.analyse import short
from brevq.nn.unrolling import PartQuantizers
from brevq.quant_tensor import QuantTensor
from brevq.quantizer import Grid, Quantizer

Model = TypeVar("Model", bound=nn.Module)

_OTHER = (
    "the state is not one of this model frozen: {what}. The model has to have the layers and recipes of the one that "
    "was frozen. It is as it was"
)
_META = "the model is on the meta device: give it memory first, model.to_empty(device=...)"
_GRIDS = "{name} is quantized to {ours}, and in the state to {theirs}"


def load_state(model: Model, state: Mapping[str, Any]) -> Model:
    """Load the state of a frozen model into a model that is not frozen; it is frozen then, and in evaluation.

    The model is made as the one that was frozen, with the same layers and recipes. It needs neither data nor
    calibration: the state has the constants.

    Args:
        model: a model, not frozen.
        state: what `state_dict` of the frozen one returned.

    Returns:
        The model.

    Raises:
        ArgumentTypeError: `model` is not a module, or `state` is no mapping.
        ArgumentError: keys are missing, or left over, or a shape is another, or the model is on the meta device; it
            is as it was.

    Examples:
        >>> import brevq
        >>> from brevq.nn import QuantLinear
        >>> def network():
        ...     return nn.Sequential(QuantLinear(8, 4, weight_bit_width=4), nn.ReLU(), QuantLinear(4, 2)).eval()
        >>> frozen = brevq.freeze(network())
        >>> x, deployed = torch.randn(3, 8), load_state(network(), frozen.state_dict())
        >>> torch.equal(deployed(x), frozen(x))
        True
    """
    if not isinstance(model, nn.Module):
        raise ArgumentTypeError(f"`model` must be a module, not {type(model).__name__}")
    if not isinstance(state, Mapping):
        raise ArgumentTypeError(
            f"`state` (={short(state)}) must be a state of a frozen model, as `state_dict` returns it"
        )
    if any(tensor.is_meta for tensor in model.state_dict().values() if isinstance(tensor, Tensor)):
        raise ArgumentError(_META)
    source = _State(state)
    steps = list(Plan(model, source.constant, source.tensor, keep_float=False).steps())
    before = [dict(step.layer._parameters) for step in steps]  # noqa: SLF001  # torch's
    for step in steps:
        put_in(step.layer, step.frozen, step.modules)
    dropped = [pair for quantizer in source.shed for pair in shed(quantizer)]
    different = _differences(model.state_dict(), state) or _other_grid(model, state)
    if different:
        for step, parameters in zip(steps, before, strict=True):
            _undo(step, parameters)
        for rounding, value in reversed(dropped):  # a shared quantizer is there twice, and had its value at first
            rounding.value = value
        raise ArgumentError(_OTHER.format(what=different))
    model.eval()
    model.load_state_dict(state)
    return model


def _undo(step: Step, parameters: Mapping[str, Any]) -> None:
    take_out(step.layer, {name: parameters[name] for name in step.frozen.tensors})


def _differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """The first keys that one has and the other has not, and those under which they have other shapes."""
    told = {
        "it lacks {}": ours.keys() - theirs.keys(),
        "the model has no {}": theirs.keys() - ours.keys(),
        "it has another shape of {}": {
            key for key in ours.keys() & theirs.keys() if _shape(ours[key]) != _shape(theirs[key])
        },
    }
    return " and ".join(text.format(", ".join(sorted(keys)[:3])) for text, keys in told.items() if keys)


def _other_grid(model: nn.Module, state: Mapping[str, Any]) -> str:
    """The first quantizer that has another grid in a state, which has the keys of the model."""
    for name, module in model.named_modules():
        if isinstance(module, Quantizer):
            ours, theirs = Grid.read(module.grid), Grid.read(state[f"{name}.grid".removeprefix(".")])
            if ours != theirs:
                return _GRIDS.format(name=name, ours=ours, theirs=theirs)
    return ""


def _shape(content: Any) -> Any:
    """The shape of what a state has; of what is no tensor, such as extra state, none."""
    return content.shape if isinstance(content, Tensor) else None


class _State:
    """What a state says of the parts of a model."""

    def __init__(self, state: Mapping[str, Any]) -> None:
        self.state = state
        #: The quantizers of which it lacks what they learned for each value, as the codes contain it.
        self.shed: list[Quantizer] = []

    def constant(self, name: str, quantizer: Quantizer) -> FrozenQuantizer | None:
        """A quantizer with the constants that the state has; None if it has none."""
        if f"{name}.origin.grid" not in self.state:
            return None
        self._check_grid(name, quantizer)
        prefix = f"{name}.tensor_quant."
        names = [part for part in quantizer.tensor_quant._modules if f"{prefix}{part}.value" in self.state]  # noqa: SLF001  # torch's
        values = {part: self.state[f"{prefix}{part}.value"].to(quantizer.device) for part in names}
        return with_constants(quantizer, values)

    def tensor(self, name: str, layer: Any, part: Part) -> FrozenTensor:
        """The codes of a parameter."""
        prefix = ".".join(filter(None, (name.rpartition(".")[0], part.argument, part.key)))
        parameter, quantizer = layer._parameters[part.name], part.quantizer  # noqa: SLF001  # torch's
        codes = self._of(prefix, "codes").to(parameter.device)
        self._check_grid(prefix, quantizer)
        if has_shed(quantizer, self.state, f"{prefix}.origin."):
            self.shed.append(quantizer)
        table = getattr(layer, part.argument)
        gates = part.key is not None and part.argument == "weight_quant" and isinstance(table, PartQuantizers)
        shape = layer._matrices[part.key].weight.shape if gates else parameter.shape  # noqa: SLF001  # as it is quantized
        quantized = QuantTensor(
            torch.empty(shape, dtype=parameter.dtype, device=parameter.device),
            self._repeated(f"{prefix}.scale"),
            self._repeated(f"{prefix}.zero_point"),
            self._of(prefix, "bit_width"),
            quantizer.signed,
            quantizer.float_format,
            quantizer.granularity,
            narrow=quantizer.narrow,
            zero=quantizer.zero,
        )
        tensor = FrozenTensor(quantizer, quantized.moved(quantized.value), parameter.shape, codes)
        if (tensor.storage.dtype, tensor.storage.count(parameter.numel())) != (codes.dtype, codes.numel()):
            raise ArgumentError(_OTHER.format(what=f"{prefix}.codes are those of another weight"))
        return tensor

    def _check_grid(self, name: str, quantizer: Quantizer) -> None:
        """Refuse the state of a quantizer of another recipe."""
        theirs, ours = Grid.read(self._of(f"{name}.origin", "grid")), Grid.read(quantizer.grid)
        if ours != theirs:
            raise ArgumentError(_OTHER.format(what=_GRIDS.format(name=name, ours=ours, theirs=theirs)))

    def _repeated(self, prefix: str) -> Tensor:
        """Scales or zero-points."""
        index = self.state.get(f"{prefix}.index")
        values = self._of(prefix, "values")
        return values if index is None else values[index.int()]

    def _of(self, prefix: str, name: str) -> Tensor:
        """A tensor of the state.

        Raises:
            ArgumentError: it is not there.
        """
        if f"{prefix}.{name}" not in self.state:
            raise ArgumentError(_OTHER.format(what=f"it lacks {prefix}.{name}"))
        return self.state[f"{prefix}.{name}"]  # type: ignore[no-any-return]  # states hold tensors
