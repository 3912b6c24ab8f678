"""Values of the recipes in groups, searched for, dynamic and rounded otherwise, against NumPy."""

import numpy as np
import pytest
import torch

import injectors
from brevq.graph import calibrating
from brevq.nn import QuantConv2d, QuantIdentity, QuantLinear
from brevq.quant_tensor import QuantTensor

RNG = np.random.default_rng(0)
WEIGHT = RNG.normal(size=(4, 256)).astype(np.float32)
INPUT = RNG.normal(loc=0.5, size=(3, 5, 256)).astype(np.float32)


def quantized_weight(recipe, weight=WEIGHT):
    """The weight of a linear layer, as the recipe quantizes it in evaluation."""
    layer = QuantLinear(weight.shape[1], weight.shape[0], weight_quant=recipe).eval()
    layer.weight.data.copy_(torch.from_numpy(weight))
    return layer.quant_weight()


def dequantized(quant):
    return quant.value.detach().numpy()


def symmetric(rows, lowest, highest, threshold):
    """Rows quantized by their largest absolute value, in float32, as the recipes do."""
    scale = np.abs(rows).max(axis=-1, keepdims=True) / np.float32(threshold)
    return np.clip(np.rint(rows / scale), lowest, highest) * scale


def shifted(rows, highest):
    """Rows quantized by their width with zero, and a zero-point."""
    low, high = np.minimum(rows.min(axis=-1, keepdims=True), 0), np.maximum(rows.max(axis=-1, keepdims=True), 0)
    scale = (high - low) / np.float32(highest)
    zero_point = np.clip(np.rint(-low / scale), 0, highest)
    return (np.clip(np.rint(rows / scale + zero_point), 0, highest) - zero_point) * scale


@pytest.mark.parametrize(
    ("name", "size", "threshold"), [("Int8WeightPerGroup", 32, 127), ("Int4WeightPerGroup", 32, 7)]
)
def test_groups_have_their_own_scale(name, size, threshold):
    """Each run of weights along the inputs is quantized by its own largest absolute value."""
    rows = WEIGHT.reshape(4, -1, size)
    expected = symmetric(rows, -threshold, threshold, threshold).reshape(WEIGHT.shape)
    quant = quantized_weight(getattr(injectors, name))
    assert (4, 256 // size, 1) == quant.scale.shape
    assert np.array_equal(expected, dequantized(quant))


@pytest.mark.parametrize(
    ("name", "size", "highest"),
    [
        ("ShiftedUint8WeightPerChannel", 256, 255),
        ("ShiftedUint4WeightPerChannel", 256, 15),
        ("ShiftedUint8WeightPerGroup", 32, 255),
        ("ShiftedUint4WeightPerGroup", 128, 15),
    ],
)
def test_shifted_weights_have_their_own_zero_points(name, size, highest):
    """Each channel or group is quantized by its own width and zero-point."""
    expected = shifted(WEIGHT.reshape(4, -1, size), highest).reshape(WEIGHT.shape)
    assert np.allclose(expected, dequantized(quantized_weight(getattr(injectors, name))), rtol=0, atol=1e-6)


def test_scales_of_double_quantization_are_quantized():
    """Around their mean, the ranges of 256 groups share a scale, and weights are quantized by what comes out."""
    weight = RNG.normal(size=(80, 256)).astype(np.float32)
    quant = quantized_weight(injectors.Int4WeightPerGroupDoubleQuant, weight)
    ranges = np.abs(weight.reshape(-1, 64)).max(axis=1)
    mean = ranges.mean(dtype=np.float64).astype(np.float32)
    offsets = np.pad(ranges - mean, (0, 192)).reshape(2, 256)
    second = np.abs(offsets).max(axis=1, keepdims=True) / np.float32(448)
    codes = torch.from_numpy(offsets / second).to(torch.float8_e4m3fn).float().numpy()
    scale = ((codes * second).reshape(-1)[:320] + mean).reshape(80, 4, 1) / np.float32(7)
    expected = np.clip(np.rint(weight.reshape(80, 4, 64) / scale), -7, 7) * scale
    assert np.array_equal(scale, quant.scale.detach().numpy())
    assert np.array_equal(expected.reshape(weight.shape), dequantized(quant))
    assert quant.is_valid


def test_any_dynamic_recipe_quantizes_scales():
    """The recipe of the scales is a name: 8-bit integers, of which 16 share a scale, or one in all."""
    plain = quantized_weight(injectors.Int4WeightPerGroup.let(group_size=64)).scale.detach().numpy()
    for recipe, size in (
        (injectors.Int8ActPerGroupDynamic.let(group_size=8), 8),
        (injectors.Int8ActPerTensorDynamic, 16),
    ):
        double = injectors.Int4WeightPerGroupDoubleQuant.let(scale_recipe=recipe, centered_scale=False)
        rows = (plain * np.float32(7)).reshape(-1, size)
        expected = symmetric(rows, -127, 127, 127).reshape(plain.shape) / np.float32(7)
        assert np.allclose(expected, quantized_weight(double).scale.detach().numpy(), rtol=1e-6)


def test_groups_lie_along_the_inputs_of_a_convolution():
    """In a convolution a group is 32 inputs of one output and one tap; what is missing counts as zeros."""
    layer = QuantConv2d(40, 2, 3, weight_quant=injectors.Int8WeightPerGroup)
    weight = layer.weight.detach().numpy()
    padded = np.pad(np.moveaxis(weight, 1, -1), [(0, 0)] * 3 + [(0, 24)])
    rows = symmetric(padded.reshape(2, 3, 3, 2, 32), -127, 127, 127)
    expected = np.moveaxis(rows.reshape(2, 3, 3, 64)[..., :40], -1, 1)
    assert np.array_equal(expected, dequantized(layer.quant_weight()))


def test_blocks_have_their_own_scale():
    """A weight of 192 by 256 has four blocks, of which two are not full; each is scaled to 448."""
    weight = RNG.normal(size=(192, 256)).astype(np.float32)
    quant = quantized_weight(injectors.Fp8e4m3OCPWeightPerBlock, weight)
    expected = [[np.abs(weight[r : r + 128, c : c + 128]).max() / 448 for c in (0, 128)] for r in (0, 128)]
    assert np.allclose(expected, quant.scale.detach().squeeze(-1).numpy(), rtol=1e-6)
    scale = np.repeat(np.repeat(quant.scale.detach().squeeze(-1).numpy(), 128, 0), 128, 1)[:192]
    codes = torch.from_numpy(weight / scale).to(torch.float8_e4m3fn).float().numpy()
    assert np.array_equal(codes * scale, dequantized(quant))


@pytest.mark.parametrize(("name", "axis"), [("Int8WeightPerTensorMSE", None), ("Int8WeightPerChannelMSE", 1)])
def test_mse_finds_the_best_of_its_candidates(name, axis):
    """At 3 bits, where it matters, no candidate has a smaller squared error than the range that is found."""
    quant = quantized_weight(getattr(injectors, name).let(bit_width=3))
    rows = WEIGHT.reshape(1, -1) if axis is None else WEIGHT
    largest = np.abs(rows).max(axis=1, keepdims=True)

    def error(scale):
        return ((np.clip(np.rint(rows / scale), -3, 3) * scale - rows) ** 2).mean(axis=1)

    errors = np.stack([error(largest * k / 100 / 3) for k in range(1, 101)])
    found = error(quant.scale.detach().numpy().reshape(-1, 1))
    assert np.allclose(errors.min(axis=0), found, rtol=1e-5)
    assert (found < 0.9 * errors[-1]).all()


@pytest.mark.parametrize(("name", "highest"), [("Int8ActPerTensorMSE", 1), ("Uint8ActPerTensorMSE", 3)])
def test_mse_of_activations_is_averaged_over_batches(name, highest):
    """The range of calibrated activations moves by a tenth from that of the first batch to that of the second."""
    recipe = getattr(injectors, name).let(bit_width=2)
    batches = [np.abs(RNG.standard_t(3, size=500)).astype(np.float32) for _ in range(2)]
    lowest, threshold = (-2, 2) if recipe.signed else (0, 3)

    def best(x):
        scales = [np.abs(x).max() * np.float32(k / 100) / threshold for k in range(1, 101)]
        return min(scales, key=lambda s: ((np.clip(np.rint(x / s), lowest, highest) * s - x) ** 2).mean())

    layer = QuantIdentity(act_quant=recipe)
    with calibrating(layer):
        for batch in batches:
            layer(torch.from_numpy(batch))
    expected = 0.9 * best(batches[0]) + 0.1 * best(batches[1])
    assert expected == pytest.approx(layer.act_quant.current().scale.item(), rel=1e-5)


@pytest.mark.parametrize("granularity", ["Tensor", "Channel"])
@pytest.mark.parametrize("kind", ["Int8", "ShiftedUint8"])
def test_hqo_has_smaller_errors_than_the_extrema(kind, granularity):
    """At 3 bits, for weights that crowd between two codes, the 0.7-norm of errors is far below that of the extrema."""
    weight = RNG.normal(loc=0.42, scale=0.02, size=(4, 256)).astype(np.float32)
    weight[:, :16] = RNG.uniform(-1, 1, size=(4, 16))
    weight[:, :2] = [-1, 1]
    plain = getattr(injectors, f"{kind}WeightPer{granularity}").let(bit_width=3)
    found = getattr(injectors, f"{kind}WeightPer{granularity}HQO").let(bit_width=3)
    norms = [(np.abs(dequantized(quantized_weight(r, weight)) - weight) ** 0.7).sum() for r in (found, plain)]
    assert norms[0] < 0.5 * norms[1]


def test_dynamic_scales_are_those_of_each_input():
    """Per tensor, per token and per group, in evaluation, without calibration."""
    per_tensor = symmetric(INPUT.reshape(1, -1), -127, 127, 127)
    per_token = symmetric(INPUT, -127, 127, 127)
    per_group = symmetric(INPUT.reshape(3, 5, 8, 32), -127, 127, 127)
    for granularity, expected in {"Tensor": per_tensor, "Token": per_token, "Group": per_group}.items():
        layer = QuantIdentity(act_quant=getattr(injectors, f"Int8ActPer{granularity}Dynamic")).eval()
        layer(torch.ones(2, 32))
        assert np.array_equal(expected.reshape(INPUT.shape), layer(torch.from_numpy(INPUT)).detach().numpy())


@pytest.mark.parametrize(("granularity", "rows"), [("Tensor", (1, -1)), ("Token", (3, 5, 256))])
def test_dynamic_zero_points_are_those_of_each_input(granularity, rows):
    """The width and the zero-point come from the input itself."""
    layer = QuantIdentity(act_quant=getattr(injectors, f"ShiftedUint8ActPer{granularity}Dynamic")).eval()
    expected = shifted(INPUT.reshape(rows), 255).reshape(INPUT.shape)
    assert np.allclose(expected, layer(torch.from_numpy(INPUT)).detach().numpy(), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("granularity", "size"), [("Token", 256), ("Group", 128)])
def test_dynamic_floats_are_torchs(granularity, size):
    """The codes are torch's own cast of the input over its scale."""
    layer = QuantIdentity(act_quant=getattr(injectors, f"Fp8e4m3OCPActPer{granularity}Dynamic")).eval()
    rows = torch.from_numpy(INPUT).reshape(-1, size)
    scale = rows.abs().amax(-1, keepdim=True) / 448
    expected = ((rows / scale).to(torch.float8_e4m3fn).float() * scale).reshape(INPUT.shape)
    assert torch.equal(expected, layer(torch.from_numpy(INPUT)))


@pytest.mark.parametrize(("name", "threshold"), [("Int8ActPerTensorMax", 128), ("Uint8ActPerTensorMax", 255)])
def test_the_largest_of_all_batches_is_the_range(name, threshold):
    """Neither order nor number of the batches matters."""
    layer = QuantIdentity(act_quant=getattr(injectors, name))
    with calibrating(layer):
        for largest in (1.0, 5.0, 2.0):
            layer(torch.tensor([0.5, largest]))
    assert layer.act_quant.current().scale.item() == np.float32(5) / np.float32(threshold)


@pytest.mark.parametrize(("name", "scale"), [("Int8BiasPerTensor", 3 / 128), ("Int8BiasPerTensorPoT", 4 / 128)])
def test_biases_with_a_scale_of_their_own_need_no_input(name, scale):
    """The scale is that of the bias, whatever the input."""
    layer = QuantLinear(2, 3, bias_quant=getattr(injectors, name))
    layer.bias.data.copy_(torch.tensor([0.1, -3.0, 1.0]))
    quant = layer.quant_bias()
    assert isinstance(quant, QuantTensor)
    assert scale == quant.scale.item()
    assert [round(0.1 / scale), round(-3 / scale), round(1 / scale)] == quant.int().tolist()


@pytest.mark.parametrize("bits", [16, 24])
def test_biases_on_the_accumulators_grid_are_clipped_to_their_bits(bits):
    """A bias far beyond the grid becomes its last code."""
    layer = QuantLinear(2, 2, bias_quant=getattr(injectors, f"Int{bits}Bias"), input_quant=injectors.Int8ActPerTensor)
    layer.bias.data.copy_(torch.tensor([1e6, -1e6]))
    layer(torch.randn(4, 2))
    assert [2 ** (bits - 1) - 1, -(2 ** (bits - 1))] == layer.quant_bias().int().tolist()


def test_shifted_fixed_point_activations():
    """The scale is the power of two above the width, over 256; zero is a code."""
    layer = QuantIdentity(act_quant=injectors.ShiftedUint8ActPerTensorPoT.let(high_percentile_q=100.0))
    with calibrating(layer):
        layer(torch.linspace(-1, 2, 100))
    state = layer.act_quant.current()
    assert 4 / 256 == state.scale.item()
    assert 64 == state.zero_point.item()


def test_learned_rounding_follows_what_was_learned():
    """AdaRound goes up where h is above a half; SignRound rounds what it has shifted."""
    layer = QuantLinear(2, 1, weight_quant=injectors.Int4WeightPerTensorAdaRound).eval()
    layer.weight.data.copy_(torch.tensor([[0.7, 0.14]]))
    layer.quant_weight()
    rounding = layer.weight_quant.tensor_quant.int_quant.float_to_int_impl
    scale = layer.quant_weight().scale
    for value, step in ((-5.0, 0), (5.0, 1)):
        rounding.value.data.fill_(value)
        expected = torch.clamp(torch.floor(layer.weight / scale) + step, -7, 7)
        assert torch.equal(expected.int(), layer.quant_weight().int().int())
    layer = QuantLinear(2, 1, weight_quant=injectors.Int4WeightPerGroupSignRound.let(group_size=2))
    layer.weight.data.copy_(torch.tensor([[0.7, 0.14]]))  # 7 and 1.4 steps
    assert [[7, 1]] == layer.quant_weight().int().tolist()
    layer.weight_quant.tensor_quant.int_quant.float_to_int_impl.value.data.copy_(torch.tensor([[[-0.4, 0.3]]]))
    assert [[7, 2]] == layer.quant_weight().int().tolist()


def test_stochastic_rounding_keeps_the_mean_in_training():
    """In training a weight between two codes becomes either, on average itself; evaluation rounds to nearest."""
    torch.manual_seed(0)
    recipe = injectors.Int16WeightPerTensorPoTStochastic
    layer = QuantLinear(10000, 1, weight_quant=recipe)
    step = 2.0**-15
    layer.weight.data.fill_(100.25 * step)
    layer.weight.data[0, 0] = 0.75
    codes = layer.quant_weight().int()[0, 1:]
    assert {100, 101} == set(codes.tolist())
    # Five standard deviations of the mean of 9999 coins that show one in a quarter of cases.
    assert codes.double().mean().item() == pytest.approx(100.25, abs=5 * (0.1875 / 9999) ** 0.5)
    assert {100} == set(layer.eval().quant_weight().int()[0, 1:].tolist())
