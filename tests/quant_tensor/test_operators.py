"""Python's operators and built-in functions on quantized tensors."""

import numpy as np
import pytest
import torch

from brevq.errors import ArgumentTypeError
from brevq.quant_tensor import QuantTensor


@pytest.fixture
def x(qt):
    """A tensor of shape (3,)."""
    return qt.of_kind("signed", [3, -4, 0])


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x + 1,
        lambda x: 1 + x,
        lambda x: x - 1,
        lambda x: 1 - x,
        lambda x: 2 * x,
        lambda x: x / 3,
        lambda x: 3 / (x + 10),
        lambda x: x**2,
        lambda x: -x,
        lambda x: x == 0,
        lambda x: x != x,  # noqa: PLR0124  # element by element
        lambda x: x > 0,
        lambda x: x <= 0,
        lambda x: abs(x) % 2,
        lambda x: 2**x,
        lambda x: x[1:],
        lambda x: x == None,  # noqa: E711  # as tensors answer
        lambda x: torch.zeros(3) == x,
        lambda x: torch.zeros(3) < x,
        lambda x: x >= 0,
        lambda x: x != 1,
        lambda x: x // 2,
        lambda x: +x,
        lambda x: torch.ones(3) @ x,
        lambda x: torch.ones(3) / (x + 10),
        lambda x: x @ torch.ones(3),
        lambda x: torch.ones(3) + x,
        lambda x: torch.ones(3) * x,
        lambda x: torch.ones(2, 3) @ x,
        torch.relu,
        lambda x: torch.cat([x, x]),
        lambda x: torch.nn.functional.max_pool1d(x.reshape(1, 3), 2),
        lambda x: x.view(3, 1).mean(),
        lambda x: torch.stack([x, torch.ones(3)]).sum(dim=0),
    ],
)
def test_torch_works_on_the_value(x, function):
    """Arithmetic and torch functions give what they give on the value."""
    expected, got = function(x.value), function(x)
    assert expected is got if isinstance(expected, bool) else torch.equal(expected, got)


def test_numpy(x):
    """NumPy sees the values, in the dtype that it asks for, and copies where it is to."""
    assert [1.5, -2.0, 0.0] == np.asarray(x).tolist()
    assert np.float64 == np.asarray(x, dtype=np.float64).dtype
    assert not np.shares_memory(np.array(x, copy=True), x.value.numpy())
    assert [2.5, -1.0, 1.0] == (np.ones(3) + x).tolist()
    assert [1.5, -2.0, 0.0] == x.numpy().tolist()


def test_one_number(x):
    """A tensor of one value is a number to Python."""
    assert (1.5, 1, True, False, 1.5) == (float(x[0]), int(x[0]), bool(x[0]), bool(x[2]), x[0].item())
    assert "1.50" == f"{x[0]:.2f}"
    assert repr(x) == str(x) == f"{x}"


def test_it_is_a_sequence(x):
    """Length, iteration and membership are those of the first axis and of the values."""
    parts = list(x)
    assert (3, 3, [3, -4, 0]) == (len(x), len(parts), [part.int().item() for part in parts])
    assert all(isinstance(part, QuantTensor) for part in parts)
    assert (True, False) == (-2.0 in x, 7.0 in x)
    with pytest.raises(TypeError):
        len(x[0])


def test_it_has_an_identity(x):
    """Sets and dictionaries take it for itself, as they take tensors."""
    assert 2 == len({x, x, x.clone()})


def test_equality(x):
    """Torch compares its values."""
    assert (True, True, False) == (torch.equal(x, x.value), torch.allclose(x.value, x), torch.equal(x, x + x))


def test_adding_to_a_name_makes_a_new_tensor(x):
    """`x += y` binds the name to a sum, and leaves what it was bound to."""
    y, before = x, x.value.clone()
    y += x
    assert ([6, -8, 0], 5) == (y.int().tolist(), y.bit_width)
    assert torch.equal(before, x.value)


def test_no_assignment(x):
    """Assigning to elements is refused, with a way out."""
    with pytest.raises(ArgumentTypeError) as error:
        x[0] = 1.0
    assert str(error.value) == (
        "x[...] = y would change a QuantTensor in place, and leave it with values off its grid: "
        "make a new one with torch.where or torch.cat, or change the values alone with x.value[...] = y"
    )


def test_transposes(qt):
    """The transposes that are attributes."""
    x = qt.of_kind("signed", qt.random_codes("signed", (2, 3, 4)))
    assert torch.equal(x.int().permute(2, 1, 0), x.T.int())
    assert torch.equal(x.int().transpose(1, 2), x.mT.int())
