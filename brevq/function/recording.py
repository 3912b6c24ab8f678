"""Whether operations are run or recorded, and gradients that are recorded themselves."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch._subclasses import FakeTensor


def recorded() -> bool:
    """Whether operations are recorded now, to be compiled or transformed, rather than run.

    Examples:
        >>> recorded(), torch.vmap(lambda x: x * recorded())(torch.ones(2))
        (False, tensor([1., 1.]))
    """
    transformed = torch._C._are_functorch_transforms_active()  # noqa: SLF001  # no public name
    traced = torch._C._get_tracing_state() is not None  # noqa: SLF001  # as above
    return transformed or traced or torch.compiler.is_compiling() or _faked()


def has_values(x: Tensor) -> bool:
    """Whether a tensor has values to look at: those of the meta device have none, nor have fake ones.

    Args:
        x: any tensor.

    Examples:
        >>> has_values(torch.ones(2)), has_values(torch.ones(2, device="meta"))
        (True, False)
    """
    return not (x.is_meta or _faked() or isinstance(x, FakeTensor))


def _faked() -> bool:
    """Whether operations make shapes alone, and no values; while code is compiled that is not for it to ask."""
    if torch.compiler.is_compiling():
        return False
    return torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.FAKE) is not None  # noqa: SLF001  # as above


def is_differentiated(grad: Tensor) -> bool:
    """Whether the gradients from `grad` are to be differentiated themselves, or are many at once.

    Args:
        grad: what a backward pass was given.

    Examples:
        >>> is_differentiated(torch.ones(2))
        True
    """
    batched: bool = torch._C._functorch.is_legacy_batchedtensor(grad)  # noqa: SLF001  # no public name
    return torch.is_grad_enabled() or batched or recorded()


def differentiate(
    function: Callable[..., Tensor | tuple[Tensor, ...]], inputs: list[Tensor], grad: Tensor | list[Tensor]
) -> tuple[Tensor | None, ...]:
    """The gradients of what `function` computes, themselves differentiable where that is asked for.

    Each input has the gradient of what it does itself, and not of what another one does that is computed from it.

    Args:
        function: what computes a tensor, or several, from the inputs.
        inputs: for which the gradients are.
        grad: the gradient of what it computes, or of each.

    Examples:
        >>> x = torch.tensor(3.0, requires_grad=True)
        >>> differentiate(lambda x: x * x, [x], torch.tensor(1.0))
        (tensor(6., grad_fn=<AddBackward0>),)
    """
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        apart = [x.view_as(x) for x in inputs]
        y = function(*apart)
    return torch.autograd.grad(y, apart, grad, create_graph=again, allow_unused=True)
