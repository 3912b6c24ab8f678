"""Gradients by scalar products, against NumPy in float64, and where they leave it to the formula."""

import math

import numpy as np
import pytest
import torch

from brevq.function import products
from brevq.function.fused import fake_quantize

#: Several pieces, the last one shorter.
SHAPE = (5, 60_001)
#: Ends that are even and odd on both sides, and a zero-point for each.
ENDS = {(-8, 7): 2, (-7, 7): -3, (0, 255): 17, (0, 14): 0, (-32768, 32767): 5}


def data(ends, dtype=np.float32, seed=0):
    """A tensor that reaches beyond a range on both sides, and onto each of its limits; a gradient."""
    rng = np.random.default_rng(seed)
    low, high = ends
    x = (rng.normal(size=SHAPE) * (high - low) / 3 + (low + high) / 2).astype(dtype)
    halves = np.array([low - 0.5, high + 0.5, low + 0.5, high - 0.5, 0.5, 1.5], dtype=dtype)
    hard = np.concatenate([halves, np.nextafter(halves, dtype(math.inf)), np.nextafter(halves, dtype(-math.inf))])
    x[2, : len(hard)] = hard
    return x, rng.normal(size=SHAPE).astype(dtype)


def gradients(x, scale, zero_point, above, limits):
    """The gradients of input, scale and zero-point, as autograd has them."""
    given = [None if part is None else torch.tensor(part, requires_grad=True) for part in (x, scale, zero_point)]
    above = torch.tensor(above)
    assert products.takes_products(above, tuple(given), *limits[:2])
    fake_quantize(*given, *limits).backward(above)
    return [None if part is None else part.grad.numpy() for part in given]


def expected(x, scale, zero_point, above, low, high, straight):
    """The same by NumPy: codes in the dtype of `x`, as they are computed, and sums in float64, with their size."""
    shift = x.dtype.type(0 if zero_point is None else zero_point)
    steps = x / scale
    codes = np.rint(steps if zero_point is None else steps + shift)
    clamped = np.clip(codes, low, high)
    inside = np.full(x.shape, True) if straight else codes == clamped
    slopes = clamped.astype(np.float64) - shift - np.where(inside, steps, 0)
    # What a term is known to: the rounding of its quotient, and its own.
    size = (np.abs(above) * (np.abs(slopes) + np.abs(steps * inside))).sum(dtype=np.float64)
    return np.where(inside, above, 0), (above * slopes).sum(), size, np.where(inside, 0, above).sum() * -scale


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("straight", [False, True])
@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("ends", ENDS)
def test_gradients(ends, shifted, straight, dtype):
    """The input's gradient is exact; that of scale and zero-point has the rounding of sums of so many terms."""
    x, above = data(ends, dtype)
    zero_point = dtype(ENDS[ends]) if shifted else None
    x = x - (zero_point or 0)
    limits = (*map(float, ends), straight)
    of_x, of_scale, of_zero = gradients(x, dtype(1.0), zero_point, above, limits)
    passed, slope, size, blocked = expected(x, dtype(1.0), zero_point, above, *limits)
    eps = np.finfo(dtype).eps
    assert np.array_equal(passed, of_x)
    assert abs(slope - of_scale) <= eps * size
    if shifted:
        assert abs(blocked - of_zero) <= eps * np.abs(above).sum()


def test_of_a_scale_that_is_no_power_of_two():
    """Quotients are rounded as those are that were quantized."""
    x, above = data((-8, 7))
    scale = np.float32(0.37)
    of_x, of_scale, _ = gradients(x * scale, scale, None, above, (-8.0, 7.0, False))
    passed, slope, size, _ = expected(x * scale, scale, None, above, -8, 7, False)
    assert np.array_equal(passed, of_x)
    assert abs(slope - of_scale) <= np.finfo(np.float32).eps * size


@pytest.mark.parametrize("ends", [(-8, 7), (-128, 127), (-512, 511)])
def test_as_exact_as_in_small_tensors(ends):
    """The sum over a large tensor is that of the sums over small parts of it, to the rounding of its terms."""
    rng = np.random.default_rng(3)
    x, above = (rng.normal(size=2**17).astype(np.float32) for _ in range(2))
    scale, limits = np.float32(0.03), (*map(float, ends), False)
    _, whole, _ = gradients(x, scale, None, above, limits)
    parts = []
    for part, grad in zip(x.reshape(64, -1), above.reshape(64, -1), strict=True):
        steps = torch.tensor(scale, requires_grad=True)
        fake_quantize(torch.tensor(part), steps, None, *limits).backward(torch.tensor(grad))
        parts.append(steps.grad.double().item())
    slopes = np.abs(expected_slopes(x, scale, *ends))
    assert abs(whole - sum(parts)) <= 2**-24 * math.sqrt(2**17) * (np.abs(above) * slopes).max() * 8


def expected_slopes(x, scale, low, high):
    """The derivative of each value with respect to the scale."""
    codes = np.rint(x / scale)
    clamped = np.clip(codes, low, high)
    return clamped - np.where(codes == clamped, x / scale, 0)


@pytest.mark.parametrize("zero_point", [None, 2.0])
@pytest.mark.parametrize(("place", "number"), [("x", math.nan), ("above", math.inf), ("above", math.nan)])
def test_numbers_that_are_not_finite(place, number, zero_point):
    """NaN, and infinite gradients, have the gradients that they have in small tensors."""
    x, above = data((-8, 7))
    (x if place == "x" else above)[4, 7] = number
    x[4, 8] = 99.0
    shift = None if zero_point is None else np.float32(zero_point)
    of_x, of_scale, _ = gradients(x, np.float32(1.0), shift, above, (-8.0, 7.0, False))
    row = torch.tensor(x[4], requires_grad=True)
    scale = torch.tensor(1.0, requires_grad=True)
    given = None if zero_point is None else torch.tensor(zero_point)
    above_row = torch.tensor(above[4])
    assert not products.takes_products(above_row, (row, scale, given), -8.0, 7.0)
    fake_quantize(row, scale, given, -8.0, 7.0).backward(above_row)
    assert np.array_equal(row.grad.numpy(), of_x[4], equal_nan=True)
    assert str(scale.grad.item()) == str(of_scale.item())


@pytest.mark.parametrize("zero_point", [None, 2.0])
def test_infinite_values(zero_point):
    """Infinite values have the gradients of other values that are clamped to the same code."""
    x, above = data((-8, 7))
    shift, found = None if zero_point is None else np.float32(zero_point), []
    for huge in (math.inf, 1e30):
        x[1, 7:9] = huge, -huge
        found.append(gradients(x, np.float32(1.0), shift, above, (-8.0, 7.0, False))[:2])
    assert [True, True] == [np.array_equal(*pair) for pair in zip(*found, strict=True)]


def test_channels_last():
    """Images whose channels come last are as good as others; a gradient in another order goes to the formula."""
    x, above = torch.randn(2, 3, 128, 128), torch.randn(2, 3, 128, 128)
    last = {"memory_format": torch.channels_last}

    def both(x, above):
        x, scale = x.detach().requires_grad_(), torch.tensor(0.3, requires_grad=True)
        fake_quantize(x, scale, None, -8.0, 7.0).backward(above)
        return x.grad, scale.grad

    of_x, of_scale = both(x, above)
    for laid in ((x.to(**last), above.to(**last)), (x, above.to(**last))):
        found = both(*laid)
        assert torch.equal(of_x, found[0])
        assert pytest.approx(of_scale.item(), abs=2**-20 * 8 * above.abs().sum().item()) == found[1].item()


@pytest.mark.parametrize(
    ("changed", "taken"),
    [
        ({}, True),
        ({"scale": torch.full((1, 4), 0.1)}, False),
        ({"zero_point": torch.zeros(4)}, False),
        ({"high": 2.0**22}, False),
        ({"x": torch.ones(4, 2**15).t()}, False),
        ({"x": torch.ones(4, 2**13)}, False),
    ],
)
def test_what_is_taken(changed, taken):
    """Large tensors in one piece, with one scale and one zero-point, and codes that have halves."""
    given = {"x": torch.ones(2**15, 4), "scale": torch.tensor(0.1), "zero_point": None, "high": 7.0} | changed
    saved = given["x"], given["scale"], given["zero_point"]
    assert taken == products.takes_products(torch.ones_like(given["x"]), saved, -8.0, given["high"])
