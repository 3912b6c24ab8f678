"""Networks on integers that pool a set by attention: products of codes, cut to fewer bits, or a layer's."""

import numpy as np
import pytest
import torch
from torch import nn

from brevq.nn import (
    QuantIdentity,
    QuantLinear,
    QuantReLU,
    QuantScaledDotProductAttention,
    QuantSoftmax,
    QuantTanh,
    TruncQAccumulator,
)
from injectors import Int8ActPerTensor, Int8WeightPerChannel, Int32Bias

SIZE, FEATURES, WIDTH, CLASSES = 6, 4, 8, 3
LINEAR = {"weight_quant": Int8WeightPerChannel, "bias_quant": Int32Bias, "return_quant_tensor": True}
TENSOR = {"return_quant_tensor": True}


class Gated(nn.Module):
    """The mean of a set, weighted by a softmax of scores: an exact product of codes (Ilse et al., 2018)."""

    def __init__(self):
        super().__init__()
        self.scores = nn.Sequential(
            QuantLinear(WIDTH, 4, **LINEAR), QuantTanh(**TENSOR), QuantLinear(4, 1, **LINEAR), QuantSoftmax(1, **TENSOR)
        )
        self.cut = TruncQAccumulator(**TENSOR)

    def forward(self, x):
        return self.cut((self.scores(x).transpose(1, 2) @ x).squeeze(1))


class Queried(nn.Module):
    """What a learned query draws from a set."""

    def __init__(self):
        super().__init__()
        self.query = nn.Parameter(torch.randn(1, WIDTH))
        self.attention = QuantScaledDotProductAttention(
            softmax_input_quant=Int8ActPerTensor, output_quant=Int8ActPerTensor, **TENSOR
        )

    def forward(self, x):
        return self.attention(self.query.expand(len(x), 1, WIDTH), x, x).squeeze(1)


def build(pooling):
    """Sets ``(batch, size, features)`` to scores ``(batch, classes)``."""
    return nn.Sequential(
        QuantIdentity(**TENSOR),
        QuantLinear(FEATURES, WIDTH, **LINEAR),
        QuantReLU(**TENSOR),
        pooling(),
        QuantLinear(WIDTH, CLASSES, output_quant=Int8ActPerTensor, **LINEAR),
    )


def draw():
    """Sets of noise of which one member is marked by its first feature, and which of its other features is large."""
    classes, marked = torch.randint(0, CLASSES, (32,)), torch.randint(0, SIZE, (32,))
    sets = torch.randn(32, SIZE, FEATURES)
    sets[torch.arange(32), marked, 0] += 4.0
    sets[torch.arange(32), marked, 1 + classes] += 4.0
    return sets, classes


each_pooling = pytest.mark.parametrize("pooling", [Gated, Queried])


@each_pooling
def test_its_loss_falls_and_its_state_goes_round(pooling, live, reloaded):
    """Trained, it knows more than before; saved and loaded, it says the same."""
    network = build(pooling)
    before, after, without_gradient = live(network, draw, steps=50, learning_rate=2e-2)
    assert [] == without_gradient
    again, (sets, _) = reloaded(network, build(pooling)), draw()
    assert after < 0.5 * before
    assert torch.equal(network(sets).int(), again(sets).int())


@each_pooling
def test_everything_is_quantized(pooling, calibrate, in_float, off_grid):
    """All parameters are, the query by the attention's own quantizer, and codes alone go from layer to layer."""
    network = build(pooling)
    calibrate(network, draw())
    assert {Gated: [], Queried: ["3.query"]}[pooling] == in_float(network)
    assert [] == off_grid(network, draw()[0])


def test_pooling_is_an_integer_product(calibrate):
    """The mean is a product of the softmax's codes with those of the set, as NumPy has it, cut to 8 bits."""
    network = build(Gated)
    calibrate(network, draw())
    x = network[:3](draw()[0])
    weights = network[3].scores(x)
    total = weights.transpose(1, 2) @ x
    expected = np.einsum("bsi,bsf->bif", *(y.int().numpy().astype(np.int64) for y in (weights, x)))
    assert np.array_equal(expected, total.int().numpy())
    # Six products of unsigned codes of 8 bits.
    assert (SIZE * 255 * 255).bit_length() == total.bit_width
    shift = int(total.bit_width) - 8
    assert np.array_equal(np.round(expected / 2**shift).squeeze(1), network[3](x).int().numpy())
