"""Statistics that are observed over batches: their phases, their average, and what travels with them."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from torch._dynamo.testing import CompileCounter
from torch.utils._python_dispatch import TorchDispatchMode

from brevq.core.function_wrapper import PerChannel
from brevq.core.phase import Phase
from brevq.core.restrict_val import LogFloatRestrictValue, PowerOfTwoRestrictValue
from brevq.core.scaling import RuntimeStatsScaling
from brevq.core.stats import (
    AbsHistogram,
    AbsMax,
    AbsPercentile,
    MovingAverage,
    RunningInterval,
    RunningMax,
    RunningPercentile,
    RuntimeStats,
    TwoSided,
)
from brevq.errors import ArgumentError, ArgumentTypeError, UncalibratedError

# torch.compile itself makes an instance of an autograd.Function, and torch warns of those.
pytestmark = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")

BATCHES = [np.random.default_rng(seed).normal(size=(2, 8)).astype(np.float32) * (1 + seed) for seed in range(10)]
LARGEST = [float(max(abs(v) for v in batch.reshape(-1))) for batch in BATCHES]


def _average(values, momentum):
    """The first value, then ``average + momentum * (value - average)``."""
    average = values[0]
    for value in values[1:]:
        average += momentum * (value - average)
    return average


def _stats(**arguments):
    return RuntimeStats(AbsMax(), **arguments)


def _observed(steps, **arguments):
    stats = _stats(**arguments)
    for batch in BATCHES[:steps]:
        stats(torch.tensor(batch))
    return stats


def test_phases_in_training():
    """A statistic is empty, observes for its steps, returning each batch's own, and then is learned."""
    stats = _stats(collect_stats_steps=3, momentum=0.5)
    story = [stats.phase]
    values = []
    for batch in BATCHES[:5]:
        values.append(stats(torch.tensor(batch)).item())
        story.append(stats.phase)
    # Two averagings of float32 numbers, three roundings each.
    learned = pytest.approx(_average(LARGEST[:3], 0.5), rel=6 * 2**-24)
    assert [Phase.EMPTY, Phase.OBSERVE, Phase.OBSERVE, Phase.LEARNED, Phase.LEARNED, Phase.LEARNED] == story
    assert [*LARGEST[:3], learned, learned] == values


@pytest.mark.parametrize("momentum", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_evaluation_uses_the_average(steps, momentum):
    """In evaluation the average is used, whatever the batch is, and it is not moved."""
    stats = _observed(steps, momentum=momentum).eval()
    # Three float32 roundings for each averaging.
    expected = pytest.approx([_average(LARGEST[:steps], momentum)] * 2, rel=3 * steps * 2**-24)
    actual = [stats(torch.tensor([1e6])).item(), stats(torch.tensor([0.0])).item()]
    assert (expected, Phase.OBSERVE) == (actual, stats.phase)


@pytest.mark.parametrize("momentum", [0.1, 0.5])
def test_average_in_float32(momentum):
    """The average is ``(1 - momentum) * average + momentum * value``, bit for bit, as Brevitas has it."""
    keep, take = np.float32(1 - momentum), np.float32(momentum)
    average = np.float32(LARGEST[0])
    for value in LARGEST[1:]:
        average = keep * average + take * np.float32(value)
    assert float(average) == _observed(10, momentum=momentum).average.item()


def test_gradient_while_observing_reaches_the_batch():
    """While it observes, a statistic is that of the batch, gradient included; the parameter receives none."""
    stats = _stats()
    x = torch.tensor([1.0, -3.0, 2.0], requires_grad=True)
    stats(x).backward()
    assert ([0.0, -1.0, 0.0], 0.0) == (x.grad.tolist(), float(0 if stats.value.grad is None else stats.value.grad))


def test_gradient_when_learned_reaches_the_parameter():
    """Once learned, all of the gradient goes to the parameter and none to the batch."""
    stats = _observed(2, collect_stats_steps=2)
    x = torch.tensor([1.0, -3.0], requires_grad=True)
    stats(x).backward()
    assert (1.0, None) == (stats.value.grad.item(), x.grad)


def test_training_moves_what_is_learned():
    """A step of an optimizer is what evaluation uses afterwards."""
    stats = _observed(2, collect_stats_steps=2, momentum=0.0)
    with torch.no_grad():
        stats.value += 1
    expected = LARGEST[0] + 1
    assert pytest.approx(expected, rel=2**-24) == stats.eval()(torch.tensor([9.0])).item()  # one float32 rounding


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_bad_batch_is_returned_and_not_averaged(bad):
    """A NaN or an infinity shows in its own batch, and neither in the average nor in the count."""
    stats = _observed(2, momentum=0.5)
    before = (stats.average.item(), stats.steps.item())
    shown = stats(torch.tensor([1.0, bad])).item()
    assert (before, str(abs(bad))) == ((stats.average.item(), stats.steps.item()), str(shown))


def test_a_bad_first_batch_is_forgotten():
    """After a first batch of NaN the average begins with the next one."""
    stats = _stats(momentum=0.5)
    for value in (math.nan, 3.0, 5.0):
        stats(torch.tensor([value]))
    assert (4.0, 2) == (stats.average.item(), stats.steps.item())


def test_a_bad_channel_does_not_spoil_the_others():
    """Where one channel is NaN the others are averaged."""
    stats = RuntimeStats(AbsMax(PerChannel((2, 1), 0)), momentum=0.5)
    stats(torch.tensor([[2.0], [2.0]]))
    stats(torch.tensor([[math.nan], [4.0]]))
    assert [[2.0], [3.0]] == stats.average.tolist()


def test_an_empty_batch_is_no_data():
    """A batch without values changes neither phase, count nor average."""
    stats = _stats()
    empty = [stats(torch.zeros(0, 3)).shape, stats.phase, stats.steps.item()]
    stats(torch.tensor([2.0]))
    stats(torch.zeros(0, 3))
    assert [torch.Size([]), Phase.EMPTY, 0, 1, 2.0] == [*empty, stats.steps.item(), stats.average.item()]


def test_no_data_is_refused_in_evaluation():
    """Evaluation before any data is an error."""
    with pytest.raises(UncalibratedError) as error:
        _stats().eval()(torch.ones(2))
    assert "it has seen no data" == str(error.value)


@pytest.mark.parametrize("steps", [300, 4, 1])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("phase", [Phase.FIXED, Phase.LEARNED])
def test_calibration_observes_in_any_mode(training, phase, steps):
    """While calibrating every batch is observed, beyond the steps too, and then the average is held or learned."""
    stats = _stats(collect_stats_steps=steps, momentum=0.5).train(training)
    stats.calibrating = True
    shown = [stats(torch.tensor(batch)).item() for batch in BATCHES[:4]]
    stats.calibrating = False
    stats.settle(phase)
    after = stats(torch.tensor([1e6]))
    # Three float32 roundings for each averaging.
    expected = pytest.approx(_average(LARGEST[:4], 0.5), rel=12 * 2**-24)
    assert (LARGEST[:4], phase, expected, phase == Phase.LEARNED) == (
        shown,
        stats.phase,
        after.item(),
        after.requires_grad,
    )


def test_calibration_forgets_what_was_learned_with_its_first_batch():
    """What was there before calibration goes when the first batch comes, not sooner."""
    stats = _observed(1, collect_stats_steps=1)
    stats.calibrating = True
    before = stats.phase
    stats(torch.tensor([7.0]))
    assert (Phase.LEARNED, Phase.OBSERVE, 7.0, 1) == (before, stats.phase, stats.average.item(), stats.steps.item())


def test_settling_without_data_changes_nothing():
    """A statistic that saw no data, or only NaN, is empty after it was settled."""
    unseen, spoiled = _stats(), _stats()
    spoiled(torch.tensor([math.nan]))
    for stats in (unseen, spoiled):
        stats.settle(Phase.FIXED)
    assert (Phase.EMPTY, Phase.EMPTY) == (unseen.phase, spoiled.phase)


def test_reset_forgets():
    """After a reset a statistic is as new."""
    stats = _observed(3, momentum=0.5)
    stats.reset()
    stats(torch.tensor([2.0]))
    assert (2.0, 1) == (stats.average.item(), stats.steps.item())


def _fixed():
    stats = _observed(2)
    stats.settle(Phase.FIXED)
    return stats


IN_PHASE = {
    Phase.EMPTY: lambda: _observed(0),
    Phase.OBSERVE: lambda: _observed(2),
    Phase.LEARNED: lambda: _observed(3, collect_stats_steps=2),
    Phase.FIXED: _fixed,
}


def _loaded(stats):
    fresh = _stats(collect_stats_steps=stats.collect_stats_steps)
    fresh.load_state_dict(stats.state_dict())
    return fresh


WAYS = {
    "state_dict": _loaded,
    "pickle": lambda stats: pickle.loads(pickle.dumps(stats)),
    "deepcopy": copy.deepcopy,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("phase", IN_PHASE)
def test_each_phase_travels(phase, way):
    """A copy is in the same phase, and goes on with the same numbers, in training and in evaluation."""
    stats = IN_PHASE[phase]()
    copied = WAYS[way](stats)
    stories = []
    for each in (stats, copied):
        story = [each.phase]
        for batch in BATCHES[4:6]:
            story += [each.train()(torch.tensor(batch)).item(), each.eval()(torch.tensor(batch)).item(), each.phase]
        stories.append(story)
    assert (phase, stories[0]) == (stories[1][0], stories[1])


@pytest.mark.parametrize("phase", IN_PHASE)
def test_keys_are_fixed_at_construction(phase):
    """A checkpoint has the same keys in every phase."""
    assert {"value", "average", "steps", "phase_code"} == set(IN_PHASE[phase]().state_dict())


class Operations(TorchDispatchMode):
    """The names of the operations that run, and of how many values the largest tensor is that each takes."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        """Note the operation and run it."""
        size = max([x.numel() for x in args if isinstance(x, torch.Tensor)], default=0)
        self.seen.append((function.overloadpacket.__name__, size))
        return function(*args, **(kwargs or {}))


STATISTICS = {
    "AbsMax": (AbsMax, None),
    "AbsPercentile": (AbsPercentile, None),
    "RunningPercentile": (AbsHistogram, RunningPercentile),
    "RunningInterval": (lambda: TwoSided(AbsPercentile()), lambda: RunningInterval(RunningMax())),
}


@pytest.mark.parametrize("case", STATISTICS)
def test_observing_does_not_wait_for_the_device(case):
    """A batch that is observed is looked at by the statistic alone, and no number of it is read by the host."""
    create, running = STATISTICS[case]
    stats = RuntimeStats(create(), running_impl=running and running())
    x = torch.randn(200, 100, generator=torch.Generator().manual_seed(0))
    stats(x)
    with Operations() as observing:
        stats(x)
    with Operations() as alone:
        create()(x)
    large = [[name for name, size in each.seen if size == x.numel()] for each in (observing, alone)]
    assert ([], large[1]) == ([name for name, _ in observing.seen if name == "_local_scalar_dense"], large[0])


@pytest.mark.parametrize("bad", [(), (0,), (2, 3), (4,), (3, 4, 5, 6)])
@pytest.mark.parametrize("steps", [1, 3, 5])
def test_learning_begins_with_the_last_batch_that_counts(steps, bad):
    """After as many finite batches as were asked for, and not one more, a statistic is learned."""
    stats, story = _stats(collect_stats_steps=steps), []
    for number in range(10):
        stats(torch.tensor([math.nan if number in bad else 1.0 + number]))
        story.append(stats._open)
    last = [number for number in range(10) if number not in bad][steps - 1]
    assert [number < last for number in range(10)] == story


@pytest.mark.parametrize("way", ["calibrated", "compiled", "loaded", "trained"])
def test_learning_begins_in_time_whatever_was_before(way):
    """Of five batches three may come in calibration, in compiled code, from a checkpoint, or between evaluations."""
    torch.compiler.reset()
    stats = _stats(collect_stats_steps=5, momentum=0.5)
    stats.calibrating = way == "calibrated"
    run = torch.compile(stats, backend="eager", fullgraph=True) if way == "compiled" else stats
    for batch in BATCHES[:3]:
        run(torch.tensor(batch))
        if way == "trained":
            stats.eval().train()
    stats.calibrating = False
    if way == "loaded":
        before, stats = stats, _stats(collect_stats_steps=5, momentum=0.5)
        stats.load_state_dict(before.state_dict())
    story = []
    for batch in BATCHES[3:6]:
        stats(torch.tensor(batch))
        story.append(stats._open)
    expected = pytest.approx(_average(LARGEST[:5], 0.5), rel=15 * 2**-24)  # three float32 roundings for each averaging
    assert ([True, False, False], expected) == (story, stats.value.item())


RESTRICTIONS = {"float": None, "log": LogFloatRestrictValue, "power of two": PowerOfTwoRestrictValue}


def _trained(restriction, compile_it):
    """Ten steps of a learned range over BATCHES, five of which observe; what each step gave, and the module."""
    torch.compiler.reset()
    restrict = RESTRICTIONS[restriction]
    scaling = RuntimeStatsScaling(AbsMax(), restrict and restrict(), collect_stats_steps=5)
    counter = CompileCounter()
    run = torch.compile(scaling, backend=counter, fullgraph=True) if compile_it else scaling
    optimizer = torch.optim.SGD(scaling.parameters(), lr=0.01)
    steps, frames = [], []
    for batch in BATCHES:
        x = torch.tensor(batch, requires_grad=True)
        optimizer.zero_grad()
        result = run(x)
        (result**2).backward()
        optimizer.step()
        frames.append(counter.frame_count)
        grads = [0.0 if g is None else g.abs().sum().item() for g in (x.grad, scaling.runtime_stats.value.grad)]
        steps.append((result.item(), *grads, scaling.runtime_stats.value.item()))
    return steps, frames, scaling


@pytest.mark.parametrize("restriction", RESTRICTIONS)
def test_compiled_training_gives_the_same_numbers(restriction):
    """Ranges, gradients and what is learned are equal, eager and compiled, before and after learning begins."""
    assert _trained(restriction, compile_it=False)[0] == _trained(restriction, compile_it=True)[0]


def test_compiled_training_does_not_recompile():
    """Neither the step out of the empty phase compiles anew, nor the one from observing to learning."""
    frames = _trained("float", compile_it=True)[1]
    assert [1] * 10 == frames


@pytest.mark.parametrize("restriction", RESTRICTIONS)
def test_what_compiled_training_learned_is_what_evaluation_uses(restriction):
    """After compiled training, evaluation uses the learned range, as after eager training."""
    x = torch.tensor(BATCHES[0])
    expected = _trained(restriction, compile_it=False)[2].eval()(x).item()
    assert expected == _trained(restriction, compile_it=True)[2].eval()(x).item()


def test_what_compiled_training_learned_survives_a_checkpoint():
    """A checkpoint of compiled training, loaded, goes on as one of eager training does."""
    x = torch.tensor(BATCHES[0])
    results = []
    for compile_it in (False, True):
        trained = _trained("float", compile_it)[2]
        fresh = RuntimeStatsScaling(AbsMax(), collect_stats_steps=5)
        fresh.load_state_dict(trained.state_dict())
        results.append((str(fresh.phase), fresh.eval()(x).item(), fresh.train()(x).item()))
    assert results[0] == results[1]


def test_compiled_training_leaves_the_same_state():
    """After compiled training average, count, phase and value are saved as after eager training."""
    states = [_trained("log", compile_it)[2].state_dict() for compile_it in (False, True)]
    eager, compiled = ({name: tensor.tolist() for name, tensor in state.items()} for state in states)
    assert eager == compiled


def test_a_bad_batch_at_the_switch_is_learned_through():
    """A NaN batch just after the last observed one uses the learned range, compiled as in eager training."""
    results = []
    for compile_it in (False, True):
        torch.compiler.reset()
        stats = _stats(collect_stats_steps=2, momentum=0.5)
        run = torch.compile(stats, backend="eager", fullgraph=True) if compile_it else stats
        results.append([run(torch.tensor([value])).item() for value in (2.0, 4.0, math.nan, 9.0)])
    assert ([2.0, 4.0, 3.0, 3.0], [2.0, 4.0, 3.0, 3.0]) == tuple(results)


def test_half_precision_is_averaged_in_float32():
    """The average of a half-precision statistic is held in float32."""
    stats = _stats(momentum=0.5)
    for value in (1.0, 1.0009765625):
        stats(torch.tensor([value], dtype=torch.float16))
    assert (1.00048828125, torch.float32) == (stats.average.item(), stats.average.dtype)


REFUSALS = [
    (
        lambda: _stats(collect_stats_steps=0),
        ArgumentError,
        "`collect_stats_steps` (=0) must be at least 1: a range comes from at least one batch",
    ),
    (
        lambda: _stats(collect_stats_steps=-1),
        ArgumentError,
        "`collect_stats_steps` (=-1) must be a whole number of steps, 0 or more",
    ),
    (
        lambda: _stats(collect_stats_steps=2.0),
        ArgumentTypeError,
        "`collect_stats_steps` (=2.0) must be a whole number of steps, 0 or more, not float",
    ),
    (lambda: _stats(momentum=-0.1), ArgumentError, "`scaling_stats_momentum` (=-0.1) must be a number from 0 to 1"),
    (
        lambda: _stats(momentum=None),
        ArgumentTypeError,
        "`scaling_stats_momentum` (=None) must be a number from 0 to 1, not NoneType",
    ),
]


COMPONENTS = [
    (
        lambda: RuntimeStats(torch.nn.ReLU()),
        "`stats_impl` (=ReLU()) has no `granularity_impl`, which a statistic has: hand in one, such as `AbsMax`",
    ),
    (
        lambda: RuntimeStats(AbsMax),
        "`stats_impl` (=<class 'brevq.core.stats.ops.AbsMax'>) must be a component, which can be called: make an "
        "instance",
    ),
    (
        lambda: RuntimeStats(AbsMax(), running_impl=AbsMax()),
        "`running_impl` (=AbsMax()) is called with (average, statistic, steps), and takes (x): hand in a component "
        "that takes (average, statistic, steps), or hand this one to a component that calls it with (x)",
    ),
    (
        lambda: RuntimeStats(AbsMax(), encode="log"),
        "`encode` (='log') must be a component, which can be called: make an instance",
    ),
    (
        lambda: TwoSided(torch.nn.ReLU()),
        "`side_stats_impl` (=ReLU()) has no `granularity_impl`, which a statistic has: hand in one, such as `AbsMax`",
    ),
    (
        lambda: RunningInterval(AbsMax()),
        "`side_running_impl` (=AbsMax()) is called with (average, statistic, steps), and takes (x): hand in a "
        "component that takes (average, statistic, steps), or hand this one to a component that calls it with (x)",
    ),
]


@pytest.mark.parametrize(("create", "message"), COMPONENTS)
def test_what_is_no_such_component_is_refused(create, message):
    """A part that can not be called as it will be is refused when it is handed in."""
    with pytest.raises(ArgumentTypeError) as error:
        create()
    assert message == str(error.value)


@pytest.mark.parametrize(("create", "kind", "message"), REFUSALS)
def test_bad_arguments_are_refused(create, kind, message):
    """Steps and momentum out of range are refused with the rule."""
    with pytest.raises(kind) as error:
        create()
    assert message == str(error.value)


def test_phases_print_as_words():
    """A phase prints as the word that messages use."""
    assert ["empty", "observe", "learned", "fixed"] == [str(phase) for phase in Phase]


@pytest.mark.parametrize(
    ("stats", "running", "given", "known"),
    [
        (AbsHistogram(), None, "(2049,)", "()"),
        (TwoSided(AbsMax()), RunningMax(), "(2,)", "()"),
        (AbsMax(), RunningPercentile(), "()", "(2049,)"),
        (AbsHistogram(histogram_bins=8), RunningPercentile(histogram_bins=16), "(9,)", "(17,)"),
    ],
)
def test_what_gathers_fits_the_statistic(stats, running, given, known):
    """A statistic of another shape than what gathers it knows is refused when both are put together."""
    with pytest.raises(ArgumentError) as error:
        RuntimeStats(stats, running_impl=running)
    assert str(error.value) == (
        f"`running_impl` (={type(running or MovingAverage()).__name__}()) gathers statistics of shape {known}, and "
        f"those of `scaling_stats_impl` (={type(stats).__name__}()) have shape {given}: `RunningPercentile` gathers "
        "`AbsHistogram`, with as many bins, `RunningInterval` gathers `TwoSided`, and `MovingAverage`, the default, "
        "what has one value for each scale"
    )


def test_buffers_that_are_copied():
    """Where the buffers of another statistic are written into these, learning begins when that one's would."""
    ahead, behind = (RuntimeStats(AbsMax(), collect_stats_steps=5) for _ in range(2))
    for _ in range(4):
        ahead(torch.randn(8))
    behind(torch.randn(8))
    with torch.no_grad():
        for ours, theirs in zip(behind.state_dict().values(), ahead.state_dict().values(), strict=True):
            ours.copy_(theirs)
    for _ in range(5):
        behind(torch.randn(8))
    assert Phase.LEARNED == behind.phase
