"""Running a model for a look at what flows through it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from brevq.quant_tensor import QuantTensor, plain


def call(model: nn.Module, batch: Any) -> None:
    """Call a model with a batch: one argument; a tuple of them; or a mapping of keywords.

    Args:
        model: the model.
        batch: what it takes.
    """
    if isinstance(batch, Mapping):
        model(**batch)
    elif isinstance(batch, tuple):
        model(*batch)
    else:
        model(batch)


@contextmanager
def watching(modules: Mapping[str, nn.Module], see: Callable[[str, Any, Any], None]) -> Iterator[None]:
    """Let something see what goes into modules and what comes out, at every call.

    Args:
        modules: modules by name.
        see: takes the name, the positional arguments and the output.
    """

    def hook(name: str) -> Callable[[nn.Module, Any, Any], None]:
        return lambda module, arguments, output: see(name, arguments, output)

    handles = [module.register_forward_hook(hook(name)) for name, module in modules.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def first_tensor(output: Any) -> Tensor | None:
    """The first tensor of what a module returned, without its grid; None if there is none.

    Args:
        output: a tensor, a `QuantTensor`, or a tuple or list that may hold some.

    Examples:
        >>> import torch
        >>> first_tensor((torch.ones(1), None)), first_tensor("text")
        (tensor([1.]), None)
    """
    if isinstance(output, (Tensor, QuantTensor)):
        values: Tensor = plain(output)
        return values.detach()
    parts = output if isinstance(output, (tuple, list)) else ()
    return next((found for found in map(first_tensor, parts) if found is not None), None)
