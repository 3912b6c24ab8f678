"""Grids that are searched on, and ranges of minifloats and blocks, against loops in float64 over their numbers."""

import math

import numpy as np
import pytest
import torch

from brevq.core.formats import FloatFormat
from brevq.core.formats.catalogue import (
    FP4_E2M1,
    FP8_E4M3,
    FP8_E4M3FNUZ,
    FP8_E5M2,
    MX9,
    MXFP4,
    MXFP8_E4M3,
    MXINT8,
    NVFP4,
)
from brevq.core.function_wrapper import PerChannel, PerGroup, PerTensor
from brevq.core.quant import FloatQuant
from brevq.core.restrict_val import PowerOfTwoRestrictValue
from brevq.core.scaling import BlockScaling, FloatScaling, PowerOfTwoFloatScaling, StatsScaling
from brevq.core.stats import MSE, AbsMax, BlockGrid, FormatGrid
from brevq.errors import ArgumentError
from brevq.nn import QuantLinear
from injectors import Fp8e4m3OCPWeightPerTensorMSE, MXFp4Weight, MXFp8e4m3WeightMSE

SHAPE = (4, 3, 16)
GRANULARITIES = {
    "tensor": PerTensor,
    "axis 0": lambda: PerChannel(SHAPE, 0),
    "axis 1": lambda: PerChannel(SHAPE, 1),
    "group": lambda: PerGroup(group_size=8, tensor_shape=SHAPE),
}
FORMATS = [FP4_E2M1, FP8_E4M3, FP8_E4M3FNUZ, FP8_E5M2, FloatFormat("e3m0", 3, 0), FloatFormat("e2m3", 2, 3, bias=4)]
BLOCKS = [MXFP4, MXFP8_E4M3, MXINT8, MXFP4.with_rule("even"), MXFP4.with_rule("ceil")]


def _values(shape=SHAPE, seed=1):
    """Normal numbers, and a few ten times as large."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=shape) * np.where(rng.random(shape) < 0.03, 10, 1)


def _rows(x, granularity):
    """The values of each scale: all, by index along the axis, or in runs of eight."""
    if granularity == "group":
        return list(x.reshape(-1, 8))
    if granularity == "tensor":
        return [x.reshape(-1)]
    axis = int(granularity.split()[1])
    return [np.take(x, index, axis).reshape(-1) for index in range(x.shape[axis])]


def _error(row, scale, numbers):
    """The squared error of a row when each value becomes the nearest of some numbers, scaled."""
    return sum(min(abs(scale * number - value) for number in numbers) ** 2 for value in row)


def _best(row, numbers, iters):
    """The best range of the largest value's fractions, the largest of several, and its error."""
    largest = max(abs(value) for value in row)
    errors = {
        largest * k / iters: _error(row, largest * k / iters / max(numbers), numbers) for k in range(1, iters + 1)
    }
    return max(errors, key=lambda candidate: (-errors[candidate], candidate)), min(errors.values())


def _create(number_format=FP8_E4M3, granularity=None, **options):
    return MSE(FormatGrid(number_format, FloatScaling(number_format)), granularity, **options)


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("number_format", FORMATS, ids=str)
def test_ranges_of_formats(number_format, granularity):
    """No fraction of the largest value has a smaller error than the one that is found, by the numbers of the format."""
    x, layout, numbers = _values(), GRANULARITIES[granularity](), number_format.values().tolist()
    found = _create(number_format, layout, mse_iters=20)(layout.split(torch.tensor(x)))
    rows = _rows(x, granularity)
    errors = [
        _error(row, range_ / max(numbers), numbers) for row, range_ in zip(rows, found.flatten().tolist(), strict=True)
    ]
    # Errors are sums of 192 squares of float64 at most; where two candidates are equally good either may be found.
    assert pytest.approx([_best(row, numbers, 20)[1] for row in rows], rel=1e-12) == errors
    assert layout.scale_shape == tuple(found.shape)


@pytest.mark.parametrize("block_format", BLOCKS, ids=str)
def test_scales_of_blocks(block_format):
    """A block's scale is the best power of two from a quarter of that of its rule to twice that."""
    x, groups = _values((3, 64)), PerGroup(group_size=32)
    stats = MSE(BlockGrid(block_format), groups, mse_iters=8, mse_reach=2.0)
    scales = BlockScaling(block_format, stats)(groups.split(torch.tensor(x).float())).flatten().tolist()
    numbers = block_format.element.cast(torch.arange(-(2**15), 2**15) / 64).unique().tolist()
    for row, scale in zip(x.astype(np.float32).reshape(-1, 32).tolist(), scales, strict=True):
        plain = block_format.scale_of(torch.tensor([[max(abs(value) for value in row)]])).item()
        assert 1.0 == 2 * math.frexp(scale)[0]
        best = min(_error(row, plain * power, numbers) for power in (0.25, 0.5, 1.0, 2.0))
        assert pytest.approx(best, rel=1e-5) == _error(row, scale, numbers)  # what is searched is float32


def test_powers_of_two_of_formats():
    """With powers of two the range that is used is the best of those that are powers of two."""
    x, restrict = _values(), PowerOfTwoRestrictValue()
    grid = FormatGrid(FP4_E2M1, PowerOfTwoFloatScaling(FP4_E2M1))
    used = StatsScaling(MSE(grid, restrict_scaling_impl=restrict), restrict)(torch.tensor(x)).item()
    numbers = FP4_E2M1.values().tolist()
    assert used == min((2.0**k for k in range(-4, 6)), key=lambda r: _error(x.flatten().tolist(), r / 4, numbers))


@pytest.mark.parametrize("number_format", FORMATS, ids=str)
def test_errors_are_those_of_the_quantizer(number_format):
    """What is searched for is best in the quantizer itself, among candidates that it is given one by one."""
    x = torch.tensor(_values())
    scaling = FloatScaling(number_format)

    def error(stats):
        return (FloatQuant(number_format, StatsScaling(stats), scaling)(x)[0] - x).square().mean().item()

    class Fraction(torch.nn.Module):
        granularity_impl = PerTensor()

        def __init__(self, k):
            super().__init__()
            self.k = k

        def forward(self, x):
            return x.abs().amax() * self.k / 10

    expected = min(error(Fraction(k)) for k in range(1, 11))
    assert pytest.approx(expected, rel=1e-13) == error(_create(number_format, mse_iters=10))


def test_gradient():
    """The gradient is that of the largest value times a constant."""
    x = torch.tensor(_values(), requires_grad=True)
    result = _create(FP4_E2M1)(x)
    result.backward()
    where = int(x.abs().argmax())
    expected = np.zeros(x.numel())
    expected[where] = result.item() / x.flatten()[where].item()
    assert pytest.approx(expected, rel=1e-15, abs=0) == x.grad.flatten().numpy()  # a product and a quotient


def test_corner_cases():
    """Zeros have range zero, NaN has NaN, other rows are as they are, and an infinity has an infinite range."""
    x = torch.tensor(_values((4, 8)))
    expected = _create(FP4_E2M1, PerChannel((4, 8), 0))(x).flatten().tolist()
    bad = x.clone()
    bad[0], bad[1, 3], bad[2, 2] = 0.0, math.nan, math.inf
    actual = _create(FP4_E2M1, PerChannel((4, 8), 0))(bad).flatten().tolist()
    assert (0.0, True, math.inf, expected[3]) == (actual[0], math.isnan(actual[1]), actual[2], actual[3])


def test_overflow_is_never_the_best():
    """Candidates that a format without saturation takes to NaN are left out, the first one too."""
    never = FloatFormat("e2m1 strict", 2, 1, special="last", saturating=False)  # numbers up to 4, then NaN
    stats = MSE(FormatGrid(never, PowerOfTwoFloatScaling(FP8_E4M3)), mse_iters=4, mse_reach=512.0)
    # Scales 2, 1.5, 1 and 0.5 times the largest value over 1: at 0.25 and less of it, x / scale is above 4.
    x = torch.tensor([1.0, 0.3])
    scale = (stats(x) / 256).item()
    assert 1.0 <= 4 * scale


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_searched_in_float32(dtype):
    """For numbers of half precision float32 finds the range that float64 finds."""
    x = torch.tensor(_values()).to(dtype)
    stats = _create(FP4_E2M1)
    # One candidate is a twentieth of the other; the range is a product of two numbers.
    assert pytest.approx(stats(x.double()).item(), rel=2**-22) == stats(x.float()).item()


@pytest.mark.parametrize("create", [_create, lambda: MSE(BlockGrid(MXFP4), PerGroup(32), mse_iters=8, mse_reach=2.0)])
def test_travels(create, travel, outcome):
    """A copy, by whatever way, gives equal values and gradients."""
    x = torch.tensor(_values((2, 2, 32)).astype(np.float32))
    module = create()
    assert outcome(module, x) == outcome(travel(create, module), x)


@pytest.mark.parametrize(
    ("recipe", "names"),
    [
        (Fp8e4m3OCPWeightPerTensorMSE, {"float_format": FP4_E2M1}),
        (Fp8e4m3OCPWeightPerTensorMSE, {"float_format": FP4_E2M1, "granularity_impl": PerChannel}),
        (
            Fp8e4m3OCPWeightPerTensorMSE,
            {"float_format": FP4_E2M1, "granularity_impl": PerGroup, "group_size": 16, "group_axis": 1},
        ),
        (MXFp8e4m3WeightMSE, {"block_format": MXFP4}),
    ],
)
def test_recipes_search_on_their_own_format(recipe, names):
    """A recipe searches on the format that it quantizes to: its error is below that of the largest value."""
    layer = QuantLinear(64, 8, weight_quant=recipe.let(**names))
    largest = recipe.let(**{**names, "scaling_stats_impl": AbsMax})
    plain = QuantLinear(64, 8, weight_quant=largest)
    layer.weight.data.copy_(torch.from_numpy(np.random.default_rng(2).normal(size=(8, 64))))
    plain.weight.data.copy_(layer.weight.data)
    errors = [(each.quant_weight().value - each.weight).square().sum().item() for each in (layer, plain)]
    assert errors[0] < errors[1]


def test_rows_of_blocks_are_searched_apart():
    """The scale of a block does not depend on its neighbours."""
    x = torch.from_numpy(_values((3, 64)))
    layer = QuantLinear(64, 3, weight_quant=MXFp4Weight.let(scaling_stats_impl=MSE, search_grid_impl=BlockGrid))
    layer.weight.data.copy_(x)
    before = layer.quant_weight().scale.detach().clone()
    layer.weight.data[0, :32] *= 100
    after = layer.quant_weight().scale.detach()
    assert before.flatten().tolist()[1:] == after.flatten().tolist()[1:]


@pytest.mark.parametrize("block_format", [NVFP4, MX9], ids=str)
def test_two_levels_of_scales_are_refused(block_format):
    """Formats whose scales depend on each other are refused, with a way out."""
    with pytest.raises(ArgumentError) as error:
        BlockGrid(block_format)
    expected = (
        f"`block_format` (={block_format}) has two levels of scales, and the best scale of a group depends on that of "
        "others: search with a format that has one, such as MXFP4"
    )
    assert expected == str(error.value)
