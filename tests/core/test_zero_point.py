"""Zero-points: the code that stands for zero."""

from typing import ClassVar

import numpy as np
import pytest
import torch

from brevq.core.function_wrapper import PerChannel
from brevq.core.phase import Phase
from brevq.core.quant import IntQuant
from brevq.core.stats import (
    AbsHistogram,
    AbsMax,
    AbsMinMax,
    NegativeMinOrZero,
    RunningInterval,
    RunningMax,
    RunningPercentile,
    TrueAverage,
    TwoSided,
)
from brevq.core.zero_point import (
    LearnedStatsZeroPoint,
    MeanZeroPoint,
    ParameterZeroPoint,
    RuntimeStatsZeroPoint,
    StatsZeroPoint,
    ZeroZeroPoint,
)
from brevq.errors import ArgumentError, UncalibratedError
from brevq.graph import calibrating
from brevq.nn import QuantIdentity, QuantLinear
from brevq.testing import Case, ComponentContract
from injectors import ShiftedUint8ActPerTensor, ShiftedUint8WeightPerTensorHQO

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
    "learned": (
        lambda: LearnedStatsZeroPoint(_grid(), NegativeMinOrZero()),
        0.25,
        lambda x: _codes(x.reshape(-1), 0.25),
    ),
    "learned, rows": (
        lambda: LearnedStatsZeroPoint(_grid(), NegativeMinOrZero(_channels())),
        0.25,
        lambda x: [[_codes(row, 0.25)] for row in x],
    ),
    "runtime, all batches": (
        lambda: RuntimeStatsZeroPoint(_grid(), TwoSided(AbsMax()), running_impl=RunningInterval(RunningMax())),
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


class TestZeroPoints(ComponentContract):
    """What any zero-point must do: it is a whole code within the range, exactly the documented one."""

    cases: ClassVar = {
        name: Case(
            create,
            lambda x, scale, bits, reference=reference: reference(x.numpy()),
            inputs=(torch.tensor(X), torch.tensor(scale), torch.tensor(BITS)),
        )
        for name, (create, scale, reference) in CASES.items()
    }


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


def test_learned_statistic_is_taken_once():
    """The first tensor is looked at, in evaluation too; after that its statistic is what is learned."""
    module, bits = LearnedStatsZeroPoint(_grid(), NegativeMinOrZero()).eval(), torch.tensor(BITS)
    scale = torch.tensor(0.25, requires_grad=True)
    codes = [module(torch.tensor([lowest, 3.0]), scale, bits).item() for lowest in (-1.0, -2.0)]
    module(torch.tensor([0.0]), scale, bits).backward()
    assert ([4.0, 4.0], -4.0, -16.0) == (codes, module.learned_stats.value.grad.item(), scale.grad.item())
    module.learned_stats.reset()
    assert 8.0 == module(torch.tensor([-2.0, 3.0]), scale, bits).item()


def test_learned_statistic_may_become_positive():
    """What is learned is any number: beyond zero the zero-point stays on the lowest code."""
    module = LearnedStatsZeroPoint(_grid(), NegativeMinOrZero(), quantize_zero_point=False)
    arguments = (torch.tensor([-1.0]), torch.tensor(0.25), torch.tensor(BITS))
    module(*arguments)
    module.learned_stats.value.data.fill_(0.5)
    assert -2.0 == module(*arguments).item()


def test_learned_statistic_starts_again_with_the_quantizer():
    """A quantizer's phase and restart reach the zero-point: the next weights are looked at anew."""
    layer = QuantLinear(8, 4, weight_quant=ShiftedUint8WeightPerTensorHQO)
    before = layer.weight_quant.phase
    first = layer.quant_weight().zero_point.item()
    layer.weight.data.abs_()
    kept = layer.quant_weight().zero_point.item()
    layer.weight_quant.restart()
    assert (Phase.EMPTY, first) == (before, kept)
    assert kept > 50 > abs(layer.quant_weight().zero_point.item())


SIDES = {"running_impl": RunningInterval, "scaling_stats_impl": TwoSided, "zero_point_stats_impl": TwoSided}


@pytest.mark.parametrize(
    ("running", "expected"),
    [
        (
            {"running_impl": TrueAverage, "scaling_stats_impl": AbsMinMax, "zero_point_stats_impl": NegativeMinOrZero},
            (-1.0, 2.0),
        ),
        ({**SIDES, "side_running_impl": TrueAverage, "side_stats_impl": AbsMax}, (-1.0, 2.0)),
        ({**SIDES, "side_running_impl": RunningMax, "side_stats_impl": AbsMax}, (-3.0, 4.0)),
        (
            {
                **SIDES,
                "side_running_impl": RunningPercentile,
                "side_stats_impl": AbsHistogram,
                "high_percentile_q": 100.0,
            },
            (-3 - 4 / 2048, 4 + 8 / 2048),  # the ends of their bins, of 2048 up to 4 and 8
        ),
    ],
)
def test_range_and_zero_point_of_all_batches(running, expected):
    """However batches become one, the range and the zero-point of activations are those of one interval."""
    layer = QuantIdentity(act_quant=ShiftedUint8ActPerTensor.let(**running)).eval()
    with calibrating(layer):
        for batch in ([-3.0, 0.0], [0.0, 4.0], [0.0, 2.0]):
            layer(torch.tensor(batch))
    found = layer.act_quant.current()
    low, high = expected
    scale = (high - low) / 255
    assert np.float32(scale) == pytest.approx(found.scale.item(), rel=2**-22)  # a sum and a quotient of float32
    assert round(-low / scale) == found.zero_point.item()


def test_the_mean_of_huge_values():
    """It is the mean, though the sum is beyond the largest number."""
    assert MeanZeroPoint()(torch.tensor([3e38, 3e38, 3e38, 1e38]), torch.tensor(1e38), torch.tensor(8.0)).item() == (
        pytest.approx(-2.5, rel=1e-6)
    )
