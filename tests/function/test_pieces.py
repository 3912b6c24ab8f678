"""Pieces of large tensors: which can be divided, and that a tensor in pieces is as good as a whole one."""

import numpy as np
import pytest
import torch

from brevq.function.fused import fake_quantize
from brevq.function.pieces import can_be_divided, divided, pieces

#: More than all that decides whether a tensor is divided.
MANY = 2**21 + 5


def test_pieces_are_parts_of_the_memory():
    """What is written to a piece is written to the tensor, wherever in its storage this begins."""
    x = torch.zeros(7)[2:]
    for (part,) in divided([x], size=2):
        part.add_(1)
    assert [1.0] * 5 == x.tolist()


@pytest.mark.parametrize("threads", [1, 2])
def test_sizes(threads):
    """A piece has its size for each thread, and the last one what is left."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        sizes = [len(part) for (part,) in divided([torch.zeros(3, 3)], size=2)]
    finally:
        torch.set_num_threads(before)
    assert {1: [2, 2, 2, 2, 1], 2: [4, 4, 1]}[threads] == sizes


def test_channels_last():
    """Images whose channels come last are divided in the order of their memory, if all of them are."""
    x, y = torch.arange(24.0).view(1, 2, 3, 4), torch.arange(24.0).view(1, 2, 3, 4)
    x = x.to(memory_format=torch.channels_last)
    assert [True, False] == [can_be_divided([x, other], [], 24) for other in (x, y)]
    ((part,),) = divided([x])
    assert np.moveaxis(np.arange(24.0).reshape(1, 2, 3, 4), 1, -1).ravel().tolist() == part.tolist()


@pytest.mark.parametrize(
    ("tensors", "parameters", "expected"),
    [
        ([torch.ones(2, 3)], [None, torch.tensor(0.1)], True),
        ([torch.ones(2, 3)], [torch.ones(2, 1)], False),
        ([torch.ones(5)], [], False),
        ([torch.ones(2, 6)[:, ::2]], [], False),
        ([torch.ones(1, 3).expand(2, 3)], [], False),
        ([torch.ones(2, 3, device="meta")], [], False),
    ],
)
def test_what_is_divided(tensors, parameters, expected):
    """Tensors in memory that are one piece of it, whose parameters are single numbers; others are one piece."""
    assert expected == can_be_divided(tensors, parameters, 6)
    shapes = [part.shape for part, *_ in pieces(tensors, parameters, 6)]
    assert [(6,)] * expected + [tensors[0].shape] * (not expected) == shapes


@pytest.mark.parametrize("needs", ["nothing", "the input", "a scale of 8 bits"])
@pytest.mark.parametrize("zero_point", [None, 2.0])
@pytest.mark.parametrize("rectified", [False, True])
def test_values(needs, zero_point, rectified):
    """Values of millions are those of the formula by NumPy, bit for bit, and so is what passes to the input."""
    rng = np.random.default_rng(0)
    x, above = (rng.normal(size=MANY).astype(np.float32) for _ in range(2))
    scale, shift = np.float32(0.3), np.float32(zero_point or 0)
    low, high = (0, 7) if rectified else (-3, 4)
    codes = np.rint((np.maximum(x, 0) if rectified else x) / scale + shift)
    clamped = np.clip(codes, low, high)
    leaf = torch.tensor(x, requires_grad=needs != "nothing")
    steps = torch.tensor(scale, requires_grad=needs == "a scale of 8 bits")
    shift_given = None if zero_point is None else torch.tensor(shift)
    given = leaf * 1.0 if steps.requires_grad else leaf
    y = fake_quantize(given, steps, shift_given, float(low), float(high), rectified=rectified)
    assert np.array_equal((clamped - shift) * scale, y.detach().numpy())
    if leaf.requires_grad:
        y.backward(torch.tensor(above))
        passed = (codes == clamped) & (x > 0 if rectified else True)
        assert np.array_equal(np.where(passed, above, 0), leaf.grad.numpy())
