"""The contract of recipes: kept by a recipe of one's own, and broken, at the right rule, by what is not one."""

import importlib

import pytest
import torch

import injectors
from brevq.core.bit_width import BitWidthConst
from brevq.core.function_wrapper import FloorSte
from brevq.core.quant import RescalingIntQuant, TruncIntQuant
from brevq.core.restrict_val import PowerOfTwoRestrictValue
from brevq.errors import ArgumentError, RecipeError
from brevq.inject import Injector, dump
from brevq.nn import QuantLinear
from brevq.testing import Bench, ContractError, RecipeContract, benches
from injectors import Int8ActPerTensor, Int8WeightPerChannel, Int8WeightPerTensor


class Int3Weight(Int8WeightPerChannel):
    """Signed 3-bit weights, one power-of-two scale for each output channel."""

    bit_width = 3
    restrict_scaling_impl = PowerOfTwoRestrictValue


class TestInt3Weight(RecipeContract):
    """A recipe of one's own."""

    recipe = Int3Weight


class CutTo8Bits(Injector):
    """Integers cut to their 8 most significant bits."""

    role = "cutting"
    tensor_quant = TruncIntQuant
    float_to_int_impl = FloorSte
    bit_width_impl = BitWidthConst
    bit_width = 8


class TestLayersOfOnesOwn(RecipeContract):
    """A recipe, on the one layer that it is for."""

    recipe = Int3Weight

    def layers(self, recipe):
        return {"wide": Bench(lambda: QuantLinear(64, 2, weight_quant=recipe), (3, 64))}


class Undocumented(Int8WeightPerTensor):
    bit_width = 4


class Off(RescalingIntQuant):
    """Values that lie a bit beside the grid that is stated, and keep nothing of the gradient."""

    def forward(self, x):
        y, scale, zero_point, bit_width = super().forward(x)
        return (y + scale / 3).detach(), scale.detach(), zero_point, bit_width


class Beside(Int8WeightPerTensor):
    """Signed 8-bit weights that lie beside their grid."""

    tensor_quant = Off


class Growing(RescalingIntQuant):
    """A quantizer with a state that begins with the first tensor, in double precision."""

    def forward(self, x):
        self.register_buffer("last", x.detach().double().sum())
        return super().forward(x)


class Remembering(Int8WeightPerTensor):
    """Signed 8-bit weights with a state that begins with the first tensor."""

    tensor_quant = Growing


class Nothing(torch.nn.Module):
    """Zero for every number, with a straight-through gradient."""

    def forward(self, x):
        return x - x.detach()


class Turned(torch.nn.Module):
    """The integer on the other side of zero, with a straight-through gradient."""

    def forward(self, x):
        return x - x.detach() - x.detach().round()


class Still(torch.nn.Module):
    """Rounding without a gradient: only the largest weights, which scales are taken of, get one."""

    def forward(self, x):
        return x.round()


class Large(RescalingIntQuant):
    """A quantizer of numbers so large that sums of them overflow in half precision."""

    def forward(self, x):
        y, *grid = super().forward(x)
        return y * 1e9, *grid


class Overflowing(Int8WeightPerTensor):
    """Signed 8-bit weights, infinite in half precision."""

    tensor_quant = Large


def rounded_by(rounding):
    """A recipe with another rounding."""
    return Int8WeightPerChannel.let(float_to_int_impl=rounding)


def first(contract, argument):
    """The first value of an argument of the tests."""
    return next(iter(contract.parameters()[argument].values()))


def contract_of(recipe):
    """The contract of a recipe."""
    return type("TestFaulty", (RecipeContract,), {"recipe": recipe})()


BROKEN = {
    "no docstring": (Undocumented, "test_recipe_is_documented", ["a_recipe"]),
    "off the grid": (Beside, "test_forward_lies_on_the_grid", ["bench", "device"]),
    "no gradient": (Beside, "test_every_parameter_gets_a_finite_gradient", ["bench"]),
    "zeros that move": (Beside, "test_zeros_stay_zeros", ["a_recipe"]),
    "a state that grows": (Remembering, "test_keys_are_fixed_at_construction", ["bench"]),
    "a state in double": (Remembering, "test_other_dtypes_keep_their_dtype", ["bench", "dtype"]),
    "infinite in half": (Overflowing, "test_other_dtypes_keep_their_dtype", ["bench", "dtype"]),
    "nothing left": (rounded_by(Nothing), "test_quantized_values_go_along", ["bench"]),
    "turned around": (rounded_by(Turned), "test_quantized_values_go_along", ["bench"]),
    "no way through": (rounded_by(Still), "test_every_parameter_gets_a_finite_gradient", ["bench"]),
}
RULES = {
    "no docstring": "the docstring begins with a line that says what the recipe is, and ends in a full stop",
    "off the grid": "what `weight_quant` quantizes lies on the grid that it states",
    "no gradient": "the layer's weight gets a gradient that is not zero",
    "zeros that move": "zeros stay zeros",
    "a state that grows": "the keys of the state are fixed at construction",
    "a state in double": "the state of `weight_quant` stays float32",
    "infinite in half": "the output in torch.float16 is finite",
    "nothing left": "what `weight_quant` quantizes goes along with what it was given",
    "turned around": "what `weight_quant` quantizes goes along with what it was given",
    "no way through": "the gradient reaches the weights, and not only those that give the scales",
}


@pytest.mark.parametrize("case", BROKEN)
def test_faults_are_found(case):
    """A recipe that breaks a rule fails the test of that rule, which is told."""
    recipe, test, arguments = BROKEN[case]
    contract = contract_of(recipe)
    contract.setup_method()
    with pytest.raises(ContractError) as error:
        getattr(contract, test)(*(first(contract, name) for name in arguments))
    assert f"It does not hold that {RULES[case]}." == str(error.value).split("\n")[0]


def test_a_recipe_with_faults_hears_all_of_them():
    """What `check` finds is what the contract raises."""
    recipe = Int8WeightPerTensor.let(bit_width=4).let(scaling_impl=PowerOfTwoRestrictValue.encode)
    contract = contract_of(recipe)
    with pytest.raises((RecipeError, ContractError)):
        contract.test_recipe_has_no_faults(recipe)


def test_every_role_has_layers():
    """Each role of the stock recipes has layers to try it on."""
    roles = {getattr(injectors, name).role: getattr(injectors, name) for name in injectors.__all__}
    assert {
        "weight": ["linear", "conv1d", "conv2d", "conv3d"],
        "activation": ["linear", "conv1d", "conv2d", "conv3d", "identity", "relu"],
        "bias": ["linear", "conv1d", "conv2d", "conv3d"],
        "truncation": ["sums"],
    } == {role: list(benches(recipe)) for role, recipe in roles.items()}


def test_another_role_asks_for_layers():
    """A recipe for something else needs layers of its author's."""
    with pytest.raises(ArgumentError) as error:
        benches(CutTo8Bits)
    assert str(error.value) == (
        "`role` (='cutting') of CutTo8Bits must be one of weight, bias, activation, truncation: "
        "declare it, or override `layers` of the contract for layers of your own"
    )


def test_no_recipe_is_an_error():
    """A class that says nothing to be tested does not pass for it."""
    with pytest.raises(ArgumentError) as error:
        type("TestNothing", (RecipeContract,), {})().parameters()
    assert "TestNothing declares no `recipe`, and no `recipes`: one of them is tested" == str(error.value)


def test_several_recipes_are_named():
    """Tests of several recipes are told apart by the names of recipe and layer."""
    contract = type("TestTwo", (RecipeContract,), {"recipes": (Int3Weight, Int8ActPerTensor)})()
    names = list(contract.parameters()["bench"])
    assert ("Int3Weight-linear", "Int8ActPerTensor-relu", 10) == (names[0], names[-1], len(names))


def test_the_same_random_numbers():
    """Each test begins with the same random numbers, whatever ran before."""
    drawn = []
    for _ in range(2):
        contract_of(Int3Weight).setup_method()
        drawn.append(torch.rand(1).item())
    assert drawn[0] == drawn[1]


def test_recipes_of_two_libraries(distribution):
    """A recipe that is made of another installed library's goes round as text, as `load` allows that library."""
    base = "from injectors import Int8WeightPerTensor\nclass Base(Int8WeightPerTensor):\n    'A base.'\n"
    distribution("acme-base", {"acme_base": "acme_base"}, {"acme_base.py": base})
    recipe = importlib.import_module("acme_base").Base.let(bit_width=5)
    mine = type(recipe)("Mine", (recipe,), {"__module__": __name__, "__doc__": "Mine."})
    assert "acme_base:Base" in dump(mine)
    contract_of(mine).test_recipe_goes_round_as_text(mine)
