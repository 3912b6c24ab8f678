"""Looking at a model without leaving a trace."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from brevq.core.stats import RuntimeStats
from brevq.errors import ArgumentTypeError
from brevq.quantizer import Quantizer


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Let a model run as it would in evaluation, and leave it as it was.

    Inside, nothing is observed, no step is counted, no gradient recorded. Afterwards all modules are in training or
    evaluation as before, and so are ranges that began to be learned, calibration that was under way, buffers, and the
    random numbers to come.

    Args:
        model: a model, or a part of it.

    Raises:
        ArgumentTypeError: `model` is not a module.

    Examples:
        >>> from brevq.nn import QuantLinear
        >>> from injectors import Int8WeightPerTensorLSQ
        >>> layer = QuantLinear(4, 2, weight_quant=Int8WeightPerTensorLSQ)
        >>> with undisturbed(layer):
        ...     print(layer(torch.ones(4)).requires_grad, layer.training, layer.weight_quant.phase)
        False False learned
        >>> layer.training, layer.weight_quant.phase
        (True, Phase.EMPTY)
    """
    if not isinstance(model, nn.Module):
        raise ArgumentTypeError(f"`model` must be a module, not {type(model).__name__}")
    with ExitStack() as stack:
        for undo in (_undo_state(model), _undo_random(model), _undo_flags(model)):
            stack.callback(undo)
        _to_evaluation(model)
        stack.enter_context(torch.no_grad())
        yield


def _to_evaluation(model: nn.Module) -> None:
    """Evaluation, of calibration too. Not by `eval()`, which modules may have made a call with effects."""
    for module in model.modules():
        module.training = False
        if isinstance(module, (Quantizer, RuntimeStats)):
            module.calibrating = False


def _undo_flags(model: nn.Module) -> Callable[[], None]:
    """What gives all modules the flags back that they have now."""
    names = ("training", "calibrating")
    flags = [(module, name, vars(module)[name]) for module in model.modules() for name in names if name in vars(module)]

    def undo() -> None:
        for module, name, flag in flags:
            setattr(module, name, flag)

    return undo


def _undo_random(model: nn.Module) -> Callable[[], None]:
    """What takes back the random numbers that are drawn from now on."""
    devices = {tensor.device.index or 0 for tensor in model.parameters() if tensor.is_cuda}
    forked = ExitStack()
    forked.enter_context(torch.random.fork_rng(sorted(devices)))
    generators = [getattr(module, "rounding_generator", None) for module in model.modules()]
    states = [(generator, generator.get_state()) for generator in generators if generator is not None]

    def undo() -> None:
        forked.close()
        for generator, state in states:
            generator.set_state(state)

    return undo


def _undo_state(model: nn.Module) -> Callable[[], None]:
    """What gives quantizers, buffers, and tables that look-ups limit the numbers back that they have now."""
    quantizers = [module for module in model.modules() if isinstance(module, Quantizer) and not module.grid.is_meta]
    states = [(quantizer, _copies(quantizer.state_dict())) for quantizer in quantizers]
    tensors = [(tensor, tensor.detach().clone()) for tensor in _changeable(model)]

    def undo() -> None:
        for quantizer, state in states:
            if any(_differ(tensor, state[name]) for name, tensor in quantizer.state_dict().items()):
                quantizer.load_state_dict(state)
        for tensor, before in tensors:
            if _differ(tensor, before):
                tensor.data.copy_(before)

    return undo


def _changeable(model: nn.Module) -> Iterator[Tensor]:
    """What a call in evaluation may change of a model outside of its quantizers."""
    quantizers = [module for module in model.modules() if isinstance(module, Quantizer)]
    inside = {id(tensor) for quantizer in quantizers for tensor in (*quantizer.buffers(), *quantizer.parameters())}
    limited = [module for module in model.modules() if getattr(module, "max_norm", None) is not None]
    tensors = [*model.buffers(), *(tensor for module in limited for tensor in module.parameters(recurse=False))]
    return (tensor for tensor in tensors if id(tensor) not in inside and not tensor.is_meta)


def _copies(state: dict[str, Any]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in state.items()}


def _differ(tensor: Tensor, before: Tensor) -> bool:
    """Whether numbers have changed; NaN is equal to itself."""
    return not bool(((tensor == before) | (tensor.isnan() & before.isnan())).all())
