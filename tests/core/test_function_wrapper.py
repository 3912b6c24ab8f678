"""Functions as modules, and granularities, against plain NumPy."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from brevq.core import function_wrapper as wrapper
from brevq.errors import ArgumentError, ArgumentTypeError

# torch.compile itself makes an instance of an autograd.Function, and torch warns of those.
pytestmark = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")

X = [-2.5, -1.7, -1.5, -0.5, -0.2, 0.0, 0.5, 0.8, 1.5, 2.5]
ONES = [1.0] * len(X)
LIMITS = (torch.tensor(-1.5), torch.tensor(0.5))
INSIDE = [0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0]
# Constructor, further arguments of forward, the value of one number, and the gradient of all of X.
CASES = {
    "RoundSte": (wrapper.RoundSte, (), round, ONES),
    "CeilSte": (wrapper.CeilSte, (), math.ceil, ONES),
    "FloorSte": (wrapper.FloorSte, (), math.floor, ONES),
    "RoundToZeroSte": (wrapper.RoundToZeroSte, (), math.trunc, ONES),
    "DPURoundSte": (wrapper.DPURoundSte, (), lambda x: math.floor(x + 0.5) if x < 0 else round(x), ONES),
    "Identity": (wrapper.Identity, (), lambda x: x, ONES),
    "BinarySignSte": (wrapper.BinarySignSte, (), lambda x: -1 if x < 0 else 1, ONES),
    "TernarySignSte": (wrapper.TernarySignSte, (), lambda x: (x > 0) - (x < 0), ONES),
    "AbsBinarySignGrad": (wrapper.AbsBinarySignGrad, (), abs, [-1.0] * 5 + [1.0] * 5),
    "TensorClamp": (wrapper.TensorClamp, LIMITS, lambda x: min(max(x, -1.5), 0.5), INSIDE),
    "TensorClampSte": (wrapper.TensorClampSte, LIMITS, lambda x: min(max(x, -1.5), 0.5), ONES),
    "ScalarClampSte": (lambda: wrapper.ScalarClampSte(-1.5, 0.5), (), lambda x: min(max(x, -1.5), 0.5), ONES),
    "ScalarClampMinSte": (lambda: wrapper.ScalarClampMinSte(-1.5), (), lambda x: max(x, -1.5), ONES),
}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients(case, dtype):
    """A module gives the value that is documented for each number, and the gradient."""
    create, arguments, reference, gradient = CASES[case]
    x = torch.tensor(X, dtype=torch.float64).to(dtype).requires_grad_()
    y = create()(x, *(a.to(dtype) for a in arguments))
    y.sum().backward()
    expected = [float(reference(value)) for value in x.tolist()]
    assert (expected, gradient, dtype) == (y.tolist(), x.grad.tolist(), y.dtype)


@pytest.mark.parametrize("case", CASES)
def test_travels(case, travel, outcome):
    """A copy, by whatever way, gives equal values and gradients."""
    create, arguments, _, _ = CASES[case]
    module = create()
    assert outcome(module, torch.tensor(X), *arguments) == outcome(travel(create, module), torch.tensor(X), *arguments)


@pytest.mark.parametrize("case", CASES)
def test_has_no_state(case):
    """A function as a module has nothing to save."""
    assert {} == dict(CASES[case][0]().state_dict())


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
