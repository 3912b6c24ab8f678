"""Masks: what passes them."""

import math

import numpy as np
import pytest
import torch

from brevq.function.masks import equal, pass_where, through_mask


def test_equal():
    """Numbers that are equal are 1, others 0, and no number equals itself where it is none."""
    x = torch.tensor([1.0, 2.0, math.nan, math.inf, -0.0])
    assert [1.0, 0.0, 0.0, 1.0, 1.0] == equal(x, torch.tensor([1.0, 3.0, math.nan, math.inf, 0.0]), out=x).tolist()


def test_pass_where():
    """What is infinite, or no number, passes or is zero like any other; the result is where it is asked for."""
    inside, out = torch.tensor([1.0, 0.0, 0.0, 1.0]), torch.empty(4)
    grad = torch.tensor([math.inf, math.inf, math.nan, -2.0])
    assert [math.inf, 0.0, 0.0, -2.0] == pass_where(inside, grad, out).tolist() == out.tolist()
    assert [1.0, 0.0, 0.0, 1.0] == inside.tolist()


@pytest.mark.parametrize("record", [False, True])
@pytest.mark.parametrize("size", [9, 2**21 + 3])
def test_through_mask(size, record):
    """A gradient passes where the mask is 1, of any size, whether it is recorded or not."""
    rng = np.random.default_rng(0)
    grad, inside = rng.normal(size=size).astype(np.float32), rng.integers(2, size=size).astype(np.int8)
    passed = through_mask(torch.tensor(grad), (torch.tensor(inside),), record)
    assert np.array_equal(grad * inside, passed.numpy())


def test_nothing_is_masked():
    """Without a mask the gradient is what comes, itself."""
    grad = torch.ones(2)
    assert through_mask(grad, (), record=False) is grad
