"""A MobileNet block on integers from end to end: depthwise convolutions, ReLU6, normalization as scale and bias."""

import numpy as np
import pytest
import torch
from torch import nn

from brevq.nn import (
    QuantBatchNorm2d,
    QuantConv2d,
    QuantEltwiseAdd,
    QuantIdentity,
    QuantLinear,
    QuantReLU6,
    TruncAdaptiveAvgPool2d,
)
from injectors import Int8ActPerTensor, Int8WeightPerChannel, Int32Bias

CLASSES = 3
QUANTIZED = {"output_quant": Int8ActPerTensor, "return_quant_tensor": True}


def conv_bn(inputs, outputs, kernel, groups=1):
    """A convolution and, apart from it, the scale and bias that normalize its output."""
    conv = QuantConv2d(inputs, outputs, kernel, 1, kernel // 2, groups=groups, bias=False, **QUANTIZED)
    # Statistics of the last batches count for more than usual: there are few.
    norm = QuantBatchNorm2d(outputs, momentum=0.5, bias_quant=Int32Bias, return_quant_tensor=True)
    return [conv, norm]


class InvertedResidual(nn.Module):
    """Pixel by pixel to more channels, each convolved alone, and pixel by pixel back to fewer."""

    def __init__(self, channels, expansion):
        super().__init__()
        inner = channels * expansion
        self.branch = nn.Sequential(
            *conv_bn(channels, inner, 1),
            QuantReLU6(return_quant_tensor=True),
            *conv_bn(inner, inner, 3, groups=inner),
            QuantReLU6(return_quant_tensor=True),
            *conv_bn(inner, channels, 1),
        )
        self.add = QuantEltwiseAdd(**QUANTIZED)

    def forward(self, x):
        return self.add(x, self.branch(x))


def build():
    """Images ``(batch, 2, 6, 6)`` to scores ``(batch, classes)``."""
    return nn.Sequential(
        QuantIdentity(return_quant_tensor=True),
        *conv_bn(2, 6, 3),
        QuantReLU6(return_quant_tensor=True),
        InvertedResidual(6, 2),
        TruncAdaptiveAvgPool2d(1, return_quant_tensor=True),
        nn.Flatten(),
        QuantLinear(6, CLASSES, weight_quant=Int8WeightPerChannel, bias_quant=Int32Bias, **QUANTIZED),
    )


def draw():
    """Images of noise with stripes that run across, run down, or are none, and which of the three."""
    kinds = torch.randint(0, CLASSES, (32,))
    stripe = torch.tensor([1.0, -1.0]).repeat(3)
    stripes = torch.stack([stripe.expand(6, 6), stripe.unsqueeze(1).expand(6, 6), torch.zeros(6, 6)])
    return 0.5 * torch.randn(32, 2, 6, 6) + stripes[kinds].unsqueeze(1), kinds


@pytest.fixture
def network(train):
    """A network whose normalization has seen some data."""
    network = build()
    train(network, draw, steps=3)
    return network


def test_its_loss_falls_and_its_state_goes_round(network, live, reloaded):
    """Trained, it knows more than before; saved and loaded, it says the same."""
    before, after, without_gradient = live(network, draw, steps=35)
    assert [] == without_gradient
    again = reloaded(network, build())
    images, _ = draw()
    assert after < 0.5 * before
    assert torch.equal(network(images).int(), again(images).int())


def test_everything_is_quantized(network, calibrate, in_float, off_grid):
    """All parameters are, and codes alone go from layer to layer."""
    calibrate(network, draw())
    assert [] == in_float(network)
    assert [] == off_grid(network, draw()[0])


def test_depthwise_sums_are_of_nine_products(network, calibrate):
    """A depthwise convolution of 3 by 3 adds nine products of 8-bit codes, and NumPy adds the same."""
    calibrate(network, draw())
    depthwise, seen = network[4].branch[3], []
    depthwise.register_forward_hook(lambda layer, args, output: seen.append(args[0]))
    network(draw()[0])
    depthwise.output_quant = None
    (x,) = seen
    codes = np.pad(x.int().numpy().astype(np.int64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(codes, (3, 3), (2, 3))
    expected = np.einsum("bcxyij,cij->bcxy", windows, depthwise.quant_weight().int().numpy().astype(np.int64)[:, 0])
    accumulated = depthwise(x)
    assert np.array_equal(expected, accumulated.int().numpy())
    # 9 * 255 * 127 takes 19 bits and a sign.
    assert (9 * 255 * 127).bit_length() + 1 == accumulated.bit_width


def test_relu6_is_six_at_most(network, calibrate):
    """Its range is observed, on an unsigned grid, and its largest value is 6 where that is reached."""
    calibrate(network, (100.0 * draw()[0],))
    relu6 = network[4].branch[2]
    assert 6.0 == relu6(torch.tensor([7.0])).value.item()
    assert not relu6(torch.tensor([7.0])).signed
