"""Embeddings: scales of rows, padding, norms, bags, and what they refuse."""

import numpy as np
import pytest
import torch
from torch import nn

from brevq import nn as qnn
from brevq.errors import ArgumentError, ArgumentTypeError
from brevq.quant_tensor import QuantTensor
from injectors import (
    Int8ActPerTensor,
    Int8WeightPerChannel,
    Int8WeightPerChannelA2Q,
    Int8WeightPerGroup,
    Int8WeightPerTensor,
    MXFp4Weight,
)

BOTH = pytest.mark.parametrize("name", ["QuantEmbedding", "QuantEmbeddingBag"])


@BOTH
def test_channels_are_rows(name):
    """Codes per channel are round(127 * w / max |w|) of each row."""
    layer = getattr(qnn, name)(7, 5, weight_quant=Int8WeightPerChannel)
    table = layer.weight.detach().numpy()
    scale = np.abs(table).max(axis=1, keepdims=True) / np.float32(127)
    assert np.array_equal(scale, layer.quant_weight().scale.detach().numpy())
    assert np.array_equal(np.rint(table / scale).astype(np.int8), layer.quant_weight().int().numpy())


@pytest.mark.parametrize("recipe", [Int8WeightPerTensor, Int8WeightPerChannel, Int8WeightPerGroup, MXFp4Weight])
@pytest.mark.parametrize("shape", [(), (4,), (2, 3), (0,)])
def test_codes_are_looked_up_with_their_scales(recipe, shape):
    """With `return_quant_tensor`, the output has the codes and the values of the rows."""
    layer = qnn.QuantEmbedding(7, 64, weight_quant=recipe, return_quant_tensor=True)
    indices = torch.randint(0, 7, shape)
    rows = layer(indices)
    assert isinstance(rows, QuantTensor)
    assert rows.is_valid
    assert torch.equal(layer.quant_weight().value[indices], rows.value)
    assert torch.equal(layer.quant_weight().int()[indices], rows.int())


def test_rows_flow_into_a_layer():
    """A linear layer takes the looked-up codes for its input, so its output lies on a grid."""
    embedding = qnn.QuantEmbedding(7, 4, return_quant_tensor=True)
    linear = qnn.QuantLinear(4, 3, bias=False, return_quant_tensor=True)
    indices = torch.tensor([3, 0, 3])
    codes = embedding.quant_weight().int()[indices].long() @ linear.quant_weight().int().long().T
    assert torch.equal(codes, linear(embedding(indices)).int().long())


def test_int32_indices():
    """Indices of 32 bits are as good as of 64."""
    layer = qnn.QuantEmbedding(7, 4)
    assert torch.equal(layer(torch.tensor([1, 2])), layer(torch.tensor([1, 2], dtype=torch.int32)))


@pytest.mark.parametrize(("name", "inputs"), [("QuantEmbedding", (4,)), ("QuantEmbeddingBag", (4, 3))])
def test_the_output_is_quantized(name, inputs):
    """An `output_quant` quantizes what was looked up."""
    layer = getattr(qnn, name)(7, 5, output_quant=Int8ActPerTensor, output_bit_width=3, return_quant_tensor=True)
    y = layer(torch.randint(0, 7, inputs))
    assert (3.0, True) == (y.bit_width.item(), y.is_valid)
    assert y.producer is layer.output_quant


@pytest.mark.parametrize("recipe", [None, Int8WeightPerTensor, Int8WeightPerChannel])
@BOTH
def test_padding_gets_no_gradient(name, recipe):
    """The row of the padding gets no gradient, also where it has the largest value, which sets the scale."""
    layer = getattr(qnn, name)(4, 3, padding_idx=1, weight_quant=recipe)
    layer.weight.data[1] = 100.0
    layer(torch.tensor([[0, 1, 2], [1, 1, 3]])).sum().backward()
    assert [0.0] * 3 == layer.weight.grad[1].tolist()
    assert layer.weight.grad.abs().sum(1).gt(0).tolist() == [True, False, True, True]


def test_gradients_count_how_often_a_row_was_used():
    """A value that sets no scale gets the gradient of each of its uses."""
    layer = qnn.QuantEmbedding(3, 2, weight_quant=Int8WeightPerChannel)
    layer.weight.data = torch.tensor([[1.0, 8.0], [2.0, -8.0], [4.0, 8.0]])
    layer(torch.tensor([0, 2, 2])).sum().backward()
    assert [1.0, 0.0, 2.0] == layer.weight.grad[:, 0].tolist()


@BOTH
def test_norms_are_limited_before_quantization(name):
    """With `max_norm`, rows of the float table are scaled down as in the twin, and those are quantized."""
    layer = getattr(qnn, name)(4, 2, max_norm=1.0, weight_quant=Int8WeightPerChannel)
    layer.weight.data = torch.tensor([[3.0, 4.0], [0.3, 0.4], [6.0, 8.0], [0.0, 9.0]])
    y = layer(torch.tensor([[0], [1], [3]]))
    expected = np.array([[0.6, 0.8], [0.3, 0.4], [6.0, 8.0], [0.0, 1.0]])
    assert np.allclose(expected, layer.weight.detach().numpy(), rtol=1e-6)  # the norm has an epsilon of 1e-7
    codes = np.array([[95, 127], [95, 127], [0, 127]])
    scale = expected[[0, 1, 3], 1:] / 127
    assert np.allclose(codes * scale, y.detach().numpy().reshape(3, 2), rtol=1e-6)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_bags_are_made_of_quantized_rows(mode):
    """A bag is the sum, mean or maximum of quantized rows."""
    layer = qnn.QuantEmbeddingBag(7, 3, mode=mode, weight_bit_width=3)
    table, indices = layer.quant_weight().value.detach().numpy(), [5, 1, 1, 0, 6]
    expected = np.stack([getattr(table[bag], mode)(axis=0) for bag in ([5, 1, 1], [0, 6])])
    y = layer(torch.tensor(indices), torch.tensor([0, 3])).detach().numpy()
    assert np.allclose(expected, y, rtol=1e-6)  # sums of three in float32


def test_bags_are_weighted():
    """Weights of samples multiply quantized rows."""
    layer = qnn.QuantEmbeddingBag(7, 3, mode="sum", weight_bit_width=3)
    table = layer.quant_weight().value.detach().numpy()
    weights = torch.tensor([[0.5, -2.0]], requires_grad=True)
    y = layer(torch.tensor([[4, 2]]), per_sample_weights=weights)
    assert np.allclose([0.5 * table[4] - 2 * table[2]], y.detach().numpy(), rtol=1e-6)  # a sum in float32
    y.sum().backward()
    assert np.allclose([table[[4, 2]].sum(1)], weights.grad.numpy(), rtol=1e-6)


@BOTH
def test_a_table_that_is_there_already(name):
    """`from_pretrained` takes the twin's arguments in its order, and recipes by keyword, and keeps the tensor."""
    table = torch.randn(7, 5)
    layer = getattr(qnn, name).from_pretrained(table, False, weight_quant=Int8WeightPerChannel, weight_bit_width=3)
    assert layer.weight.data_ptr() == table.data_ptr()
    assert (True, 3.0) == (layer.weight.requires_grad, layer.quant_weight().bit_width.item())
    assert not getattr(qnn, name).from_pretrained(table).weight.requires_grad


def test_a_table_that_is_there_already_by_position():
    """The options of `from_pretrained` are in the order of each twin."""
    table = torch.randn(7, 5)
    embedding = qnn.QuantEmbedding.from_pretrained(table, True, 2, 1.0)
    bag = qnn.QuantEmbeddingBag.from_pretrained(table, True, 1.0, 2.0, False, "sum")
    assert (2, 1.0) == (embedding.padding_idx, embedding.max_norm)
    assert (1.0, "sum") == (bag.max_norm, bag.mode)


def test_sparse_gradients_of_a_float_table():
    """A table in float has sparse gradients, as its twin."""
    layer, twin = qnn.QuantEmbedding(7, 3, sparse=True, weight_quant=None), nn.Embedding(7, 3, sparse=True)
    layer.load_state_dict(twin.state_dict())
    for module in (layer, twin):
        module(torch.tensor([1, 1, 4])).sum().backward()
    assert layer.weight.grad.is_sparse
    assert torch.equal(twin.weight.grad.to_dense(), layer.weight.grad.to_dense())


@BOTH
def test_sparse_gradients_of_a_quantized_table_are_refused(name):
    """A quantized table beside `sparse=True` is refused, when it is built and when a recipe is assigned."""
    layer = getattr(qnn, name)(7, 3, sparse=True, weight_quant=None)
    with pytest.raises(ArgumentError) as at_first:
        getattr(qnn, name)(7, 3, sparse=True)
    with pytest.raises(ArgumentError) as later:
        layer.weight_quant = Int8WeightPerTensor
    assert [str(at_first.value), str(later.value)] == [
        f"{name} got `sparse=True` and a `weight_quant`. The scale of a quantized table depends on all its rows, so "
        "its gradient is dense: set `sparse=False`, or `weight_quant=None`"
    ] * 2


REFUSALS = [
    (
        "QuantEmbedding",
        {"weight_quant": None, "return_quant_tensor": True},
        ArgumentError,
        "QuantEmbedding got `return_quant_tensor=True` and `weight_quant=None`: what it looks up lies on no grid. "
        "Give it a `weight_quant` or an `output_quant`",
    ),
    (
        "QuantEmbeddingBag",
        {"return_quant_tensor": True},
        ArgumentError,
        "QuantEmbeddingBag got `return_quant_tensor=True` without an `output_quant`: bags may have any size, so what "
        "is made of one lies on no grid that is known. Give it an `output_quant`",
    ),
    (
        "QuantEmbedding",
        {"weight_quant": Int8WeightPerChannelA2Q},
        ArgumentError,
        "QuantEmbedding got `weight_quant=Int8WeightPerChannelA2Q`, which asks for the bit width of the input, and "
        "indices have none: use one that does not, such as injectors.Int8WeightPerChannel",
    ),
    (
        "QuantEmbedding",
        {"input_quant": Int8ActPerTensor},
        ArgumentTypeError,
        "QuantEmbedding got `input_quant`, which it does not take. Did you mean `output_quant`?",
    ),
]


@pytest.mark.parametrize(("name", "keywords", "kind", "text"), REFUSALS)
def test_refusals_say_what_to_do(name, keywords, kind, text):
    """What an embedding refuses, it refuses by name, and says what it takes instead."""
    with pytest.raises(kind) as error:
        getattr(qnn, name)(7, 3, **keywords)
    assert text == str(error.value)


@BOTH
def test_a_table_has_two_dimensions(name):
    """`from_pretrained` of a tensor of another shape is refused."""
    with pytest.raises(ArgumentError) as error:
        getattr(qnn, name).from_pretrained(torch.randn(3))
    assert "`embeddings` must have two dimensions, (num_embeddings, embedding_dim), not shape (3,)" == str(error.value)
