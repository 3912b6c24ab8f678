"""What every recipe of the library must do, on every kind of layer that it serves, and what the library adds."""

import re

import pytest
import torch

import injectors
from brevq.nn import QuantLinear, QuantReLU
from brevq.quant_tensor import QuantTensor
from brevq.testing import RecipeContract
from injectors import bases

RECIPES = [pytest.param(getattr(injectors, name), id=name) for name in injectors.__all__]


class TestRecipes(RecipeContract):
    """The contract that recipes of any library have to keep."""

    recipes = tuple(getattr(injectors, name) for name in injectors.__all__)


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe_gives_its_source(recipe):
    """A recipe says where it comes from."""
    assert "Source: " in recipe.__doc__


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
