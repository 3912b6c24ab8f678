"""Arithmetic, element by element: the integers of the result are those that NumPy computes from the integers."""

import itertools

import numpy as np
import pytest
import torch

from brevq.quant_tensor import QuantTensor, plain

INTEGER = ["signed", "unsigned", "narrow", "ternary", "binary", "shifted", "shifted signed"]
ALL = [*INTEGER, "between"]

SUMS = {
    "torch.add": (torch.add, np.add),
    "x + y": (lambda x, y: x + y, np.add),
    "x += y": (lambda x, y: x.__add__(y), np.add),
    "torch.sub": (torch.sub, np.subtract),
    "x - y": (lambda x, y: x - y, np.subtract),
}
PRODUCTS = {
    "torch.mul": (torch.mul, np.multiply),
    "x * y": (lambda x, y: x * y, np.multiply),
}


@pytest.mark.parametrize("name", SUMS)
@pytest.mark.parametrize(("one", "other"), list(itertools.product(ALL, ALL)))
def test_sums(qt, name, one, other):
    """Sums and differences of integers on one scale, whatever their zero-points, in the bits that they take."""
    function, reference = SUMS[name]
    qt.check(
        function,
        reference,
        *(qt.of_kind(kind, qt.random_codes(kind, (3, 4), i)) for i, kind in enumerate((one, other))),
    )
    qt.check_width(function, (one, other), [(2,), (2,)])


@pytest.mark.parametrize("name", PRODUCTS)
@pytest.mark.parametrize(("one", "other"), list(itertools.product(INTEGER, INTEGER)))
def test_products(qt, name, one, other):
    """Products of integers, with the product of the scales, in the bits that they take."""
    function, reference = PRODUCTS[name]
    x = qt.of_kind(one, qt.random_codes(one, (3, 4), 0), 0.5)
    y = qt.of_kind(other, qt.random_codes(other, (3, 4), 1), 0.125)
    assert 0.0625 == qt.check(function, reference, x, y).scale
    qt.check_width(function, (one, other), [(2,), (2,)])


@pytest.mark.parametrize("function", [torch.neg, torch.negative, lambda x: -x])
@pytest.mark.parametrize("kind", ALL)
def test_negatives(qt, function, kind):
    """Negatives are on the grid turned round, in as many bits as that takes."""
    got = qt.check(function, np.negative, qt.of_kind(kind, qt.random_codes(kind, (3, 4))))
    if kind == "binary":
        assert (1, got.zero) == (got.bit_width, qt.of_kind(kind, [1]).zero)
    else:
        qt.check_width(function, (kind,), [(2,)])


@pytest.mark.parametrize("function", [torch.abs, torch.absolute, abs])
@pytest.mark.parametrize("kind", ["signed", "unsigned", "narrow", "ternary"])
def test_absolute_values(qt, function, kind):
    """Absolute values of integers about zero have no sign."""
    got = qt.check(function, np.abs, qt.of_kind(kind, qt.random_codes(kind, (3, 4))))
    assert not got.signed
    qt.check_width(function, (kind,), [(2,)])


@pytest.mark.parametrize("function", [torch.square, lambda x: x**2, lambda x: torch.pow(x, 2.0)])
@pytest.mark.parametrize("kind", INTEGER)
def test_squares(qt, function, kind):
    """Squares have the square of the scale and no sign."""
    got = qt.check(function, np.square, qt.of_kind(kind, qt.random_codes(kind, (3, 4))))
    assert not got.signed
    qt.check_width(function, (kind,), [(2,)])


@pytest.mark.parametrize("function", [torch.outer, torch.ger])
def test_outer_products(qt, function):
    """All products of two vectors, each of one scale."""
    vectors = [qt.of_kind("signed", qt.random_codes("signed", n, n)) for n in (3, 4)]
    qt.check(function, np.multiply.outer, *vectors)
    several = qt.of_kind("signed", [1, 2, 3], [0.5, 0.25, 0.125])
    assert not isinstance(function(several, vectors[1]), QuantTensor)


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("factor", [0.25, 1, 2, 8.0])
def test_powers_of_two(qt, kind, factor):
    """Multiplying by a power of two, or dividing, shifts the scale and leaves codes and bits."""
    x = qt.of_kind(kind, qt.random_codes(kind, (3, 4)))
    for function in (lambda x: x * factor, lambda x: factor * x, lambda x: torch.mul(x, factor), lambda x: x / factor):
        got = qt.check(function, lambda codes: codes, x)
        assert (x.bit_width, x.signed, x.zero, function(x.scale)) == (got.bit_width, got.signed, got.zero, got.scale)


@pytest.mark.parametrize("grain", ["tensor", "rows", "columns", "groups", "half", "bfloat16", "float"])
def test_granularities(qt, grain):
    """Powers of two and negatives keep the granularity, and sums of a tensor with itself do where they are integers."""
    x = qt.grains[grain]()
    functions = [(lambda x: x * 4, lambda c: c), (lambda x: -x, np.negative)]
    functions += [] if grain == "float" else [(lambda x: x + x, lambda c: c + c), (lambda x: x - x, lambda c: 0 * c)]
    for function, reference in functions:
        got = function(x)
        assert torch.equal(function(x.value), got.value)
        assert got.is_valid
        if grain != "float":
            assert np.array_equal(reference(qt.centred(x)), qt.centred(got))


@pytest.mark.parametrize(
    ("shapes", "scales"),
    [
        (((4, 6), (4, 6)), (np.full((4, 1), 0.5), 0.25)),
        (((4, 6), (6,)), (2.0 ** -np.arange(4).reshape(4, 1), 2.0 ** -np.arange(6))),
        (((4, 1), (1, 6)), (2.0 ** -np.arange(4).reshape(4, 1), 2.0 ** -np.arange(6).reshape(1, 6))),
        (((2, 4, 6), (4, 1)), (0.5, 2.0 ** -np.arange(4).reshape(4, 1))),
        (((), (3, 2)), (0.5, 2.0 ** -np.arange(3).reshape(3, 1))),
    ],
)
def test_products_broadcast(qt, shapes, scales):
    """Scales of rows and columns broadcast with the values that they belong to."""
    qt.check(
        torch.mul,
        np.multiply,
        *(qt.of_kind("signed", qt.random_codes("signed", s), scale) for s, scale in zip(shapes, scales, strict=True)),
    )


def test_sums_broadcast(qt):
    """A row of one scale added to rows of the same scale."""
    x = qt.of_kind("signed", qt.random_codes("signed", (4, 6)), np.full((4, 1), 0.5))
    qt.check(torch.add, np.add, x, qt.of_kind("shifted", qt.random_codes("shifted", (6,)), 0.5))


def test_python_sums_begin_with_zero(qt):
    """`sum` of a list adds the first to the number zero, which leaves it as it is."""
    x = qt.of_kind("signed", [1, -8])
    assert ([2, -16], 5) == (sum([x, x]).int().tolist(), sum([x, x]).bit_width)


def test_empty_and_scalar(qt):
    """Tensors without values, and of no dimensions, add and multiply."""
    for codes in (np.zeros((0, 3)), np.array(3)):
        x = qt.of_kind("signed", codes)
        qt.check(torch.add, np.add, x, x)
        qt.check(torch.mul, np.multiply, x, x)


@pytest.mark.parametrize(
    "function",
    [
        lambda x, y: torch.add(x, y, alpha=2),
        lambda x, y: torch.sub(x, y, alpha=2),
        lambda x, y: x + plain(y),
        lambda x, y: plain(y) + x,
        lambda x, y: plain(y) - x,
        lambda x, y: plain(y) * x,
        lambda x, y: x * plain(y),
        lambda x, y: x + 1,
        lambda x, y: 1 - x,
        lambda x, y: x * 3,
        lambda x, y: x * -2,
        lambda x, y: x * 0,
        lambda x, y: x * 1e9,
        lambda x, y: x * torch.tensor(2.0),
        lambda x, y: x / 3,
        lambda x, y: 2 / (y + 100),
        lambda x, y: torch.div(x, 2, rounding_mode="floor"),
        lambda x, y: x**3,
        lambda x, y: 2**x,
        lambda x, y: x // 2,
        lambda x, y: x % 2,
    ],
)
def test_what_leaves_the_grid(qt, function):
    """Plain numbers and tensors, and arguments that scale by no power of two, give plain tensors."""
    x, y = (qt.of_kind("signed", qt.random_codes("signed", (3, 4), i)) for i in range(2))
    got = function(x, y)
    assert isinstance(got, torch.Tensor)
    assert torch.equal(function(x.value, y.value), got)


@pytest.mark.parametrize("function", [torch.mul, torch.outer])
def test_zero_between_codes_has_no_products(qt, function):
    """Codes less a fractional zero-point are no integers: their product is a plain tensor."""
    x = qt.of_kind("between", [1, 2])
    assert isinstance(function(x, x), torch.Tensor)
    assert isinstance(abs(x), torch.Tensor)
    assert isinstance(x**2, torch.Tensor)


def test_floating_point_formats(qt):
    """Floats keep their grid under negation, absolute values and powers of two, and lose it in sums and products."""
    x = qt.floating([1.5, -2.0, 0.0])
    kept = [-x, abs(x), x * 2]
    assert [torch.Size([3])] * 3 == [y.int().shape for y in kept]
    assert all(y.is_valid and y.float_format is x.float_format for y in kept)
    assert all(isinstance(y, torch.Tensor) for y in (x + x, x - x, x * x, x**2))


@pytest.mark.parametrize(
    "function",
    [torch.add, torch.sub, torch.mul, lambda x, y: -x, lambda x, y: abs(x), lambda x, y: x**2, lambda x, y: x / 4],
)
def test_gradients(qt, function):
    """Gradients reach both tensors as they reach plain ones."""
    x, y = (qt.of_kind("signed", qt.random_codes("signed", (3, 4), i)) for i in range(2))
    x.requires_grad, y.requires_grad = True, True
    function(x, y).value.square().sum().backward()
    leaves = [z.value.detach().clone().requires_grad_() for z in (x, y)]
    function(*leaves).square().sum().backward()
    assert torch.equal(leaves[0].grad, x.grad)
    assert (leaves[1].grad is None) == (y.grad is None)
    assert y.grad is None or torch.equal(leaves[1].grad, y.grad)
