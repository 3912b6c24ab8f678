"""Whole models without their quantizers for a while, and ranges that stop or begin to learn."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from brevq.core.phase import Phase
from brevq.core.stats import RuntimeStats
from brevq.errors import ArgumentError, ArgumentTypeError
from brevq.nn.module import QuantModule
from brevq.quantizer import Quantizer


@contextmanager
def unquantized(model: nn.Module) -> Iterator[None]:
    """Run a model in float, as its twins of `torch.nn` would; afterwards it is quantized as it was.

    Nothing is observed inside. Layers return plain tensors.

    Args:
        model: a model, or a single layer.

    Raises:
        ArgumentTypeError: `model` is not a module.

    Examples:
        >>> import torch
        >>> from brevq.nn import QuantLinear
        >>> layer, x = QuantLinear(4, 3, weight_bit_width=2), torch.randn(2, 4)
        >>> with unquantized(layer):
        ...     torch.equal(layer(x), torch.nn.functional.linear(x, layer.weight, layer.bias))
        True
    """
    layers = [module for module in _module(model).modules() if isinstance(module, QuantModule)]
    before = [(layer, _quantizers(layer), layer.return_quant_tensor) for layer in layers]
    for layer in layers:
        layer._modules.update(dict.fromkeys(_quantizers(layer)))  # noqa: SLF001  # assigning would tell the quantizer
        layer.return_quant_tensor = False
    try:
        yield
    finally:
        for layer, quantizers, return_quant_tensor in before:
            layer._modules.update(quantizers)  # noqa: SLF001  # likewise
            layer.return_quant_tensor = return_quant_tensor


def settle(model: nn.Module, phase: str) -> None:
    """Hold ranges of activations fixed from now on, or let training learn them.

    Ranges that were observed, in calibration or so far in training, are taken as they are. Quantizers that saw no data
    stay without a range. An optimizer that was made before knows the ranges in either case.

    Args:
        model: a model, or a single layer.
        phase: ``"fixed"`` or ``"learned"``.

    Raises:
        ArgumentError: `phase` is something else.
        ArgumentTypeError: `model` is not a module.

    Examples:
        >>> import torch
        >>> from brevq.nn import QuantIdentity
        >>> layer = QuantIdentity()
        >>> _ = layer(torch.ones(2))
        >>> settle(layer, "fixed")
        >>> layer.act_quant.phase
        Phase.FIXED
    """
    phases = {"fixed": Phase.FIXED, "learned": Phase.LEARNED}
    if phase not in phases:
        raise ArgumentError(f"`phase` (={phase!r}) must be 'fixed' or 'learned'")
    for quantizer in _module(model).modules():
        if isinstance(quantizer, Quantizer):
            for part in quantizer.modules():
                if isinstance(part, RuntimeStats):
                    part.settle(phases[phase])


def _quantizers(layer: QuantModule) -> dict[str, Any]:
    """The quantizers that a layer has itself, by their arguments."""
    return {name: child for name, child in layer.named_children() if name in layer.quants}


def _module(model: Any) -> nn.Module:
    if not isinstance(model, nn.Module):
        raise ArgumentTypeError(f"`model` must be a module, not {type(model).__name__}")
    return model
