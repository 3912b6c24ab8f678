"""The ways in which a component travels, and what must be the same when it arrives."""

from __future__ import annotations

import copy
import io
import pickle
import warnings
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn import Module

Way: TypeAlias = Callable[[Callable[[], Module], Module], Module]


def _by_state_dict(create: Callable[[], Module], module: Module) -> Module:
    fresh = create()
    if isinstance(module, Module):  # what is none has no state
        fresh.load_state_dict(module.state_dict())
    return fresh


def _by_pickle(create: Callable[[], Module], module: Module) -> Module:
    copied: Module = pickle.loads(pickle.dumps(module))
    return copied


def _by_deepcopy(create: Callable[[], Module], module: Module) -> Module:
    return copy.deepcopy(module)


def _by_file(create: Callable[[], Module], module: Module) -> Module:
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    loaded: Module = torch.load(file, weights_only=False)
    return loaded


def _compiled(create: Callable[[], Module], module: Module) -> Any:
    torch.compiler.reset()
    copied = copy.deepcopy(module)
    if isinstance(module, Module):
        return torch.compile(copied, backend="eager", fullgraph=True)
    return torch.compile(copied.__call__, backend="eager", fullgraph=True)


#: The ways, by name: functions of a constructor and of what it made, that return what must act like the latter.
WAYS: dict[str, Way] = {
    "state_dict": _by_state_dict,
    "pickle": _by_pickle,
    "deepcopy": _by_deepcopy,
    "torch.save": _by_file,
    "compiled": _compiled,
}


def scripted(create: Callable[[], Module], module: Module) -> Any:
    """What TorchScript makes of a copy: the way of those components that support it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*torch.jit.script.*is deprecated", DeprecationWarning)
        return torch.jit.script(copy.deepcopy(module))


def outcome(module: Module, *inputs: Tensor) -> tuple[list[Any], list[Any]]:
    """What a module computes from some inputs, as numbers that compare bit for bit.

    The gradients are those of the sum of all values, each times its place, so that no two count alike.

    Args:
        module: a module whose call returns a tensor or a tuple of tensors.
        *inputs: the tensors to call it with.

    Returns:
        The values, and the gradients to floating-point inputs and to parameters; None for one that gets none.

    Examples:
        >>> outcome(torch.nn.ReLU(), torch.tensor([-1.0, 2.0]))
        ([[0.0, 2.0]], [[0.0, 2.0]])
    """
    leaves = [x.detach().clone().requires_grad_(x.is_floating_point()) for x in inputs]
    result = module(*leaves)
    results = [y for y in (result if isinstance(result, tuple) else (result,)) if y is not None]
    parameters = module.parameters() if isinstance(module, Module) else ()
    wanted = [x for x in (*leaves, *parameters) if x.requires_grad]
    places = [torch.arange(1, y.numel() + 1, device=y.device).reshape(y.shape) for y in results]
    total = sum((y * place).sum() for y, place in zip(results, places, strict=True))
    differentiable = isinstance(total, Tensor) and total.requires_grad
    grads = torch.autograd.grad(total, wanted, allow_unused=True) if differentiable else ()
    return [y.tolist() for y in results], [None if g is None else g.tolist() for g in grads]
