"""Constant tensors of which few numbers are different."""

import pytest
import torch

from brevq.frozen.repeated import Repeated


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor(0.3),
        torch.rand(5, 1),
        torch.exp2(torch.randint(-9, 9, (200, 1)).float()),
        torch.zeros(64, 1),
        torch.tensor([0.0, -0.0] * 40),
        torch.full((30,), torch.nan),
        torch.randint(300, (4000,)).float(),
    ],
    ids=["one", "few", "powers of two", "zeros", "minus zero", "NaN", "too many"],
)
def test_exact(tensor):
    """The tensor comes back bit for bit, and takes no more memory than it did."""
    kept = Repeated(tensor)
    assert kept().shape == tensor.shape
    assert torch.equal(tensor.view(torch.int32), kept().view(torch.int32))
    assert kept.nbytes <= tensor.nbytes


def test_bytes():
    """A table of the numbers, and a byte for each place."""
    kept = Repeated(torch.tensor([1.0, 2.0, 4.0, 8.0]).repeat(100).reshape(-1, 1))
    assert 4 * 4 + 400 == kept.nbytes


def test_state():
    """A state with another number of different numbers is loaded."""
    ours, theirs = Repeated(torch.tensor([0.5, 0.25]).repeat(50)), Repeated(torch.arange(100.0))
    for one, other in ((ours, theirs), (theirs, Repeated(torch.tensor([3.0, 1.0]).repeat(50)))):
        one.load_state_dict(other.state_dict())
        assert torch.equal(other(), one())
