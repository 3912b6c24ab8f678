"""Quantization to floating-point formats, held against ml_dtypes and arithmetic in NumPy."""

import math

import ml_dtypes
import numpy as np
import pytest
import torch

from brevq.core.bit_width import BitWidthConst, BitWidthParameter
from brevq.core.formats import FloatFormat, IntFormat
from brevq.core.formats.catalogue import BFLOAT16, FLOAT16, FORMATS, FP4_E2M1, FP8_E4M3, FP8_E5M2
from brevq.core.function_wrapper import FloorSte, PerChannel, PerGroup, PerTensor
from brevq.core.quant import FloatQuant
from brevq.core.restrict_val import FloatRestrictValue, PowerOfTwoRestrictValue
from brevq.core.scaling import ConstScaling, FloatScaling, ParameterScaling, PowerOfTwoFloatScaling, StatsScaling
from brevq.core.stats import AbsMax
from brevq.errors import ArgumentError
from brevq.quant_tensor import QuantTensor

# torch.compile itself makes an instance of an autograd.Function, and torch warns of those.
pytestmark = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")

ML_DTYPES = {
    "fp8_e4m3": ml_dtypes.float8_e4m3fn,
    "fp8_e5m2": ml_dtypes.float8_e5m2,
    "fp8_e4m3fnuz": ml_dtypes.float8_e4m3fnuz,
    "fp8_e5m2fnuz": ml_dtypes.float8_e5m2fnuz,
    "fp6_e3m2": ml_dtypes.float6_e3m2fn,
    "fp6_e2m3": ml_dtypes.float6_e2m3fn,
    "fp4_e2m1": ml_dtypes.float4_e2m1fn,
}
X = np.random.default_rng(5).normal(size=(6, 40)).astype(np.float32) * np.float32([[1], [1e-3], [7], [1], [300], [1]])
GRANULARITIES = {
    "tensor": (PerTensor, lambda x: np.abs(x).max()),
    "channel": (lambda: PerChannel((6, 40), 0), lambda x: np.abs(x).max(1, keepdims=True)),
    "column": (lambda: PerChannel((6, 40), 1), lambda x: np.abs(x).max(0, keepdims=True)),
    "group": (lambda: PerGroup(8), lambda x: np.abs(x.reshape(6, 5, 8)).max(-1, keepdims=True)),
}


def stats_quant(format_, granularity):
    """A quantizer whose range is the largest absolute value."""
    return FloatQuant(format_, StatsScaling(AbsMax(granularity), FloatRestrictValue(1e-10)), FloatScaling(format_))


def rounded(x, dtype, largest):
    """The nearest numbers of an ml_dtypes dtype, the largest beyond the range."""
    return np.clip(x, -largest, largest).astype(dtype).astype(x.dtype)


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("name", ML_DTYPES)
def test_values(name, granularity):
    """Values and scales are those of float32 arithmetic around a cast of ml_dtypes, bit for bit."""
    create, largest_of = GRANULARITIES[granularity]
    format_, view = FORMATS[name], create()
    top = np.float32(float(ml_dtypes.finfo(ML_DTYPES[name]).max))
    expected_scale = (largest_of(X) / top).astype(np.float32)
    laid_out = view.split(torch.tensor(X)).numpy()
    expected = rounded(laid_out / expected_scale, ML_DTYPES[name], top) * expected_scale
    y, scale, zero_point, bit_width = stats_quant(format_, view)(torch.tensor(laid_out))
    assert (expected_scale.tolist(), expected.tolist()) == (scale.tolist(), y.tolist())
    assert (0.0, float(format_.bits), torch.float32) == (zero_point.item(), bit_width.item(), y.dtype)


@pytest.mark.parametrize("name", ML_DTYPES)
def test_float32_and_float64_agree(name):
    """Codes in float32 are those in float64, but for quotients within float32's rounding of halfway between two."""
    format_ = FORMATS[name]
    x = np.random.default_rng(6).normal(size=100_000).astype(np.float32)
    in_float32, scale, *_ = stats_quant(format_, PerTensor())(torch.tensor(x))
    exact = x.astype(np.float64) / (np.abs(x).max().astype(np.float64) / format_.max)
    expected = rounded(exact, ML_DTYPES[name], format_.max)
    actual = np.round(in_float32.double().numpy() / scale.double().item() * 2.0**30) / 2.0**30
    values = format_.values().numpy()
    middle = (values[1:] + values[:-1]) / 2
    near = np.abs(exact[:, None] - middle).min(1) <= np.abs(exact) * 2.0**-22
    assert near.mean() < 1e-3
    np.testing.assert_allclose(expected[~near], actual[~near], rtol=2.0**-22, atol=0)


def test_power_of_two_scales():
    """With powers of two for range and threshold, the scale is one too, and nothing but the mantissa is rounded."""
    scaling = StatsScaling(AbsMax(), PowerOfTwoRestrictValue())
    y, scale, *_ = FloatQuant(FP8_E4M3, scaling, PowerOfTwoFloatScaling(FP8_E4M3))(torch.tensor([0.3, -3.0, 0.0]))
    assert (4 / 256, [0.3125, -3.0, 0.0]) == (scale.item(), y.tolist())


def test_rounding_is_a_component():
    """Mantissas are rounded by the component that is handed in."""
    x = torch.tensor([0.9, -0.9, 2.9])
    floored, *_ = FloatQuant(FP4_E2M1, ConstScaling(6.0), FloatScaling(FP4_E2M1), FloorSte())(x)
    assert [0.5, -1.0, 2.0] == floored.tolist()


def test_no_threshold():
    """Without a threshold, what the scaling returns is the scale."""
    y, scale, *_ = FloatQuant(FP4_E2M1, ConstScaling(0.5))(torch.tensor([1.3, 9.0]))
    assert (0.5, [1.5, 3.0]) == (scale.item(), y.tolist())


def test_gradients():
    """The gradient is straight-through within the range and zero beyond; the scale gets the rounding error's."""
    values = [0.26, -1.1, 2.9, 3.4, -20.0]
    x = torch.tensor(values, requires_grad=True)
    quant = FloatQuant(FP4_E2M1, ParameterScaling(3.0), FloatScaling(FP4_E2M1))
    weights = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    y, *_ = quant(x)
    (y * torch.tensor(weights)).sum().backward()
    scale, codes = 0.5, np.array([0.5, -2.0, 6.0, 6.0, -6.0])  # of 0.52, -2.2, 5.8, 6.8 and -40
    inside = np.array([1.0, 1.0, 1.0, 1.0, 0.0])
    of_scale = (codes - inside * np.array(values) / scale) * weights
    assert (weights * inside).tolist() == x.grad.tolist()
    # Of the parameter, which is six times the scale.
    assert pytest.approx(of_scale.sum() / 6, rel=1e-6) == quant.scaling_impl.value.grad.item()


def test_gradient_of_the_largest_value():
    """Where the range is the tensor's own maximum, nothing is clipped, and every value keeps a gradient."""
    x = torch.tensor(X, requires_grad=True)
    stats_quant(FP8_E4M3, PerTensor())(x)[0].sum().backward()
    others = x.grad.flatten()[torch.arange(X.size) != int(np.abs(X).argmax())]
    assert torch.equal(torch.ones_like(others), others)


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("format_", [FP8_E4M3, FP8_E5M2, FP4_E2M1, FORMATS["fp8_e4m3fnuz"]], ids=str)
def test_zeros(format_, granularity):
    """A tensor of zeros gives zeros, a positive scale, and finite gradients."""
    view = GRANULARITIES[granularity][0]()
    x = torch.zeros(6, 40, requires_grad=True)
    y, scale, *_ = stats_quant(format_, view)(view.split(x))
    y.sum().backward()
    assert (0.0, True, True) == (y.abs().sum().item(), bool((scale > 0).all()), bool(x.grad.isfinite().all()))


def test_nan():
    """A NaN stays where it is, and with a range from statistics makes all that share its scale NaN."""
    x = torch.tensor([[math.nan, 1.0], [2.0, -2.0]])
    fixed, *_ = FloatQuant(FP8_E4M3, ConstScaling(448.0), FloatScaling(FP8_E4M3))(x)
    rows, *_ = stats_quant(FP8_E4M3, PerChannel((2, 2), 0))(x)
    assert [[True, False], [False, False]] == fixed.isnan().tolist()
    assert [[True, True], [False, False]] == rows.isnan().tolist()


def test_infinity_and_minus_zero():
    """A fixed scale saturates an infinity where the format does, and keeps it where not; minus zero stays."""
    x = torch.tensor([math.inf, -math.inf, -0.0])
    fp8, *_ = FloatQuant(FP8_E4M3, ConstScaling(448.0), FloatScaling(FP8_E4M3))(x)
    half, *_ = FloatQuant(FLOAT16, ConstScaling(1.0))(x)
    assert ([448.0, -448.0, -0.0], [math.inf, -math.inf, -0.0]) == (fp8.tolist(), half.tolist())
    assert [True, True] == [fp8[2].signbit().item(), half[2].signbit().item()]


@pytest.mark.parametrize(("format_", "dtype"), [(FLOAT16, torch.float16), (BFLOAT16, torch.bfloat16)], ids=str)
def test_cast_to_half_precision(format_, dtype):
    """With scale one, the quantizer is a cast to torch's dtype and back, overflow included."""
    x = torch.tensor(np.concatenate([X.ravel(), [1e-7, 65519.0, 65520.0, -1e30, 3.4e38, 1e-40]])).float()
    y, *_ = FloatQuant(format_, ConstScaling(1.0))(x)
    assert torch.equal(x.to(dtype).float(), y)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_integer_elements(bits):
    """Elements may be integers: values are those of rounding and clipping."""
    format_ = IntFormat(bits)
    y, scale, *_ = FloatQuant(format_, ConstScaling(0.25))(torch.tensor(X))
    expected = np.clip(np.round(X / np.float32(0.25)), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1) * np.float32(0.25)
    assert (0.25, (expected + 0.0).tolist()) == (scale.item(), y.tolist())


CREATE = {
    "statistics": lambda: stats_quant(FP8_E4M3, PerChannel((6, 40), 0)),
    "parameter": lambda: FloatQuant(FP4_E2M1, ParameterScaling(3.0), FloatScaling(FP4_E2M1)),
    "own format": lambda: FloatQuant(FloatFormat("e3m1", 3, 1, special="ieee"), ConstScaling(1.0)),
    "delay": lambda: FloatQuant(FP8_E5M2, ConstScaling(9.0), FloatScaling(FP8_E5M2), quant_delay_steps=2),
}


@pytest.mark.parametrize("case", CREATE)
def test_travels(case, travel, outcome):
    """A copy, by whatever way, gives equal values and gradients."""
    module = CREATE[case]()
    module(torch.tensor(X))
    copied = travel(CREATE[case], module)
    x = torch.tensor(2 * X)
    assert outcome(module.eval(), x) == outcome(copied.eval(), x)


def test_delay():
    """Quantization starts after the number of training steps that was asked for."""
    quant = CREATE["delay"]()
    x = torch.tensor(X)
    quantized = quant.eval()(x)[0]
    quant.train()
    outputs = [quant(x)[0] for _ in range(3)]
    assert [True, True, False] == [torch.equal(x, y) for y in outputs]
    assert torch.equal(quantized, outputs[2])


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("name", ML_DTYPES)
def test_bit_patterns(name, granularity):
    """A `QuantTensor` in a floating-point format lies on its grid, and its integers are the bit patterns."""
    format_, view = FORMATS[name], GRANULARITIES[granularity][0]()
    y, scale, zero_point, bit_width = stats_quant(format_, view)(view.split(torch.tensor(X)))
    x = QuantTensor(view.join(y, torch.Size(X.shape)), scale, zero_point, bit_width, True, format_, view)
    patterns = x.int()
    decoded = patterns.numpy().view(ML_DTYPES[name]).astype(np.float32)
    again = view.join(view.split(torch.tensor(decoded)) * scale, torch.Size(X.shape))
    assert (True, torch.uint8, X.shape) == (x.is_valid, patterns.dtype, tuple(patterns.shape))
    assert torch.equal(x.value, again)


@pytest.mark.parametrize("name", ["fp8_e4m3", "fp8_e4m3fnuz", "fp6_e2m3", "fp4_e2m1", "e3m4", "unsigned"])
def test_a_cut_format(name):
    """Cut to fewer bits, a format has those of its numbers whose last mantissa bits are zero, up to the largest."""
    own = {"e3m4": FloatFormat("e3m4", 3, 4), "unsigned": FloatFormat("u", 3, 3, signed=False)}
    format_ = own.get(name) or FORMATS[name]
    values = format_.values().numpy()
    x = np.concatenate([values, (values[1:] + values[:-1]) / 2, 2 * values, np.linspace(-20, 20, 999)])
    others = format_.bits - format_.mantissa_bits
    for kept in range(format_.mantissa_bits + 1):
        exponents = np.maximum(np.frexp(values)[1] - 1, format_.min_exponent)
        left = values[np.mod(values, 2.0 ** (exponents - kept)) == 0]
        quant = FloatQuant(format_, ConstScaling(1.0), bit_width_impl=BitWidthConst(others + kept))
        y, _, _, bit_width = quant(torch.tensor(x))
        distance = np.abs(x[:, None] - left).min(axis=1)
        assert (distance.tolist(), others + kept) == (np.abs(x - y.numpy()).tolist(), bit_width.item())
        assert left.max() == FloatScaling(format_, BitWidthConst(others + kept))().item()
        assert set(y.tolist()) <= set(left.tolist())


@pytest.mark.parametrize("bits", [8, 9, 32])
def test_more_bits_than_a_format_has(bits):
    """A format that is cut to its own bits or more is not cut: values and gradients are bit for bit its own."""
    outcomes = []
    for parts in ({}, {"bit_width_impl": BitWidthConst(bits)}):
        x = torch.tensor(X, requires_grad=True)
        y, _, _, bit_width = FloatQuant(FP8_E4M3, ParameterScaling(2.0), FloatScaling(FP8_E4M3, **parts), **parts)(x)
        y.sum().backward()
        outcomes.append((y.tolist(), x.grad.tolist(), bit_width.item()))
    assert outcomes[0] == outcomes[1]


def test_fewer_bits_than_sign_and_exponent():
    """Sign and exponent are never cut."""
    y, _, _, bit_width = FloatQuant(FP8_E4M3, ConstScaling(1.0), bit_width_impl=BitWidthConst(2))(torch.tensor([3.5]))
    assert (4.0, 5.0) == (y.item(), bit_width.item())


@pytest.mark.parametrize("format_", [FLOAT16, IntFormat(8)])
def test_formats_that_are_not_cut(format_):
    """A format whose overflow is infinite can not be cut, nor can an integer."""
    with pytest.raises(ArgumentError) as caught:
        FloatQuant(format_, ConstScaling(1.0), bit_width_impl=BitWidthConst(8))
    assert f"`float_format` (={format_}) must saturate for a `bit_width_impl` to cut it" == str(caught.value)


def test_a_cut_format_travels(travel, outcome):
    """A copy of one with a learned width, by whatever way, gives equal values and gradients."""

    def create():
        bits = BitWidthParameter(7, min_bit_width=5)
        return FloatQuant(FP8_E4M3, ParameterScaling(2.0), FloatScaling(FP8_E4M3, bits), bit_width_impl=bits)

    module = create()
    assert outcome(module, torch.tensor(X)) == outcome(travel(create, module), torch.tensor(X))


def test_nan_stays_in_a_cut_format():
    """NaN stays NaN, infinity is the largest number that is left, and minus zero stays."""
    quant = FloatQuant(FP8_E4M3, ConstScaling(1.0), bit_width_impl=BitWidthConst(6))
    y = quant(torch.tensor([math.nan, math.inf, -0.0]))[0].tolist()
    assert math.isnan(y[0])
    assert (384.0, -1.0) == (y[1], math.copysign(1.0, y[2]))


@pytest.mark.parametrize("number_format", [FP8_E4M3, IntFormat(8)])
def test_finite_values_stay_finite(number_format):
    """Where the format saturates, a value that rounds to more than float32 has becomes its largest number."""
    largest = torch.finfo(torch.float32).max
    x = torch.tensor([largest, -largest, 1e38], requires_grad=True)
    y, *_ = FloatQuant(number_format, ConstScaling(2.0**122))(x)  # the largest number rounds up, to 2 ** 128
    y[:2].sum().backward()
    assert y[:2].tolist() == [largest, -largest]
    assert bool(y.isfinite().all())
    assert bool(x.grad.isfinite().all())
