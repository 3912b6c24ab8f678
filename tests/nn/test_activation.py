"""Activation layers: their twins' numbers, their ranges, and their overrides."""

import numpy as np
import pytest
import torch
from torch import nn

from brevq.core.phase import Phase
from brevq.errors import ArgumentTypeError
from brevq.nn import QuantIdentity, QuantReLU
from brevq.quant_tensor import QuantTensor
from injectors import Int8ActPerTensor, Uint8ActPerTensor


@pytest.mark.parametrize(("layer", "twin"), [(QuantIdentity, nn.Identity), (QuantReLU, nn.ReLU)])
def test_without_a_quantizer_a_layer_is_its_twin(layer, twin):
    """With `act_quant` None an activation layer is its twin, and it is one to `isinstance` in any case."""
    x = torch.randn(5, 6)
    assert torch.equal(twin()(x), layer(act_quant=None)(x))
    assert isinstance(layer(), twin)


def test_defaults_are_eight_bits():
    """Identity has a signed 8-bit grid by default, ReLU an unsigned one."""
    assert [Int8ActPerTensor, Uint8ActPerTensor] == [QuantIdentity().act_quant.recipe, QuantReLU().act_quant.recipe]


def test_overrides_have_no_prefix():
    """Overrides of an activation layer are names of the recipe as they are."""
    assert 3 == QuantReLU(bit_width=3).act_quant.recipe.bit_width


def test_misspelt_override_is_refused():
    """A misspelt override names the near miss."""
    with pytest.raises(ArgumentTypeError) as error:
        QuantReLU(bitwidth=3)
    assert str(error.value) == (
        "QuantReLU got `bitwidth`, and nothing in Uint8ActPerTensor takes `bitwidth`. Did you mean `bit_width`?"
    )


def test_twin_arguments_stay():
    """The twin's own arguments are taken as the twin takes them."""
    x = torch.tensor([-1.0, 2.0])
    QuantReLU(inplace=True)(x)
    assert [0.0, 2.0] == x.tolist()


def test_observed_values_are_those_of_numpy():
    """While it observes, ReLU's output is round(relu(x) / s) * s with s the largest value of the batch over 255."""
    layer, x = QuantReLU(), torch.randn(50)
    relu = np.maximum(x.numpy(), 0)
    scale = relu.max() / np.float32(255)
    expected = np.clip(np.rint(relu / scale), 0, 255) * scale
    assert np.array_equal(expected, layer(x).detach().numpy())


def test_a_quant_tensor_comes_out_where_asked_for():
    """With `return_quant_tensor` the output carries its scale, and another layer takes it as it is."""
    x = torch.randn(5, 6)
    out = QuantIdentity(return_quant_tensor=True)(x)
    assert isinstance(out, QuantTensor)
    assert torch.equal(QuantReLU(act_quant=None)(out.value), QuantReLU(act_quant=None)(out))


def test_training_passes_from_observing_to_learning():
    """After `collect_stats_steps` batches in training the range is a parameter, and the phase says so."""
    layer = QuantIdentity(collect_stats_steps=2)
    phases = [layer.act_quant.phase]
    for _ in range(3):
        layer(torch.randn(10)).sum().backward()
        phases.append(layer.act_quant.phase)
    assert [Phase.EMPTY, Phase.OBSERVE, Phase.LEARNED, Phase.LEARNED] == phases
    assert "phase=learned" in repr(layer)
