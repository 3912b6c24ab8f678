"""Groups, blocks and tokens: which values share a scale, and how tensors are laid out for them."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from brevq.core.function_wrapper import PerBlock, PerGroup, PerToken
from brevq.core.scaling import ParameterScaling
from brevq.core.stats import AbsMax
from brevq.errors import ArgumentError, ArgumentTypeError

SHAPES = [(8,), (6, 8), (5, 6, 8), (2, 8, 3, 4)]
LAYOUTS = [(shape, axis) for shape in SHAPES for axis in range(-len(shape), len(shape))]


def numbered(shape):
    """A tensor whose values are all different."""
    return torch.arange(1.0, 1.0 + int(np.prod(shape))).reshape(shape)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
@pytest.mark.parametrize(("shape", "axis"), LAYOUTS)
def test_groups(shape, axis, size):
    """A group holds the values of a run along its axis, in their order, and zeros where it is not full."""
    granularity = PerGroup(size, axis, pad=True)
    x = numbered(shape)
    groups = granularity.split(x)
    lines = np.moveaxis(x.numpy(), axis, -1)
    expected = []
    for line in lines.reshape(-1, lines.shape[-1]):
        runs = [line[i : i + size].tolist() for i in range(0, len(line), size)]
        expected.append([run + [0.0] * (size - len(run)) for run in runs])
    assert expected == groups.reshape(len(expected), -1, size).tolist()
    assert lines.shape[:-1] == tuple(groups.shape[:-2])
    assert torch.equal(x, granularity.join(groups, x.shape))


@pytest.mark.parametrize(("shape", "axis"), LAYOUTS)
def test_scales_of_groups(shape, axis):
    """The scale has the shape that is stated, and broadcasts to the groups that it belongs to."""
    granularity = PerGroup(2, axis, pad=True, tensor_shape=shape)
    groups = granularity.split(numbered(shape))
    scale = AbsMax(granularity)(groups)
    assert granularity.scale_shape == tuple(scale.shape)
    assert torch.equal(groups.amax(-1), scale.squeeze(-1))
    assert groups.shape == torch.broadcast_shapes(groups.shape, scale.shape)


@pytest.mark.parametrize("block", [(1, 1), (2, 3), (4, 4), (7, 100)])
@pytest.mark.parametrize("shape", [(6, 8), (5, 3, 4), (4, 2, 3, 3)])
def test_blocks(shape, block):
    """A block holds the values of a rectangle, row by row, and zeros where it is not full."""
    granularity = PerBlock(block, pad=True, tensor_shape=shape)
    x = numbered(shape)
    flat = x.numpy().reshape(shape[0], -1)
    rows, columns = block
    blocks = granularity.split(x)
    for i, j in itertools.product(range(blocks.shape[0]), range(blocks.shape[1])):
        rectangle = np.zeros(block, np.float32)
        inside = flat[i * rows : (i + 1) * rows, j * columns : (j + 1) * columns]
        rectangle[: inside.shape[0], : inside.shape[1]] = inside
        assert rectangle.ravel().tolist() == blocks[i, j].tolist()
    assert (-(-flat.shape[0] // rows), -(-flat.shape[1] // columns), 1) == granularity.scale_shape
    assert granularity.scale_shape == tuple(AbsMax(granularity)(blocks).shape)
    assert torch.equal(x, granularity.join(blocks, x.shape))


@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_tokens(axis):
    """A token's scale is that of all its features, in a tensor that is laid out as it came."""
    granularity = PerToken(axis)
    x = numbered((3, 4, 5))
    scale = AbsMax(granularity)(granularity.split(x))
    assert x.numpy().max(axis, keepdims=True).tolist() == scale.tolist()
    assert torch.equal(x, granularity.join(granularity.split(x), x.shape))


@pytest.mark.parametrize("granularity", [PerGroup(4, 1), PerBlock((2, 4))], ids=["group", "block"])
def test_shared_by_several_weights(granularity):
    """With several layers, statistics are taken over the groups of all their weights, place by place."""
    small, large = nn.Linear(8, 4), nn.Linear(8, 4)
    nn.init.normal_(large.weight, std=10)
    for layer in (small, large):
        granularity.add_peer(layer)
    scale = AbsMax(granularity)(granularity.split(small.weight))
    both = torch.maximum(granularity.split(small.weight).abs(), granularity.split(large.weight).abs())
    assert torch.equal(both.amax(-1, keepdim=True), scale)


def test_learned_scales():
    """A parameter may have one value for each group."""
    scaling = ParameterScaling(0.5, granularity_impl=PerGroup(4, 1, tensor_shape=(3, 8)))
    assert (3, 2, 1) == tuple(scaling(torch.zeros(3, 2, 4)).shape)


def test_gradient_passes_through_the_layout():
    """What is filled up takes no gradient from the values."""
    granularity = PerGroup(3, pad=True)
    x = torch.randn(2, 4, requires_grad=True)
    granularity.join(granularity.split(x) * 2.0, x.shape).sum().backward()
    assert torch.equal(torch.full_like(x, 2.0), x.grad)


ERRORS = {
    "size": (lambda: PerGroup(0), "`group_size` (=0) must be a whole number of values, 1 or more"),
    "size is no integer": (lambda: PerGroup(2.0), "`group_size` (=2.0) must be a whole number of values, 1 or more"),
    "ragged": (
        lambda: PerGroup(3, tensor_shape=(2, 4)),
        "`group_size` (=3) does not divide axis -1 of a tensor of shape (2, 4), which has 4 values. "
        "Choose a size that does, or set `pad = True`, which fills the last one up with zeros",
    ),
    "axis": (
        lambda: PerGroup(2, 2).split(torch.ones(2, 4)),
        "`group_axis` (=2) is not an axis of a tensor of shape (2, 4), which has axes -2 to 1",
    ),
    "feature axis": (
        lambda: PerToken(3).rows(torch.ones(2, 4)),
        "`feature_axis` (=3) is not an axis of a tensor of shape (2, 4), which has axes -2 to 1",
    ),
    "axis of a number": (
        lambda: PerGroup(2).split(torch.tensor(1.0)),
        "`group_axis` (=-1) is not an axis of a tensor of shape (), which has no axes",
    ),
    "token of a number": (
        lambda: PerToken().rows(torch.tensor(1.0)),
        "`feature_axis` (=-1) is not an axis of a tensor of shape (), which has no axes",
    ),
    "size is True": (lambda: PerGroup(True), "`group_size` (=True) must be a whole number of values, 1 or more"),
    "block size is no integer": (
        lambda: PerBlock((2, "3")),
        "`block_shape` (='3') must be a whole number of values, 1 or more",
    ),
    "ragged block": (
        lambda: PerBlock((2, 3), tensor_shape=(2, 4)),
        "`block_shape` (=3) does not divide axis 1 of a tensor of shape (2, 4), which has 4 values. "
        "Choose a size that does, or set `pad = True`, which fills the last one up with zeros",
    ),
    "block of a vector": (
        lambda: PerBlock((1, 1)).split(torch.ones(4)),
        "blocks have two dimensions, and a tensor of shape (4,) has 1",
    ),
    "groups without a shape": (
        lambda: PerGroup(2).scale_shape,
        "the scale of groups depends on the tensor: it can be computed from it, and not be a parameter",
    ),
    "blocks without a shape": (
        lambda: PerBlock().scale_shape,
        "the scale of blocks depends on the tensor: it can be computed from it, and not be a parameter",
    ),
    "tokens have no shape": (
        lambda: PerToken().scale_shape,
        "the scale of tokens depends on the tensor: it can be computed from it, and not be a parameter",
    ),
    "bias of groups": (
        lambda: PerGroup(2).per_output(torch.ones(1)),
        "a weight that is quantized in groups has several scales for one output, "
        "so there is no scale for a bias to be tied to",
    ),
    "bias of blocks": (
        lambda: PerBlock().per_output(torch.ones(1)),
        "a weight that is quantized in blocks has several scales for one output, "
        "so there is no scale for a bias to be tied to",
    ),
    "bias of tokens": (
        lambda: PerToken().per_output(torch.ones(1)),
        "a tensor that is quantized by token has several scales for one output, "
        "so there is no scale for a bias to be tied to",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors(case):
    """What is wrong is refused with argument, value and rule."""
    call, text = ERRORS[case]
    with pytest.raises(ArgumentError) as error:
        call()
    assert text == str(error.value)


TYPE_ERRORS = {
    "group axis is a fraction": (
        lambda: PerGroup(2, 1.5),
        "`group_axis` (=1.5) must be the number of an axis, not float",
    ),
    "group axis is True": (lambda: PerGroup(2, True), "`group_axis` (=True) must be the number of an axis, not bool"),
    "feature axis is a text": (lambda: PerToken("a"), "`feature_axis` (='a') must be the number of an axis, not str"),
    "pad is a text": (lambda: PerGroup(2, pad="no"), "`pad` (='no') must be True or False, not str"),
    "pad of blocks is a number": (lambda: PerBlock(pad=1), "`pad` (=1) must be True or False, not int"),
    "block is a number": (
        lambda: PerBlock(2),
        "`block_shape` (=2) must be two numbers of values, rows and columns",
    ),
    "block has one number": (
        lambda: PerBlock((2,)),
        "`block_shape` (=(2,)) must be two numbers of values, rows and columns",
    ),
}


@pytest.mark.parametrize("case", TYPE_ERRORS)
def test_arguments_of_another_kind(case):
    """An argument of another kind is a type error, with argument, value and rule."""
    call, text = TYPE_ERRORS[case]
    with pytest.raises(ArgumentTypeError) as error:
        call()
    assert text == str(error.value)
