"""Scales that are quantized themselves, against double quantization written out in NumPy."""

import math

import ml_dtypes
import numpy as np
import pytest
import torch

from brevq.core.bit_width import BitWidthConst
from brevq.core.formats.catalogue import FP8_E4M3
from brevq.core.function_wrapper import PerChannel, PerGroup
from brevq.core.quant import FloatQuant, IntQuant, RescalingIntQuant
from brevq.core.scaling import ConstScaling, FloatScaling, IntScaling, ParameterScaling, QuantizedScaling, StatsScaling
from brevq.core.stats import AbsMax
from brevq.core.zero_point import ZeroZeroPoint
from brevq.errors import ArgumentError, ArgumentTypeError

# torch.compile itself makes an instance of an autograd.Function, and torch warns of those.
pytestmark = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")

X = np.random.default_rng(3).normal(size=(5, 6, 4)).astype(np.float32) * np.float32(3)


def float_quant(granularity=None):
    """Numbers in E4M3, scaled by their largest absolute value."""
    return FloatQuant(FP8_E4M3, StatsScaling(AbsMax(granularity)), FloatScaling(FP8_E4M3))


def int_quant(granularity=None):
    """Numbers in 8-bit integers, scaled by their largest absolute value."""
    return RescalingIntQuant(
        IntQuant(narrow_range=True, signed=True),
        StatsScaling(AbsMax(granularity)),
        IntScaling(signed=True, narrow_range=True),
        ZeroZeroPoint(),
        BitWidthConst(8),
    )


def e4m3(row):
    """A row of numbers in E4M3, by ml_dtypes."""
    scale = np.abs(row).max() / np.float32(448)
    return (row / scale).astype(ml_dtypes.float8_e4m3fn).astype(np.float32) * scale


def int8(row):
    """A row of numbers in 8-bit integers, by NumPy."""
    scale = np.abs(row).max() / np.float32(127)
    return np.rint(row / scale) * scale


QUANTIZERS = {"e4m3": (float_quant, e4m3), "int8": (int_quant, int8)}


@pytest.mark.parametrize("size", [None, 30, 7])
@pytest.mark.parametrize("kind", QUANTIZERS)
def test_values(kind, size):
    """The ranges of all groups, in a row, are quantized in runs of their own, of which the last may not be full."""
    create, reference = QUANTIZERS[kind]
    granularity = None if size is None else PerGroup(size, pad=True)
    scaling = QuantizedScaling(StatsScaling(AbsMax(PerGroup(4))), create(granularity))
    row = np.abs(X).max(-1).reshape(-1)
    runs = [row[i : i + (size or 30)] for i in range(0, 30, size or 30)]
    expected = np.concatenate([reference(run) for run in runs]).reshape(5, 6, 1)
    assert expected.tolist() == scaling(torch.tensor(X)).tolist()


@pytest.mark.parametrize("kind", QUANTIZERS)
def test_centered(kind):
    """Around their mean, ranges that lie close together keep more of their differences."""
    create, reference = QUANTIZERS[kind]
    x = torch.tensor([[1.0], [1.01], [1.02], [1.05]])
    scaling = QuantizedScaling(StatsScaling(AbsMax(PerChannel((4, 1), 0))), create(), centered_scale=True)
    mean = np.float32(x.numpy().mean(dtype=np.float64))
    expected = reference(x.numpy().reshape(-1) - mean) + mean
    assert expected.tolist() == scaling(x).flatten().tolist()
    plain = QuantizedScaling(StatsScaling(AbsMax(PerChannel((4, 1), 0))), create())
    assert (scaling(x) - x).abs().max() < 0.25 * (plain(x) - x).abs().max()


@pytest.mark.parametrize("centered", [False, True])
def test_scales_stay_positive(centered):
    """Ranges that are rounded to zero, or below it, are the floor."""
    x = torch.tensor([[1e-6], [1000.0], [1e-6], [1.0]])
    grid = RescalingIntQuant(
        IntQuant(narrow_range=True, signed=True),
        StatsScaling(AbsMax()),
        IntScaling(signed=True, narrow_range=True),
        ZeroZeroPoint(),
        BitWidthConst(2),
    )
    scaling = QuantizedScaling(StatsScaling(AbsMax(PerChannel((4, 1), 0))), grid, centered, scaling_min_val=0.25)
    # The mean is 250.25; centered, the steps are 749.75, so that all but the largest become the mean.
    low = 250.25 if centered else 0.25
    expected = [low, 1000.0, low, low]
    assert pytest.approx(expected, rel=1e-6) == scaling(x).flatten().tolist()
    assert 0.25 == QuantizedScaling(ConstScaling(1e-9), float_quant(), scaling_min_val=0.25)(x).item()


@pytest.mark.parametrize("centered", [False, True])
def test_the_largest_ranges_stay_finite(centered):
    """Neither their mean nor what becomes of them is infinite."""
    scaling = QuantizedScaling(StatsScaling(AbsMax(PerGroup(4))), float_quant(), centered)
    assert torch.full((2, 3, 1), 3e38).tolist() == scaling(torch.full((2, 3, 4), 3e38)).tolist()


def test_zeros():
    """Groups of zeros have a positive scale, the smallest normal float32 if nothing else was asked for."""
    scaling = QuantizedScaling(StatsScaling(AbsMax(PerGroup(4))), float_quant())
    scales = scaling(torch.zeros(2, 3, 4))
    assert (True, True) == (scales.isfinite().all().item(), (scales > 0).all().item())


@pytest.mark.parametrize("centered", [False, True])
def test_gradient_is_that_of_the_ranges(centered):
    """Rounding is passed straight through: what a second scale adds is the share of the largest range."""
    x = torch.tensor([[30.0, -1.0], [-448.0, 2.0], [100.0, 0.0]], requires_grad=True)
    scaling = QuantizedScaling(StatsScaling(AbsMax(PerChannel((3, 2), 0))), float_quant(), centered)
    y = scaling(x)
    weights = torch.tensor([[1.0], [10.0], [100.0]])
    (y * weights).sum().backward()
    ranges = np.array([30.0, 448.0, 100.0])
    centre = ranges.mean() if centered else 0.0
    offset = ranges - centre
    top = np.abs(offset).argmax()
    rounding = (y.detach().numpy().ravel() - ranges) / offset[top]  # of each range, by the scale that the top one sets
    by_offset = np.array([1.0, 10.0, 100.0])
    by_offset[top] += (by_offset * rounding).sum()
    by_range = by_offset + ((np.array([1.0, 10.0, 100.0]) - by_offset).mean() if centered else 0.0)
    expected = [[by_range[0], 0.0], [-by_range[1], 0.0], [by_range[2], 0.0]]
    # Sums of float32 numbers up to 448, of which differences are taken.
    assert np.allclose(expected, x.grad.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype(dtype):
    """Scales have the dtype of the tensor that they are computed from."""
    scaling = QuantizedScaling(StatsScaling(AbsMax(PerGroup(4))), float_quant(PerGroup(8, pad=True)))
    assert dtype == scaling(torch.tensor(X, dtype=dtype)).dtype


@pytest.mark.parametrize("kind", QUANTIZERS)
def test_travels(kind, travel, outcome):
    """A copy, by whatever way, gives equal values and gradients, learned ranges among them."""

    def create():
        groups = PerGroup(4, tensor_shape=(5, 24))
        return QuantizedScaling(
            ParameterScaling(0.3, granularity_impl=groups), QUANTIZERS[kind][0](PerGroup(8, pad=True))
        )

    module, x = create(), torch.tensor(X)
    module.range_impl.value.data.copy_(torch.tensor(X).abs().amax(-1, keepdim=True))
    assert outcome(module, x) == outcome(travel(create, module), x)


ERRORS = [
    (
        lambda: QuantizedScaling(ConstScaling(1.0), float_quant(), "no"),
        ArgumentTypeError,
        "`centered_scale` (='no') must be True or False, not str",
    ),
    (
        lambda: QuantizedScaling(ConstScaling(1.0), float_quant(), scaling_min_val=-1.0),
        ArgumentError,
        "`scaling_min_val` (=-1.0) must be a finite number above 0",
    ),
    (
        lambda: QuantizedScaling(ConstScaling(1.0), float_quant(), scaling_min_val=math.inf),
        ArgumentError,
        "`scaling_min_val` (=inf) must be a finite number above 0",
    ),
]


@pytest.mark.parametrize(("call", "kind", "text"), ERRORS, ids=[text[:40] for *_, text in ERRORS])
def test_errors(call, kind, text):
    """What is wrong is refused with argument, value and rule."""
    with pytest.raises(kind) as error:
        call()
    assert text == str(error.value)
