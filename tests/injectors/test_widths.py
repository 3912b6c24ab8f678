"""Floating-point recipes by their widths: what each does to values, and how a mantissa is learned."""

import math

import numpy as np
import pytest
import torch

from brevq.core.bit_width import BitWidthConst, BitWidthMutable
from brevq.core.formats import FloatFormat
from brevq.inject import check
from brevq.loss import BitWidthLoss, weights_by_size
from brevq.nn import QuantLinear
from injectors import Fp8e4m3ActPerTensor, Fp8e4m3WeightPerTensor, Fp8e4m3WeightPerTensorLearnedBits

X = np.random.default_rng(23).normal(size=(4, 16)).astype(np.float32)


def layer_of(recipe, **overrides):
    layer = QuantLinear(16, 4, weight_quant=recipe, **overrides)
    layer.weight.data = torch.tensor(X)
    return layer


def nearest(v, mantissa, bias, top):
    """The number of a format nearest to `v`, from scratch: steps of its binade, or of the smallest normal one."""
    if v == 0:
        return 0.0
    exponent = max(math.frexp(abs(v))[1] - 1, 1 - bias)
    step = 2.0 ** (exponent - mantissa)
    return max(-top, min(top, round(v / step) * step))


@pytest.mark.parametrize(("exponents", "mantissa"), [(4, 3), (5, 2), (2, 3), (3, 0), (1, 6), (8, 7)])
@pytest.mark.parametrize("recipe", [Fp8e4m3WeightPerTensor, Fp8e4m3ActPerTensor])
def test_widths_are_names(recipe, exponents, mantissa):
    """Widths make the format: as many bits, all codes being finite numbers, and the usual bias."""
    derived = recipe.let(exponent_bit_width=exponents, mantissa_bit_width=mantissa)
    check(derived)
    assert FloatFormat(f"e{exponents}m{mantissa}", exponents, mantissa) == derived.float_format
    biased = derived.let(exponent_bias=2)
    check(biased)
    assert FloatFormat(f"e{exponents}m{mantissa}", exponents, mantissa, bias=2) == biased.float_format


@pytest.mark.parametrize(("exponents", "mantissa"), [(4, 3), (5, 2), (2, 3), (3, 0), (1, 6)])
def test_values_by_widths(exponents, mantissa):
    """A weight becomes the nearest number that exponent and mantissa of these widths can express."""
    overrides = {"weight_exponent_bit_width": exponents, "weight_mantissa_bit_width": mantissa}
    weight = layer_of(Fp8e4m3WeightPerTensor, **overrides).quant_weight()
    bias = 2 ** (exponents - 1) - 1
    top = 2.0 ** (2**exponents - 1 - bias) * (2 - 2.0**-mantissa)
    scale = np.float32(np.abs(X).max() / np.float32(top))
    codes = [nearest(float(v), mantissa, bias, top) for v in (X / scale).reshape(-1)]
    assert (np.float32(codes) * scale).tolist() == weight.value.flatten().tolist()
    assert (scale, 1 + exponents + mantissa) == (weight.scale.item(), weight.bit_width.item())


@pytest.mark.parametrize("kept", [0, 1, 2, 3])
@pytest.mark.parametrize("kind", [BitWidthConst, BitWidthMutable, None])
def test_a_cut_mantissa_is_that_of_the_format_of_that_width(kind, kept):
    """The format with its mantissa cut, constant, changed at run time or learned, is the one of the smaller width."""
    recipe = Fp8e4m3WeightPerTensorLearnedBits
    cut = layer_of(recipe if kind is None else recipe.let(bit_width_impl=kind, bit_width=8))
    bits = cut.weight_quant.tensor_quant.bit_width_impl
    if kind is None:
        bits.offset.data.fill_(float(kept))
    elif kind is BitWidthMutable:
        bits.set(5 + kept)
    else:
        cut = layer_of(recipe.let(bit_width_impl=kind, bit_width=5 + kept))
    plain = layer_of(Fp8e4m3WeightPerTensor, weight_mantissa_bit_width=kept).quant_weight()
    weight = cut.quant_weight()
    assert (plain.scale.item(), plain.bit_width.item()) == (weight.scale.item(), weight.bit_width.item())
    assert plain.value.tolist() == weight.value.tolist()
    assert weight.is_valid


def test_gradient_of_a_learned_mantissa():
    """One bit more halves the distances between numbers, and moves the largest number, and so the scale."""
    layer = layer_of(Fp8e4m3WeightPerTensorLearnedBits)
    (offset,) = layer.weight_quant.parameters()
    offset.data.fill_(2.0)
    weights = np.random.default_rng(24).normal(size=X.shape).astype(np.float32)
    (layer.quant_weight().value * torch.tensor(weights)).sum().backward()
    top = 2.0**8 * (2 - 2.0**-2)
    scale = float(np.abs(X).max()) / top
    top_slope = math.log(2) * 2.0**8 * 2.0**-2
    scale_slope = -scale / top * top_slope
    slopes = []
    for v, weight in zip(X.reshape(-1).tolist(), weights.reshape(-1).tolist(), strict=True):
        x = v / scale
        step = 2.0 ** (max(math.frexp(abs(x))[1] - 1, -6) - 2)
        whole = round(x / step)
        # Of codes in their own steps; the largest value is on the end of the range, and stays there.
        to_step = -math.log(2) * step * (whole - x / step)
        to_scale = whole * step - x
        slopes.append(weight * (0.0 if abs(x) >= top else to_step * scale + to_scale * scale_slope))
    # A float32 sum of 64 products.
    assert pytest.approx(math.fsum(slopes), rel=2**-14) == offset.grad.item()


def test_a_loss_counts_all_bits_of_a_float():
    """The loss on bit widths has sign and exponent in it, and takes the mantissa down to none, and no further."""
    layer = layer_of(Fp8e4m3WeightPerTensorLearnedBits)
    optimizer = torch.optim.SGD(layer.weight_quant.parameters(), lr=0.5)
    with BitWidthLoss(layer, weights_by_size) as bits:
        start = bits().item()
        for _ in range(6):
            optimizer.zero_grad()
            bits().backward()
            optimizer.step()
        assert (8.0, 5.0, 5.0) == (start, bits().item(), layer.quant_weight().bit_width.item())


def test_a_task_asks_for_more_bits():
    """The error of quantization lets the mantissa grow."""
    layer = layer_of(Fp8e4m3WeightPerTensorLearnedBits)
    (offset,) = layer.weight_quant.parameters()
    offset.data.fill_(1.0)
    (layer.quant_weight().value - layer.weight.detach()).square().sum().backward()
    assert offset.grad.item() < 0
