"""The mean number of bits of a model, as a loss that learned bit widths are trained with.

What the mean is taken over is chosen by a function of the model, such as `weights_by_size`: it lists the places where
a learned bit width is used, and how much each counts.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from brevq.errors import ArgumentError
from brevq.loss.watching import Watching
from brevq.nn.layer import QuantLayer
from brevq.quantizer import Quantizer

_NONE_LEARNED = """
{model} has no learned bit width for `{weighting}` to weigh.

Give a recipe one: `bit_width_impl = BitWidthParameter`.
""".strip()

_NOT_RUN = "nothing was weighed yet: run the model once, between making this loss and closing it"


@attrs.define(eq=False)
class Place:
    """A place where a learned bit width is used, and how much it counts.

    Args:
        bit_width_impl: the learned bit width.
        count: how many values, or operations, have this bit width. Of a place that is watched, since the model's
            last run began.
        watched: the module whose runs add to the count; None if it is known without.
        weigh: what one run of the watched module adds, from its input.
    """

    bit_width_impl: nn.Module
    count: int = 0
    watched: nn.Module | None = None
    weigh: Callable[[Any], int] | None = None


class BitWidthLoss(Watching):
    """The mean learned bit width of a model, in bits: ``sum n_i * b_i / sum n_i``.

    ``b_i`` is the bit width that place ``i`` has when the loss is computed, and ``n_i`` how much that place counts.
    Places that depend on data are counted during the model's last run, by hooks on the model. The loss is a context
    manager, which removes the hooks in the end; `close` does it without one: bit widths are then still followed, and
    what they count is no more. No tensor is kept.

    Args:
        model: a model, or a single layer.
        weighting: which places count, and how much: `weights_by_size`, `activations_by_size` or
            `outputs_by_operations`, or a function of one's own that lists places of a model.

    Raises:
        ArgumentError: the model has no place with a learned bit width.

    Source:
        Pappalardo, 2023, "Brevitas", https://github.com/Xilinx/brevitas, whose losses on bit widths it takes up.

    Examples:
        >>> from brevq.core.bit_width import BitWidthParameter
        >>> from brevq.nn import QuantLinear
        >>> from injectors import Int8WeightPerTensor
        >>> class Learned(Int8WeightPerTensor):
        ...     bit_width_impl = BitWidthParameter
        >>> model = nn.Sequential(
        ...     QuantLinear(10, 3, weight_quant=Learned), QuantLinear(3, 10, weight_quant=Learned, weight_bit_width=4))
        >>> with BitWidthLoss(model, weights_by_size) as bits:
        ...     bits()
        tensor(6., grad_fn=<DivBackward0>)
    """

    def __init__(self, model: nn.Module, weighting: Callable[[nn.Module], list[Place]]) -> None:
        self._places = weighting(model)
        if not self._places:
            names = {"model": type(model).__name__, "weighting": getattr(weighting, "__name__", weighting)}
            raise ArgumentError(_NONE_LEARNED.format(**names))
        watched = [place for place in self._places if place.watched is not None]
        # The model's own hook comes first: the model may be one of the places itself.
        super().__init__([model.register_forward_pre_hook(functools.partial(_restart, watched))] if watched else [])
        for place in watched:
            if place.watched is not None:
                self._handles.append(place.watched.register_forward_pre_hook(functools.partial(_count, place)))

    def __call__(self) -> Tensor:
        """The loss, shape `()`, in bits; differentiable in the learned bit widths.

        Raises:
            ArgumentError: the model has not run yet.
        """
        total = sum(place.count for place in self._places)
        if total == 0:
            raise ArgumentError(_NOT_RUN)
        return torch.stack([place.count * place.bit_width_impl() for place in self._places]).sum() / total


def weights_by_size(model: nn.Module) -> list[Place]:
    """The weights with a learned bit width, each counted by its number of elements.

    The mean is then the average number of bits of a weight. A layer that runs several times counts once.

    Args:
        model: a model, or a single layer.
    """
    return [
        Place(bit_width_impl, count=quantizer.elements)
        for quantizer in model.modules()
        if isinstance(quantizer, Quantizer)
        and quantizer.role == "weight"
        and (bit_width_impl := _learned(quantizer)) is not None
    ]


def activations_by_size(model: nn.Module) -> list[Place]:
    """The activations with a learned bit width, each counted by its number of elements in a sample.

    The first dimension of an activation is the batch, and does not count. The mean is then the average number of bits
    of a value that the model keeps or moves for one sample. A quantizer that runs several times counts as often.

    Args:
        model: a model, or a single layer.
    """
    return [
        Place(bit_width_impl, watched=quantizer, weigh=_sample_size)
        for quantizer in model.modules()
        if isinstance(quantizer, Quantizer)
        and quantizer.role == "activation"
        and (bit_width_impl := _learned(quantizer)) is not None
    ]


def outputs_by_operations(model: nn.Module) -> list[Place]:
    """The outputs of layers with a weight, where their bit width is learned, counted by multiply-accumulates.

    A layer counts by those that one sample takes: for each output the weights of one channel, or, of a layer whose
    weight has its inputs first (a transposed convolution), for each input the weights of one channel. The batch, which
    is the first dimension, does not count. The mean weighs an output by what it costs to compute;
    looking a row up costs nothing.

    Args:
        model: a model, or a single layer.
    """
    return [
        _output(layer, bit_width_impl)
        for layer in model.modules()
        if isinstance(layer, QuantLayer)
        and (bit_width_impl := _learned(dict(layer.named_children()).get("output_quant"))) is not None
        and layer.operations_per_value
    ]


def _output(layer: QuantLayer, bit_width_impl: nn.Module) -> Place:
    """The place of a layer's output: `output_quant` runs on as many values as the layer puts out."""
    watched = layer.output_quant if layer.channel_axis == 0 else layer
    weigh = functools.partial(_operations, per_value=layer.operations_per_value)
    return Place(bit_width_impl, watched=watched, weigh=weigh)


def _learned(quantizer: nn.Module | None) -> nn.Module | None:
    """The bit width of a quantizer, if it is learned."""
    bit_width_impl = getattr(getattr(quantizer, "tensor_quant", None), "bit_width_impl", None)
    if isinstance(bit_width_impl, nn.Module) and any(True for _ in bit_width_impl.parameters()):
        return bit_width_impl
    return None


def _sample_size(x: Any) -> int:
    """The number of elements of one sample of a batch."""
    return int(torch.Size(x.shape[1:]).numel())


def _operations(x: Any, per_value: int) -> int:
    return _sample_size(x) * per_value


def _restart(places: list[Place], model: nn.Module, arguments: tuple[Any, ...]) -> None:
    for place in places:
        place.count = 0


def _count(place: Place, module: nn.Module, arguments: tuple[Any, ...]) -> None:
    if place.weigh is not None:
        place.count += place.weigh(arguments[0])
