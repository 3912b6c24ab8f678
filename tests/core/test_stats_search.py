"""Ranges and zero-points that are searched for, against slow loops over rows, candidates and values in float64."""

import math

import numpy as np
import pytest
import torch

from brevq.core.bit_width import BitWidthConst, BitWidthParameter
from brevq.core.function_wrapper import FloorSte, PerChannel, PerGroup, PerTensor
from brevq.core.quant import IntQuant
from brevq.core.restrict_val import PowerOfTwoRestrictValue
from brevq.core.scaling import IntScaling, LearnedStatsScaling, PowerOfTwoIntScaling, StatsScaling
from brevq.core.stats import (
    MSE,
    AbsMax,
    AbsMinMax,
    HalfQuadratic,
    HalfQuadraticOptimizerScale,
    HalfQuadraticOptimizerZeroPoint,
    NearestGrid,
)
from brevq.core.zero_point import StatsZeroPoint
from brevq.errors import ArgumentError, ArgumentTypeError
from brevq.nn import QuantLinear
from injectors import Int4WeightPerChannel

SHAPE = (4, 3, 16)
GRANULARITIES = {
    "tensor": PerTensor,
    "axis 0": lambda: PerChannel(SHAPE, 0),
    "axis 1": lambda: PerChannel(SHAPE, 1),
    "group": lambda: PerGroup(group_size=8, tensor_shape=SHAPE),
}
# Bits, signed, narrow, and with them the lowest and the highest code and the threshold.
GRIDS = {
    "int2 narrow": (2, True, True, -1, 1, 1),
    "int4": (4, True, False, -8, 7, 8),
    "int4 narrow": (4, True, True, -7, 7, 7),
    "uint4": (4, False, False, 0, 15, 15),
}
P, BETA, KAPPA = 0.7, 10.0, 1.01
SEARCH = {"scaling_stats_impl": MSE, "search_grid_impl": NearestGrid}


def _values(seed=1):
    """Normal numbers, and a few ten times as large."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=SHAPE) * np.where(rng.random(SHAPE) < 0.03, 10, 1)


def _rows(x, granularity):
    """The values of each scale: all, by index along the axis, or in runs of eight."""
    if granularity == "group":
        return list(x.reshape(-1, 8))
    if granularity == "tensor":
        return [x.reshape(-1)]
    axis = int(granularity.split()[1])
    return [np.take(x, index, axis).reshape(-1) for index in range(x.shape[axis])]


def _code(steps, low, high):
    return min(max(round(steps), low), high)  # Python's own rounds halves to even


def _mse(row, low, high, threshold, iters=100, restrict=lambda r: r):
    largest, best = max(abs(v) for v in row), None
    for k in range(iters, 0, -1):
        scale = restrict(largest * k / iters) / threshold
        error = sum((scale * _code(v / scale, low, high) - v) ** 2 for v in row)
        if best is None or error < best[0]:
            best = (error, largest * k / iters)
    return best[1]


def _shrink(error, beta):
    return math.copysign(max(abs(error) - abs(error) ** (P - 1) / beta, 0.0), error) if error else 0.0


def _hqo_scale(row, low, high, threshold):
    scale, best, beta = max(abs(v) for v in row) / threshold, None, BETA
    for _ in range(21):
        codes = [_code(v / scale, low, high) for v in row]
        errors = [v - scale * q for v, q in zip(row, codes, strict=True)]
        norm = sum(abs(e) ** P for e in errors)
        best = min(best or (norm, scale), (norm, scale), key=lambda pair: pair[0])
        inliers = [v - scale * _shrink(e / scale, beta) for v, e in zip(row, errors, strict=True)]
        if not any(codes):
            break
        scale = sum(q * v for q, v in zip(codes, inliers, strict=True)) / sum(q * q for q in codes)
        beta *= KAPPA
    return best[1] * threshold


def _hqo_zero_point(row, low, high, threshold):
    lowest = min(0.0, *row)
    scale = (max(0.0, *row) - lowest) / threshold
    zero, best, beta = low - lowest / scale, None, BETA
    for _ in range(21):
        codes = [_code(v / scale + zero, low, high) for v in row]
        errors = [v / scale - (q - zero) for v, q in zip(row, codes, strict=True)]
        norm = sum(abs(e) ** P for e in errors)
        best = min(best or (norm, zero), (norm, zero), key=lambda pair: pair[0])
        fits = [q - (v / scale - _shrink(e, beta)) for v, q, e in zip(row, codes, errors, strict=True)]
        zero, beta = sum(fits) / len(fits), beta * KAPPA
    return (low - best[1]) * scale


CASES = {
    "MSE": (MSE, _mse),
    "HalfQuadraticOptimizerScale": (HalfQuadraticOptimizerScale, _hqo_scale),
    "HalfQuadraticOptimizerZeroPoint": (HalfQuadraticOptimizerZeroPoint, _hqo_zero_point),
}


def _create(case, grid="int4 narrow", granularity=None, **options):
    bits, signed, narrow, *_ = GRIDS[grid]
    arguments = (BitWidthConst(bits), IntScaling(signed, narrow), signed, narrow)
    if case == "MSE":
        return MSE(NearestGrid(*arguments), granularity, **options)
    return CASES[case][0](*arguments, granularity, **options)


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("case", CASES)
def test_values(case, grid, granularity):
    """What is found for each row is what a loop over its values finds."""
    x, layout = _values(), GRANULARITIES[granularity]()
    actual = _create(case, grid, layout)(layout.split(torch.tensor(x)))
    expected = [CASES[case][1](row.tolist(), *GRIDS[grid][3:]) for row in _rows(x, granularity)]
    # Twenty fits, each a quotient of sums of 192 values at most: a few thousand roundings of float64.
    assert (pytest.approx(expected, rel=1e-12), layout.scale_shape) == (actual.flatten().tolist(), tuple(actual.shape))


@pytest.mark.parametrize("case", CASES)
def test_gradients(case):
    """The gradient is that of the largest value times a constant, or of the smallest value."""
    x = torch.tensor(_values(), requires_grad=True)
    stats = _create(case)
    result = stats(x)
    result.backward()
    is_zero_point = "Zero" in case
    where = int(x.argmin() if is_zero_point else x.abs().argmax())
    expected = np.zeros(x.numel())
    expected[where] = 1.0 if is_zero_point else result.item() / x.flatten()[where].item()
    assert pytest.approx(expected, rel=1e-15, abs=0) == x.grad.flatten().numpy()  # a product and a quotient


@pytest.mark.parametrize("case", CASES)
def test_travels(case, travel, outcome):
    """A copy, by whatever way, gives equal values and gradients."""
    x = torch.tensor(_values().astype(np.float32))

    def create():
        options = {"mse_iters": 8} if case == "MSE" else {"hqo_impl": HalfQuadratic(hqo_iters=4)}
        return _create(case, granularity=PerChannel(SHAPE, 0), **options)

    module = create()
    assert outcome(module, x) == outcome(travel(create, module), x)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("case", CASES)
def test_half_precision_is_searched_in_float32(case, dtype):
    """For numbers of half precision float32 finds what float64 finds."""
    x = torch.tensor(_values()).to(dtype)
    # Twenty fits, each a quotient of sums of 192 values: at most 20 * 2 * 192 roundings of float32.
    assert pytest.approx(_create(case)(x.double()).item(), rel=40 * 192 * 2**-24) == _create(case)(x.float()).item()


@pytest.mark.parametrize("factor", [4.0, 2.0**-90, 2.0**90])
@pytest.mark.parametrize("case", CASES)
def test_a_multiple_has_the_multiple(case, factor):
    """What is found for a power of two times a tensor is that times what is found for the tensor.

    So it is where float32 has no number for the square of an error.
    """
    x, stats = torch.tensor(_values().astype(np.float32)), _create(case)
    assert (factor * stats(x)).item() == stats(factor * x).item()


@pytest.mark.parametrize("case", CASES)
def test_zeros_have_a_range_of_zero(case):
    """An all-zero row gives zero, finite gradients, and leaves the other rows alone."""
    x = torch.tensor(_values(), requires_grad=True)
    layout = PerChannel(SHAPE, 0)
    masked = x * torch.tensor([1.0, 0.0, 1.0, 1.0]).reshape(4, 1, 1)
    result = _create(case, granularity=layout)(masked)
    result.sum().backward()
    expected = _create(case, granularity=layout)(x).flatten().tolist()
    expected[1] = 0.0
    assert (expected, True) == (result.flatten().tolist(), bool(torch.isfinite(x.grad).all()))


@pytest.mark.parametrize("case", CASES)
def test_nan_stays_visible(case):
    """One NaN makes the statistic NaN."""
    assert math.isnan(_create(case)(torch.tensor([1.0, math.nan, -2.0])).item())


@pytest.mark.parametrize("case", CASES)
def test_peers_are_searched_together(case):
    """The weights of layers that share a scale are looked at as one."""
    both = torch.tensor(_values().astype(np.float32)).reshape(8, 24)
    stats, layers = _create(case), [torch.nn.Linear(24, 4), torch.nn.Linear(24, 4)]
    for layer, part in zip(layers, both.split(4), strict=True):
        layer.weight.data = part
        stats.granularity_impl.add_peer(layer)
    assert _create(case)(both).item() == stats(layers[0].weight).item()


def test_range_on_the_grid_is_kept():
    """A tensor that lies on a grid keeps the range of that grid: no other has no error."""
    codes = torch.tensor([-7.0, -3.0, 0.0, 1.0, 2.0, 5.0])
    ranges = [_create(case)(codes * 0.5).item() for case in ("MSE", "HalfQuadraticOptimizerScale")]
    assert [3.5, 3.5] == ranges


def test_largest_of_several_ranges():
    """Where candidates are equally good the largest is taken: range 4 loses 2, and range 2 as much of 4."""
    stats = _create("MSE", "int2 narrow", mse_iters=2)
    assert 4.0 == stats(torch.tensor([4.0, 2.0])).item()


def test_candidates_are_compared_as_they_are_used():
    """With powers of two the range that is used is the best of those that are powers of two."""
    x, bits = _values(), 3
    restrict = PowerOfTwoRestrictValue()
    grid = NearestGrid(BitWidthConst(bits), PowerOfTwoIntScaling(True), True, True)
    stats = MSE(grid, restrict_scaling_impl=restrict)
    used = StatsScaling(stats, restrict)(torch.tensor(x)).item()

    def error(threshold):
        scale = threshold / 4
        return sum((scale * _code(v / scale, -3, 3) - v) ** 2 for v in x.flatten().tolist())

    assert min((2.0**k for k in range(-4, 6)), key=error) == used


def test_reach_beyond_the_largest_value():
    """With powers of two that are rounded down, a reach of 2 finds the one above, where nothing is clipped."""
    restrict = PowerOfTwoRestrictValue(FloorSte())
    grid = NearestGrid(BitWidthConst(3), PowerOfTwoIntScaling(True), True, True)
    x = torch.tensor([3.0, 3.0, -3.0, 3.0, 1.0])  # range 2 has steps of 0.5 up to 1.5, range 4 steps of 1 up to 3
    used = [
        restrict(restrict.encode(MSE(grid, restrict_scaling_impl=restrict, mse_iters=8, mse_reach=reach)(x))).item()
        for reach in (1.0, 2.0)
    ]
    assert [2.0, 4.0] == used


def test_bit_width_that_is_learned_receives_no_gradient():
    """The range is constant to the bit width that it was searched for."""
    bit_width = BitWidthParameter(4)
    stats = MSE(NearestGrid(bit_width, IntScaling(True, True), True, True))
    x = torch.tensor(_values(), requires_grad=True)
    stats(x).backward()
    assert bit_width.offset.grad is None


def test_range_can_be_learned_from_there():
    """A learned range can start from a search: its shape is known."""
    x = torch.tensor(_values().astype(np.float32))
    stats = _create("MSE", granularity=PerChannel(SHAPE, 0))
    assert stats(x).tolist() == LearnedStatsScaling(stats)(x).tolist()


def test_zero_point_is_better_than_that_of_the_minimum():
    """With the zero-point that was searched for, the norm of the errors is no larger than with the minimum's."""
    x = torch.tensor(_values())
    bit_width = torch.tensor(4.0)
    grid = IntQuant(narrow_range=False, signed=False)
    scale = AbsMinMax()(x) / 15
    searched = StatsZeroPoint(grid, _create("HalfQuadraticOptimizerZeroPoint", "uint4"))(x, scale, bit_width)
    norms = [(grid(scale, z, bit_width, x) - x).abs().pow(P).sum().item() for z in (searched, -x.min() / scale)]
    assert (True, searched.item()) == (norms[0] < norms[1], round(searched.item()))


@pytest.mark.parametrize(
    ("power", "names"),
    [
        (2.0, {**SEARCH, "mse_iters": 100}),
        (2.0, {**SEARCH, "mse_iters": 20}),
        (2.0, {**SEARCH, "granularity_impl": PerGroup, "group_size": 4}),
        (P, {"scaling_stats_impl": HalfQuadraticOptimizerScale}),
        (P, {"scaling_stats_impl": HalfQuadraticOptimizerScale, "hqo_impl": HalfQuadratic, "hqo_iters": 5}),
    ],
)
def test_recipes_name_searches(power, names):
    """A recipe names a search as its statistic, and what the search minimizes is less than with the largest value."""
    recipe = Int4WeightPerChannel.let(**names)
    layer = QuantLinear(64, 4, weight_quant=recipe)
    plain = QuantLinear(64, 4, weight_quant=recipe.let(scaling_stats_impl=AbsMax))
    plain.load_state_dict(layer.state_dict())
    errors = [(each.quant_weight().value - each.weight).abs().pow(power).sum().item() for each in (layer, plain)]
    assert errors[0] < errors[1]


REFUSALS = [
    (lambda: _create("MSE", mse_iters=0), ArgumentError, "`mse_iters` (=0) must be a whole number, 1 or more"),
    (
        lambda: _create("MSE", mse_iters=1.5),
        ArgumentTypeError,
        "`mse_iters` (=1.5) must be a whole number, 1 or more, not float",
    ),
    (lambda: _create("MSE", mse_reach=0), ArgumentError, "`mse_reach` (=0) must be a finite number above 0"),
    (lambda: HalfQuadratic(hqo_iters=0), ArgumentError, "`hqo_iters` (=0) must be a whole number, 1 or more"),
    (lambda: HalfQuadratic(hqo_lp_norm=0), ArgumentError, "`hqo_lp_norm` (=0) must be a finite number above 0"),
    (lambda: HalfQuadratic(hqo_lp_norm=2), ArgumentError, "`hqo_lp_norm` (=2.0) must be a number from 0 to 1"),
    (lambda: HalfQuadratic(hqo_beta=-1), ArgumentError, "`hqo_beta` (=-1) must be a finite number above 0"),
    (lambda: HalfQuadratic(hqo_kappa=0.9), ArgumentError, "`hqo_kappa` (=0.9) must be a number from 1 to 1000"),
]


@pytest.mark.parametrize(("create", "kind", "message"), REFUSALS)
def test_arguments_out_of_range_are_refused(create, kind, message):
    """A number of iterations, norm or weight out of range is refused with its rule."""
    with pytest.raises(kind) as error:
        create()
    assert message == str(error.value)


def test_the_lower_end_of_what_is_wider_than_the_largest_number():
    """It is that of the interval that `AbsMinMax` clips, both ends alike."""
    stats = HalfQuadraticOptimizerZeroPoint(BitWidthConst(8), IntScaling(False, False), False, False)
    lowest = stats(torch.tensor([-3e38, 3e38, -3e38, 3e38])).item()
    assert -2.5e38 < lowest < -1e38
