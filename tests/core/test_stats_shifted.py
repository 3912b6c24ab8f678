"""Intervals of least squared error on grids with a zero-point, against loops over values and candidates in float64."""

import math

import numpy as np
import pytest
import torch

from brevq.core.bit_width import BitWidthConst, BitWidthParameter
from brevq.core.function_wrapper import FloorSte, PerChannel, PerGroup, PerTensor
from brevq.core.quant import IntQuant
from brevq.core.restrict_val import PowerOfTwoRestrictValue
from brevq.core.scaling import IntScaling, PowerOfTwoIntScaling
from brevq.core.stats import AbsMinMax, IntervalSearch, MSEInterval, NearestGrid, NegativeMinOrZero, NegativeMSEOrZero
from brevq.core.zero_point import StatsZeroPoint
from brevq.errors import ArgumentError
from brevq.graph import calibrating
from brevq.nn import QuantIdentity, QuantLinear
from injectors import ShiftedUint8ActPerTensorMSE, ShiftedUint8WeightPerChannelMSE, ShiftedUint8WeightPerTensorMSE

SHAPE = (4, 3, 16)
GRANULARITIES = {
    "tensor": PerTensor,
    "axis 0": lambda: PerChannel(SHAPE, 0),
    "axis 1": lambda: PerChannel(SHAPE, 1),
    "group": lambda: PerGroup(group_size=8, tensor_shape=SHAPE),
}
# Bits, signed, narrow, and with them the lowest and the highest code: the threshold is their distance.
GRIDS = {
    "uint2": (2, False, False, 0, 3),
    "uint4": (4, False, False, 0, 15),
    "uint4 narrow": (4, False, True, 0, 14),
    "int4": (4, True, False, -8, 7),
    "int4 narrow": (4, True, True, -7, 7),
}
ITERS = 20


class Steps(torch.nn.Module):
    """A threshold of as many steps as a grid has."""

    def __init__(self, steps):
        super().__init__()
        self.steps = steps

    def forward(self, bit_width):
        return torch.tensor(float(self.steps))


def _values(shape=SHAPE, seed=1, shift=0.6):
    """Normal numbers around 0.6, and a few ten times as large."""
    rng = np.random.default_rng(seed)
    return shift + rng.normal(size=shape) * np.where(rng.random(shape) < 0.03, 10, 1)


def _rows(x, granularity):
    """The values of each scale: all, by index along the axis, or in runs of eight."""
    if granularity == "group":
        return list(x.reshape(-1, 8))
    if granularity == "tensor":
        return [x.reshape(-1)]
    axis = int(granularity.split()[1])
    return [np.take(x, index, axis).reshape(-1) for index in range(x.shape[axis])]


def _grid(name):
    bits, signed, narrow, low, high = GRIDS[name]
    return NearestGrid(BitWidthConst(bits), Steps(high - low), signed, narrow)


def _search(name="uint4", granularity=None, **options):
    return IntervalSearch(_grid(name), granularity, **{"mse_iters": ITERS, **options})


def _code(steps, low, high):
    return min(max(round(steps), low), high)  # Python's own rounds halves to even


def _error(row, lowest, width, low, high, restrict=lambda r: r, quantize=True):
    """The squared error of a row whose interval has this lower end and width, on codes from `low` to `high`."""
    scale = restrict(width) / (high - low)
    zero = low - lowest / scale
    zero = _code(zero, low, high) if quantize else zero
    return sum((scale * (_code(v / scale + zero, low, high) - zero) - v) ** 2 for v in row)


def _every_interval(row, low, high):
    """The least error of all pairs of a lower and an upper end, each a multiple of that of the row."""
    bottom, top = min(0.0, *row), max(0.0, *row)
    multiples = [k / ITERS for k in range(1, ITERS + 1)]
    return min(_error(row, a * bottom, b * top - a * bottom, low, high) for a in multiples for b in multiples)


def _passes(row, low, high, quantize=True):
    """The lower end and the width that four passes find, one after another."""
    bottom = min(0.0, *row)
    full = max(0.0, *row) - bottom
    multiples = [k / ITERS for k in range(ITERS, 0, -1)]

    def improve(best, intervals):
        for interval in intervals:
            best = min(best, (_error(row, *interval, low, high, quantize=quantize), interval), key=lambda pair: pair[0])
        return best

    best = improve((math.inf, None), [(k * bottom, k * full) for k in multiples])
    best = improve(best, [(k * bottom, best[1][1]) for k in multiples])
    best = improve(best, [(best[1][0], k * full) for k in multiples])
    top = sum(best[1])
    lowest, width = improve(best, [(k * bottom, top - k * bottom) for k in multiples])[1]
    if quantize:
        scale = width / (high - low)
        lowest = (low - _code(low - lowest / scale, low, high)) * scale
    return lowest, width


@pytest.mark.parametrize("quantize", [True, False])
@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("grid", GRIDS)
def test_values(grid, granularity, quantize):
    """What is found for each row is what a loop over its values and the candidates finds."""
    x, layout = _values(), GRANULARITIES[granularity]()
    low, width = _search(grid, layout, quantize_zero_point=quantize)(layout.split(torch.tensor(x)))
    expected = [_passes(row.tolist(), *GRIDS[grid][3:], quantize) for row in _rows(x, granularity)]
    # A sum and a quotient or two of float64.
    assert pytest.approx([lowest for lowest, _ in expected], rel=1e-12) == low.flatten().tolist()
    assert pytest.approx([width for _, width in expected], rel=1e-12) == width.flatten().tolist()
    assert (layout.scale_shape, layout.scale_shape) == (tuple(low.shape), tuple(width.shape))


@pytest.mark.parametrize("shift", [0.0, 0.6, 3.0, -3.0])
@pytest.mark.parametrize("grid", ["uint2", "uint4", "int4"])
def test_nearly_the_best_of_all_intervals(grid, shift):
    """The error that four passes reach is within 3 % of that of all pairs of ends, and in no row above 10 % of it."""
    rows = _values((16, 64), shift=shift)
    low, high = GRIDS[grid][3:]
    found = _search(grid, PerChannel((16, 64), 0))(torch.tensor(rows))
    ends = zip(*(end.flatten().tolist() for end in found), strict=True)
    errors = np.array([_error(row.tolist(), *end, low, high) for row, end in zip(rows, ends, strict=True)])
    best = np.array([_every_interval(row.tolist(), low, high) for row in rows])
    assert (True, True) == (bool(errors.sum() <= 1.03 * best.sum()), bool((errors <= 1.1 * best).all()))


@pytest.mark.parametrize("rounding", [None, FloorSte()])
def test_powers_of_two(rounding):
    """Candidates are compared with the scale that is used: no other power of two and zero-point are better."""
    rows, restrict = _values((8, 64)), PowerOfTwoRestrictValue(rounding)
    grid = NearestGrid(BitWidthConst(4), PowerOfTwoIntScaling(False), False, False)
    search = IntervalSearch(grid, PerChannel((8, 64), 0), restrict)
    low, width = search(torch.tensor(rows))
    scales = (restrict(restrict.encode(width)) / 16).flatten().tolist()
    for row, scale, lowest in zip(rows.tolist(), scales, low.flatten().tolist(), strict=True):
        assert 0.5 == math.frexp(scale)[0]
        found = _error(row, lowest, 15 * scale, 0, 15)
        # Powers of two that a width up to the whole of the row has, and all codes as zero-points.
        full = restrict(restrict.encode(torch.tensor(max(0.0, *row) - min(0.0, *row)))).item() / 16
        others = [_error(row, -zero * s, 15 * s, 0, 15) for s in (full, full / 2, full / 4) for zero in range(16)]
        assert pytest.approx(min(others), rel=1e-12) == found


def test_lower_end_is_on_a_code():
    """Where the zero-point is a code, the lower end is that many steps below zero."""
    low, width = _search("uint4", PerChannel(SHAPE, 0))(torch.tensor(_values()))
    zero_points = (-low / (width / 15)).flatten().tolist()
    assert pytest.approx([round(z) for z in zero_points], rel=1e-12) == zero_points


@pytest.mark.parametrize("grid", GRIDS)
def test_range_and_zero_point_belong_together(grid):
    """With the range and the zero-point that are found, the quantizer's error is that of the search."""
    x, (bits, signed, narrow, low, high) = torch.tensor(_values()), GRIDS[grid]
    search, quant = _search(grid), IntQuant(narrow_range=narrow, signed=signed)
    scale = MSEInterval(search)(x) / (high - low)
    bit_width = torch.tensor(float(bits))
    zero_point = StatsZeroPoint(quant, NegativeMSEOrZero(search))(x, scale, bit_width)
    actual = (quant(scale, zero_point, bit_width, x) - x).square().sum().item()
    row = x.flatten().tolist()
    assert pytest.approx(_error(row, *_passes(row, low, high), low, high), rel=1e-12) == actual


@pytest.mark.parametrize("stats", [MSEInterval, NegativeMSEOrZero])
def test_gradients(stats):
    """The gradient is that of a constant multiple of the width, or of the smallest value."""
    x = torch.tensor(_values(), requires_grad=True)
    result = stats(_search())(x)
    result.backward()
    plain = (AbsMinMax() if stats is MSEInterval else NegativeMinOrZero())(x.detach()).item()
    expected = np.zeros(x.numel())
    expected[int(x.argmin())] = -1.0 if stats is MSEInterval else 1.0
    if stats is MSEInterval:
        expected[int(x.argmax())] = 1.0
    assert pytest.approx(expected * result.item() / plain, rel=1e-15, abs=0) == x.grad.flatten().numpy()


@pytest.mark.parametrize("stats", [MSEInterval, NegativeMSEOrZero])
def test_travels(stats, travel, outcome):
    """A copy, by whatever way, gives equal values and gradients."""
    x = torch.tensor(_values().astype(np.float32))

    def create():
        return stats(_search(granularity=PerChannel(SHAPE, 0), mse_iters=4))

    module = create()
    assert outcome(module, x) == outcome(travel(create, module), x)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_searched_in_float32(dtype):
    """For numbers of half precision float32 finds what float64 finds."""
    x, search = torch.tensor(_values()).to(dtype), _search()
    expected, actual = search(x.double()), search(x.float())
    # Sums and quotients of a few numbers of float32.
    assert pytest.approx([end.item() for end in expected], rel=2**-20) == [end.item() for end in actual]


def test_corner_cases():
    """Zeros have no width, what is not finite gives NaN, one side alone ends at zero, other rows are as they are."""
    x = torch.tensor(_values((6, 8)))
    layout = PerChannel((6, 8), 0)
    expected = _search(granularity=layout)(x)
    bad = x.clone().requires_grad_()
    masked = bad * torch.tensor([0.0, 1, 1, 1, 1, 1]).reshape(6, 1)
    holes = torch.zeros(6, 8)
    holes[1, 3], holes[2, 2] = math.nan, math.inf
    masked = torch.where(holes == 0, masked, holes)
    sides = torch.stack([*masked[:3], masked[3].abs(), -masked[4].abs(), masked[5]])
    low, width = _search(granularity=layout)(sides)
    (low[[0, 3, 4, 5]].sum() + width[[0, 3, 4, 5]].sum()).backward()
    assert (0.0, 0.0) == (low[0].item(), width[0].item())
    assert [True, True] == [math.isnan(width[row].item()) for row in (1, 2)]
    assert (0.0, -width[4].item()) == (low[3].item(), pytest.approx(low[4].item(), rel=1e-12))
    assert (expected[0][5].item(), expected[1][5].item()) == (low[5].item(), width[5].item())
    assert torch.isfinite(bad.grad[[0, 3, 4, 5]]).all()


@pytest.mark.parametrize("factor", [4.0, 0.25, 2.0**-90, 2.0**90])
def test_a_multiple_has_the_multiple(factor):
    """What is found for a power of two times a tensor is that times what is found for the tensor.

    So it is where float32 has no number for the square of an error.
    """
    x = torch.tensor(_values().astype(np.float32))
    assert [factor * end.item() for end in _search()(x)] == [end.item() for end in _search()(factor * x)]


def test_bit_width_that_is_learned_receives_no_gradient():
    """The interval is constant to the bit width that it was searched for."""
    bit_width = BitWidthParameter(4)
    grid = NearestGrid(bit_width, IntScaling(False, False), False, False)
    x = torch.tensor(_values(), requires_grad=True)
    MSEInterval(IntervalSearch(grid, mse_iters=4))(x).backward()
    assert bit_width.offset.grad is None


@pytest.mark.parametrize(
    "recipe",
    [
        ShiftedUint8WeightPerTensorMSE,
        ShiftedUint8WeightPerChannelMSE,
        ShiftedUint8WeightPerChannelMSE.let(restrict_scaling_impl=PowerOfTwoRestrictValue),
        ShiftedUint8WeightPerTensorMSE.let(granularity_impl=PerGroup, group_size=16, group_axis=1),
        ShiftedUint8WeightPerTensorMSE.let(quantize_zero_point=False),
    ],
)
def test_weights_of_recipes(recipe):
    """At 4 bits the squared error of weights is below that of their extrema, and the search is made once."""
    low_bits = recipe.let(bit_width=4)
    extrema = low_bits.let(scaling_stats_impl=AbsMinMax, zero_point_stats_impl=NegativeMinOrZero)
    layers = [QuantLinear(64, 8, weight_quant=each) for each in (low_bits, extrema)]
    for layer in layers:
        layer.weight.data.copy_(torch.from_numpy(_values((8, 64))))
    errors = [(each.quant_weight().value - each.weight).square().sum().item() for each in layers]
    assert errors[0] < errors[1]
    before = layers[0].quant_weight().zero_point.tolist()
    layers[0].weight.data.mul_(3)
    assert before == layers[0].quant_weight().zero_point.tolist()


@pytest.mark.parametrize("names", [{}, {"restrict_scaling_impl": PowerOfTwoRestrictValue}])
def test_activations_of_recipes(names):
    """At 3 bits the squared error of calibrated activations is below that of percentiles with the same restriction."""
    recipe = ShiftedUint8ActPerTensorMSE.let(bit_width=3, **names)
    x = torch.from_numpy(np.random.default_rng(3).standard_t(3, size=(8, 256))).float() + 0.5
    errors = []
    for each in (recipe, recipe.let(scaling_stats_impl=AbsMinMax, zero_point_stats_impl=NegativeMinOrZero)):
        layer = QuantIdentity(act_quant=each).eval()
        with calibrating(layer):
            layer(x)
        errors.append((layer(x) - x).square().sum().item())
    assert errors[0] < errors[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mse_iters": 0}, "`mse_iters` (=0) must be a whole number, 1 or more"),
        ({"mse_reach": -1.0}, "`mse_reach` (=-1.0) must be a finite number above 0"),
    ],
)
def test_arguments_out_of_range_are_refused(options, message):
    """A search without candidates is refused with the rule."""
    with pytest.raises(ArgumentError) as error:
        _search(**options)
    assert message == str(error.value)


def test_an_interval_wider_than_the_largest_number():
    """It is clipped before the search, both ends alike, so that what is found is finite."""
    grid = NearestGrid(BitWidthConst(8), IntScaling(False, False), signed=False, narrow_range=False)
    low, width = IntervalSearch(grid)(torch.tensor([-3e38, 3e38, 1e38, -1e38]))
    half = torch.finfo(torch.float32).max / 2
    assert (low.item(), width.item()) == pytest.approx((-half, 2 * half), rel=0.01)
