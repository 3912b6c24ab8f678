"""Statistics, each against loops over rows in NumPy."""

import math
from typing import ClassVar

import numpy as np
import pytest
import torch

from brevq.core.function_wrapper import PerChannel, PerTensor
from brevq.core.stats import (
    AbsAve,
    AbsAveAboveThreshold,
    AbsMax,
    AbsMinMax,
    AbsPercentile,
    MeanSigmaStd,
    NegativeMinOrZero,
    NegativePercentileOrZero,
    PercentileInterval,
)
from brevq.errors import ArgumentError
from brevq.testing import Case, StatisticContract


def _kth(row, q):
    """The k-th smallest, ``k = floor(q / 100 * n + 1/2)``, at least the first."""
    k = max(1, math.floor(q / 100 * len(row) + 0.5))
    return sorted(row)[k - 1]


def _above(row):
    magnitude = [abs(v) for v in row]
    chosen = [v for v in magnitude if v > 0.7 * (sum(magnitude) / len(magnitude))]
    return sum(chosen) / len(chosen) if chosen else 0.0


def _low(row, q):
    """The low percentile: the k-th smallest, k = ceil(q / 100 * n), at least the first."""
    return sorted(row)[max(1, math.ceil(q / 100 * len(row))) - 1]


def _mean_sigma(row, sigma):
    magnitude = [abs(v) for v in row]
    mean = sum(magnitude) / len(magnitude)
    variance = sum((v - mean) ** 2 for v in magnitude) / max(1, len(magnitude) - 1)
    return mean + sigma * math.sqrt(variance)


# Constructor, given a granularity, and the statistic of one row.
CASES = {
    "AbsMax": (AbsMax, lambda row: max(abs(v) for v in row)),
    "AbsMinMax": (AbsMinMax, lambda row: max(0.0, *row) - min(0.0, *row)),
    "AbsAve": (AbsAve, lambda row: sum(abs(v) for v in row) / len(row)),
    "AbsAveAboveThreshold": (AbsAveAboveThreshold, _above),
    "AbsPercentile": (AbsPercentile, lambda row: _kth([abs(v) for v in row], 99.999)),
    "AbsPercentile 90": (lambda g=None: AbsPercentile(g, 90.0), lambda row: _kth([abs(v) for v in row], 90.0)),
    "AbsPercentile 1": (lambda g=None: AbsPercentile(g, 1.0), lambda row: _kth([abs(v) for v in row], 1.0)),
    "PercentileInterval": (PercentileInterval, lambda row: max(0.0, *row) - min(0.0, *row)),
    "PercentileInterval 10 90": (
        lambda g=None: PercentileInterval(g, 10.0, 90.0),
        lambda row: max(0.0, _kth(row, 90.0)) - min(0.0, _low(row, 10.0)),
    ),
    "MeanSigmaStd": (MeanSigmaStd, lambda row: _mean_sigma(row, 3.0)),
    "MeanSigmaStd 1": (lambda g=None: MeanSigmaStd(g, 1.0), lambda row: _mean_sigma(row, 1.0)),
    "NegativeMinOrZero": (NegativeMinOrZero, lambda row: min(0.0, *row)),
    "NegativePercentileOrZero": (NegativePercentileOrZero, lambda row: min(0.0, *row)),
    "NegativePercentileOrZero 20": (
        lambda g=None: NegativePercentileOrZero(g, 20.0),
        lambda row: min(0.0, _low(row, 20.0)),
    ),
}
# Sums of n values, in another order, differ by n units in the last place at most; two of them and a root here. The
# others pick values, or add two: one rounding at most, the same in Python.
SUMS = ("AbsAve", "MeanSigma")


class TestStatistics(StatisticContract):
    """What any statistic must do, with every granularity."""

    cases: ClassVar = {
        name: Case(create, reference, rounding=4 * 72 if name.startswith(SUMS) else 0)
        for name, (create, reference) in CASES.items()
    }


@pytest.mark.parametrize("case", CASES)
def test_default_is_the_whole_tensor(case):
    """Without a granularity all values are reduced together."""
    x = torch.tensor(np.random.default_rng(1).normal(size=(4, 3, 5)).astype(np.float32))
    assert CASES[case][0](PerTensor())(x).tolist() == CASES[case][0]()(x).tolist()


@pytest.mark.parametrize("case", CASES)
def test_one_value_is_its_own_statistic(case):
    """A single value is the largest and the smallest, alone, without a deviation."""
    expected = -2.0 if "Negative" in case else 2.0
    assert expected == CASES[case][0]()(torch.tensor([-2.0])).item()


@pytest.mark.parametrize("size", [1e-30, 1e-5, 1e30])
@pytest.mark.parametrize("case", ["MeanSigmaStd", "MeanSigmaStd 1"])
def test_deviations_of_any_size(case, size):
    """The formula holds for numbers whose squares are nothing, less than 1e-8, or infinite in float32."""
    create, reference = CASES[case]
    x = (np.random.default_rng(1).normal(size=1000) * size).astype(np.float32)
    # Sums of 1000 values, in another order, differ by as many units in the last place at most.
    assert pytest.approx(reference(x.astype(np.float64)), rel=1000 * 2**-23) == create()(torch.tensor(x)).item()


def test_equal_values_have_no_deviation():
    """Of equal values, zeros among them, the mean is all there is."""
    assert [0.0, 0.5] == [MeanSigmaStd()(torch.full((3,), value)).item() for value in (0.0, 0.5)]


def test_percentiles_of_more_values_than_quantile_takes():
    """Percentiles of 17 million numbers, more than float32 counts or `torch.quantile` takes, are what sorting gives."""
    x = torch.from_numpy(np.random.default_rng(1).standard_normal(17_000_000, dtype=np.float32))
    rank = 16_999_830 - 1  # 99.999 %
    assert np.partition(np.abs(x.numpy()), rank)[rank] == AbsPercentile()(x).item()


def test_a_constant_tensor_has_values_above_the_threshold():
    """The ternary statistic of equal magnitudes is their magnitude."""
    assert 0.5 == AbsAveAboveThreshold()(torch.tensor([0.5, -0.5, 0.5])).item()


REFUSALS = [
    (lambda: AbsPercentile(high_percentile_q=100.1), "`high_percentile_q` (=100.1) must be a number from 0 to 100"),
    (lambda: AbsPercentile(high_percentile_q=-1), "`high_percentile_q` (=-1) must be a finite number above 0"),
    (
        lambda: PercentileInterval(low_percentile_q=60.0, high_percentile_q=40.0),
        "`low_percentile_q` (=60.0) must be a number from 0 to 40",
    ),
    (
        lambda: NegativePercentileOrZero(low_percentile_q=101),
        "`low_percentile_q` (=101) must be a number from 0 to 100",
    ),
    (lambda: MeanSigmaStd(sigma=0), "`sigma` (=0) must be a finite number above 0"),
    (lambda: AbsAveAboveThreshold(ternary_fraction=1.0), "`ternary_fraction` (=1.0) must be a number from 0 to 0.999"),
    (
        lambda: AbsAveAboveThreshold(ternary_fraction=-0.1),
        "`ternary_fraction` (=-0.1) must be a number from 0 to 0.999",
    ),
]


@pytest.mark.parametrize(("create", "message"), REFUSALS)
def test_arguments_out_of_range_are_refused(create, message):
    """A percentile, fraction or number of deviations out of range is refused with its rule."""
    with pytest.raises(ArgumentError) as error:
        create()
    assert message == str(error.value)


HUGE = [[3e38, -3e38, 3e38, 3e38], [1e37, -2e38, 3e38, 1.0], [2.0, -1.0, 0.5, 4.0]]
LARGEST = float(np.finfo(np.float32).max)
# What they are in float64, to be limited to the largest float32.
REFERENCES = {
    "AbsMinMax": (AbsMinMax, lambda x: max(x.max(), 0) - min(x.min(), 0)),
    "AbsAve": (AbsAve, lambda x: np.abs(x).mean()),
    "AbsAveAboveThreshold": (
        AbsAveAboveThreshold,
        lambda x: np.abs(x)[np.abs(x) > 0.7 * np.abs(x).mean()].mean(),
    ),
    "PercentileInterval": (PercentileInterval, lambda x: max(x.max(), 0) - min(x.min(), 0)),
    "MeanSigmaStd": (MeanSigmaStd, lambda x: np.abs(x).mean() + 3 * np.abs(x).std(ddof=1)),
}


@pytest.mark.parametrize("name", REFERENCES)
def test_huge_values(name):
    """What sums or differences of huge values give is right where float32 has it, else the largest number."""
    create, reference = REFERENCES[name]
    stats = create(PerChannel(tensor_shape=(3, 4), channel_axis=0))(torch.tensor(HUGE)).flatten().tolist()
    expected = [min(float(reference(np.float32(row).astype(np.float64))), LARGEST) for row in HUGE]
    assert stats == pytest.approx(expected, rel=2e-6)
    assert np.isfinite(np.float32(stats)).all()


@pytest.mark.parametrize("name", REFERENCES)
def test_infinities_stay(name):
    """What is limited is finite: a statistic of an infinity is not."""
    assert not torch.isfinite(REFERENCES[name][0]()(torch.tensor([1.0, -2.0, torch.inf])))


@pytest.mark.parametrize("create", [NegativeMinOrZero, NegativePercentileOrZero])
def test_the_lower_end_of_what_is_too_wide(create):
    """Both ends are clipped alike: of -3e38 and 3e38 to half of the largest number each."""
    assert create()(torch.tensor([-3e38, 3e38])).item() == pytest.approx(-LARGEST / 2, rel=2e-6)
    assert create()(torch.tensor([-3e38, 1e37])).item() == pytest.approx(-3e38, rel=1e-6)


@pytest.mark.parametrize("create", [PercentileInterval, NegativePercentileOrZero, AbsMinMax, NegativeMinOrZero])
def test_zeros_of_either_sign_have_no_width(create):
    """A tensor of zeros, minus zeros among them, has the range zero."""
    assert 0.0 == create()(torch.tensor([-0.0, 0.0, -0.0])).item()
