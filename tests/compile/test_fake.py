"""Fake tensors, which have shapes and no values: layers compute with them what shapes say."""

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

import injectors
from brevq.graph import calibrating
from brevq.nn import QuantConv2d, QuantIdentity, QuantLinear, QuantReLU

RECIPES = {
    "integers": (injectors.Int8WeightPerTensor, injectors.Int8ActPerTensor),
    "learned": (injectors.Int8WeightPerTensorLSQ, injectors.Int8ActPerTensorLSQ),
    "channels": (injectors.Int8WeightPerChannel, injectors.ShiftedUint8ActPerTensor),
    "minifloats": (injectors.Fp8e4m3WeightPerTensor, injectors.Fp8e4m3ActPerTensor),
}


def network(case):
    """A convolution and a linear layer, with quantized input, weights and output."""
    weight, activation = RECIPES[case]
    return nn.Sequential(
        QuantIdentity(act_quant=activation),
        QuantConv2d(3, 4, 3, weight_quant=weight),
        QuantReLU(),
        nn.Flatten(),
        QuantLinear(64, 5, weight_quant=weight, output_quant=activation),
    )


@pytest.mark.parametrize("case", RECIPES)
def test_made_of_fake_tensors(case):
    """A network that is made of fake tensors trains, by shape."""
    with FakeTensorMode():
        model = network(case)
        for _ in range(2):
            y = model(torch.randn(2, 3, 6, 6))
            y.sum().backward()
    assert (2, 5) == tuple(y.shape)
    assert [p.shape for p in model.parameters()] == [p.grad.shape for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("case", RECIPES)
def test_called_with_fake_tensors(case):
    """A network that was calibrated says what shape comes of a fake input, and stays as it is."""
    model, x = network(case), torch.randn(2, 3, 6, 6)
    with calibrating(model.eval()), torch.no_grad():
        model(x)
    expected = model(x)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        assert (2, 5) == tuple(model(torch.randn(2, 3, 6, 6)).shape)
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    assert torch.equal(expected, model(x))
