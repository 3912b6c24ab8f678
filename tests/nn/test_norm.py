"""Normalizations: batch normalization as a quantized scale and bias, and quantized affine weights of others."""

import numpy as np
import pytest
import torch
from torch import nn

from brevq import nn as qnn
from brevq.errors import ArgumentError
from brevq.graph import calibrating
from injectors import (
    Int8ActPerTensor,
    Int8BiasPerTensor,
    Int8WeightPerChannel,
    Int8WeightPerTensor,
    Int32Bias,
)

RECIPES = pytest.mark.parametrize("recipe", [Int8WeightPerTensor, Int8WeightPerChannel])
SHAPES = pytest.mark.parametrize(
    ("name", "shape"), [("BatchNorm1d", (6, 3)), ("BatchNorm1d", (6, 3, 4)), ("BatchNorm2d", (6, 3, 4, 5))]
)


def fill(module):
    """A batch normalization with parameters and statistics that are not trivial."""
    with torch.no_grad():
        for tensor in (module.weight, module.bias, module.running_mean):
            if tensor is not None:
                tensor.copy_(torch.randn(tensor.shape))
        if module.running_var is not None:
            module.running_var.copy_(torch.rand(module.num_features) + 0.1)
    return module


def scale_and_bias(layer, mean, variance):
    """``weight / sqrt(var + eps)`` and ``bias - mean * weight / sqrt(var + eps)``, by NumPy."""
    gamma = np.ones(3, np.float32) if layer.weight is None else layer.weight.detach().numpy()
    beta = np.zeros(3, np.float32) if layer.bias is None else layer.bias.detach().numpy()
    w = gamma / np.sqrt(variance + np.float32(layer.eps))
    return w, beta - mean * w


def channels(values, dimensions):
    """One value for each channel, as it broadcasts to a batch."""
    return values.reshape(1, -1, *[1] * (dimensions - 2))


@SHAPES
@RECIPES
@pytest.mark.parametrize("keywords", [{}, {"affine": False}, {"bias": False}], ids=["affine", "plain", "no-bias"])
def test_evaluation_is_a_quantized_scale_and_a_bias(name, shape, recipe, keywords):
    """In evaluation ``y = x * w + b``, where the codes of w are round(127 * w / max |w|)."""
    layer = fill(getattr(qnn, "Quant" + name)(3, weight_quant=recipe, **keywords)).eval()
    w, b = scale_and_bias(layer, layer.running_mean.numpy(), layer.running_var.numpy())
    scale = (np.abs(w) if recipe is Int8WeightPerChannel else np.abs(w).max(keepdims=True)) / np.float32(127)
    codes = np.rint(w / scale)
    assert np.array_equal(codes.astype(np.int8), layer.quant_weight().int().numpy())
    x = torch.randn(shape)
    expected = x.numpy() * channels(codes * scale, x.dim()) + channels(b, x.dim())
    assert np.allclose(expected, layer(x).detach().numpy(), rtol=1e-6, atol=1e-6)  # NumPy keeps more of a product


@SHAPES
@pytest.mark.parametrize("keywords", [{}, {"momentum": None}, {"affine": False}, {"track_running_stats": False}])
def test_training_uses_the_batch_and_moves_the_running_statistics(name, shape, keywords):
    """In training w and b are those of the batch, and running statistics are the twin's bit for bit."""
    layer = fill(getattr(qnn, "Quant" + name)(3, weight_bit_width=4, **keywords))
    twin = getattr(nn, name)(3, **keywords)
    twin.load_state_dict({key: part for key, part in layer.state_dict().items() if "quant" not in key})
    for _ in range(3):
        x = torch.randn(shape)
        y, _ = layer(x), twin(x)
        axes = (0, *range(2, x.dim()))
        w, b = scale_and_bias(layer, x.numpy().mean(axes), x.numpy().var(axes))
        scale = np.abs(w).max() / np.float32(7)
        expected = x.numpy() * channels(np.rint(w / scale) * scale, x.dim()) + channels(b, x.dim())
        assert np.allclose(expected, y.detach().numpy(), rtol=1e-5, atol=1e-5)  # sums of 120 values in float32
    assert all(torch.equal(part, layer.state_dict()[key]) for key, part in twin.state_dict().items())


@SHAPES
def test_gradients_go_through_the_statistics_of_the_batch(name, shape):
    """With many bits, gradients in training are those of the twin."""
    layer, twin = fill(getattr(qnn, "Quant" + name)(3, weight_bit_width=24)).double(), getattr(nn, name)(3).double()
    twin.load_state_dict({key: part for key, part in layer.state_dict().items() if "quant" not in key})
    x, target = torch.randn(shape, dtype=torch.float64), torch.randn(shape, dtype=torch.float64)
    gradients = []
    for module in (layer, twin):
        leaf = x.clone().requires_grad_()
        (module(leaf) - target).square().sum().backward()
        gradients.append([leaf.grad, module.weight.grad, module.bias.grad])
    for ours, theirs in zip(*gradients, strict=True):
        assert torch.allclose(theirs, ours, rtol=1e-5, atol=1e-5)  # 24 bits have steps of 1e-7, and gradients add up


@SHAPES
@RECIPES
def test_integers_add_up_to_the_output(name, shape, recipe):
    """With input and bias on a grid the output is one of integers: x * w + b."""
    layer = getattr(qnn, "Quant" + name)(
        3, weight_quant=recipe, bias_quant=Int32Bias, input_quant=Int8ActPerTensor, return_quant_tensor=True
    )
    fill(layer).eval()
    x = torch.randn(shape)
    with calibrating(layer):
        layer(x)
    w, b = (channels(part.int().long(), x.dim()) for part in (layer.quant_weight(), layer.quant_bias()))
    y = layer(x)
    assert torch.equal(layer.input_quant(x).int().long() * w + b, y.int().long())
    assert y.producer is layer


def test_scale_and_bias_outside_a_batch_are_those_of_running_statistics():
    """Without an input, `quant_weight` and `quant_bias` are those of evaluation, in training too."""
    layer = fill(qnn.QuantBatchNorm1d(3, bias_quant=Int32Bias, input_quant=Int8ActPerTensor))
    layer(torch.randn(8, 3))
    in_training = layer.quant_weight().value, layer.quant_bias().value
    layer.eval()
    assert torch.equal(in_training[0], layer.quant_weight().value)
    assert torch.equal(in_training[1], layer.quant_bias().value)


def test_scale_of_a_batch():
    """With an input, `quant_weight` in training is that of the batch."""
    layer = fill(qnn.QuantBatchNorm1d(3, weight_quant=Int8WeightPerChannel))
    x = torch.randn(8, 3)
    w, _ = scale_and_bias(layer, x.numpy().mean(0), x.numpy().var(0))
    assert np.allclose(w, layer.quant_weight(x).value.detach().numpy(), rtol=1e-5)  # sums of 8 values in float32


def test_a_bias_with_a_scale_of_its_own():
    """A bias that needs no scale of the input is quantized by its own largest value."""
    layer = fill(qnn.QuantBatchNorm2d(3, bias_quant=Int8BiasPerTensor)).eval()
    _, b = scale_and_bias(layer, layer.running_mean.numpy(), layer.running_var.numpy())
    codes = np.clip(np.rint(b / (np.abs(b).max() / np.float32(128))), -128, 127)
    assert np.array_equal(codes.astype(np.int8), layer.quant_bias().int().numpy())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("wrong", [1, 4])
def test_another_number_of_channels_is_refused(training, wrong):
    """An input with other channels is refused, a single one too, which would broadcast."""
    layer = qnn.QuantBatchNorm1d(3).train(training)
    with pytest.raises(ArgumentError) as error:
        layer(torch.randn(5, wrong))
    assert f"A QuantBatchNorm1d has 3 channels, and its input of shape (5, {wrong}) has {wrong}" == str(error.value)


@pytest.mark.parametrize("training", [True, False])
def test_another_number_of_dimensions_is_refused(training):
    """An input with other dimensions is refused as by the twin."""
    with pytest.raises(ValueError, match="expected 4D input"):
        qnn.QuantBatchNorm2d(3).train(training)(torch.randn(5, 3))


def test_one_value_for_each_channel_is_refused_in_training():
    """A batch of one value for each channel has no variance, as for the twin."""
    with pytest.raises(ValueError, match="Expected more than 1 value per channel when training"):
        qnn.QuantBatchNorm1d(3)(torch.randn(1, 3))


def test_no_statistics():
    """A layer that keeps no statistics has no scale without a batch."""
    with pytest.raises(ArgumentError) as error:
        qnn.QuantBatchNorm2d(3, track_running_stats=False).eval().quant_weight()
    assert str(error.value) == (
        "A QuantBatchNorm2d has no running statistics (track_running_stats=False): its scale and bias are those of a "
        "batch of more than one value per channel, and there is none"
    )


def test_a_quantizer_of_other_layers_is_refused():
    """The scale of a batch normalization takes no part in statistics over weights."""
    with pytest.raises(ArgumentError) as error:
        qnn.QuantBatchNorm2d(3, weight_quant=qnn.QuantLinear(3, 3).weight_quant)
    assert str(error.value) == (
        "QuantBatchNorm2d was given a `weight_quant` that serves other layers. What it quantizes is no weight, so it "
        "can not be counted into their statistics: give it the recipe, Int8WeightPerTensor"
    )


def test_layer_norm_has_a_quantized_weight_and_bias():
    """The codes of weight and bias are those of NumPy, and normalization is the twin's."""
    layer = qnn.QuantLayerNorm(6, weight_bit_width=4, bias_quant=Int8BiasPerTensor)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(6))
        layer.bias.copy_(torch.randn(6))
    weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    steps = np.abs(weight).max() / np.float32(7), np.abs(bias).max() / np.float32(128)
    assert np.array_equal(np.rint(weight / steps[0]).astype(np.int8), layer.quant_weight().int().numpy())
    codes = np.clip(np.rint(bias / steps[1]), -128, 127)
    assert np.array_equal(codes.astype(np.int8), layer.quant_bias().int().numpy())
    x = torch.randn(2, 5, 6)
    normal = (x.numpy() - x.numpy().mean(-1, keepdims=True)) / np.sqrt(x.numpy().var(-1, keepdims=True) + 1e-5)
    expected = normal * layer.quant_weight().value.detach().numpy() + layer.quant_bias().value.detach().numpy()
    assert np.allclose(expected, layer(x).detach().numpy(), rtol=1e-5, atol=1e-6)  # NumPy adds up in another order


def test_rms_norm_has_a_quantized_weight():
    """The codes of the weight are those of NumPy, and normalization is the twin's."""
    layer = qnn.QuantRMSNorm(6, eps=0.1, weight_quant=Int8WeightPerTensor, weight_bit_width=4)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(6))
    weight = layer.weight.detach().numpy()
    step = np.abs(weight).max() / np.float32(7)
    x = torch.randn(2, 5, 6)
    root = np.sqrt(np.square(x.numpy()).mean(-1, keepdims=True) + 0.1)
    expected = x.numpy() / root * np.rint(weight / step) * step
    assert np.allclose(expected, layer(x).detach().numpy(), rtol=1e-5, atol=1e-6)  # NumPy adds up in another order


@pytest.mark.parametrize("name", ["QuantLayerNorm", "QuantRMSNorm"])
@pytest.mark.parametrize("affine", [True, False])
def test_normalized_values_are_quantized(name, affine):
    """An `output_quant` quantizes the output, and an `input_quant` the input, with an affine weight or without."""
    layer = getattr(qnn, name)(
        6,
        elementwise_affine=affine,
        input_quant=Int8ActPerTensor,
        output_quant=Int8ActPerTensor,
        output_bit_width=5,
        return_quant_tensor=True,
    )
    x = torch.randn(2, 6)
    y = layer(x)
    assert (5.0, True) == (y.bit_width.item(), y.is_valid)
    plain = getattr(qnn, name)(6, weight_quant=None)
    again = layer.output_quant.eval()(plain(layer.eval().input_quant(x).value))
    assert torch.equal(again.value, layer(x).value)


def test_a_recipe_for_a_weight_that_is_not_there():
    """It is assigned without effect, as it is given to the constructor without effect."""
    layer = qnn.QuantLayerNorm(6, elementwise_affine=False)
    layer.weight_quant = Int8WeightPerTensor
    assert layer.weight_quant is None


REFUSALS = [
    (
        {"bias_quant": Int32Bias},
        "QuantLayerNorm got `bias_quant=Int32Bias`, which takes the scale of an accumulator, and normalized values "
        "have none: use a recipe with a scale of its own, such as injectors.Int8BiasPerTensor",
    ),
    (
        {"return_quant_tensor": True},
        "QuantLayerNorm got `return_quant_tensor=True` without an `output_quant`: normalized values lie on no grid. "
        "Give it an `output_quant`",
    ),
]


@pytest.mark.parametrize(("keywords", "text"), REFUSALS)
def test_layer_norm_refuses_what_has_no_scale(keywords, text):
    """What has no grid is refused by name, with the way out."""
    with pytest.raises(ArgumentError) as error:
        qnn.QuantLayerNorm(6, **keywords)
    assert text == str(error.value)


def test_a_bias_beside_a_float_weight():
    """A layer normalization may have a quantized bias alone."""
    layer = qnn.QuantLayerNorm(6, weight_quant=None, bias_quant=Int8BiasPerTensor)
    layer.bias.data = torch.tensor([0.3, -1.28, 0.0, 0.004, 0.006, 1.0])
    assert [30, -128, 0, 0, 1, 100] == layer.quant_bias().int().tolist()


# What BatchNorm2dToQuantScaleBias of Brevitas 0.13.4 gives for the layer below: scale, and output for inputs of 1.5.
BREVITAS = [
    pytest.param(
        Int8WeightPerTensor,
        [1.4142099618911743, 0.24498124420642853, -0.5010979771614075],
        [2.229893922805786, -0.5825281739234924, 1.248352289199829],
        id="per-tensor",
    ),
    pytest.param(
        Int8WeightPerChannel,
        [1.4142099618911743, 0.24999970197677612, -0.4999997615814209],
        [2.229893922805786, -0.575000524520874, 1.2499996423721313],
        id="per-channel",
    ),
]


@pytest.mark.parametrize(("recipe", "scale", "output"), BREVITAS)
def test_values_are_those_of_brevitas(recipe, scale, output):
    """Scale and output equal Brevitas' bit for bit."""
    layer = qnn.QuantBatchNorm2d(3, weight_quant=recipe).eval()
    state = {
        "weight": torch.tensor([2.0, 0.5, -1.5]),
        "bias": torch.tensor([0.25, -1.0, 0.5]),
        "running_mean": torch.tensor([0.1, -0.2, 3.0]),
        "running_var": torch.tensor([2.0, 4.0, 9.0]),
        "num_batches_tracked": torch.tensor(0),
    }
    layer.load_state_dict(state)
    assert scale == layer.quant_weight().value.tolist()
    assert output == layer(torch.full((1, 3, 1, 1), 1.5)).flatten().tolist()
