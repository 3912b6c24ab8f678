"""Both ends of rows: values and gradients of the composed form, to the bit."""

import math

import numpy as np
import pytest
import torch

from brevq.core.stats import ends as module
from brevq.core.stats.ends import ends

# torch.compile itself makes an instance of an autograd.Function, and torch warns of those.
pytestmark = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")

ROWS = {
    "one row": lambda rng: rng.normal(size=1000),
    "rows": lambda rng: rng.normal(size=(3, 4, 50)),
    "ties": lambda rng: rng.integers(-2, 3, size=(4, 60)),
    "equal": lambda rng: np.full((2, 7), 3.0),
    "zeros": lambda rng: np.copysign(0.0, rng.normal(size=(2, 9))),
    "one value": lambda rng: rng.normal(size=(5, 1)),
    "infinite": lambda rng: np.array([[1.0, math.inf, math.inf], [-math.inf, math.inf, 0.0]]),
    "NaN": lambda rng: np.array([[1.0, math.nan, 2.0], [1.0, 2.0, 2.0]]),
    "huge": lambda rng: rng.uniform(-1, 1, size=(2, 9)) * 3.4e38,
    "denormal": lambda rng: rng.normal(size=(2, 9)) * 1e-41,
}
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
# How both ends are used: one of them, the other, or both.
USES = {
    "lowest": lambda lowest, highest: lowest,
    "highest": lambda lowest, highest: highest,
    "width": lambda lowest, highest: highest - lowest,
}


@pytest.fixture(params=["few", "many"], autouse=True)
def counted_as(request, monkeypatch):
    """Rows of these tests count as few values, then as many, which go another way."""
    monkeypatch.setattr(module, "_MANY", {"few": 2**30, "many": 1}[request.param])


def _composed(rows):
    """One reduction for each end, as torch differentiates it."""
    return rows.amin(dim=-1), rows.amax(dim=-1)


def _outcome(function, use, rows):
    """Values, and gradients for a different gradient of each row, as text."""
    leaf = rows.clone().requires_grad_()
    result = USES[use](*function(leaf))
    result.backward(torch.arange(3.0, 3.0 + result.numel(), dtype=result.dtype).reshape(result.shape) / 7)
    # A zero may have the other sign.
    return str(result.tolist()), str((leaf.grad + 0.0).tolist())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("case", ROWS)
def test_values_and_gradients(case, use, dtype):
    """Of ties, infinities, NaN and any size, values and gradients are those of two reductions, to the bit."""
    rows = torch.tensor(ROWS[case](np.random.default_rng(0))).to(dtype)
    assert _outcome(_composed, use, rows) == _outcome(ends, use, rows)


def test_more_equal_values_than_float32_counts():
    """The gradient is shared exactly by 17 million values too."""
    rows = torch.zeros(17_000_001, requires_grad=True)
    ends(rows)[1].backward()
    assert np.float32(1) / np.float32(17_000_001) == rows.grad[0].item()


@pytest.mark.parametrize("use", USES)
def test_compiled_and_transformed(use):
    """Compiled, and under `vmap`, values and gradients are the same."""
    torch.compiler.reset()
    rows = torch.tensor(ROWS["ties"](np.random.default_rng(0)), dtype=torch.float32)
    compiled = torch.compile(ends, backend="aot_eager", fullgraph=True)
    assert [_outcome(ends, use, rows)] * 2 == [_outcome(run, use, rows) for run in (compiled, torch.vmap(ends))]


@pytest.mark.parametrize("use", USES)
def test_gradient_of_a_gradient(use):
    """The gradient of the square of an end is differentiated as that of the composed form is."""

    def second(function):
        rows = torch.tensor([[1.0, -3.0, 4.0], [2.0, 2.0, -1.0]], requires_grad=True)
        (first,) = torch.autograd.grad((USES[use](*function(rows)) ** 3).sum(), rows, create_graph=True)
        return torch.autograd.grad((first**2).sum(), rows)[0].tolist()

    assert second(_composed) == second(ends)


def test_many_gradients_at_once():
    """A batch of incoming gradients gives each what it would get alone."""
    rows = torch.tensor([[1.0, -3.0, 4.0], [2.0, 2.0, -1.0]], requires_grad=True)
    highest = ends(rows)[1]
    (gradients,) = torch.autograd.grad(highest, rows, torch.eye(2), is_grads_batched=True)
    assert [[[0.0, 0.0, 1.0], [0.0] * 3], [[0.0] * 3, [0.5, 0.5, 0.0]]] == gradients.tolist()
