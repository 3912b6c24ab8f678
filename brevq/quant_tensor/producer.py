"""What a quantized tensor came from, in words for messages."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import nn


def describe(module: nn.Module) -> str:
    """What a module is called in messages: its path in the model that is running, if one is, and its recipe or class.

    Args:
        module: a quantizer or a layer.

    Examples:
        >>> describe(nn.ReLU())
        'A ReLU'
    """
    path = _path_in_running_model(module)
    recipe = getattr(module, "recipe", None)
    if recipe is None:
        return f"`{path}` ({type(module).__name__})" if path else f"A {type(module).__name__}"
    return f"{f'`{path}`' if path else 'A quantizer'} ({recipe.__name__})"


def describe_origin(producer: Any) -> str:
    """What the producer of a tensor is called in messages.

    Args:
        producer: a module; or the name of a function and the modules whose tensors it took; or None.

    Examples:
        >>> describe_origin(("add", (nn.ReLU(), nn.Tanh())))
        '`add` of A ReLU and A Tanh'
        >>> describe_origin(None)
        'a tensor of unknown origin'
    """
    if isinstance(producer, nn.Module):
        return describe(producer)
    if not producer:
        return "a tensor of unknown origin"
    function, modules = producer
    return f"`{function}`" + (f" of {' and '.join(map(describe, modules))}" if modules else "")


def derived(function: str, *producers: Any) -> tuple[str, tuple[nn.Module, ...]]:
    """The producer of what a function made of other tensors: its name, and at most two modules behind them.

    Args:
        function: name of the function.
        *producers: the producers of what it took.

    Examples:
        >>> derived("add", None, derived("neg", nn.ReLU()))
        ('add', (ReLU(),))
    """
    modules: list[nn.Module] = []
    for producer in producers:
        if isinstance(producer, nn.Module):
            modules.append(producer)
        elif producer:
            modules.extend(producer[1])
    return function, tuple(modules[:2])


def running_model(module: nn.Module) -> nn.Module:
    """The outermost module whose call is under way, found by looking up the stack; `module` itself where none is.

    Args:
        module: a part of it.

    Examples:
        >>> part = nn.ReLU()
        >>> running_model(part) is part
        True
    """
    model, frame = module, sys._getframe()  # noqa: SLF001  # the interpreter's documented way to see its callers
    while frame.f_back is not None:
        frame = frame.f_back
        # Of calls of modules alone: before Python 3.13, a frame that was asked keeps its variables alive till it ends.
        if frame.f_code is nn.Module._call_impl.__code__:  # noqa: SLF001  # what runs each call of a module
            model = frame.f_locals["self"]
    return model


def _path_in_running_model(module: nn.Module) -> str:
    """The name of `module` below the outermost module whose call is under way."""
    if torch.compiler.is_compiling():
        return ""
    names = (name for name, child in running_model(module).named_modules() if child is module)
    return str(next(names, ""))
