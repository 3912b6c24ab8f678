"""Weights as codes: values, bytes, and what they say of themselves."""

import warnings

import pytest
import torch

import brevq
import injectors
from brevq.frozen import FrozenTensor
from brevq.nn import QuantLinear

WEIGHTS = [
    name
    for name in injectors.__all__
    if isinstance(getattr(injectors, name), type) and getattr(getattr(injectors, name), "role", None) == "weight"
]


def frozen(recipe, **overrides):
    """A layer of 64 inputs and 16 outputs, its weight, and that as codes."""
    layer = QuantLinear(64, 16, weight_quant=recipe, input_quant=injectors.Uint8ActPerTensor, **overrides)
    layer(torch.rand(4, 64))
    layer.eval()
    quantized = layer.quant_weight()
    return quantized, FrozenTensor(layer.weight_quant, quantized, layer.weight.shape)


@pytest.mark.parametrize("name", WEIGHTS)
def test_every_recipe(name):
    """Values are those that the quantizer gave, on the same grid, and codes take no more bits than they have."""
    quantized, tensor = frozen(getattr(injectors, name))
    assert torch.equal(quantized.value, tensor.value())
    again = tensor(tensor.value())
    for part in ("value", "scale", "zero_point", "bit_width"):
        assert torch.equal(getattr(quantized, part), getattr(again, part))
    assert torch.equal(quantized.int(), again.int())
    bits = getattr(quantized.float_format, "bits", int(quantized.bit_width))
    assert 64 * 16 * bits / 8 == tensor.codes.nbytes


@pytest.mark.parametrize("bits", range(2, 17))
def test_every_number_of_bits(bits):
    """Integers of 2 to 8 bits are packed, those of 9 to 16 are int16."""
    quantized, tensor = frozen(injectors.Int8WeightPerChannel, weight_bit_width=bits)
    assert torch.equal(quantized.value, tensor.value())
    assert (64 * 16 * bits / 8 if bits <= 8 else 64 * 16 * 2) == tensor.codes.nbytes


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 8, 12, 16])
def test_unsigned(bits):
    """Unsigned integers with a zero-point keep their whole range."""
    quantized, tensor = frozen(injectors.ShiftedUint8WeightPerTensor, weight_bit_width=bits)
    assert (0, 2**bits - 1) == (int(quantized.int().min()), int(quantized.int().max()))
    assert torch.equal(quantized.value, tensor.value())


def test_codes_by_hand():
    """8 bits lie in memory as the integers that they are, and scales as they were."""
    layer = QuantLinear(2, 2, bias=False, weight_quant=injectors.Int8WeightPerChannel)
    layer.weight.data = torch.tensor([[1.27, -0.02], [0.5, -2.54]])
    tensor = FrozenTensor(layer.weight_quant, layer.quant_weight(), layer.weight.shape)
    assert [[127, -2], [25, -127]] == tensor.codes.tolist()
    torch.testing.assert_close(torch.tensor([[0.01], [0.02]]), tensor.scale())


def test_dtype():
    """Values follow the model to another dtype; codes and scales keep theirs."""
    quantized, tensor = frozen(injectors.Int4WeightPerChannel)
    half = tensor.bfloat16()
    assert (torch.bfloat16, torch.uint8, torch.float32) == (half.value().dtype, half.codes.dtype, half.scale().dtype)
    assert torch.equal(quantized.value.bfloat16(), half.value())


def test_bfloat16_model():
    """The weight of a model in bfloat16 is the same, bit for bit."""
    layer = QuantLinear(64, 16, weight_quant=injectors.Int4WeightPerChannel).bfloat16()
    tensor = FrozenTensor(layer.weight_quant, layer.quant_weight(), layer.weight.shape)
    assert torch.equal(layer.quant_weight().value, tensor.value())


def test_repr():
    """One line says the recipe and the size."""
    assert "FrozenTensor(Int4WeightPerChannel, 4 bits, 1024 values in 512 bytes)" == repr(
        frozen(injectors.Int4WeightPerChannel)[1]
    )


#: Recipes whose scale follows from more of a weight than its quantized values keep.
LOSSY = {
    "BFP16Weight",
    "Int4WeightPerGroupDoubleQuant",
    "Int8WeightPerChannelA2Q",
    "Int8WeightPerChannelA2QPlus",
    "MXInt8Weight",
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_recovered(name):
    """A weight that comes back without its floats is quantized to the same values again, or a warning names it."""
    layer = QuantLinear(256, 32, weight_quant=getattr(injectors, name), input_quant=injectors.Uint8ActPerTensor)
    layer(torch.rand(4, 256))
    before = layer.eval().quant_weight()
    brevq.freeze(layer)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        brevq.unfreeze(layer)
    assert (name in LOSSY) == bool(caught)
    assert torch.equal(before.value, layer.weight)
    if name not in LOSSY:
        torch.testing.assert_close(before.value, layer.quant_weight().value, rtol=2**-20, atol=0.0)
