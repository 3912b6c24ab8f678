"""Losses that watch a model run: hooks that are there until the loss is closed."""

from __future__ import annotations

from types import TracebackType
from typing import TypeVar

from torch.utils.hooks import RemovableHandle

Self = TypeVar("Self", bound="Watching")


class Watching:
    """What a loss has that follows a model by hooks: a context manager, which removes them in the end.

    Args:
        handles: the hooks.

    Examples:
        >>> import torch
        >>> model = torch.nn.Identity()
        >>> with Watching([model.register_forward_pre_hook(lambda module, arguments: None)]):
        ...     len(model._forward_pre_hooks)
        1
        >>> len(model._forward_pre_hooks)
        0
    """

    def __init__(self, handles: list[RemovableHandle]) -> None:
        self._handles = handles

    def close(self) -> None:
        """Remove all hooks. What was seen of the model's last run stays."""
        while self._handles:
            self._handles.pop().remove()

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
