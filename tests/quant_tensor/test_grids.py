"""Two grids: what is said of them, and when two tensors of one quantizer have one."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from brevq.errors import ArgumentError
from brevq.graph import calibrating
from brevq.nn import QuantIdentity, QuantLinear
from injectors import Int8ActPerTensor, Int8ActPerTensorDynamic, Int8WeightPerChannel, ShiftedUint8ActPerTensor

WAYS_OUT = """
Three ways out:
  - share one quantizer, as brevq.nn.QuantEltwiseAdd and brevq.nn.QuantCat do, or one that both layers are given;
  - quantize one of them again, on the grid of the other: pass both through the same QuantIdentity;
  - leave the grid: {function} the values, x.value and y.value, and quantize the result where it has to be."""


class Block(nn.Module):
    """Two branches that end on grids of their own, and meet."""

    def __init__(self, recipe, meet):
        super().__init__()
        self.left = nn.Sequential(nn.Identity(), QuantIdentity(act_quant=recipe, return_quant_tensor=True))
        self.right = QuantIdentity(act_quant=recipe, return_quant_tensor=True)
        self.meet = meet

    def forward(self, x):
        return self.meet(self.left(x), self.right(2 * x + 1))


class Model(nn.Module):
    """A model with such a block in it."""

    def __init__(self, recipe, meet):
        super().__init__()
        self.stem = nn.Identity()
        self.block = Block(recipe, meet)

    def forward(self, x):
        return self.block(self.stem(x))


def calibrated(recipe, meet):
    """A model in evaluation, which has seen data that it could not add."""
    model = Model(recipe, lambda x, y: x.value)
    with calibrating(model):
        model(X)
    model.block.meet = meet
    return model.eval()


X = torch.tensor([-1.0, 0.5, 1.0])


@pytest.mark.parametrize(
    ("function", "meet"),
    [
        ("add", torch.add),
        ("sub", lambda x, y: x - y),
        ("cat", lambda x, y: torch.cat([x, y])),
        ("maximum", torch.maximum),
        ("where", lambda x, y: torch.where(x > 0, x, y)),
    ],
)
def test_two_scales(function, meet):
    """The error names the function, both layers by their paths in the running model, their scales, and ways out."""
    model = calibrated(Int8ActPerTensor, meet)
    with pytest.raises(ArgumentError) as error:
        model(X)
    one, other = (layer.act_quant.current().scale.item() for layer in (model.block.left[1], model.block.right))
    assert str(error.value) == (
        f"`{function}` of two quantized tensors is exact on one grid only, and these two have different scales:\n"
        f"  `block.left.1.act_quant` (Int8ActPerTensor): {one:g}\n"
        f"  `block.right.act_quant` (Int8ActPerTensor): {other:g}\n" + WAYS_OUT.format(function=function)
    )


def test_two_zero_points(qt):
    """Tensors of one scale and two zero-points have a sum, and do not lie side by side."""
    x, y = qt.of_kind("unsigned", [1, 2]), qt.of_kind("shifted", [1, 2])
    assert (x + y).is_valid
    with pytest.raises(ArgumentError) as error:
        torch.cat([x, y])
    assert str(error.value) == (
        "`cat` of two quantized tensors is exact on one grid only, and these two have different zero-points:\n"
        "  a tensor of unknown origin: 0\n"
        "  a tensor of unknown origin: 5\n" + WAYS_OUT.format(function="cat")
    )


def test_many_scales(qt):
    """Of several scales the error says how many there are, and from where to where."""
    x, y = (qt.of_kind("signed", [[1, 2]] * 2, [[scale], [1.0]]) for scale in (0.5, 0.25))
    with pytest.raises(ArgumentError, match=r"origin: 2 of them, from 0.5 to 1\n.*origin: 2 of them, from 0.25 to 1\n"):
        x + y


def test_two_scales_in_compiled_code():
    """Compiled code has no branch on scales: it asserts that they are equal when it runs."""
    model = calibrated(Int8ActPerTensor, torch.add)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with pytest.raises(RuntimeError, match=r"add: scales of .*\(Int8ActPerTensor\) and .*\(Int8ActPerTensor\) differ"):
        compiled(X)


def test_channels_are_of_two_scales():
    """Rows of one weight come from one quantizer and have scales of their own: they can not be added."""
    weight = QuantLinear(3, 2, weight_quant=Int8WeightPerChannel).quant_weight()
    with pytest.raises(ArgumentError, match="`__getitem__` of A quantizer \\(Int8WeightPerChannel\\)"):
        weight[0] + weight[1]


def test_a_dynamic_quantizer_has_many_grids():
    """A quantizer that computes its scale from each tensor gives two tensors two grids."""
    layer = QuantIdentity(act_quant=Int8ActPerTensorDynamic, return_quant_tensor=True)
    with pytest.raises(ArgumentError, match="different scales"):
        layer(X) + layer(3 * X)


@pytest.mark.parametrize("recipe", [Int8ActPerTensor, ShiftedUint8ActPerTensor])
def test_a_quantizer_that_observes_has_one(recipe):
    """While a quantizer watches ranges its scale moves, and what it quantized lies on one grid nevertheless."""
    layer = QuantIdentity(act_quant=recipe, return_quant_tensor=True)
    x, y = layer(X), layer(3 * X)
    assert x.scale != y.scale
    assert (9, 8) == ((x + y).bit_width, torch.cat([x, y]).bit_width)


def test_a_bias_on_another_grid(qt):
    """A bias that is quantized to anything but the grid of the products is refused."""
    x, bias = qt.of_kind("signed", [[1, 2]], 0.5), qt.of_kind("signed", [1], 0.5)
    with pytest.raises(ArgumentError, match="`linear` of two quantized tensors"):
        F.linear(x, x, bias)
