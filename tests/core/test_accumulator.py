"""Weights that fit an accumulator: the worst input is found exactly, in integers."""

import itertools
import math

import numpy as np
import pytest
import torch

from brevq.core.bit_width import BitWidthConst
from brevq.core.function_wrapper import (
    CeilSte,
    DPURoundSte,
    FloorSte,
    LearnedRoundHardSigmoid,
    LearnedRoundSte,
    PerChannel,
    RoundHalfAwaySte,
    RoundHalfUpSte,
    RoundSte,
    StochasticRoundSte,
)
from brevq.core.scaling import (
    AccumulatorAwareScaling,
    AccumulatorBound,
    CenteredAccumulatorBound,
    CenteredL1Norm,
    ConstScaling,
    IntScaling,
    StatsScaling,
)
from brevq.core.stats import AbsMax, L1Norm
from brevq.errors import ArgumentError, ArgumentTypeError, RecipeError
from brevq.inject import check
from brevq.quantizer import Quantizer
from injectors.accumulator import Int8WeightPerChannelA2Q, Int8WeightPerChannelA2QPlus

# torch.compile itself makes an instance of an autograd.Function, and torch warns of those.
pytestmark = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")

RECIPES = {"A2Q": Int8WeightPerChannelA2Q, "A2Q+": Int8WeightPerChannelA2QPlus}


def _signed(signed):
    return torch.tensor(signed)


def _quantizer(recipe, weight, learned_norm=None, **overrides):
    """A quantizer of a weight, whose learned norm was moved, after it started from the weight."""
    supplies = {"tensor_shape": tuple(weight.shape), "channel_axis": 0}
    quantizer = Quantizer(recipe.let(**overrides), {**supplies, "dtype": weight.dtype, "device": weight.device})
    quantizer(weight, torch.tensor(8.0), _signed(False))
    if learned_norm is not None:
        quantizer.tensor_quant.pre_scaling_impl.learned_norm.value.data.fill_(math.log2(learned_norm))
    return quantizer


def _codes(quantizer, weight, bits, signed):
    """The codes of each channel, as lists of Python's integers."""
    return quantizer(weight, torch.tensor(float(bits)), _signed(signed)).int().flatten(1).tolist()


def _extreme_sums(codes, bits, signed):
    """The smallest and the largest dot product of a channel with any input of a number of bits."""
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    products = [sorted((code * low, code * high)) for code in codes]
    return sum(pair[0] for pair in products), sum(pair[1] for pair in products)


def _use(codes, bits, signed, accumulator):
    """The largest fraction of an accumulator's range that the worst input of any channel takes; above 1 overflows."""
    largest = 2 ** (accumulator - 1)
    sums = [_extreme_sums(channel, bits, signed) for channel in codes]
    return max(max(low / -largest, high / (largest - 1)) for low, high in sums)


def _weights():
    """Weights of each kind that might go wrong, by name: one channel a row."""
    rng = np.random.default_rng(11)
    for size in (1, 2, 3, 9, 64, 1000):
        shape = (16, size)
        yield f"normal {size}", rng.normal(size=shape)
        yield f"positive {size}", rng.random(shape)
        yield f"equal {size}", np.full(shape, 0.1) * np.arange(1, 17)[:, None]
        yield f"two magnitudes {size}", rng.choice([-0.3, 0.3, 0.1], size=shape)
        yield f"heavy tails {size}", rng.standard_cauchy(size=shape)
        yield f"far from zero {size}", 100 + 1e-4 * rng.normal(size=shape)
        yield f"tiny {size}", 1e-30 * rng.normal(size=shape)
        yield f"huge {size}", 1e20 * rng.normal(size=shape)
        yield f"sparse {size}", rng.normal(size=shape) * (rng.random(shape) < 0.1)
        yield f"whole {size}", rng.integers(-3, 4, size=shape)


WEIGHTS = {name: torch.tensor(np.asarray(weight), dtype=torch.float32) for name, weight in _weights()}
INPUTS = [(1, False), *itertools.product((2, 8), (False, True))]


@pytest.mark.parametrize("case", RECIPES)
@pytest.mark.parametrize("kind", WEIGHTS)
def test_no_input_overflows(case, kind):
    """The largest and the smallest sum of any input fit the accumulator, whatever norm was learned."""
    weight = WEIGHTS[kind]
    for accumulator in (11, 18, 32):
        quantizer = _quantizer(RECIPES[case], weight, accumulator_bit_width=accumulator)
        for learned_norm, (bits, signed) in itertools.product((None, 1e6, 1e25), INPUTS):
            if learned_norm is not None:
                quantizer.tensor_quant.pre_scaling_impl.learned_norm.value.data.fill_(math.log2(learned_norm))
            assert _use(_codes(quantizer, weight, bits, signed), bits, signed, accumulator) <= 1


@pytest.mark.parametrize("case", RECIPES)
def test_random_weights_never_overflow(case):
    """Of 300 random shapes, scales and bit widths none overflows."""
    rng = np.random.default_rng(12)
    for _ in range(300):
        size, bits = int(rng.integers(1, 600)), int(rng.integers(2, 9))
        signed, accumulator = bool(rng.integers(2)), int(rng.integers(bits + 2, 25))
        weight = rng.normal(rng.normal(), 10 ** rng.uniform(-3, 1), size=(8, size))
        weight = torch.tensor(weight, dtype=torch.float32)
        learned_norm = 10 ** rng.uniform(-2, 8)
        quantizer = _quantizer(RECIPES[case], weight, learned_norm, accumulator_bit_width=accumulator)
        assert _use(_codes(quantizer, weight, bits, signed), bits, signed, accumulator) <= 1


def test_float32_can_not_tell_the_bound():
    """Where the bound is a sum that would just overflow, less what float32 can tell, that sum is not reached."""
    weight = torch.tensor([[0.1, -0.1]]).repeat(1, 2048)
    quantizer = _quantizer(Int8WeightPerChannelA2Q, weight, 1e6, accumulator_bit_width=26)
    # 4096 codes of 64, times 128, are 2 ** 25, one more than the largest sum.
    assert [63, -63] * 2048 == _codes(quantizer, weight, 8, True)[0]


# Recipe, whether the input has a sign, and weights whose worst input is the one that the bound is made for.
TIGHT = [
    ("A2Q", False, WEIGHTS["positive 64"]),
    ("A2Q", True, WEIGHTS["normal 64"]),
    ("A2Q+", False, WEIGHTS["normal 64"]),
    ("A2Q+", True, WEIGHTS["normal 64"]),
]


@pytest.mark.parametrize(("case", "signed", "weight"), TIGHT)
def test_the_accumulator_is_used(case, signed, weight):
    """Where a long norm was learned, the worst input takes more than 9/10 of the accumulator, not just a bit of it."""
    quantizer = _quantizer(RECIPES[case], weight, 1e6, accumulator_bit_width=19)
    assert 0.9 < _use(_codes(quantizer, weight, 8, signed), 8, signed, 19) <= 1


@pytest.mark.parametrize("case", RECIPES)
def test_without_the_bound_it_overflows(case):
    """The same weights overflow an accumulator that is a bit smaller than the one that they were made for."""
    weight = WEIGHTS["normal 64"]
    quantizer = _quantizer(RECIPES[case], weight, 1e6, accumulator_bit_width=19)
    assert 1 < _use(_codes(quantizer, weight, 8, True), 8, True, 18)


@pytest.mark.parametrize("case", RECIPES)
def test_rounding_to_nearest_overflows(case):
    """Rounding has to be toward zero, or is refused: to nearest, codes of 0.6 become 1 and their sum too large."""
    with pytest.raises(RecipeError) as error:
        _quantizer(RECIPES[case], WEIGHTS["normal 9"], 1e6, accumulator_bit_width=16, float_to_int_impl=RoundSte)
    assert (
        "`float_to_int_impl` (=RoundSte()) takes 0.75 to 1, away from zero, so that sums can overflow the accumulator: "
        "round toward zero, `float_to_int_impl = RoundToZeroSte`"
    ) in str(error.value)


@pytest.mark.parametrize(
    "rounding", [FloorSte(), CeilSte(), RoundHalfUpSte(), RoundHalfAwaySte(), DPURoundSte(), StochasticRoundSte()]
)
def test_only_rounding_toward_zero_keeps_the_bound(rounding):
    """What takes any number away from zero is refused, at random or not."""
    with pytest.raises(ArgumentError, match="away from zero, so that sums can overflow the accumulator"):
        _bounded(float_to_int_impl=rounding)


def test_learned_rounding_keeps_no_bound():
    """Where learning decides which way to round, nothing is sure."""
    rounding = LearnedRoundSte(LearnedRoundHardSigmoid(), tensor_shape=(2,))
    with pytest.raises(ArgumentError) as error:
        _bounded(float_to_int_impl=rounding)
    assert str(error.value) == (
        "`float_to_int_impl` (=LearnedRoundSte()) learns whether to round away from zero, so that sums can overflow "
        "the accumulator: round toward zero, `float_to_int_impl = RoundToZeroSte`"
    )


def _bounded(**others):
    """Ranges of 8-bit weights for an accumulator of 16 bits."""
    return AccumulatorAwareScaling(
        ConstScaling(1.0), L1Norm(), AccumulatorBound(16), IntScaling(True, True), BitWidthConst(8), **others
    )


@pytest.mark.parametrize("learned", [float("inf"), float("-inf")])
@pytest.mark.parametrize("value", [1.0, 1e37, 3e38])
@pytest.mark.parametrize("norm", [L1Norm(), CenteredL1Norm()])
def test_the_bound_holds_however_large(norm, value, learned):
    """Norms that float32 can not hold, and learned norms that are infinite, keep codes within the bound."""
    bound = {L1Norm: AccumulatorBound, CenteredL1Norm: CenteredAccumulatorBound}[type(norm)](16)
    scaling = AccumulatorAwareScaling(ConstScaling(3e38), norm, bound, IntScaling(True, True), BitWidthConst(8))
    weight = torch.randn(64, generator=torch.Generator().manual_seed(0)).clamp(-1, 1) * value
    bits, signed = torch.tensor(8.0), torch.tensor(True)
    scaling(weight, bits, signed)
    scaling.learned_norm.value.data.fill_(learned)
    threshold = scaling(weight, bits, signed).item()
    numbers = weight.double().numpy()
    numbers = numbers - numbers.mean() if isinstance(norm, CenteredL1Norm) else numbers
    codes = np.trunc(numbers / (threshold / 127)).clip(-127, 127)
    assert np.abs(codes).sum() <= bound(bits, signed).item()


def test_ordinary_ranges_for_norms_beyond_float32():
    """Where the accumulator limits nothing, the range is the one to dequantize by, however large the norm is."""
    scaling = AccumulatorAwareScaling(
        ConstScaling(3e37), L1Norm(), AccumulatorBound(32), IntScaling(True, True), BitWidthConst(8)
    )
    threshold = scaling(torch.full((64,), 1e37), torch.tensor(8.0), torch.tensor(True))
    assert torch.equal(threshold, torch.full_like(threshold, 3e37))


def test_centring_leaves_room():
    """Of unsigned inputs, centred weights may be about twice as long, and use the accumulator that others leave."""
    weight = WEIGHTS["normal 64"]
    norms = []
    for recipe in RECIPES.values():
        quantizer = _quantizer(recipe, weight, 1e6, accumulator_bit_width=18)
        norms.append(sum(abs(code) for row in _codes(quantizer, weight, 8, False) for code in row))
    # Rounding toward zero takes its share of both.
    assert 1.9 < norms[1] / norms[0] < 2.3


def test_wide_accumulators_limit_nothing():
    """With 32 bits the first codes of A2Q are those of the plain recipe, rounded toward zero."""
    weight = WEIGHTS["normal 9"]
    codes = _codes(_quantizer(Int8WeightPerChannelA2Q, weight), weight, 8, False)
    for row, channel in zip(weight.tolist(), codes, strict=True):
        largest = max(row, key=abs)
        # The largest is 127 but for float32 rounding, and so may be one less.
        rest = [(int(v / abs(largest) * 127), code) for v, code in zip(row, channel, strict=True) if v != largest]
        assert [expected for expected, _ in rest] == [actual for _, actual in rest]


# Bound, input bits and sign, and its value in exact arithmetic.
BOUNDS = [
    (AccumulatorBound(16), 8, False, (2**15 - 1) / 2**8),
    (AccumulatorBound(16), 8, True, (2**15 - 1) / 2**7),
    (AccumulatorBound(), 4, True, (2**31 - 1) / 2**3),
    (CenteredAccumulatorBound(16), 8, False, (2**16 - 2) / (2**8 - 1)),
    (CenteredAccumulatorBound(16), 8, True, (2**16 - 2) / (2**8 - 1)),
    (CenteredAccumulatorBound(), 1, False, 2**32 - 2),
]


@pytest.mark.parametrize(("bound", "bits", "signed", "expected"), BOUNDS)
def test_bounds(bound, bits, signed, expected):
    """A bound is that of the paper."""
    # Two float32 roundings.
    assert pytest.approx(expected, rel=2**-22) == bound(torch.tensor(float(bits)), _signed(signed)).item()


SHAPE = (3, 8)
X = np.random.default_rng(13).normal(0.2, 1.0, size=SHAPE).astype(np.float32)
KINDS = {"A2Q": (L1Norm, AccumulatorBound), "A2Q+": (CenteredL1Norm, CenteredAccumulatorBound)}


def _scaling(case, accumulator=12):
    norm, bound = KINDS[case]
    channels = PerChannel(SHAPE, 0)
    scaling = StatsScaling(AbsMax(channels))
    return AccumulatorAwareScaling(
        scaling, norm(channels), bound(accumulator), IntScaling(True, True), BitWidthConst(8)
    )


def _threshold(case, row, learned_norm, accumulator, bits, signed):
    """The range to round a channel by, in exact arithmetic."""
    mean = math.fsum(row) / len(row) if case == "A2Q+" else 0.0
    norm = math.fsum(abs(v - mean) for v in row)
    if case == "A2Q":
        bound = (2 ** (accumulator - 1) - 1) / 2 ** (bits - signed)
    else:
        bound = (2**accumulator - 2) / (2**bits - 1)
    return norm * max(max(map(abs, row)) / learned_norm, 127 / bound)


@pytest.mark.parametrize("case", KINDS)
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("accumulator", [10, 12, 24])
def test_ranges(case, signed, accumulator):
    """The range to round by is the documented one, as far as the margins for rounding allow."""
    module = _scaling(case, accumulator)
    arguments = (torch.tensor(8.0), _signed(signed))
    module(torch.tensor(X), *arguments)
    learned = [0.5, 20.0, 1000.0]
    module.learned_norm.value.data = torch.tensor(learned).log2().reshape(3, 1)
    actual = module(torch.tensor(X), *arguments).flatten().tolist()
    expected = [_threshold(case, row, g, accumulator, 8, signed) for row, g in zip(X.tolist(), learned, strict=True)]
    # The bound is reduced by 2 ** -14, and a norm raised by 2 ** -20 of what it was before centring.
    assert pytest.approx(expected, rel=2**-13) == actual
    assert all(a >= e * (1 - 2**-20) for a, e in zip(actual, expected, strict=True))


@pytest.mark.parametrize("case", KINDS)
@pytest.mark.parametrize("accumulator", [10, 24])
def test_gradients(case, accumulator):
    """Gradients to weights, learned norm and input bits are slopes, whether the bound binds or not."""
    module = _scaling(case, accumulator)
    module(torch.tensor(X), torch.tensor(8.0), _signed(True))
    module.double()
    inputs = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (1.5 * X, 8.0)]
    stored = module.learned_norm.value.detach().clone().requires_grad_()

    def ranges(x, bits, stored):
        return torch.func.functional_call(module, {"learned_norm.value": stored}, (x, bits, _signed(True)))

    # What a centred norm is raised by, for rounding, has no gradient.
    assert torch.autograd.gradcheck(ranges, (*inputs, stored), rtol=1e-3, atol=1e-3 if case == "A2Q+" else 1e-6)


@pytest.mark.parametrize("case", KINDS)
def test_a_bound_that_binds_takes_the_gradient_of_the_norm(case):
    """Where the bound holds the learned norm back, that has no gradient; where it does not, it has."""
    grads = []
    for accumulator in (10, 30):
        module = _scaling(case, accumulator)
        module(torch.tensor(X), torch.tensor(8.0), _signed(True)).sum().backward()
        grads.append(module.learned_norm.value.grad.abs().sum().item() > 0)
    assert [False, True] == grads


@pytest.mark.parametrize("case", KINDS)
def test_travels(case, travel, outcome):
    """A copy, by whatever way, gives equal values and gradients."""
    arguments = (torch.tensor(X), torch.tensor(8.0), _signed(True))
    module = _scaling(case)
    module(*arguments)
    assert outcome(module, *arguments) == outcome(travel(lambda: _scaling(case), module), *arguments)


@pytest.mark.parametrize("case", RECIPES)
def test_recipes(case):
    """A recipe has no faults, says where it is from, and its quantizer gives finite gradients that are not zero."""
    recipe = RECIPES[case]
    check(recipe)
    assert "Source: " in recipe.__doc__
    weight = torch.tensor(X, requires_grad=True)
    quantizer = _quantizer(recipe, weight, accumulator_bit_width=12)
    quantized = quantizer(weight, torch.tensor(8.0), _signed(False))
    (quantized.value * torch.rand(SHAPE)).sum().backward()
    assert quantized.is_valid
    assert all(p.grad.isfinite().all() for p in (weight, *quantizer.parameters()))
    assert weight.grad.abs().sum() > 0


@pytest.mark.parametrize("case", RECIPES)
def test_channels_of_zeros(case):
    """A channel of zeros has codes that are zero, and finite gradients."""
    weight = torch.zeros(2, 5, requires_grad=True)
    quantizer = _quantizer(RECIPES[case], weight, 1e6, accumulator_bit_width=12)
    value = quantizer(weight, torch.tensor(8.0), _signed(False)).value
    value.sum().backward()
    assert (0.0, True) == (value.abs().sum().item(), bool(weight.grad.isfinite().all()))


BITS = "must be a whole number of signed bits from 2 to 32"
REFUSALS = [
    (lambda: AccumulatorBound(1), ArgumentError, f"`accumulator_bit_width` (=1) {BITS}"),
    (lambda: AccumulatorBound(33), ArgumentError, f"`accumulator_bit_width` (=33) {BITS}"),
    (lambda: CenteredAccumulatorBound(2.5), ArgumentError, f"`accumulator_bit_width` (=2.5) {BITS}"),
    (
        lambda: CenteredAccumulatorBound("16"),
        ArgumentTypeError,
        f"`accumulator_bit_width` (='16') {BITS}, not str",
    ),
]


@pytest.mark.parametrize(("create", "kind", "message"), REFUSALS)
def test_impossible_accumulators_are_refused(create, kind, message):
    """An accumulator without a sum, or wider than 32 bits, is refused with the rule."""
    with pytest.raises(kind) as error:
        create()
    assert message == str(error.value)
