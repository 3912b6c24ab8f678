"""The error of each layer: how far its output is from that in float."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import Tensor, nn

from brevq.errors import ArgumentError, ArgumentTypeError
from brevq.frozen.layer import frozen_layers
from brevq.graph import unquantized
from brevq.overview import undisturbed
from brevq.overview.records import layers_of
from brevq.plot.canvas import FLOAT, QUANTIZED, axes_for, dress
from brevq.plot.runs import call, first_tensor, watching

_OTHER_SHAPE = (
    "the output of `{path}` has shape {ours}, and in the reference {theirs}: layers are compared by their path"
)
_NONE_IN_COMMON = "no layer of the model and of its reference ran at the same path, so there is nothing to compare"
_NO_FLOATS = (
    "`{path}` is frozen, and its weights in float are not there to compare with: give the float model as `reference`, "
    "or measure before freezing"
)
_MODEL = "output of the model"


def sqnr_by_layer(model: nn.Module, batch: Any, reference: nn.Module | None = None) -> dict[str, float]:
    """The signal-to-quantization-noise ratio of the output of each layer, in decibels; the data of `sqnr`.

    ``10 * log10(sum(y ** 2) / sum((y - q) ** 2))``, where ``y`` is the output in float and ``q`` that of the quantized
    model, and sums are over all values of all calls. Each layer of the quantized model gets what those before it made
    of the batch, so errors add up along the model. 6 dB are one bit. Of several tensors, the first counts.

    Args:
        model: a model, or a layer. It runs in evaluation, quantized and in float.
        batch: what the model takes: one argument, a tuple of them, or a dictionary of keywords.
        reference: a float model whose layers have the same paths. Default: `model` itself, with all quantizers off.

    Returns:
        The ratios by path of the layers, in the order of their first call, and at last that of the model itself, whose
        path is empty. Infinity where both are equal. Layers that do not run in float as well, as within torch's own
        attention, are left out.

    Raises:
        ArgumentTypeError: `model` or `reference` is not a module.
        ArgumentError: no layer ran in both, a layer has outputs of another shape there, or the model is frozen and no
            `reference` is given.
        UncalibratedError: a quantizer has seen no data yet.

    Source:
        Bennett, 1948, "Spectra of quantized signals", https://doi.org/10.1002/j.1538-7305.1948.tb01340.x

    Examples:
        >>> import torch
        >>> from brevq.nn import QuantLinear
        >>> layer = QuantLinear(1, 1, bias=False, weight_bit_width=2)
        >>> {path: round(ratio, 1) for path, ratio in sqnr_by_layer(layer, torch.ones(1, 1)).items()}
        {'': inf}
    """
    if reference is None:
        _refuse_frozen(model)
    ours = _outputs(model, batch, nullcontext())
    if reference is None:
        theirs = _outputs(model, batch, unquantized(model))
    else:
        theirs = _outputs(reference, batch, nullcontext())
    paths = [path for path in [*ours, ""] if path in ours and path in theirs]
    if not paths:
        raise ArgumentError(_NONE_IN_COMMON)
    return {path: _ratio(path, ours[path], theirs[path]) for path in sorted(paths, key=lambda path: not path)}


def _refuse_frozen(model: Any) -> None:
    """Refuse a model whose weights are codes: with all quantizers off, they are what the codes stand for."""
    for path, layer in frozen_layers(model) if isinstance(model, nn.Module) else ():
        if layer.frozen.tensors:
            raise ArgumentError(_NO_FLOATS.format(path=path or type(layer).__name__))


def sqnr(model: nn.Module, batch: Any, reference: nn.Module | None = None, ax: Any = None) -> Any:
    """Plot the error of each layer: the signal-to-quantization-noise ratio of its output, in decibels.

    ``10 * log10(sum(y ** 2) / sum((y - q) ** 2))``, of outputs ``y`` in float and ``q`` quantized; see `sqnr_by_layer`.

    Args:
        model: a model, or a layer. It runs in evaluation, quantized and in float.
        batch: what the model takes: one argument, a tuple of them, or a dictionary of keywords.
        reference: a float model whose layers have the same paths. Default: `model` itself, with all quantizers off.
        ax: axes of matplotlib to draw on. Default: those of a new figure.

    Returns:
        The axes: a bar for each layer, the first on top. Where quantization changes nothing, there is no bar, and the
        word *equal*.

    Raises:
        ArgumentTypeError: `model` or `reference` is not a module.
        ArgumentError: no layer ran in both, or a layer has outputs of another shape there.
        UncalibratedError: a quantizer has seen no data yet.
        MissingExtraError: matplotlib is not installed.

    Examples:
        >>> import torch
        >>> from brevq.nn import QuantLinear
        >>> model = nn.Sequential(QuantLinear(8, 8), nn.ReLU(), QuantLinear(8, 4, weight_bit_width=2))
        >>> [label.get_text() for label in sqnr(model, torch.randn(4, 8)).get_yticklabels()]
        ['0  QuantLinear', '2  QuantLinear', 'output of the model']
    """
    ratios = sqnr_by_layer(model, batch, reference)
    kinds = {path: type(module).__name__ for path, module in model.named_modules()}
    ax = axes_for(ax, high=1.2 + 0.28 * len(ratios))
    finite = {path: ratio for path, ratio in ratios.items() if math.isfinite(ratio)}
    places = {path: place for place, path in enumerate(ratios)}
    colours = [QUANTIZED if path else FLOAT for path in finite]
    bars = ax.barh([places[path] for path in finite], list(finite.values()), color=colours, height=0.65)
    ax.bar_label(bars, fmt="%.1f", padding=3, size=8.5)
    for path in places.keys() - finite.keys():
        word = "equal" if ratios[path] > 0 else "not finite"
        ax.annotate(word, (0, places[path]), (4, 0), textcoords="offset points", va="center", size=8.5, color=FLOAT)
    dress(ax, "Error of each layer: quantized against float", "SQNR of the output in dB (more is better)", "", "x")
    ax.set_yticks(list(places.values()), [f"{path}  {kinds[path]}" if path else _MODEL for path in places], size=8.5)
    ax.set_ylim(len(places) - 0.4, -0.6)
    ax.margins(x=0.1)
    ax.tick_params(axis="y", length=0)
    return ax


def _outputs(model: nn.Module, batch: Any, mode: AbstractContextManager[None]) -> dict[str, list[Tensor]]:
    """The outputs of the layers of a model at each of their calls, and those of the model itself."""
    if not isinstance(model, nn.Module):
        raise ArgumentTypeError(f"a model must be a module, not {type(model).__name__}")
    outputs: dict[str, list[Tensor]] = {}

    def see(path: str, arguments: Any, output: Any) -> None:
        tensor = first_tensor(output)
        if tensor is not None:
            outputs.setdefault(path, []).append(tensor.clone())

    watched = {**dict(layers_of(model)), "": model}  # before its quantizers may be off
    with undisturbed(model), mode, watching(watched, see):
        call(model, batch)
    return outputs


def _ratio(path: str, quantized: list[Tensor], in_float: list[Tensor]) -> float:
    """Decibels of the signal over the noise."""
    shapes = [[tuple(output.shape) for output in outputs] for outputs in (quantized, in_float)]
    if shapes[0] != shapes[1]:
        raise ArgumentError(_OTHER_SHAPE.format(path=path or _MODEL, ours=shapes[0][0], theirs=shapes[1][0]))
    pairs = [(y.double(), q.double()) for y, q in zip(in_float, quantized, strict=True)]
    signal = sum(y.square().sum().item() for y, _ in pairs)
    noise = sum((y - q).square().sum().item() for y, q in pairs)
    if math.isnan(noise) or math.isnan(signal):
        return math.nan
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal else -math.inf
