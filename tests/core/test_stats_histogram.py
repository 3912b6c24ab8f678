"""Ranges from histograms, against slow loops over values, bins and candidates."""

import math

import numpy as np
import pytest
import torch

from brevq.core.bit_width import BitWidthConst
from brevq.core.function_wrapper import PerChannel, PerGroup, PerTensor
from brevq.core.scaling import IntScaling
from brevq.core.stats import AbsHistogram, AbsPercentile, Entropy, HistogramPercentile, KLDivergence
from brevq.errors import ArgumentError, ArgumentTypeError
from brevq.nn import QuantLinear
from injectors import Int4WeightPerChannel

SHAPE = (4, 3, 40)
GRANULARITIES = {
    "tensor": PerTensor,
    "axis 0": lambda: PerChannel(SHAPE, 0),
    "axis 1": lambda: PerChannel(SHAPE, 1),
    "group": lambda: PerGroup(group_size=20, tensor_shape=SHAPE),
}
BINS, STRIDE, LEVELS = 48, 2, 7
Q = 80.0


def _values(seed=1):
    """Normal numbers, a few ten times as large, and zeros."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=SHAPE) * np.where(rng.random(SHAPE) < 0.03, 10, 1) * (rng.random(SHAPE) < 0.9)


def _rows(x, granularity):
    """The values of each scale: all, by index along the axis, or in runs of twenty."""
    if granularity == "group":
        return list(x.reshape(-1, 20))
    if granularity == "tensor":
        return [x.reshape(-1)]
    axis = int(granularity.split()[1])
    return [np.take(x, index, axis).reshape(-1) for index in range(x.shape[axis])]


def _counts(row):
    end, counts = max(abs(v) for v in row), [0] * BINS
    for value in row:
        counts[min(int(abs(value) * (BINS / end)), BINS - 1)] += value != 0
    return counts


def _percentile(row):
    magnitude = sorted(abs(v) for v in row)
    exact = magnitude[max(1, math.floor(Q / 100 * len(row) + 0.5)) - 1]
    width = magnitude[-1] / BINS
    return width * next(b + 1 for b in range(BINS) if exact < width * (b + 1) or b == BINS - 1)


def _threshold(row, cost):
    """The number of bins with the smallest cost, from the largest down, better by 0.00001, as a range."""
    counts, best, smallest = _counts(row), BINS, math.inf
    for end in range(BINS, LEVELS - 1, -STRIDE):
        current = cost(counts[:end], sum(counts[end:]))
        if current < smallest - 1e-5:
            best, smallest = end, current
    return max(abs(v) for v in row) * best / BINS


def _divergence(kept, clipped):
    q = [0.0] * len(kept)
    for level in range(LEVELS):
        members = [b for b in range(len(kept)) if b * LEVELS // len(kept) == level]
        occupied = [b for b in members if kept[b]]
        for b in occupied:
            q[b] = sum(kept[m] for m in members) / len(occupied) / sum(kept)
    p = [*kept[:-1], kept[-1] + clipped]
    p = [count / sum(p) for count in p]
    return sum(a * math.log(a / ((1 - 1e-4) * b + 1e-4 / len(kept))) for a, b in zip(p, q, strict=True) if a)


def _negative_entropy(kept, clipped):
    counts = [0] * LEVELS
    for b, number in enumerate([*kept[:-1], kept[-1] + clipped]):
        counts[b * LEVELS // len(kept)] += number
    return sum(c / sum(counts) * math.log(c / sum(counts)) for c in counts if c)


def _informed(kind):
    return lambda g=None, bins=BINS, stride=STRIDE: kind(
        BitWidthConst(4), IntScaling(True, True), g, histogram_bins=bins, histogram_stride=stride
    )


# Constructor, given a granularity, and the statistic of one row.
CASES = {
    "HistogramPercentile": (lambda g=None: HistogramPercentile(g, Q, BINS), _percentile),
    "KLDivergence": (_informed(KLDivergence), lambda row: _threshold(row, _divergence)),
    "Entropy": (_informed(Entropy), lambda row: _threshold(row, _negative_entropy)),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("case", CASES)
def test_values(case, granularity, seed):
    """What is found for each row is what loops over its values, bins and candidates find."""
    create, reference = CASES[case]
    x, layout = _values(seed), GRANULARITIES[granularity]()
    actual = create(layout)(layout.split(torch.tensor(x)))
    expected = [reference(row.tolist()) for row in _rows(x, granularity)]
    # A product and a quotient, of float64, and the fraction of bins, which torch computes in float32.
    assert (pytest.approx(expected, rel=2**-23), layout.scale_shape) == (actual.flatten().tolist(), tuple(actual.shape))


@pytest.mark.parametrize("case", CASES)
def test_gradients(case):
    """The gradient is that of the largest magnitude times a constant."""
    x = torch.tensor(_values(), requires_grad=True)
    result = CASES[case][0]()(x)
    result.backward()
    where = int(x.abs().argmax())
    expected = np.zeros(x.numel())
    expected[where] = result.item() / x.flatten()[where].item()
    assert pytest.approx(expected, rel=1e-15, abs=0) == x.grad.flatten().numpy()  # a product and a quotient


@pytest.mark.parametrize("case", CASES)
def test_travels(case, travel, outcome):
    """A copy, by whatever way, gives equal values and gradients."""
    x = torch.tensor(_values().astype(np.float32))

    def create():
        return CASES[case][0](PerChannel(SHAPE, 0))

    module = create()
    assert outcome(module, x) == outcome(travel(create, module), x)


@pytest.mark.parametrize("bins", [BINS, 2048])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("case", CASES)
def test_half_precision_is_counted_in_float32(case, dtype, bins):
    """Of numbers of half precision the range is what float32 finds for them, in float32."""
    x, stats = torch.tensor(_values()).to(dtype), CASES[case][0]()
    stats.histogram_bins = bins
    assert (stats(x.float()).item(), torch.float32) == (stats(x).item(), stats(x).dtype)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_many_values_of_half_precision_are_counted(dtype):
    """A histogram of half precision counts values one by one, more than half precision has numbers for."""
    histogram = AbsHistogram(histogram_bins=4)(torch.tensor([0.5, 1.5, 3.5]).repeat(1001).to(dtype))
    assert [1001.0, 1001.0, 0.0, 1001.0, 4.0] == histogram.tolist()


@pytest.mark.parametrize("q", [0.001, 1.0, 37.0, 50.0, 99.0, 99.999, 100.0])
@pytest.mark.parametrize("bins", [1, 7, 100, 2048])
def test_percentile_is_within_a_bin(q, bins):
    """The percentile is never below the exact one, and above it by one bin at most."""
    x = torch.tensor(_values())
    exact = AbsPercentile(high_percentile_q=q)(x).item()
    error = HistogramPercentile(None, q, bins)(x).item() - exact
    rounding = 2**-23 * x.abs().max().item()  # of the fraction of bins, in float32
    assert (True, True) == (error >= -rounding, error <= x.abs().max().item() / bins + rounding)


def test_threshold_clips_outliers():
    """Of many equal magnitudes up to 1 and one of 16 the range keeps the many."""
    x = torch.cat([torch.linspace(-1.0, 1.0, 2001), torch.tensor([16.0])])
    ranges = [_informed(kind)(None, 256, 1)(x).item() for kind in (KLDivergence, Entropy)]
    assert [True, True] == [value <= 1.1 for value in ranges]


@pytest.mark.parametrize("case", ["KLDivergence", "Entropy"])
def test_fewer_bins_than_levels(case):
    """Where a histogram can not tell the levels apart the largest magnitude is the range."""
    kind = {"KLDivergence": KLDivergence, "Entropy": Entropy}[case]
    stats = kind(BitWidthConst(8), IntScaling(True, True), histogram_bins=64)
    assert 9.0 == stats(torch.cat([torch.linspace(-1.0, 1.0, 100), torch.tensor([9.0])])).item()


@pytest.mark.parametrize("case", CASES)
def test_zeros_have_a_range_of_zero(case):
    """An all-zero row gives zero, finite gradients, and leaves the other rows alone."""
    x = torch.tensor(_values(), requires_grad=True)
    stats = CASES[case][0](PerChannel(SHAPE, 0))
    result = stats(x * torch.tensor([1.0, 0.0, 1.0, 1.0]).reshape(4, 1, 1))
    result.sum().backward()
    expected = stats(x).flatten().tolist()
    expected[1] = 0.0
    assert (expected, True) == (result.flatten().tolist(), bool(torch.isfinite(x.grad).all()))


@pytest.mark.parametrize("case", ["KLDivergence", "Entropy"])
def test_zeros_do_not_count(case):
    """Any number of zeros, which are on the grid, leaves the threshold where it is."""
    x, stats = torch.tensor(_values()), CASES[case][0]()
    assert stats(x).item() == stats(torch.cat([x.flatten(), torch.zeros(5000)])).item()


@pytest.mark.parametrize("case", CASES)
def test_nan_stays_visible(case):
    """One NaN makes the statistic NaN."""
    assert math.isnan(CASES[case][0]()(torch.tensor([1.0, math.nan, -2.0])).item())


@pytest.mark.slow
def test_more_values_than_quantile_takes():
    """Percentiles of 17 million values are right: torch.quantile takes 16 million, and float32 counts as many."""
    x = torch.full((17_000_000,), 0.5)
    x[-100_000:] = 8.0
    # The 16.864 millionth is one half; counts that end at 2 ** 24 would make it 8.
    assert (0.5, 1.0) == (
        AbsPercentile(high_percentile_q=99.2)(x).item(),
        HistogramPercentile(None, 99.2, 8)(x).item(),
    )


@pytest.mark.parametrize(
    "names",
    [
        {"scaling_stats_impl": KLDivergence, "histogram_bins": 512},
        {"scaling_stats_impl": Entropy, "histogram_stride": 4},
        {"scaling_stats_impl": HistogramPercentile, "high_percentile_q": 90.0},
    ],
)
def test_recipes_name_histograms(names):
    """A recipe names a histogram's range as its statistic; ranges are no larger than the largest absolute value."""
    layer = QuantLinear(64, 4, weight_quant=Int4WeightPerChannel.let(**names))
    ranges = layer.quant_weight().scale.flatten() * 7
    largest = layer.weight.abs().amax(dim=1)
    assert [True] * 4 == (ranges <= largest * (1 + 2**-22)).tolist()  # divided and multiplied by 7


REFUSALS = [
    (
        lambda: HistogramPercentile(high_percentile_q=0),
        ArgumentError,
        "`high_percentile_q` (=0) must be a finite number above 0",
    ),
    (
        lambda: HistogramPercentile(high_percentile_q=101),
        ArgumentError,
        "`high_percentile_q` (=101.0) must be a number from 0 to 100",
    ),
    *[
        (lambda create=create: create(bins=0), ArgumentError, "`histogram_bins` (=0) must be a whole number, 1 or more")
        for create in (_informed(KLDivergence), _informed(Entropy))
    ],
    *[
        (
            lambda create=create: create(stride=0),
            ArgumentError,
            "`histogram_stride` (=0) must be a whole number, 1 or more",
        )
        for create in (_informed(KLDivergence), _informed(Entropy))
    ],
    (
        lambda: HistogramPercentile(histogram_bins=2.5),
        ArgumentTypeError,
        "`histogram_bins` (=2.5) must be a whole number, 1 or more, not float",
    ),
]


@pytest.mark.parametrize(("create", "kind", "message"), REFUSALS)
def test_arguments_out_of_range_are_refused(create, kind, message):
    """A percentile, a number of bins or a stride out of range is refused with its rule."""
    with pytest.raises(kind) as error:
        create()
    assert message == str(error.value)
