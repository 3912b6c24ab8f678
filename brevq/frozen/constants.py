"""Quantizers of activations whose scale, zero-point and bit width no data moves any more, as constants."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from brevq.core.stats import RuntimeStats
from brevq.errors import BrevqError
from brevq.frozen.origin import Remembering
from brevq.function.recording import recorded
from brevq.inject.analyse import parameters
from brevq.quantizer import Quantizer

#: What a quantizer is given, to see whether its grid depends on it: nothing that one statistic calls the same.
_PROBES = (0.0, 5.0, -3.0)


class Constant(nn.Module):
    """A component that returns a constant, whatever it is given.

    Args:
        value: the constant.

    Examples:
        >>> Constant(torch.tensor(3.0))(torch.randn(2))
        tensor(3.)
    """

    value: Tensor

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.register_buffer("value", value.detach().clone())

    def forward(self, *given: Any) -> Tensor:
        """The constant."""
        return self.value

    def in_force(self) -> Tensor | None:
        """The constant, where it is one number on a CPU: core quantizers compute what follows from that once."""
        one = self.value.dim() == 0 and self.value.is_cpu and not recorded()
        return self.value if one else None

    def extra_repr(self) -> str:
        """The constant, for printing."""
        return f"{self.value.item():g}" if self.value.numel() == 1 else f"{self.value.numel()} values"


class FrozenQuantizer(Remembering, Quantizer):
    """A quantizer of activations whose scale, zero-point and bit width are constants; it computes as the one before.

    It is made by `freeze`, not by its constructor.
    """

    @torch.no_grad()
    def _fill(self) -> None:
        """Take what is in no state from the quantizer that this stands for."""
        theirs = {**dict(self.origin.named_parameters()), **dict(self.origin.named_buffers())}
        for name, tensor in itertools.chain(self.named_parameters(), self.named_buffers()):
            if name in theirs:
                tensor.copy_(theirs[name])

    def __repr__(self) -> str:
        """One line: the recipe, and that it is frozen."""
        return f"Frozen{super().__repr__()}"


def settled(quantizer: Quantizer) -> FrozenQuantizer | None:
    """A quantizer with its grid as constants; None where data moves that, or says it anew in each call.

    The quantizer itself stays as it is.

    Args:
        quantizer: a quantizer of activations, which has seen data if it observes any.

    Examples:
        >>> from injectors import Int8ActPerTensorDynamic, TernaryActPerTensorConst
        >>> settled(Quantizer(TernaryActPerTensorConst, {}))
        FrozenQuantizer(TernaryActPerTensorConst, signed narrow 2 bits)
        >>> settled(Quantizer(Int8ActPerTensorDynamic, {})) is None
        True
    """
    required, _ = parameters(type(quantizer.tensor_quant).forward)
    if required != ("self", "x"):  # what cuts accumulators asks for their grid
        return None
    observing = copy.deepcopy(quantizer).eval()
    for part in observing.modules():
        if isinstance(part, RuntimeStats):
            part.calibrating = False
    with _outputs(observing.tensor_quant) as outputs:
        grids = [_grid(observing, number) for number in _PROBES]
    if not all(grid and _same(grid, grids[0] or []) for grid in grids):
        return None
    same = {name: seen[0] for name, seen in outputs.items() if len(seen) == len(_PROBES) and _same(seen, seen[:1] * 3)}
    return with_constants(quantizer, same)


def with_constants(quantizer: Quantizer, constants: Mapping[str, Tensor]) -> FrozenQuantizer:
    """A quantizer in which some components are constants. The quantizer itself stays as it is.

    Args:
        quantizer: a quantizer of activations.
        constants: what components of its core quantizer return, by their names there.

    Examples:
        >>> from injectors import Uint8ActPerTensor
        >>> frozen = with_constants(Quantizer(Uint8ActPerTensor, {}), {"scaling_impl": torch.tensor(2.55)})
        >>> frozen(torch.tensor([0.123])).value
        tensor([0.1200])
    """
    frozen: Any = copy.deepcopy(quantizer).eval()
    for name, value in constants.items():
        frozen.tensor_quant._modules[name] = Constant(value)  # noqa: SLF001  # an attribute may be typed otherwise
    frozen.calibrating = False
    frozen.observes = any(isinstance(part, RuntimeStats) for part in frozen.modules())
    frozen.requires_grad_(False)
    frozen.__class__ = FrozenQuantizer
    vars(frozen)["_origin"] = [quantizer]
    return frozen  # type: ignore[no-any-return]  # its class was set


@torch.no_grad()
def _grid(quantizer: Quantizer, number: float) -> list[Tensor] | None:
    """Scale, zero-point and bit width for a tensor of one number; None where it has none for such."""
    try:
        quantized = quantizer(quantizer._any_value() + number)  # noqa: SLF001  # a tensor of a shape that it takes
    except BrevqError:
        return None
    return [quantized.scale, quantized.zero_point, quantized.bit_width]


@contextmanager
def _outputs(module: nn.Module) -> Iterator[dict[str, list[Any]]]:
    """What the parts of a module return while it is called, by their names."""
    seen: dict[str, list[Any]] = {}

    def watch(name: str, part: nn.Module) -> Any:
        return part.register_forward_hook(lambda _, __, output: seen.setdefault(name, []).append(output))

    handles = [watch(name, part) for name, part in module._modules.items() if part is not None]  # noqa: SLF001  # each name
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _same(tensors: list[Any], others: list[Any]) -> bool:
    pairs = zip(tensors, others, strict=False)
    return all(isinstance(one, Tensor) and one.shape == other.shape and torch.equal(one, other) for one, other in pairs)
