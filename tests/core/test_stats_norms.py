"""Norms and averages of maxima, each against loops over rows in NumPy."""

import math
from typing import ClassVar

import numpy as np
import pytest
import torch

from brevq.core.function_wrapper import PerChannel, PerGroup, PerTensor, PerToken
from brevq.core.stats import AbsMaxAve, AbsMaxL2, L1Norm, L2Norm, MeanLearnedSigmaStd, SignedAbsMax
from brevq.errors import ArgumentError
from brevq.testing import Case, StatisticContract

SHAPE = (4, 3, 6)


def _largest(row):
    """The first value of largest magnitude, with its sign turned."""
    best = row[0]
    for value in row:
        best = value if abs(value) > abs(best) else best
    return -best


def _mean_sigma(row, sigma):
    magnitude = [abs(v) for v in row]
    mean = sum(magnitude) / len(magnitude)
    variance = sum((v - mean) ** 2 for v in magnitude) / max(1, len(magnitude) - 1)
    return mean + sigma * math.sqrt(variance)


# Constructor, given a granularity, and the statistic of one row.
CASES = {
    "L1Norm": (L1Norm, lambda row: sum(abs(v) for v in row)),
    "L2Norm": (L2Norm, lambda row: math.sqrt(sum(v * v for v in row))),
    "SignedAbsMax": (SignedAbsMax, _largest),
    "MeanLearnedSigmaStd": (MeanLearnedSigmaStd, lambda row: _mean_sigma(row, 3.0)),
    "MeanLearnedSigmaStd 1": (lambda g=None: MeanLearnedSigmaStd(g, 1.0), lambda row: _mean_sigma(row, 1.0)),
}
# Constructor, given what a channel is, and the statistic of all channels' maxima.
ACROSS = {
    "AbsMaxAve": (AbsMaxAve, lambda maxima: sum(maxima) / len(maxima)),
    "AbsMaxL2": (AbsMaxL2, lambda maxima: math.sqrt(sum(m * m for m in maxima) / len(maxima))),
}
GRANULARITIES = {
    "tensor": PerTensor,
    "axis 0": lambda: PerChannel(SHAPE, 0),
    "axis 1": lambda: PerChannel(SHAPE, 1),
    "group": lambda: PerGroup(group_size=2, tensor_shape=SHAPE),
}


def _values(dtype):
    return np.random.default_rng(1).normal(size=SHAPE).astype(dtype)


def _rows(x, granularity):
    """The values of each scale: all, by index along the axis, or in runs of two."""
    if granularity == "group":
        return list(x.reshape(-1, 2))
    if granularity == "tensor":
        return [x.reshape(-1)]
    axis = int(granularity.split()[1])
    return [np.take(x, index, axis).reshape(-1) for index in range(x.shape[axis])]


def _slopes(x, total):
    """The gradient of `total` at `x`, by central differences."""
    slopes, step = np.zeros_like(x), 1e-6
    for index in np.ndindex(*x.shape):
        high, low = x.copy(), x.copy()
        high[index] += step
        low[index] -= step
        slopes[index] = (total(high) - total(low)) / (2 * step)
    return slopes


class TestNorms(StatisticContract):
    """What any statistic must do, with every granularity."""

    # Sums of n values, in another order, differ by n units in the last place at most; two of them and a root here.
    cases: ClassVar = {
        name: Case(create, reference, rounding=0 if name == "SignedAbsMax" else 4 * 72)
        for name, (create, reference) in CASES.items()
    }


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("case", ACROSS)
def test_across_channels(case, granularity):
    """One number is computed from the maxima of all channels, and its gradient reaches these maxima."""
    create, reference = ACROSS[case]
    x, layout = _values(np.float64), GRANULARITIES[granularity]()
    leaf = torch.tensor(x, requires_grad=True)
    result = create(layout)(layout.split(leaf))
    result.backward()

    def total(side):
        return reference([max(abs(v) for v in row) for row in _rows(side, granularity)])

    # Sums of few values in float64; a central difference is off by rounding / step, and by step squared.
    assert (pytest.approx(total(x), rel=1e-14), pytest.approx(_slopes(x, total), abs=1e-7), ()) == (
        result.item(),
        leaf.grad.numpy(),
        result.shape,
    )


@pytest.mark.parametrize("case", [*CASES, *ACROSS])
def test_travels(case, travel, outcome):
    """A copy, by whatever way, gives equal values and gradients."""
    x = torch.tensor(_values(np.float32))

    def create():
        return {**CASES, **ACROSS}[case][0](PerChannel(SHAPE, 1))

    module = create()
    assert outcome(module, x) == outcome(travel(create, module), x)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("case", CASES)
def test_half_precision_is_measured_in_float32(case, dtype):
    """Numbers of half precision, which float32 holds exactly, give the statistic of these numbers."""
    create, reference = CASES[case]
    x = torch.tensor(_values(np.float32)).to(dtype)
    # Sums of n values differ by n units in the last place at most.
    expected = pytest.approx(reference(x.double().flatten().tolist()), rel=4 * x.numel() * 2**-23)
    assert expected == create()(x.float()).item()


def test_sigma_is_learned():
    """The number of deviations is a parameter in the shape of the scale, whose gradient is the deviation."""
    x = torch.tensor(_values(np.float64))
    stats = MeanLearnedSigmaStd(PerChannel(SHAPE, 0), sigma=2.0).double()
    stats(x).sum().backward()
    expected = [math.sqrt(row.abs().var().item()) for row in x]
    assert ([2.0] * 4, (4, 1, 1), pytest.approx(expected, rel=1e-14)) == (  # a root and a few sums in float64
        stats.sigma.flatten().tolist(),
        tuple(stats.sigma.shape),
        stats.sigma.grad.flatten().tolist(),
    )


@pytest.mark.parametrize("size", [1e-30, 1e30])
@pytest.mark.parametrize("case", ["L2Norm", "MeanLearnedSigmaStd", "AbsMaxL2"])
def test_squares_of_any_size(case, size):
    """Values and gradients are right where float32 has no number for a square."""
    x = torch.tensor(_values(np.float32) * np.float32(size), requires_grad=True)
    exact = x.detach().double().requires_grad_()
    stats = {**CASES, **ACROSS}[case][0](PerChannel(SHAPE, 0) if case in ACROSS else None)
    results = [stats(values).sum() for values in (x, exact)]
    sum(results).backward()
    # Sums of n values differ by n units in the last place at most.
    tolerance = 4 * x.numel() * 2**-23
    assert pytest.approx(results[1].item(), rel=tolerance) == results[0].item()
    assert pytest.approx(exact.grad.flatten().tolist(), rel=tolerance) == x.grad.flatten().tolist()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_units_do_not_round(dtype):
    """The Euclidean norm of ordinary numbers is that of torch, bit for bit."""
    x = torch.tensor(_values(np.float64)).to(dtype).flatten(1)
    expected = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    assert expected.tolist() == L2Norm(PerChannel(tuple(x.shape), 0))(x).tolist()


def test_signed_maximum_takes_the_first_of_equal_magnitudes():
    """Of 2 and -2 the first counts."""
    first = [SignedAbsMax()(torch.tensor(values)).item() for values in ([-2.0, 2.0], [2.0, -2.0])]
    assert [2.0, -2.0] == first


def test_signed_maximum_puts_the_largest_value_on_the_lowest_code():
    """A positive largest value gives a negative scale, with which it falls on code -128."""
    x = torch.tensor([0.5, 2.0, -1.5])
    assert -128.0 == (x / (SignedAbsMax()(x) / 128))[1].item()


@pytest.mark.parametrize("case", [*CASES, *ACROSS])
def test_zeros_have_a_finite_statistic_and_gradient(case):
    """An all-zero tensor gives a number and gradients, never NaN."""
    x = torch.zeros(3, 4, requires_grad=True)
    result = {**CASES, **ACROSS}[case][0](PerTensor())(x)
    result.backward()
    assert [] == [number for number in [result.item(), *x.grad.flatten().tolist()] if not math.isfinite(number)]


@pytest.mark.parametrize("case", [*CASES, *ACROSS])
def test_nan_stays_visible(case):
    """One NaN makes the statistic NaN."""
    stats = {**CASES, **ACROSS}[case][0](PerTensor())
    assert math.isnan(stats(torch.tensor([1.0, math.nan, -2.0])).item())


REFUSALS = [
    (lambda: MeanLearnedSigmaStd(sigma=0), "`sigma` (=0) must be a finite number above 0"),
    (
        lambda: MeanLearnedSigmaStd(PerToken()),
        "the scale of tokens depends on the tensor: it can be computed from it, and not be a parameter",
    ),
    *[
        (
            lambda create=create: create(PerChannel((2, 3), 0), PerChannel((2, 3), 0)),
            "`granularity_impl` (=PerChannel(channel_axis=0, scale_shape=(2, 1))) must be `PerTensor()`: one number is "
            "computed from all channels. `channel_granularity_impl` says what a channel is",
        )
        for create in (AbsMaxAve, AbsMaxL2)
    ],
]


@pytest.mark.parametrize(("create", "message"), REFUSALS)
def test_what_can_not_be_computed_is_refused(create, message):
    """An argument out of range is refused with its rule."""
    with pytest.raises(ArgumentError) as error:
        create()
    assert message == str(error.value)


LARGEST = float(np.finfo(np.float32).max)


@pytest.mark.parametrize("value", [2e37, 3e38])
@pytest.mark.parametrize(
    ("create", "reference"),
    [
        (L1Norm, lambda x: np.abs(x).sum()),
        (L2Norm, lambda x: np.sqrt(np.square(x).sum())),
        (lambda: AbsMaxAve(PerChannel(tensor_shape=(8, 2), channel_axis=0)), lambda x: np.abs(x).max(1).mean()),
        (
            lambda: AbsMaxL2(PerChannel(tensor_shape=(8, 2), channel_axis=0)),
            lambda x: np.sqrt(np.square(np.abs(x).max(1)).mean()),
        ),
        (MeanLearnedSigmaStd, lambda x: np.abs(x).mean() + 3 * np.abs(x).std(ddof=1)),
    ],
)
def test_huge_values(create, reference, value):
    """Norms and averages of huge values are right where float32 has them, else the largest number."""
    x = np.float32(value) * np.float32([[1, -1], [0.5, 1]] * 4)
    expected = min(float(reference(x.astype(np.float64))), LARGEST)
    assert create()(torch.tensor(x)).item() == pytest.approx(expected, rel=2e-6)
