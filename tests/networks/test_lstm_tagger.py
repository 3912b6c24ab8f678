"""A tagger of words on integers from end to end: an embedding, a recurrent layer, a linear one."""

import torch
from torch import nn

from brevq.nn import QuantEmbedding, QuantLinear, QuantLSTM
from injectors import Int8ActPerTensor, Int8WeightPerChannel, Int32Bias, Uint8ActPerTensor

WORDS, LENGTH = 4, 6


class Tagger(nn.Module):
    """Words ``(batch, length)`` to scores of each ``(batch, length, words)``."""

    def __init__(self):
        super().__init__()
        self.words = QuantEmbedding(WORDS, 6, return_quant_tensor=True)
        self.lstm = QuantLSTM(
            6,
            8,
            batch_first=True,
            bidirectional=True,
            weight_quant=Int8WeightPerChannel,
            scale_per_gate=True,
            bias_quant=Int32Bias,
            hidden_quant=Int8ActPerTensor,
            cell_quant=Int8ActPerTensor,
            cell_bit_width=16,
            gate_quant=Uint8ActPerTensor,
            tanh_quant=Int8ActPerTensor,
            accumulator_quant=Int8ActPerTensor,
            accumulator_bit_width=16,
            return_quant_tensor=True,
        )
        self.tags = QuantLinear(
            16,
            WORDS,
            weight_quant=Int8WeightPerChannel,
            bias_quant=Int32Bias,
            output_quant=Int8ActPerTensor,
            return_quant_tensor=True,
        )

    def forward(self, words):
        return self.tags(self.lstm(self.words(words))[0])


def draw():
    """Words at random, each tagged with the one after it, which one of two directions knows; the last with itself."""
    words = torch.randint(0, WORDS, (32, LENGTH))
    return words, torch.cat([words[:, 1:], words[:, -1:]], dim=1)


def test_its_loss_falls_and_its_state_goes_round(live, reloaded):
    """Trained, it knows more than before; saved and loaded, it says the same."""
    network = Tagger()
    before, after, without_gradient = live(network, draw, steps=40, learning_rate=3e-2)
    assert [] == without_gradient
    again, (words, _) = reloaded(network, Tagger()), draw()
    assert after < 0.5 * before
    assert torch.equal(network(words).int(), again(words).int())


def test_everything_is_quantized(calibrate, in_float, off_grid):
    """All parameters are, and codes alone go from layer to layer."""
    network = Tagger()
    calibrate(network, draw())
    assert [] == in_float(network)
    assert [] == off_grid(network, draw()[0])


def test_states_are_codes(calibrate):
    """What the recurrent layer puts out, and its last states, lie on the grids of their quantizers."""
    network = Tagger()
    calibrate(network, draw())
    output, (h, c) = network.lstm(network.words(draw()[0]))
    hidden, cell = network.lstm.hidden_quant["l0"], network.lstm.cell_quant["l0"]
    assert torch.equal(output.value, hidden(output.value).value)
    assert torch.equal(h, hidden(h).value)
    assert torch.equal(c[0], cell(c[0]).value)
    assert (8, 16) == (int(output.bit_width), int(cell.current().bit_width))
