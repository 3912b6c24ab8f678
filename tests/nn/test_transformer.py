"""Quantized layers inside torch's transformer layers, whose shortcut in evaluation calls no module."""

import pytest
import torch
from torch import nn

from brevq.nn import QuantLinear, QuantReLU


def encoder():
    """A layer of torch's, in evaluation, for which torch takes its shortcut."""
    return nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True).eval()


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("linear1", lambda: QuantLinear(8, 16, weight_bit_width=2)),
        ("linear2", lambda: QuantLinear(16, 8, weight_bit_width=2)),
        ("activation", lambda: QuantReLU(bit_width=2, collect_stats_steps=1)),
    ],
)
def test_the_shortcut_does_not_pass_quantized_layers_by(name, layer):
    """In evaluation without gradients the output is that with gradients, for which torch calls each module."""
    model, x = encoder(), torch.randn(2, 3, 8)
    setattr(model, name, layer())
    model.train()(x)
    model.eval()
    expected = model(x)
    with torch.no_grad():
        # Torch's float attention has a shortcut of its own, which rounds otherwise; 2-bit weights move outputs by .1.
        assert torch.allclose(expected, model(x), atol=1e-5)
