"""Zero-points: the code that stands for zero."""

import numpy as np
import pytest
import torch

from brevq.core.function_wrapper import PerChannel
from brevq.core.quant import IntQuant
from brevq.core.stats import NegativeMinOrZero
from brevq.core.zero_point import ParameterZeroPoint, RuntimeStatsZeroPoint, StatsZeroPoint, ZeroZeroPoint
from brevq.errors import ArgumentError, UncalibratedError

# torch.compile itself makes an instance of an autograd.Function, and torch warns of those.
pytestmark = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")

SHAPE = (3, 4)
X = np.random.default_rng(3).normal(size=SHAPE).astype(np.float32)
SCALE, BITS = 0.0625, 4.0


def _grid():
    return IntQuant(narrow_range=False, signed=False)


def _channels():
    return PerChannel(SHAPE, 0)


def _codes(row, scale):
    """``clamp(round(-min(row, 0) / scale), 0, 15)``, rounding halves to even."""
    return float(min(max(round(max(0.0, -float(min(row))) / scale), 0), 15))


# Constructor, scale, and the zero-point of X.
CASES = {
    "zero": (ZeroZeroPoint, SCALE, lambda x: 0.0),
    "stats": (lambda: StatsZeroPoint(_grid(), NegativeMinOrZero()), 0.25, lambda x: _codes(x.reshape(-1), 0.25)),
    "stats, clamped": (lambda: StatsZeroPoint(_grid(), NegativeMinOrZero()), SCALE, lambda x: 15.0),
    "stats, rows": (
        lambda: StatsZeroPoint(_grid(), NegativeMinOrZero(_channels())),
        0.25,
        lambda x: [[_codes(row, 0.25)] for row in x],
    ),
    "runtime": (
        lambda: RuntimeStatsZeroPoint(_grid(), NegativeMinOrZero()),
        0.25,
        lambda x: _codes(x.reshape(-1), 0.25),
    ),
    "parameter": (lambda: ParameterZeroPoint(_grid(), 3.0), SCALE, lambda x: 3.0),
    "parameter, rounded": (lambda: ParameterZeroPoint(_grid(), 2.5), SCALE, lambda x: 2.0),
    "parameter, clamped": (lambda: ParameterZeroPoint(_grid(), 99.0), SCALE, lambda x: 15.0),
    "parameter, rows": (
        lambda: ParameterZeroPoint(_grid(), 3.0, _channels()),
        [[SCALE]] * 3,
        lambda x: [[3.0]] * 3,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_values(case):
    """A zero-point is a whole code within the range, exactly the documented one."""
    create, scale, reference = CASES[case]
    actual = create()(torch.tensor(X), torch.tensor(scale), torch.tensor(BITS))
    assert (reference(X), torch.float32) == (actual.tolist(), actual.dtype)


@pytest.mark.parametrize("case", CASES)
def test_travels(case, travel, outcome):
    """A copy, by whatever way, gives equal values and gradients."""
    create, scale, _ = CASES[case]
    module = create()
    arguments = (torch.tensor(X), torch.tensor(scale), torch.tensor(BITS))
    module(*arguments)
    copied = travel(create, module)
    assert outcome(module, *arguments) == outcome(copied, *arguments)


def test_zero_of_the_tensor_is_a_code():
    """Zero itself lies on the grid that a zero-point makes: it is quantized without an error."""
    x, scale, bits = torch.tensor(X), torch.tensor(0.3), torch.tensor(8.0)
    grid = _grid()
    zero_point = StatsZeroPoint(grid, NegativeMinOrZero())(x, scale, bits)
    assert 0.0 == grid(scale, zero_point, bits, torch.tensor(0.0)).item()


def test_gradients_of_a_statistic():
    """Rounding apart, ``-min / scale`` has gradient -1 / scale to the minimum and min / scale ** 2 to the scale."""
    x = torch.tensor([-1.0, 3.0, 0.5], requires_grad=True)
    scale = torch.tensor(0.25, requires_grad=True)
    StatsZeroPoint(_grid(), NegativeMinOrZero())(x, scale, torch.tensor(BITS)).backward()
    assert ([-4.0, 0.0, 0.0], -16.0) == (x.grad.tolist(), scale.grad.item())


@pytest.mark.parametrize(("start", "slope"), [(3.0, 1.0), (2.4, 1.0), (99.0, 0.0), (-5.0, 0.0)])
def test_gradient_of_a_learned_code(start, slope):
    """A learned zero-point moves straight through rounding, and receives nothing beyond the range."""
    module = ParameterZeroPoint(_grid(), start)
    module(torch.zeros(1), torch.tensor(0.1), torch.tensor(BITS)).backward()
    assert slope == module.value.grad.item()


def test_runtime_statistic_is_averaged_in_floats():
    """What is averaged is the statistic; it becomes a code only with the scale of the moment."""
    module = RuntimeStatsZeroPoint(_grid(), NegativeMinOrZero(), scaling_stats_momentum=0.5)
    bits = torch.tensor(BITS)
    for lowest in (-1.0, -2.0):
        module(torch.tensor([lowest]), torch.tensor(1.0), bits)
    module.eval()
    actual = [module(torch.tensor([5.0]), torch.tensor(scale), bits).item() for scale in (0.5, 0.25)]
    assert [3.0, 6.0] == actual


def test_no_data_is_refused_in_evaluation():
    """A runtime zero-point that saw no data has nothing to return in evaluation."""
    module = RuntimeStatsZeroPoint(_grid(), NegativeMinOrZero()).eval()
    with pytest.raises(UncalibratedError) as error:
        module(torch.ones(1), torch.tensor(1.0), torch.tensor(BITS))
    assert "it has seen no data" == str(error.value)


def test_steps_are_checked():
    """Fewer than one step to observe is refused."""
    with pytest.raises(ArgumentError) as error:
        RuntimeStatsZeroPoint(_grid(), NegativeMinOrZero(), collect_stats_steps=0)
    expected = "`collect_stats_steps` (=0) must be at least 1: a range comes from at least one batch"
    assert expected == str(error.value)
