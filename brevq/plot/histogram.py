"""Histograms of weights and activations, with their grid and what lies beyond it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from brevq.errors import ArgumentError, ArgumentTypeError
from brevq.inject.near import did_you_mean
from brevq.overview import undisturbed
from brevq.overview.targets import Target, targets_of
from brevq.plot.canvas import CLIPPED, GRID, QUANTIZED, axes_for, dress, legend_above
from brevq.plot.runs import call, watching
from brevq.quant_tensor import QuantTensor, Zero
from brevq.quantizer import Quantizer

_MOST_BITS = 12  # grids of more are drawn as their ends alone
_FEW = 32  # numbers of a grid that are drawn as lines; more of them as marks
_RUG = 0.05  # height of such a mark, of that of the axes
_FAR = 2.0  # ends of a grid that are further away than this many times the width of the values are not shown
_MARGIN = 0.02  # of the width of the axes
_NO_WEIGHT = "{layer} has no quantized weight: give a layer with a `weight_quant`"
_NO_ACTIVATION = "{model} has no quantizer of activations: give a layer or a model that has one"
_WHICH = "`at` must say which activation to show: {names}"
_NONE_SUCH = "`{argument}` (={name!r}) is no {what}, which are {names}.{near}"
_NOT_REACHED = "the batch did not reach `{at}`: the model does not call it"


@attrs.frozen(eq=False)
class Histogram:
    """How often which values occur, and the grid that they are rounded to.

    Args:
        edges: ends of the bins, float64, ``(bins + 1,)``.
        counts: number of values in each bin, the last of which has its upper end, float64, ``(bins,)``.
        grid: numbers of the grid, float64, sorted; empty of more than 12 bits.
        low: the smallest number of the grid.
        high: the largest.
        steps: whether all of that is in steps of the grid, because there are several scales, and not in values.
        beyond: the fraction of values further out than half a step from the ends of the grid, which are clipped.
        label: what is shown, and how it is quantized.
    """

    edges: Tensor
    counts: Tensor
    grid: Tensor
    low: float
    high: float
    steps: bool
    beyond: float
    label: str


def weight_histogram(layer: nn.Module, tensor: str | None = None, bins: int = 100) -> Histogram:
    """The data of `weights`.

    Args:
        layer: a layer with a quantized weight.
        tensor: which of its tensors, where it has several: ``weight_hh_l0``. Default: the first.
        bins: number of bins.

    Raises:
        ArgumentError: nothing is quantized, or not the tensor of that name; or `bins` is below 1.

    Examples:
        >>> from brevq.nn import QuantLinear
        >>> layer = QuantLinear(2, 1, weight_bit_width=2)
        >>> _ = layer.weight.data.copy_(torch.tensor([[0.5, -1.0]]))
        >>> data = weight_histogram(layer, bins=3)
        >>> data.counts, data.grid, data.beyond
        (tensor([1., 0., 1.], dtype=torch.float64), tensor([-1.,  0.,  1.], dtype=torch.float64), 0.0)
    """
    target, quantized = stored_tensor(layer, tensor)
    label = f"{target.tensor} of {type(layer).__name__}, {target.quantizer.recipe.__name__}"
    return _histogram([(_float_values(layer, target, quantized), quantized)], label, bins)


def weights(layer: nn.Module, tensor: str | None = None, bins: int = 100, ax: Any = None) -> Any:
    """Plot how often which weights occur, with the numbers that they are rounded to, and what is clipped.

    With one scale, values are shown as they are; with several, in steps of their grid: weight over scale, plus the
    zero-point.

    Args:
        layer: a layer with a quantized weight.
        tensor: which of its tensors, where it has several: ``weight_hh_l0``. Default: the first.
        bins: number of bins. Default: 100.
        ax: axes of matplotlib to draw on. Default: those of a new figure.

    Returns:
        The axes. The bars are the counts of `weight_histogram`, which has the data.

    Raises:
        ArgumentError: nothing is quantized, or not the tensor of that name; or `bins` is below 1.
        MissingExtraError: matplotlib is not installed.

    Examples:
        >>> from brevq.nn import QuantLinear
        >>> axes = weights(QuantLinear(64, 64, weight_bit_width=4))
        >>> axes.get_xlabel(), axes.patches[0].get_data().values.sum().item()
        ('weight', 4096.0)
    """
    return _draw(weight_histogram(layer, tensor, bins), "weight", axes_for(ax))


def activation_histogram(model: nn.Module, batch: Any, at: str | None = None, bins: int = 100) -> Histogram:
    """The data of `activations`.

    Args:
        model: a model, or a layer with a quantizer of activations.
        batch: what the model takes: one argument, a tuple of them, or a dictionary of keywords.
        at: path of the quantizer, such as ``"2.act_quant"``. Default: the only one.
        bins: number of bins.

    Raises:
        ArgumentError: there is no such quantizer, or several and `at` is None; or the batch does not reach it.
        UncalibratedError: a quantizer has seen no data yet.

    Examples:
        >>> from brevq.nn import QuantReLU
        >>> relu = QuantReLU(bit_width=2)
        >>> _ = relu(torch.tensor([3.0]))
        >>> activation_histogram(relu, torch.tensor([0.2, 0.9, 3.0, 5.0]), bins=5).beyond
        0.25
    """
    if not isinstance(model, nn.Module):
        raise ArgumentTypeError(f"`model` must be a module, not {type(model).__name__}")
    found = {path: module for path, module in model.named_modules() if _is_of_activations(module)}
    name = _only(model, found) if at is None else _known("at", at, found, "quantizer of activations")
    seen: list[tuple[Tensor, QuantTensor]] = []

    def see(_: str, arguments: Any, output: QuantTensor) -> None:
        seen.append((arguments[0].detach(), output))

    with undisturbed(model), watching({name: found[name]}, see):
        call(model, batch)
    if not seen:
        raise ArgumentError(_NOT_REACHED.format(at=name))
    return _histogram(seen, f"{name}, {found[name].recipe.__name__}", bins)


def activations(model: nn.Module, batch: Any, at: str | None = None, bins: int = 100, ax: Any = None) -> Any:
    """Plot how often which activations occur in a batch, the numbers that they are rounded to, and what is clipped.

    They are what reaches the quantizer as the model runs quantized, in evaluation. With one scale, values are shown as
    they are; with several, in steps of their grid: value over scale, plus the zero-point.

    Args:
        model: a model, or a layer with a quantizer of activations.
        batch: what the model takes: one argument, a tuple of them, or a dictionary of keywords.
        at: path of the quantizer, such as ``"2.act_quant"``. Default: the only one.
        bins: number of bins. Default: 100.
        ax: axes of matplotlib to draw on. Default: those of a new figure.

    Returns:
        The axes. The bars are the counts of `activation_histogram`, which has the data.

    Raises:
        ArgumentError: there is no such quantizer, or several and `at` is None; or the batch does not reach it.
        UncalibratedError: a quantizer has seen no data yet.
        MissingExtraError: matplotlib is not installed.

    Examples:
        >>> from brevq.graph import calibrating
        >>> from brevq.nn import QuantReLU
        >>> relu, x = QuantReLU(bit_width=4), torch.randn(1000)
        >>> with calibrating(relu):
        ...     _ = relu(x)
        >>> activations(relu, x).get_xlabel()
        'activation'
    """
    return _draw(activation_histogram(model, batch, at, bins), "activation", axes_for(ax))


def stored_tensor(layer: nn.Module, tensor: str | None) -> tuple[Target, QuantTensor]:
    """A quantized tensor of a layer, and what quantizes it.

    Args:
        layer: the layer, which is not disturbed.
        tensor: name of the tensor. Default: the first.

    Raises:
        ArgumentTypeError: `layer` is not a module.
        ArgumentError: nothing is quantized, or not the tensor of that name.

    Examples:
        >>> from brevq.nn import QuantLinear
        >>> target, quantized = stored_tensor(QuantLinear(3, 2), None)
        >>> target.tensor, quantized.shape
        ('weight', torch.Size([2, 3]))
    """
    if not isinstance(layer, nn.Module):
        raise ArgumentTypeError(f"`layer` must be a module, not {type(layer).__name__}")
    stored = {target.tensor: target for target in targets_of(layer) if target.stored}
    if not stored:
        raise ArgumentError(_NO_WEIGHT.format(layer=type(layer).__name__))
    name = next(iter(stored)) if tensor is None else _known("tensor", tensor, stored, "quantized tensor of this layer")
    with undisturbed(layer):
        return stored[name], stored[name].look()


def _is_of_activations(module: nn.Module) -> bool:
    return isinstance(module, Quantizer) and module.role not in ("weight", "bias") and not module.needs_scale


def _only(model: nn.Module, found: Mapping[str, nn.Module]) -> str:
    """The name of the only quantizer."""
    if not found:
        raise ArgumentError(_NO_ACTIVATION.format(model=type(model).__name__))
    if len(found) > 1:
        raise ArgumentError(_WHICH.format(names=", ".join(map(repr, found))))
    return next(iter(found))


def _known(argument: str, name: str, names: Mapping[str, Any], what: str) -> str:
    """A name that is among those that there are."""
    if name not in names:
        listed = ", ".join(map(repr, names)) or "none"
        near = did_you_mean(name, names)
        raise ArgumentError(_NONE_SUCH.format(argument=argument, name=name, what=what, names=listed, near=near))
    return name


def _float_values(layer: nn.Module, target: Target, quantized: QuantTensor) -> Tensor:
    """What is quantized, in float: the parameter, or what the layer computes from its parameters."""
    computed: Any = getattr(layer, "float_parameters", None)
    if computed is not None and target.tensor in ("weight", "bias"):
        return computed(None)[("weight", "bias").index(target.tensor)].detach()  # type: ignore[no-any-return]  # tensors
    values: Tensor = getattr(layer, target.tensor).detach()
    return values.reshape(quantized.value.shape)


def _histogram(seen: list[tuple[Tensor, QuantTensor]], label: str, bins: int) -> Histogram:
    """The histogram of values and their quantized selves, of one or several calls."""
    if isinstance(bins, bool) or not isinstance(bins, int) or bins < 1:
        raise ArgumentError(f"`bins` (={bins!r}) must be a whole number, 1 or more")
    quantized = seen[0][1]
    low, high, codes = _codes(quantized)
    units = [_in_units(values, tensor) for values, tensor in seen]
    steps = any(unit[1].numel() > 1 for unit in units) or len({unit[1].item() for unit in units}) > 1
    step_values = torch.cat([values.flatten() for values, _, _ in units])
    ends = low - _step(quantized, low) / 2, high + _step(quantized, high) / 2
    beyond = ((step_values < ends[0]) | (step_values > ends[1])).double().mean()
    if steps:
        shown, scale, zero_point = step_values, 1.0, 0.0
    else:
        scale, zero_point = units[0][1].item(), units[0][2].item()
        shown = torch.cat([values.flatten().double().cpu() for values, _ in seen])
    low, high = (low - zero_point) * scale, (high - zero_point) * scale
    counts, edges = _binned(shown[torch.isfinite(shown)], bins)
    return Histogram(edges, counts, (codes - zero_point) * scale, low, high, steps, beyond.item(), label)


def _in_units(values: Tensor, quantized: QuantTensor) -> tuple[Tensor, Tensor, Tensor]:
    """Values in steps of their grid, and its scales and zero-points, in float64."""
    scale, zero_point = (part.detach().double().cpu() for part in quantized.spread())
    return values.double().cpu() / scale + zero_point, scale, zero_point


def _codes(quantized: QuantTensor) -> tuple[float, float, Tensor]:
    """The smallest and the largest code, and all of them if they are few."""
    if quantized.zero is Zero.NO_CODE:
        return -1.0, 1.0, torch.tensor([-1.0, 1.0], dtype=torch.float64)
    number_format = quantized.format
    few = int(quantized.bit_width) <= _MOST_BITS
    codes = number_format.values() if few else torch.empty(0, dtype=torch.float64)
    return number_format.min, number_format.max, codes


def _step(quantized: QuantTensor, code: float) -> float:
    """The distance between codes next to one."""
    if quantized.float_format is None:
        return 1.0
    return quantized.float_format.step(torch.tensor(code, dtype=torch.float64)).item()


def _binned(values: Tensor, bins: int) -> tuple[Tensor, Tensor]:
    """Counts, and the ends of bins of equal width from the smallest value to the largest."""
    low, high = (values.min().item(), values.max().item()) if values.numel() else (0.0, 1.0)
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = torch.linspace(low, high, bins + 1, dtype=torch.float64)
    places = torch.searchsorted(edges, values, right=True).sub(1).clamp(0, bins - 1)
    return torch.bincount(places, minlength=bins).double(), edges


def _draw(data: Histogram, what: str, ax: Any) -> Any:
    """Bars of the counts, marks of the grid, its ends, and what lies beyond them."""
    ax.stairs(data.counts.numpy(), data.edges.numpy(), fill=True, color=QUANTIZED, alpha=0.8, label=f"{what}s")
    grid = data.grid.numpy()
    unit = " steps" if data.steps else ""
    label = f"grid: {f'{len(grid)} numbers, ' if len(grid) else ''}{data.low:.3g} to {data.high:.3g}{unit}"
    marks = ax.get_xaxis_transform()
    height, thin = (1.0, 0.55) if len(grid) <= _FEW else (_RUG, 0.9)
    ax.vlines(grid, 0, height, transform=marks, color=GRID, linewidth=0.8, alpha=thin, zorder=2.5, label=label)
    left, right = _limits(data)
    for end in (data.low, data.high):
        if left <= end <= right:
            ax.axvline(end, color=CLIPPED, linestyle=(0, (4, 2)), linewidth=1.2)
    sides = [(left, data.low, data.edges[0] < data.low), (data.high, right, data.edges[-1] > data.high)]
    clipped = [(start, stop) for start, stop, reached in sides if data.beyond and reached]
    for place, (start, stop) in enumerate(clipped):
        words = None if place else f"clipped: {_share(data.beyond)}"
        ax.axvspan(start, stop, color=CLIPPED, alpha=0.13, linewidth=0, label=words)
    dress(ax, data.label, f"{what}, in steps of its grid" if data.steps else what, "count")
    ax.set_xlim(left, right)
    legend_above(ax)
    return ax


def _share(fraction: float) -> str:
    return "less than 0.01%" if fraction < 1e-4 else f"{fraction:.2%}"


def _limits(data: Histogram) -> tuple[float, float]:
    """From where to where to show: all values, and the ends of the grid where they are not far from these."""
    low, high = data.edges[0].item(), data.edges[-1].item()
    span = high - low
    left = min(low, data.low) if low - data.low < _FAR * span else low
    right = max(high, data.high) if data.high - high < _FAR * span else high
    return left - _MARGIN * (right - left), right + _MARGIN * (right - left)
