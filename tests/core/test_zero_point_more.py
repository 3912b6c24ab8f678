"""Zero-points of signed grids, of what flows at the moment, and those that are no codes."""

import math

import numpy as np
import pytest
import torch

from brevq.core.function_wrapper import PerChannel
from brevq.core.quant import DecoupledIntQuant, IntQuant
from brevq.core.scaling import IntScaling, StatsScaling
from brevq.core.stats import AbsMinMax, NegativeMinOrZero
from brevq.core.zero_point import MeanZeroPoint, ParameterZeroPoint, RuntimeStatsZeroPoint, StatsZeroPoint
from brevq.inject import check, value
from brevq.nn import QuantIdentity, QuantLinear
from injectors import Int8ActPerTensor, ShiftedUint8ActPerTensor, ShiftedUint8WeightPerTensor

# torch.compile itself makes an instance of an autograd.Function, and torch warns of those.
pytestmark = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")

SHAPE = (3, 40)
X = np.random.default_rng(5).normal(0.7, 1.0, size=SHAPE).astype(np.float32)


class ShiftedInt8Weight(ShiftedUint8WeightPerTensor):
    """Signed weights with a zero-point: their range is their width, over the number of steps."""

    signed = True

    @value
    def int_scaling_impl(narrow_range):  # noqa: N805  # its arguments are names of the recipe
        return IntScaling(signed=False, narrow_range=narrow_range)


class DynamicShiftedUint8Act(ShiftedUint8ActPerTensor):
    """Unsigned activations, whose range and zero-point are those of each input."""

    scaling_impl = StatsScaling
    scaling_stats_impl = AbsMinMax
    zero_point_impl = StatsZeroPoint
    zero_point_stats_impl = NegativeMinOrZero


class DynamicInt8Act(Int8ActPerTensor):
    """Signed activations, whose range is that of each input."""

    scaling_impl = StatsScaling


GRIDS = {
    "unsigned": (False, False, 0, 255),
    "unsigned narrow": (False, True, 0, 254),
    "signed": (True, False, -128, 127),
    "signed narrow": (True, True, -127, 127),
}


def _reference(row, low, high):
    """Codes of a row, by the width of the row and zero, which has ``high - low`` steps."""
    lowest, highest = min(0.0, float(row.min())), max(0.0, float(row.max()))
    scale = np.float32(np.float32(highest - lowest) / np.float32(high - low))
    zero_point = min(max(round(float(np.float32(-lowest) / scale) + low), low), high)
    codes = [min(max(round(float(np.float32(v / scale)) + zero_point), low), high) for v in row]
    return zero_point, codes


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("shift", [0.0, -5.0, 5.0])
def test_the_whole_grid_is_used(grid, shift):
    """The smallest and the largest value get the lowest and the highest code of every grid, and zero gets one."""
    signed, narrow, low, high = GRIDS[grid]
    x, bits = torch.tensor(X + np.float32(shift)), torch.tensor(8.0)
    int_quant = IntQuant(narrow_range=narrow, signed=signed)
    scale = AbsMinMax()(x) / (high - low)
    zero_point = StatsZeroPoint(int_quant, NegativeMinOrZero())(x, scale, bits)
    codes = int_quant.to_int(scale, zero_point, bits, x)
    expected_zero_point, expected = _reference(x.numpy().reshape(-1), low, high)
    assert (expected_zero_point, expected) == (zero_point.item(), codes.flatten().tolist())
    ends = [min(x.min().item(), 0.0), max(x.max().item(), 0.0)]
    assert [low, high] == int_quant.to_int(scale, zero_point, bits, torch.tensor(ends)).tolist()
    assert 0.0 == int_quant(scale, zero_point, bits, torch.tensor(0.0)).item()


@pytest.mark.parametrize("kind", [StatsZeroPoint, RuntimeStatsZeroPoint])
def test_signed_rows(kind):
    """Each row of a signed grid has its own zero-point."""
    channels = PerChannel(SHAPE, 0)
    x, bits = torch.tensor(X), torch.tensor(8.0)
    scale = AbsMinMax(channels)(x) / 255
    zero_point = kind(IntQuant(False, True), NegativeMinOrZero(channels))(x, scale, bits)
    assert [[_reference(row, -128, 127)[0]] for row in X] == zero_point.tolist()


def test_a_signed_shifted_recipe():
    """A signed recipe with a zero-point has the values of the unsigned one, on codes that are 128 lower."""
    check(ShiftedInt8Weight)
    signed = QuantLinear(16, 4, weight_quant=ShiftedInt8Weight)
    unsigned = QuantLinear(16, 4, weight_quant=ShiftedUint8WeightPerTensor)
    unsigned.weight.data = signed.weight.data
    ours, theirs = signed.quant_weight(), unsigned.quant_weight()
    assert torch.equal(ours.value, theirs.value)
    assert torch.equal(ours.int().int(), theirs.int().int() - 128)
    assert [-128, 127] == [ours.int().min().item(), ours.int().max().item()]


def test_gradients_on_a_signed_grid():
    """Rounding apart, ``-8 - min / scale`` has the gradients that it has on an unsigned grid."""
    x = torch.tensor([-1.0, 3.0, 0.5], requires_grad=True)
    scale = torch.tensor(0.25, requires_grad=True)
    zero_point = StatsZeroPoint(IntQuant(False, True), NegativeMinOrZero())(x, scale, torch.tensor(4.0))
    zero_point.backward()
    assert (-4.0, [-4.0, 0.0, 0.0], -16.0) == (zero_point.item(), x.grad.tolist(), scale.grad.item())


@pytest.mark.parametrize("recipe", [DynamicShiftedUint8Act, DynamicInt8Act])
def test_dynamic_activations(recipe):
    """A dynamic quantizer has no state, needs no data, and fits each input for itself."""
    layer = QuantIdentity(act_quant=recipe).eval()
    assert {} == dict(layer.act_quant.tensor_quant.state_dict())
    for factor in (1.0, 100.0):
        x = factor * torch.tensor(X)
        step = layer.act_quant(x).scale
        # Half a step, and float32 rounding of codes up to 255; the largest value of the symmetric grid has no code.
        bound = (1.0 if recipe is DynamicInt8Act else 0.5) * (1 + 2**-10) * step
        assert ((layer(x) - x).abs() <= bound).all()


def _float(kind):
    grid = IntQuant(narrow_range=False, signed=True)
    if kind is ParameterZeroPoint:
        return kind(grid, -3.3, quantize_zero_point=False)
    return kind(grid, NegativeMinOrZero(), quantize_zero_point=False)


@pytest.mark.parametrize("kind", [StatsZeroPoint, RuntimeStatsZeroPoint])
def test_a_float_zero_point_is_not_rounded(kind):
    """Without rounding the minimum is met exactly by the lowest code, though zero need not be."""
    x, scale, bits = torch.tensor([-1.1, 3.0]), torch.tensor(0.3), torch.tensor(4.0)
    zero_point = _float(kind)(x, scale, bits)
    # Two float32 roundings of a number below 16.
    assert pytest.approx(-8 + 1.1 / 0.3, abs=2**-20) == zero_point.item()
    grid = IntQuant(narrow_range=False, signed=True)
    assert -8.0 == grid.to_int(scale, zero_point, bits, x)[0].item()
    assert pytest.approx(-1.1, abs=2**-20) == grid(scale, zero_point, bits, x)[0].item()


def test_a_learned_float_zero_point():
    """A learned zero-point that is no code is the parameter itself, with gradient 1."""
    module = _float(ParameterZeroPoint)
    result = module(torch.zeros(1), torch.tensor(0.1), torch.tensor(4.0))
    result.backward()
    assert (np.float32(-3.3), 1.0) == (result.item(), module.value.grad.item())


@pytest.mark.parametrize("kind", [StatsZeroPoint, RuntimeStatsZeroPoint, ParameterZeroPoint])
def test_a_float_zero_point_travels(kind, travel, outcome):
    """A copy, by whatever way, gives equal values and gradients."""
    arguments = (torch.tensor(X), torch.tensor(0.25), torch.tensor(4.0))
    module = _float(kind)
    module(*arguments)
    assert outcome(module, *arguments) == outcome(travel(lambda: _float(kind), module), *arguments)


def test_gradients_of_a_float_zero_point():
    """A float offset has gradient 1 from what was clipped, and none from the rest, as LSQ+ derives it."""
    scale, bits = torch.tensor(0.5, requires_grad=True), torch.tensor(2.0)
    offset = torch.tensor([-1.0], requires_grad=True)
    grid = IntQuant(narrow_range=False, signed=False)
    zero_point = StatsZeroPoint(grid, lambda x: offset, quantize_zero_point=False)
    y = grid(scale, zero_point(offset, scale, bits), bits, torch.tensor([-3.0, -0.3, 9.0]))
    grads = [torch.autograd.grad(v, (offset, scale), retain_graph=True) for v in y]
    # (x - offset) / scale is -4, 1.4 and 20, on codes 0 to 3; to the scale: the code less 1.4, or the code.
    assert [1.0, 0.0, 1.0] == [to_offset.item() for to_offset, _ in grads]
    # Roundings of float32 numbers below 8.
    assert pytest.approx([0.0, 1 - 1.4, 3.0], abs=2**-20) == [to_scale.item() for _, to_scale in grads]


@pytest.mark.parametrize("axis", [None, 0, 1])
def test_the_mean_is_the_code_zero(axis):
    """The zero-point of the mean, over the scale, is minus it."""
    granularity = None if axis is None else PerChannel(SHAPE, axis)
    scale = 0.25 if axis is None else np.full(granularity.scale_shape, 0.25, np.float32)
    actual = MeanZeroPoint(granularity)(torch.tensor(X), torch.tensor(scale), torch.tensor(8.0))
    lines = [X.reshape(-1)] if axis is None else np.moveaxis(X, axis, 0)
    expected = [-math.fsum(line.tolist()) / len(line) / 0.25 for line in lines]
    # A float32 sum of at most 120 numbers.
    assert pytest.approx(expected, rel=2**-20) == actual.flatten().tolist()
    assert ((), granularity and granularity.scale_shape)[axis is not None] == tuple(actual.shape)


def test_gradient_of_the_mean():
    """Each of n values moves the zero-point by -1 / (n * scale)."""
    x, scale = torch.tensor([1.0, 2.0, 5.0, 8.0], requires_grad=True), torch.tensor(0.5, requires_grad=True)
    MeanZeroPoint()(x, scale, torch.tensor(8.0)).backward()
    assert ([-0.5] * 4, 16.0) == (x.grad.tolist(), scale.grad.item())


def test_centred_codes():
    """As the zero-point to round by it gives the codes of what is left of the mean."""
    x, bits, zero = torch.tensor([3.0, 5.0, 10.0]), torch.tensor(8.0), torch.tensor(0.0)
    scale = torch.tensor(0.5)
    pre_zero_point = MeanZeroPoint()(x, scale, bits)
    y = DecoupledIntQuant(narrow_range=True, signed=True)(scale, pre_zero_point, scale, zero, bits, x)
    assert [-3.0, -1.0, 4.0] == y.tolist()


def test_the_mean_travels(travel, outcome):
    """A copy, by whatever way, gives equal values and gradients."""
    arguments = (torch.tensor(X), torch.tensor(0.25), torch.tensor(4.0))
    module = MeanZeroPoint()
    assert outcome(module, *arguments) == outcome(travel(MeanZeroPoint, module), *arguments)
