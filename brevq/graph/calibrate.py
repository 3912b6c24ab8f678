"""Calibration: the ranges of activations, from data."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from brevq.core.phase import Phase
from brevq.core.stats import RuntimeStats
from brevq.core.stats.ranks import Ranks
from brevq.errors import ArgumentError, ArgumentTypeError
from brevq.quantizer import Quantizer


@contextmanager
def calibrating(model: nn.Module, then: str = "fixed", group: Any = None) -> Iterator[None]:
    """Observe the ranges of activations while the model runs; afterwards they are fixed, or learned.

    Inside, quantizers with observed ranges pass their input on in float, so that one layer's first guesses do not
    colour the statistics of the next; weights are quantized as always. Whether the model is in training or in
    evaluation does not matter to them (it does to batch normalisation and dropout: call ``model.eval()`` first).
    An earlier range is forgotten, unless no data comes. If the body raises, all ranges are as they were before.

    Args:
        model: a model, or a single layer.
        then: what ranges become afterwards: ``"fixed"``, held as observed, or ``"learned"``, moved by training.
            Quantizers that saw no data stay without a range, and say so when they are used in evaluation.
        group: the process group that the data is spread over, such as ``torch.distributed.group.WORLD``: each batch is
            then that of all its processes, which have to run the model equally often. Default: each process observes
            its own batches, whatever others do.

    Raises:
        ArgumentError: `then` is something else, or the model is being calibrated already.
        ArgumentTypeError: `model` is not a module.

    Examples:
        >>> import torch
        >>> from brevq.nn import QuantIdentity
        >>> layer = QuantIdentity().eval()
        >>> with calibrating(layer):
        ...     _ = layer(torch.tensor([-1.28, 0.3]))
        >>> layer.act_quant.phase, layer(torch.tensor([0.123]))
        (Phase.FIXED, tensor([0.1200]))
    """
    if not isinstance(model, nn.Module):
        raise ArgumentTypeError(f"`model` must be a module, not {type(model).__name__}")
    phases = {"fixed": Phase.FIXED, "learned": Phase.LEARNED}
    if then not in phases:
        raise ArgumentError(f"`then` (={then!r}) must be 'fixed' or 'learned'")
    quantizers = [module for module in model.modules() if isinstance(module, Quantizer) and module.observes]
    if any(quantizer.calibrating for quantizer in quantizers):
        raise ArgumentError("this model, or a part of it, is being calibrated already: leave that calibration first")
    before = [_state(quantizer) for quantizer in quantizers]
    _switch(quantizers, on=True, ranks=Ranks(group, alone=group is None))
    try:
        yield
    except BaseException:
        _switch(quantizers, on=False, ranks=Ranks(alone=True))
        for quantizer, state in zip(quantizers, before, strict=True):
            quantizer.load_state_dict(state)
        raise
    _switch(quantizers, on=False, ranks=Ranks(alone=True))
    for quantizer, state in zip(quantizers, before, strict=True):
        _settle(quantizer, phases[then], state)


def _state(quantizer: Quantizer) -> dict[str, Any]:
    return {name: tensor.detach().clone() for name, tensor in quantizer.state_dict().items()}


def _observers(quantizer: Quantizer) -> list[RuntimeStats]:
    return [module for module in quantizer.modules() if isinstance(module, RuntimeStats)]


def _switch(quantizers: list[Quantizer], on: bool, ranks: Ranks) -> None:
    """Begin to observe, from nothing, or stop."""
    for quantizer in quantizers:
        quantizer.calibrating = on
        for observer in _observers(quantizer):
            observer.calibrating = on
            observer.calibration_ranks = ranks
            if on:
                observer.reset()


def _settle(quantizer: Quantizer, phase: Phase, before: dict[str, Any]) -> None:
    """Fix, or begin to learn, what was observed; a quantizer that observed nothing is as it was before."""
    if any(observer.phase == Phase.EMPTY for observer in _observers(quantizer)):
        quantizer.load_state_dict(before)
        return
    for observer in _observers(quantizer):
        observer.settle(phase)
