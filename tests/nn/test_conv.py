"""Transposed convolutions: their axis of outputs, groups, and sizes of the output."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import injectors
from brevq import nn as qnn
from brevq.errors import ArgumentError
from brevq.graph import calibrating
from injectors import Int8ActPerTensor, Int8WeightPerChannel, Int8WeightPerTensor, Int32Bias

DIMENSIONS = pytest.mark.parametrize("dimensions", [1, 2, 3])


def transposed(dimensions, **keywords):
    """A transposed convolution of 4 channels to 6."""
    return getattr(qnn, f"QuantConvTranspose{dimensions}d")(4, 6, 3, stride=2, **keywords)


@DIMENSIONS
@pytest.mark.parametrize("groups", [1, 2])
def test_channels_are_those_of_the_output(dimensions, groups):
    """Codes per channel are round(127 * w / max |w|) over axis 1 of the weight, which the groups share."""
    layer = transposed(dimensions, groups=groups, weight_quant=Int8WeightPerChannel)
    weight = layer.weight.detach().numpy()
    others = (0, *range(2, weight.ndim))
    scale = np.abs(weight).max(axis=others, keepdims=True) / np.float32(127)
    quantized = layer.quant_weight()
    assert np.array_equal(scale, quantized.scale.detach().numpy())
    assert np.array_equal(np.rint(weight / scale).astype(np.int8), quantized.int().numpy())


@DIMENSIONS
def test_output_size_is_one_of_those_that_the_stride_allows(dimensions):
    """An `output_size` gives what it gives the twin, by position and by name, with batch and channels or without."""
    layer = transposed(dimensions)
    twin = getattr(nn, f"ConvTranspose{dimensions}d")(4, 6, 3, stride=2)
    twin.load_state_dict({"weight": layer.quant_weight().value.detach(), "bias": layer.bias.detach()})
    x = torch.randn(2, 4, *[3] * dimensions)
    for size in ([8] * dimensions, [2, 6, *[8] * dimensions]):
        expected = twin(x, size)
        assert torch.equal(expected, layer(x, size))
        assert torch.equal(expected, layer(x, output_size=size))
    with pytest.raises(ValueError, match="requested an output size of"):
        layer(x, [9] * dimensions)


@DIMENSIONS
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("recipe", [Int8WeightPerTensor, Int8WeightPerChannel])
def test_integers_add_up_to_the_output(dimensions, groups, recipe):
    """The output is the sum of integer products and the integer bias, times one scale for each output."""
    layer = transposed(
        dimensions,
        groups=groups,
        weight_quant=recipe,
        bias_quant=Int32Bias,
        input_quant=Int8ActPerTensor,
        return_quant_tensor=True,
    )
    x = torch.randn(2, 4, *[3] * dimensions)
    with calibrating(layer):
        layer(x)
    layer.eval()
    function = getattr(F, f"conv_transpose{dimensions}d")
    codes = [part.int().double() for part in (layer.input_quant(x), layer.quant_weight(), layer.quant_bias())]
    expected = function(*codes, stride=2, groups=groups)
    y = layer(x)
    assert torch.equal(expected, y.int().double())
    scales = layer.quant_weight().scale.flatten().tile(groups if recipe is Int8WeightPerChannel else 1)
    assert torch.equal(layer.input_quant.current().scale * scales, y.scale.flatten())
    assert torch.equal(y.scale.flatten(), layer.quant_bias().scale.flatten())


def test_groups_lie_along_the_inputs():
    """A recipe by group has as many scales for an output as there are groups of inputs, which come first here."""
    layer = qnn.QuantConvTranspose1d(8, 2, 3, weight_quant=injectors.Int8WeightPerGroup.let(group_size=4))
    assert (2, 3, 2, 1) == tuple(layer.quant_weight().scale.shape)
    expected = np.abs(layer.weight.detach().numpy()).reshape(2, 4, 2, 3).max(axis=1) / np.float32(127)
    assert np.array_equal(expected.transpose(1, 2, 0), layer.quant_weight().scale[..., 0].detach().numpy())


def test_accumulator_aware_weights_keep_their_bound():
    """No output of a grouped layer with such weights can overflow its accumulator."""
    layer = qnn.QuantConvTranspose1d(
        8, 4, 3, groups=2, weight_quant=injectors.Int8WeightPerChannelA2Q, input_quant=Int8ActPerTensor
    )
    layer.weight_quant = layer.weight_quant.recipe.let(accumulator_bit_width=12)
    layer(torch.randn(2, 8, 5))
    codes = layer.quant_weight().int().numpy().astype(np.int64)
    of_outputs = np.abs(codes.reshape(2, 4, 2, 3)).sum(axis=(1, 3))
    assert of_outputs.max() <= (2**11 - 1) / 2**7


def test_a_tied_bias_needs_the_scale_of_the_input():
    """A tied bias with a plain input is refused by name."""
    layer = qnn.QuantConvTranspose1d(4, 6, 3, bias_quant=Int32Bias)
    with pytest.raises(ArgumentError, match=r"\(Int32Bias\) needs the scale of the layer's input"):
        layer(torch.randn(1, 4, 5))
