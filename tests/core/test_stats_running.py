"""How the statistics of batches become one, against loops over all batches at once."""

import math

import numpy as np
import pytest
import torch

from brevq.core.function_wrapper import PerChannel, PerGroup, PerTensor, PerToken
from brevq.core.stats import (
    AbsHistogram,
    AbsMax,
    AbsPercentile,
    MovingAverage,
    RunningInterval,
    RunningMax,
    RunningPercentile,
    TrueAverage,
    TwoSided,
)
from brevq.errors import ArgumentError

SHAPE = (4, 3, 8)
GRANULARITIES = {
    "tensor": PerTensor,
    "axis 0": lambda: PerChannel(SHAPE, 0),
    "axis 1": lambda: PerChannel(SHAPE, 1),
    "group": lambda: PerGroup(group_size=4, tensor_shape=SHAPE),
}


def _moving(history):
    average = history[0]
    for statistic in history[1:]:
        average = 0.75 * average + 0.25 * statistic
    return average


# Constructor, and what is left of a list of statistics.
AVERAGES = {
    "MovingAverage": (lambda: MovingAverage(0.25), _moving),
    "TrueAverage": (TrueAverage, lambda history: sum(history) / len(history)),
    "RunningMax": (RunningMax, lambda history: max(history, key=abs)),
}


def _gather(running, statistics):
    """What is gathered of a list of statistics, beginning with zeros."""
    average = torch.zeros_like(statistics[0])
    for steps, statistic in enumerate(statistics):
        average = running(average, statistic, torch.tensor(steps))
    return average


def _batches(n=6, shape=SHAPE):
    """Batches of normal numbers, of ever different width."""
    rng = np.random.default_rng(1)
    return [rng.normal(size=shape) * width for width in [1.0, 0.01, 7.0, 3.0, 60.0, 1e-3][:n]]


def _rows(x, granularity):
    """The values of each scale: all, by index along the axis, or in runs of four."""
    if granularity == "group":
        return list(x.reshape(-1, 4))
    if granularity == "tensor":
        return [x.reshape(-1)]
    axis = int(granularity.split()[1])
    return [np.take(x, index, axis).reshape(-1) for index in range(x.shape[axis])]


@pytest.mark.parametrize("n", [1, 2, 6])
@pytest.mark.parametrize("case", AVERAGES)
def test_values(case, n):
    """What is gathered batch by batch is what is computed from all batches together."""
    create, reference = AVERAGES[case]
    batches = _batches(n)
    actual = _gather(create(), [torch.tensor(batch) for batch in batches])
    expected = [reference(list(history)) for history in zip(*(batch.flatten() for batch in batches), strict=True)]
    # At most six sums and products of numbers below 300, in float64.
    assert pytest.approx(expected, rel=1e-13, abs=1e-13) == actual.flatten().tolist()


@pytest.mark.parametrize("case", AVERAGES)
def test_gathering_is_pure(case):
    """Neither what was gathered nor the statistic is written to, and nothing is kept."""
    average, statistic = torch.tensor([1.0, -2.0]), torch.tensor([-3.0, 1.0])
    running = AVERAGES[case][0]()
    before = dict(vars(running))
    running(average, statistic, torch.tensor(3))
    assert ([1.0, -2.0], [-3.0, 1.0], before) == (average.tolist(), statistic.tolist(), vars(running))


@pytest.mark.parametrize("case", AVERAGES)
def test_gradients(case):
    """The gradient of a batch's statistic is its weight in what is gathered."""
    weights = {"MovingAverage": [0.25, 0.25], "TrueAverage": [0.25, 0.25], "RunningMax": [0.0, 1.0]}
    statistic = torch.tensor([1.0, -5.0], requires_grad=True)
    AVERAGES[case][0]()(torch.tensor([2.0, 2.0]), statistic, torch.tensor(3)).sum().backward()
    assert weights[case] == statistic.grad.tolist()


@pytest.mark.parametrize("case", AVERAGES)
def test_travels(case, travel, outcome):
    """A copy, by whatever way, gives equal values and gradients."""
    create = AVERAGES[case][0]
    module = create()
    inputs = (torch.tensor([2.0, -2.0]), torch.tensor([3.0, -1.0]), torch.tensor(2))
    assert outcome(module, *inputs) == outcome(travel(create, module), *inputs)


@pytest.mark.parametrize("create", [AbsHistogram, lambda: RunningPercentile(50.0)])
def test_histograms_travel(create, travel):
    """A copy, by whatever way, counts and gathers alike."""
    module = create()
    batch = AbsHistogram()(torch.tensor(_batches()[0]))
    inputs = (torch.tensor(_batches()[1]),) if isinstance(module, AbsHistogram) else (batch, batch, torch.tensor(1))
    assert module(*inputs).tolist() == travel(create, module)(*inputs).tolist()


@pytest.mark.parametrize("bins", [1, 7, 64])
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_histogram(granularity, bins):
    """A value is counted in its bin, of as many up to the next power of two above the largest magnitude."""
    x, layout = _batches()[0], GRANULARITIES[granularity]()
    actual = AbsHistogram(layout, bins)(layout.split(torch.tensor(x)))
    expected = []
    for row in _rows(x, granularity):
        end = 2.0 ** (math.floor(math.log2(max(abs(row)))) + 1)
        counts = [0.0] * bins
        for value in row:
            counts[math.floor(abs(value) / end * bins)] += 1
        expected += [*counts, end]
    assert (expected, (*layout.scale_shape, bins + 1)) == (actual.flatten().tolist(), tuple(actual.shape))


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_histograms_are_added_exactly(granularity, order):
    """What is gathered is the histogram of all values of all batches, in whatever order they come."""
    batches, layout = _batches()[::order], GRANULARITIES[granularity]()
    statistics = [AbsHistogram(layout, 64)(layout.split(torch.tensor(batch))) for batch in batches]
    rows = [np.concatenate(rows) for rows in zip(*(_rows(batch, granularity) for batch in batches), strict=True)]
    expected = [AbsHistogram(histogram_bins=64)(torch.tensor(row)).tolist() for row in rows]
    assert expected == _gather(RunningPercentile(histogram_bins=64), statistics).reshape(-1, 65).tolist()


@pytest.mark.parametrize("q", [0.001, 37.0, 90.0, 99.0, 100.0])
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_percentile_of_all_batches(granularity, q):
    """The percentile is above that of all values, by less than two bins of the largest magnitude."""
    layout, running = GRANULARITIES[granularity](), RunningPercentile(q, 256)
    statistics = [AbsHistogram(layout, 256)(layout.split(torch.tensor(batch))) for batch in _batches()]
    actual = running.read(_gather(running, statistics))
    rows = [np.concatenate(rows) for rows in zip(*(_rows(batch, granularity) for batch in _batches()), strict=True)]
    exact = [sorted(abs(row))[max(1, math.floor(q / 100 * len(row) + 0.5)) - 1] for row in rows]
    errors = np.array(actual.flatten().tolist()) - exact
    limits = [2 * max(abs(row)) / 256 for row in rows]
    assert (True, True, layout.scale_shape) == (
        bool((errors > 0).all()),
        bool((errors <= limits).all()),
        tuple(actual.shape),
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_counted_in_float32(dtype):
    """Numbers of half precision are counted as the float64 numbers that they are."""
    x = torch.tensor(_batches()[0]).to(dtype)
    assert AbsHistogram()(x.double()).tolist() == AbsHistogram()(x.float()).tolist()


def test_state_shape_is_that_of_the_histogram():
    """The shape that is reserved is the one that histograms have."""
    shapes = [
        (RunningPercentile(histogram_bins=5).state_shape(layout.scale_shape), AbsHistogram(layout, 5))
        for layout in (PerTensor(), PerChannel(SHAPE, 1))
    ]
    x = torch.ones(SHAPE)
    assert [shape for shape, _ in shapes] == [tuple(stats(x).shape) for _, stats in shapes]


def test_zeros_are_counted():
    """Batches of zeros have a percentile of zero, and join others."""
    running, batch = RunningPercentile(75.0, 4), AbsHistogram(histogram_bins=4)
    zeros, others = batch(torch.zeros(4)), batch(torch.tensor([1.0, 3.0]))
    assert (0.0, [4.0, 1.0, 0.0, 1.0, 4.0], 0.0) == (
        running.read(zeros).item(),
        _gather(running, [zeros, others]).tolist(),
        running.read(torch.zeros(5)).item(),
    )


def test_percentiles_of_more_values_than_float32_counts():
    """After 2 ** 24 zeros each of four more values counts."""
    gathered = torch.tensor([2.0**24, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 8.0])
    n = 2**24 + 4
    ends = [RunningPercentile(100 * k / n, 8).read(gathered).item() for k in range(n - 4, n + 1)]
    assert [1.0, 2.0, 3.0, 4.0, 5.0] == ends


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_stays_visible(bad):
    """A row that is infinite or NaN has a histogram and a percentile that are; other rows are as they are."""
    x = torch.tensor([[1.0, bad], [1.0, 3.0]])
    histogram = AbsHistogram(PerChannel((2, 2), 0), 4)(x)
    read = RunningPercentile(100.0, 4).read(histogram)
    expected = (False, [0.0, 1.0, 0.0, 1.0, 4.0], False, 4.0)
    assert expected == (
        bool(torch.isfinite(histogram[0]).any()),
        histogram[1].flatten().tolist(),
        math.isfinite(read[0].item()),
        read[1].item(),
    )


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_sides(granularity):
    """The statistic of either side is that of the values of that side, the others being zeros."""
    x, layout = _batches()[0], GRANULARITIES[granularity]()
    actual = TwoSided(AbsMax(layout))(layout.split(torch.tensor(x)))
    rows = _rows(x, granularity)
    expected = [[max(0.0, -row.min()) for row in rows], [max(0.0, row.max()) for row in rows]]
    assert (expected, (2, *layout.scale_shape)) == (actual.reshape(2, -1).tolist(), tuple(actual.shape))


# What gathers a side, the statistic of a batch's magnitudes, and what is left of all batches of a row.
INTERVALS = {
    "max": (RunningMax, AbsMax, lambda rows: (min(0.0, np.min(rows)), max(0.0, np.max(rows)))),
    "true average": (
        TrueAverage,
        AbsMax,
        lambda rows: (np.mean([min(0.0, row.min()) for row in rows]), np.mean([max(0.0, row.max()) for row in rows])),
    ),
    "moving average": (
        lambda: MovingAverage(0.25),
        AbsMax,
        lambda rows: (_moving([min(0.0, row.min()) for row in rows]), _moving([max(0.0, row.max()) for row in rows])),
    ),
}


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("case", INTERVALS)
def test_intervals(case, granularity):
    """Width and lower end are those of one interval, whatever batches its ends come from."""
    create, side, reference = INTERVALS[case]
    layout, running = GRANULARITIES[granularity](), RunningInterval(create())
    shifted = [batch + shift for batch, shift in zip(_batches(), [5, 0, -9, 1, 2, 0], strict=True)]
    gathered = _gather(running, [TwoSided(side(layout))(layout.split(torch.tensor(batch))) for batch in shifted])
    by_row = list(zip(*(_rows(batch, granularity) for batch in shifted), strict=True))
    expected = [reference(rows) for rows in by_row]
    low, width = running.lowest.read(gathered), running.read(gathered)
    # Six sums and products of float64.
    assert pytest.approx([low for low, _ in expected], rel=1e-13) == low.flatten().tolist()
    assert pytest.approx([high - low for low, high in expected], rel=1e-13) == width.flatten().tolist()
    assert (layout.scale_shape, layout.scale_shape) == (tuple(low.shape), tuple(width.shape))


def test_interval_of_percentiles_of_all_batches():
    """Both ends are percentiles of all values of all batches, above them by less than two bins of the largest."""
    running = RunningInterval(RunningPercentile(90.0, 256))
    shifted = [batch + 3 for batch in _batches()]
    gathered = _gather(running, [TwoSided(AbsHistogram(histogram_bins=256))(torch.tensor(b)) for b in shifted])
    values = sorted(np.concatenate([batch.flatten() for batch in shifted]).tolist())
    n = len(values)
    high, low = values[math.floor(0.9 * n + 0.5) - 1], values[n - math.floor(0.9 * n + 0.5)]
    bins = [2 * max(0.0, -values[0]) / 256, 2 * values[-1] / 256]
    found_low = running.lowest.read(gathered).item()
    found_high = running.read(gathered).item() + found_low
    assert (2, 257) == tuple(running.state_shape(())) == tuple(gathered.shape)
    assert (True, True) == (0 <= low - found_low <= bins[0], 0 <= found_high - high <= bins[1])


def test_gradients_of_an_interval():
    """The width of a batch moves with its largest value and against its smallest, its lower end with the latter."""
    x = torch.tensor([-2.0, 0.5, 3.0], requires_grad=True)
    running = RunningInterval(RunningMax())
    running.read(TwoSided(AbsMax())(x)).backward()
    width, x.grad = x.grad.tolist(), None
    running.lowest.read(TwoSided(AbsMax())(x)).backward()
    assert ([-1.0, 0.0, 1.0], [1.0, 0.0, 0.0]) == (width, x.grad.tolist())


@pytest.mark.parametrize(
    "create", [lambda: TwoSided(AbsPercentile(high_percentile_q=90.0)), lambda: RunningInterval(TrueAverage())]
)
def test_intervals_travel(create, travel, outcome):
    """A copy, by whatever way, gives equal values and gradients."""
    module = create()
    sides = (torch.tensor([2.0, 3.0]), torch.tensor([3.0, 1.0]), torch.tensor(2))
    inputs = sides if isinstance(module, RunningInterval) else (torch.tensor(_batches()[0]),)
    assert outcome(module, *inputs) == outcome(travel(create, module), *inputs)


REFUSALS = [
    (lambda: MovingAverage(1.5), "`scaling_stats_momentum` (=1.5) must be a number from 0 to 1"),
    (lambda: AbsHistogram(histogram_bins=0), "`histogram_bins` (=0) must be a whole number, 1 or more"),
    (lambda: RunningPercentile(high_percentile_q=0), "`high_percentile_q` (=0) must be a finite number above 0"),
    (
        lambda: RunningPercentile(histogram_bins=4)(torch.zeros(9), torch.zeros(9), torch.tensor(0)),
        "a percentile over `histogram_bins` (=4) bins can not gather a statistic of shape (9,). "
        "Its statistic is `AbsHistogram`, with as many bins",
    ),
    (
        lambda: AbsHistogram(PerToken())(torch.zeros(2, 3)),
        "the scale of tokens depends on the tensor: it can be computed from it, and not be a parameter",
    ),
]


@pytest.mark.parametrize(("act", "message"), REFUSALS)
def test_what_can_not_be_gathered_is_refused(act, message):
    """An argument out of range, or a statistic of another kind, is refused with its rule."""
    with pytest.raises(ArgumentError) as error:
        act()
    assert message == str(error.value)


def test_intervals_wider_than_the_largest_number():
    """Width and lower end of huge values fit float32: both ends are clipped alike."""
    running = RunningInterval(RunningMax())
    sides = TwoSided(AbsMax())(torch.tensor([-3e38, 3e38]))
    half = torch.finfo(torch.float32).max / 2
    assert (running.read(sides).item(), running.lowest.read(sides).item()) == pytest.approx((2 * half, -half), rel=2e-6)


def test_histograms_end_at_the_last_power_of_two():
    """Values beyond 2 ** 127 are counted in the last bin."""
    assert AbsHistogram(histogram_bins=2)(torch.tensor([3e38, 1e38, 1.0])).tolist() == [1.0, 2.0, 2.0**127]
