"""Number formats, held bit for bit against ml_dtypes, gfloat and torch."""

import math
import pickle

import attrs
import gfloat
import ml_dtypes
import numpy as np
import pytest
import torch
from gfloat.formats import format_info_ocp_int8

from brevq.core.formats import FloatFormat, IntFormat, Special, cast_ste
from brevq.core.formats.catalogue import BLOCK_FORMATS, E8M0, FORMATS, FP4_E2M1, FP8_E4M3, FP8_E5M2, FP8_E5M3
from brevq.errors import ArgumentError, ArgumentTypeError

ML_DTYPES = {
    "fp8_e4m3": ml_dtypes.float8_e4m3fn,
    "fp8_e5m2": ml_dtypes.float8_e5m2,
    "fp8_e4m3fnuz": ml_dtypes.float8_e4m3fnuz,
    "fp8_e5m2fnuz": ml_dtypes.float8_e5m2fnuz,
    "fp6_e3m2": ml_dtypes.float6_e3m2fn,
    "fp6_e2m3": ml_dtypes.float6_e2m3fn,
    "fp4_e2m1": ml_dtypes.float4_e2m1fn,
    "e8m0": ml_dtypes.float8_e8m0fnu,
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
}
# Formats that are not in the catalogue, by the constructor.
FURTHER = {
    "e4m3 ieee": (FloatFormat("e4m3", 4, 3, special="ieee", saturating=False), ml_dtypes.float8_e4m3),
    "e3m4 ieee": (FloatFormat("e3m4", 3, 4, special="ieee", saturating=False), ml_dtypes.float8_e3m4),
    "e4m3b11": (
        FloatFormat("b11", 4, 3, bias=11, special="negative_zero", saturating=False),
        ml_dtypes.float8_e4m3b11fnuz,
    ),
}
# What ml_dtypes does beyond the range: no NaN and no infinity means the largest number.
AS_ML_DTYPES = FURTHER | {
    name: (attrs.evolve(FORMATS[name], saturating=FORMATS[name].special is Special.NONE), dtype)
    for name, dtype in ML_DTYPES.items()
}
TORCH = {
    "fp8_e4m3": torch.float8_e4m3fn,
    "fp8_e5m2": torch.float8_e5m2,
    "fp8_e4m3fnuz": torch.float8_e4m3fnuz,
    "fp8_e5m2fnuz": torch.float8_e5m2fnuz,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
HALVES = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32)


def same(expected, actual):
    """Whether two arrays are equal as numbers, minus zero and NaN included."""
    expected, actual = np.asarray(expected, np.float64), np.asarray(actual, np.float64)
    nan = np.isnan(expected)
    signs = np.signbit(expected) == np.signbit(actual)
    return bool(np.all(np.isnan(actual) == nan) and np.all(((expected == actual) & signs)[~nan]))


def edges(values):
    """Float32 numbers where a cast to sorted `values` might err: they, halfway between, around both, and the rest."""
    values = np.asarray(values, np.float64)
    middle = (values[1:] + values[:-1]) / 2
    top = values[-1] + (values[-1] - values[-2]) * np.array([0.25, 0.5, 0.75, 1.0, 2.0])
    with np.errstate(over="ignore"):
        x = np.concatenate([values, middle, top, -top, [3.0, 1e-40, 2.0**-149, 3.4e38]]).astype(np.float32)
    around = [np.nextafter(x, np.float32(bound), dtype=np.float32) for bound in (-np.inf, np.inf)]
    extreme = np.array([0.0, -0.0, np.inf, -np.inf, np.nan], np.float32)
    return np.concatenate([x, *around, -x, extreme])


def codes_of(format_):
    """All bit patterns of a format."""
    return torch.arange(2**format_.bits)


@pytest.mark.parametrize("name", AS_ML_DTYPES)
def test_all_codes(name):
    """Every bit pattern stands for the number of ml_dtypes, and is the code of that number."""
    format_, dtype = AS_ML_DTYPES[name]
    codes = codes_of(format_)
    patterns = codes.numpy().astype(np.uint8 if format_.bits <= 8 else np.uint16)
    with np.errstate(invalid="ignore"):  # NumPy warns of signalling NaN
        expected = patterns.view(dtype).astype(np.float64)
    numbers = format_.decode(codes)
    finite_or_inf = ~torch.isnan(numbers)
    assert same(expected, numbers)
    assert torch.equal(codes[finite_or_inf], format_.encode(numbers[finite_or_inf]))


@pytest.mark.parametrize("name", [name for name in AS_ML_DTYPES if AS_ML_DTYPES[name][0].has_nan])
def test_nan_code(name):
    """The code of NaN is one that ml_dtypes reads as NaN."""
    format_, dtype = AS_ML_DTYPES[name]
    code = format_.encode(torch.tensor([math.nan])).numpy()
    assert np.isnan(code.astype(np.uint8 if format_.bits <= 8 else np.uint16).view(dtype).astype(np.float64)).all()


@pytest.mark.parametrize("name", AS_ML_DTYPES)
def test_cast_of_halves_and_edges(name):
    """All float16 numbers, and float32 ones at every edge, go where ml_dtypes takes them."""
    format_, dtype = AS_ML_DTYPES[name]
    x = np.concatenate([HALVES, edges(format_.values())])
    x = x if format_.has_nan else x[~np.isnan(x)]
    # Of E8M0, ml_dtypes (and torch) take float32 subnormals to 2 ** -126, of which many are nearer to 2 ** -127.
    x = x if format_.signed else x[x >= 2.0**-126]
    with np.errstate(invalid="ignore", over="ignore"):
        expected = x.astype(dtype).astype(np.float64)
    assert same(expected, format_.cast(torch.tensor(x)))


@pytest.mark.parametrize("name", [name for name in FORMATS if FORMATS[name].bits <= 8])
def test_cast_is_nearest(name):
    """No number of a format is nearer to any number than the one that the cast takes it to."""
    values = FORMATS[name].values()
    x = torch.tensor(edges(values)).double()
    x = x[x.isfinite()]
    distances = (x[:, None] - values).abs()
    assert torch.equal(distances.amin(1), (FORMATS[name].cast(x) - x).abs())


@pytest.mark.parametrize("name", TORCH)
def test_cast_of_torch(name):
    """Within the range, numbers go where torch's own dtypes take them, and bit patterns are theirs."""
    format_, dtype = FORMATS[name], TORCH[name]
    x = torch.tensor(np.concatenate([HALVES, edges(format_.values())]))
    x = x[x.abs() <= format_.max]
    patterns = x.to(dtype).view(torch.uint8 if format_.bits == 8 else torch.int16).long() % 2**format_.bits
    assert same(x.to(dtype).double(), format_.cast(x))
    assert torch.equal(patterns, format_.encode(x))


def info(format_):
    """A format as gfloat describes it."""
    ieee = format_.special is Special.IEEE
    return gfloat.FormatInfo(
        format_.name,
        format_.bits,
        format_.mantissa_bits + 1,
        bias=format_.bias,
        is_signed=format_.signed,
        domain=gfloat.Domain.Extended if ieee else gfloat.Domain.Finite,
        has_nz=format_.has_negative_zero,
        num_high_nans=2**format_.mantissa_bits - 1 if ieee else int(format_.special is Special.LAST),
        has_subnormals=True,
        is_twos_complement=False,
    )


def any_formats():
    """Widths, biases, corner cases and signs, all combined."""
    for exponent_bits in range(2, 6):
        for mantissa_bits in range(1, 5):
            for shift in (-3, 0, 4):
                bias = 2 ** (exponent_bits - 1) - 1 + shift
                for special in ("none", "ieee", "last", "negative_zero"):
                    for saturating in (True, False):
                        yield FloatFormat(
                            f"e{exponent_bits}m{mantissa_bits}b{bias}",
                            exponent_bits,
                            mantissa_bits,
                            bias=bias,
                            special=special,
                            saturating=saturating or special == "none",
                        )


def test_any_format():
    """Every exponent and mantissa width, bias and set of special numbers decodes and rounds as in gfloat."""
    disagree = []
    for format_ in any_formats():
        codes = np.arange(2**format_.bits)
        x = edges(format_.values()).astype(np.float64)
        x = x if format_.has_nan else x[~np.isnan(x)]
        decoded = same(gfloat.decode_ndarray(info(format_), codes), format_.decode(torch.tensor(codes)))
        rounded = gfloat.round_ndarray(info(format_), x, sat=format_.saturating)
        if not (decoded and same(rounded, format_.cast(torch.tensor(x)))):
            disagree.append(format_)
    assert [] == disagree


def test_unsigned_format_for_scales():
    """E5M3 without a sign decodes and rounds as in gfloat; what is below zero becomes zero."""
    x = edges(FP8_E5M3.values()).astype(np.float64)
    x = x[~(x < 0)] + 0.0
    assert same(gfloat.decode_ndarray(info(FP8_E5M3), np.arange(256)), FP8_E5M3.decode(torch.arange(256)))
    assert same(gfloat.round_ndarray(info(FP8_E5M3), x, sat=True), FP8_E5M3.cast(torch.tensor(x)))
    ends = torch.tensor([-3.0, -1e9, -math.inf, 1e9])
    assert same([0.0, 0.0, 0.0, FP8_E5M3.max], FP8_E5M3.cast(ends))
    assert same([0.0, 0.0, 0.0, math.nan], attrs.evolve(FP8_E5M3, saturating=False).cast(ends))


@pytest.mark.parametrize("name", FORMATS)
def test_values(name):
    """The numbers of a format are those that its codes stand for, finite, sorted, each once."""
    numbers = FORMATS[name].decode(codes_of(FORMATS[name])).tolist()
    expected = sorted({number for number in numbers if math.isfinite(number)})
    format_ = FORMATS[name]
    assert expected == format_.values().tolist()
    assert (expected[0], expected[-1]) == (format_.min, format_.max)
    assert min(number for number in expected if number > 0) == format_.smallest
    assert 2.0**format_.max_exponent <= format_.max < 2.0 ** (format_.max_exponent + 1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_cast_keeps_dtype(dtype):
    """A cast returns the dtype that it was given."""
    x = torch.tensor([0.3, -7.0], dtype=dtype)
    assert (dtype, [0.5, -6.0]) == (FP4_E2M1.cast(x).dtype, FP4_E2M1.cast(x).tolist())


@pytest.mark.parametrize(
    "format_", [*FORMATS.values(), FloatFormat("e10m10", 10, 10), FloatFormat("tiny", 5, 3, bias=160)]
)
def test_differentiable_cast_agrees(format_):
    """In float32 the differentiable cast goes where the cast in float64 goes, where float32 has that number."""
    x = torch.tensor(np.concatenate([HALVES, edges(format_.values()[-200:]), edges([0.0, 1e-44, 1e-42, 1e-38])]))
    assert same(format_.cast(x), cast_ste(format_, x))


def test_gradient_of_the_cast():
    """The gradient of a cast is one for what rounds into the range, and zero for what is clipped."""
    x = torch.tensor([0.0, -0.2, 5.1, 6.9, 7.1, -100.0, math.inf], requires_grad=True)
    cast_ste(FP4_E2M1, x).sum().backward()
    assert [1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0] == x.grad.tolist()


@pytest.mark.parametrize(("bits", "dtype"), [(2, ml_dtypes.int2), (4, ml_dtypes.int4), (8, np.int8), (16, np.int16)])
@pytest.mark.parametrize("signed", [True, False])
def test_integers(bits, dtype, signed):
    """Codes of integers are two's complement, or plain binary, as ml_dtypes and NumPy have them."""
    unsigned = {2: ml_dtypes.uint2, 4: ml_dtypes.uint4, 8: np.uint8, 16: np.uint16}[bits]
    format_ = IntFormat(bits, signed=signed)
    codes = codes_of(format_)
    expected = codes.numpy().astype(np.uint16 if bits == 16 else np.uint8).astype(unsigned)
    expected = (expected.view(dtype) if signed else expected).astype(np.float64)
    assert same(expected, format_.decode(codes))
    assert torch.equal(codes, format_.encode(format_.decode(codes)))
    assert sorted(expected) == format_.values().tolist()


@pytest.mark.parametrize(
    "format_", [IntFormat(4), IntFormat(4, signed=False), IntFormat(8, narrow=True), IntFormat(2)], ids=str
)
def test_cast_to_integers(format_):
    """Halves go to the even integer, what is beyond the range to its end, NaN stays, and zero has no sign."""
    x = edges(format_.values()).astype(np.float64)
    expected = np.clip(np.round(x), format_.min, format_.max) + 0.0
    assert same(expected, format_.cast(torch.tensor(x)))


def test_fixed_point():
    """Eight bits with six of a fraction are the integers of MXINT8, as in gfloat."""
    format_ = IntFormat(8, fraction_bits=6)
    x = edges(format_.values()).astype(np.float64)
    x = x[~np.isnan(x)]
    assert same(gfloat.decode_ndarray(format_info_ocp_int8, np.arange(256)), format_.decode(torch.arange(256)))
    assert same(np.clip(np.round(x * 64), -128, 127) / 64 + 0.0, format_.cast(torch.tensor(x)))
    assert torch.equal(torch.arange(256), format_.encode(format_.decode(torch.arange(256))))
    assert (-2.0, 127 / 64) == (format_.min, format_.max)
    assert (0, 0, 6) == (format_.exponent_bits, format_.max_exponent, format_.mantissa_bits)


@pytest.mark.parametrize(
    "format_", [*FORMATS.values(), *BLOCK_FORMATS.values(), IntFormat(8), FloatFormat("x", 3, 1)], ids=str
)
def test_format_is_a_value(format_):
    """A format is equal to its pickled copy, hashes like it, can not be changed, and prints its name."""
    copied = pickle.loads(pickle.dumps(format_))
    assert (format_, hash(format_)) == (copied, hash(copied))
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        format_.name = "other"
    assert getattr(format_, "name", "int8") == str(format_)


@pytest.mark.parametrize("special", ["none", "last", "ieee"])
@pytest.mark.parametrize("signed", [True, False])
def test_formats_without_zero(special, signed):
    """What is nearer to zero than any number becomes the smallest, of its own sign; codes decode to the cast."""
    format_ = FloatFormat("x", 2, 1, has_zero=False, special=special, signed=signed)
    x = torch.tensor([0.0, -0.0, 0.1, 0.3, -0.1, -1e-30, 0.5, -0.5, 0.6, 0.63, -1.1, 1e9])
    last = format_.max
    expected = [0.5, -0.5, 0.5, 0.5, -0.5, -0.5, 0.5, -0.5, 0.5, 0.75, -1.0, last]
    expected = expected if signed else [max(number, 0.5) for number in expected]
    assert (expected, expected) == (format_.cast(x).tolist(), cast_ste(format_, x).tolist())
    assert expected == format_.decode(format_.encode(x)).tolist()
    assert set(expected) <= set(format_.values().tolist())
    assert 0.5 == format_.smallest


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize(
    "format_", [IntFormat(32), IntFormat(32, signed=False), IntFormat(16), IntFormat(12, narrow=True)], ids=str
)
def test_integers_beyond_the_precision_of_a_dtype(format_, dtype):
    """What saturates is within the range, and the last number of its dtype there."""
    x = torch.tensor([math.inf, -math.inf], dtype=dtype)
    for actual in (format_.cast(x), format_.settle(x)):
        high, low = actual.double().tolist()
        further = torch.nextafter(actual, x).double().tolist()
        assert (dtype, True, True) == (actual.dtype, high <= format_.max, low >= format_.min)
        assert further[0] > format_.max
        assert further[1] < format_.min or not format_.signed


def test_int32_of_float32():
    """The largest int32 is no float32; what saturates is the float32 below."""
    assert 2**31 - 128 == IntFormat(32).cast(torch.tensor([2147483647.0])).item()
    assert 2**31 - 1 == IntFormat(32).cast(torch.tensor([2147483647.0], dtype=torch.float64)).item()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_saturating_beyond_a_dtype(dtype):
    """A format that saturates makes no infinity of a finite number, where it reaches beyond the dtype."""
    last = torch.finfo(dtype).max
    format_ = FloatFormat("x", 9, 1)
    assert [last, -last] == format_.cast(torch.tensor([last, -last], dtype=dtype)).tolist()
    assert [torch.finfo(torch.float32).max] == cast_ste(format_, torch.tensor([3.4e38])).tolist()


ERRORS = [
    (lambda: FloatFormat("x", 0, 3), "`exponent_bits` (=0) must be a whole number of bits from 1 to 10"),
    (lambda: FloatFormat("x", 4, 11), "`mantissa_bits` (=11) must be a whole number of bits from 0 to 10"),
    (lambda: FloatFormat("x", 4, 1.5), "`mantissa_bits` (=1.5) must be a whole number of bits from 0 to 10"),
    (
        lambda: FloatFormat("x", 4, 3, special="inf"),
        "`special` (='inf') must be one of 'none', 'ieee', 'last', 'negative_zero'",
    ),
    (
        lambda: FloatFormat("x", 4, 3, bias=-1100),
        "`bias` (=-1100) must be a whole number from -1008 to 1022, so that float64 holds all numbers",
    ),
    (
        lambda: FloatFormat("x", 4, 3, bias=7.0),
        "`bias` (=7.0) must be a whole number from -1008 to 1022, so that float64 holds all numbers",
    ),
    (lambda: IntFormat(1), "`bits` (=1) must be a whole number of signed bits from 2 to 32"),
    (
        lambda: IntFormat(8, fraction_bits=9),
        "`fraction_bits` (=9) must be a whole number of bits from 0 to `bits` (=8)",
    ),
    (lambda: FP4_E2M1.encode(torch.tensor([math.nan])), "fp4_e2m1 has no code for NaN"),
    (lambda: IntFormat(4).encode(torch.tensor([math.nan])), "int4 has no code for NaN"),
    (lambda: FP8_E4M3.decode(torch.tensor([256])), "codes of fp8_e4m3 are integers from 0 to 255"),
    (lambda: IntFormat(4).decode(torch.tensor([-1])), "codes of int4 are integers from 0 to 15"),
    (lambda: E8M0.decode(torch.tensor([1.0])), "codes of e8m0 are integers from 0 to 255"),
    (
        lambda: IntFormat(8, narrow=True).decode(torch.tensor([1, 128])),
        "codes of int8_narrow are integers from 0 to 255 without 128, which the narrow range gives up",
    ),
    (
        lambda: IntFormat(8, signed=False, narrow=True).decode(torch.tensor([255])),
        "codes of uint8_narrow are integers from 0 to 255 without 255, which the narrow range gives up",
    ),
    (
        lambda: FloatFormat("x", 2, 1, special="negative_zero", signed=False),
        "`special` (='negative_zero') puts NaN in the place of minus zero, which a format with `signed` (=False) and "
        "`has_zero` (=True) does not have",
    ),
    (
        lambda: FloatFormat("x", 2, 1, special="negative_zero", has_zero=False),
        "`special` (='negative_zero') puts NaN in the place of minus zero, which a format with `signed` (=True) and "
        "`has_zero` (=False) does not have",
    ),
    (
        lambda: FloatFormat("x", 1, 0, special="last"),
        "`special` (='last') leaves no number above zero with `exponent_bits` (=1) and `mantissa_bits` (=0): "
        "choose more bits, or 'none'",
    ),
    (lambda: FloatFormat("x", "4", 1), "`exponent_bits` (='4') must be a whole number of bits from 1 to 10"),
    (lambda: FloatFormat("x", "4", 1, bias=3), "`exponent_bits` (='4') must be a whole number of bits from 1 to 10"),
]


@pytest.mark.parametrize(("call", "text"), ERRORS, ids=[text[:40] for _, text in ERRORS])
def test_errors(call, text):
    """What is wrong is refused with argument, value and rule."""
    with pytest.raises(ArgumentError) as error:
        call()
    assert text == str(error.value)


TYPE_ERRORS = [
    (lambda: IntFormat("4"), "`bits` (='4') must be a whole number of signed bits from 2 to 32, not str"),
    (lambda: IntFormat(8, signed="no"), "`signed` (='no') must be True or False, not str"),
    (lambda: IntFormat(8, narrow=1), "`narrow` (=1) must be True or False, not int"),
    (lambda: FloatFormat("x", 2, 1, signed="no"), "`signed` (='no') must be True or False, not str"),
    (lambda: FloatFormat("x", 2, 1, saturating=None), "`saturating` (=None) must be True or False, not NoneType"),
    (lambda: FloatFormat("x", 2, 1, has_zero=0), "`has_zero` (=0) must be True or False, not int"),
    (lambda: FloatFormat(None, 2, 1), "`name` (=None) must be a text, not NoneType"),
]


@pytest.mark.parametrize(("call", "text"), TYPE_ERRORS, ids=[text[:40] for _, text in TYPE_ERRORS])
def test_arguments_of_another_kind(call, text):
    """An argument of another kind is a type error, with argument, value and rule."""
    with pytest.raises(ArgumentTypeError) as error:
        call()
    assert text == str(error.value)


def test_infinity_without_a_code():
    """An infinity saturates where the format says so, else it is the format's infinity or NaN."""
    inf = torch.tensor([-math.inf])
    unsaturated = attrs.evolve(FP8_E4M3, saturating=False)
    assert [-448.0, -57344.0] == [FP8_E4M3.cast(inf).item(), FP8_E5M2.cast(inf).item()]
    assert (-math.inf, True) == (
        attrs.evolve(FP8_E5M2, saturating=False).cast(inf).item(),
        unsaturated.cast(inf).isnan().item(),
    )
