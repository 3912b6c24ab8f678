"""Calibration: the ranges of activations, from data."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from brevq.core.phase import Phase
from brevq.core.stats import RuntimeStats
from brevq.errors import ArgumentError
from brevq.quantizer import Quantizer


@contextmanager
def calibrating(model: nn.Module, then: str = "fixed") -> Iterator[None]:
    """Observe the ranges of activations while the model runs; afterwards they are fixed, or learned.

    Inside, quantizers with observed ranges pass their input on in float, so that one layer's first guesses do not
    colour the statistics of the next; weights are quantized as always. Whether the model is in training or in
    evaluation does not matter to them (it does to batch normalisation and dropout: call ``model.eval()`` first).
    If the body raises, all ranges are as they were before.

    Args:
        model: a model, or a single layer.
        then: what ranges become afterwards: ``"fixed"``, held as observed, or ``"learned"``, moved by training.
            Quantizers that saw no data stay without a range, and say so when they are used in evaluation.

    Raises:
        ArgumentError: `then` is something else.

    Examples:
        >>> import torch
        >>> from brevq.nn import QuantIdentity
        >>> layer = QuantIdentity().eval()
        >>> with calibrating(layer):
        ...     _ = layer(torch.tensor([-1.28, 0.3]))
        >>> layer.act_quant.phase, layer(torch.tensor([0.123]))
        (Phase.FIXED, tensor([0.1200]))
    """
    phases = {"fixed": Phase.FIXED, "learned": Phase.LEARNED}
    if then not in phases:
        raise ArgumentError(f"`then` (={then!r}) must be 'fixed' or 'learned'")
    observers = [module for module in model.modules() if isinstance(module, RuntimeStats)]
    quantizers = [module for module in model.modules() if isinstance(module, Quantizer) and module.phase is not None]
    before = [observer.snapshot() for observer in observers]
    _switch(observers, quantizers, on=True)
    try:
        yield
    except BaseException:
        for observer, state in zip(observers, before, strict=True):
            observer.restore(state)
        raise
    finally:
        _switch(observers, quantizers, on=False)
    for observer in observers:
        if observer.phase == Phase.OBSERVE:
            observer.settle(phases[then])


def _switch(observers: list[RuntimeStats], quantizers: list[Quantizer], on: bool) -> None:
    for observer in observers:
        observer.calibrating = on
    for quantizer in quantizers:
        quantizer.calibrating = on
