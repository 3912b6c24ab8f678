"""Scales on the grid of a format."""

import attrs
import ml_dtypes
import numpy as np
import pytest
import torch

from brevq.config.parts import FormatScaling
from brevq.core.bit_width import BitWidthConst
from brevq.core.formats.catalogue import FLOAT16, FP8_E5M3
from brevq.core.scaling import ConstScaling, IntScaling, ParameterScaling, StatsScaling
from brevq.core.stats import AbsMax
from brevq.errors import ArgumentError

HALF = attrs.evolve(FLOAT16, saturating=True)


def scaling_of(range_impl, number_format, bits=8, signed=True):
    return FormatScaling(range_impl, number_format, IntScaling(signed, signed), BitWidthConst(bits))


@pytest.mark.parametrize(("bits", "signed"), [(2, True), (8, True), (8, False), (4, False)])
def test_every_mantissa_is_exact(bits, signed):
    """Dividing by the threshold gives the number of the format back, for each mantissa that float16 has."""
    scaling = scaling_of(StatsScaling(AbsMax()), HALF, bits, signed)
    for mantissa in range(1024, 2048, 7):
        scale = torch.tensor(float(mantissa)) / 1024
        threshold = scaling.threshold()
        assert torch.equal(scale, scaling(scale * threshold) / threshold)


def test_nearest():
    """The scale is the nearest number of the format to range over threshold, as NumPy rounds to float16."""
    for value in np.geomspace(1e-3, 1e3, 50, dtype=np.float32):
        scale = scaling_of(ConstScaling(float(value)), HALF)(torch.ones(1)) / 127
        assert np.float32((value / np.float32(127)).astype(np.float16)) == scale.item()


def test_ends_of_the_format():
    """Scales below the format are its smallest number, those beyond it the largest."""
    small, large = (scaling_of(ConstScaling(value), HALF)(torch.ones(1)) / 127 for value in (1e-12, 1e12))
    assert (2.0**-24, float(ml_dtypes.finfo(np.float16).max)) == (small.item(), large.item())


def test_gradient():
    """A learned range gets the gradient as if nothing were rounded."""
    learned = ParameterScaling(3.0)
    (scaling_of(learned, FP8_E5M3)(torch.ones(1)) / 127).backward()
    assert 1 / 127 == pytest.approx(learned.value.grad.item())


def test_no_threshold():
    """Without a threshold there is no scale to be rounded."""
    with pytest.raises(ArgumentError) as caught:
        FormatScaling(ConstScaling(1.0), HALF, int_scaling_impl=IntScaling(True, True))
    assert "give `int_scaling_impl` and `bit_width_impl`, or `float_scaling_impl`" == str(caught.value)


def test_print():
    """The format is printed."""
    assert "scale_format=fp8_e5m3" == scaling_of(ConstScaling(1.0), FP8_E5M3).extra_repr()
