"""The life of a scale or zero-point that comes from data."""

from __future__ import annotations

import enum

import torch


class Phase(enum.IntEnum):
    """What a statistic is doing: waiting for data, observing it, held fixed, or learned.

    Examples:
        >>> Phase.OBSERVE
        Phase.OBSERVE
        >>> str(Phase.FIXED)
        'fixed'
    """

    EMPTY = 0  #: no data was seen
    OBSERVE = 1  #: statistics of each batch are used and averaged
    LEARNED = 2  #: the average became a parameter, which training moves
    FIXED = 3  #: the average is held as it is

    def __str__(self) -> str:
        return self.name.lower()

    def __repr__(self) -> str:
        return f"Phase.{self.name}"


def checkpointed() -> bool:
    """Whether `torch.utils.checkpoint`, not reentrant, runs this call, to repeat it and compare what it keeps.

    Hooks on saved tensors that are set inside of it hide it.

    Examples:
        >>> checkpointed()
        False
    """
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(False)  # noqa: SLF001  # no public name
    return hooks is not None and getattr(hooks[0], "__module__", "") == "torch.utils.checkpoint"


def recomputing() -> bool:
    """Whether this call repeats an earlier one in the backward pass, as activation checkpointing does.

    What a repeated call sees was seen already: it counts as no step, and is no data. In compiled code, where
    repetition is not a call, it is never so.

    Examples:
        >>> recomputing()
        False
    """
    # The number of the running backward pass, by which torch's own checkpointing knows that it is in one.
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1  # noqa: SLF001  # as above
