"""How many bytes a model takes, frozen or not, and how many its twin of floats would."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs
from torch import Tensor, nn

from brevq.errors import ArgumentTypeError
from brevq.frozen.codes import FrozenTensor
from brevq.frozen.layer import FrozenLayer
from brevq.frozen.origin import Remembering
from brevq.quantizer import Quantizer

_COLUMNS = ("layer", "float", "now", "codes", "scales", "other", "float left", "kept in float because")


@attrs.frozen
class LayerMemory:
    """The bytes of a layer. Tensors that several layers share count for the first of them.

    Args:
        name: name of the layer in the model.
        kind: its class.
        float_bytes: parameters and buffers of its twin without quantizers, in the dtype of the weights.
        codes: codes of frozen weights and biases.
        scales: scales and zero-points of these.
        other: what else quantizers hold: constants, tables, and what `unfreeze` needs.
        rest: parameters and buffers that are no quantizer's.
        kept: why parameters that have a quantizer are no codes, by their names.
    """

    name: str
    kind: str
    float_bytes: int
    codes: int
    scales: int
    other: int
    rest: int
    kept: dict[str, str]

    @property
    def bytes(self) -> int:
        """All that the layer takes now."""
        return self.codes + self.scales + self.other + self.rest


@attrs.frozen
class Memory:
    """The bytes of a model, layer by layer; it prints as a table.

    Args:
        layers: the layers that hold any tensors.
    """

    layers: tuple[LayerMemory, ...]

    @property
    def float_bytes(self) -> int:
        """What the twin without quantizers takes: all parameters and buffers, each once."""
        return sum(layer.float_bytes for layer in self.layers)

    @property
    def bytes(self) -> int:
        """What the model takes now: the storage of all tensors in it, each once."""
        return sum(layer.bytes for layer in self.layers)

    @property
    def ratio(self) -> float:
        """How many times smaller the model is than its twin."""
        return self.float_bytes / self.bytes if self.bytes else 1.0

    def __str__(self) -> str:
        numbers = [(m.float_bytes, m.bytes, m.codes, m.scales, m.other, m.rest) for m in self.layers]
        total = [sum(column) for column in zip(*numbers, strict=True)] or [0] * 6
        why = ["; ".join(f"{name}: {reason}" for name, reason in m.kept.items()) for m in self.layers]
        rows = [
            [m.name or m.kind, *map(str, row), reason] for m, row, reason in zip(self.layers, numbers, why, strict=True)
        ]
        return "\n".join(_table([list(_COLUMNS), *rows, ["all", *map(str, total), f"{self.ratio:.2f} times smaller"]]))


def memory(model: nn.Module) -> Memory:
    """How many bytes the tensors of a model take, measured at their storage, against the model without quantizers.

    Args:
        model: a model, frozen or not.

    Raises:
        ArgumentTypeError: `model` is not a module.

    Examples:
        >>> import brevq
        >>> from brevq.nn import QuantLinear
        >>> model = nn.Sequential(QuantLinear(512, 512, weight_bit_width=4), nn.ReLU(), QuantLinear(512, 8)).eval()
        >>> report = memory(brevq.freeze(model))
        >>> report.float_bytes, report.layers[0].codes, report.layers[0].scales, round(report.ratio, 1)
        (1067040, 131072, 8, 7.8)
        >>> print(str(report).splitlines()[0])
        layer    float     now   codes  scales  other  float left  kept in float because
    """
    if not isinstance(model, nn.Module):
        raise ArgumentTypeError(f"`model` must be a module, not {type(model).__name__}")
    seen: set[int] = set()
    layers = [_of_layer(name, layer, seen) for name, layer in _layers(model)]
    return Memory(tuple(layer for layer in layers if layer.bytes or layer.float_bytes))


def _layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The modules of a model without their quantizers."""
    inner = {part for q in model.modules() if _is_quantizer(q) for part in q.modules()}
    return ((name, module) for name, module in model.named_modules() if module not in inner)


def _is_quantizer(module: Any) -> bool:
    return isinstance(module, (Quantizer, Remembering))


def _of_layer(name: str, layer: Any, seen: set[int]) -> LayerMemory:
    """The bytes of a layer, without what was `seen` already."""
    quantizers = [q for child in layer.children() for q in ([child] if _is_quantizer(child) else _in_table(child))]
    frozen = {q for q in quantizers if isinstance(q, FrozenTensor)}
    floats = _float_bytes(layer, seen) if isinstance(layer, FrozenLayer) else 0
    codes = _bytes((q.codes for q in frozen), seen)
    scales = _bytes((t for q in frozen for part in (q.scale, q.zero_point) for t in part.buffers()), seen)
    own = [*layer._parameters.values(), *layer._buffers.values()]  # noqa: SLF001  # those that are None, too
    rest = _bytes((tensor for tensor in own if tensor is not None), seen)
    other = _bytes((tensor for q in quantizers for tensor in _tensors(q)), seen)
    other += _bytes(_kept(layer), seen) if isinstance(layer, FrozenLayer) else 0
    kept = layer.frozen.kept if isinstance(layer, FrozenLayer) else {}
    return LayerMemory(name, type(layer).__name__, floats + rest, codes, scales, other, rest, dict(kept))


def _float_bytes(layer: FrozenLayer, seen: set[int]) -> int:
    """The bytes of the parameters that a layer had before it was frozen, without what was `seen` already."""
    total = 0
    for name, slot in layer.frozen.slots.items():
        tensor = layer.frozen.tensors[name]
        there = slot.parameter is not None and _key(slot.parameter) in seen
        total += 0 if id(slot) in seen or there else tensor.shape.numel() * tensor.like.itemsize
        seen.add(id(slot))
    return total


def _kept(layer: FrozenLayer) -> Iterator[Tensor]:
    """The float parameters that a frozen layer keeps."""
    return (slot.parameter for slot in layer.frozen.slots.values() if slot.parameter is not None)


def _in_table(child: nn.Module) -> list[nn.Module]:
    """The quantizers of a table of them."""
    return [q for q in child.children() if _is_quantizer(q)] if isinstance(child, nn.ModuleDict) else []


def _tensors(quantizer: nn.Module) -> Iterator[Tensor]:
    """All tensors of a quantizer, and of the one that it stands for."""
    yield from quantizer.parameters()
    yield from quantizer.buffers()
    if isinstance(quantizer, Remembering):
        yield from _tensors(quantizer.origin)


def _bytes(tensors: Iterator[Tensor], seen: set[int]) -> int:
    """The size of the storages of tensors, of those that were not `seen` before."""
    total = 0
    for tensor in tensors:
        key = _key(tensor)
        if key not in seen:
            seen.add(key)
            total += tensor.untyped_storage().nbytes()
    return total


def _key(tensor: Tensor) -> int:
    """What tells the storage of a tensor from others."""
    return tensor.untyped_storage().data_ptr() or id(tensor)


def _table(rows: list[list[str]]) -> Iterator[str]:
    """Rows as lines, columns aligned, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *numbers, last in rows:
        cells = [
            first.ljust(widths[0]),
            *(n.rjust(width) for n, width in zip(numbers, widths[1:-1], strict=True)),
            last,
        ]
        yield "  ".join(cells).rstrip()
