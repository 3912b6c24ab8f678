"""The measuring itself: seconds of a call, bytes kept for the backward pass, and calls of several subjects in turn."""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

#: Calls are repeated until they take this long, so that neither the clock nor a cold start counts.
SHORTEST_SECONDS = 0.02


@dataclass
class Work:
    """Something to measure: a call, and what of its memory is there whether it is called or not.

    Args:
        run: the call.
        alive: tensors that exist anyway, such as the input and the parameters.
        input_bytes: the size of the input, which saved bytes are related to.
    """

    run: Callable[[], Any]
    alive: Sequence[Tensor] = field(default_factory=list)
    input_bytes: int = 1

    def seconds(self, calls: int) -> float:
        """The time of one call, from several in a row, after one more if they are short."""
        if calls > 1:
            self.run()
        start = time.perf_counter()
        for _ in range(calls):
            self.run()
        return (time.perf_counter() - start) / calls

    def saved(self) -> tuple[int, int, int]:
        """Bytes of the distinct storages that one call saves for its backward pass.

        Returns:
            those that would not exist otherwise; all of them, such as the input; bytes of the input.
        """
        kept: list[Tensor] = []

        def keep(x: Tensor) -> Tensor:
            kept.append(x)
            return x

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            self.run()
        sizes = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in kept}
        everywhere = sum(sizes.values())
        for x in self.alive:
            sizes.pop(x.untyped_storage().data_ptr(), None)
        return sum(sizes.values()), everywhere, self.input_bytes

    def modules(self) -> int:
        """The number of modules of the module that the call makes, itself included."""
        made: nn.Module = self.run()
        return len(list(made.modules()))


class Subject(Protocol):
    """What `Work` measures, here or in another process."""

    def seconds(self, calls: int) -> float: ...
    def saved(self) -> tuple[int, int, int]: ...
    def modules(self) -> int: ...


def in_turn(subjects: Sequence[Subject], repetitions: int) -> list[list[float]]:
    """Seconds of one call of each subject, in each repetition, the subjects taking turns back and forth."""
    calls = []
    for subject in subjects:
        subject.seconds(1)  # what is made at the first call
        calls.append(min(1000, math.ceil(SHORTEST_SECONDS / max(subject.seconds(1), 1e-6))))
    times: list[list[float]] = [[] for _ in subjects]
    places = list(range(len(subjects)))
    gc.collect()
    gc.disable()
    try:
        for _ in range(repetitions):
            for place in places:
                times[place].append(subjects[place].seconds(calls[place]))
            places.reverse()
    finally:
        gc.enable()
    return times


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """The median of the ratios of each repetition, and their 10 % and 90 % quantiles."""
    each = sorted(a / b for a, b in zip(ours, theirs, strict=True))
    tenth = len(each) // 10
    return statistics.median(each), each[tenth], each[-1 - tenth]


def slope(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """The exponent of growth: the least-squares slope of the logarithm of time over the logarithm of size."""
    fit = statistics.linear_regression([math.log(size) for size in sizes], [math.log(time) for time in seconds])
    return fit.slope
