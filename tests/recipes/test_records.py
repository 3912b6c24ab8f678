"""What is told of recipes is what they build."""

import pytest

import injectors
from brevq.core.function_wrapper import PerChannel
from brevq.core.quant import IntQuant
from brevq.errors import ArgumentTypeError, RecipeError
from brevq.inject import Injector
from brevq.quantizer import Quantizer
from brevq.recipes import Record, describe
from injectors.bases import ActQuant, IntWeight

SUPPLIED = {"tensor_shape": (64, 64), "channel_axis": 0}


@pytest.mark.parametrize("name", injectors.__all__)
def test_bits_and_sign_are_those_of_the_quantizer(name):
    """Bits and sign are those on the grid of the quantizer that the recipe builds."""
    recipe = getattr(injectors, name)
    record = describe(recipe)
    quantizer = Quantizer(recipe, SUPPLIED)
    learned = quantizer.grid[1].item() == 0
    assert record.learned_bits == learned
    assert record.bits == (recipe.bit_width if learned else quantizer.grid[1].item())
    assert record.signed in (None, quantizer.signed)
    assert (record.signed is None) == (recipe.role == "truncation")


def test_all_that_is_told():
    """A record has the names under which a recipe is found, and what it is."""
    record = describe(injectors.MXFp4Weight, "MXFp4Weight", "stock", "injectors")
    assert (
        Record(
            library="stock",
            name="MXFp4Weight",
            path="injectors:MXFp4Weight",
            role="weight",
            format="mxfp4",
            bits=4,
            learned_bits=False,
            bits_with_scales=4.25,
            signed=True,
            granularity="block of 32",
            scale="BlockScaling: e8m0 (floor)",
            doc="Weights in OCP MXFP4 (E2M1): 32 weights share ``scale = 2 ** (floor(log2 max |w|) - 2)``.\n\n"
            "Source: OCP Microscaling Formats Specification, version 1.0, sections 5 and 6.3.",
        )
        == record
    )
    assert "stock:MXFp4Weight" == record.prefixed
    assert "Weights in OCP MXFP4 (E2M1): 32 weights share" == record.summary[:45]
    assert "OCP Microscaling Formats Specification, version 1.0, sections 5 and 6.3" == record.source


@pytest.mark.parametrize(
    ("recipe", "told"),
    [
        ("Int8WeightPerTensor", "int8"),
        ("Uint4ActPerTensor", "uint4"),
        ("ShiftedUint8WeightPerChannel", "uint8"),
        ("BinaryWeightPerTensor", "binary"),
        ("BinaryActPerTensor", "binary"),
        ("TernaryWeightPerTensor", "ternary"),
        ("Int32Bias", "int32"),
        ("Int8Trunc", "int8"),
        ("Fp8e4m3FNUZWeightPerTensor", "fp8_e4m3fnuz"),
        ("Int4WeightPerTensorDecoupled", "int4"),
        ("NVFP4Act", "nvfp4"),
    ],
)
def test_format(recipe, told):
    """The format is told in a word."""
    assert told == describe(getattr(injectors, recipe)).format


def test_derived_recipe():
    """A derived recipe, which nothing has under its name, is told with what was overridden."""
    record = describe(injectors.Int8WeightPerTensor.let(bit_width=3, granularity_impl=PerChannel))
    assert ("", "", 3, "int3", "channel") == (
        record.library,
        record.path,
        record.bits,
        record.format,
        record.granularity,
    )


class NoBits:
    """A core quantizer that keeps no bits, and gives no documentation to its recipe."""

    def __call__(self, x):
        return x


def test_parts_that_tell_nothing():
    """What a part of another's making does not tell is left open."""
    record = describe(Injector.let(tensor_quant=NoBits))
    assert (None, None, "nobits") == (record.role, record.bits, record.format)


def test_bits_that_wait_for_a_layer():
    """Where only a layer can give what a part asks for, the bits are left open."""

    class FromInput(ActQuant):
        """As many bits as the input has, and a line more."""

        tensor_quant = IntQuant
        float_to_int_impl = None
        signed = True
        narrow_range = False

    assert describe(FromInput).bits is None


def test_faults():
    """A recipe that can not be built is refused with its faults, and so is what is no recipe."""
    with pytest.raises(RecipeError, match="Nothing provides `bit_width`"):
        describe(IntWeight)
    with pytest.raises(ArgumentTypeError, match="must be a recipe"):
        describe(dict)
