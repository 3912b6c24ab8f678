"""Signed codes with a zero-point: the values of unsigned ones, on codes that are half a range lower."""

import pytest
import torch

import injectors
from brevq.core.function_wrapper import (
    FloorSte,
    LearnedRoundHardSigmoid,
    LearnedRoundIdentity,
    LearnedRoundSigmoid,
    LearnedRoundSte,
    StochasticRoundSte,
)
from brevq.core.restrict_val import PowerOfTwoRestrictValue
from brevq.graph import calibrating
from brevq.nn import QuantIdentity, QuantLinear
from injectors import ShiftedUint8WeightPerChannel, ShiftedUint8WeightPerTensor

KINDS = ["WeightPerTensor", "WeightPerChannel", "ActPerTensor"]


def quantized(recipe, x):
    """A quantized tensor, as a weight or as an activation whose range was observed."""
    if recipe.role == "weight":
        layer = QuantLinear(x.shape[1], x.shape[0], weight_quant=recipe)
        layer.weight.data = x
        return layer.quant_weight()
    layer = QuantIdentity(act_quant=recipe, return_quant_tensor=True).eval()
    with calibrating(layer):
        layer(x)
    return layer(x)


@pytest.mark.parametrize("parts", [{}, {"narrow_range": True}, {"restrict_scaling_impl": PowerOfTwoRestrictValue}])
@pytest.mark.parametrize("kind", KINDS)
def test_values_are_those_of_the_unsigned_recipe(kind, parts):
    """Values and scales are equal, codes and zero-points are lower by 128, or by 127 on narrow grids."""
    x = torch.randn(4, 32, generator=torch.Generator().manual_seed(4)) + 0.5
    unsigned_parts = dict(parts)
    if "restrict_scaling_impl" in parts:
        parts = {**parts, "power_of_two_steps": True}
    signed = quantized(getattr(injectors, f"ShiftedInt8{kind}").let(**parts), x)
    unsigned = quantized(getattr(injectors, f"ShiftedUint8{kind}").let(**unsigned_parts), x)
    offset = 127 if "narrow_range" in parts else 128
    assert torch.equal(unsigned.scale, signed.scale)
    assert torch.equal(unsigned.zero_point - offset, signed.zero_point)
    assert torch.equal(unsigned.int().int() - offset, signed.int().int())
    assert torch.equal(unsigned.value, signed.value)


ROUNDINGS = {
    "stochastic": {"float_to_int_impl": StochasticRoundSte},
    "floor": {"float_to_int_impl": FloorSte},
    **{
        impl.__name__: {"float_to_int_impl": LearnedRoundSte, "learned_round_impl": impl}
        for impl in (LearnedRoundHardSigmoid, LearnedRoundIdentity, LearnedRoundSigmoid)
    },
}


@pytest.mark.parametrize("base", [ShiftedUint8WeightPerTensor, ShiftedUint8WeightPerChannel])
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_zero_points_are_rounded_to_nearest(base, rounding):
    """However weights are rounded, their zero-point is the nearest code, always the same."""
    x = torch.randn(4, 32, generator=torch.Generator().manual_seed(5))
    layer = QuantLinear(32, 4, weight_quant=base.let(**ROUNDINGS[rounding]))
    layer.weight.data = x
    low = x.min() if base is ShiftedUint8WeightPerTensor else x.amin(dim=1, keepdim=True)
    for _ in range(5):
        weight = layer.quant_weight()
        assert torch.equal(torch.round(-low / weight.scale), weight.zero_point)


def test_a_stochastic_shifted_weight_is_unbiased():
    """The mean of many draws is the weight itself, which a zero-point drawn at random would only blur."""
    x = torch.randn(4, 32, generator=torch.Generator().manual_seed(6))
    layer = QuantLinear(32, 4, weight_quant=ShiftedUint8WeightPerTensor.let(float_to_int_impl=StochasticRoundSte))
    layer.weight.data = x
    torch.manual_seed(7)
    draws = torch.stack([layer.quant_weight().value.detach() for _ in range(400)])
    step = layer.quant_weight().scale.item()
    inside = (x > x.min() + step) & (x < x.max() - step)
    # The mean of 400 draws deviates by at most 1/2 / 20 of a step; 6 of those.
    assert ((draws.mean(dim=0) - x).abs() <= 6 * step / 40)[inside].all()
    # Two neighbours, and not three.
    assert (draws.amax(dim=0) - draws.amin(dim=0)).max().item() == pytest.approx(step, rel=2**-10)
