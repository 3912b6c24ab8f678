"""The network in float and its twin: the same numbers, and what its weights take."""

import pytest
import torch

from brevq.cli.quickstart.network import float_network, quantized_network, weight_bits, weight_bytes
from brevq.graph import calibrating
from injectors import BinaryWeightPerChannel, Int8WeightPerChannel, TernaryWeightPerChannel

WEIGHTS = 16 * 1 * 25 + 32 * 16 * 9 + 64 * 32 * 9 + 10 * 1024
SCALES = 16 + 32 + 64 + 10


def twin_of(network, recipe):
    """The quantized twin with the same weights."""
    twin = quantized_network(recipe)
    twin.load_state_dict(network.state_dict(), strict=True)
    return twin.eval()


def test_the_twin_computes_what_the_float_network_does_with_weights_rounded_by_hand():
    """While it calibrates, activations are float: only the weights differ, by the signs and means of each channel."""
    network, images = float_network().eval(), torch.rand(8, 1, 28, 28)
    twin = twin_of(network, BinaryWeightPerChannel)
    with torch.no_grad(), calibrating(twin):
        quantized = twin(images)
        for layer in (network[0], network[3], network[6], network[10]):
            rows = layer.weight.flatten(1)
            binary = torch.where(rows >= 0, 1.0, -1.0) * rows.abs().mean(1, keepdim=True)
            layer.weight.copy_(binary.reshape(layer.weight.shape))
        assert torch.allclose(network(images), quantized, atol=1e-5)


def test_eight_bits_are_near_float():
    """Logits of the calibrated 8-bit twin are within 2 % of their range of the float network's."""
    network, images = float_network().eval(), torch.rand(64, 1, 28, 28)
    twin = twin_of(network, Int8WeightPerChannel)
    with torch.no_grad():
        with calibrating(twin):
            twin(images)
        logits = network(images)
        assert (twin(images) - logits).abs().max() < 0.02 * (logits.max() - logits.min())


def test_float_weights_take_four_bytes():
    """33,680 weights are 134,720 bytes; biases and normalisation are not counted."""
    network = float_network()
    assert (32, 4 * WEIGHTS, 134_720) == (weight_bits(network), weight_bytes(network), 4 * WEIGHTS)


@pytest.mark.parametrize(
    ("recipe", "bits", "packed"),
    [
        (Int8WeightPerChannel, 8, 33_680),
        (Int8WeightPerChannel.let(bit_width=4), 4, 16_840),
        (Int8WeightPerChannel.let(bit_width=3), 3, 12_630),
        (Int8WeightPerChannel.let(bit_width=2), 2, 8_420),
        (TernaryWeightPerChannel, 2, 8_420),
        (BinaryWeightPerChannel, 1, 4_210),
    ],
)
def test_quantized_weights_take_their_bits_and_four_bytes_a_scale(recipe, bits, packed):
    """Bytes are the weights' bits over 8, and one float scale for each of 122 channels."""
    network = quantized_network(recipe)
    assert (bits, packed + 4 * SCALES) == (weight_bits(network), weight_bytes(network))


def test_layers_are_rounded_up_to_bytes():
    """3 bits times 3 weights are 9 bits, which take 2 bytes."""
    recipe = Int8WeightPerChannel.let(bit_width=3)
    layer = type(quantized_network(recipe)[10])(3, 1, weight_quant=recipe)
    assert 2 + 4 == weight_bytes(layer)
