"""Scales that are computed once, while the range that they follow from stays the same number."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.modules.module import _has_any_global_hook as _on_all_modules


class ScaleMemo:
    """The scale that follows from the latest range.

    It is known by the range itself, a number, and so is never that of another one, whoever changed it and how. Copies,
    and what is unpickled, begin with nothing.

    Examples:
        >>> memo, stored = ScaleMemo(), torch.tensor(0.5)
        >>> memo.keep(stored, torch.tensor(0.004))
        tensor(0.0040)
        >>> memo.find(stored), memo.find(stored.fill_(0.6))
        (tensor(0.0040), None)
    """

    def __init__(self) -> None:
        # Replaced as a whole, so that several threads may look.
        self._kept: tuple[float, torch.dtype, Tensor, float] | None = None

    def find(self, stored: Tensor) -> Tensor | None:
        """The scale of the range `stored`, if that is the latest one, and nobody has written to the scale.

        Args:
            stored: shape `()`, on a CPU.
        """
        if self._kept is None:
            return None
        number, dtype, scale, unwritten = self._kept
        return scale if stored.item() == number and stored.dtype == dtype and scale.item() == unwritten else None

    def keep(self, stored: Tensor, scale: Tensor) -> Tensor:
        """Know `scale` as that of the range `stored`, and return it; what inference mode makes is of no other use.

        Args:
            stored: shape `()`, on a CPU.
            scale: shape `()`, without a gradient.
        """
        if not scale.is_inference():
            self._kept = stored.item(), stored.dtype, scale, scale.item()
        return scale

    def __reduce__(self) -> tuple[type[ScaleMemo], tuple[()]]:
        return ScaleMemo, ()


def is_pure(part: Any) -> bool:
    """Whether what a part returns follows from what it is called with: it holds nothing, and nor do its own parts.

    Args:
        part: a component.

    Examples:
        >>> from brevq.core.function_wrapper import StochasticRoundSte
        >>> from brevq.core.restrict_val import PowerOfTwoRestrictValue
        >>> is_pure(PowerOfTwoRestrictValue()), is_pure(PowerOfTwoRestrictValue(StochasticRoundSte()))
        (True, False)
    """
    modules = part.modules() if isinstance(part, Module) else [part]
    return all(vars(type(module)).get("stateless") is True for module in modules)


def is_watched(*modules: Any) -> bool:
    """Whether somebody has put a hook on one of some modules, or on all there are, which is to see each call.

    Args:
        *modules: modules.

    Examples:
        >>> is_watched(Module())
        False
    """
    for module in modules:
        forward = module._forward_hooks or module._forward_pre_hooks  # noqa: SLF001  # torch's
        if forward or module._backward_hooks or module._backward_pre_hooks:  # noqa: SLF001  # torch's
            return True
    return bool(_on_all_modules())  # type: ignore[no-untyped-call]  # torch's
