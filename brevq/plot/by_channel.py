"""Scales by channel."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from brevq.plot.canvas import QUANTIZED, axes_for, dress, legend_above
from brevq.plot.histogram import stored_tensor

_WIDE = 20.0  # from this ratio on of the largest scale to the smallest, they are shown on a logarithmic axis


def scales_by_channel(layer: nn.Module, tensor: str | None = None) -> Tensor:
    """The data of `scales`.

    Args:
        layer: a layer with a quantized weight.
        tensor: which of its tensors, where it has several: ``weight_hh_l0``. Default: the first.

    Returns:
        The scales, float64, ``(channels, scales of each)``: one for each group of a channel's weights. Of two-
        dimensional blocks a row of blocks stands for a channel; of a weight with one scale that is ``(1, 1)``.

    Raises:
        ArgumentError: nothing is quantized, or not the tensor of that name.

    Examples:
        >>> from brevq.nn import QuantLinear
        >>> from injectors import Int8WeightPerChannel, MXFp4Weight
        >>> scales_by_channel(QuantLinear(64, 8, weight_quant=Int8WeightPerChannel)).shape
        torch.Size([8, 1])
        >>> scales_by_channel(QuantLinear(64, 8, weight_quant=MXFp4Weight)).shape
        torch.Size([8, 2])
    """
    target, quantized = stored_tensor(layer, tensor)
    scale = quantized.scale.detach().double().cpu()
    if scale.dim() == 0:
        return scale.reshape(1, 1)
    axis = getattr(target.quantizer.granularity, "channel_axis", 0)
    axis = axis if scale.shape[axis] > 1 else 0
    return scale.movedim(axis, 0).flatten(1) if scale.dim() > 1 else scale.unsqueeze(1)


def scales(layer: nn.Module, tensor: str | None = None, ax: Any = None) -> Any:
    """Plot the scales of a weight by channel: a dot for each, or the range and the median of those of a channel.

    Args:
        layer: a layer with a quantized weight.
        tensor: which of its tensors, where it has several: ``weight_hh_l0``. Default: the first.
        ax: axes of matplotlib to draw on. Default: those of a new figure.

    Returns:
        The axes, with a line of the scales, or of the medians. `scales_by_channel` has the data. The axis is
        logarithmic where the largest scale is more than 20 times the smallest.

    Raises:
        ArgumentError: nothing is quantized, or not the tensor of that name.
        MissingExtraError: matplotlib is not installed.

    Examples:
        >>> from brevq.nn import QuantConv2d
        >>> from injectors import Int8WeightPerChannel
        >>> axes = scales(QuantConv2d(3, 16, 3, weight_quant=Int8WeightPerChannel))
        >>> len(axes.lines[0].get_ydata())
        16
    """
    target, _ = stored_tensor(layer, tensor)
    data = scales_by_channel(layer, tensor)
    ax = axes_for(ax)
    channels, several = range(len(data)), data.shape[1] > 1
    if several:
        low, high = data.amin(1).numpy(), data.amax(1).numpy()
        label = f"from the smallest to the largest of {data.shape[1]}"
        ax.vlines(channels, low, high, color=QUANTIZED, alpha=0.35, linewidth=2, label=label)
    middle = data.quantile(0.5, dim=1).numpy() if several else data[:, 0].numpy()
    ax.plot(channels, middle, "o", color=QUANTIZED, markersize=4, label="median" if several else "scale")
    what = f"{target.tensor} of {type(layer).__name__}, {target.quantizer.recipe.__name__}"
    dress(ax, f"Scales: {what}", "output channel", "scale")
    if data.max() > _WIDE * data.min():
        ax.set_yscale("log")
    else:
        ax.set_ylim(0, 1.08 * data.max().item())
    ax.xaxis.get_major_locator().set_params(integer=True)
    if several:
        legend_above(ax)
    return ax
