"""Quantization by a tensor's own largest value, against NumPy in float64 and against the parts one after the other."""

import math

import numpy as np
import pytest
import torch

from brevq.function.fused import fake_quantize
from brevq.function.fused_max import fake_quantize_by_max, is_fused
from brevq.function.largest import abs_max

THRESHOLD, FLOOR = 7.0, 1e-10


def tied(rows):
    """The rows, of which one has its largest value at both ends, and one is zero."""
    rows[0, [3, -4]] = 9.0, -9.0
    rows[-1] = 0.0
    return rows


#: Rows of every kind: in one or several stretches, too short for any, with ties, and of zeros.
ROWS = {
    "one": np.random.default_rng(0).normal(size=40),
    "several": np.random.default_rng(1).normal(size=(5, 24)),
    "stretches": np.random.default_rng(2).normal(size=(3, 192)),
    "long": np.random.default_rng(3).normal(size=4096 * 5),
    "odd": np.random.default_rng(4).normal(size=(2, 20011)),
    "cube": np.random.default_rng(5).normal(size=(2, 3, 64)),
    "ties": np.array([[1.1, -2.0, 2.0, 0.4], [3.0, 3.0, 3.0, -3.0]]),
    "zeros": np.array([[0.0, 0.0, 0.0], [1.0, 0.0, -0.4]]),
    "below the floor": np.array([1e-12, -3e-12, 2e-12]),
    "rows in pieces": np.random.default_rng(6).normal(size=(3, 70_000)),
    "short rows in pieces": np.random.default_rng(7).normal(size=(300, 500)),
    "one in pieces": np.random.default_rng(8).normal(size=70_000),
    "ties in several stretches": np.where(
        np.isin(np.arange(2**17), (5, 100_000)), -9.0, np.random.default_rng(9).normal(size=2**17)
    ),
    "rows of many stretches": tied(np.random.default_rng(10).normal(size=(40, 1024))),
    "many groups": tied(np.random.default_rng(11).normal(size=(3000, 32))),
    "single": np.array([[4.0], [-1.0]]),
}


def rows_of(case, dtype=torch.float32):
    """The rows of a case, which take a gradient."""
    return torch.tensor(ROWS[case], dtype=dtype).requires_grad_()


def above(rows, seed=7):
    """Gradients for the values and for the scales."""
    rng = np.random.default_rng(seed)
    shapes = rows.shape, rows.shape[:-1]
    return tuple(torch.tensor(rng.normal(size=shape), dtype=rows.dtype) for shape in shapes)


def in_parts(rows):
    """The same by a statistic, a division and an integer grid."""
    scale = abs_max(rows).clamp_min(FLOOR) / THRESHOLD
    return fake_quantize(rows, scale.unsqueeze(-1), None, -THRESHOLD, THRESHOLD, straight=True), scale


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", ROWS)
def test_values(case, dtype):
    """Values and scales are those of the parts, bit for bit, with a gradient to come and without."""
    rows = rows_of(case, dtype)
    expected = [part.tolist() for part in in_parts(rows)]
    assert expected == [part.tolist() for part in fake_quantize_by_max(rows, FLOOR, THRESHOLD)]
    assert expected == [part.tolist() for part in fake_quantize_by_max(rows.detach(), FLOOR, THRESHOLD)]


def numpy_gradient(x, above_y, above_scale):
    """The gradient of rows, a row at a time, as the docstring has it."""
    x, above_y, above_scale = x.reshape(-1, x.shape[-1]), above_y.reshape(-1, x.shape[-1]), above_scale.reshape(-1)
    found = above_y.copy()
    for row, line in enumerate(x):
        largest = np.abs(line).max()
        scale = max(largest, FLOOR) / THRESHOLD
        of_range = (above_y[row] * (np.round(line / scale) - line / scale)).sum() + above_scale[row]
        there = (np.abs(line) == largest) & (line != 0)
        found[row] += np.where(there, np.sign(line) * of_range / THRESHOLD / max(there.sum(), 1), 0)
    return found


@pytest.mark.parametrize("case", ROWS)
def test_gradients(case):
    """Gradients are those of the formula; a float32 sum is off by some rounding errors of its terms."""
    rows = rows_of(case)
    of_y, of_scale = above(rows)
    torch.autograd.backward(fake_quantize_by_max(rows, FLOOR, THRESHOLD), (of_y, of_scale))
    parts = (part.detach().double().numpy() for part in (rows, of_y, of_scale))
    expected = numpy_gradient(*parts).reshape(rows.shape)
    np.testing.assert_allclose(rows.grad.numpy(), expected, rtol=2e-6, atol=1e-6 * rows.shape[-1] ** 0.5)


@pytest.mark.parametrize("which", [0, 1])
def test_one_output_alone(which):
    """Values without their scales, and scales without their values, have gradients of their own."""
    rows, other = rows_of("several", torch.float64), rows_of("several", torch.float64)
    given = above(rows)[which]
    fake_quantize_by_max(rows, FLOOR, THRESHOLD)[which].backward(given)
    in_parts(other)[which].backward(given)
    torch.testing.assert_close(rows.grad, other.grad, rtol=1e-12, atol=1e-12)


def test_all_but_the_largest_pass_the_gradient_on():
    """The gradient of a value that is not as large as the largest is the incoming one, bit for bit."""
    rows = rows_of("stretches")
    of_y, _ = above(rows)
    fake_quantize_by_max(rows, FLOOR, THRESHOLD)[0].backward(of_y)
    smaller = rows.abs() < rows.abs().amax(dim=-1, keepdim=True)
    assert torch.equal(rows.grad[smaller], of_y[smaller])


@pytest.mark.parametrize("times", [1, 2**14])
@pytest.mark.parametrize("spoilt", [math.inf, -math.inf, math.nan])
def test_rows_that_are_not_finite(spoilt, times):
    """A row with an infinite value or NaN has gradients NaN, as in parts; the others keep theirs."""
    rows = torch.tensor([[1.0, spoilt, 2.0], [1.0, -4.0, 2.0]]).repeat(1, times).requires_grad_()
    y, scale = fake_quantize_by_max(rows, FLOOR, THRESHOLD)
    y.sum().backward()
    assert rows.grad[0].isnan().all()
    assert rows.grad[1].isfinite().all()
    torch.testing.assert_close((y, scale), in_parts(rows.detach()), rtol=0, atol=0, equal_nan=True)


def test_gradients_of_gradients():
    """The gradients are differentiable themselves, as in parts."""
    rows, other = rows_of("several", torch.float64), rows_of("several", torch.float64)
    seconds = []
    for x, quantize in ((rows, lambda x: fake_quantize_by_max(x, FLOOR, THRESHOLD)), (other, in_parts)):
        (first,) = torch.autograd.grad(quantize(x)[0].square().sum(), x, create_graph=True)
        seconds.append(torch.autograd.grad(first.square().sum(), x)[0])
    torch.testing.assert_close(*seconds, rtol=1e-10, atol=1e-10)


def test_what_it_takes():
    """Float32 and float64 on a CPU; nothing in a transform, where the parts are recorded one by one."""
    assert [True, True, False, False] == [
        is_fused(torch.ones(2, dtype=dtype)) for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16)
    ]
    assert torch.zeros(2).tolist() == torch.vmap(lambda x: x * is_fused(x))(torch.ones(2)).tolist()


def test_what_is_kept():
    """Beside the rows, what is kept for the gradient is as small as the scales and the maxima of stretches."""
    rows, kept = rows_of("long"), []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        fake_quantize_by_max(rows, FLOOR, THRESHOLD)
    others = [x.numel() for x in kept if x.data_ptr() != rows.data_ptr()]
    assert sum(others) <= rows.numel() / 128 + 2  # a maximum of each 128 values; the range, and the scale
