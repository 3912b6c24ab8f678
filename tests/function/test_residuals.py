"""Gradients from 16 bits for each value: against the formula in float64, and what is kept."""

import math

import numpy as np
import pytest
import torch
from torch.utils.checkpoint import checkpoint

from brevq.function.fused import fake_quantize
from brevq.function.residuals import saves_memory

#: Ends of 2 to 8 bits: signed, unsigned, and narrow.
ENDS = [
    *((-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in range(2, 9)),
    *((0, 2**bits - 1) for bits in range(2, 9)),
    *((-127, 127), (0, 254)),
]
SHAPES = {"tensor": (), "channels": (64, 1), "inner": (130,)}
#: Of these there are several pieces.
LARGE = (1300, 130)
#: What a residual is known to, in steps, and the rounding of quotients of codes up to 256.
STORED, QUOTIENT = 2.0**-13, 2.0**-16


def _data(ends, shape, seed=0, size=(64, 130)):
    """A tensor that reaches beyond a range on both sides, scales, and an incoming gradient."""
    rng = np.random.default_rng(seed)
    scale = rng.uniform(0.05, 0.2, size=shape).astype(np.float32)
    middle, width = sum(ends) / 2, ends[1] - ends[0]
    x = ((rng.normal(size=size) * width / 2 + middle) * scale).astype(np.float32)
    return x, scale, rng.normal(size=x.shape).astype(np.float32)


def _gradients(x, scale, zero_point, ends, above, rectified=False):
    """Values, and gradients of what is no leaf, of the scale, and of the zero-point."""
    leaf = torch.tensor(x, requires_grad=True)
    parts = [torch.tensor(scale, requires_grad=True)]
    parts += [] if zero_point is None else [torch.tensor(zero_point, requires_grad=True)]
    shift = None if zero_point is None else parts[1]
    y = fake_quantize(leaf * 1.0, parts[0], shift, *map(float, ends), rectified=rectified)
    assert "_FakeQuantizeShortBackward" == y.grad_fn.name()
    y.backward(torch.tensor(above))
    return y.detach().numpy(), leaf.grad.numpy(), *(part.grad.numpy() for part in parts)


def _expected(x, scale, zero_point, ends, above):
    """The same by NumPy: codes in float32, as they are computed, and sums in float64; and a bound of their error."""
    shift = np.float32(0) if zero_point is None else zero_point
    codes = np.rint(x / scale + shift)
    clamped = np.clip(codes, *ends)
    inside = codes == clamped
    steps = x.astype(np.float64) / scale
    slopes = np.where(inside, clamped - shift - steps, clamped - shift)
    axes = {(): None, (64, 1): 1, (130,): 0}[scale.shape]

    def total(terms):
        return terms.astype(np.float64).sum(axis=axes, keepdims=True).reshape(scale.shape)

    # Sums of float32 of 8320 terms at most, or of so many in each lane, and what single ones are known to.
    bound = total(np.abs(above) * (STORED + 2 * QUOTIENT)) + total(np.abs(above * slopes)) * 2.0**-20
    return (
        ((clamped - shift) * scale).astype(np.float32),
        np.where(inside, above, 0),
        total(above * slopes),
        total(np.where(inside, 0, -above * scale)),
        bound,
    )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("ends", ENDS)
def test_gradients(ends, shape):
    """Values and the input's gradient are the formula's, exactly; the scale's is to the stated error."""
    x, scale, above = _data(ends, SHAPES[shape])
    y, of_x, of_scale = _gradients(x, scale, None, ends, above)
    values, passed, slope, _, bound = _expected(x, scale, None, ends, above)
    assert np.array_equal(values, y)
    assert np.array_equal(passed, of_x)
    assert (np.abs(slope - of_scale) <= bound).all()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("ends", [(0, 255), (-8, 7), (0, 3)])
def test_gradients_with_a_zero_point(ends, shape):
    """A zero-point is subtracted where values are clipped, and receives its own gradient."""
    x, scale, above = _data(ends, SHAPES[shape])
    zero_point = np.full(scale.shape, 2, dtype=np.float32)
    y, of_x, of_scale, of_zero = _gradients(x, scale, zero_point, ends, above)
    values, passed, slope, of_shift, bound = _expected(x, scale, zero_point, ends, above)
    assert np.array_equal(values, y)
    assert np.array_equal(passed, of_x)
    assert (np.abs(slope - of_scale) <= bound).all()
    assert pytest.approx(of_shift, rel=1e-4, abs=1e-4) == of_zero


@pytest.mark.parametrize("zero_point", [None, 2.0])
@pytest.mark.parametrize("ends", ENDS)
def test_gradients_of_large_tensors(ends, zero_point):
    """What goes piece by piece, by scalar products, has the same gradients."""
    x, scale, above = _data(ends, (), size=LARGE)
    shift = None if zero_point is None else np.float32(zero_point)
    y, of_x, of_scale, *of_zero = _gradients(x, scale, shift, ends, above)
    values, passed, slope, of_shift, bound = _expected(x, scale, shift, ends, above)
    assert np.array_equal(values, y)
    assert np.array_equal(passed, of_x)
    assert np.abs(slope - of_scale) <= bound
    assert [] == [found for found in of_zero if not np.isclose(of_shift, found, rtol=1e-4, atol=1e-4 * scale)]


def test_ends_between_codes():
    """Values that are clamped to an end between codes have no gradient; that of the scale is the end, for each."""
    x, scale = torch.full((4096,), 7.6, requires_grad=True), torch.tensor(1.0, requires_grad=True)
    fake_quantize(x * 1, scale, None, -8.25, 7.75).sum().backward()
    assert (0.0, 7.75) == (x.grad.abs().max().item(), scale.grad.item() / 4096)


@pytest.mark.parametrize("size", [64, 1300])
def test_a_grid_of_zero_alone(size):
    """Where zero is the only code, values that round to it receive a gradient, and the scale what they are off by."""
    x, scale, above = _data((-1, 1), (), size=(size, 130))
    y, of_x, of_scale = _gradients(x, scale, None, (0, 0), above)
    values, passed, slope, _, bound = _expected(x, scale, None, (0, 0), above)
    assert np.array_equal(values, y)
    assert np.array_equal(passed, of_x)
    assert np.abs(slope - of_scale) <= bound


@pytest.mark.parametrize("size", [64, 1300])
@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_numbers_that_are_not_finite_in_gradients(number, size):
    """An infinite or NaN gradient reaches values inside the range and the scale, and no clamped value, of any size."""
    x, scale, above = _data((-8, 7), (), size=(size, 130))
    above[3, 4:6], x[3, 4:6] = number, (0.0, 99.0)
    _, of_x, of_scale = _gradients(x, scale, None, (-8, 7), above)
    assert [str(number), "0.0", False] == [*map(str, of_x[3, 4:6].tolist()), np.isfinite(of_scale).item()]


@pytest.mark.parametrize("size", [4800, 100_000])
@pytest.mark.parametrize("ends", [(0, 255), (0, 254), (-128, 127), (-127, 127), (-8, 7), (0, 3)])
def test_ties(ends, size):
    """Halves beyond the ends are clipped or not as the nearest even code says, and their neighbours as they lie."""
    low, high = ends
    steps = np.array([low - 0.5, high + 0.5, low + 0.5, high - 0.5, low - 1.5, high + 1.5, 0.5, 1.5], dtype=np.float32)
    steps = np.concatenate(
        [steps, np.nextafter(steps, np.float32(math.inf)), np.nextafter(steps, np.float32(-math.inf))]
    )
    x = np.resize(steps, size)
    y, of_x, _ = _gradients(x, np.float32(1.0), None, ends, np.ones_like(x))
    inside = np.rint(x) == np.clip(np.rint(x), low, high)
    assert np.array_equal(inside.astype(np.float32), of_x)
    assert np.array_equal(np.clip(np.rint(x), low, high), y)


@pytest.mark.parametrize("zero_point", [None, np.float32(2)])
def test_hard_values(zero_point):
    """Infinities are clipped, even of an infinite gradient; what is inside receives an infinite one."""
    x = np.resize(np.array([math.inf, -math.inf, 1e38, -1e38, 0.3, 0.3], dtype=np.float32), 4800)
    above = np.resize(np.array([math.inf, math.inf, 1.0, 1.0, math.inf, 2.0], dtype=np.float32), 4800)
    _, of_x, of_scale, *_ = _gradients(x, np.float32(0.1), zero_point, (-8, 7), above)
    assert [0.0, 0.0, 0.0, 0.0, math.inf, 2.0] == of_x[:6].tolist()
    assert not np.isfinite(of_scale)


def test_clipping_at_infinity():
    """Infinite values count with the code that they are clipped to."""
    x = np.resize(np.array([math.inf, -math.inf, 1e38, -1e38], dtype=np.float32), 4800)
    above = np.resize(np.array([1.0, 2.0, 4.0, 8.0], dtype=np.float32), 4800)
    _, of_x, of_scale = _gradients(x, np.float32(0.1), None, (-8, 7), above)
    assert (0.0, 1200 * (5 * 7 - 10 * 8)) == (np.abs(of_x).sum(), of_scale)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("zero_point", [None, 2.0])
def test_nan(zero_point, shape):
    """NaN receives no gradient and spoils that of its own scale, and of no other."""
    x, scale, above = _data((-8, 7), SHAPES[shape])
    x[3, 5] = math.nan
    shift = None if zero_point is None else np.full(scale.shape, zero_point, dtype=np.float32)
    y, of_x, of_scale, *_ = _gradients(x, scale, shift, (-8, 7), above)
    assert (True, 1, 0.0) == (np.isnan(y[3, 5]), np.isnan(y).sum(), of_x[3, 5])
    assert (1, {"tensor": 0, "channels": 3, "inner": 5}[shape]) == (
        np.isnan(of_scale).sum(),
        np.isnan(of_scale).ravel().tolist().index(True),
    )


@pytest.mark.parametrize("size", [5000, 300_000])
def test_relu(size):
    """Quantizing ReLU in one has its values, and the gradients of one after the other; zero itself is blocked."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=size).astype(np.float32)
    x[:6] = 0.0, -0.0, 1e-6, -1e-6, -0.04, 0.04
    above = rng.normal(size=size).astype(np.float32)
    y, of_x, of_scale = _gradients(x, np.float32(0.1), None, (0, 15), above, rectified=True)
    values, passed, slope, _, bound = _expected(np.maximum(x, 0), np.float32(0.1), None, (0, 15), above)
    assert np.array_equal(values, y)
    assert np.array_equal(np.where(x > 0, passed, 0), of_x)
    assert abs(slope - of_scale) <= bound


def test_layouts():
    """Tensors of any layout, and gradients that are expanded, are as good as those in a piece."""
    x = torch.randn(8, 40, 6, 5)
    scale, above = torch.full((40, 1, 1), 0.1, requires_grad=True), torch.ones(())
    found = []
    for arranged in (x, x.to(memory_format=torch.channels_last), x.transpose(2, 3).contiguous().transpose(2, 3)):
        leaf = arranged.clone().requires_grad_()
        y = fake_quantize(leaf * 1.0, scale, None, -8.0, 7.0)
        found.append(torch.autograd.grad(y, (leaf, scale), above.expand(x.shape)))
    assert [True] * 4 == [
        torch.allclose(one, other, atol=1e-5) for each in found[1:] for one, other in zip(found[0], each, strict=True)
    ]


@pytest.mark.parametrize("zero_point", [None, 1.0])
def test_gradients_of_gradients(zero_point):
    """Differentiated again, gradients are those of the formula, which keeps the input."""
    results = []
    for kept in (True, False):
        torch.manual_seed(0)
        leaf, scale = torch.randn(5000, requires_grad=True), torch.tensor(0.1, requires_grad=True)
        parts = [leaf, scale] + ([] if zero_point is None else [torch.tensor(zero_point, requires_grad=True)])
        x = leaf.tanh() if kept else leaf.tanh() * 1.0
        y = fake_quantize(x, scale, None if zero_point is None else parts[2], -8.0, 7.0)
        first = torch.autograd.grad(y.pow(2).mean(), parts, create_graph=True)
        second = torch.autograd.grad(sum(grad.pow(2).sum() for grad in first), parts)
        results.append(torch.cat([grad.ravel() for grad in (*first, *second)]).detach().numpy())
    assert pytest.approx(results[0], rel=1e-3, abs=1e-4) == results[1]


def test_checkpointing():
    """Activation checkpointing, which repeats the call, changes no gradient."""
    found = []
    for repeated in (False, True):
        torch.manual_seed(0)
        leaf, scale = torch.randn(5000, requires_grad=True), torch.tensor(0.1, requires_grad=True)

        def function(x, scale=scale):
            return fake_quantize(x * 2.0, scale, None, -8.0, 7.0)

        y = checkpoint(function, leaf, use_reentrant=False) if repeated else function(leaf)
        found.append([grad.tolist() for grad in torch.autograd.grad(y.sum(), (leaf, scale))])
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("x", "ends", "saves"),
    [
        (lambda x: x * 1.0, (-128, 127), True),
        (lambda x: x, (-128, 127), False),  # it belongs to someone
        (lambda x: x.relu(), (-128, 127), False),  # ReLU keeps it
        (lambda x: x.tanh(), (-128, 127), False),
        (lambda x: x.double(), (-128, 127), False),
        (lambda x: x * 1.0, (-256, 255), False),
        (lambda x: x[:100] * 1.0, (-128, 127), False),
    ],
)
def test_what_saves_memory(x, ends, saves):
    """Residuals are kept where they are smaller than the input, which nobody else keeps, and as exact."""
    assert saves is saves_memory(x(torch.randn(5000, requires_grad=True)), tuple(map(float, ends)))


def test_bytes_kept():
    """Two bytes are kept for each value, and the scale."""
    x, scale, kept = torch.randn(5000, requires_grad=True) * 1.0, torch.tensor(0.1, requires_grad=True), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.nbytes) or t, lambda t: t):
        fake_quantize(x, scale, None, -8.0, 7.0)
    assert [10_000, 4] == kept
