"""The rows of a summary: one for each tensor that a layer stores, and for each that it quantizes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import attrs
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

from brevq.frozen import FrozenTensor
from brevq.nn.unrolling import PartQuantizers
from brevq.overview.grids import GridNow, grid_now
from brevq.overview.storage import grid_bytes, packed
from brevq.overview.targets import QUANTIZERS, Target, quantizers_of, targets_of
from brevq.overview.undisturbed import undisturbed
from brevq.quantizer import Quantizer

#: What hooks of pruning, `weight_norm` and `spectral_norm` call the parameters that they compute a weight from.
_COMPUTED_FROM = ("_g", "_v", "_orig")


@attrs.frozen(kw_only=True)
class Record:
    """A tensor of a layer: a parameter, or what flows through and is quantized.

    Args:
        layer: path of the layer in the model.
        kind: class of the layer.
        tensor: name of the parameter, or ``input``, ``output``, ``act`` and the like.
        role: ``weight``, ``bias``, ``activation``, as the recipe says; None in float.
        recipe: name of the recipe; None in float.
        bits: bits of a value now; None where nothing tells before data comes.
        format: what a code is: ``int``, ``uint``, ``binary``, ``ternary``, a floating-point format, or a dtype.
        granularity: what shares a scale: ``tensor``, ``channel``, ``group of 32``; None in float.
        scales: number of scales; None in float, or if it depends on the input.
        scale_min: the smallest scale now; None in float, or if it is not known.
        scale_max: the largest.
        scale_note: why it is not known: ``no data yet``, ``of each input``, ``input x weight``; else empty.
        phase: what the statistics of the quantizer are doing: ``empty``, ``observe``, ``learned``, ``fixed``, or
            ``frozen``; None of one without such.
        parameters: number of parameters of the model; 0 of activations, and of what was counted before.
        bytes: what these take: codes packed to their bits, scales and zero-points; 0 likewise.
        float_bytes: what they take in the dtype that they have now.
        tensor_of: path of the tensor that this one is, and that was counted before; else empty.
        quantizer_of: path of the tensor that has the same quantizer, and was listed before; else empty.
    """

    layer: str
    kind: str
    tensor: str
    role: str | None = None
    recipe: str | None = None
    bits: int | None
    format: str
    granularity: str | None = None
    scales: int | None = None
    scale_min: float | None = None
    scale_max: float | None = None
    scale_note: str = ""
    phase: str | None = None
    parameters: int = 0
    bytes: int = 0
    float_bytes: int = 0
    tensor_of: str = ""
    quantizer_of: str = ""

    @property
    def path(self) -> str:
        """Layer and tensor."""
        return f"{self.layer}.{self.tensor}" if self.layer else self.tensor

    @property
    def in_float(self) -> bool:
        """Whether it is not quantized."""
        return self.recipe is None

    @property
    def counted_before(self) -> bool:
        """Whether its parameters are those of another tensor."""
        return bool(self.tensor_of)


def records_of(model: nn.Module) -> list[Record]:
    """The records of all layers of a model, each once.

    Args:
        model: any module.

    Examples:
        >>> from brevq.nn import QuantLinear
        >>> [(record.path, record.bytes, record.float_bytes) for record in records_of(QuantLinear(4, 2))]
        [('weight', 12, 32), ('bias', 8, 8)]
    """
    count = _Count(model)
    return [record for path, layer in layers_of(model) for record in _records(path, layer, count)]


def _records(path: str, layer: nn.Module, count: _Count) -> list[Record]:
    """The records of a layer: what it stores, quantized and in float, and what flows through it."""
    targets, parameters = targets_of(layer), _own_parameters(layer)
    stored: list[Record] = []
    flowing: list[Record] = []
    with undisturbed(layer) if targets else nullcontext():
        for target in targets:
            claimed = [tensor for name in _claimed(target, parameters) for tensor in parameters.pop(name)]
            claimed = claimed or count.stand_ins(target)
            (stored if target.stored else flowing).append(count.quantized(path, layer, target, claimed))
    in_float = [count.float(path, layer, name, tensors) for name, tensors in parameters.items()]
    return [*stored, *in_float, *flowing]


def layers_of(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The modules that have parameters or quantizers of their own, with their paths; parts of quantizers are none.

    Args:
        model: any module.

    Examples:
        >>> [path for path, _ in layers_of(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.BatchNorm1d(2)))]
        ['0', '2']
    """
    parts: set[int] = set()
    for module in model.modules():
        if isinstance(module, (*QUANTIZERS, PartQuantizers, ParametrizationList)):
            parts.update(map(id, module.modules()))
    modules = [(path, module) for path, module in model.named_modules() if id(module) not in parts]
    return [(path, module) for path, module in modules if _own_parameters(module) or quantizers_of(module)]


def learned_by_quantizers(model: nn.Module) -> int:
    """How many numbers training moves that are not the layers': ranges, bit widths, roundings.

    Args:
        model: any module.
    """
    quantizers = [module for module in model.modules() if isinstance(module, Quantizer)]
    learned = {id(tensor): tensor for quantizer in quantizers for tensor in quantizer.parameters()}
    return sum(tensor.numel() for tensor in learned.values() if tensor.requires_grad)


def _own_parameters(layer: nn.Module) -> dict[str, list[Tensor]]:
    """The parameters of a layer by name; those from which another is computed, by the name of that."""
    own: dict[str, list[Tensor]] = {name: [tensor] for name, tensor in layer.named_parameters(recurse=False)}
    for name, computed in getattr(layer, "parametrizations", {}).items():
        if isinstance(computed, ParametrizationList):
            own[name] = list(computed.parameters())
    return own


def _claimed(target: Target, parameters: dict[str, list[Tensor]]) -> list[str]:
    """The names of the parameters that a quantized tensor takes the place of."""
    if not target.stored:
        return []
    computed = [target.tensor + ending for ending in _COMPUTED_FROM]
    return [
        name for name in (target.tensor, *(computed if target.tensor not in parameters else ())) if name in parameters
    ]


class _Count:
    """What was counted of a model so far, so that what is shared counts once."""

    def __init__(self, model: nn.Module) -> None:
        tensors = [tensor for _, layer in layers_of(model) for own in _own_parameters(layer).values() for tensor in own]
        self._repeated = {key for key, times in Counter(map(id, tensors)).items() if times > 1}
        self._parameters: dict[int, str] = {}
        self._codes: dict[Any, str] = {}
        self._quantizers: dict[int, str] = {}
        self._stand_ins: dict[int, list[Tensor]] = {}

    def stand_ins(self, target: Target) -> list[Tensor]:
        """For a parameter that is frozen, and no parameter now, one of its shape and dtype; for others none."""
        frozen = target.given
        if not isinstance(frozen, FrozenTensor):
            return []
        tensor = torch.empty(frozen.shape, dtype=frozen.like.dtype, device="meta")
        self._repeated.add(id(self._stand_ins.setdefault(id(frozen), [tensor])[0]))
        return self._stand_ins[id(frozen)]

    def float(self, path: str, layer: nn.Module, name: str, tensors: Sequence[Tensor]) -> Record:
        """A parameter in float."""
        record = Record(
            layer=path,
            kind=type(layer).__name__,
            tensor=name,
            bits=8 * tensors[0].element_size(),
            format=str(tensors[0].dtype).removeprefix("torch."),
        )
        stored = sum(_bytes(tensor) for tensor in tensors if self._first(self._codes, id(tensor), record.path))
        return self._with_parameters(record, tensors, stored)

    def quantized(self, path: str, layer: nn.Module, target: Target, tensors: Sequence[Tensor]) -> Record:
        """What a quantizer is for, and the parameters that it takes the place of."""
        now = grid_now(target)
        record = Record(
            layer=path,
            kind=type(layer).__name__,
            tensor=target.tensor,
            role=target.quantizer.role,
            recipe=target.quantizer.recipe.__name__,
            bits=now.bits,
            format=now.format,
            granularity=now.granularity,
            scales=now.scales,
            scale_min=None if now.scale is None else now.scale.min().item(),
            scale_max=None if now.scale is None else now.scale.max().item(),
            scale_note=now.unknown,
            phase=now.phase,
        )
        stored = self._stored(record.path, target, now, tensors) if target.stored else 0
        other = self._quantizers.setdefault(id(target.quantizer), record.path)
        record = attrs.evolve(record, quantizer_of="" if other == record.path else other)
        return self._with_parameters(record, tensors, stored)

    def _stored(self, path: str, target: Target, now: GridNow, tensors: Sequence[Tensor]) -> int:
        """The bytes of codes and grid, of each what was not counted before."""
        if now.bits is None:
            return sum(map(_bytes, tensors))
        if tensors and all(id(tensor) in self._repeated for tensor in tensors):
            key = (*map(id, tensors), _fingerprint(target.quantizer, now))
            if not self._first(self._codes, key, path):
                return 0
        shares = target.quantizer.role == "weight" and id(target.quantizer) in self._quantizers
        return packed(target.size, now.bits) + (0 if shares else grid_bytes(target.quantizer, now.bits))

    def _with_parameters(self, record: Record, tensors: Sequence[Tensor], stored: int) -> Record:
        new = [tensor for tensor in tensors if self._first(self._parameters, id(tensor), record.path)]
        other = next((self._parameters[id(tensor)] for tensor in tensors), record.path)
        return attrs.evolve(
            record,
            parameters=sum(tensor.numel() for tensor in new),
            bytes=stored,
            float_bytes=sum(map(_bytes, new)),
            tensor_of="" if new or other == record.path else other,
        )

    @staticmethod
    def _first(known: dict[Any, str], key: Any, path: str) -> bool:
        """Whether something was not known before; now it is."""
        return known.setdefault(key, path) == path


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _fingerprint(quantizer: Quantizer, now: GridNow) -> Any:
    """What is equal for a parameter that two layers quantize to the same codes."""
    if now.quantized is None or now.quantized.value.is_meta:
        return now.format, now.bits, quantizer.recipe
    values = now.quantized.value.detach().cpu().to(torch.float64).contiguous()
    return now.format, now.bits, hash(values.numpy().tobytes())
