"""What frozen quantizers remember of the quantizers that they stand for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from brevq.core.function_wrapper import LearnedRoundSte, PerTensor
from brevq.quantizer import Quantizer

_KEY = "origin."


class Remembering(nn.Module):
    """The base of frozen quantizers: it holds the quantizer that it stands for, out of sight of the model's modules.

    `unfreeze` puts that back. It is in the state, below ``origin.``, goes to other devices and into copies; `modules`
    and `parameters` do not list it, so nothing trains or calibrates it.
    """

    _origin: list[Quantizer]

    @property
    def origin(self) -> Quantizer:
        """The quantizer that this stands for."""
        return self._origin[0]

    def train(self, mode: bool = True) -> Any:
        """Nothing: what is frozen stays in evaluation."""
        return super().train(False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        self.origin._apply(fn)  # noqa: SLF001  # as torch does for modules that it knows of
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch's
        return self

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        origin = self.origin.state_dict(keep_vars=keep_vars)
        destination.update({f"{prefix}{_KEY}{name}": tensor for name, tensor in origin.items()})

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        """What the state says of the origin goes there."""
        of_origin = [key for key in state_dict if key.startswith(prefix + _KEY)]
        theirs = {key.removeprefix(prefix + _KEY): state_dict.pop(key) for key in of_origin}
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        try:
            if theirs:
                self.origin.load_state_dict(theirs)
        except RuntimeError as error:  # torch's word for a state that does not fit
            errors: list[str] = args[-1]
            errors.append(f"{prefix}{_KEY.rstrip('.')}: {error}")


def shed(quantizer: Quantizer) -> list[tuple[LearnedRoundSte, nn.Parameter]]:
    """Drop what a quantizer has learned for each value of a weight: as large as that, and contained in its codes.

    Args:
        quantizer: a quantizer of a weight.

    Returns:
        What was dropped, each with the part that had it.
    """
    dropped = [(rounding, rounding.value) for rounding in _roundings(quantizer)]
    for rounding, _ in dropped:
        rounding.value = nn.Parameter(torch.empty(0, device=quantizer.device))
    return dropped


def has_shed(quantizer: Quantizer, state: Mapping[str, Any], prefix: str) -> bool:
    """Whether a state is of a quantizer that dropped what it had learned for each value.

    Args:
        quantizer: a quantizer of a weight, as that of the state was before.
        state: the state.
        prefix: what the keys of its origin begin with.
    """
    values = [f"{prefix}{name}.value" for name, part in quantizer.named_modules() if isinstance(part, LearnedRoundSte)]
    return any(key in state and state[key].numel() == 0 for key in values)


def regrow(quantizer: Quantizer, shape: torch.Size) -> None:
    """Give a quantizer what `shed` took, to be learned again from a tensor of `shape`.

    Args:
        quantizer: a quantizer of a weight.
        shape: shape of the weight, as it is quantized.
    """
    for rounding in _roundings(quantizer):
        if rounding.value.numel() == 0:
            laid_out = (quantizer.granularity or PerTensor()).split(torch.empty(shape, device="meta"))
            rounding.value = nn.Parameter(torch.zeros(laid_out.shape, device=quantizer.device))
            rounding.reset()


def _roundings(quantizer: Quantizer) -> list[LearnedRoundSte]:
    return [part for part in quantizer.modules() if isinstance(part, LearnedRoundSte)]
