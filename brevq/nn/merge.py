"""Folding batch normalization into the layer before it."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from brevq.core.phase import Phase
from brevq.errors import ArgumentError, ArgumentTypeError
from brevq.quant_tensor import describe

_NO_BATCH_NORM = "`bn` must be a batch normalization, such as torch.nn.BatchNorm2d, not {kind}"
_NO_LAYER = "a batch normalization can be merged into a linear layer or a convolution, not into {kind}"
_NO_STATISTICS = (
    "{bn} keeps no running statistics (track_running_stats=False), so what it does depends on the batch, "
    "and no weight can do the same"
)
_MERGED = "{bn} is merged already: replace it by torch.nn.Identity()"
_CHANNELS = "{bn} has {ours} channels, and the layer before it puts out {theirs}"
_COMPUTED = (
    "{layer} has a weight that is no parameter but computed from others: remove that first, "
    "as torch.nn.utils.parametrize.remove_parametrizations does"
)
_OBSERVED = (
    "{layer} has an `output_quant` that has seen outputs before they were normalized, and its range is theirs: "
    "merge before calibrating or training, or assign it anew after merging: layer.output_quant = ..."
)

_FOLDABLE = (nn.Linear, _ConvNd)


def merge_bn(layer: nn.Module, bn: nn.Module) -> None:
    """Fold a batch normalization into the linear layer or convolution before it, in place.

    ``weight *= f`` for each output, and ``bias = bias * f + bn.bias - bn.running_mean * f``, where
    ``f = bn.weight / sqrt(bn.running_var + bn.eps)``. A layer without a bias gets one. What both computed
    in evaluation, the layer then computes alone, up to rounding. Scales of the weight are those of the folded one:
    learned ranges start again. A recipe for a bias that the layer did not have has to be assigned now:
    ``layer.bias_quant = Int32Bias``.

    `bn` is left doing nothing in evaluation, and is to be replaced by `torch.nn.Identity`, as `merge_all_bn` does:
    in training it would normalize again. Of a quantized one the quantizers go with it.

    Args:
        layer: `torch.nn.Linear`, a convolution or a transposed one, of any number of dimensions and groups, or a
            quantized twin.
        bn: `torch.nn.BatchNorm1d`, `2d`, `3d`, or another of that family, affine or not, which nothing but the
            output of `layer` goes through.

    Raises:
        ArgumentTypeError: one of them is something else.
        ArgumentError: `bn` has another number of channels, no running statistics, or is merged already; the weight is
            computed from other parameters; or `output_quant` of the layer has seen data.

    Source:
        Jacob et al., 2018, https://arxiv.org/abs/1712.05877, section 3.2.

    Examples:
        >>> from brevq.nn import QuantConv2d
        >>> conv, bn = QuantConv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)
        >>> merge_bn(conv, bn)
        >>> conv.bias.shape
        torch.Size([8])
    """
    _check(layer, bn)
    _fold(layer, bn)
    for quantizer in (getattr(layer, "weight_quant", None), getattr(layer, "bias_quant", None)):
        if quantizer is not None:
            quantizer.restart()


def merge_all_bn(model: nn.Module) -> list[str]:
    """Merge each batch normalization that follows a linear layer or a convolution in a `torch.nn.Sequential`.

    It is replaced by `torch.nn.Identity`. Modules that occur more than once in the model, and what is connected
    by a `forward` of its own, stay as they are: `merge_bn` merges these.

    Args:
        model: a model, which is changed in place.

    Returns:
        The names of what was merged, in the order of the model.

    Raises:
        ArgumentError: a pair can not be merged, as `merge_bn` says.

    Examples:
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        >>> merge_all_bn(model)
        ['1']
        >>> model[1]
        Identity()
    """
    occurrences = Counter(id(module) for _, module in model.named_modules(remove_duplicate=False))
    merged = []
    for path, sequence in list(model.named_modules()):
        if type(sequence).forward is not nn.Sequential.forward:
            continue
        children = list(sequence.named_children())
        for (_, layer), (name, bn) in itertools.pairwise(children):
            once = occurrences[id(layer)] == occurrences[id(bn)] == 1
            if once and isinstance(bn, _BatchNorm) and isinstance(layer, _FOLDABLE):
                merge_bn(layer, bn)
                setattr(sequence, name, nn.Identity())
                merged.append(f"{path}.{name}" if path else name)
    return merged


def _check(layer: nn.Module, bn: nn.Module) -> None:
    """Refuse what can not be merged."""
    if not isinstance(bn, _BatchNorm):
        raise ArgumentTypeError(_NO_BATCH_NORM.format(kind=type(bn).__name__))
    if not isinstance(layer, _FOLDABLE):
        raise ArgumentTypeError(_NO_LAYER.format(kind=type(layer).__name__))
    if bn.running_mean is None or bn.running_var is None:
        raise ArgumentError(_NO_STATISTICS.format(bn=describe(bn)))
    if getattr(bn, "merged", False):
        raise ArgumentError(_MERGED.format(bn=describe(bn)))
    outputs = layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
    if outputs != bn.num_features:
        raise ArgumentError(_CHANNELS.format(bn=describe(bn), ours=bn.num_features, theirs=outputs))
    if not isinstance(layer.weight, nn.Parameter):
        raise ArgumentError(_COMPUTED.format(layer=describe(layer)))
    output_quant: Any = getattr(layer, "output_quant", None)
    if output_quant is not None and output_quant.phase not in (None, Phase.EMPTY):
        raise ArgumentError(_OBSERVED.format(layer=describe(layer)))


@torch.no_grad()
def _fold(layer: Any, bn: nn.Module) -> None:
    """Let `layer` do what `bn` does, and `bn` nothing."""
    weight, bias = layer.weight, layer.bias
    wide = torch.promote_types(weight.dtype, torch.float32)
    factor, offset = _factor_and_offset(bn, wide)
    weight.copy_(weight.to(wide) * _along_outputs(layer, factor))
    if bias is None:
        layer.bias = nn.Parameter(offset.to(weight.dtype), requires_grad=weight.requires_grad)
    else:
        bias.copy_(bias.to(wide) * factor + offset)
    _make_identity(bn)


def _factor_and_offset(bn: Any, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """What a batch normalization multiplies by in evaluation, and what it then adds, shape ``(channels,)``."""
    mean, variance = bn.running_mean.to(dtype), bn.running_var.to(dtype)
    factor = (1.0 if bn.weight is None else bn.weight.to(dtype)) / torch.sqrt(variance + bn.eps)
    return factor, (0.0 if bn.bias is None else bn.bias.to(dtype)) - mean * factor


def _along_outputs(layer: Any, factor: Tensor) -> Tensor:
    """`factor`, one for each output, as it broadcasts to the weight of `layer`."""
    kernel = (1,) * (layer.weight.dim() - 2)
    if not getattr(layer, "transposed", False):
        return factor.reshape(-1, 1, *kernel)
    # A transposed weight has its inputs first, group after group, and then the outputs of one group.
    of_groups = factor.reshape(layer.groups, -1)
    return of_groups.repeat_interleave(layer.in_channels // layer.groups, dim=0).reshape(
        *layer.weight.shape[:2], *kernel
    )


def _make_identity(bn: Any) -> None:
    """Let a batch normalization do nothing in evaluation, and know that it is merged."""
    for tensor, number in ((bn.running_mean, 0.0), (bn.running_var, 1.0 - bn.eps), (bn.weight, 1.0), (bn.bias, 0.0)):
        if tensor is not None:
            tensor.fill_(number)
    bn.merged = True
