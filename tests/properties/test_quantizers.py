"""What holds for quantizers of any tensor: grids, order, signs, steps, and what shares a scale."""

import hypothesis.extra.numpy as arrays_of
import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

import injectors
from brevq.core.quant import IntQuant
from brevq.quantizer import Quantizer

settings.register_profile("brevq", derandomize=True, database=None, deadline=None, max_examples=40)
settings.load_profile("brevq")

LARGEST = float(np.finfo(np.float32).max)
#: Where a float32, a code of a grid of 16 bits times it and its inverse are normal numbers.
NORMAL = 2.0**-90, 2.0**90

#: One recipe of each way to come to a scale, each granularity and each format.
WEIGHTS = [
    injectors.Int8WeightPerTensor,
    injectors.Int4WeightPerChannel,
    injectors.Int8WeightPerGroup,
    injectors.Int4WeightPerTensorPoT,
    injectors.Int8WeightPerTensorLog,
    injectors.Int8WeightPerTensorLSQ,
    injectors.Int8WeightPerTensorTQT,
    injectors.Int8WeightPerTensorLearnedBits,
    injectors.Int4WeightPerGroupDoubleQuant,
    injectors.ShiftedUint4WeightPerChannel,
    injectors.ShiftedInt8WeightPerTensor,
    injectors.BinaryWeightPerChannel,
    injectors.TernaryWeightPerTensor,
    injectors.Fp8e4m3OCPWeightPerChannel,
    injectors.Fp4e2m1WeightPerGroup,
    injectors.MXFp6e3m2Weight,
    injectors.MXInt8Weight,
    injectors.NVFP4Weight,
]
#: Those whose scale is a constant times the largest magnitude of what shares it.
OF_THE_LARGEST = [
    injectors.Int8WeightPerTensor,
    injectors.Int4WeightPerChannel,
    injectors.Int8WeightPerGroup,
    injectors.Int4WeightPerTensorPoT,
    injectors.Fp8e4m3OCPWeightPerChannel,
    injectors.MXFp6e3m2Weight,
]
PER_TENSOR = [
    injectors.Int8WeightPerTensor,
    injectors.Int4WeightPerTensorPoT,
    injectors.Int8WeightPerTensorTQT,
    injectors.ShiftedInt8WeightPerTensor,
    injectors.Fp8e4m3OCPWeightPerTensor,
]
PER_CHANNEL = [
    injectors.Int4WeightPerChannel,
    injectors.Int8WeightPerChannelPoT,
    injectors.ShiftedUint4WeightPerChannel,
    injectors.BinaryWeightPerChannel,
    injectors.TernaryWeightPerChannel,
    injectors.Fp8e5m2OCPWeightPerChannel,
]
PER_GROUP = [
    (injectors.Int8WeightPerGroup.let(group_size=16), 16),
    (injectors.ShiftedUint4WeightPerGroup.let(group_size=16), 16),
    (injectors.Fp4e2m1WeightPerGroup.let(group_size=16), 16),
    (injectors.MXFp4Weight, 32),
    (injectors.BFP16Weight, 8),
]


def tensors(low=0.0, high=LARGEST, columns=64, dtypes=(torch.float32,)):
    """Tensors of one to three rows, of zeros and of magnitudes from `low` to `high`: a few numbers, or random ones."""
    magnitudes = st.floats(low, high, width=32, allow_subnormal=low == 0)
    elements = st.one_of(st.just(0.0), magnitudes, magnitudes.map(lambda x: -x))
    shapes = st.tuples(st.integers(1, 3), st.just(columns))
    few = arrays_of.arrays(np.float32, shapes, elements=elements, fill=st.just(0.0)).map(torch.from_numpy)
    many = st.builds(_random, shapes, magnitudes, st.integers(0, 2**32), st.just(low))
    return st.builds(lambda tensor, dtype: tensor.to(dtype), st.one_of(few, many), st.sampled_from(dtypes))


def _random(shape, largest, seed, low):
    """Normal random numbers of which the largest has magnitude `largest`; those below `low` are zero."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x = (x / x.abs().max() * largest).float()
    return torch.where(x.abs() < low, 0.0, x)


def float32s(low, high):
    """Positive numbers that float32 has, as tensors."""
    return st.floats(low, high, width=32).map(torch.tensor)


def quantized(recipe, x):
    """A tensor as a fresh quantizer of weights gives it."""
    supplies = {"tensor_shape": tuple(x.shape), "channel_axis": 0, "dtype": x.dtype, "device": x.device}
    return Quantizer(recipe, supplies)(x)


@pytest.mark.parametrize("recipe", WEIGHTS, ids=lambda recipe: recipe.__name__)
@given(x=tensors(high=2.0**122, dtypes=(torch.float32, torch.float64, torch.bfloat16)))
def test_values_lie_on_the_grid(recipe, x):
    """Whatever its size, a tensor comes out finite, in its dtype, on a grid whose codes have their bits."""
    y = quantized(recipe, x)
    assert y.value.dtype == x.dtype
    assert y.value.isfinite().all()
    assert y.scale.isfinite().all()
    assert y.is_valid
    if y.float_format is None:
        codes = 2 ** int(y.bit_width) + (recipe is injectors.BinaryWeightPerChannel)  # -1 and 1, and no zero between
        assert int(y.int().max()) - int(y.int().min()) < codes


GRIDS = st.tuples(st.booleans(), st.booleans(), st.integers(2, 16))


@given(x=tensors(*NORMAL, columns=8), scale=float32s(*NORMAL), grid=GRIDS, zero_point=st.integers(-50, 50))
def test_integer_grids(x, scale, grid, zero_point):
    """Codes fit their bits, order is kept, what was rounded stays, and in range errors are at most half a step."""
    signed, narrow, bits = grid
    int_quant = IntQuant(narrow_range=narrow, signed=signed)
    zero, bit_width = torch.tensor(float(zero_point)), torch.tensor(float(bits))
    codes = int_quant.to_int(scale, zero, bit_width, x)
    y = int_quant(scale, zero, bit_width, x)
    low = -(2 ** (bits - 1)) + narrow if signed else 0
    high = 2 ** (bits - 1) - 1 if signed else 2**bits - 1 - narrow
    assert codes.min() >= low
    assert codes.max() <= high
    assert torch.equal(codes, codes.round())
    assert torch.equal(y, (codes - zero) * scale)
    assert torch.equal(int_quant(scale, zero, bit_width, y), y)
    assert (y.flatten()[x.flatten().argsort()].diff() >= 0).all()
    exact = x.double() / scale.double() + zero
    within = (exact >= low) & (exact <= high)
    # A rounding of x / scale, and one of the sum with the zero-point.
    slack = 2.0**-23 * (exact.abs() + abs(zero_point))
    assert ((codes.double() - exact).abs() <= 0.5 + slack)[within].all()


@given(x=tensors(*NORMAL, columns=8), scale=float32s(*NORMAL), bits=st.integers(2, 16))
def test_symmetric_grids(x, scale, bits):
    """On a narrow signed grid the opposite of a value becomes the opposite of what the value becomes."""
    int_quant = IntQuant(narrow_range=True, signed=True)
    zero, bit_width = torch.tensor(0.0), torch.tensor(float(bits))
    assert torch.equal(int_quant(scale, zero, bit_width, -x), -int_quant(scale, zero, bit_width, x))


@given(x=tensors(*NORMAL, columns=8), scale=float32s(*NORMAL), grid=GRIDS)
def test_gradients_stop_where_values_are_clipped(x, scale, grid):
    """The gradient of a value is one within the range and zero beyond it."""
    signed, narrow, bits = grid
    low = -(2 ** (bits - 1)) + narrow if signed else 0
    high = 2 ** (bits - 1) - 1 if signed else 2**bits - 1 - narrow
    x.requires_grad_()
    rounded = (x / scale).detach().round()
    y = IntQuant(narrow_range=narrow, signed=signed)(scale, torch.tensor(0.0), torch.tensor(float(bits)), x)
    (y / scale).sum().backward()
    inside = (rounded >= low) & (rounded <= high)
    assert (x.grad[~inside] == 0).all()
    # That of x / scale, times the scale, over the scale.
    torch.testing.assert_close(x.grad[inside], (1 / scale).expand_as(x)[inside], rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("recipe", OF_THE_LARGEST, ids=lambda recipe: recipe.__name__)
@given(x=tensors(2.0**-20, 2.0**90), exponent=st.integers(-10, 20))  # above the floors of ranges
def test_powers_of_two_pass_through(recipe, x, exponent):
    """A tensor times a power of two comes out times that power, and so does its scale."""
    factor = 2.0**exponent
    one, other = quantized(recipe, x), quantized(recipe, x * factor)
    assert torch.equal(other.value, one.value * factor)
    nonzero = one.value.abs().amax() > 0
    assert not nonzero or torch.equal(other.scale.max(), one.scale.max() * factor)


@pytest.mark.parametrize("recipe", PER_TENSOR, ids=lambda recipe: recipe.__name__)
@given(x=tensors(*NORMAL), order=st.permutations(range(64)))
def test_order_does_not_matter_to_a_tensor(recipe, x, order):
    """Where all values share a scale, each comes out the same wherever it stands."""
    one, other = quantized(recipe, x), quantized(recipe, x[:, order])
    assert torch.equal(other.value, one.value[:, order])
    assert torch.equal(other.scale, one.scale)


@pytest.mark.parametrize("recipe", PER_CHANNEL, ids=lambda recipe: recipe.__name__)
@given(x=tensors(*NORMAL), other=tensors(*NORMAL))
def test_channels_know_nothing_of_each_other(recipe, x, other):
    """A channel comes out as it does alone, whatever is beside it."""
    both = quantized(recipe, torch.cat([x, other]))
    assert torch.equal(both.value[: len(x)], quantized(recipe, x).value)
    assert torch.equal(both.scale[len(x) :], quantized(recipe, other).scale)


@pytest.mark.parametrize(("recipe", "size"), PER_GROUP, ids=lambda part: getattr(part, "__name__", part))
@given(x=tensors(*NORMAL), number=st.floats(-(2.0**90), 2.0**90, width=32), place=st.integers(0, 63))
def test_groups_know_nothing_of_each_other(recipe, size, x, number, place):
    """A value changes what its own group becomes, and nothing else."""
    changed = x.clone()
    changed[0, place] = number
    same = torch.ones_like(x, dtype=torch.bool)
    same[0, place // size * size : (place // size + 1) * size] = False
    assert torch.equal(quantized(recipe, x).value[same], quantized(recipe, changed).value[same])


@pytest.mark.parametrize("recipe", [*WEIGHTS, injectors.Int8WeightPerChannelMSE], ids=lambda recipe: recipe.__name__)
@given(x=tensors(high=2.0**122))
def test_signs_and_zeros_are_kept(recipe, x):
    """A value comes out with its sign or as zero, and zero, where the grid has a code for it, as zero."""
    y = quantized(recipe, x)
    assert (y.value * x.sign() >= 0).all()
    if recipe is not injectors.BinaryWeightPerChannel:
        assert (y.value[x == 0] == 0).all()


@pytest.mark.parametrize("recipe", [injectors.Int8ActPerTensor, injectors.ShiftedUint8ActPerTensor])
@given(batches=st.lists(tensors(high=2.0**122), min_size=1, max_size=4), bad=st.integers(0, 4))
def test_what_is_not_finite_is_not_averaged(recipe, batches, bad):
    """A batch of NaN among others leaves the range as if it had not come."""
    quantizers = [Quantizer(recipe, {}), Quantizer(recipe, {})]
    for x in batches:
        for quantizer in quantizers:
            quantizer(x)
    quantizers[1](torch.full((1, 64), float("nan")))
    quantizers[1](batches[0][:0])
    x = batches[bad % len(batches)]
    ours, theirs = (quantizer.eval()(x) for quantizer in quantizers)
    assert torch.equal(ours.value, theirs.value)
    assert torch.equal(ours.scale, theirs.scale)
