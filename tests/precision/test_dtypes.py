"""What dtypes layers compute in and return, in all of which scales are float32."""

import copy

import pytest
import torch
from torch import nn

import injectors
from brevq.graph import calibrating
from brevq.nn import QuantConv2d, QuantLinear, QuantLSTM, QuantReLU
from brevq.quantizer import Quantizer
from tests.support.table import CASES, FAMILIES, calibrated, converted, leaves, total

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
HALVES = [torch.bfloat16, torch.float16]
CONVERSIONS = {
    "half": nn.Module.half,
    "bfloat16": nn.Module.bfloat16,
    "double": nn.Module.double,
    "to": lambda module: module.to(torch.float16),
}


def dtypes(module):
    """The dtypes of the floating-point tensors of all quantizers of a module."""
    quantizers = [part for part in module.modules() if isinstance(part, Quantizer)]
    tensors = [tensor for quantizer in quantizers for tensor in quantizer.state_dict().values()]
    return {tensor.dtype for tensor in tensors if tensor.is_floating_point()}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_outputs_and_gradients_have_the_dtype_of_the_model(name, dtype):
    """A model of a dtype returns it, in training and evaluation; gradients have the dtypes of their parameters."""
    layer, inputs = calibrated(CASES[name])
    layer, inputs = layer.to(dtype), converted(inputs, dtype)
    for mode in (True, False):
        outputs = [leaf for leaf in leaves(layer.train(mode)(*inputs)) if leaf.is_floating_point()]
        assert {dtype} == {leaf.dtype for leaf in outputs}
    if outputs[0].requires_grad:
        total(outputs).backward()
    assert [] == [key for key, p in layer.named_parameters() if p.grad is not None and p.grad.dtype != p.dtype]


@pytest.mark.parametrize("conversion", CONVERSIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_scales_stay_float32(family, conversion):
    """State of quantizers is float32 after any conversion, through a `state_dict`, and scales come in float32."""
    layer = CONVERSIONS[conversion](CASES["QuantLinear"].make(FAMILIES[family]))
    dtype = layer.weight.dtype
    layer(torch.randn(3, 32, dtype=dtype))
    other = CASES["QuantLinear"].make(FAMILIES[family]).to(dtype)
    other.load_state_dict(layer.state_dict())
    assert dtypes(layer) == dtypes(other) <= {torch.float32}
    if dtype != torch.float64:
        assert (
            torch.float32 == layer.weight_quant(layer.weight).scale.dtype
            if not layer.weight_quant.needs_input
            else True
        )


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize(
    "recipe", [injectors.Int8WeightPerTensor, injectors.Int4WeightPerChannel, injectors.MXFp4Weight]
)
def test_codes_are_those_of_rounded_weights(dtype, recipe):
    """A model in half precision has scales and codes of a float32 model whose weights were rounded to that."""
    rounded = QuantLinear(32, 8, weight_quant=recipe)
    with torch.no_grad():
        rounded.weight.copy_(rounded.weight.to(dtype))
    half = copy.deepcopy(rounded).to(dtype)
    ours, theirs = rounded.quant_weight(), half.quant_weight()
    assert torch.equal(ours.scale, theirs.scale)
    assert torch.equal(ours.value.to(dtype), theirs.value)
    if recipe is not injectors.MXFp4Weight:
        assert torch.equal(ours.int(), theirs.int())


@pytest.mark.parametrize("name", sorted(CASES.keys() - {"QuantLSTM"}))  # whose twin has no kernel for it on all CPUs
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_autocast(name, dtype):
    """Under autocast a layer returns what its twin returns there, and its scales stay float32."""
    layer, inputs = calibrated(CASES[name])
    twin = CASES[name].make(None).eval()
    for mode in (True, False):
        with torch.autocast("cpu", dtype):
            ours, theirs = leaves(layer.train(mode)(*inputs)), leaves(twin.train(mode)(*inputs))
        assert [leaf.dtype for leaf in theirs] == [leaf.dtype for leaf in ours]
    assert dtypes(layer) <= {torch.float32}


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_autocast_of_an_lstm(dtype):
    """Under autocast the cell of an LSTM, which sums up over all time steps, stays float32, and so does its output."""
    layer = QuantLSTM(4, 4)
    with torch.autocast("cpu", dtype):
        output, (_, cell) = layer(torch.randn(3, 2, 4))
    assert {torch.float32} == {output.dtype, cell.dtype, *(p.dtype for p in layer.parameters())}


def test_autocast_trains():
    """Training under autocast falls, with weights and gradients in float32."""
    model = network()
    losses = train(model, torch.randn(16, 1, 6, 6), autocast=True)
    assert losses[-1] < losses[0] / 2
    assert {torch.float32} == {p.grad.dtype for p in model.parameters() if p.grad is not None}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_training_falls(dtype):
    """A network of a dtype learns, all of it in that dtype."""
    losses = train(network().to(dtype), torch.randn(16, 1, 6, 6, dtype=dtype))
    assert losses[-1] < losses[0] / 2


def network():
    """A small network with quantized weights and activations."""
    return nn.Sequential(
        QuantConv2d(1, 4, 3, input_quant=injectors.Int8ActPerTensor),
        QuantReLU(),
        nn.Flatten(),
        QuantLinear(64, 1, weight_quant=injectors.Int8WeightPerTensorLSQ),
    )


def train(model, x, autocast=False):
    """The losses of training to tell the mean of an image."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = (model(x).flatten() - x.flatten(1).mean(1) * 4).float().square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_mixed_dtypes_are_torchs_to_refuse():
    """A float32 layer refuses bfloat16 inputs with the words of its twin."""
    x = torch.ones(1, 4, dtype=torch.bfloat16)
    told = []
    for kind in (QuantLinear, nn.Linear):
        with pytest.raises(RuntimeError) as error:
            kind(4, 2)(x)
        told.append(str(error.value))
    assert told[0] == told[1]


def test_a_model_converted_after_calibration():
    """Ranges that were calibrated in float32 are the very same in half precision."""
    model = network()
    with calibrating(model.eval()):
        model(torch.randn(4, 1, 6, 6))
    before = {key: tensor for key, tensor in model.state_dict().items() if "_quant." in key}
    after = copy.deepcopy(model).half().state_dict()
    assert [] == [key for key, tensor in before.items() if not torch.equal(tensor, after[key])]
    assert torch.float16 == after["0.weight"].dtype
