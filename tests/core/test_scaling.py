"""Ranges and the integer thresholds that they are divided by."""

import math
from typing import ClassVar

import numpy as np
import pytest
import torch

from brevq.core.bit_width import BitWidthConst
from brevq.core.function_wrapper import PerChannel, RoundSte
from brevq.core.phase import Phase
from brevq.core.restrict_val import LogFloatRestrictValue, PowerOfTwoRestrictValue
from brevq.core.scaling import (
    ConstScaling,
    IntScaling,
    LearnedFactorScaling,
    LearnedStatsScaling,
    LsqGradientScale,
    LsqIntScaledAve,
    ParameterScaling,
    PowerOfTwoIntScaling,
    RuntimeStatsScaling,
    StatsScaling,
    StepScaling,
    TruncMsbScaling,
    TruncRangeScaling,
)
from brevq.core.stats import AbsMax
from brevq.errors import ArgumentError, ArgumentTypeError, UncalibratedError
from brevq.testing import Case, ComponentContract

# torch.compile itself makes an instance of an autograd.Function, and torch warns of those.
pytestmark = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")

SHAPE = (3, 4)
X = np.random.default_rng(2).normal(size=SHAPE).astype(np.float32)


def _channels(axis=0):
    return PerChannel(SHAPE, axis)


def _largest(x):
    return float(max(abs(v) for v in x.reshape(-1)))


def _largest_of(x, axis):
    lines = np.moveaxis(x, axis, 0)
    return np.expand_dims(np.array([_largest(line) for line in lines], x.dtype), 1 - axis)


def _lsq(channels=None):
    bit_width_impl = BitWidthConst(4)
    return LsqIntScaledAve(IntScaling(True, True), bit_width_impl, True, True, channels)


# Constructor; the range of X that it must return at its first call in training.
CASES = {
    "const": (lambda: ConstScaling(0.3), lambda x: np.float32(0.3)),
    "const, power of two": (lambda: ConstScaling(0.3, PowerOfTwoRestrictValue()), lambda x: np.float32(0.5)),
    "parameter": (lambda: ParameterScaling(0.3), lambda x: np.float32(0.3)),
    "parameter, power of two": (lambda: ParameterScaling(0.3, PowerOfTwoRestrictValue()), lambda x: np.float32(0.5)),
    "parameter, channels": (
        lambda: ParameterScaling(0.3, granularity_impl=_channels()),
        lambda x: np.full((3, 1), 0.3, np.float32),
    ),
    "parameter, each": (
        lambda: ParameterScaling(torch.tensor([1.0, 2.0, 3.0]), granularity_impl=_channels()),
        lambda x: np.array([[1.0], [2.0], [3.0]]),
    ),
    "stats": (lambda: StatsScaling(AbsMax()), _largest),
    "stats, rows": (lambda: StatsScaling(AbsMax(_channels(0))), lambda x: _largest_of(x, 0)),
    "stats, columns": (lambda: StatsScaling(AbsMax(_channels(1))), lambda x: _largest_of(x, 1)),
    "stats, power of two": (
        lambda: StatsScaling(AbsMax(), PowerOfTwoRestrictValue()),
        lambda x: 2.0 ** math.ceil(math.log2(_largest(x))),
    ),
    "runtime": (lambda: RuntimeStatsScaling(AbsMax()), _largest),
    "runtime, rows": (lambda: RuntimeStatsScaling(AbsMax(_channels(0))), lambda x: _largest_of(x, 0)),
    "runtime, power of two": (
        lambda: RuntimeStatsScaling(AbsMax(), PowerOfTwoRestrictValue()),
        lambda x: 2.0 ** math.ceil(math.log2(_largest(x))),
    ),
    "learned": (lambda: LearnedStatsScaling(AbsMax()), _largest),
    "learned, rows": (lambda: LearnedStatsScaling(AbsMax(_channels(0))), lambda x: _largest_of(x, 0)),
    "learned, power of two": (
        lambda: LearnedStatsScaling(AbsMax(), PowerOfTwoRestrictValue(RoundSte())),
        lambda x: 2.0 ** round(math.log2(_largest(x))),
    ),
    "factor": (lambda: LearnedFactorScaling(StatsScaling(AbsMax()), 0.75), lambda x: np.float32(_largest(x)) * 3 / 4),
    "factor, rows": (
        lambda: LearnedFactorScaling(RuntimeStatsScaling(AbsMax(_channels(0)))),
        lambda x: _largest_of(x, 0),
    ),
    "factor, power of two": (
        lambda: LearnedFactorScaling(StatsScaling(AbsMax()), 0.6, PowerOfTwoRestrictValue()),
        lambda x: 2.0 ** math.ceil(math.log2(0.6 * _largest(x))),
    ),
}


class TestRanges(ComponentContract):
    """What any range must do: it is the documented one, exactly."""

    cases: ClassVar = {
        name: Case(create, lambda x, reference=reference: reference(x.numpy()), inputs=(torch.tensor(X),))
        for name, (create, reference) in CASES.items()
    }


@pytest.mark.parametrize("case", [case for case in CASES if case.startswith("stats")])
def test_values_in_double(case):
    """A range that is recomputed from a float64 tensor is a float64."""
    create, reference = CASES[case]
    actual = create()(torch.tensor(X.astype(np.float64)))
    assert (np.asarray(reference(X.astype(np.float64))).tolist(), torch.float64) == (actual.tolist(), actual.dtype)


def test_gradient_of_a_statistic():
    """The range of a tensor has the sign of its largest value as gradient there, and none elsewhere."""
    x = torch.tensor([[0.5, -3.0], [1.0, 2.0]], requires_grad=True)
    StatsScaling(AbsMax())(x).backward()
    assert [[0.0, -1.0], [0.0, 0.0]] == x.grad.tolist()


# Constructor and the gradient of the range, 4, to what is learned: 1, or d(2 ** v)/dv.
LEARNED = {
    "parameter": (lambda: ParameterScaling(4.0), 1.0),
    "parameter, log": (lambda: ParameterScaling(4.0, LogFloatRestrictValue()), 4 * math.log(2)),
    "parameter, power of two": (lambda: ParameterScaling(4.0, PowerOfTwoRestrictValue()), 4 * math.log(2)),
    "learned": (lambda: LearnedStatsScaling(AbsMax()), 1.0),
    "learned, log": (lambda: LearnedStatsScaling(AbsMax(), LogFloatRestrictValue()), 4 * math.log(2)),
    "factor": (lambda: LearnedFactorScaling(ConstScaling(0.5), 8.0), 0.5),
    "factor, log": (lambda: LearnedFactorScaling(ConstScaling(0.5), 8.0, LogFloatRestrictValue()), 0.5),
    "runtime": (lambda: RuntimeStatsScaling(AbsMax(), collect_stats_steps=1), 1.0),
    "runtime, log": (
        lambda: RuntimeStatsScaling(AbsMax(), LogFloatRestrictValue(), collect_stats_steps=1),
        4 * math.log(2),
    ),
}


@pytest.mark.parametrize("case", LEARNED)
def test_gradient_of_what_is_learned(case):
    """A learned range receives the gradient of its restriction, and the tensor receives none."""
    create, expected = LEARNED[case]
    module = create()
    module(torch.tensor([1.0, -4.0]))  # the first tensor is the start of those that start from one
    x = torch.tensor([100.0], requires_grad=True)
    module(x).backward()
    # One product of float32 numbers.
    assert (pytest.approx(expected, rel=2**-22), None) == (next(module.parameters()).grad.item(), x.grad)


def test_a_learned_range_starts_from_its_first_tensor():
    """A learned range is empty, then that of the first tensor for good, until it is reset."""
    scaling = LearnedStatsScaling(AbsMax())
    story = [scaling.phase]
    for value in (3.0, 9.0):
        story += [scaling(torch.tensor([value])).item(), scaling.phase]
    scaling.reset()
    story += [scaling.phase, scaling(torch.tensor([5.0])).item()]
    assert [Phase.EMPTY, 3.0, Phase.LEARNED, 3.0, Phase.LEARNED, Phase.EMPTY, 5.0] == story


def test_a_learned_range_keeps_its_phase_in_a_checkpoint():
    """An empty range is empty after loading, so it still starts from its first tensor; a learned one does not."""
    empty, learned = LearnedStatsScaling(AbsMax()), LearnedStatsScaling(AbsMax())
    learned(torch.tensor([3.0]))
    loaded = LearnedStatsScaling(AbsMax())
    loaded.load_state_dict(learned.state_dict())
    learned.load_state_dict(empty.state_dict())
    x = torch.tensor([7.0])
    assert (3.0, 7.0, "learned") == (loaded(x).item(), learned(x).item(), str(loaded.phase))


@pytest.mark.parametrize("kind", [LearnedStatsScaling, RuntimeStatsScaling])
def test_the_phase_is_printed(kind):
    """Printing a range that has phases shows the one that it is in."""
    assert "phase=empty" in repr(kind(AbsMax()))


def test_a_range_without_data_is_refused_in_evaluation():
    """A runtime range that saw no data has nothing to return in evaluation."""
    with pytest.raises(UncalibratedError) as error:
        RuntimeStatsScaling(AbsMax()).eval()(torch.ones(2))
    assert "it has seen no data" == str(error.value)


# Constructor of an integer threshold, and its value for a number of bits, in integers.
THRESHOLDS = {
    "signed": (lambda: IntScaling(True, False), lambda bits: 2 ** (bits - 1)),
    "signed narrow": (lambda: IntScaling(True, True), lambda bits: 2 ** (bits - 1) - 1),
    "unsigned": (lambda: IntScaling(False, False), lambda bits: 2**bits - 1),
    "unsigned narrow": (lambda: IntScaling(False, True), lambda bits: 2**bits - 2),
    "power of two signed": (lambda: PowerOfTwoIntScaling(True), lambda bits: 2 ** (bits - 1)),
    "power of two unsigned": (lambda: PowerOfTwoIntScaling(False), lambda bits: 2**bits),
    "steps": (StepScaling, lambda bits: 2**bits - 1),
    "steps narrow": (lambda: StepScaling(narrow_range=True), lambda bits: 2**bits - 2),
    "steps power of two": (lambda: StepScaling(power_of_two_steps=True), lambda bits: 2**bits),
}


@pytest.mark.parametrize("case", THRESHOLDS)
def test_thresholds(case):
    """The integer threshold is exact for all bit widths that float32 holds."""
    create, reference = THRESHOLDS[case]
    expected = [float(reference(bits)) for bits in range(2, 25)]
    assert expected == [create()(torch.tensor(float(bits))).item() for bits in range(2, 25)]


@pytest.mark.parametrize("case", THRESHOLDS)
def test_gradient_of_thresholds(case):
    """A learned bit width receives the derivative of the power of two."""
    create, _ = THRESHOLDS[case]
    bits = torch.tensor(5.0, dtype=torch.float64, requires_grad=True)
    create()(bits).backward()
    expected = math.log(2) * (16 if case.startswith(("signed", "power of two signed")) else 32)
    # A product of two rounded float64.
    assert pytest.approx(expected, rel=1e-15) == bits.grad.item()


@pytest.mark.parametrize("case", THRESHOLDS)
def test_thresholds_travel(case, travel, outcome):
    """A copy, by whatever way, gives equal values and gradients."""
    module = THRESHOLDS[case][0]()
    assert outcome(module, torch.tensor(5.0)) == outcome(travel(THRESHOLDS[case][0], module), torch.tensor(5.0))


@pytest.mark.parametrize(("wide", "slim"), [(8, 4), (8, 8), (32, 8), (4, 8)])
def test_truncation_keeps_the_most_significant_bits(wide, slim):
    """Dropping n bits divides codes by 2 ** n."""
    bits = (torch.tensor(float(wide)), torch.tensor(float(slim)))
    assert 2.0 ** (wide - slim) == TruncMsbScaling()(torch.zeros(1), *bits, torch.tensor(True)).item()


# The range of codes, bits of input and output, the sign, and the factor by which codes shrink.
TRUNCATIONS = [
    (512.0, 16, 8, True, 4.0),
    (512.0, 16, 8, False, 2.0),
    (100.0, 16, 8, True, 1.0),  # all codes fit
    (2.0**20, 16, 8, True, 256.0),  # no more than the most significant bits
    (64.0, 4, 8, True, 0.5),
    (4.0, 4, 8, True, 0.0625),
    (2.0**20, 4, 8, True, 1.0),
]


@pytest.mark.parametrize(("end", "wide", "slim", "signed", "factor"), TRUNCATIONS)
def test_truncation_keeps_a_range(end, wide, slim, signed, factor):
    """The range falls on the end of the new grid, between keeping all the last bits and all the first ones."""
    bits = (torch.tensor(float(wide)), torch.tensor(float(slim)))
    scaling = TruncRangeScaling(ConstScaling(end))
    assert factor == scaling(torch.zeros(1), *bits, torch.tensor(signed)).item()


@pytest.mark.parametrize(("end", "slope"), [(512.0, 1 / 128), (100.0, 0.0), (2.0**20, 0.0)])
def test_gradient_of_a_kept_range(end, slope):
    """A learned range is moved where the shift follows it, and not where a limit does."""
    learned = ParameterScaling(end)
    bits = (torch.tensor(16.0), torch.tensor(8.0))
    TruncRangeScaling(learned)(torch.zeros(1), *bits, torch.tensor(True)).backward()
    assert slope == learned.value.grad.item()


def test_a_kept_range_travels(travel, outcome):
    """A copy, by whatever way, gives equal values and gradients."""
    create = lambda: TruncRangeScaling(RuntimeStatsScaling(AbsMax()))  # noqa: E731
    module, x = create(), torch.tensor(1000 * X)
    arguments = (torch.tensor(16.0), torch.tensor(8.0), torch.tensor(True))
    module(x, *arguments)
    assert outcome(module, x, *arguments) == outcome(travel(create, module), x, *arguments)


@pytest.mark.parametrize("channels", [False, True])
def test_start_of_lsq(channels):
    """The step that LSQ starts from is twice the mean magnitude over the root of the largest code."""
    actual = _lsq(_channels() if channels else None)(torch.tensor(X)) / 7
    rows = list(X) if channels else [X.reshape(-1)]
    expected = [2 * (sum(abs(float(v)) for v in row) / len(row)) / math.sqrt(7) for row in rows]
    # A float32 sum of 12 values and four further roundings.
    assert (pytest.approx(expected, rel=16 * 2**-24), 2 if channels else 0) == (actual.flatten().tolist(), actual.dim())


# Granularity, signed, whether the first dimension is a batch, and n * q of the paper for a tensor of 3 by 4.
BALANCES = [
    (None, True, False, 12 * 7),
    (0, True, False, 4 * 7),
    (None, False, False, 12 * 15),
    (None, True, True, 4 * 7),
]


@pytest.mark.parametrize(("axis", "signed", "batched", "product"), BALANCES)
def test_gradient_scale_of_lsq(axis, signed, batched, product):
    """LSQ leaves the value and multiplies its gradient by 1 / sqrt(n * q)."""
    shape = () if axis is None else _channels(axis).scale_shape
    value = torch.full(shape, 2.5, requires_grad=True)
    result = LsqGradientScale(BitWidthConst(4), signed, False, batched)(value, torch.zeros(SHAPE))
    result.sum().backward()
    # A product, a root and a quotient of float32 numbers.
    expected = pytest.approx([1 / math.sqrt(product)] * value.numel(), rel=2**-22)
    assert (value.tolist(), expected) == (result.tolist(), value.grad.flatten().tolist())


REFUSALS = [
    (lambda: ConstScaling(0.0), ArgumentError, "`scaling_init` (=0.0) must be a finite number above 0"),
    (
        lambda: LearnedFactorScaling(ConstScaling(1.0), 0.0),
        ArgumentError,
        "`factor_init` (=0.0) must be a finite number above 0",
    ),
    (lambda: ConstScaling(-1), ArgumentError, "`scaling_init` (=-1) must be a finite number above 0"),
    (
        lambda: ConstScaling("1"),
        ArgumentTypeError,
        "`scaling_init` (='1') must be a finite number above 0, not str",
    ),
    (lambda: ParameterScaling(math.nan), ArgumentError, "`scaling_init` (=nan) must be a finite number above 0"),
    (
        lambda: ParameterScaling(torch.tensor([1.0, 0.0])),
        ArgumentError,
        "`scaling_init` (=tensor([1., 0.])) must be finite and above 0 everywhere",
    ),
    (
        lambda: ParameterScaling(torch.ones(2), granularity_impl=_channels()),
        ArgumentError,
        "`scaling_init` has shape (2,) and the scale has shape (3, 1): give one number, or one for each scale",
    ),
    (
        lambda: RuntimeStatsScaling(AbsMax(), collect_stats_steps=0),
        ArgumentError,
        "`collect_stats_steps` (=0) must be at least 1: a range comes from at least one batch",
    ),
    (
        lambda: RuntimeStatsScaling(AbsMax(), scaling_stats_momentum=1.5),
        ArgumentError,
        "`scaling_stats_momentum` (=1.5) must be a number from 0 to 1",
    ),
]


@pytest.mark.parametrize(("create", "kind", "message"), REFUSALS)
def test_bad_arguments_are_refused(create, kind, message):
    """A range that is not positive, or of another shape than the scale, is refused with the rule."""
    with pytest.raises(kind) as error:
        create()
    assert message == str(error.value)


def test_a_start_that_came_with_the_buffers_is_kept():
    """Ranges that another process has sent, buffers and parameters alone, do not start again from the tensor."""
    sender, receiver = (LearnedStatsScaling(AbsMax()) for _ in range(2))
    sender(torch.tensor([-3.0, 1.0]))
    with torch.no_grad():
        for theirs, ours in zip(sender.state_dict().values(), receiver.state_dict().values(), strict=True):
            ours.copy_(theirs)
    assert 3.0 == receiver(torch.tensor([100.0])).item()


@pytest.mark.parametrize(("value", "expected"), [(1e37, 2e37 * 7 / 7**0.5), (3e38, 3.4028235e38)])
def test_lsq_starts_from_huge_values(value, expected):
    """The range is right where float32 has it, else the largest number."""
    stats = LsqIntScaledAve(IntScaling(True, True), BitWidthConst(4), signed=True, narrow_range=True)
    assert stats(torch.full((64,), value)).item() == pytest.approx(expected, rel=2e-6)
