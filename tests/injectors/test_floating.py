"""Recipes for floating-point and block formats: what each computes, and what every recipe must do."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn

import injectors
from brevq.core.formats.catalogue import BLOCK_FORMATS, FORMATS, MXFP4
from brevq.errors import ArgumentError
from brevq.graph import calibrating
from brevq.inject import check, explain
from brevq.nn import QuantConv2d, QuantIdentity, QuantLinear
from injectors import block

#: The recipes for number formats and block formats that are not learned, searched for, or declared by their widths.
RECIPES = {
    name: getattr(injectors, name)
    for name in injectors.__all__
    if hasattr(getattr(injectors, name), "float_format")
    and not name.endswith(("MSE", "LearnedBits", "PerBlock"))
    and not name.startswith("Fp8e4m3WeightPer")
    and name != "Fp8e4m3ActPerTensor"
}
#: What recipes for scaled formats have in their names, and what of a tensor of 6 by 50 shares a scale: rows in all.
GRANULARITIES = {
    "WeightPerTensor": (1, 300),
    "WeightPerChannel": (6, 50),
    "WeightPerGroup": (6, 2, 32),
    "ActPerTensor": (1, 300),
    "ActPerTokenDynamic": (6, 50),
    "ActPerGroupDynamic": (6, 1, 128),
}
#: The format of a recipe, by what its name starts with.
BY_NAME = {
    "Fp8e4m3OCP": "fp8_e4m3",
    "Fp8e5m2OCP": "fp8_e5m2",
    "Fp8e4m3FNUZ": "fp8_e4m3fnuz",
    "Fp8e5m2FNUZ": "fp8_e5m2fnuz",
    "Fp8e5m3": "fp8_e5m3",
    "Fp6e3m2": "fp6_e3m2",
    "Fp6e2m3": "fp6_e2m3",
    "Fp4e2m1": "fp4_e2m1",
    "Bf16": "bfloat16",
    "Fp16": "float16",
    "MXFp8e4m3": "mxfp8_e4m3",
    "MXFp8e5m2": "mxfp8_e5m2",
    "MXFp6e3m2": "mxfp6_e3m2",
    "MXFp6e2m3": "mxfp6_e2m3",
    "MXFp4": "mxfp4",
    "MXInt8": "mxint8",
    "NVFP4": "nvfp4",
    "BFP16": "bfp16",
    "MX9": "mx9",
    "MX6": "mx6",
}
LAYERS = {
    "linear": (lambda **quant: QuantLinear(37, 4, **quant), (5, 37)),
    "conv": (lambda **quant: QuantConv2d(3, 4, 3, **quant), (2, 3, 7, 9)),
}


def cases():
    """Each recipe with each kind of layer that it serves: constructor and input shape."""
    for name, recipe in RECIPES.items():
        for kind, (layer, shape) in LAYERS.items():
            role = "weight_quant" if recipe.role == "weight" else "input_quant"
            yield pytest.param(lambda layer=layer, quant={role: recipe}: layer(**quant), shape, id=f"{name}-{kind}")
        if recipe.role == "activation":
            yield pytest.param(lambda recipe=recipe: QuantIdentity(act_quant=recipe), (5, 37), id=f"{name}-identity")


CASES = list(cases())


def calibrated(make, shape):
    """A layer in evaluation whose activations have seen some data, and an input."""
    layer, x = make().eval(), torch.randn(shape)
    with calibrating(layer):
        layer(x)
    return layer, x


def quantized(recipe, x):
    """What a recipe makes of `x`: a weight of two dimensions, or an activation that was calibrated with it."""
    if recipe.role == "weight":
        layer = QuantLinear(x.shape[1], x.shape[0], bias=False, weight_quant=recipe)
        layer.weight.data.copy_(x)
        return layer.quant_weight()
    layer = QuantIdentity(act_quant=recipe).eval()
    with calibrating(layer):
        layer(x)
    return layer.act_quant(x)


def test_every_format_has_its_recipes():
    """Every format that is for tensors has a recipe for weights, and every block format one for activations."""
    assert {*BLOCK_FORMATS, *FORMATS} - {"e8m0"} == set(BY_NAME.values())
    scaled = {name for name in BY_NAME if name.startswith("Fp") and name != "Fp16"}
    expected = {f"{name}{granularity}" for name in scaled for granularity in GRANULARITIES}
    expected |= {f"{name}{role}" for name in set(BY_NAME) - scaled for role in ("Weight", "Act")}
    # E5M3 has no sign, and weights have two.
    assert {name for name in expected if not name.startswith("Fp8e5m3Weight")} == set(RECIPES)


@pytest.mark.parametrize("name", [name for name in RECIPES if hasattr(block, name)])
def test_blocks_are_those_of_the_format(name):
    """Values are those of the format's own cast along the last axis, and codes decode to them."""
    format_ = BLOCK_FORMATS[BY_NAME[name.removesuffix("Weight").removesuffix("Act")]]
    x = torch.randn(6, 50) * torch.exp(torch.randn(6, 50))
    actual = quantized(RECIPES[name], x)
    assert torch.equal(format_.cast(x), actual.value)
    assert torch.equal(format_.element.decode(format_.encode(x).element), format_.element.decode(actual.int()))


@pytest.mark.parametrize(
    ("name", "granularity"),
    [(name, granularity) for name in BY_NAME for granularity in GRANULARITIES if name + granularity in RECIPES],
)
def test_scale_of_floats(name, granularity):
    """The scale takes the largest absolute value of what shares it to the format's largest number."""
    format_, shape = FORMATS[BY_NAME[name]], GRANULARITIES[granularity]
    x = torch.randn(6, 50) if format_.signed else torch.rand(6, 50)
    missing = torch.Size(shape[1:]).numel() - x.numel() // shape[0]
    rows = nn.functional.pad(x.reshape(shape[0], -1), (0, missing)).reshape(shape)
    scale = rows.abs().amax(-1, keepdim=True) / torch.tensor(format_.max)
    expected = (format_.cast(rows / scale) * scale).reshape(shape[0], -1)[:, : x.numel() // shape[0]].reshape(x.shape)
    actual = quantized(RECIPES[name + granularity], x)
    assert scale.flatten().tolist() == actual.scale.detach().flatten().tolist()
    assert torch.equal(expected, actual.value)


def test_unsigned_floats_cut_negative_values_off():
    """E5M3 has no sign: what is below zero becomes zero, and a weight is refused."""
    x = torch.tensor([-1.0, 0.5, 2.0])
    layer = QuantIdentity(act_quant=injectors.Fp8e5m3ActPerTokenDynamic)
    assert (False, [0.0, 0.5, 2.0]) == (layer.act_quant(x).signed, layer(x).tolist())
    with pytest.raises(ArgumentError, match="is unsigned and its zero-point is zero"):
        QuantLinear(3, 2, weight_quant=injectors.Fp8e4m3OCPWeightPerTensor, weight_float_format=FORMATS["fp8_e5m3"])


def test_sign_is_the_formats():
    """A recipe's sign is that of its format, whichever it is given."""
    recipe = injectors.Fp8e4m3OCPActPerTensor
    assert (True, False) == (recipe.signed, recipe.let(float_format=FORMATS["fp8_e5m3"]).signed)
    assert (True, False) == (injectors.MXInt8Act.signed, injectors.Fp8e5m3ActPerGroupDynamic.signed)


@pytest.mark.parametrize(("name", "dtype"), [("Bf16", torch.bfloat16), ("Fp16", torch.float16)])
@pytest.mark.parametrize("role", ["Weight", "Act"])
def test_casts(name, role, dtype):
    """The recipes for 16 bits are torch's casts."""
    x = torch.randn(6, 50)
    assert torch.equal(x.to(dtype).float(), quantized(RECIPES[name + role], x).value)


@pytest.mark.parametrize("rule", ["even", "ceil", "fit"])
def test_another_rule(rule):
    """A recipe with another rule for the exponent differs in one name."""
    recipe = block.MXFp4Weight.let(block_format=MXFP4.with_rule(rule))
    x = torch.randn(4, 64)
    assert torch.equal(MXFP4.with_rule(rule).cast(x), quantized(recipe, x).value)


def test_another_axis():
    """Activations of a convolution may have their blocks along the channels."""
    x = torch.randn(2, 32, 3, 3)
    layer = QuantIdentity(act_quant=block.MXFp4Act, group_axis=1)
    assert torch.equal(MXFP4.cast(x.movedim(1, -1)).movedim(-1, 1), layer(x))


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_is_sound(name):
    """A recipe has no faults, draws its wiring from `tensor_quant` down, and travels."""
    recipe = RECIPES[name]
    check(recipe)
    lines = explain(recipe).lines
    derived = recipe.let(quant_delay_steps=3)
    assert "tensor_quant" == lines[0].name
    assert {"default of"} >= {line.origin[:10] for line in lines if line.name not in recipe}
    assert (recipe, derived) == (pickle.loads(pickle.dumps(recipe)), pickle.loads(pickle.dumps(derived)))


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_is_documented(name):
    """A recipe says what it is in its first line, a sentence, and gives its source."""
    first, *_ = RECIPES[name].__doc__.splitlines()
    assert (True, True) == (first.endswith("."), "``" in RECIPES[name].__doc__ or "share" in first)


@pytest.mark.parametrize("name", RECIPES)
def test_zeros_stay_zeros(name):
    """An all-zero tensor gives zeros, and finite gradients."""
    recipe = RECIPES[name]
    layer = QuantLinear(37, 4, **{"weight_quant" if recipe.role == "weight" else "input_quant": recipe})
    nn.init.zeros_(layer.weight)
    x = torch.zeros(2, 37, requires_grad=True)
    y = layer(x)
    y.sum().backward()
    assert torch.equal(layer.bias.expand_as(y), y)
    assert layer.weight.grad.isfinite().all()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize(("make", "shape"), CASES)
def test_forward_lies_on_the_grid(make, shape):
    """Every tensor that is quantized lies on the grid that its quantizer states."""
    layer, x = calibrated(make, shape)
    assert layer(x).isfinite().all()
    quantizers = [child for name, child in layer.named_children() if name in ("input_quant", "act_quant")]
    tensors = [quantizer(x) for quantizer in quantizers if quantizer is not None]
    tensors += [layer.quant_weight()] if hasattr(layer, "quant_weight") else []
    assert [True] * len(tensors) == [tensor.is_valid for tensor in tensors]


@pytest.mark.parametrize(("make", "shape"), CASES)
def test_every_parameter_gets_a_finite_gradient(make, shape):
    """One step of training gives inputs and parameters a finite gradient: weights one that is not zero."""
    layer, x = make().train(), torch.randn(shape, requires_grad=True)
    layer(x).square().sum().backward()
    gradients = [x.grad, *(p.grad for p in layer.parameters() if p.grad is not None)]
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert x.grad.abs().sum() > 0
    assert not hasattr(layer, "weight") or layer.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(("make", "shape"), CASES)
def test_state_and_copies(make, shape):
    """State that goes into a fresh layer, a deep copy, and pickled and saved ones all compute the same."""
    layer, x = calibrated(make, shape)
    fresh = make().eval()
    keys = list(fresh.state_dict())
    fresh.load_state_dict(layer.state_dict(), strict=True)
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    copies = [fresh, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), torch.load(file, weights_only=False)]
    assert keys == list(layer.state_dict())
    assert [True] * 4 == [torch.equal(layer(x), copied(x)) for copied in copies]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize(("make", "shape"), CASES)
def test_other_dtypes_keep_their_dtype(make, shape, dtype):
    """A model in another dtype returns that dtype, and its scales stay float32."""
    layer, x = calibrated(make, shape)
    layer, x = layer.to(dtype), x.to(dtype)
    assert dtype == layer(x).dtype
    tensors = [t for name, t in [*layer.named_parameters(), *layer.named_buffers()] if "_quant." in name]
    assert {torch.float32} >= {tensor.dtype for tensor in tensors if tensor.is_floating_point()}
