"""Layers whose weights are kept as codes: the same layers, of a class that decodes them where they are read."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from brevq.errors import ArgumentError
from brevq.frozen.codes import FrozenTensor

_FROZEN = "`{name}` of this {layer} is frozen and stays as it is: call brevq.unfreeze(model) before changing it"


@attrs.define(eq=False)
class Slot:
    """The place of a parameter that was frozen; layers that were tied share one.

    Args:
        parameter: the parameter, where it is kept, else None.
        requires_grad: whether it was trained.
        elsewhere: whether another module reads it as a float, too. Default: False.
    """

    parameter: nn.Parameter | None
    requires_grad: bool
    elsewhere: bool = False

    @torch.no_grad()
    def move(self, fn: Callable[[Tensor], Tensor]) -> None:
        """Convert the parameter, if it is kept, as those of a module are; it stays the same object.

        Args:
            fn: converts a tensor.
        """
        if self.parameter is not None:
            moved = fn(self.parameter)
            if moved.is_meta:
                self.parameter = None
            else:
                self.parameter.data = moved


@attrs.define(eq=False)
class Frozen:
    """What a frozen layer knows.

    Args:
        tensors: the codes that stand for parameters, by the names of those.
        slots: where those parameters were.
        modules: the quantizers, or tables of them, that were there before, by their arguments.
        trained: the parameters that are still there, and required gradients.
        kept: why parameters that have a quantizer are no codes, by their names.
    """

    tensors: dict[str, FrozenTensor]
    slots: dict[str, Slot]
    modules: dict[str, nn.Module]
    trained: list[str]
    kept: dict[str, str]


class FrozenLayer(nn.Module):
    """What all frozen layers add to their class. They stay in evaluation, whatever `train` is told."""

    frozen: Frozen

    def train(self, mode: bool = True) -> Any:
        """Nothing: what is frozen stays in evaluation."""
        return super().train(False)

    def __setattr__(self, name: str, content: Any) -> None:
        """Set an attribute, but none that is frozen.

        Raises:
            ArgumentError: it is a parameter or a quantizer that is frozen.
        """
        frozen = self.__dict__.get("frozen")  # in copies, attributes may come first
        if frozen is not None and (name in frozen.tensors or name in frozen.modules):
            raise ArgumentError(_FROZEN.format(name=name, layer=type(self).__name__))
        super().__setattr__(name, content)

    def __delattr__(self, name: str) -> None:
        """Delete an attribute, but none that is frozen.

        Raises:
            ArgumentError: it is a parameter or a quantizer that is frozen.
        """
        if name in self.frozen.tensors or name in self.frozen.modules:
            raise ArgumentError(_FROZEN.format(name=name, layer=type(self).__name__))
        super().__delattr__(name)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """Parameters that are kept go along; on the meta device they are given up."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch's
        for slot in self.frozen.slots.values():
            slot.move(fn)
        return self

    def __reduce_ex__(self, protocol: Any) -> Any:
        """By the class that was frozen, as this one has no name in any module."""
        state = super().__reduce_ex__(2)[2]
        return _blank, (_base_of(type(self)), tuple(self.frozen.tensors)), state

    def _init_flat_weights(self) -> None:
        """The weights that recurrent layers of torch list; of frozen ones what tells their dtype and device."""
        names: Any = self._flat_weights_names
        likes = {name: tensor.like for name, tensor in self.frozen.tensors.items()}
        self.__dict__["_flat_weights"] = [likes.get(name, self._parameters.get(name)) for name in names]
        self.__dict__["_flat_weight_refs"] = [None] * len(names)


@functools.cache
def frozen_class(base: Any, names: tuple[str, ...]) -> Any:
    """A subclass of a layer's class whose parameters of some names are decoded when they are read.

    Args:
        base: the class of the layer.
        names: names of the parameters.

    Examples:
        >>> kind = frozen_class(nn.Linear, ("weight",))
        >>> kind.__name__, issubclass(kind, nn.Linear)
        ('FrozenLinear', True)
    """
    return type(
        f"Frozen{base.__name__}",
        (FrozenLayer, base),
        {
            "__doc__": f"`{base.__name__}`, frozen: {', '.join(names) or 'its quantizers'} as constants.",
            "__module__": __name__,
            **{name: _decoded(name) for name in names},
        },
    )


def _decoded(name: str) -> property:
    """A property that decodes a parameter."""

    def decode(layer: Any) -> Tensor:
        return layer.frozen.tensors[name].value()  # type: ignore[no-any-return]  # a frozen layer

    return property(decode, doc=f"The parameter `{name}`, decoded from its codes at each reading.")


def _base_of(kind: type[Any]) -> Any:
    """The class that was frozen."""
    return kind.__mro__[2]


def _blank(base: Any, names: tuple[str, ...]) -> Any:
    """A frozen layer without its state, which unpickling and copying set."""
    kind = frozen_class(base, names)
    return kind.__new__(kind)


def put_in(layer: Any, frozen: Frozen, modules: dict[str, nn.Module]) -> None:
    """Freeze a layer: nothing in here can fail.

    Args:
        layer: the layer.
        frozen: what it is to know.
        modules: what takes the place of its quantizers, by their arguments.
    """
    layer._modules.update(modules)  # noqa: SLF001  # assigning would bind recipes anew
    layer._parameters.update(dict.fromkeys(frozen.tensors))  # noqa: SLF001  # the names keep their order
    for name in frozen.trained:
        layer._parameters[name].requires_grad_(False)  # noqa: SLF001  # likewise
    layer.__dict__["frozen"] = frozen
    base: Any = type(layer)
    layer.__class__ = frozen_class(base, tuple(frozen.tensors))
    _refresh(layer)


def take_out(layer: Any, parameters: dict[str, nn.Parameter]) -> None:
    """Put the parameters and quantizers of a frozen layer back.

    Args:
        layer: the layer.
        parameters: the parameters that were frozen, by their names.
    """
    frozen: Frozen = layer.frozen
    layer.__class__ = _base_of(type(layer))
    del layer.__dict__["frozen"]
    layer._parameters.update(parameters)  # noqa: SLF001  # as above
    layer._modules.update(frozen.modules)  # noqa: SLF001  # as above
    for name in frozen.trained:
        layer._parameters[name].requires_grad_(True)  # noqa: SLF001  # as above
    _refresh(layer)


def _refresh(layer: Any) -> None:
    """Let recurrent layers of torch list their weights anew."""
    if hasattr(layer, "_flat_weights_names"):
        layer._init_flat_weights()  # noqa: SLF001  # torch's


def frozen_layers(model: nn.Module) -> list[tuple[str, Any]]:
    """The frozen layers of a model, with their names.

    Args:
        model: a model.

    Examples:
        >>> frozen_layers(nn.Linear(2, 2))
        []
    """
    return [(name, module) for name, module in model.named_modules() if isinstance(module, FrozenLayer)]
