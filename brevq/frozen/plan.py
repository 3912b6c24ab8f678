"""What freezing does with a model, layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any

import attrs
from torch import nn

from brevq.frozen.codes import FrozenTensor
from brevq.frozen.constants import FrozenQuantizer
from brevq.frozen.layer import Frozen, FrozenLayer, Slot
from brevq.frozen.parts import Part, parts, quantizers_of_activations
from brevq.nn.module import QuantModule
from brevq.nn.unrolling import PartQuantizers
from brevq.quantizer import Quantizer


@attrs.frozen
class Step:
    """What is to be done with a layer.

    Args:
        layer: the layer.
        frozen: what it is to know.
        modules: what takes the place of its quantizers, by their arguments.
    """

    layer: Any
    frozen: Frozen
    modules: dict[str, nn.Module]


class Plan:
    """What is to be done with a model, all of which is made before anything is changed.

    Args:
        model: the model.
        constant: for the name of a quantizer of activations and that quantizer, it as constants; None if it is not
            settled.
        encode: for the name of a parameter, its layer, and what it is there, its codes.
        keep_float: whether frozen parameters are kept.
    """

    def __init__(
        self,
        model: nn.Module,
        constant: Callable[[str, Quantizer], FrozenQuantizer | None],
        encode: Callable[[str, Any, Part], FrozenTensor],
        keep_float: bool,
    ) -> None:
        self.encode = encode
        self.names = {module: name for name, module in model.named_modules()}
        self.layers = [m for m in self.names if isinstance(m, QuantModule) and not isinstance(m, FrozenLayer)]
        self.keep_float = keep_float
        self.constants: dict[Quantizer, Quantizer] = {}
        for layer in self.layers:
            for quantizer in _each(quantizers_of_activations(layer).values()):
                if quantizer not in self.constants:
                    self.constants[quantizer] = constant(self.names[quantizer], quantizer) or quantizer
        known = {quantizer for quantizer, constant in self.constants.items() if constant is not quantizer}
        found = {layer: parts(layer, known) for layer in self.layers}
        self.parts = {layer: [part for part in of_layer if not part.why_not] for layer, of_layer in found.items()}
        self.kept = {layer: {part.name: part.why_not for part in found[layer] if part.why_not} for layer in found}
        self.slots: dict[nn.Parameter, Slot] = {}
        self.tensors: dict[Any, FrozenTensor] = {}
        self._find_slots(model)

    def _find_slots(self, model: nn.Module) -> None:
        """The places of parameters; one that is also read as a float elsewhere is there anyway."""
        taken = {(layer, part.name) for layer, of_layer in self.parts.items() for part in of_layer}
        for module in model.modules():
            for name, parameter in module._parameters.items():  # noqa: SLF001  # tied ones each time
                if parameter is not None:
                    slot = self.slots.setdefault(parameter, Slot(None, parameter.requires_grad))
                    slot.elsewhere = slot.elsewhere or (module, name) not in taken
                    if self.keep_float or slot.elsewhere:
                        slot.parameter = parameter

    def steps(self) -> Iterator[Step]:
        """What is to be done with each layer that has anything to freeze."""
        for layer in self.layers:
            modules = self._activations(layer) | self._weights(layer)
            if modules or self.kept[layer]:
                yield self._step(layer, modules)

    def _step(self, layer: Any, modules: dict[str, nn.Module]) -> Step:
        tensors = {part.name: self._tensor(layer, part) for part in self.parts[layer]}
        own: dict[str, nn.Parameter] = {name: p for name, p in layer._parameters.items() if p is not None}  # noqa: SLF001  # torch's
        frozen = Frozen(
            tensors,
            {name: self.slots[own[name]] for name in tensors},
            {argument: layer._modules[argument] for argument in modules},  # noqa: SLF001  # torch's
            [name for name, parameter in own.items() if name not in tensors and parameter.requires_grad],
            self.kept[layer],
        )
        return Step(layer, frozen, modules)

    def _activations(self, layer: QuantModule) -> dict[str, nn.Module]:
        """The settled quantizers of a layer as constants."""
        found: dict[str, nn.Module] = {}
        for argument, module in quantizers_of_activations(layer).items():
            constant = self._constant(module)
            if constant is not module:
                found[argument] = constant
        return found

    def _constant(self, module: Any) -> nn.Module:
        """A quantizer, or a table of them, as constants where they are."""
        if not isinstance(module, PartQuantizers):
            return self.constants[module]
        if all(self.constants[quantizer] is quantizer for quantizer in _each([module])):
            return module
        return PartQuantizers(module.parts, lambda part: self.constants[module.of(part)])

    def _weights(self, layer: Any) -> dict[str, nn.Module]:
        """What takes the place of the quantizers of a layer's weights and biases."""
        found: dict[str, nn.Module] = {}
        for argument in dict.fromkeys(part.argument for part in self.parts[layer]):
            of_argument = [part for part in self.parts[layer] if part.argument == argument]
            frozen = {part.key: self._tensor(layer, part) for part in of_argument}
            found[argument] = frozen[None] if None in frozen else _table(getattr(layer, argument), frozen)
        return found

    def _tensor(self, layer: Any, part: Part) -> FrozenTensor:
        """The codes of a parameter; the same for the same parameter and quantizer."""
        alone = part.quantizer.needs_scale or part.quantizer.needs_input
        key = (layer._parameters[part.name], part.quantizer, layer if alone else None)  # noqa: SLF001  # torch's
        if key not in self.tensors:
            name = ".".join(filter(None, (self.names[layer], part.name)))
            self.tensors[key] = self._tied(key[0], self.encode(name, layer, part))
        return self.tensors[key]

    def _tied(self, parameter: nn.Parameter, tensor: FrozenTensor) -> FrozenTensor:
        """The codes of a parameter, in the same memory as equal ones of it by another quantizer."""
        for (known, *_), other in self.tensors.items():
            if known is parameter and other.codes.dtype == tensor.codes.dtype and other.codes.equal(tensor.codes):
                tensor.codes = other.codes
        return tensor


def _table(table: PartQuantizers, frozen: dict[Any, FrozenTensor]) -> PartQuantizers:
    """A table with the frozen tensors of its parts; each part has its own."""
    return PartQuantizers({part: part for part in table.parts}, lambda part: frozen.get(part) or table.of(part))  # type: ignore[arg-type,return-value]  # as quantizers


def _each(modules: Collection[Any]) -> Iterator[Quantizer]:
    """The quantizers among modules, and in tables of them."""
    for module in modules:
        held: Any = module.values() if isinstance(module, PartQuantizers) else [module]
        yield from held
