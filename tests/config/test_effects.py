"""Every word of the vocabulary does something on CPU: what it does, on numbers that show it."""

import ml_dtypes
import numpy as np
import pytest
import torch

from brevq.config import DeviceType, Dtype, QSchemeType, RoundType, ScaleType, TensorSpec
from brevq.graph import calibrating
from brevq.nn import QuantLinear
from injectors import MX6Weight, MX9Weight, MXFp4Weight, MXFp8e4m3Weight

torch.manual_seed(0)
WEIGHT = torch.randn(16, 64) * torch.linspace(0.1, 3.0, 16)[:, None]


def quantized(spec, weight=WEIGHT):
    """A weight, as a linear layer with the specification's recipe uses it."""
    layer = QuantLinear(weight.shape[1], weight.shape[0], bias=False, weight_quant=spec.recipe("weight"))
    with torch.no_grad():
        layer.weight.copy_(weight)
        return layer.quant_weight()


def calibrated(spec, x):
    """The input quantizer of a layer with the specification's recipe, calibrated with `x`."""
    layer = QuantLinear(x.shape[-1], 2, input_quant=spec.recipe("activation")).eval()
    with calibrating(layer):
        layer(x)
    return layer.input_quant


def is_power_of_two(scale):
    return bool((torch.frexp(scale)[0] == 0.5).all())


@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [("int2", -1, 1), ("int3", -3, 3), ("int4", -7, 7), ("int8", -127, 127), ("int16", -32767, 32767)],
)
def test_signed_integers(dtype, low, high):
    """Symmetric integer weights fill the codes of their width, but for the lowest one."""
    x = torch.tensor([[-3.0, 1.0, 3.0]])
    codes = torch.round(quantized(TensorSpec(dtype), x).value / quantized(TensorSpec(dtype), x).scale)
    assert (low, high) == (codes.min().item(), codes.max().item())


@pytest.mark.parametrize(
    ("dtype", "high"), [("uint2", 3), ("uint4", 15), ("uint8", 255), ("uint16", 65535), ("uint32", 2**32)]
)
def test_unsigned_integers(dtype, high):
    """Unsigned activations fill the codes from zero; the last of 32 bits float32 rounds up."""
    x = torch.tensor([[0.0, 1.0, 3.0]])
    out = calibrated(TensorSpec(dtype, observer="min_max"), x)(x)
    assert [0.0, high] == [torch.round(out.value[0, i] / out.scale).item() for i in (0, 2)]


def test_uint32():
    """32 bits leave no error but that of float32, which 16 bits do not, and the last code is an integer's last."""
    x = torch.linspace(0.0, 3.0, 1001)[None]
    outs = {bits: calibrated(TensorSpec(bits, observer="min_max"), x)(x) for bits in ("uint32", "uint16")}
    errors = {bits: (out.value - x).abs().max().item() for bits, out in outs.items()}
    assert errors["uint32"] <= 3 * 2**-23 < 1e-5 < errors["uint16"]
    assert 4294967295 == outs["uint32"].int().max().item()


def test_unsigned_floats():
    """Without a sign, 5 exponent and 3 mantissa bits: numbers as near as those of FP8 E4M3, and zero for all below."""
    x = torch.tensor([[0.0, -3.0, 1.0, 1.06, 1.07, 3.0]])
    out = calibrated(TensorSpec("fp8_e5m3", observer="min_max", scale_type="pof2"), x)(x)
    expected = x.clamp_min(0).numpy().astype(ml_dtypes.float8_e4m3fn).astype(np.float32)
    assert (expected.tolist(), False) == (out.value.tolist(), out.signed)


def test_int32():
    """32 bits leave an error of float32's own size, which 16 bits do not."""
    errors = {bits: (quantized(TensorSpec(bits)).value - WEIGHT).abs().max().item() for bits in ("int32", "int16")}
    assert errors["int32"] < 1e-6
    assert errors["int16"] > 1e-5


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_casts(dtype):
    """Casts round to torch's own grid of 16 bits, with scale 1."""
    out = quantized(TensorSpec(dtype))
    assert torch.equal(WEIGHT.to(getattr(torch, dtype)).float(), out.value)
    assert 1.0 == out.scale.item()


@pytest.mark.parametrize(
    ("dtype", "numpy_dtype"),
    [
        ("fp8_e4m3", ml_dtypes.float8_e4m3fn),
        ("fp8_e5m2", ml_dtypes.float8_e5m2),
        ("fp6_e3m2", ml_dtypes.float6_e3m2fn),
        ("fp6_e2m3", ml_dtypes.float6_e2m3fn),
        ("fp4", ml_dtypes.float4_e2m1fn),
    ],
)
def test_small_floats(dtype, numpy_dtype):
    """Over their scale, weights are numbers of the format, the nearest ones, and the largest is the format's."""
    out = quantized(TensorSpec(dtype))
    expected = (WEIGHT / out.scale).numpy().astype(numpy_dtype).astype(np.float32)
    assert torch.equal(torch.from_numpy(expected) * out.scale, out.value)
    assert float(ml_dtypes.finfo(numpy_dtype).max) == pytest.approx((WEIGHT.abs().max() / out.scale).item())


def test_mx():
    """`mx` is OCP MX: 32 weights in FP8 E4M3 share 2 ** (floor(log2 max |w|) - 8)."""
    blocks = WEIGHT.numpy().reshape(16, 2, 32)
    scale = 2.0 ** (np.floor(np.log2(np.abs(blocks).max(-1, keepdims=True))) - 8)
    elements = np.clip(blocks / scale, -448, 448).astype(ml_dtypes.float8_e4m3fn).astype(np.float32)
    assert np.array_equal(
        (elements * scale).reshape(16, 64).astype(np.float32), quantized(TensorSpec("mx")).value.numpy()
    )
    assert TensorSpec("mx").recipe("weight") is MXFp8e4m3Weight


def test_micro_exponents():
    """`mx6` and `mx9` are the library's recipes, the second one finer."""
    assert (MX6Weight, MX9Weight) == (TensorSpec("mx6").recipe("weight"), TensorSpec("mx9").recipe("weight"))
    coarse, fine = ((quantized(TensorSpec(d)).value - WEIGHT).abs().max() for d in ("mx6", "mx9"))
    assert fine < coarse / 4


def test_bfp16():
    """`bfp16` puts 8 weights on the steps of their largest one's power of two over 64."""
    blocks = WEIGHT.numpy().reshape(16, 8, 8)
    step = 2.0 ** (np.floor(np.log2(np.abs(blocks).max(-1, keepdims=True))) - 6)
    expected = np.clip(np.round(blocks / step), -128, 127) * step
    assert np.array_equal(expected.reshape(16, 64).astype(np.float32), quantized(TensorSpec("bfp16")).value.numpy())


def test_axis_of_blocks():
    """Blocks of `mx` lie along the axis that is asked for: those of the transposed weight."""
    along_outputs = quantized(TensorSpec("mx", axis=0), WEIGHT.T.contiguous()).value
    assert torch.equal(quantized(TensorSpec("mx")).value.T, along_outputs)


def test_per_tensor():
    """One scale for all values."""
    assert () == quantized(TensorSpec("int8", QSchemeType.per_tensor)).scale.shape


def test_per_channel():
    """One scale for each output channel, or for each index along another axis: its largest value over 127."""
    out = quantized(TensorSpec("int8", "per_channel"))
    assert torch.equal(WEIGHT.abs().amax(1, keepdim=True) / 127, out.scale)
    inputs = quantized(TensorSpec("int8", "per_channel", axis=1))
    assert torch.equal(WEIGHT.abs().amax(0, keepdim=True) / 127, inputs.scale)


def test_per_group():
    """One scale for each run of values, along the inputs or another axis."""
    out = quantized(TensorSpec("int4", "per_group", group_size=16))
    assert torch.equal(WEIGHT.reshape(16, 4, 16).abs().amax(-1) / 7, out.scale[..., 0])
    down = quantized(TensorSpec("int4", "per_group", group_size=8, axis=0))
    assert torch.equal(WEIGHT.T.reshape(64, 2, 8).abs().amax(-1) / 7, down.scale[..., 0])


@pytest.mark.parametrize(("size", "shape"), [(None, (1, 1)), (8, (2, 8))])
def test_per_block(size, shape):
    """One scale for each block of that many rows and columns, 128 by default."""
    out = quantized(TensorSpec("int8", "per_block", group_size=size))
    blocks = WEIGHT.reshape(shape[0], 16 // shape[0], shape[1], 64 // shape[1])
    assert torch.equal(blocks.abs().amax((1, 3)) / 127, out.scale[..., 0])


def test_float_scales():
    """Float scales are the largest value over 127, in float32, and `float32` says the same."""
    scale = quantized(TensorSpec("int8", scale_type="float")).scale
    assert torch.equal(WEIGHT.abs().max() / 127, scale)
    assert torch.equal(scale, quantized(TensorSpec("int8", scale_type="float32")).scale)
    half = QuantLinear(4, 4, weight_quant=TensorSpec("int8", scale_type="float32").recipe("weight")).bfloat16()
    assert torch.float32 == half.quant_weight().scale.dtype


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_pof2(dtype, symmetric):
    """Power-of-two scales of integer weights and activations are powers of two, and float ones are not."""
    spec = TensorSpec(dtype, "per_channel", scale_type="pof2", symmetric=symmetric)
    assert is_power_of_two(quantized(spec).scale)
    assert not is_power_of_two(quantized(TensorSpec(dtype, "per_channel", symmetric=symmetric)).scale)
    activation = TensorSpec(dtype, scale_type="pof2", symmetric=symmetric)
    assert is_power_of_two(calibrated(activation, WEIGHT)(WEIGHT).scale)


def test_pof2_of_floats():
    """Power-of-two scales of FP8 are powers of two, and clip nothing."""
    out = quantized(TensorSpec("fp8_e4m3", "per_channel", scale_type="pof2"))
    assert is_power_of_two(out.scale)
    assert (WEIGHT / out.scale).abs().max() <= 448


NUMPY_SCALES = {
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "float8_e8m0fnu": ml_dtypes.float8_e8m0fnu,
}


@pytest.mark.parametrize("scale_type", sorted(NUMPY_SCALES))
@pytest.mark.parametrize(("dtype", "largest"), [("int8", 127), ("int4", 7), ("fp8_e4m3", 448), ("fp6_e2m3", 7.5)])
def test_scales_on_a_grid(scale_type, dtype, largest):
    """Scales are the nearest numbers of their format to what float scales would be."""
    floats = (WEIGHT.abs().amax(1, keepdim=True) / largest).numpy()
    expected = floats.astype(NUMPY_SCALES[scale_type]).astype(np.float32)
    assert not np.array_equal(floats, expected)
    scale = quantized(TensorSpec(dtype, "per_channel", scale_type=scale_type)).scale
    assert np.array_equal(expected, scale.numpy())


def test_e5m3_scales():
    """`float8_e5m3` scales have three bits after the leading one."""
    floats = WEIGHT.abs().amax(1, keepdim=True) / 127
    mantissa, exponent = torch.frexp(floats)
    expected = torch.ldexp(torch.round(mantissa * 16) / 16, exponent)
    assert torch.equal(expected, quantized(TensorSpec("int8", "per_channel", scale_type="float8_e5m3")).scale)


def test_scales_on_a_grid_of_activations():
    """Observed scales lie on the grid as well, and those of zeros are above zero."""
    spec = TensorSpec("uint8", scale_type="bfloat16", symmetric=False)
    scale = calibrated(spec, WEIGHT)(WEIGHT).scale
    assert torch.equal(scale.bfloat16().float(), scale)
    zeros = quantized(TensorSpec("int8", scale_type="float16"), torch.zeros(2, 3))
    assert torch.equal(torch.zeros(2, 3), zeros.value)
    assert 2.0**-24 == zeros.scale.item()


def test_e8m0_groups_of_floats_are_mx():
    """Floating-point groups with scales in E8M0 are OCP MX, of 32 values by name and of any other size by rule."""
    spec = TensorSpec("fp4", "per_group", scale_type="float8_e8m0fnu", group_size=32)
    assert spec.recipe("weight") is MXFp4Weight
    eight = quantized(TensorSpec("fp4", "per_group", scale_type="float8_e8m0fnu", group_size=8))
    largest = WEIGHT.reshape(16, 8, 8).abs().amax(-1)
    assert torch.equal(2.0 ** (largest.log2().floor() - 2), eight.scale[..., 0])


STEPS = torch.tensor([[-1.5, -0.5, 0.5, 1.5, 2.5, 1.2, 1.8, -1.2, 127.0]])


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("half_even", [-2, 0, 0, 2, 2, 1, 2, -1, 127]),
        ("round", [-1, 0, 1, 2, 3, 1, 2, -1, 127]),
        ("floor", [-2, -1, 0, 1, 2, 1, 1, -2, 127]),
    ],
)
def test_rounding(method, expected):
    """Halves go to even, up or down, and what is no half to the nearest or down; the scale is 1."""
    assert expected == quantized(TensorSpec("int8", round_method=method), STEPS).value.flatten().tolist()
    x = STEPS.clone()
    x[0, -1] = 128.0
    codes = calibrated(TensorSpec("int8", round_method=method, observer="min_max"), x)(STEPS).value
    assert expected == codes.flatten().tolist()


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("half_even", [1.0, 1.015625, -1.0]),
        ("round", [1.0078125, 1.015625, -1.0]),
        ("floor", [1.0, 1.0078125, -1.0078125]),
    ],
)
def test_rounding_of_casts(method, expected):
    """Mantissas are rounded by the same methods: halves of steps of 1/128 above 1."""
    x = torch.tensor([[1 + 1 / 256, 1 + 3 / 256, -1 - 1 / 256]])
    assert expected == quantized(TensorSpec("bfloat16", round_method=method), x).value.flatten().tolist()


@pytest.mark.parametrize(("dtype", "codes"), [("uint8", (0, 255)), ("int8", (-128, 127)), ("int4", (-8, 7))])
def test_asymmetric(dtype, codes):
    """Asymmetric weights have a zero-point, so that their smallest and largest values take the outermost codes."""
    x = torch.tensor([[-1.0, 0.0, 3.0]])
    out = quantized(TensorSpec(dtype, symmetric=False), x)
    found = torch.round(out.value / out.scale + out.zero_point)
    assert [codes[0], codes[1]] == [found[0, 0].item(), found[0, 2].item()]
    assert 0.0 == out.value[0, 1].item()
    assert 4.0 / (codes[1] - codes[0]) == pytest.approx(out.scale.item())


def test_observers():
    """The percentile leaves out what the extrema hold, and the others find ranges that fit more values better."""
    x = torch.randn(64, 4096)
    x[0, 0] = 10.0
    observers = ("min_max", "percentile", "mse", "hqo")
    scale = {name: quantized(TensorSpec("int4", observer=name), x).scale.item() for name in observers}
    assert 10.0 / 7 == pytest.approx(scale["min_max"])
    assert scale["percentile"] < 0.9
    assert scale["mse"] < 0.6
    assert len(observers) == len(set(scale.values()))
    shifted = {"dtype": "uint4", "qscheme": "per_channel", "symmetric": False}
    extrema, hqo = (quantized(TensorSpec(**shifted, observer=name)) for name in ("min_max", "hqo"))
    assert not torch.equal(extrema.zero_point, hqo.zero_point)


@pytest.mark.parametrize("scheme", [{"qscheme": "per_channel"}, {"qscheme": "per_group", "group_size": 32}])
def test_hqo_of_signed_codes_is_that_of_unsigned_ones(scheme):
    """Signed codes are unsigned ones minus eight: HQO finds the same numbers, and not those of the extrema."""
    x = 0.3 + torch.randn(64, 64)
    signed, unsigned, extrema = (
        quantized(TensorSpec(dtype, symmetric=False, observer=observer, **scheme), x)
        for dtype, observer in (("int4", "hqo"), ("uint4", "hqo"), ("int4", "min_max"))
    )
    assert torch.equal(signed.value, unsigned.value)
    assert torch.equal(signed.zero_point + 8, unsigned.zero_point)
    assert not torch.equal(signed.zero_point, extrema.zero_point)


@pytest.mark.parametrize("scheme", [{}, {"qscheme": "per_channel"}, {"qscheme": "per_group", "group_size": 32}])
@pytest.mark.parametrize(
    "fields",
    [
        {"dtype": "int4"},
        {"dtype": "uint4", "symmetric": False},
        {"dtype": "fp4"},
        {"dtype": "int4", "symmetric": False},
        {"dtype": "fp4", "scale_type": "pof2"},
        {"dtype": "uint4", "symmetric": False, "scale_type": "pof2"},
    ],
)
def test_mse_has_the_smaller_squared_error(fields, scheme):
    """Whatever the grid, the squared error is below that of the extrema."""
    x = torch.randn(64, 64) + 0.3
    x[0, 0], x[1, 40] = 9.0, -8.0
    found, extrema = (quantized(TensorSpec(**fields, **scheme, observer=name), x) for name in ("mse", "min_max"))
    assert (found.value - x).square().sum() < (extrema.value - x).square().sum()


def test_default_observers():
    """Weights and dynamic activations follow the extrema by default, and static activations a percentile."""
    weight, activation = TensorSpec("int8"), TensorSpec("int8", observer="percentile")
    assert weight.recipe("weight") is TensorSpec("int8", observer="min_max").recipe("weight")
    assert weight.recipe("activation") is activation.recipe("activation")
    dynamic = TensorSpec("int8", dynamic=True), TensorSpec("int8", dynamic=True, observer="min_max")
    assert dynamic[0].recipe("activation") is dynamic[1].recipe("activation")


@pytest.mark.parametrize("spec", [TensorSpec("int8", dynamic=True), TensorSpec("uint8", symmetric=False, dynamic=True)])
def test_dynamic(spec):
    """Dynamic scales follow each input; static ones stay where calibration left them."""
    x = WEIGHT
    layer = QuantLinear(64, 2, input_quant=spec.recipe("activation")).eval()
    assert 2.0 == pytest.approx((layer.input_quant(2 * x).scale / layer.input_quant(x).scale).item())
    static = calibrated(TensorSpec("int8"), x)
    assert torch.equal(static(x).scale, static(2 * x).scale)


def test_dynamic_groups():
    """Activations in groups have a scale for each group of each input."""
    spec = TensorSpec("int8", "per_group", group_size=16, dynamic=True)
    layer = QuantLinear(64, 2, input_quant=spec.recipe("activation")).eval()
    assert torch.Size([16, 4, 1]) == layer.input_quant(WEIGHT).scale.shape


def test_no_word_without_effect():
    """No two words of one field give the same recipe, but for `float32`, which is what `float` means."""
    by_dtype = {TensorSpec(dtype).recipe("activation") for dtype in Dtype}
    assert len(Dtype) == len(by_dtype)
    by_scheme = {
        TensorSpec("int8", scheme, group_size=8 if scheme == "per_group" else None).recipe("weight")
        for scheme in QSchemeType
    }
    assert len(QSchemeType) == len(by_scheme)
    assert len(ScaleType) - 1 == len({TensorSpec("int8", scale_type=scale).recipe("weight") for scale in ScaleType})
    assert len(DeviceType) == len({TensorSpec("int8", device=device).recipe("weight") for device in DeviceType})
    assert len(RoundType) == len({TensorSpec("int8", round_method=method).recipe("weight") for method in RoundType})
