"""Weights that are rounded by their own range and dequantized by a learned scale."""

import numpy as np
import pytest
import torch

from brevq.core.restrict_val import PowerOfTwoRestrictValue
from brevq.nn import QuantConv2d
from injectors import Int4WeightPerTensorDecoupled, Int8WeightPerChannelDecoupled

X = np.random.default_rng(41).normal(size=(5, 2, 3, 3)).astype(np.float32) * np.float32(
    np.arange(1, 6).reshape(5, 1, 1, 1)
)
LARGEST = np.abs(X).reshape(5, -1).max(axis=1)
# Recipe, largest code, and the range of each channel.
DECOUPLED = {
    "channel": (Int8WeightPerChannelDecoupled, 127, LARGEST.astype(np.float64)),
    "tensor": (Int4WeightPerTensorDecoupled, 7, np.full(5, np.sqrt((LARGEST.astype(np.float64) ** 2).mean()))),
}


def layer_of(recipe):
    layer = QuantConv2d(2, 5, 3, weight_quant=recipe)
    layer.weight.data = torch.tensor(X)
    return layer


@pytest.mark.parametrize("kind", DECOUPLED)
def test_codes_do_not_follow_the_scale(kind):
    """Codes are those of the weights' own range; a learned scale that moves changes values alone, in proportion."""
    recipe, threshold, ranges = DECOUPLED[kind]
    layer = layer_of(recipe)
    first = layer.quant_weight()
    codes = np.clip(np.round(X / (ranges / threshold).reshape(5, 1, 1, 1)), -threshold, threshold)
    assert codes.tolist() == first.int().tolist()
    # A float32 statistic and its quotient.
    assert pytest.approx(np.unique(ranges / threshold), rel=2**-22) == np.unique(first.scale.detach().numpy())
    (learned,) = layer.weight_quant.parameters()
    learned.data.mul_(2.0)
    second = layer.quant_weight()
    assert torch.equal(first.int(), second.int())
    assert torch.equal(2 * first.value, second.value)


@pytest.mark.parametrize("kind", DECOUPLED)
def test_gradients(kind):
    """A learned range gets the codes over the threshold; weights their own gradient, clipped ones too."""
    recipe, threshold, _ = DECOUPLED[kind]
    layer = layer_of(recipe)
    weights = torch.tensor(np.random.default_rng(42).normal(size=X.shape).astype(np.float32))
    quantized = layer.quant_weight()
    (quantized.value * weights).sum().backward()
    (learned,) = layer.weight_quant.parameters()
    products = weights.double() * quantized.int().double() / threshold
    expected = products.flatten(1).sum(dim=1) if kind == "channel" else products.sum()
    # A float32 sum of 90 products.
    assert pytest.approx(expected.flatten().tolist(), rel=2**-14) == learned.grad.flatten().tolist()
    assert (layer.weight.grad != 0).all()


def test_fixed_point():
    """With power-of-two scales both of them are powers of two."""
    layer = layer_of(Int4WeightPerTensorDecoupled.let(restrict_scaling_impl=PowerOfTwoRestrictValue))
    ranges = DECOUPLED["tensor"][2]
    scale = 2.0 ** np.ceil(np.log2(ranges[0])) / 8
    quantized = layer.quant_weight()
    assert scale == quantized.scale.item()
    assert np.clip(np.round(X / scale), -7, 7).tolist() == quantized.int().tolist()
