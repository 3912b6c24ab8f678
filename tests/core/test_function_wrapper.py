"""Functions as modules, and granularities, against plain NumPy."""

import copy
import math
from typing import ClassVar

import attrs
import numpy as np
import pytest
import torch
from torch import nn

from brevq.core import function_wrapper as wrapper
from brevq.errors import ArgumentError, ArgumentTypeError
from brevq.testing import Case, ElementwiseContract

# torch.compile itself makes an instance of an autograd.Function, and torch warns of those.
pytestmark = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")

LIMITS = (torch.tensor(-1.5), torch.tensor(0.5))


FUNCTIONS = {
    "RoundSte": Case(wrapper.RoundSte, round),
    "CeilSte": Case(wrapper.CeilSte, math.ceil),
    "FloorSte": Case(wrapper.FloorSte, math.floor),
    "RoundToZeroSte": Case(wrapper.RoundToZeroSte, math.trunc),
    "DPURoundSte": Case(wrapper.DPURoundSte, lambda x: math.floor(x + 0.5) if x < 0 else round(x)),
    "Identity": Case(wrapper.Identity, lambda x: x),
    "BinarySignSte": Case(wrapper.BinarySignSte, lambda x: -1 if x < 0 else 1),
    "TernarySignSte": Case(wrapper.TernarySignSte, lambda x: (x > 0) - (x < 0)),
    "AbsBinarySignGrad": Case(wrapper.AbsBinarySignGrad, abs, slope=lambda x: -1 if x < 0 else 1),
    "TensorClamp": Case(
        wrapper.TensorClamp,
        lambda x: min(max(x, -1.5), 0.5),
        slope=lambda x: -1.5 <= x <= 0.5,
        inputs=LIMITS,
    ),
    "TensorClampSte": Case(wrapper.TensorClampSte, lambda x: min(max(x, -1.5), 0.5), inputs=LIMITS),
    "ScalarClampSte": Case(lambda: wrapper.ScalarClampSte(-1.5, 0.5), lambda x: min(max(x, -1.5), 0.5)),
    "ScalarClampMinSte": Case(lambda: wrapper.ScalarClampMinSte(-1.5), lambda x: max(x, -1.5)),
}


class TestFunctions(ElementwiseContract):
    """What any function of one number must do, as a module, in TorchScript too."""

    cases: ClassVar = {name: attrs.evolve(case, scripts=True) for name, case in FUNCTIONS.items()}


def test_limits_must_be_in_order():
    """A lower limit above the upper one is refused."""
    with pytest.raises(ArgumentError) as error:
        wrapper.ScalarClampSte(2.0, 1.0)
    assert "`min_val` (=2.0) must not exceed `max_val` (=1.0)" == str(error.value)


def test_granularity_per_tensor():
    """One scale for all: one row, a scale without dimensions, which the bias takes as it is."""
    granularity, x = wrapper.PerTensor(), torch.arange(6.0).reshape(2, 3)
    expected = ((), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0], 7.0, 7.0)
    assert expected == (
        granularity.scale_shape,
        granularity(x).tolist(),
        granularity.to_scale(torch.tensor(7.0)).item(),
        granularity.per_output(torch.tensor(7.0)).item(),
    )


AXES = [((4,), 0), ((4, 3), 0), ((4, 3), 1), ((4, 3), -1), ((2, 3, 5, 7), 0), ((2, 3, 5, 7), 1), ((2, 3, 5, 7), -2)]


@pytest.mark.parametrize(("shape", "axis"), AXES)
def test_granularity_per_channel(shape, axis):
    """Each index along the axis has a row of its own, and a scale that broadcasts back to it."""
    granularity = wrapper.PerChannel(shape, axis)
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    channels = shape[axis]
    rows = [sorted(np.take(x, c, axis).reshape(-1).tolist()) for c in range(channels)]
    scale = granularity.to_scale(torch.arange(1.0, channels + 1))
    scaled = [np.take(x, c, axis).reshape(-1) * np.float32(c + 1) for c in range(channels)]
    actual = [np.take((torch.tensor(x) * scale).numpy(), c, axis).reshape(-1).tolist() for c in range(channels)]
    assert (rows, [row.tolist() for row in scaled], list(range(1, channels + 1))) == (
        [sorted(row) for row in granularity(torch.tensor(x)).tolist()],
        actual,
        granularity.per_output(scale).tolist(),
    )


@pytest.mark.parametrize(("shape", "axis"), AXES)
def test_shape_of_the_scale(shape, axis):
    """The scale has the size of the channel axis there, and 1 elsewhere."""
    expected = [1] * len(shape)
    expected[axis] = shape[axis]
    assert tuple(expected) == wrapper.PerChannel(shape, axis).scale_shape


@pytest.mark.parametrize(
    ("shape", "axis", "axes"), [((4, 3), 2, "axes -2 to 1"), ((4, 3), -3, "axes -2 to 1"), ((), 0, "no axes")]
)
def test_axis_must_exist(shape, axis, axes):
    """An axis that the tensor has not is refused, with those that it has."""
    with pytest.raises(ArgumentError) as error:
        wrapper.PerChannel(shape, axis)
    assert f"`channel_axis` (={axis}) is not an axis of a tensor of shape {shape}, which has {axes}" == str(error.value)


@pytest.mark.parametrize(("axis", "kind"), [(1.0, "float"), (None, "NoneType"), ("0", "str"), (True, "bool")])
def test_axis_must_be_an_integer(axis, kind):
    """What is no integer is no axis, even if Python would count it as one."""
    with pytest.raises(ArgumentTypeError) as error:
        wrapper.PerChannel((4, 4), axis)
    assert f"`channel_axis` (={axis!r}) must be the number of an axis, not {kind}" == str(error.value)


def test_granularity_is_printed():
    """Printing shows the axis and the shape of the scale."""
    expected = "PerChannel(channel_axis=1, scale_shape=(1, 3))"
    assert expected == repr(wrapper.PerChannel((4, 3), -1))


@pytest.mark.parametrize("granularity", [wrapper.PerTensor(), wrapper.PerChannel((2, 3), 0)])
def test_peers_are_seen_together(granularity):
    """Where several tensors share a scale, the rows hold the values of all of them."""
    first, second = nn.Linear(3, 2), nn.Linear(4, 2)
    nn.init.ones_(first.weight)
    nn.init.constant_(second.weight, 2.0)
    shared = copy.deepcopy(granularity)
    for layer in (first, second, first):
        shared.add_peer(layer)
    per_row = sorted([1.0] * 3 + [2.0] * 4)
    expected = [per_row, per_row] if granularity.scale_shape else sorted(per_row * 2)
    rows = shared(first.weight)
    actual = [sorted(row) for row in rows.tolist()] if rows.dim() == 2 else sorted(rows.tolist())
    assert expected == actual


def test_granularity_is_abstract():
    """The base names what a granularity of one's own must say."""
    assert {"scale_shape", "rows", "per_output"} <= wrapper.Granularity.__abstractmethods__
