"""A twin of a layer from outside of torch and brevq, in ten lines: all that other layers promise."""

import copy
import io
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from brevq.errors import ArgumentError, ArgumentTypeError
from brevq.graph import calibrating
from brevq.nn import QuantReLU
from brevq.nn.layer import QuantLayer
from injectors import Int8ActPerTensor, Int8WeightPerChannel, Int32Bias


class GraphConvolution(nn.Module):
    """A layer as libraries for graphs have it (Kipf and Welling, 2017): features are mixed, then neighbours averaged.

    It knows nothing of quantization, and keeps its weight the other way round than torch.
    """

    def __init__(self, in_features, out_features, bias=True, *, loops=False):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(in_features, out_features))
        self.bias = nn.Parameter(torch.zeros(out_features)) if bias else None
        self.loops = loops
        nn.init.xavier_uniform_(self.weight)

    def forward(self, x, adjacency):
        return self.spread(x @ self.weight, adjacency) + (0 if self.bias is None else self.bias)

    def spread(self, x, adjacency):
        adjacency = adjacency + torch.eye(len(adjacency)) if self.loops else adjacency
        return (adjacency / adjacency.sum(dim=1, keepdim=True)) @ x


class QuantGraphConvolution(QuantLayer, GraphConvolution):
    """Its twin."""

    channel_axis = 1

    def compute(self, x, weight, bias, adjacency):
        return self.spread(x @ weight, adjacency) + (0 if bias is None else bias)


class Mixing(nn.Module):
    """Another foreign layer, without a bias, whose weight has another name."""

    def __init__(self, features):
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(features, features))

    def forward(self, x):
        return x @ self.kernel


class QuantMixing(QuantLayer, Mixing):
    """Its twin."""

    channel_axis = 1
    bias = None
    weight = property(lambda self: self.kernel)

    def compute(self, x, weight, bias):
        return x @ weight


class HalvedLinear(nn.Linear):
    """A layer that computes its weight: half the parameter."""

    def forward(self, x):
        return nn.functional.linear(x, self.weight / 2, self.bias)


class QuantHalvedLinear(QuantLayer, HalvedLinear):
    """Its twin."""

    def float_parameters(self, x):
        return self.weight / 2, self.bias

    def compute(self, x, weight, bias):
        return nn.functional.linear(x, weight, bias)


RECIPES = {
    "weight_quant": Int8WeightPerChannel,
    "bias_quant": Int32Bias,
    "input_quant": Int8ActPerTensor,
    "output_quant": Int8ActPerTensor,
}


@pytest.fixture
def graph():
    """Features of five nodes, and which are neighbours."""
    adjacency = torch.eye(5) + torch.eye(5).roll(1, 0)
    return torch.randn(5, 4), adjacency


@pytest.fixture
def layer(graph):
    """A calibrated twin, with every quantizer."""
    layer = QuantGraphConvolution(4, 3, loops=True, **RECIPES).eval()
    with calibrating(layer):
        layer(*graph)
    return layer


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_in_float_it_is_the_layer_itself(graph, bias, training):
    """With every quantizer None, output and gradients are those of the original, bit for bit."""
    twin = QuantGraphConvolution(4, 3, bias, loops=True, weight_quant=None).train(training)
    original = GraphConvolution(4, 3, bias, loops=True).train(training)
    original.load_state_dict(twin.state_dict(), strict=True)
    for module in (original, twin):
        module(*graph).square().sum().backward()
    assert isinstance(twin, GraphConvolution)
    assert torch.equal(original(*graph), twin(*graph))
    assert [p.grad.tolist() for p in original.parameters()] == [p.grad.tolist() for p in twin.parameters()]


def test_it_computes_with_quantized_tensors(graph, layer):
    """Its output is that of the formula in NumPy, with the codes and scales that it shows."""
    x, adjacency = graph
    codes, weight, bias = layer.input_quant(x).int().numpy(), layer.quant_weight(), layer.quant_bias()
    mixed = (codes.astype(np.int64) @ weight.int().numpy().astype(np.int64)) * bias.scale.detach().numpy()
    neighbours = adjacency.numpy() + np.eye(5)
    expected = (neighbours / neighbours.sum(1, keepdims=True)) @ mixed + bias.value.detach().numpy()
    scale = layer.output_quant.current().scale.item()
    output = layer(*graph).detach().numpy()
    assert np.array_equal(np.round(expected / scale).clip(-128, 127), np.round(output / scale))
    assert (1, 3) == weight.scale.shape


def test_a_float_checkpoint_loads_strictly(graph):
    """The original's state is all that the twin asks for, and its scales are those of the loaded weight."""
    original, twin = GraphConvolution(4, 3), QuantGraphConvolution(4, 3)
    twin.load_state_dict(original.state_dict(), strict=True)
    assert torch.equal(original.weight.abs().max() / 127, twin.quant_weight().scale)


def _saved_and_loaded(layer):
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    fresh = QuantGraphConvolution(4, 3, loops=True, **RECIPES).eval()
    fresh.load_state_dict(torch.load(file))
    return fresh


@pytest.mark.parametrize(
    "travel",
    [
        copy.deepcopy,
        lambda layer: pickle.loads(pickle.dumps(layer)),
        _saved_and_loaded,
    ],
    ids=["deepcopy", "pickle", "state_dict"],
)
def test_it_travels(graph, layer, travel):
    """Copied, pickled, or saved and loaded, it gives the same output."""
    assert torch.equal(layer(*graph), travel(layer)(*graph))


@pytest.mark.parametrize("training", [True, False])
def test_it_compiles(graph, layer, training):
    """It compiles as one graph, to the same numbers."""
    torch.compiler.reset()
    compiled = torch.compile(copy.deepcopy(layer).train(training), fullgraph=True, backend="aot_eager")
    assert torch.equal(layer.train(training)(*graph), compiled(*graph))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_it_keeps_half_precision(graph, layer, dtype):
    """Inputs in half precision give outputs of that dtype."""
    x, adjacency = (part.to(dtype) for part in graph)
    adjacency += torch.eye(5, dtype=dtype)
    layer.loops = False
    assert dtype == layer.to(dtype)(x, adjacency).dtype


def test_extra_arguments_may_have_names(graph, layer):
    """What `forward` is given beside the input reaches `compute` by position or by name."""
    x, adjacency = graph
    assert torch.equal(layer(x, adjacency), layer(x, adjacency=adjacency))


def test_it_passes_quantized_tensors_on(graph):
    """It takes the grid of the layer before it, and gives its own to the one behind it."""
    x, adjacency = graph
    before = QuantReLU(return_quant_tensor=True)
    layer = QuantGraphConvolution(4, 3, bias_quant=Int32Bias, output_quant=Int8ActPerTensor, return_quant_tensor=True)
    y = layer(before(x), adjacency)
    assert y.is_valid
    assert layer.output_quant is y.producer


def test_an_accumulator_needs_exact_functions(graph):
    """A mean of neighbours is no sum of codes: a `QuantTensor` without an `output_quant` is refused, by name."""
    layer = QuantGraphConvolution(4, 3, False, input_quant=Int8ActPerTensor, return_quant_tensor=True)
    with pytest.raises(ArgumentError, match=r"^A QuantGraphConvolution got `return_quant_tensor=True` without"):
        layer(*graph)


def test_its_arguments_are_checked():
    """A misspelt override names the class, and the name that was meant."""
    with pytest.raises(ArgumentTypeError) as refused:
        QuantGraphConvolution(4, 3, loops=True, weight_bitwidth=4)
    assert (
        "QuantGraphConvolution got `weight_bitwidth`, and nothing in Int8WeightPerTensor takes `bitwidth`. "
        "Did you mean `weight_bit_width`?"
    ) == str(refused.value)


def test_a_weight_may_have_another_name():
    """What the property shows is quantized, with a scale for each output, and what comes out are exact codes."""
    layer = QuantMixing(4, weight_quant=Int8WeightPerChannel, input_quant=Int8ActPerTensor, return_quant_tensor=True)
    x = torch.randn(3, 4)
    layer(x)
    codes, weight = (part.int().long().numpy() for part in (layer.eval().input_quant(x), layer.quant_weight()))
    assert ["kernel"] == [name for name, _ in layer.named_parameters(recurse=False)]
    assert (1, 4) == layer.quant_weight().scale.shape
    assert np.array_equal(codes @ weight, layer(x).int().numpy())


def test_a_weight_may_be_computed():
    """What `float_parameters` gives is quantized, with its own scale, and gradients reach the parameter."""
    layer = QuantHalvedLinear(4, 3)
    layer(torch.randn(2, 4)).sum().backward()
    assert torch.equal((layer.weight / 2).abs().max() / 127, layer.quant_weight().scale)
    assert layer.weight.grad.abs().min() > 0
