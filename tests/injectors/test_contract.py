"""What every recipe of the library must do, on every kind of layer that it serves."""

import copy
import io
import pickle
import re

import pytest
import torch
from torch import nn

import injectors
from brevq.graph import calibrating
from brevq.inject import check, explain
from brevq.nn import QuantConv1d, QuantConv2d, QuantConv3d, QuantIdentity, QuantLinear, QuantReLU
from brevq.quant_tensor import QuantTensor
from brevq.quantizer import Quantizer
from injectors import bases

WEIGHT_LAYERS = {
    "linear": (lambda **quant: QuantLinear(6, 4, **quant), (5, 6)),
    "conv1d": (lambda **quant: QuantConv1d(3, 4, 3, **quant), (2, 3, 9)),
    "conv2d": (lambda **quant: QuantConv2d(3, 4, 3, **quant), (2, 3, 7, 7)),
    "conv3d": (lambda **quant: QuantConv3d(3, 4, 3, **quant), (2, 3, 5, 5, 5)),
}
ACTIVATION_LAYERS = {
    "identity": (QuantIdentity, (5, 6)),
    "relu": (QuantReLU, (5, 6)),
}


class Sums(nn.Module):
    """What truncation recipes are for: sums of four quantized values, cut to fewer bits."""

    def __init__(self, trunc_quant, return_quant_tensor=False):
        super().__init__()
        self.input_quant = Quantizer(injectors.Int8ActPerTensor, {})
        self.trunc_quant = Quantizer(trunc_quant, {})
        self.return_quant_tensor = return_quant_tensor

    def forward(self, x):
        quantized = self.input_quant(x)
        sums = quantized.value.unfold(-1, 4, 1).sum(dim=-1)
        grid = (quantized.scale, quantized.zero_point, quantized.bit_width + 2, torch.tensor(quantized.signed))
        truncated = self.trunc_quant(sums, *grid)
        return truncated if self.return_quant_tensor else truncated.value


def needs_input(recipe):
    """What a weight recipe that suits the integers of its input needs beside it."""
    return {"input_quant": injectors.Int8ActPerTensor} if "A2Q" in recipe.__name__ else {}


def cases():
    """Each recipe with each kind of layer that it serves: name, constructor, input shape."""
    for name in injectors.__all__:
        recipe = getattr(injectors, name)
        if recipe.role == "truncation":
            yield pytest.param(lambda recipe=recipe: Sums(recipe), (5, 16), id=f"{name}-sums")
            continue
        for kind, (layer, shape) in WEIGHT_LAYERS.items():
            quant = {
                "weight": {"weight_quant": recipe, **needs_input(recipe)},
                "bias": {"bias_quant": recipe, "input_quant": injectors.Int8ActPerTensor},
                "activation": {"input_quant": recipe, "output_quant": recipe},
            }[recipe.role]
            yield pytest.param(lambda layer=layer, quant=quant: layer(**quant), shape, id=f"{name}-{kind}")
        if recipe.role == "activation":
            for kind, (layer, shape) in ACTIVATION_LAYERS.items():
                make = lambda layer=layer, recipe=recipe: layer(act_quant=recipe)  # noqa: E731
                yield pytest.param(make, shape, id=f"{name}-{kind}")


CASES = list(cases())
RECIPES = [pytest.param(getattr(injectors, name), id=name) for name in injectors.__all__]


def quantizers(layer):
    """The quantizers of a layer, by the argument that they came from."""
    return {name: child for name, child in layer.named_children() if name.endswith("_quant")}


def calibrated(make, shape):
    """A layer in evaluation whose activations have seen some data, and an input."""
    layer, x = make().eval(), torch.randn(shape)
    with calibrating(layer):
        layer(x)
    return layer, x


@pytest.mark.parametrize(("make", "shape"), CASES)
def test_forward_lies_on_the_grid(make, shape):
    """Every tensor that a layer quantizes lies on the grid that its quantizer states."""
    layer, x = calibrated(make, shape)
    if not hasattr(layer, "weight"):
        layer.return_quant_tensor = True
        assert layer(x).is_valid
        return
    assert layer(x).isfinite().all()
    for name, quantizer in quantizers(layer).items():
        if name == "weight_quant":
            assert layer.quant_weight().is_valid
        elif name == "bias_quant":
            assert layer.quant_bias().is_valid
        else:
            assert quantizer(x).is_valid


@pytest.mark.parametrize(("make", "shape"), CASES)
def test_every_parameter_gets_a_finite_gradient(make, shape):
    """One step of training gives all parameters a finite gradient: weights and biases one that is not zero."""
    layer, x = make().train(), torch.randn(shape, requires_grad=True)
    if getattr(layer, "bias_quant", None) is not None:
        layer.bias.data.mul_(1e-4)  # within 8 bits of the accumulator's grid: what is clipped gets no gradient
    layer(x).square().sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    for name, parameter in layer.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), name
    for parameter in (getattr(layer, "weight", None), getattr(layer, "bias", None)):
        assert parameter is None or parameter.grad.abs().sum() > 0


@pytest.mark.parametrize(("make", "shape"), CASES)
def test_state_goes_round(make, shape):
    """The state of a trained and calibrated layer loads, strictly, into a fresh one, which then computes the same."""
    layer, x = calibrated(make, shape)
    fresh = make().eval()
    fresh.load_state_dict(layer.state_dict(), strict=True)
    assert torch.equal(layer(x), fresh(x))
    assert {k: v.tolist() for k, v in layer.state_dict().items()} == {
        k: v.tolist() for k, v in fresh.state_dict().items()
    }


@pytest.mark.parametrize(("make", "shape"), CASES)
def test_keys_are_fixed_at_construction(make, shape):
    """Neither data nor training changes the keys of the state."""
    layer = make()
    before = list(layer.state_dict())
    layer.train()(torch.randn(shape, requires_grad=True)).sum().backward()
    assert before == list(layer.state_dict())


@pytest.mark.parametrize(("make", "shape"), CASES)
def test_copies_compute_the_same(make, shape):
    """A deep copy, a pickled copy and one that `torch.save` wrote compute what the layer computes."""
    layer, x = calibrated(make, shape)
    expected = layer(x)
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    assert torch.equal(expected, copy.deepcopy(layer)(x))
    assert torch.equal(expected, pickle.loads(pickle.dumps(layer))(x))
    assert torch.equal(expected, torch.load(file, weights_only=False)(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize(("make", "shape"), CASES)
def test_other_dtypes_keep_their_dtype(make, shape, dtype):
    """A model in another dtype returns that dtype, its scales stay float32, and its codes are those of the formula."""
    layer, x = calibrated(make, shape)
    layer, x = layer.to(dtype), x.to(dtype)
    assert dtype == layer(x).dtype
    for quantizer in quantizers(layer).values():
        tensors = [*quantizer.parameters(), *quantizer.buffers()]
        assert {torch.float32} == {tensor.dtype for tensor in tensors if tensor.is_floating_point()}


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe_is_documented(recipe):
    """A recipe says what it is in one line, and gives its source."""
    first, *_ = recipe.__doc__.splitlines()
    assert ": " in first or first.endswith(".")
    assert "Source: " in recipe.__doc__


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe_has_no_faults(recipe):
    """`check` finds nothing, and `explain` draws every name that the recipe uses, from `tensor_quant` down."""
    check(recipe)
    lines = explain(recipe).lines
    assert "tensor_quant" == lines[0].name
    assert {"default of"} >= {line.origin[:10] for line in lines if line.name not in recipe}


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe_travels(recipe):
    """A recipe, and one derived from it, are themselves again after pickling and copying."""
    derived = recipe.let(quant_delay_steps=3)
    assert recipe is pickle.loads(pickle.dumps(recipe))
    assert recipe is copy.deepcopy(recipe)
    assert derived is pickle.loads(pickle.dumps(derived))


@pytest.mark.parametrize("recipe", [r for r in RECIPES if r.values[0].role != "bias"])
def test_zeros_stay_zeros(recipe):
    """An all-zero tensor gives finite values, and zeros on every grid that has a zero."""
    if recipe.role == "weight":
        layer = QuantLinear(6, 4, weight_quant=recipe, **needs_input(recipe))
        nn.init.zeros_(layer.weight)
        layer(torch.randn(5, 6))
        value = layer.quant_weight().value
    else:
        layer = Sums(recipe) if recipe.role == "truncation" else QuantIdentity(act_quant=recipe)
        value = layer(torch.zeros(5, 6))
    has_zero = "Binary" not in recipe.__name__
    assert value.isfinite().all()
    assert not has_zero or value.abs().sum() == 0


@pytest.mark.parametrize("recipe", RECIPES)
def test_name_tells_the_bits(recipe):
    """The number in a recipe's name is its bit width."""
    number = re.search(r"\d+", recipe.__name__)
    assert "bit_width" not in recipe or number is None or int(number[0]) == recipe.bit_width


@pytest.mark.parametrize("name", ["Int8WeightPerTensorPoT", "Int4WeightPerChannelPoT", "Uint8ActPerTensorPoT"])
def test_power_of_two_scales_are_powers_of_two(name):
    """A recipe whose name ends in PoT has scales that are powers of two."""
    recipe = getattr(injectors, name)
    layer = QuantLinear(6, 4, weight_quant=recipe) if recipe.role == "weight" else QuantReLU(act_quant=recipe)
    quant = layer.quant_weight() if recipe.role == "weight" else layer.act_quant(torch.rand(50))
    assert isinstance(quant, QuantTensor)
    mantissa, _ = torch.frexp(quant.scale.detach())
    assert (mantissa == 0.5).all()


@pytest.mark.parametrize("name", ["IntParts", "IntWeight", "IntAct", "IntBias"])
def test_base_is_documented(name):
    """A base that a user subclasses says what is left to declare, its formula, and its source."""
    text = getattr(bases, name).__doc__
    assert [True, True, True] == [word in text for word in ("Left to declare: ", "scale = ", "Source: ")]
