"""Finding where a number went wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils.hooks import RemovableHandle

from brevq.core.checks import flag
from brevq.errors import ArgumentTypeError, NonFiniteError
from brevq.quantizer import Quantizer


class FiniteCheck:
    """A watch over a model: the first NaN or infinity is an error that names where it came up.

    What `check_finite` returns. It ends with its ``with`` block, or with `close`.
    """

    def __init__(self, model: nn.Module, gradients: bool = False) -> None:
        if not isinstance(model, nn.Module):
            raise ArgumentTypeError(f"`model` must be a module, not {type(model).__name__}")
        self._gradients = flag("gradients", gradients)
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            _check(tensor, f"`{name}` of the model")
        self._open = True
        self._hooks: list[RemovableHandle] = []
        for path, module in _watched(model):
            label = f"`{path}` ({_kind(module)})" if path else f"the model ({type(module).__name__})"
            self._hooks.append(module.register_forward_pre_hook(self._before(label), with_kwargs=True))
            self._hooks.append(module.register_forward_hook(self._after(label)))
        for name, parameter in model.named_parameters() if gradients else ():
            if parameter.requires_grad:
                self._hooks.append(_hooked(parameter, self._behind(f"`{name}` of the model")))

    def close(self) -> None:
        """Stop watching; so are gradients of what was computed before."""
        self._open = False
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def __enter__(self) -> FiniteCheck:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _before(self, label: str) -> Any:
        def check(module: nn.Module, args: Any, kwargs: Any) -> None:
            _check((args, kwargs), f"the input of {label}")

        return check

    def _after(self, label: str) -> Any:
        def check(module: nn.Module, args: Any, output: Any) -> None:
            _check(output, f"the output of {label}, whose input is finite,")
            for tensor in _tensors(output) if self._gradients else ():
                if tensor.requires_grad:
                    _hooked(tensor, self._behind(f"the output of {label}"))

        return check

    def _behind(self, what: str) -> Callable[[Tensor], None]:
        """What looks at a gradient in the backward pass."""

        def check(gradient: Tensor) -> None:
            if self._open:
                _check(gradient, f"the gradient of {what}")

        return check


def check_finite(model: nn.Module, gradients: bool = False) -> FiniteCheck:
    """Watch a model from now on: the first NaN or infinity is an error that names the layer where it came up.

    Parameters and buffers are checked at once; inputs and outputs of all layers and quantizers, with their scales, at
    every call, in tuples, lists, dictionaries and dataclasses too. That takes time, and reads numbers back from the
    device: it is for looking for a fault. Compiled models have to be watched before they are compiled.

    Args:
        model: the model.
        gradients: whether the gradients are checked as well, in the backward pass of what is computed while watching:
            those that reach an output, from the last layer to the first, and those of parameters. The first that is
            not finite was made between the output it is named for and what was computed from that. Keep ``backward()``
            within the watch. Default: False.

    Returns:
        The watch: a context manager, which also has `close`.

    Raises:
        NonFiniteError: a parameter or buffer is not finite; later, from calls of the model, an input or output, and
            from the backward pass a gradient.
        ArgumentTypeError: `model` is not a module, or `gradients` not True or False.

    Examples:
        >>> import torch
        >>> from brevq.nn import QuantLinear
        >>> model = nn.Sequential(nn.Linear(2, 2), QuantLinear(2, 2))
        >>> with check_finite(model):
        ...     model(torch.tensor([[1.0, float("nan")]]))
        Traceback (most recent call last):
            ...
        brevq.errors.NonFiniteError: the input of the model (Sequential) has 1 NaN of 2 values, the first at (0, 1)
        >>> with check_finite(model, gradients=True):
        ...     (model(torch.zeros(1, 2)).sum() * 1e38 * 1e38).backward()
        Traceback (most recent call last):
            ...
        brevq.errors.NonFiniteError: the gradient of the output of `1` (QuantLinear) has 2 infinite of 2 values, the
        first at (0, 0)
    """
    return FiniteCheck(model, gradients)


def _hooked(tensor: Tensor, look: Callable[[Tensor], None]) -> RemovableHandle:
    """Let something look at the gradient of a tensor."""
    handle: RemovableHandle = tensor.register_hook(look)  # type: ignore[no-untyped-call]  # torch's
    return handle


def _check(tree: Any, what: str) -> None:
    """Refuse NaN and infinities in any tensor of `tree`, scales and zero-points among them."""
    for tensor in _tensors(tree):
        if not (tensor.is_floating_point() or tensor.is_complex()) or tensor.is_meta:
            continue
        wrong = ~tensor.detach().isfinite()
        if bool(wrong.any()):
            raise NonFiniteError(f"{what} has {_count(tensor, wrong)}")


def _tensors(tree: Any) -> Iterator[Tensor]:
    """The tensors in `tree`, whatever it is made of."""
    for leaf in pytree.tree_leaves(tree):
        if isinstance(leaf, Tensor):
            yield leaf
        elif isinstance(leaf, Mapping):  # a subclass of dict, such as the outputs of language models
            yield from _tensors(list(leaf.values()))
        elif dataclasses.is_dataclass(leaf):
            yield from _tensors([getattr(leaf, field.name) for field in dataclasses.fields(leaf)])


def _watched(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """All modules with their paths, but for the parts of quantizers."""
    quantizers = [module for module in model.modules() if isinstance(module, Quantizer)]
    inside = {id(part) for quantizer in quantizers for part in quantizer.tensor_quant.modules()}
    return [(path, module) for path, module in model.named_modules() if id(module) not in inside]


def _kind(module: nn.Module) -> str:
    return module.recipe.__name__ if isinstance(module, Quantizer) else type(module).__name__


def _count(tensor: Tensor, wrong: Tensor) -> str:
    """How many values are wrong, of which kind, and where the first is."""
    kind = "NaN" if bool(tensor.isnan().any()) else "infinite"
    first = tuple(wrong.nonzero()[0].tolist()) if tensor.dim() else ()
    where = f", the first at {first}" if first else ""
    return f"{int(wrong.sum())} {kind} of {tensor.numel()} values{where}"
