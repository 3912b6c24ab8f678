"""Accumulators: codes that are cut to fewer bits, or that saturate, and what they refuse."""

import copy
import pickle

import pytest
import torch
from torch import nn

from brevq.core.phase import Phase
from brevq.errors import ArgumentError
from brevq.graph import calibrating
from brevq.nn import ClampQAccumulator, QuantIdentity, QuantLinear, TruncQAccumulator
from brevq.quant_tensor import QuantTensor, Zero
from injectors import (
    Fp8e4m3OCPActPerTensor,
    Int8ActPerTensor,
    Int8Bias,
    Int8Trunc,
    Int8TruncRound,
    Int8TruncShiftRoundSaturate,
    Int8WeightPerChannel,
    Int8WeightPerTensor,
    ShiftedUint8ActPerTensor,
)

LAYERS = [pytest.param(TruncQAccumulator, id="trunc"), pytest.param(ClampQAccumulator, id="clamp")]


def integers(codes, bits=16, signed=True, zero_point=0, scale=0.25):
    """A QuantTensor with the given codes."""
    grid = [torch.tensor(float(part)) for part in (scale, zero_point, bits)]
    values = (torch.tensor(codes, dtype=torch.float32) - grid[1]) * grid[0]
    return QuantTensor(values, *grid, signed, zero=Zero.SHIFTED if zero_point else Zero.AT_ZERO)


def accumulating(layer, **keywords):
    """A network whose last layer works on the accumulator of the one before it."""
    linear = QuantLinear(
        8, 4, weight_quant=Int8WeightPerChannel, bias=False, input_quant=Int8ActPerTensor, return_quant_tensor=True
    )
    return nn.Sequential(linear, layer(**keywords))


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [(Int8TruncRound, [-128, -1, 0, 0, 2, 127]), (Int8Trunc, [-128, -1, 0, 0, 1, 127])],
)
def test_truncated_codes_are_those_of_a_shift(recipe, expected):
    """Codes of 16 bits are divided by 256, rounded to even or down, and saturate; the scale grows as much."""
    y = TruncQAccumulator(trunc_quant=recipe, return_quant_tensor=True)(integers([-32768, -129, 0, 128, 384, 32767]))
    assert (expected, 64.0, 8) == (y.int().tolist(), y.scale.item(), y.bit_width.item())


@pytest.mark.parametrize(
    ("signed", "expected"),
    [(True, [-8, -8, -1, 0, 7, 7]), (False, [0, 0, 0, 0, 15, 15])],
)
def test_clamped_codes_saturate(signed, expected):
    """Codes beyond 4 bits become the smallest or the largest one; the scale stays, and so do all others."""
    codes = [-2000, -9, -1, 0, 15, 2000] if signed else [0, 0, 0, 0, 15, 2000]
    y = ClampQAccumulator(bit_width=4, return_quant_tensor=True)(integers(codes, signed=signed))
    assert (expected, 0.25, 4, signed) == (y.int().tolist(), y.scale.item(), y.bit_width.item(), y.signed)


def test_clamping_keeps_the_zero_point():
    """Of codes with a zero-point the codes are limited, and zero stays where it is."""
    y = ClampQAccumulator(bit_width=4, return_quant_tensor=True)(integers([0, 5, 40], 8, signed=False, zero_point=5))
    assert ([0, 5, 15], 5, [-1.25, 0.0, 2.5]) == (y.int().tolist(), y.zero_point.item(), y.value.tolist())


def test_clamping_to_more_bits_changes_no_code():
    """An accumulator of more bits than the codes need holds them as they are."""
    x = integers([-8, 3, 7], bits=4)
    y = ClampQAccumulator(return_quant_tensor=True)(x)
    assert (x.int().tolist(), 16) == (y.int().tolist(), y.bit_width.item())


def test_what_is_beyond_gets_no_gradient():
    """Codes that saturate pass no gradient, all others theirs."""
    x = integers([-2000, -9, 3, 7])
    x.value.requires_grad_()
    ClampQAccumulator(bit_width=4)(x).sum().backward()
    assert [0.0, 0.0, 1.0, 1.0] == x.value.grad.tolist()


def test_defaults():
    """By default codes are rounded to 8 bits, or limited to 16; an override says other bits."""
    trunc, clamp = TruncQAccumulator(), ClampQAccumulator()
    assert [("Int8TruncRound", 8), ("Int16Clamp", 16)] == [
        (layer.trunc_quant.recipe.__name__, layer.trunc_quant.recipe.bit_width) for layer in (trunc, clamp)
    ]
    assert 12 == ClampQAccumulator(bit_width=12).trunc_quant.recipe.bit_width


@pytest.mark.parametrize("layer", LAYERS)
def test_an_accumulator_of_a_layer(layer):
    """The accumulator of a layer, with a scale a channel, is cut on the grid that it has."""
    model, x = accumulating(layer, bit_width=10, return_quant_tensor=True).eval(), torch.randn(5, 8)
    with calibrating(model):
        model(x)
    sums, y = model[0](x), model(x)
    factor = 2 ** (sums.bit_width - 10) if layer is TruncQAccumulator else 1
    expected = (sums.int() / factor).round().clamp(-512, 511)
    assert torch.equal(expected, y.int().to(expected.dtype))
    assert torch.equal(sums.scale * factor, y.scale)


def test_an_accumulator_that_observes_its_range():
    """A recipe that observes how many bits are in use is calibrated in its layer, and copied with what it saw."""
    model, x = accumulating(TruncQAccumulator, trunc_quant=Int8TruncShiftRoundSaturate).eval(), torch.randn(50, 8)
    with calibrating(model):
        model(x)
    assert Phase.FIXED is model[1].trunc_quant.phase
    coarse = accumulating(TruncQAccumulator)
    coarse.load_state_dict({name: part for name, part in model.state_dict().items() if name.startswith("0.")}, False)
    error, coarse_error = ((each.eval()(x) - model[0](x).value).abs().mean() for each in (model, coarse))
    assert error < coarse_error
    assert torch.equal(model(x), copy.deepcopy(model)(x))


@pytest.mark.parametrize("layer", LAYERS)
def test_without_a_quantizer_it_is_identity(layer):
    """With `trunc_quant` None what comes in goes out: a plain tensor, or the grid where that is asked for."""
    x, plain = integers([3, -4]), torch.randn(3, requires_grad=True)
    assert plain is layer(trunc_quant=None)(plain)
    assert x.value is layer(trunc_quant=None)(x)
    assert x is layer(trunc_quant=None, return_quant_tensor=True)(x)


@pytest.mark.parametrize("layer", LAYERS)
def test_a_plain_tensor_is_refused(layer):
    """A plain tensor has no integers: the error names the layer, and who should produce them."""
    model = nn.Sequential(QuantIdentity(), layer())
    with pytest.raises(ArgumentError) as error:
        model(torch.randn(3))
    assert str(error.value) == (
        f"`1` ({layer.__name__}) works on integers, and its input is a plain tensor.\n"
        "Let the layer before it return them: return_quant_tensor=True. What lies between them has to keep its grid, "
        "as pooling by maximum and flatten do"
    )


def test_floating_point_codes_are_refused():
    """Codes of a floating-point format are no integers."""
    before = QuantIdentity(act_quant=Fp8e4m3OCPActPerTensor, return_quant_tensor=True)
    with pytest.raises(ArgumentError, match="A TruncQAccumulator works on integers, and its input is of the format"):
        TruncQAccumulator()(before(torch.randn(3)))


@pytest.mark.parametrize("recipe", [Int8WeightPerTensor, Int8ActPerTensor, Int8Bias])
def test_recipes_for_other_roles_are_refused(recipe):
    """A recipe that does not truncate is refused, and one that does is named."""
    with pytest.raises(ArgumentError) as error:
        ClampQAccumulator(trunc_quant=recipe)
    assert str(error.value) == (
        f"ClampQAccumulator got `trunc_quant={recipe.__name__}`, a recipe for the role {recipe.role!r}, and needs one "
        "for 'truncation', such as injectors.Int8Trunc"
    )


@pytest.mark.parametrize("layer", LAYERS)
def test_state_and_copies(layer):
    """A layer's state loads into a fresh one, and copies compute the same."""
    x, made, fresh = integers([-3000, 77, 3000]), layer(bit_width=6), layer(bit_width=6)
    fresh.load_state_dict(made.state_dict(), strict=True)
    copies = [fresh, copy.deepcopy(made), pickle.loads(pickle.dumps(made))]
    assert all(torch.equal(made(x), each(x)) for each in copies)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("layer", LAYERS)
def test_half_precision_stays(layer, dtype):
    """Values keep their dtype, and the scale is in float32."""
    y = layer(return_quant_tensor=True)(integers([-100, 77]).to(dtype))
    assert (dtype, torch.float32) == (y.value.dtype, y.scale.dtype)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("layer", LAYERS)
def test_it_compiles_without_a_break(layer, training):
    """A network with an accumulator compiles to one graph, with the numbers of eager code."""
    model, x = accumulating(layer, bit_width=9).train(training), torch.randn(5, 8)
    with calibrating(model, then="learned"):
        model(x)
    assert torch.equal(model(x), torch.compile(model, fullgraph=True, backend="aot_eager")(x))


def test_a_shifted_grid_is_cut_with_its_zero_point():
    """Codes with a zero-point are cut as they are, and the zero-point shrinks with them."""
    x = QuantIdentity(act_quant=ShiftedUint8ActPerTensor, return_quant_tensor=True)(torch.tensor([-1.0, 0.5, 3.0]))
    y = TruncQAccumulator(bit_width=4, return_quant_tensor=True)(x)
    assert torch.equal(x.zero_point / 16, y.zero_point)
    assert [min(round(code / 16), 15) for code in x.int().tolist()] == (
        (y.value / y.scale + y.zero_point).round().int().tolist()
    )
