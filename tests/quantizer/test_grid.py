"""What checkpoints say of grids."""

import pytest
import torch

import injectors
from brevq.core.formats import FloatFormat
from brevq.errors import ArgumentError
from brevq.nn import QuantIdentity, QuantLinear
from brevq.quantizer import Grid


def grid_of(recipe):
    """The grid of a weight of shape (8, 32)."""
    return Grid.read(QuantLinear(32, 8, weight_quant=recipe).weight_quant.grid)


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        (injectors.Int8WeightPerTensor, "signed narrow 8 bits"),
        (injectors.ShiftedUint8WeightPerTensor, "unsigned 8 bits"),
        (injectors.Fp8e4m3OCPWeightPerTensor, "signed 8-bit floats with 4 exponent bits of bias 7"),
        (injectors.Fp8e4m3FNUZWeightPerTensor, "signed 8-bit floats with 4 exponent bits of bias 8"),
        (injectors.MXFp4Weight, "signed 4-bit floats with 2 exponent bits of bias 1 in groups of 32"),
        (injectors.NVFP4Weight, "signed 4-bit floats with 2 exponent bits of bias 1 in groups of 16"),
    ],
)
def test_grids_are_told_in_words(recipe, words):
    """Each grid is told apart from others by bits, sign, range, exponent, bias and size of groups."""
    assert words == str(grid_of(recipe))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (injectors.MXFp4Weight, injectors.NVFP4Weight),
        (injectors.Fp8e4m3OCPWeightPerTensor, injectors.Fp8e4m3FNUZWeightPerTensor),
        (injectors.Int8WeightPerTensor, injectors.Int8WeightPerTensor.let(bit_width=4)),
    ],
)
def test_checkpoints_of_other_grids_are_refused(ours, theirs):
    """A checkpoint of another format, block size or bit width is refused, with both grids in words."""
    one, other = (QuantLinear(32, 8, weight_quant=recipe) for recipe in (ours, theirs))
    with pytest.raises(RuntimeError) as error:
        one.load_state_dict(other.state_dict())
    assert f"weight_quant is quantized to {grid_of(ours)}, and the checkpoint to {grid_of(theirs)}" in str(error.value)


def test_other_versions_are_refused():
    """A checkpoint of a version that is not known is refused, and says who can read it."""
    layer = QuantIdentity()
    state = layer.state_dict()
    state["act_quant.grid"][0] = 99
    with pytest.raises(RuntimeError) as error:
        layer.load_state_dict(state)
    assert (
        "act_quant is of version 99 of the format of checkpoints, and this brevq reads version 1: "
        "load it with the brevq that wrote it"
    ) in str(error.value)


def test_a_sign_that_contradicts_the_format_is_refused():
    """A recipe that calls a signed format unsigned is refused by name."""
    recipe = injectors.Fp8e4m3OCPWeightPerTensor.let(signed=False)
    with pytest.raises(ArgumentError) as error:
        QuantLinear(4, 4, weight_quant=recipe)
    assert str(error.value) == (
        f"{recipe.__name__} says `signed` (=False), and its format fp8_e4m3 is signed: leave `signed` to the format"
    )


def test_unsigned_formats_of_weights_are_refused():
    """Weights on an unsigned floating-point grid would lose their negative half."""
    unsigned = FloatFormat("u", 5, 3, signed=False)
    recipe = injectors.Fp8e4m3OCPWeightPerTensor.let(float_format=unsigned, signed=False)
    with pytest.raises(ArgumentError, match="all negative weights would become zero"):
        QuantLinear(4, 4, weight_quant=recipe)


@pytest.mark.parametrize("recipe", [injectors.MXInt8Act, injectors.Int8ActPerTensorPoT])
def test_finite_halves_stay_finite(recipe):
    """A grid point beyond float16 becomes its largest number; infinities of the input stay on the grid's edge."""
    x = torch.full((1, 32), -65504.0, dtype=torch.float16)
    assert (-65504.0, torch.float16) == (QuantIdentity(act_quant=recipe)(x).min().item(), x.dtype)
