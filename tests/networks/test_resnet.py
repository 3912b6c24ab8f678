"""A small residual network on integers from end to end, whose batch normalization is merged."""

import numpy as np
import pytest
import torch
from torch import nn

from brevq.nn import (
    QuantConv2d,
    QuantEltwiseAdd,
    QuantIdentity,
    QuantLinear,
    QuantReLU,
    TruncAdaptiveAvgPool2d,
    merge_all_bn,
)
from brevq.quant_tensor import QuantTensor
from injectors import Int8ActPerTensor, Int8WeightPerChannel, Int32Bias

CLASSES = 4


def conv_bn(inputs, outputs, kernel, stride=1):
    """A convolution and its normalization, which will become one."""
    conv = QuantConv2d(
        inputs,
        outputs,
        kernel,
        stride,
        kernel // 2,
        bias=False,
        weight_quant=Int8WeightPerChannel,
        return_quant_tensor=True,
    )
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


class Block(nn.Module):
    """Two convolutions and what goes past them, added by a layer whose one quantizer both go through."""

    def __init__(self, channels):
        super().__init__()
        self.first = conv_bn(channels, channels, 3)
        self.relu = QuantReLU(return_quant_tensor=True)
        self.second = conv_bn(channels, channels, 3)
        self.add = QuantEltwiseAdd(return_quant_tensor=True)
        self.last = QuantReLU(return_quant_tensor=True)

    def forward(self, x):
        return self.last(self.add(self.second(self.relu(self.first(x))), x))


class NarrowingBlock(nn.Module):
    """A block that halves the image: both of its branches go through the same `grid`, and `+` adds their codes."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.first = conv_bn(inputs, outputs, 3, stride=2)
        self.relu = QuantReLU(return_quant_tensor=True)
        self.second = conv_bn(outputs, outputs, 3)
        self.shortcut = conv_bn(inputs, outputs, 1, stride=2)
        self.grid = QuantIdentity(return_quant_tensor=True)
        self.last = QuantReLU(return_quant_tensor=True)

    def forward(self, x):
        return self.last(self.grid(self.second(self.relu(self.first(x)))) + self.grid(self.shortcut(x)))


class ResNet(nn.Sequential):
    """Images ``(batch, 3, 8, 8)`` to scores ``(batch, classes)``."""

    def __init__(self):
        super().__init__()
        self.pixels = QuantIdentity(return_quant_tensor=True)
        self.stem = conv_bn(3, 8, 3)
        self.relu = QuantReLU(return_quant_tensor=True)
        self.pool = nn.MaxPool2d(2)
        self.block = Block(8)
        self.narrowing = NarrowingBlock(8, 12)
        self.mean = TruncAdaptiveAvgPool2d(1, return_quant_tensor=True)
        self.flat = nn.Flatten()
        self.scores = QuantLinear(
            12, CLASSES, bias_quant=Int32Bias, output_quant=Int8ActPerTensor, return_quant_tensor=True
        )


def merged(network):
    """A network without batch normalization, whose convolutions have got biases."""
    merge_all_bn(network)
    for layer in network.modules():
        if isinstance(layer, QuantConv2d):
            layer.bias_quant = Int32Bias
    return network


def draw():
    """Images of noise with a bright square in one of the four corners, and which corner."""
    corners = torch.randint(0, CLASSES, (32,))
    images = torch.randn(32, 3, 8, 8)
    for image, corner in zip(images, corners.tolist(), strict=True):
        top, left = 4 * (corner // 2), 4 * (corner % 2)
        image[:, top : top + 4, left : left + 4] += 1.5
    return images, corners


@pytest.fixture
def network(train):
    """A network that was trained with batch normalization, which was merged then."""
    network = ResNet()
    train(network, draw, steps=10)
    return merged(network)


def test_its_loss_falls_and_its_state_goes_round(network, live, reloaded):
    """Trained on without normalization, it knows more than before; saved and loaded, it says the same."""
    before, after, without_gradient = live(network, draw, steps=25)
    assert [] == without_gradient
    images, _ = draw()
    again = reloaded(network, merged(ResNet()))
    assert after < 0.5 * before
    assert torch.equal(network(images).int(), again(images).int())


def test_everything_is_quantized(network, calibrate, in_float, off_grid):
    """All parameters are, and codes alone go from layer to layer."""
    calibrate(network, draw())
    assert [] == in_float(network)
    assert [] == off_grid(network, draw()[0])


def test_residual_sums_are_sums_of_codes(network, calibrate):
    """What goes into the last ReLU of either block is the sum of the integers of its branches, in 9 bits."""
    calibrate(network, draw())
    seen = {}
    for name in ("block.add", "block.second", "block.last", "narrowing.grid", "narrowing.last"):
        network.get_submodule(name).register_forward_hook(
            lambda layer, args, output, name=name: seen.setdefault(name, []).append((args, output))
        )
    network(draw()[0])
    branches = [network.block.add.input_quant(x.value).int().numpy() for x in seen["block.add"][0][0]]
    (_, total), *_ = seen["block.add"]
    assert np.array_equal(branches[0].astype(int) + branches[1], total.int().numpy())
    assert 9 == total.bit_width
    branches = [output.int().numpy() for _, output in seen["narrowing.grid"]]
    ((total,), _), *_ = seen["narrowing.last"]
    assert np.array_equal(branches[0].astype(int) + branches[1], total.int().numpy())
    assert 9 == total.bit_width


def test_accumulators_are_sums_of_products_of_codes(network, calibrate):
    """The linear layer's output, before it is quantized, is an integer product, with the bias in its unit."""
    calibrate(network, draw())
    seen = []
    network.scores.register_forward_hook(lambda layer, args, output: seen.append((args[0], output)))
    network(draw()[0])
    (x, y), layer = seen[0], network.scores
    weight, bias = layer.quant_weight(), layer.quant_bias(x)
    codes = x.int().numpy().astype(np.int64) @ weight.int().numpy().astype(np.int64).T + bias.int().numpy()
    layer.output_quant = None
    accumulated = layer(x)
    assert isinstance(accumulated, QuantTensor)
    assert np.array_equal(codes, accumulated.int().numpy())
    assert np.array_equal(np.round(codes * (bias.scale / y.scale).item()).clip(-128, 127), y.int().numpy())
