"""Finding where a number went wrong."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from brevq.errors import ArgumentTypeError, NonFiniteError
from brevq.quantizer import Quantizer


class FiniteCheck:
    """A watch over a model: the first NaN or infinity is an error that names where it came up.

    What `check_finite` returns. It ends with its ``with`` block, or with `close`.
    """

    def __init__(self, model: nn.Module) -> None:
        if not isinstance(model, nn.Module):
            raise ArgumentTypeError(f"`model` must be a module, not {type(model).__name__}")
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            self._check(tensor, f"`{name}` of the model")
        self._hooks = []
        for path, module in _watched(model):
            label = f"`{path}` ({_kind(module)})" if path else f"the model ({type(module).__name__})"
            self._hooks.append(module.register_forward_pre_hook(self._before(label), with_kwargs=True))
            self._hooks.append(module.register_forward_hook(self._after(label)))

    def close(self) -> None:
        """Stop watching."""
        for hook in self._hooks:
            hook.remove()

    def __enter__(self) -> FiniteCheck:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _before(self, label: str) -> Any:
        def check(module: nn.Module, args: Any, kwargs: Any) -> None:
            self._check((args, kwargs), f"the input of {label}")

        return check

    def _after(self, label: str) -> Any:
        def check(module: nn.Module, args: Any, output: Any) -> None:
            self._check(output, f"the output of {label}, whose input is finite,")

        return check

    def _check(self, tree: Any, what: str) -> None:
        """Refuse NaN and infinities in any tensor of `tree`, scales and zero-points among them."""
        for tensor in pytree.tree_leaves(tree):
            if not isinstance(tensor, Tensor) or not tensor.is_floating_point() or tensor.is_meta:
                continue
            wrong = ~tensor.detach().isfinite()
            if bool(wrong.any()):
                raise NonFiniteError(f"{what} has {_count(tensor, wrong)}")


def check_finite(model: nn.Module) -> FiniteCheck:
    """Watch a model from now on: the first NaN or infinity is an error that names the layer where it came up.

    Parameters and buffers are checked at once; inputs and outputs of all layers and quantizers, with their scales, at
    every call. That takes time, and reads numbers back from the device: it is for looking for a fault. Compiled models
    have to be watched before they are compiled.

    Args:
        model: the model.

    Returns:
        The watch: a context manager, which also has `close`.

    Raises:
        NonFiniteError: a parameter or buffer is not finite; later, from calls of the model, an input or output.
        ArgumentTypeError: `model` is not a module.

    Examples:
        >>> import torch
        >>> from brevq.nn import QuantLinear
        >>> model = nn.Sequential(nn.Linear(2, 2), QuantLinear(2, 2))
        >>> with check_finite(model):
        ...     model(torch.tensor([[1.0, float("nan")]]))
        Traceback (most recent call last):
            ...
        brevq.errors.NonFiniteError: the input of the model (Sequential) has 1 NaN of 2 values, the first at (0, 1)
    """
    return FiniteCheck(model)


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
