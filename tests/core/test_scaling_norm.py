"""Quantization of weights whose norm is learned, and statistics of weights that are centred or normal."""

import math

import numpy as np
import pytest
import torch

from brevq.core.function_wrapper import PerChannel
from brevq.core.phase import Phase
from brevq.core.restrict_val import FloatRestrictValue
from brevq.core.scaling import CenteredL1Norm, ConstScaling, NormalInterval, StatsScaling, WeightNormScaling
from brevq.core.stats import AbsMax, L1Norm, L2Norm
from brevq.errors import ArgumentError
from brevq.inject import check
from brevq.nn import QuantLinear
from injectors import Int8WeightPerChannel
from injectors.accumulator import Int8WeightNormPerChannel

# torch.compile itself makes an instance of an autograd.Function, and torch warns of those.
pytestmark = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")

SHAPE = (3, 8)
X = np.random.default_rng(7).normal(0.3, 1.0, size=SHAPE).astype(np.float32)


def _mean(row):
    return math.fsum(row) / len(row)


def _normal_interval(row, sigma):
    variance = math.fsum((v - _mean(row)) ** 2 for v in row) / max(1, len(row) - 1)
    return max(abs(_mean(row) + sign * sigma * math.sqrt(variance)) for sign in (1, -1))


# Constructor from a granularity, and the statistic of a list of numbers.
STATISTICS = {
    "centred L1": (
        CenteredL1Norm,
        lambda row: math.fsum(abs(v - _mean(row)) for v in row) + math.fsum(abs(v) for v in row) / 2**20,
    ),
    "normal": (NormalInterval, lambda row: _normal_interval(row, 3)),
    "normal, 1 deviation": (lambda granularity: NormalInterval(granularity, 1.0), lambda row: _normal_interval(row, 1)),
}


def _rows(axis):
    """The lists of numbers that share a scale along an axis."""
    return [X.reshape(-1).tolist()] if axis is None else np.moveaxis(X, axis, 0).tolist()


@pytest.mark.parametrize("case", STATISTICS)
@pytest.mark.parametrize("axis", [None, 0, 1])
def test_statistics(case, axis):
    """A statistic is the documented one, in float32 and in the shape of the scale."""
    create, reference = STATISTICS[case]
    granularity = None if axis is None else PerChannel(SHAPE, axis)
    actual = create(granularity)(torch.tensor(X))
    # Sums of at most 24 numbers in float32.
    assert pytest.approx([reference(row) for row in _rows(axis)], rel=2**-20) == actual.flatten().tolist()
    assert (torch.float32, () if axis is None else granularity.scale_shape) == (actual.dtype, tuple(actual.shape))


@pytest.mark.parametrize("case", STATISTICS)
def test_gradients_of_statistics(case):
    """The gradient of a statistic is its slope, found by small differences."""
    module = STATISTICS[case][0](PerChannel(SHAPE, 0))
    x = torch.tensor(X, dtype=torch.float64, requires_grad=True)
    # The raise of a centred norm is for rounding, and has no gradient.
    assert torch.autograd.gradcheck(module, x, atol=2**-19 if case == "centred L1" else 1e-6)


@pytest.mark.parametrize("case", STATISTICS)
def test_statistics_travel(case, travel, outcome):
    """A copy, by whatever way, gives equal values and gradients."""
    create = lambda: STATISTICS[case][0](PerChannel(SHAPE, 0))  # noqa: E731
    module = create()
    assert outcome(module, torch.tensor(X)) == outcome(travel(create, module), torch.tensor(X))


@pytest.mark.parametrize("kind", [CenteredL1Norm, NormalInterval])
def test_statistics_of_one_value(kind):
    """A channel of one value has finite statistics and gradients, and one of zeros has zero."""
    x = torch.tensor([[2.0], [0.0]], requires_grad=True)
    statistic = kind(PerChannel((2, 1), 0))(x)
    statistic.sum().backward()
    assert (0.0, True) == (statistic[1].item(), bool(x.grad.isfinite().all() and statistic.isfinite().all()))


def test_no_deviations_are_refused():
    """An interval of no width is refused with the rule."""
    with pytest.raises(ArgumentError) as error:
        NormalInterval(sigma=0)
    assert "`sigma` (=0) must be a finite number above 0" == str(error.value)


def _scaling(norm=L2Norm):
    channels = PerChannel(SHAPE, 0)
    return WeightNormScaling(StatsScaling(AbsMax(channels)), norm(channels))


@pytest.mark.parametrize("norm", [L1Norm, L2Norm])
def test_in_the_beginning_nothing_is_normalized(norm):
    """For the first tensor, whose norm the learned one becomes, the range to round by is exactly that of the scale."""
    x = torch.tensor(X)
    assert AbsMax(PerChannel(SHAPE, 0))(x).tolist() == _scaling(norm)(x).tolist()


@pytest.mark.parametrize("norm", [L1Norm, L2Norm])
def test_the_length_of_weights_does_not_matter(norm):
    """Longer weights are rounded by a range that is longer: their codes depend on their direction alone."""
    channels = PerChannel(SHAPE, 0)
    scaling = WeightNormScaling(ConstScaling(0.5), norm(channels))
    x = torch.tensor(X)
    ranges = [scaling(factor * x) for factor in (1.0, 4.0)]
    assert [[0.5]] * 3 == ranges[0].tolist()
    # Logarithms of numbers up to 2 ** 5 and their powers, in float32.
    assert [[pytest.approx(2.0, rel=2**-20)]] * 3 == ranges[1].tolist()


def test_ranges_of_learned_norms():
    """The range to round by is that of the scale, times the norm, over the learned norm."""
    scaling = _scaling(L1Norm)
    scaling(torch.tensor(X))
    learned = [0.5, 2.0, 8.0]
    scaling.learned_norm.value.data = torch.tensor(learned).log2().reshape(3, 1)
    x = 1.5 * X[::-1]
    expected = [max(map(abs, row)) * math.fsum(map(abs, row)) / g for row, g in zip(x.tolist(), learned, strict=True)]
    # A logarithm, its power, a sum and two more roundings, in float32.
    assert pytest.approx(expected, rel=2**-20) == scaling(torch.tensor(x.copy())).flatten().tolist()


@pytest.mark.parametrize("restrict", [None, FloatRestrictValue()])
def test_gradients_of_learned_norms(restrict):
    """Gradients to the weights and to the learned norm are slopes, found by small differences."""
    channels = PerChannel(SHAPE, 0)
    scaling = WeightNormScaling(StatsScaling(AbsMax(channels)), L2Norm(channels), restrict)
    scaling(torch.tensor(X))
    scaling.double()
    x = torch.tensor(1.5 * X, dtype=torch.float64, requires_grad=True)
    stored = scaling.learned_norm.value.detach().clone().requires_grad_()

    def ranges(x, stored):
        return torch.func.functional_call(scaling, {"learned_norm.value": stored}, (x,))

    assert torch.autograd.gradcheck(ranges, (x, stored))


def test_learned_norms_travel(travel, outcome):
    """A copy, by whatever way, gives equal values and gradients."""
    module = _scaling()
    module(torch.tensor(X))
    copied = travel(_scaling, module)
    assert outcome(module, torch.tensor(2 * X)) == outcome(copied, torch.tensor(2 * X))


def _layer():
    return QuantLinear(8, 3, weight_quant=Int8WeightNormPerChannel)


def _codes(weight, learned_norm, scales):
    """``clamp(round(g * w / (||w|| * scale)), -127, 127)`` for each row, in float64."""
    for row, g, scale in zip(weight.tolist(), learned_norm, scales, strict=True):
        length = math.sqrt(math.fsum(v * v for v in row))
        yield [min(max(round(g * v / (length * scale)), -127), 127) for v in row]


def test_recipe():
    """Codes are those of the normalized weight at its learned length, and values are codes times scale."""
    check(Int8WeightNormPerChannel)
    layer = _layer()
    layer.quant_weight()
    learned, ranges = [0.7, 3.0, 0.01], [1.1, 0.9, 0.5]
    quant = layer.weight_quant.tensor_quant
    quant.pre_scaling_impl.learned_norm.value.data = torch.tensor(learned).log2().reshape(3, 1)
    quant.scaling_impl.value.data = torch.tensor(ranges).log2().reshape(3, 1)
    actual = layer.quant_weight()
    expected = list(_codes(layer.weight.detach(), learned, [r / 127 for r in ranges]))
    assert expected == actual.int().tolist()
    assert torch.equal(actual.int() * actual.scale, actual.value)


def test_recipe_in_the_beginning():
    """Before training it is the recipe per channel: the same codes, and scales but for the rounding of a logarithm."""
    normalized, plain = _layer(), QuantLinear(8, 3, weight_quant=Int8WeightPerChannel)
    plain.weight.data = normalized.weight.data
    ours, theirs = normalized.quant_weight(), plain.quant_weight()
    assert theirs.int().tolist() == ours.int().tolist()
    # A base-2 logarithm up to 16 and its power, in float32.
    assert pytest.approx(theirs.scale.flatten().tolist(), rel=2**-19) == ours.scale.flatten().tolist()


def test_a_float_checkpoint_sets_norms():
    """Norms and scales start again from the weights of a float checkpoint, which misses nothing."""
    layer, twin = _layer(), torch.nn.Linear(8, 3)
    layer.quant_weight()
    layer.load_state_dict(twin.state_dict(), strict=True)
    norm = layer.weight_quant.tensor_quant.pre_scaling_impl.learned_norm
    phase = norm.phase
    layer.quant_weight()
    expected = [math.log2(math.sqrt(math.fsum(v * v for v in row))) for row in twin.weight.tolist()]
    # A sum of 8 squares and a logarithm, in float32.
    assert (Phase.EMPTY, pytest.approx(expected, abs=2**-20)) == (phase, norm.value.flatten().tolist())


def test_channels_of_zeros():
    """A channel of zeros has codes that are zero, and finite gradients, from the beginning and after training."""
    layer = _layer()
    for zeros in ([0], [0, 1, 2]):
        layer.weight.data[zeros] = 0.0
        quantized = layer.quant_weight()
        (quantized.value * torch.rand(SHAPE)).sum().backward()
        assert 0.0 == quantized.value[zeros].abs().sum().item()
        assert all(parameter.grad.isfinite().all() for parameter in layer.weight_quant.parameters())
        assert layer.weight.grad.isfinite().all()


@pytest.mark.parametrize(("value", "expected"), [(1e37, 3e37 * (64 / 63) ** 0.5), (3e38, 3.4028235e38)])
def test_normal_interval_of_huge_values(value, expected):
    """Mean and deviation of huge values are right where float32 has them, else the largest number."""
    x = torch.tensor([value, -value]).repeat(32)
    assert NormalInterval()(x).item() == pytest.approx(expected, rel=2e-6)
