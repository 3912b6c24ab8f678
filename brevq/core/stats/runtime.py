"""A statistic of what flows through a network: observed over some batches, then held fixed or learned."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module, Parameter

from brevq.core.checks import called, count, statistic
from brevq.core.interfaces import Statistic
from brevq.core.memo import is_watched
from brevq.core.phase import Phase, checkpointed, recomputing
from brevq.core.stats.ranks import Ranks
from brevq.core.stats.running import MovingAverage, Running
from brevq.errors import ArgumentError, UncalibratedError
from brevq.function.recording import has_values, recorded

_OTHER_SHAPE = (
    "`running_impl` (={running}()) gathers statistics of shape {known}, and those of `scaling_stats_impl` (={stats}()) "
    "have shape {given}: `RunningPercentile` gathers `AbsHistogram`, with as many bins, `RunningInterval` gathers "
    "`TwoSided`, and `MovingAverage`, the default, what has one value for each scale"
)
#: How many observing calls can be repeated after learning began: those of the step that ends observing.
_REPEATABLE = 32


class RuntimeStats(Module):
    """A statistic that is observed over batches, then becomes a parameter.

    Its phase says what it does:

    - *empty*: no data was seen. Evaluation is refused; the first batch in training, or in calibration, begins to
      observe.
    - *observe*: each batch's own statistic is returned and averaged, beginning with the first:
      ``average = (1 - momentum) * average + momentum * statistic``, unless `running_impl` says otherwise. Evaluation
      uses the average.
    - *learned*: after `collect_stats_steps` batches in training the average became the parameter `value`, and
      training moves it.
    - *fixed*: after calibration, the average is held as it is.

    While `calibrating` is True, every batch is observed, in training and in evaluation.

    Where training is spread over processes (`torch.distributed` has a default group of more than one), each observes
    the batches of all, and the ranges are those of one process that sees the union; `ranks` says which processes.
    In calibration each observes its own, unless `calibration_ranks` says otherwise.

    A call that activation checkpointing repeats, in the backward pass, observes nothing and returns what it returned.

    A statistic that is infinite or NaN is returned and not averaged, so one bad batch does not spoil the range.

    Args:
        stats_impl: the statistic of one batch; what it returns has the shape of the scale.
        encode: takes the statistic to where it is learned, such as its logarithm. Default: the identity.
        collect_stats_steps: number of batches in training before learning begins. Default: 300.
        momentum: weight of a new batch in the average, from 0 to 1. Default: 0.1.
        running_impl: how batches become one, such as `RunningMax`. Default: `MovingAverage(momentum)`.

    Raises:
        ArgumentTypeError: a component takes other arguments, or is none.
        ArgumentError: the number of steps is below 1, the momentum out of range, or `running_impl` does not gather what
            `stats_impl` returns.

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
    collect_stats_steps: int
    calibrating: bool
    ranks: Ranks
    calibration_ranks: Ranks
    encode: Callable[[Tensor], Tensor]
    #: Most gather the statistic itself; some gather more, and read it from that.
    read: Callable[[Tensor], Tensor]
    #: The sums of the latest batches that were observed: these may be repeated once learning began.
    _repeatable: deque[Tensor]
    _repeated: bool
    #: Learning does not begin before as many more batches, so until then no one has to wait for the device; 0 where
    #: that is not known.
    _at_least: int
    _phase: Phase
    #: What compiled training asks of the phase: *empty* and *observe* share a graph.
    _open: bool

    def __init__(
        self,
        stats_impl: Statistic,
        encode: Callable[[Tensor], Tensor] | None = None,
        collect_stats_steps: int = 300,
        momentum: float = 0.1,
        running_impl: Running | None = None,
    ) -> None:
        super().__init__()
        self.stats_impl = statistic("stats_impl", stats_impl)
        if count("collect_stats_steps", collect_stats_steps) == 0:
            raise ArgumentError("`collect_stats_steps` (=0) must be at least 1: a range comes from at least one batch")
        running = called("running_impl", running_impl, "average", "statistic", "steps")
        self.running_impl = running or MovingAverage(momentum)
        # Plain values, past what is done for tensors and modules that are set.
        vars(self).update(
            encode=called("encode", encode, "statistic") or _identity,
            collect_stats_steps=collect_stats_steps,
            read=getattr(self.running_impl, "read", _identity),
            calibrating=False,
            ranks=Ranks(),
            calibration_ranks=Ranks(alone=True),
            _repeatable=deque(maxlen=_REPEATABLE),
            _repeated=False,
            _at_least=collect_stats_steps,
            _phase=Phase.EMPTY,
            _open=True,
        )
        shape = stats_impl.granularity_impl.scale_shape
        self.value = Parameter(torch.zeros(shape))
        self.register_buffer("average", torch.zeros(_gathered(stats_impl, self.running_impl, shape)))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("phase_code", torch.zeros((), dtype=torch.int64))

    @property
    def phase(self) -> Phase:
        """What this statistic is doing now."""
        if not has_values(self.phase_code):
            return self._phase
        # Compiled code moves the buffers, and leaves the attribute behind.
        phase = Phase(int(self.phase_code))
        return Phase.EMPTY if phase == Phase.OBSERVE and int(self.steps) == 0 else phase

    @property
    def observing(self) -> bool:
        """Whether the next batch will be observed."""
        return self.calibrating or (self._open and self.training)

    def forward(self, x: Tensor, rectified: bool = False) -> Tensor:
        """The statistic to use for `x`, as it is learned, in the shape of the scale.

        Args:
            x: a tensor of any shape.
            rectified: whether ReLU of it is meant, where `rectifies` allows that. Default: no.

        Raises:
            UncalibratedError: in evaluation, no data having been seen.
        """
        if not torch.compiler.is_compiling() and self._phase == Phase.EMPTY:
            self._catch_up()
        if recomputing():
            return self._repeat(x)
        self._forget_repeated()
        if self.observing:
            return self._observe(x, rectified)
        return self._in_force()

    def in_force(self) -> Tensor | None:
        """The value, where it is one number on a CPU that no batch changes, and that needs no gradient; else None."""
        value: Any = self._parameters.get("value")  # from the registry, as this is asked at each call
        settled = self._phase >= Phase.LEARNED and not self.calibrating and type(value) is Parameter
        if not settled or value.dim() > 0 or not value.is_cpu or recorded() or recomputing():
            return None
        stored: Tensor | None = None if value.requires_grad and torch.is_grad_enabled() else value
        return stored

    def rectifies(self, x: Tensor) -> bool:
        """Whether it can do without ReLU of `x`: no batch counts, or the statistic says by itself what ReLU's is.

        A call that may be repeated is known again by the sum of ReLU of its batch, so that ReLU is computed.

        Args:
            x: a tensor.
        """
        if self.calibrating or recorded():
            return False
        if self._phase >= Phase.LEARNED:
            return not (recomputing() and self._was_observed(torch.relu(x.detach())))
        may_be_repeated = recomputing() or checkpointed() or self._at_least <= _REPEATABLE
        sees_all = not self.ranks.shared and not is_watched(self.stats_impl)
        observing = self._phase == Phase.OBSERVE and self.training
        # Not inherited: a subclass may compute another statistic.
        return observing and sees_all and not may_be_repeated and "of_relu" in vars(type(self.stats_impl))

    def _in_force(self) -> Tensor:
        """What does not depend on the batch.

        Raises:
            UncalibratedError: no data was seen.
        """
        if self._phase == Phase.EMPTY:
            raise UncalibratedError("it has seen no data")
        if self._phase == Phase.LEARNED:
            return self.value
        if self._phase == Phase.FIXED:
            return self.value.detach()
        return torch.where(self.steps >= self.collect_stats_steps, self.value, self.encode(self.read(self.average)))

    def settle(self, phase: Phase) -> None:
        """Stop observing: the average becomes the value, *fixed* or *learned*. Without data nothing changes.

        Args:
            phase: `Phase.FIXED` or `Phase.LEARNED`.
        """
        before = self.phase
        if before == Phase.EMPTY:
            return
        self._set_phase(phase)
        if before == Phase.OBSERVE:
            with torch.no_grad():
                self.value.copy_(self.encode(self.read(self.average)))

    def train(self, mode: bool = True) -> RuntimeStats:
        """As for every module; what compiled code left behind is brought up to date."""
        super().train(mode)
        self._catch_up()
        return self

    def reset(self) -> None:
        """Forget all data: back to *empty*."""
        self.steps.zero_()
        self.average.zero_()
        self._at_least = self.collect_stats_steps
        self._set_phase(Phase.EMPTY)

    def extra_repr(self) -> str:
        """The phase, for printing."""
        return f"phase={self.phase}"

    def _set_phase(self, phase: Phase) -> None:
        if Phase.FIXED in (phase, self._phase):  # a parameter that nothing uses stops distributed training
            self.value.requires_grad_(phase != Phase.FIXED)
            self.value.grad = None
        self._phase, self._open = phase, phase <= Phase.OBSERVE
        self.phase_code.fill_(int(phase))

    def _catch_up(self) -> None:
        """Read phase and steps off their buffers, which compiled code, or another process, may have written."""
        if torch.compiler.is_compiling() or not has_values(self.phase_code):
            return
        if self._phase != self.phase:
            self._set_phase(self.phase)
        self._at_least = self.collect_stats_steps - int(self.steps)

    def _observe(self, x: Tensor, rectified: bool) -> Tensor:
        """The statistic of `x`, which is averaged; in compiled code, which can not branch, the value after the last."""
        ranks = self._observed_ranks()
        sizes = ranks.sizes(x)
        if sum(sizes) == 0:
            return self.value
        self._begin()
        self._remember(x)
        compute = self.stats_impl.of_relu if rectified else self.stats_impl  # type: ignore[attr-defined]  # `rectifies` looked
        statistic = ranks.statistic(compute, x, sizes)
        encoded = self.encode(self.read(statistic))
        observed = statistic.detach()
        counts = torch.isfinite(observed)
        if self.calibrating:
            self._average(observed, counts)
            self._at_least = 0
            return encoded
        full = self.steps >= self.collect_stats_steps
        result = torch.where(full, self.value, encoded)
        self._average(observed, counts & ~full)
        self._finish(full)
        return result

    def _begin(self) -> None:
        """Enter *observe*; in compiled code in the buffer alone, as the attribute would ask for another graph."""
        if not self._open:
            self.reset()
        if torch.compiler.is_compiling():
            self.phase_code.clamp_(min=int(Phase.OBSERVE))
        elif self._phase == Phase.EMPTY:
            self._set_phase(Phase.OBSERVE)

    def _observed_ranks(self) -> Ranks:
        """The processes whose batches are observed now."""
        return self.calibration_ranks if self.calibrating else self.ranks

    def _remember(self, x: Tensor) -> None:
        """Know the batch of an observing call again, in case that it is repeated after learning began."""
        if not torch.compiler.is_compiling() and not self.calibrating and self._at_least <= _REPEATABLE:
            self._repeatable.append(_sum(x))

    def _forget_repeated(self) -> None:
        """Once a call is new again, those before it that could be repeated were."""
        if self._repeated:
            self._repeatable.clear()
            self._repeated = False

    def _repeat(self, x: Tensor) -> Tensor:
        """What an earlier call returned for `x`: the statistic, if it observed, else what is in force."""
        self._repeated = True
        if not self.observing and not self._was_observed(x):
            return self._in_force()
        ranks = self._observed_ranks()
        sizes = ranks.sizes(x)
        if sum(sizes) == 0:
            return self.value
        encoded = self.encode(self.read(ranks.statistic(self.stats_impl, x, sizes)))
        return encoded if self.calibrating else torch.where(self.steps < 0, self.value, encoded)

    def _was_observed(self, x: Tensor) -> bool:
        """Whether `x` is the batch of one of the latest observing calls."""
        if not (self.training and self._repeatable):
            return False
        *seen, this = self.ranks.totals(torch.stack([*self._repeatable, _sum(x)]))
        return this in seen

    @torch.no_grad()
    def _average(self, statistic: Tensor, counts: Tensor) -> None:
        """Move the average to `statistic` where it counts."""
        moved = self.running_impl(self.average, statistic, self.steps)
        self.average.copy_(torch.where(counts, moved, self.average))
        self.steps.add_(counts.all())

    @torch.no_grad()
    def _finish(self, was_full: Tensor) -> None:
        """The value follows the average, until after the last batch learning begins."""
        self.value.copy_(torch.where(was_full, self.value, self.encode(self.read(self.average))))
        self.phase_code.copy_((self.steps >= self.collect_stats_steps) + int(Phase.OBSERVE))
        if torch.compiler.is_compiling() or not has_values(self.steps):
            self._at_least = 0
        else:
            self._count_down()

    def _count_down(self) -> None:
        """Enter *learned* if that was the last batch to observe; where it can not have been, without a look."""
        self._at_least -= 1
        if self._at_least > 0 and not self.ranks.shared:  # other processes may have written to the buffers
            return
        self._at_least = self.collect_stats_steps - int(self.steps)
        if int(self.phase_code) == Phase.LEARNED:
            self._phase, self._open = Phase.LEARNED, False

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._at_least = 0
        if has_values(self.phase_code):
            self._set_phase(Phase(int(self.phase_code)))


def _gathered(stats_impl: Statistic, running_impl: Running, scale_shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of what a statistic of a batch, and what gathers it, both have for scales of a shape.

    Raises:
        ArgumentError: they have different shapes.
    """

    def shape(part: Statistic | Running) -> tuple[int, ...]:
        of: Callable[[tuple[int, ...]], tuple[int, ...]] = getattr(part, "state_shape", tuple)
        return of(scale_shape)

    if shape(stats_impl) != shape(running_impl):
        stats, running = type(stats_impl).__name__, type(running_impl).__name__
        raise ArgumentError(
            _OTHER_SHAPE.format(stats=stats, given=shape(stats_impl), running=running, known=shape(running_impl))
        )
    return shape(running_impl)


def _sum(x: Tensor) -> Tensor:
    """The sum of a batch, shape `()`, by which it is known again."""
    return x.detach().sum(dtype=torch.float32)


def _identity(x: Tensor) -> Tensor:
    return x
