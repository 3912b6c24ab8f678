"""Many processes: whose batches are observed, and ranges that are equal everywhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn
from torch import distributed as dist

from brevq.core.stats import RuntimeStats
from brevq.core.stats.ranks import Ranks
from brevq.errors import ArgumentTypeError
from brevq.quantizer import Quantizer


def observe_across(model: nn.Module, group: Any = None, alone: bool = False) -> None:
    """Say which processes' batches the activation quantizers of a model observe together in training.

    Unless told otherwise they observe those of all processes. A model, or part of one, that is not on all of them, as
    in pipeline parallelism, takes the group of those that have it and different data; where processes see the same
    data, as in tensor parallelism, each may as well observe alone.

    Args:
        model: a model, or a part of it.
        group: the process group. Default: that of all processes.
        alone: whether each process observes its own batches only. Default: False.

    Raises:
        ArgumentTypeError: `model` is not a module.

    Examples:
        >>> from brevq.nn import QuantReLU
        >>> observe_across(QuantReLU(), alone=True)
    """
    ranks = Ranks(group, alone)
    for quantizer in _quantizers(model):
        for module in quantizer.modules():
            if isinstance(module, RuntimeStats):
                module.ranks = ranks


def broadcast_ranges(model: nn.Module, source: int = 0, group: Any = None) -> None:
    """Give the quantizers of all processes the state of those of one: ranges, and the phases that these are in.

    For ranges that one process calibrated or loaded. All processes of the group have to call it; with one process
    nothing happens.

    Args:
        model: a model, or a part of it, on all processes alike.
        source: the rank, among all processes, whose state it is. Default: 0.
        group: the process group. Default: that of all processes.

    Raises:
        ArgumentTypeError: `model` is not a module.

    Examples:
        >>> from brevq.nn import QuantReLU
        >>> broadcast_ranges(QuantReLU())
    """
    quantizers = list(_quantizers(model))
    if not Ranks(group).shared:
        return
    for quantizer in quantizers:
        state = {name: tensor.detach().clone() for name, tensor in quantizer.state_dict().items()}
        for tensor in state.values():
            dist.broadcast(tensor, source, group=group)
        quantizer.load_state_dict(state)


def replicate_ranges(model: nn.Module, group: Any = None) -> set[nn.Parameter]:
    """The parameters of a model's quantizers, for ``fully_shard(model, ignored_params=...)`` to leave whole.

    A range is a number, or one for each channel: there is nothing to shard. Each process keeps all of them, and from
    now on their gradients are averaged over the processes as they come, as those of sharded parameters are; so ranges
    that begin equal stay equal. Call it once, before `fully_shard`, with the parameters as training will have them: one
    that does not require a gradient, as a fixed range, is left alone.

    Args:
        model: a model, not sharded yet.
        group: the process group that the model will be sharded over. Default: that of all processes.

    Raises:
        ArgumentTypeError: `model` is not a module.

    Examples:
        >>> from brevq.nn import QuantReLU
        >>> [parameter.shape for parameter in replicate_ranges(QuantReLU())]
        [torch.Size([])]
    """
    ranks = Ranks(group)

    def average(parameter: Tensor) -> None:
        if ranks.shared and parameter.grad is not None:
            dist.all_reduce(parameter.grad, group=group)
            parameter.grad /= dist.get_world_size(group)

    parameters = {parameter for quantizer in _quantizers(model) for parameter in quantizer.parameters()}
    for parameter in parameters:
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(average)  # type: ignore[no-untyped-call]  # torch's
    return parameters


def _quantizers(model: nn.Module) -> Iterator[Quantizer]:
    """The quantizers of a model, each once."""
    if not isinstance(model, nn.Module):
        raise ArgumentTypeError(f"`model` must be a module, not {type(model).__name__}")
    return (module for module in model.modules() if isinstance(module, Quantizer))
