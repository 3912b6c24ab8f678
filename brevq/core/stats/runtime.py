"""A statistic of what flows through a network: observed over some batches, then held fixed or learned."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module, Parameter

from brevq.core.checks import between, count
from brevq.core.interfaces import Statistic
from brevq.core.phase import Phase
from brevq.errors import ArgumentError, UncalibratedError


class RuntimeStats(Module):
    """A statistic that is observed over batches, then becomes a parameter.

    Its phase says what it does:

    - *empty*: no data was seen. Evaluation is refused; the first batch in training, or in calibration, begins to
      observe.
    - *observe*: each batch's own statistic is returned and averaged, beginning with the first:
      ``average = (1 - momentum) * average + momentum * statistic``. Evaluation uses the average.
    - *learned*: after `collect_stats_steps` batches in training the average became the parameter `value`, and
      training moves it.
    - *fixed*: after calibration, the average is held as it is.

    While `calibrating` is True, every batch is observed, in training and in evaluation; what was learned or fixed
    before is forgotten when the first batch comes, not sooner.

    A statistic that is infinite or NaN is returned and not averaged, so one bad batch does not spoil the range.

    Args:
        stats_impl: the statistic of one batch; what it returns has the shape of the scale.
        encode: takes the statistic to where it is learned, such as its logarithm. Default: the identity.
        collect_stats_steps: number of batches in training before learning begins. Default: 300.
        momentum: weight of a new batch in the average, from 0 to 1. Default: 0.1.

    Raises:
        ArgumentError: the number of steps is below 1, or the momentum out of range.

    Examples:
        >>> from brevq.core.stats import AbsMax
        >>> stats = RuntimeStats(AbsMax(), momentum=0.5)
        >>> stats(torch.tensor([1.0, -2.0])), stats(torch.tensor([4.0]))
        (tensor(2., grad_fn=<WhereBackward0>), tensor(4., grad_fn=<WhereBackward0>))
        >>> stats.phase, stats.eval()(torch.tensor([100.0])).item()
        (Phase.OBSERVE, 3.0)
    """

    average: Tensor
    steps: Tensor
    phase_code: Tensor

    def __init__(
        self,
        stats_impl: Statistic,
        encode: Callable[[Tensor], Tensor] | None = None,
        collect_stats_steps: int = 300,
        momentum: float = 0.1,
    ) -> None:
        super().__init__()
        self.stats_impl = stats_impl
        self.encode = encode or _identity
        self.collect_stats_steps = count("collect_stats_steps", collect_stats_steps)
        if self.collect_stats_steps == 0:
            raise ArgumentError("`collect_stats_steps` (=0) must be at least 1: a range comes from at least one batch")
        self.momentum = between("scaling_stats_momentum", momentum, 0, 1)
        self.calibrating = False
        self._phase = Phase.EMPTY
        shape = stats_impl.granularity_impl.scale_shape
        self.value = Parameter(torch.zeros(shape))
        self.register_buffer("average", torch.zeros(shape))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("phase_code", torch.zeros((), dtype=torch.int64))

    @property
    def phase(self) -> Phase:
        """What this statistic is doing now."""
        # Compiled code moves the buffer, and leaves the attribute behind.
        return self._phase if self.phase_code.is_meta else Phase(int(self.phase_code))

    def forward(self, x: Tensor) -> Tensor:
        """The statistic to use for `x`, as it is learned, in the shape of the scale.

        Raises:
            UncalibratedError: in evaluation, no data having been seen.
        """
        if self.calibrating or (self.training and self._phase <= Phase.OBSERVE):
            return self._observe(x)
        if self._phase == Phase.EMPTY:
            raise UncalibratedError("it has seen no data")
        if self._phase == Phase.LEARNED:
            return self.value
        if self._phase == Phase.FIXED:
            return self.value.detach()
        return torch.where(self.steps >= self.collect_stats_steps, self.value, self.encode(self.average))

    def settle(self, phase: Phase) -> None:
        """Stop observing: the average becomes the value, *fixed* or *learned*. Without data nothing changes.

        Args:
            phase: `Phase.FIXED` or `Phase.LEARNED`.
        """
        if self._phase == Phase.EMPTY:
            return
        if int(self.steps) == 0:  # all that came was infinite or NaN
            self.reset()
            return
        if self.phase == Phase.OBSERVE:
            with torch.no_grad():
                self.value.copy_(self.encode(self.average))
        self._set_phase(phase)

    def reset(self) -> None:
        """Forget all data: back to *empty*."""
        self.steps.zero_()
        self.average.zero_()
        self._set_phase(Phase.EMPTY)

    def snapshot(self) -> dict[str, Tensor]:
        """A copy of the state, for `restore`."""
        return {name: tensor.detach().clone() for name, tensor in self.state_dict().items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """The state as it was when `snapshot` returned it."""
        self.load_state_dict(state)

    def extra_repr(self) -> str:
        """The phase, for printing."""
        return f"phase={self._phase}"

    def _set_phase(self, phase: Phase) -> None:
        self._phase = phase
        self.phase_code.fill_(int(phase))

    def _observe(self, x: Tensor) -> Tensor:
        """The statistic of `x`, which is averaged; in compiled code, which can not branch, the value after the last."""
        if x.numel() == 0:
            return self.value
        if self._phase != Phase.OBSERVE:
            self.reset()
            self._set_phase(Phase.OBSERVE)
        statistic = self.stats_impl(x)
        encoded = self.encode(statistic)
        if self.calibrating:
            self._average(statistic.detach(), torch.isfinite(statistic))
            return encoded
        full = self.steps >= self.collect_stats_steps
        result = torch.where(full, self.value, encoded)
        self._average(statistic.detach(), torch.isfinite(statistic) & ~full)
        self._finish(full)
        return result

    @torch.no_grad()
    def _average(self, statistic: Tensor, counts: Tensor) -> None:
        """Move the average to `statistic` where it counts."""
        moved = (1 - self.momentum) * self.average + self.momentum * statistic
        moved = torch.where(self.steps == 0, statistic, moved)
        self.average.copy_(torch.where(counts, moved, self.average))
        self.steps.add_(counts.all())

    @torch.no_grad()
    def _finish(self, was_full: Tensor) -> None:
        """After the last batch, the average becomes the value, and learning begins."""
        is_full = self.steps >= self.collect_stats_steps
        self.value.copy_(torch.where(is_full & ~was_full, self.encode(self.average), self.value))
        self.phase_code.add_(is_full & ~was_full)
        if not torch.compiler.is_compiling():
            self._phase = self.phase

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        if not self.phase_code.is_meta:
            self._phase = Phase(int(self.phase_code))


def _identity(x: Tensor) -> Tensor:
    return x
