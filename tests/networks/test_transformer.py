"""A transformer block on integers from end to end: embeddings, attention, normalization, an MLP, residuals."""

import numpy as np
import torch
from torch import nn

from brevq.nn import (
    QuantEltwiseAdd,
    QuantEmbedding,
    QuantGELU,
    QuantLayerNorm,
    QuantLinear,
    QuantMultiheadAttention,
)
from injectors import (
    Int8ActPerTensor,
    Int8BiasPerTensor,
    Int8WeightPerChannel,
    Int32Bias,
    Uint8ActPerTensor,
)

WORDS, LENGTH, WIDTH = 6, 8, 16
QUANTIZED = {"output_quant": Int8ActPerTensor, "return_quant_tensor": True}
LINEAR = {"weight_quant": Int8WeightPerChannel, "bias_quant": Int32Bias, "return_quant_tensor": True}
ATTENTION = {
    **dict.fromkeys(("weight_quant", "out_weight_quant"), Int8WeightPerChannel),
    **dict.fromkeys(("bias_quant", "out_bias_quant"), Int32Bias),
    **dict.fromkeys(("query_quant", "key_quant", "value_quant", "softmax_input_quant"), Int8ActPerTensor),
    "attention_quant": Uint8ActPerTensor,
    "out_input_quant": Int8ActPerTensor,
    **QUANTIZED,
}


class Transformer(nn.Module):
    """Words ``(batch, length)`` to scores of each ``(batch, length, words)``."""

    def __init__(self):
        super().__init__()
        self.words = QuantEmbedding(WORDS, WIDTH, **QUANTIZED)
        self.places = QuantEmbedding(LENGTH, WIDTH, return_quant_tensor=True)
        # One quantizer for both, so that they can be added.
        self.places.output_quant = self.words.output_quant
        self.attention = QuantMultiheadAttention(WIDTH, 2, batch_first=True, **ATTENTION)
        self.add_attention = QuantEltwiseAdd(return_quant_tensor=True)
        self.norm = QuantLayerNorm(WIDTH, bias_quant=Int8BiasPerTensor, **QUANTIZED)
        self.wide = QuantLinear(WIDTH, 2 * WIDTH, **LINEAR)
        self.gelu = QuantGELU(return_quant_tensor=True)
        self.narrow = QuantLinear(2 * WIDTH, WIDTH, **LINEAR)
        self.add_mlp = QuantEltwiseAdd(return_quant_tensor=True)
        self.last_norm = QuantLayerNorm(WIDTH, bias_quant=Int8BiasPerTensor, **QUANTIZED)
        self.scores = QuantLinear(WIDTH, WORDS, output_quant=Int8ActPerTensor, **LINEAR)

    def forward(self, words):
        x = self.words(words) + self.places(torch.arange(LENGTH))
        mask = nn.Transformer.generate_square_subsequent_mask(LENGTH)
        attended, _ = self.attention(x, x, x, attn_mask=mask, is_causal=True, need_weights=False)
        x = self.norm(self.add_attention(x, attended))
        x = self.last_norm(self.add_mlp(x, self.narrow(self.gelu(self.wide(x)))))
        return self.scores(x)


def draw():
    """Words at random, and the one before each of them, the first word's being itself."""
    words = torch.randint(0, WORDS, (32, LENGTH))
    return words, torch.cat([words[:, :1], words[:, :-1]], dim=1)


def test_its_loss_falls_and_its_state_goes_round(live, reloaded):
    """Trained, it knows more than before; saved and loaded, it says the same."""
    network = Transformer()
    before, after, without_gradient = live(network, draw, steps=40)
    assert [] == without_gradient
    again, (words, _) = reloaded(network, Transformer()), draw()
    assert after < 0.5 * before
    assert torch.equal(network(words).int(), again(words).int())


def test_everything_is_quantized(calibrate, in_float, off_grid):
    """All parameters are, and codes alone go from layer to layer."""
    network = Transformer()
    calibrate(network, draw())
    assert [] == in_float(network)
    assert [] == off_grid(network, draw()[0])


def test_words_and_places_are_added_as_codes(calibrate):
    """The two embeddings share the quantizer of their output, and their codes add up to 9 bits."""
    network = Transformer()
    calibrate(network, draw())
    words, places = network.words(draw()[0]), network.places(torch.arange(LENGTH))
    total = words + places
    assert network.words.output_quant is network.places.output_quant
    assert np.array_equal(words.int().numpy().astype(int) + places.int().numpy(), total.int().numpy())
    assert 9 == total.bit_width


def test_later_words_do_not_matter(calibrate):
    """Quantized attention keeps to its mask: what is said of a word does not depend on those after it."""
    network = Transformer()
    calibrate(network, draw())
    words, _ = draw()
    others = torch.cat([words[:, :4], (words[:, 4:] + 1) % WORDS], dim=1)
    assert torch.equal(network(words)[:, :4].int(), network(others)[:, :4].int())
    assert not torch.equal(network(words)[:, 4:].int(), network(others)[:, 4:].int())
