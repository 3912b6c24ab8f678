"""Sums and means along axes and over windows: the integers that NumPy adds up."""

import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch.nn import functional as F

from brevq.quant_tensor import QuantTensor

ALL = ["signed", "unsigned", "narrow", "ternary", "binary", "shifted", "shifted signed", "between"]

REDUCTIONS = {
    "all": ({}, None, False),
    "last": ({"dim": -1}, -1, False),
    "first, kept": ({"dim": 0, "keepdim": True}, 0, True),
    "several": ({"dim": (0, 2)}, (0, 2), False),
    "as NumPy has it": ({"axis": 1}, 1, False),
}


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("name", REDUCTIONS)
@pytest.mark.parametrize("function", [torch.sum, torch.mean])
def test_sums_and_means(qt, function, name, kind):
    """A sum has the tensor's scale, a mean that divided by the number of values; both have the sum's codes."""
    options, axes, kept = REDUCTIONS[name]
    shape = (2, 3, 4)
    terms = np.prod([shape[a] for a in np.atleast_1d(np.arange(3) if axes is None else axes)])
    got = qt.check(
        lambda x: function(x, **options),
        lambda codes: codes.sum(axis=axes, keepdims=kept),
        qt.of_kind(kind, qt.random_codes(kind, shape)),
    )
    assert got.scale == (0.5 if function is torch.sum else torch.tensor(0.5) / terms)
    qt.check_width(lambda x: function(x, **options), (kind,), [shape])


@pytest.mark.parametrize(
    "function", [lambda x: x.sum(1), lambda x: x.mean([0, 1]), lambda x: x.sum((1,), keepdim=True)]
)
def test_methods(qt, function):
    """Methods do as the functions do, with axes by place."""
    x = qt.of_kind("signed", qt.random_codes("signed", (2, 3, 4)))
    got = function(x)
    assert torch.equal(function(x.value), got.value)
    assert got.is_valid


@pytest.mark.parametrize(("axes", "shape"), [(1, (4, 1)), ((1, 2), (4,)), (-1, (4, 1)), ((0, 1), None), (0, None)])
@pytest.mark.parametrize("function", [torch.sum, torch.mean])
def test_scales_of_channels(qt, function, axes, shape):
    """Sums within a channel keep its scale; sums over channels of several scales are plain."""
    x = qt.of_kind("signed", qt.random_codes("signed", (4, 3, 6)), 2.0 ** -np.arange(4).reshape(4, 1, 1))
    got = function(x, dim=axes)
    assert torch.equal(function(x.value, dim=axes), plain_value(got))
    if shape is None:
        assert isinstance(got, torch.Tensor)
    else:
        assert (shape, True) == (tuple(got.scale.shape), got.is_valid)
        assert np.array_equal(qt.centred(x).sum(axis=axes), qt.centred(got))


def plain_value(x):
    """The value of a tensor, quantized or not."""
    return x.value if isinstance(x, QuantTensor) else x


@pytest.mark.parametrize("kind", ["signed", "unsigned", "binary", "shifted"])
@pytest.mark.parametrize("axis", [0, -1])
def test_running_sums(qt, kind, axis):
    """Running sums are as wide as the last of them."""
    x = qt.of_kind(kind, qt.random_codes(kind, (5, 6)))
    qt.check(lambda x: torch.cumsum(x, axis), lambda codes: codes.cumsum(axis), x)
    qt.check_width(lambda x: x.cumsum(dim=axis), (kind,), [(5, 6)])


def windows(codes, size, stride, padding):
    """The sums of all windows over the last axes."""
    n = len(size)
    codes = np.pad(codes, [(0, 0)] * (codes.ndim - n) + [(p, p) for p in padding])
    view = sliding_window_view(codes, size, tuple(range(-n, 0)))
    steps = tuple(slice(None, None, s) for s in stride)
    return view[(..., *steps, *(slice(None),) * n)].sum(axis=tuple(range(-n, 0)))


POOLS = [
    (lambda x: F.avg_pool1d(x, 3), (2, 3, 9), ((3,), (3,), (0,))),
    (lambda x: F.avg_pool1d(x, (2,), stride=1, padding=1), (2, 3, 9), ((2,), (1,), (1,))),
    (lambda x: F.avg_pool2d(x, 2), (2, 3, 6, 5), ((2, 2), (2, 2), (0, 0))),
    (lambda x: F.avg_pool2d(x, (3, 2), (1, 2), (1, 0)), (2, 3, 6, 6), ((3, 2), (1, 2), (1, 0))),
    (lambda x: F.avg_pool2d(input=x, kernel_size=[3], stride=2), (2, 3, 7, 7), ((3, 3), (2, 2), (0, 0))),
    (lambda x: F.avg_pool2d(x, 2, ceil_mode=False, count_include_pad=False), (2, 4, 4), ((2, 2), (2, 2), (0, 0))),
    (lambda x: F.avg_pool3d(x, 2), (1, 2, 4, 4, 4), ((2,) * 3, (2,) * 3, (0,) * 3)),
    (lambda x: F.adaptive_avg_pool1d(x, 3), (2, 3, 9), ((3,), (3,), (0,))),
    (lambda x: F.adaptive_avg_pool2d(x, (3, 1)), (2, 3, 6, 5), ((2, 5), (2, 5), (0, 0))),
    (lambda x: F.adaptive_avg_pool2d(x, 1), (3, 6, 5), ((6, 5), (6, 5), (0, 0))),
    (lambda x: F.adaptive_avg_pool3d(x, 2), (1, 2, 4, 4, 4), ((2,) * 3, (2,) * 3, (0,) * 3)),
]


@pytest.mark.parametrize("kind", ["signed", "unsigned", "shifted"])
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize(("function", "shape", "place"), POOLS)
def test_average_pooling(qt, function, shape, place, kind, per_channel):
    """Windows of one size are sums with a finer scale, with zeros beyond the border among the terms."""
    n = len(place[0])
    scale = 2.0 ** -np.arange(shape[-n - 1]).reshape(-1, *(1,) * n) if per_channel else 0.5
    x = qt.of_kind(kind, qt.random_codes(kind, shape), scale)
    qt.check(function, lambda codes: windows(codes, *place), x)


@pytest.mark.parametrize("kind", ALL)
def test_width_of_average_pooling(qt, kind):
    """The codes of a mean are those of the sum, and take its bits."""
    qt.check_width(lambda x: F.avg_pool2d(x, 2, stride=1), (kind,), [(1, 1, 4, 4)])


@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.avg_pool2d(x, 2, ceil_mode=True),
        lambda x: F.avg_pool2d(x, 2, padding=1, count_include_pad=False),
        lambda x: F.avg_pool2d(x, 2, divisor_override=3),
        lambda x: F.adaptive_avg_pool2d(x, 2),
        lambda x: x.sum(dtype=torch.float64),
        lambda x: x.mean(dtype=torch.float64),
        lambda x: x.cumsum(0, dtype=torch.float64),
        lambda x: x[:0].mean(0),
        lambda x: x[:0].sum(),
        lambda x: x.std(),
        lambda x: x.prod(),
        lambda x: x.norm(),
        lambda x: F.lp_pool2d(x, 2, 2),
    ],
)
def test_what_leaves_the_grid(qt, function):
    """Windows of several sizes, other dtypes, and means of nothing are plain."""
    x = qt.of_kind("signed", qt.random_codes("signed", (1, 1, 5, 5)))
    assert isinstance(function(x), torch.Tensor)
    assert torch.equal(function(x.value).nan_to_num(7), function(x).nan_to_num(7))


def test_no_integers(qt):
    """Floats have no exact sums; padding has no code where zero lies between two."""
    x = qt.floating(np.ones((1, 1, 4, 4)))
    assert all(isinstance(y, torch.Tensor) for y in (x.sum(), x.mean(), x.cumsum(0), F.avg_pool2d(x, 2)))
    between = qt.of_kind("between", np.ones((1, 1, 4, 4)))
    assert isinstance(F.avg_pool2d(between, 2, padding=1), torch.Tensor)
    assert isinstance(between.cumsum(0), torch.Tensor)


@pytest.mark.parametrize("function", [torch.sum, torch.mean, lambda x: x.cumsum(0), lambda x: F.avg_pool1d(x, 2)])
def test_gradients(qt, function):
    """Gradients are those of plain tensors."""
    x = qt.of_kind("signed", qt.random_codes("signed", (3, 4)))
    x.requires_grad = True
    function(x).value.square().sum().backward()
    leaf = x.value.detach().clone().requires_grad_()
    function(leaf).square().sum().backward()
    assert torch.equal(leaf.grad, x.grad)
