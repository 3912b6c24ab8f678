"""Functions that move values: their codes and their scales go with them."""

import copy

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import injectors
from brevq.errors import ArgumentTypeError
from brevq.nn import QuantIdentity, QuantLinear
from brevq.quant_tensor import QuantTensor

# Each takes a tensor of shape (4, 6).
MOVES = {
    "reshape": lambda x: x.reshape(2, 12),
    "reshape_as": lambda x: x.reshape_as(torch.empty(24)),
    "view": lambda x: x.view(2, 2, 6),
    "view that joins": lambda x: x.view(-1),
    "view_as": lambda x: x.view_as(torch.empty(8, 3)),
    "flatten": torch.flatten,
    "unflatten": lambda x: x.unflatten(1, (2, 3)),
    "ravel": torch.ravel,
    "permute": lambda x: x.permute(1, 0),
    "transpose": lambda x: torch.transpose(x, 0, 1),
    "swapaxes": lambda x: torch.swapaxes(x, 0, 1),
    "swapdims": lambda x: torch.swapdims(x, 0, 1),
    "movedim": lambda x: x.movedim(0, 1),
    "moveaxis": lambda x: torch.moveaxis(x, 0, 1),
    "t": torch.t,
    "T": lambda x: x.T,
    "mT": lambda x: x.mT,
    "squeeze": lambda x: x[:, :1].squeeze(1),
    "unsqueeze": lambda x: torch.unsqueeze(x, 1),
    "expand": lambda x: x.expand(2, -1, -1),
    "expand_as": lambda x: x.expand_as(torch.empty(2, 4, 6)),
    "broadcast_to": lambda x: torch.broadcast_to(x, (2, 4, 6)),
    "repeat": lambda x: x.repeat(2, 3),
    "tile": lambda x: torch.tile(x, (2,)),
    "repeat_interleave": lambda x: torch.repeat_interleave(x, 2, dim=0),
    "roll": lambda x: torch.roll(x, 1, 0),
    "flip": lambda x: torch.flip(x, (0, 1)),
    "fliplr": torch.fliplr,
    "flipud": torch.flipud,
    "rot90": torch.rot90,
    "narrow": lambda x: torch.narrow(x, 1, 2, 3),
    "select": lambda x: x.select(0, 2),
    "index_select": lambda x: torch.index_select(x, 1, torch.tensor([5, 0])),
    "take": lambda x: torch.take(x, torch.tensor([[3, 22], [0, 7]])),
    "take_along_dim": lambda x: torch.take_along_dim(x, torch.tensor([[0, 3]]), 1),
    "gather": lambda x: torch.gather(x, 0, torch.tensor([[3, 2, 1, 0, 0, 0]])),
    "masked_select": lambda x: torch.masked_select(x, MASK),
    "diagonal": torch.diagonal,
    "pixel_shuffle": lambda x: F.pixel_shuffle(x.reshape(4, 2, 3), 2),
    "pixel_unshuffle": lambda x: F.pixel_unshuffle(x.reshape(1, 4, 6), 2),
    "channel_shuffle": lambda x: F.channel_shuffle(x.reshape(1, 4, 6, 1), 2),
    "atleast_1d": torch.atleast_1d,
    "atleast_2d": torch.atleast_2d,
    "atleast_3d": torch.atleast_3d,
    "x[0]": lambda x: x[0],
    "x[..., -1]": lambda x: x[..., -1],
    "x[1:3, ::2]": lambda x: x[1:3, ::2],
    "x[None, :, 0]": lambda x: x[None, :, 0],
    "x[mask]": lambda x: x[MASK],
    "x[list]": lambda x: x[[0, 2]],
    "x[tensor, tensor]": lambda x: x[torch.tensor([0, 3]), torch.tensor([5, 1])],
    "x[0:0]": lambda x: x[0:0],
    "x[2, 3]": lambda x: x[2, 3],
    "clone": torch.clone,
    "contiguous": lambda x: x.contiguous(),
    "positive": lambda x: +x,
    "detach": lambda x: x.detach(),
    "dropout in evaluation": lambda x: F.dropout(x, 0.5, training=False),
    "dropout of nothing": lambda x: F.dropout(x, 0.0, training=True),
    "alpha dropout in evaluation": lambda x: F.alpha_dropout(x, 0.5),
    "feature alpha dropout in evaluation": lambda x: F.feature_alpha_dropout(x, 0.5),
    "2d dropout in evaluation": lambda x: F.dropout2d(x.reshape(1, 2, 2, 6), 0.5, training=False),
    "deepcopy": copy.deepcopy,
    "input=": lambda x: torch.flip(input=x, dims=(0,)),
}
MANY = {
    "chunk": lambda x: x.chunk(2),
    "split": lambda x: torch.split(x, 4, dim=1),
    "split in sizes": lambda x: x.split([1, 3]),
    "split_with_sizes": lambda x: x.split_with_sizes([1, 3]),
    "tensor_split": lambda x: torch.tensor_split(x, 3, 1),
    "hsplit": lambda x: torch.hsplit(x, 2),
    "vsplit": lambda x: torch.vsplit(x, 2),
    "dsplit": lambda x: torch.dsplit(x.reshape(1, 4, 6), 2),
    "unbind": torch.unbind,
    "iteration": tuple,
}
GRAINS = ["tensor", "rows", "columns", "groups", "half", "bfloat16", "float"]
MASK = torch.arange(24).reshape(4, 6) % 5 == 0


def same(expected, function, got):
    """A part of a moved tensor has the values, and the codes that came along with them."""
    assert isinstance(got, QuantTensor)
    assert got.is_valid
    assert torch.equal(function, got.value)
    assert np.array_equal(expected.numpy(), got.int().numpy())


@pytest.mark.parametrize("grain", GRAINS)
@pytest.mark.parametrize("name", MOVES)
def test_moves(qt, name, grain):
    """Codes after a move are the codes, moved."""
    x, move = qt.grains[grain](), MOVES[name]
    got = move(x)
    codes = x.int().reshape(got.shape) if "dropout" in name else move(x.int())
    same(codes, move(x.value), got)
    assert (x.bit_width, x.signed, x.zero, x.narrow) == (got.bit_width, got.signed, got.zero, got.narrow)


@pytest.mark.parametrize("grain", GRAINS)
@pytest.mark.parametrize("name", MANY)
def test_parts(qt, name, grain):
    """Codes of the parts of a tensor are the parts of its codes."""
    x, parts = qt.grains[grain](), MANY[name]
    for expected, value, got in zip(parts(x.int()), parts(x.value), parts(x), strict=True):
        same(expected, value, got)


WEIGHTS = [
    "BinaryWeightPerChannel",
    "BFP16Weight",
    "Fp8e4m3OCPWeightPerBlock",
    "Fp8e4m3OCPWeightPerChannel",
    "Int4WeightPerGroup",
    "Int8WeightPerChannelPoT",
    "Int8WeightPerTensor",
    "MXFp4Weight",
    "MXFp8e5m2Weight",
    "MXInt8Weight",
    "NVFP4Weight",
    "ShiftedUint4WeightPerGroup",
    "ShiftedUint4WeightPerGroupHQO",
    "ShiftedUint8WeightPerChannelHQO",
    "TernaryWeightPerChannel",
]
ACTIVATIONS = ["Int8ActPerTokenDynamic", "Int8ActPerGroupDynamic", "ShiftedUint8ActPerTokenDynamic", "MXFp6e2m3Act"]
RECIPE_MOVES = {
    "transposed": lambda x: x.t(),
    "halves": lambda x: x.chunk(2, 1)[1],
    "reshaped": lambda x: x.reshape(64, 2, 128),
    "viewed": lambda x: x.view(-1),
    "picked": lambda x: x[torch.tensor([3, 100]), 5:40],
    "joined": lambda x: torch.cat([x, x[:5]]),
    "halved": lambda x: x / 2,
}


@pytest.mark.parametrize("name", RECIPE_MOVES)
@pytest.mark.parametrize("recipe", [*WEIGHTS, *ACTIVATIONS])
def test_recipes(recipe, name):
    """What recipes of the library quantize keeps its codes wherever it is moved."""
    if recipe in WEIGHTS:
        x = QuantLinear(128, 128, weight_quant=getattr(injectors, recipe)).quant_weight()
    else:
        x = QuantIdentity(act_quant=getattr(injectors, recipe), return_quant_tensor=True)(torch.randn(128, 128))
    move, codes = RECIPE_MOVES[name], x.int()
    same(codes if name == "halved" else move(codes), move(x.value), move(x))


@pytest.mark.parametrize(
    ("shape", "scale"),
    [((), 0.5), ((4, 1), 2.0 ** -np.arange(4)), ((1, 6), 2.0 ** -np.arange(6)), ((6,), 2.0 ** -np.arange(6))],
)
@pytest.mark.parametrize("indices", [[0, 3, 3], [[1], [2]], []])
def test_embedding(qt, shape, scale, indices):
    """The rows of an embedding keep their codes, and their scales where each has its own."""
    indices = torch.tensor(indices, dtype=torch.long)
    x = qt.of_kind("signed", qt.random_codes("signed", (4, 6)), np.reshape(scale, shape))
    for function in (F.embedding, lambda i, w: F.embedding(input=i, weight=w, padding_idx=2)):
        same(x.int()[indices], x.value[indices], function(indices, x))
    assert isinstance(F.embedding(indices, x, max_norm=1.0), torch.Tensor)


def test_embedding_in_groups(qt):
    """Each value of an embedding that is quantized in groups keeps the scale of its group."""
    x, indices = qt.grains["groups"](), torch.tensor([3, 0])
    same(x.int()[indices], x.value[indices], F.embedding(indices, x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize(
    "function", [lambda x, d: x.to(d), lambda x, d: x.to("cpu", d), lambda x, d: x.type_as(torch.empty(1, dtype=d))]
)
def test_conversions(qt, function, dtype):
    """Values take another dtype; scale, zero-point and bit width stay in float32."""
    x = function(qt.grains["groups"](), dtype)
    assert (dtype, torch.float32, torch.float32) == (x.dtype, x.scale.dtype, x.zero_point.dtype)
    assert torch.equal(qt.grains["groups"]().int(), x.int())


def test_named_conversions(qt):
    """The methods of the name of a dtype, and of another device, do the same."""
    x = qt.grains["rows"]()
    dtypes = [y.dtype for y in (x.half(), x.float(), x.double(), x.bfloat16(), x.cpu())]
    assert [torch.float16, torch.float32, torch.float64, torch.bfloat16, torch.float32] == dtypes
    meta = x.to("meta")
    assert all(part.is_meta for part in (meta.value, meta.scale, meta.zero_point, meta.bit_width))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.to(torch.int32),
        lambda x: x.long(),
        lambda x: x.view(torch.int32),
        lambda x: F.dropout(x, 0.5, training=True) * 0,
        lambda x: F.dropout2d(x.reshape(1, 2, 2, 6), 0.5, training=True) * 0,
        lambda x: F.alpha_dropout(x, 0.5, training=True) * 0,
    ],
)
def test_what_leaves_the_grid(qt, function):
    """Integers, bits, and what dropout scales in training are plain."""
    x = qt.grains["rows"]()
    assert isinstance(function(x), torch.Tensor)
    assert torch.equal(function(x.value), function(x))


@pytest.mark.parametrize("name", [name for name in MOVES if name not in ("detach", "deepcopy")])
def test_gradients(qt, name):
    """Gradients go back the way the values came."""
    x, move = qt.grains["rows"](), MOVES[name]
    leaf = x.value.clone().requires_grad_()
    x.requires_grad_()
    move(x).value.square().sum().backward()
    move(leaf).square().sum().backward()
    assert torch.equal(leaf.grad, x.grad)


def test_detached_grids(qt):
    """Detaching takes value, scale and zero-point out of the graph."""
    x = qt.grains["rows"]()
    for part in (x.value, x.scale, x.zero_point):
        part.requires_grad_()
    for y in (x.detach(), torch.detach(x)):
        assert not any(part.requires_grad for part in (y.value, y.scale, y.zero_point))


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("add_", lambda x: x.add_(1)),
        ("mul_", lambda x: x.mul_(x)),
        ("zero_", lambda x: x.zero_()),
        ("copy_", lambda x: x.copy_(torch.zeros(4, 6))),
        ("clamp_", lambda x: torch.clamp_(x, 0, 1)),
        ("dropout_", lambda x: torch.dropout_(x, 0.5, True)),
        ("hardtanh_", F.hardtanh_),
        ("masked_fill_", lambda x: x.masked_fill_(x > 0, 0)),
    ],
)
def test_nothing_is_changed_in_place(qt, name, function):
    """Methods that work in place are refused, with a way out, and leave the tensor alone."""
    x = qt.grains["tensor"]()
    before = x.value.clone()
    with pytest.raises(ArgumentTypeError) as error:
        function(x)
    assert str(error.value) == (
        f"`{name}` would change a QuantTensor in place, and leave it with values off its grid: "
        f"use what the function returns that makes a new tensor, or change the values alone with x.value.{name}"
    )
    assert torch.equal(before, x.value)


def test_plain_tensors_take_quantized_values_in_place(qt):
    """A plain tensor may be changed in place by a quantized one."""
    x, y = qt.grains["tensor"](), torch.zeros(4, 6)
    y.add_(x)
    y += x
    y[0] = x[1]
    expected = 2 * x.value
    expected[0] = x.value[1]
    assert torch.equal(expected, y)
    assert torch.equal(x.value, y.copy_(x))


INPLACE = [F.hardtanh, F.relu6, F.elu, F.leaky_relu, F.silu, F.hardswish, F.mish, F.selu, F.celu, F.hardsigmoid]


@pytest.mark.parametrize(
    "function", [*INPLACE, F.relu, F.dropout, lambda x, inplace: F.threshold(x, 0.5, 0.0, inplace)]
)
def test_inplace_functions_return(qt, function):
    """Functions that may work in place return what they would, and leave a quantized tensor as it is."""
    x = qt.grains["tensor"]()
    before = x.value.clone()
    torch.manual_seed(0)
    got = function(x, inplace=True)
    torch.manual_seed(0)
    assert torch.equal(function(before.clone(), inplace=True), got)
    assert torch.equal(before, x.value)


def test_relu_in_place(qt):
    """`relu_` stays on a grid where zero has a code, changes the tensor and returns it; else it is refused."""
    x = qt.of_kind("signed", [3, -8])
    assert x is torch.relu_(x)
    assert [3, 0] == x.int().tolist()
    with pytest.raises(ArgumentTypeError):
        qt.of_kind("binary", [1, -1]).relu_()


def test_gradients_are_asked_for_in_place(qt):
    """`requires_grad_` returns the tensor itself."""
    x = qt.grains["tensor"]()
    assert x is x.requires_grad_()
    assert x.requires_grad
    assert x.value.requires_grad
