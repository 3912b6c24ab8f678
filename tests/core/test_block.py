"""Block formats, held against their specifications written out in NumPy, and against gfloat."""

import math

import attrs
import gfloat
import ml_dtypes
import numpy as np
import pytest
import torch
from gfloat.block import compute_scale_amax
from gfloat.formats import all_block_formats

from brevq.core.formats import BlockFormat, FloatFormat, IntFormat
from brevq.core.formats.catalogue import (
    BFP16,
    BLOCK_FORMATS,
    E8M0,
    FLOAT16,
    FP4_E2M1,
    FP8_E4M3,
    FP8_E5M2,
    MX6,
    MX9,
    MXFP4,
    MXFP8_E4M3,
    MXINT8,
    NVFP4,
)
from brevq.core.function_wrapper import PerBlock, PerGroup
from brevq.core.quant import FloatQuant
from brevq.core.scaling import BlockScaling
from brevq.core.stats import AbsMax, AbsPercentile
from brevq.errors import ArgumentError, ArgumentTypeError
from brevq.quant_tensor import QuantTensor

# torch.compile itself makes an instance of an autograd.Function, and torch warns of those.
pytestmark = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")

# Largest number, exponent of the largest power of two, bits after the leading one: table 1 of the MX specification.
ELEMENTS = {
    "mxfp8_e4m3": (ml_dtypes.float8_e4m3fn, 448.0, 8, 3),
    "mxfp8_e5m2": (ml_dtypes.float8_e5m2, 57344.0, 15, 2),
    "mxfp6_e3m2": (ml_dtypes.float6_e3m2fn, 28.0, 4, 2),
    "mxfp6_e2m3": (ml_dtypes.float6_e2m3fn, 7.5, 2, 3),
    "mxfp4": (ml_dtypes.float4_e2m1fn, 6.0, 2, 1),
    "mxint8": (None, 127 / 64, 0, 6),
    "bfp16": (None, 127 / 64, 0, 6),
}
RULES = ["floor", "even", "ceil", "fit"]


def blocks_of(size, count=200):
    """Blocks of normal numbers over the whole range of float32, and blocks that try every corner."""
    random = np.random.default_rng(7)
    scales = np.exp2(random.integers(-120, 120, (count, 1))).astype(np.float32)
    normal = (random.normal(size=(count, size)) * scales).astype(np.float32)
    # Largest values just below, at and above powers of two, and where elements round up or saturate.
    tops = [1.0, 1.5, 1.75, 1.875, 1.9375, 1.96875, 1.984375, 1.9921875, 1.99609375]
    tops = np.float32([top * 2.0**e for top in tops for e in (0, -3, 30)])
    tops = np.concatenate([tops, np.nextafter(tops, np.float32(0)), np.nextafter(tops, np.float32(9e9))])
    corner = (random.uniform(-1, 1, (len(tops), size)) * tops[:, None]).astype(np.float32)
    corner[:, 3] = tops
    ends = np.zeros((9, size), np.float32)
    ends[1:, 1] = [
        1e-45,
        1e-40,
        2.0**-127,
        2.0**-126,
        np.nextafter(np.float32(2.0**-119), np.float32(0)),
        -3e-38,
        1,
        2e37,
    ]
    ends[1:, 2] = ends[1:, 1] * np.float32(-0.3)
    return np.concatenate([normal, corner, ends])


def element(x, dtype, largest):
    """The nearest elements, saturating."""
    if dtype is None:
        return np.clip(np.round(x * 64), -128, 127) / 64
    return np.clip(x, -largest, largest).astype(np.float32).astype(dtype).astype(np.float64)


def shared_exponent(amax, rule, largest, emax, mantissa_bits):
    """The exponent of the scale of a block, by the definition of each rule."""
    if amax == 0:
        return -127
    if rule == "even":
        amax = float(np.round(math.frexp(amax)[0] * 2.0 ** (mantissa_bits + 1))) * 2.0 ** (
            math.frexp(amax)[1] - mantissa_bits - 1
        )
    exponent = math.frexp(amax)[1] - 1
    if rule == "ceil":
        exponent += amax > 2.0**exponent
    if rule == "fit":
        return max(next(e for e in range(exponent - 20, 128) if amax <= largest * 2.0**e), -127)
    return min(max(exponent - emax, -127), 127)


def reference(blocks, name, rule):
    """Scales and values of a format whose scale is a power of two, one block after the other."""
    dtype, largest, emax, mantissa_bits = ELEMENTS[name]
    amax = np.abs(blocks).max(1).astype(np.float64)
    scales = [2.0 ** shared_exponent(a, rule, largest, emax, mantissa_bits) for a in amax]
    rows = [
        element(block / scale, dtype, largest) * scale
        for block, scale in zip(blocks.astype(float), scales, strict=True)
    ]
    return np.array(scales), np.array(rows)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", ELEMENTS)
def test_power_of_two_scales(name, rule):
    """Scales and values are those of the MX specification, and of the further rules, block by block."""
    format_ = BLOCK_FORMATS[name] if rule == "floor" else BLOCK_FORMATS[name].with_rule(rule)
    x = blocks_of(format_.size)
    scales, values = reference(x, name, rule)
    codes = format_.encode(torch.tensor(x))
    assert (np.log2(scales) + 127).tolist() == codes.scale[:, 0].tolist()
    assert values.tolist() == format_.decode(*codes).tolist()
    assert values.astype(np.float32).tolist() == format_.cast(torch.tensor(x)).tolist()


@pytest.mark.parametrize("info", all_block_formats, ids=str)
def test_gfloat(info):
    """Values are those of gfloat's blocks."""
    format_ = {"mxfp4_e2m1": MXFP4}.get(info.name) or BLOCK_FORMATS[info.name]
    x = blocks_of(32, 40)
    expected = [gfloat.quantize_block(info, block.astype(float), compute_scale_amax).tolist() for block in x]
    assert expected == format_.decode(*format_.encode(torch.tensor(x))).tolist()


def nvfp4(x):
    """NVFP4 by its formula: one float32 scale for the tensor, one E4M3 scale for 16 elements."""
    tensor_scale = np.float32(np.abs(x).max().astype(float) / 6 / 448)
    amax = np.abs(x.reshape(-1, 16)).max(1, keepdims=True).astype(float)
    block_scale = np.maximum((amax / 6 / tensor_scale).astype(ml_dtypes.float8_e4m3fn).astype(np.float32), 2.0**-9)
    scale = block_scale.astype(np.float32) * tensor_scale
    codes = np.clip(x.reshape(-1, 16) / scale, -6, 6).astype(ml_dtypes.float4_e2m1fn).astype(np.float32)
    return block_scale, (codes * scale).reshape(x.shape)


@pytest.mark.parametrize("spread", [1.0, 5.0, 12.0])
def test_nvfp4(spread):
    """Block scales, the tensor scale and values are those of the formula, bit for bit."""
    random = np.random.default_rng(8)
    x = (random.normal(size=(50, 64)) * np.exp(spread * random.normal(size=(50, 1)))).astype(np.float32)
    x[3, 16:32] = 0
    block_scale, values = nvfp4(x)
    codes = NVFP4.encode(torch.tensor(x))
    assert block_scale.ravel().tolist() == FP8_E4M3.decode(codes.scale).flatten().tolist()
    assert np.float32(np.abs(x).max() / 2688).item() == pytest.approx(codes.tensor_scale.item(), rel=2.0**-23)
    assert values.tolist() == NVFP4.cast(torch.tensor(x)).tolist()


def micro_exponents(block, mantissa_bits):
    """MX9 and MX6 by the paper: a pair whose exponents are below the block's shifts by one."""
    exponent = max(math.frexp(float(np.abs(block).max()))[1] - 1, -127) if np.abs(block).max() else -127
    values, shifts = [], []
    for pair in block.astype(float).reshape(-1, 2):
        shift = int(all(abs(v) < 2.0**exponent for v in pair))
        step = 2.0 ** (exponent - shift - (mantissa_bits - 1))
        top = 2**mantissa_bits - 1
        values += [min(max(round(v / step), -top), top) * step for v in pair]
        shifts.append(1 - shift)
    return exponent + 127, shifts, values


@pytest.mark.parametrize(("format_", "mantissa_bits"), [(MX9, 7), (MX6, 4)], ids=str)
def test_micro_exponents(format_, mantissa_bits):
    """Shared exponents, micro-exponents and values are those of the paper, block by block."""
    x = blocks_of(16)
    exponents, shifts, values = zip(*(micro_exponents(block, mantissa_bits) for block in x), strict=True)
    codes = format_.encode(torch.tensor(x))
    assert list(exponents) == codes.scale[:, 0].tolist()
    assert list(shifts) == codes.micro.tolist()
    assert list(values) == format_.decode(*codes).tolist()
    assert torch.tensor(values).tolist() == format_.cast(torch.tensor(x)).tolist()


def test_even_differs_where_it_should():
    """Rounding of the largest value takes the next power of two exactly when the elements would round up to it."""
    x = torch.tensor([[1.75, 0.1], [1.74, 0.1], [7.0, 0.1]])
    even = MXFP4.with_rule("even")
    assert [[125], [125], [127]] == MXFP4.encode(x).scale.tolist()
    assert [[126], [125], [128]] == even.encode(x).scale.tolist()


@pytest.mark.parametrize("format_", BLOCK_FORMATS.values(), ids=str)
def test_ragged(format_):
    """A last block that is not full has the scale of its own values, and nothing is added to the tensor."""
    x = torch.randn(3, 2 * format_.size + 5)
    head, tail = x[:, : -format_.size - 5], x[:, -5:]
    codes = format_.encode(x)
    assert (x.shape, (3, 3)) == (codes.element.shape, tuple(codes.scale.shape))
    assert torch.equal(format_.cast(x).double(), format_.decode(*codes).float().double())
    if not format_.tensor_scale:
        assert torch.equal(format_.cast(head), format_.cast(x)[:, : format_.size])
        assert torch.equal(format_.cast(tail), format_.cast(x)[:, -5:])


@pytest.mark.parametrize("format_", BLOCK_FORMATS.values(), ids=str)
def test_zeros(format_):
    """Zeros are zeros, with the smallest scale above zero, wherever the other blocks lie."""
    x = torch.zeros(2, 2 * format_.size)
    x[1, -1] = 3.0
    y = format_.cast(x)
    codes = format_.encode(x)
    assert (0.0, True) == (y[:, :-1].abs().sum().item(), y.isfinite().all().item())
    assert format_.scale.smallest == format_.scale.decode(codes.scale).min().item()
    assert 0.0 == format_.cast(torch.zeros(format_.size)).abs().sum().item()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("format_", BLOCK_FORMATS.values(), ids=str)
def test_not_finite(format_, bad):
    """A NaN or an infinity makes its block NaN, or the whole tensor where that has a scale, and no other."""
    x = torch.randn(2, 3 * format_.size)
    x[0, format_.size + 1] = bad
    expected = torch.zeros_like(x, dtype=torch.bool)
    expected[0, format_.size : 2 * format_.size] = True
    assert torch.equal(expected | format_.tensor_scale, format_.cast(x).isnan())


def test_codes_of_nan():
    """The scale of a block with a NaN is NaN where elements have a code for it; where not, there are no codes."""
    x = torch.tensor([[math.nan, 1.0]])
    assert 255 == MXFP8_E4M3.encode(x).scale.item()
    with pytest.raises(ArgumentError) as error:
        MXFP4.encode(x)
    assert "fp4_e2m1 has no code for NaN" == str(error.value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize(
    "format_",
    [*BLOCK_FORMATS.values(), *(BLOCK_FORMATS[name].with_rule(rule) for name in ELEMENTS for rule in RULES[1:])],
    ids=str,
)
def test_finite_stays_finite(format_, dtype):
    """The largest numbers of a dtype saturate: they stay finite, and within a step of where they were."""
    last = torch.finfo(dtype).max
    y = format_.cast(torch.tensor([last, -last, 1.0], dtype=dtype))
    codes = format_.encode(torch.tensor([last, -last, 1.0], dtype=dtype))
    assert y.isfinite().all()
    assert torch.equal(format_.decode(*codes).clamp(-last, last).to(dtype), y)
    # Scales end at 2 ** 127, and elements at 57344 or before, both far below the largest float64.
    assert dtype == torch.float64 or y[0].item() > 0.75 * last


def test_largest_numbers_of_int8_blocks():
    """The code of -2 at the largest scale is -2 ** 128, which is no float32: the cast gives its smallest number."""
    assert [-torch.finfo(torch.float32).max] == MXINT8.cast(torch.tensor([-3.4e38])).tolist()
    assert [-(2.0**128)] == MXINT8.decode(*MXINT8.encode(torch.tensor([-3.4e38]))).tolist()


def test_scales_without_saturation():
    """Scales beyond the largest of a format that has infinities are its largest all the same."""
    format_ = BlockFormat("x", FP4_E2M1, FLOAT16, 2, rule="nearest")
    assert [6 * 65504.0] == format_.cast(torch.tensor([1e9])).tolist()


def test_tensor_scales_have_a_floor():
    """Tensors below 2 ** -100 have the tensor scale of that: NVFP4 keeps 2 ** -122 and loses 2 ** -123."""
    assert [0.0, 0.0] == NVFP4.cast(torch.tensor([1e-38, 5e-39])).tolist()
    assert [True, False] == [bool(NVFP4.cast(torch.tensor([2.0**e])).item()) for e in (-122, -123)]
    assert np.float32(2.0**-100 / 2688) == NVFP4.encode(torch.tensor([2.0**-110])).tensor_scale.item()


@pytest.mark.parametrize("format_", BLOCK_FORMATS.values(), ids=str)
def test_values(format_):
    """The values are what all codes of an element stand for at scale 1, at each micro-exponent, sorted, each once."""
    codes = torch.arange(2**format_.element.bits)
    one = format_.scale.encode(torch.ones(len(codes), 1))
    levels = [None] if format_.micro is None else [torch.full((len(codes), 1), code) for code in (0, 1)]
    tensor_scale = torch.ones(()) if format_.tensor_scale else None
    numbers = [format_.decode(one, codes[:, None], micro, tensor_scale).flatten().tolist() for micro in levels]
    expected = sorted({number for level in numbers for number in level if math.isfinite(number)})
    assert (expected, torch.float64) == (format_.values().tolist(), format_.values().dtype)


def test_exponents_are_limited():
    """Scales end at the first and the last power of two that E8M0 has; small blocks then lose bits."""
    tiny, huge = torch.full((1, 32), 2.0**-130), torch.full((1, 32), 3.4e38)
    assert ([[0]], [[127 + 127]]) == (MXFP4.encode(tiny).scale.tolist(), MXINT8.encode(huge).scale.tolist())
    assert 0.0 == MXFP4.cast(tiny).sum().item()
    assert 2.0**-130 == MXFP8_E4M3.cast(tiny)[0, 0].item()
    assert [[254]] == MXINT8.with_rule("ceil").encode(huge).scale.tolist()


@pytest.mark.parametrize(
    ("name", "bits"),
    [("mxfp8_e4m3", 8.25), ("mxfp6_e2m3", 6.25), ("mxfp4", 4.25), ("nvfp4", 4.5), ("bfp16", 9), ("mx9", 9), ("mx6", 6)],
)
def test_bits_per_element(name, bits):
    """Bits per element are those that the specifications and papers state."""
    assert bits == BLOCK_FORMATS[name].bits_per_element


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("format_", BLOCK_FORMATS.values(), ids=str)
def test_dtypes(format_, dtype):
    """A cast returns the dtype that it was given, and computes with what that dtype holds."""
    x = torch.randn(2, 40).to(dtype)
    assert torch.equal(format_.cast(x.double()).to(dtype), format_.cast(x))


def test_empty():
    """No elements are no blocks."""
    assert [(0, 32), (3, 0)] == [tuple(NVFP4.cast(torch.zeros(shape)).shape) for shape in ((0, 32), (3, 0))]


# --- the quantizer -------------------------------------------------------------------------------------------------


def block_quant(format_, **view):
    """The quantizer of a block format: its elements, its scales, and statistics over its groups."""
    granularity = PerGroup(format_.group_size, pad=True, **view)
    return FloatQuant(format_.element, BlockScaling(format_, AbsMax(granularity))), granularity


@pytest.mark.parametrize("axis", [-1, 0, 1])
@pytest.mark.parametrize("format_", [*BLOCK_FORMATS.values(), MXFP4.with_rule("fit"), MX6.with_rule("even")], ids=str)
def test_quantizer_agrees_with_format(format_, axis):
    """Along any axis, the quantizer's values are those of the format's cast, bit for bit."""
    quant, granularity = block_quant(format_, group_axis=axis)
    x = torch.randn(37, 50, 3) * torch.exp(3 * torch.randn(37, 50, 1))
    y, scale, zero_point, bit_width = quant(granularity.split(x))
    expected = format_.cast(x.movedim(axis, -1)).movedim(-1, axis)
    assert torch.equal(expected, granularity.join(y, x.shape))
    assert (0.0, format_.element.bits, torch.float32) == (zero_point.item(), bit_width.item(), scale.dtype)


@pytest.mark.parametrize("format_", BLOCK_FORMATS.values(), ids=str)
def test_bit_patterns(format_):
    """A `QuantTensor` in blocks lies on its grid, and its integers are the element codes of the format."""
    quant, granularity = block_quant(format_)
    x = torch.randn(5, 70)
    y, scale, zero_point, bit_width = quant(granularity.split(x))
    quantized = QuantTensor(
        granularity.join(y, x.shape), scale, zero_point, bit_width, True, quant.float_format, granularity
    )
    codes = format_.encode(x)
    assert (True, torch.uint8) == (quantized.is_valid, quantized.int().dtype)
    assert torch.equal(format_.element.decode(codes.element), format_.element.decode(quantized.int()))


def test_two_dimensional_blocks():
    """NVFP4 weights may share scales in squares of 16: statistics over blocks in the place of runs."""
    view = PerBlock((16, 16))
    x = torch.randn(32, 48)
    y, *_ = FloatQuant(FP4_E2M1, BlockScaling(NVFP4, AbsMax(view)))(view.split(x))
    expected = nvfp4_in_squares(x.numpy())
    assert expected.tolist() == view.join(y, x.shape).tolist()


def nvfp4_in_squares(x):
    """NVFP4 with one E4M3 scale for 16 by 16 elements."""
    tensor_scale = np.float32(np.abs(x).max().astype(float) / 2688)
    out = np.zeros_like(x)
    for i in range(0, x.shape[0], 16):
        for j in range(0, x.shape[1], 16):
            square = x[i : i + 16, j : j + 16]
            code = np.float64(np.abs(square).max().astype(float) / 6 / tensor_scale).astype(ml_dtypes.float8_e4m3fn)
            scale = code.astype(np.float32) * tensor_scale
            out[i : i + 16, j : j + 16] = (square / scale).clip(-6, 6).astype(ml_dtypes.float4_e2m1fn).astype(
                np.float32
            ) * scale
    return out


def test_other_statistics():
    """The statistic of a group is a component: a percentile clips what is rare."""
    granularity = PerGroup(32)
    scaling = BlockScaling(MXFP4, AbsPercentile(granularity, 90.0))
    x = torch.ones(1, 32)
    x[0, 0] = 100.0
    y, scale, *_ = FloatQuant(FP4_E2M1, scaling)(granularity.split(x))
    assert (0.25, 1.5, 1.0) == (scale.item(), y.max().item(), y.min().item())


def test_gradient():
    """The gradient is straight-through, and the largest value's is also that of the scale which it makes."""
    values = np.array([0.3, -0.8, 1.3, -7.0])  # scale 1, on the elements 0.5, -1, 1.5 and -6, of which -7 is clipped
    x = torch.tensor(values[None], requires_grad=True, dtype=torch.float32)
    quant, granularity = block_quant(MXFP4)
    weights = np.array([1.0, 10.0, 100.0, 1000.0])
    y = granularity.join(quant(granularity.split(x))[0], x.shape)
    (y * torch.tensor(weights)).sum().backward()
    of_scale = (weights * (np.array([0.5, -1.0, 1.5, -6.0]) - np.array([0.3, -0.8, 1.3, 0.0]))).sum()
    assert pytest.approx([1.0, 10.0, 100.0, -of_scale / 4], rel=1e-6) == x.grad[0].tolist()


@pytest.mark.parametrize("format_", BLOCK_FORMATS.values(), ids=str)
def test_gradients_are_finite(format_):
    """Gradients are finite for numbers, zeros and tiny numbers, and one for what is neither clipped nor the largest."""
    x = torch.linspace(-1.0, 0.7, 4 * format_.size).reshape(2, -1)
    x[1, : format_.size] = torch.tensor([0.0, 1e-42]).repeat(format_.size // 2)
    x.requires_grad_()
    quant, granularity = block_quant(format_)
    quant(granularity.split(x))[0].sum().backward()
    largest = granularity.split(x).abs().amax(-1, keepdim=True) == granularity.split(x).abs()
    others = granularity.split(x.grad)[~largest]
    assert (True, {1.0}) == (bool(x.grad.isfinite().all()), set(others.tolist()))


@pytest.mark.parametrize("format_", [MXFP4, MXINT8, NVFP4, MX9], ids=str)
def test_travels(format_, travel, outcome):
    """A copy, by whatever way, gives equal values and gradients."""

    def create():
        return block_quant(format_)[0]

    x = torch.randn(3, 2, format_.group_size)
    assert outcome(create(), x) == outcome(travel(create, create()), x)


@pytest.mark.parametrize(
    "format_",
    [
        BlockFormat("doubly quantized int4", IntFormat(4), FP8_E4M3, 64, rule="nearest", tensor_scale=True),
        BlockFormat("e5m2 with e4m3 scales", FP8_E5M2, FP8_E4M3, 4, rule="nearest"),
        BlockFormat(
            "micro-exponents of four",
            FP4_E2M1,
            E8M0,
            8,
            micro=FloatFormat("e2m0", 2, 0, bias=3, signed=False, has_zero=False),
            micro_size=4,
        ),
    ],
    ids=str,
)
def test_formats_of_ones_own(format_):
    """Any element, scale, size and second level go together: codes decode to the cast, which is near."""
    x = torch.randn(6, 130)
    y = format_.cast(x)
    assert torch.equal(y, format_.decode(*format_.encode(x)).float())
    assert (y - x).norm() / x.norm() < 0.2


ERRORS = [
    (lambda: BlockFormat("x", FP4_E2M1, E8M0, 0), "`size` (=0) must be a whole number of elements, 1 or more"),
    (
        lambda: BlockFormat("x", FP4_E2M1, E8M0, 32, rule="up"),
        "`rule` (='up') must be one of 'floor', 'even', 'ceil', 'fit', 'nearest'",
    ),
    (
        lambda: BlockFormat("x", FP4_E2M1, FP8_E4M3, 16),
        "`rule` (='floor') chooses a power of two, and `scale` (=fp8_e4m3) has a mantissa: choose 'nearest'",
    ),
    (lambda: attrs.evolve(MX9, micro_size=3), "`micro_size` (=3) must divide `size` (=16)"),
    (
        lambda: attrs.evolve(MX9, tensor_scale=True),
        "`tensor_scale` (=True) and `micro` are two second levels of scales; choose one",
    ),
    (lambda: NVFP4.decode(torch.tensor([1]), torch.tensor([1])), "codes of nvfp4 are decoded with `tensor_scale`"),
    (
        lambda: BFP16.decode(torch.tensor([1]), torch.tensor([1]), torch.tensor([1])),
        "codes of bfp16 are decoded without `micro`",
    ),
    (lambda: MXFP4.decode(torch.tensor([256]), torch.tensor([1])), "codes of e8m0 are integers from 0 to 255"),
    (
        lambda: MXFP4.cast(torch.tensor(1.0)),
        "blocks of mxfp4 lie along the last axis, and a tensor of shape () has no axes",
    ),
    (
        lambda: NVFP4.encode(torch.tensor(1.0)),
        "blocks of nvfp4 lie along the last axis, and a tensor of shape () has no axes",
    ),
    (
        lambda: MX9.decode(torch.tensor(1), torch.tensor(1), torch.tensor(1)),
        "blocks of mx9 lie along the last axis, and a tensor of shape () has no axes",
    ),
]


@pytest.mark.parametrize(("call", "text"), ERRORS, ids=[text[:40] for _, text in ERRORS])
def test_errors(call, text):
    """What is wrong is refused with argument, value and rule."""
    with pytest.raises(ArgumentError) as error:
        call()
    assert text == str(error.value)


TYPE_ERRORS = [
    (
        lambda: BlockFormat("x", "fp4", E8M0, 32),
        "`element` (='fp4') must be a number format, such as FP4_E2M1 or IntFormat(8), not str",
    ),
    (lambda: BlockFormat("x", FP4_E2M1, 127, 32), "`scale` (=127) must be a FloatFormat, such as E8M0, not int"),
    (
        lambda: BlockFormat("x", FP4_E2M1, E8M0, 32, micro="e1m0"),
        "`micro` (='e1m0') must be a FloatFormat, such as E8M0, not str",
    ),
    (
        lambda: BlockFormat("x", FP4_E2M1, E8M0, 32, tensor_scale="no"),
        "`tensor_scale` (='no') must be True or False, not str",
    ),
    (lambda: BlockFormat(4, FP4_E2M1, E8M0, 32), "`name` (=4) must be a text, not int"),
    (lambda: MXFP4.cast(torch.tensor([1])), "mxfp4 takes floating-point tensors, not torch.int64"),
]


@pytest.mark.parametrize(("call", "text"), TYPE_ERRORS, ids=[text[:40] for _, text in TYPE_ERRORS])
def test_arguments_of_another_kind(call, text):
    """An argument of another kind is a type error, with argument, value and rule."""
    with pytest.raises(ArgumentTypeError) as error:
        call()
    assert text == str(error.value)
