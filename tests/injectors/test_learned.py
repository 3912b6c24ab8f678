"""Recipes that learn thresholds, offsets and bit widths: their gradients are those of their papers."""

import math

import numpy as np
import pytest
import torch

from brevq.inject import check
from brevq.loss import BitWidthLoss, activations_by_size, weights_by_size
from brevq.nn import QuantIdentity, QuantLinear, QuantReLU
from injectors import Int8BiasPerTensor, learned

X = np.random.default_rng(17).normal(0.1, 1.0, size=(4, 16)).astype(np.float32)
RECIPES = {
    name: recipe for name, recipe in vars(learned).items() if getattr(recipe, "__module__", "") == learned.__name__
}


def _layer(recipe, x=X, bit_width=8):
    """A quantizer that has started from a tensor, and learns now."""
    if recipe.role == "weight":
        layer = QuantLinear(16, 4, weight_quant=recipe, weight_bit_width=bit_width)
        layer.weight.data = torch.tensor(X)
        quantizer = layer.weight_quant
    else:
        layer = QuantIdentity(act_quant=recipe, bit_width=bit_width)
        quantizer = layer.act_quant
    quantizer(torch.tensor(x))
    return quantizer


def _grads(quantizer, x, weights, *parameters):
    """Gradients of a weighted sum of quantized values, to the values and to parameters, as lists."""
    x = torch.tensor(x, requires_grad=True)
    total = (quantizer(x).value * torch.tensor(weights)).sum()
    return [grad.tolist() for grad in torch.autograd.grad(total, (x, *parameters))]


@pytest.mark.parametrize("name", RECIPES)
def test_recipes(name):
    """A recipe has no faults, says where it is from, and gives all its parameters finite gradients."""
    recipe = RECIPES[name]
    check(recipe)
    assert "Source: " in recipe.__doc__
    quantizer = _layer(recipe)
    quantized = quantizer(torch.tensor(X))
    (quantized.value * torch.rand(X.shape)).sum().backward()
    assert quantized.is_valid
    assert all(p.grad is not None and p.grad.isfinite().all() for p in quantizer.parameters())


TQT = {
    "Int8WeightPerTensorTQT": (-8, 7, 8),
    "Int8ActPerTensorTQT": (-8, 7, 8),
    "Uint8ActPerTensorTQT": (0, 15, 16),
}


def _tqt(x, scale, low, high):
    """Value, gradient to the value, and gradient to the logarithm of the threshold, by equations 7 and 8 of TQT."""
    q = round(x / scale)
    if low <= q <= high:
        return q * scale, 1.0, scale * math.log(2) * (q - x / scale)
    end = low if q < low else high
    return end * scale, 0.0, scale * math.log(2) * end


@pytest.mark.parametrize("name", TQT)
@pytest.mark.parametrize("log_threshold", [0.3, -1.5])
def test_tqt(name, log_threshold):
    """Trained thresholds: values, and gradients to values and to the threshold's logarithm."""
    low, high, levels = TQT[name]
    quantizer = _layer(RECIPES[name], bit_width=4)
    (threshold,) = quantizer.parameters()
    threshold.data.fill_(log_threshold)
    scale = 2.0 ** math.ceil(log_threshold) / levels
    weights = np.random.default_rng(18).normal(size=X.shape).astype(np.float32)
    expected = [_tqt(float(v), scale, low, high) for v in X.reshape(-1)]
    to_x, to_threshold = _grads(quantizer, X, weights, threshold)
    assert [value for value, _, _ in expected] == quantizer(torch.tensor(X)).value.flatten().tolist()
    flat = weights.reshape(-1).tolist()
    assert [w * slope for w, (_, slope, _) in zip(flat, expected, strict=True)] == np.reshape(to_x, -1).tolist()
    # A float32 sum of 64 products, of size below 8, with cancellation.
    total = math.fsum(w * slope for w, (_, _, slope) in zip(flat, expected, strict=True))
    assert pytest.approx(total, rel=2**-16, abs=2**-16) == to_threshold


def test_start_of_tqt():
    """The threshold of weights starts where a normal distribution of their mean and deviation ends."""
    (threshold,) = _layer(learned.Int8WeightPerTensorTQT).parameters()
    values = X.reshape(-1).astype(np.float64)
    mean = values.sum() / values.size
    deviation = math.sqrt(((values - mean) ** 2).sum() / (values.size - 1))
    # Sums of 64 values and a logarithm in float32.
    assert pytest.approx(math.log2(abs(mean) + 3 * deviation), abs=2**-18) == threshold.item()


def test_weights_of_lsq_plus():
    """Each channel's scale starts from its mean and deviation, over 8 of 4 bits, and learns by LSQ's gradient."""
    quantizer = _layer(learned.Int8WeightPerChannelLSQPlus, bit_width=4)
    (threshold,) = quantizer.parameters()
    weights = np.random.default_rng(19).normal(size=X.shape).astype(np.float32)
    threshold.data *= 0.4  # so that something is clipped
    _, to_threshold = _grads(quantizer, X, weights, threshold)
    for row, factors, t, grad in zip(
        X.tolist(), weights.tolist(), threshold.flatten().tolist(), to_threshold, strict=True
    ):
        mean = math.fsum(row) / 16
        deviation = math.sqrt(math.fsum((v - mean) ** 2 for v in row) / 15)
        # Sums of 16 values in float32.
        assert pytest.approx(0.4 * max(abs(mean - 3 * deviation), abs(mean + 3 * deviation)), rel=2**-20) == t
        scale = t / 8
        codes = [min(max(round(v / scale), -8), 7) for v in row]
        slopes = [q - v / scale if round(v / scale) == q else q for q, v in zip(codes, row, strict=True)]
        total = math.fsum(w * slope for w, slope in zip(factors, slopes, strict=True)) / 8 / math.sqrt(16 * 7)
        # A float32 sum of 16 products with cancellation.
        assert pytest.approx(total, rel=2**-16, abs=2**-16) == grad[0]


def test_activations_of_lsq_plus():
    """Scale and offset start from the extrema of the first batch, and learn by the gradients of LSQ+."""
    quantizer = _layer(learned.ShiftedUint8ActPerTensorLSQPlus, bit_width=3)
    parameters = dict(quantizer.named_parameters())
    threshold = parameters["tensor_quant.scaling_impl.runtime_stats.value"]
    offset = parameters["tensor_quant.zero_point_impl.runtime_stats.value"]
    low, width = float(X.min()), float(np.float32(X.max() - X.min()))
    assert (low, width) == (offset.item(), threshold.item())
    offset.data.add_(0.7)  # so that something is clipped at both ends
    threshold.data.mul_(0.5)
    beta, scale = offset.item(), threshold.item() / 7
    weights = np.random.default_rng(20).normal(size=X.shape).astype(np.float32)
    to_x, to_threshold, to_offset = _grads(quantizer, X, weights, threshold, offset)
    slopes = []
    for v in X.reshape(-1).tolist():
        exact = (v - beta) / scale
        inside = 0 <= round(exact) <= 7
        slopes.append((1.0, round(exact) - exact, 0.0) if inside else (0.0, 0.0 if exact < 0 else 7.0, 1.0))
    flat = weights.reshape(-1).tolist()
    expected = [w * slope for w, (slope, _, _) in zip(flat, slopes, strict=True)]
    # Over the scale and times it, in float32.
    assert pytest.approx(expected, rel=2**-22) == np.reshape(to_x, -1).tolist()
    # Float32 sums of 64 products with cancellation.
    balance = 7 * math.sqrt(16 * 7)
    total = math.fsum(w * slope for w, (_, slope, _) in zip(flat, slopes, strict=True)) / balance
    assert pytest.approx(total, rel=2**-15, abs=2**-16) == to_threshold
    total = math.fsum(w * slope for w, (_, _, slope) in zip(flat, slopes, strict=True))
    assert pytest.approx(total, rel=2**-15, abs=2**-16) == to_offset
    assert {0.0, 7.0} <= set(quantizer(torch.tensor(X)).int().flatten().tolist())


def test_offsets_of_lsq_plus_fit_what_is_not_centred():
    """A batch between -0.3 and 5, as swish gives it, is met at both ends."""
    x = np.linspace(-0.3, 5.0, 64, dtype=np.float32).reshape(4, 16)
    quantizer = _layer(learned.ShiftedUint8ActPerTensorLSQPlus, x)
    value = quantizer(torch.tensor(x)).value
    # Half a step of 5.3 / 255, and its rounding.
    assert np.abs(value.detach().numpy() - x).max() <= 0.5 * 5.3 / 255 * (1 + 2**-10)


def test_bit_widths_are_learned():
    """Losses on bits take them from weights and from activations, as the optimizer's rate says."""
    model = torch.nn.Sequential(
        QuantLinear(16, 4, weight_quant=learned.Int8WeightPerTensorLearnedBits),
        QuantReLU(act_quant=learned.Uint8ActPerTensorLearnedBits),
    )
    offsets = [parameter for name, parameter in model.named_parameters() if name.endswith("bit_width_impl.offset")]
    optimizer = torch.optim.SGD(offsets, lr=0.5)
    with BitWidthLoss(model, weights_by_size) as weights, BitWidthLoss(model, activations_by_size) as activations:
        for _ in range(6):
            model(torch.tensor(X))
            optimizer.zero_grad()
            (weights() + activations()).backward()
            optimizer.step()
        assert [5.0, 5.0] == [weights().item(), activations().item()]


def test_a_task_moves_bit_widths():
    """The error of quantization asks for more bits: its gradient to a learned bit width is negative."""
    quantizer = _layer(learned.Int8WeightPerTensorLearnedBits, bit_width=3)
    (offset,) = quantizer.parameters()
    errors = quantizer(torch.tensor(X)).value - torch.tensor(X)
    errors.square().sum().backward()
    slopes = []
    largest = float(np.abs(X).max())
    for v in X.reshape(-1).tolist():
        code = round(v / (largest / 3))
        error = code * largest / 3 - v
        # The scale is largest / (2 ** (b - 1) - 1), and moves values by what rounding left.
        slope = (code - v / (largest / 3)) * -largest / 9 * 4 * math.log(2)
        slopes.append(2 * error * slope)
    # A float32 sum of 64 products.
    assert pytest.approx(math.fsum(slopes), rel=2**-16) == offset.grad.item()
    assert offset.grad.item() < 0


@pytest.mark.parametrize("name", ["Int8WeightPerTensorLog", "Int8ActPerTensorLog", "Uint8ActPerTensorLog"])
def test_logarithms_are_learned(name):
    """What is learned is the logarithm of the range: its gradient is that of the range, times range and log 2."""
    recipe = RECIPES[name]
    if recipe.role == "activation":
        recipe = recipe.let(collect_stats_steps=1, high_percentile_q=100.0)
    threshold = {"Int8WeightPerTensorLog": 127, "Int8ActPerTensorLog": 128, "Uint8ActPerTensorLog": 255}[name]
    low = {127: -127, 128: -128, 255: 0}[threshold]
    high = 127 if threshold < 255 else 255
    quantizer = _layer(recipe)
    (log,) = quantizer.parameters()
    # A float32 logarithm.
    assert pytest.approx(math.log2(float(np.abs(X).max())), abs=2**-22) == log.item()
    log.data.fill_(0.5)
    weights = np.random.default_rng(19).normal(size=X.shape).astype(np.float32)
    _, to_log = _grads(quantizer, X, weights, log)
    scale = math.sqrt(2) / threshold
    slopes = []
    for v, weight in zip(X.reshape(-1).tolist(), weights.reshape(-1).tolist(), strict=True):
        code = round(v / scale)
        slope = code - v / scale if low <= code <= high else min(max(code, low), high)
        slopes.append(weight * slope * scale * math.log(2))
    # A float32 sum of 64 products.
    assert pytest.approx(math.fsum(slopes), rel=2**-13) == to_log


@pytest.mark.parametrize("bits", [16, 24])
def test_biases_of_more_bits_with_a_scale_of_their_own(bits):
    """Up to 24 bits, float32 holds every code of a bias with its own scale."""
    layer = QuantLinear(2, 4, bias_quant=Int8BiasPerTensor.let(bit_width=bits))
    layer.bias.data.copy_(torch.tensor([0.3, -1.75, 1.0, 1e-5]))
    scale = np.float32(1.75) / np.float32(2 ** (bits - 1))
    quantized = layer.quant_bias()
    assert [round(v / float(scale)) for v in layer.bias.tolist()] == quantized.int().tolist()
    assert scale == quantized.scale.item()
