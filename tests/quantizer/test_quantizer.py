"""A recipe bound to its owner: what it says of itself, and what it refuses."""

import pytest
import torch
from torch import nn

from brevq.core.bit_width import BitWidthFromInput
from brevq.core.quant import PrescaledRestrictIntQuantWithInputBitWidth
from brevq.errors import ArgumentError, ArgumentTypeError, UncalibratedError
from brevq.nn import QuantIdentity, QuantLayer, QuantLinear, QuantReLU
from injectors import Int8ActPerTensor, Int8Bias, Int8WeightPerChannel, Int8WeightPerTensorLSQ, Int32Bias, MXFp4Weight


@pytest.mark.parametrize(
    ("recipe", "text"),
    [
        (Int8WeightPerChannel, "Quantizer(Int8WeightPerChannel, signed narrow 8 bits)"),
        (
            MXFp4Weight,
            "Quantizer(MXFp4Weight, signed 4-bit floats with 2 exponent bits of bias 1 in groups of 32)",
        ),
    ],
)
def test_it_prints_on_one_line(recipe, text):
    """Recipe and grid say what a quantizer is; its parts are printed on request."""
    assert text == repr(QuantLinear(32, 4, weight_quant=recipe).weight_quant)


def test_its_phase_is_printed():
    """A quantizer with a range that is observed says what it is doing."""
    assert "Quantizer(Int8ActPerTensor, signed 8 bits, phase=empty)" == repr(QuantIdentity().act_quant)


@pytest.mark.parametrize(("role", "recipe"), [("weight", Int8WeightPerChannel), ("bias", Int32Bias)])
def test_only_activations_have_a_current_grid(role, recipe):
    """The grid of a weight or bias follows from it, so the layer is to be asked."""
    layer = QuantLinear(4, 3, input_quant=Int8ActPerTensor, **{f"{role}_quant": recipe})
    with pytest.raises(ArgumentError) as error:
        getattr(layer, f"{role}_quant").current()
    assert str(error.value) == (
        f"A quantizer ({recipe.__name__}) quantizes a {role}, and its grid follows from what it quantizes: "
        f"ask the layer, layer.quant_{role}()"
    )


def test_overrides_of_what_is_built_are_refused():
    """Setting a name of the recipe on the quantizer would change nothing, and says what would."""
    layer = QuantLinear(4, 3)
    with pytest.raises(ArgumentTypeError) as error:
        layer.weight_quant.bit_width = 3
    assert str(error.value) == (
        "A quantizer (Int8WeightPerTensor) is built already, and `bit_width` would change nothing.\n"
        "Give the layer another recipe: layer.weight_quant = layer.weight_quant.recipe.let(bit_width=...), "
        "or whichever it is"
    )


def test_another_device_is_refused_by_name():
    """An input that is somewhere else names the quantizer, its device and the input's."""
    model = nn.Sequential(QuantIdentity())
    with pytest.raises(ArgumentError) as error:
        model(torch.ones(2, device="meta"))
    assert str(error.value) == ("`0.act_quant` (Int8ActPerTensor) is on cpu, and its input on meta: move one of them")


def test_a_recipe_assigned_in_evaluation_does_not_observe():
    """A new quantizer is in the mode of its layer: in evaluation it refuses to guess."""
    layer = QuantReLU().eval()
    layer.act_quant = Int8ActPerTensor
    assert not layer.act_quant.training
    with pytest.raises(UncalibratedError):
        layer(torch.ones(2))


def test_new_weights_start_learned_ranges_again():
    """`reset_parameters` forgets the range that was learned for the weights before."""
    layer = QuantLinear(16, 8, weight_quant=Int8WeightPerTensorLSQ)
    with torch.no_grad():
        layer.weight.mul_(100)
    before = layer.quant_weight().scale
    layer.reset_parameters()
    assert layer.quant_weight().scale < before / 20


def test_a_bias_may_take_its_bits_from_the_input():
    """A recipe whose core quantizer asks for the input's bit width is given it."""
    recipe = Int8Bias.let(tensor_quant=PrescaledRestrictIntQuantWithInputBitWidth, bit_width_impl=BitWidthFromInput)
    layer = QuantLinear(8, 8, bias_quant=recipe, input_quant=Int8ActPerTensor, input_bit_width=6)
    x = torch.randn(2, 8)
    layer(x)
    assert 6 == layer.quant_bias(layer.input_quant(x)).bit_width


def test_a_bias_tells_what_it_is_asked_without():
    """`quant_bias()` of a layer between integers says how to ask."""
    layer = QuantLinear(4, 3, bias_quant=Int32Bias)
    with pytest.raises(ArgumentError) as error:
        layer.quant_bias()
    assert str(error.value) == (
        "A quantizer (Int32Bias) needs the scale of the layer's input: give what enters the layer, "
        "layer.quant_bias(x) with a QuantTensor, or give the layer an `input_quant`"
    )


class Cosine(nn.Module):
    """A layer with a weight and no bias."""

    def __init__(self, features):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(features))

    def forward(self, x):
        """The cosine between input and weight."""
        return nn.functional.cosine_similarity(x, self.weight, dim=-1)


class QuantCosine(QuantLayer, Cosine):
    """Its twin."""

    def compute(self, x, weight, bias):
        """The cosine between input and weight."""
        return nn.functional.cosine_similarity(x, weight, dim=-1)


def test_a_layer_of_ones_own_needs_no_bias():
    """A twin of a layer that has no attribute `bias` works as any other."""
    layer = QuantCosine(6, weight_bit_width=4)
    expected = nn.functional.cosine_similarity(torch.ones(2, 6), layer.quant_weight().value, dim=-1)
    assert torch.equal(expected, layer(torch.ones(2, 6)))
