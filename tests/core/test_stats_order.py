"""The k-th smallest of rows, by either route: what NumPy's sorting gives, to the bit, and where the gradient goes."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from brevq.core.function_wrapper import PerChannel, PerGroup, PerTensor
from brevq.core.stats import AbsPercentile, NegativePercentileOrZero, PercentileInterval
from brevq.core.stats.order import kth_smallest, kth_smallest_magnitude, kth_smallest_of_relu

# torch.compile itself makes an instance of an autograd.Function, and torch warns of those.
pytestmark = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")

FUNCTIONS = {
    "value": (kth_smallest, lambda x: x),
    "magnitude": (kth_smallest_magnitude, np.abs),
}
#: And those of ReLU, whose gradients are compared with those by way of ReLU.
VALUES = {**FUNCTIONS, "relu": (kth_smallest_of_relu, lambda x: np.maximum(x, 0))}
# What is drawn from a generator: all different, a few different ones, equal ones, and none but zeros of both signs.
DRAWS = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "denormal": lambda rng, shape: rng.normal(size=shape) * 1e-41,
    "ties": lambda rng, shape: rng.integers(-3, 4, size=shape),
    "rectified": lambda rng, shape: np.maximum(rng.normal(size=shape) - 1, 0),
    "clipped": lambda rng, shape: rng.normal(size=shape).clip(-0.5, 0.5),
    "equal": lambda rng, shape: np.full(shape, -2.0),
    "zeros": lambda rng, shape: np.copysign(0.0, rng.normal(size=shape)),
    "sorted": lambda rng, shape: np.sort(rng.normal(size=shape)),
    "huge": lambda rng, shape: rng.uniform(-1, 1, size=shape) * 3.4e38,
}
SPECIAL = {"none": [], "infinite": [math.inf], "both infinite": [math.inf, -math.inf], "NaN": [math.nan]}
# Where a selection among few begins: rows below and above it, that are or are not whole numbers of blocks, one or many.
SHAPES = [(1,), (7,), (100,), (16383,), (16384,), (20011,), (65536,), (70001,), (3, 9001), (5, 16384), (2, 70, 130)]


class Operations(TorchDispatchMode):
    """The names of the operations that run, and of how many values each takes."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        """Note the operation and run it."""
        size = max([x.numel() for x in args if isinstance(x, torch.Tensor)], default=0)
        self.seen.append((function.overloadpacket.__name__, size))
        return function(*args, **(kwargs or {}))


def _bits(x):
    """Numbers by their bits, zeros of either sign being one, and NaN."""
    x = np.asarray(x) + 0.0
    return np.where(np.isnan(x), np.nan, x).astype(x.dtype).tobytes()


def _reference(x, k):
    """By sorting, in which NaN comes last and takes the row with it."""
    kth = np.sort(x, axis=-1)[..., min(max(k, 1), x.shape[-1]) - 1]
    return np.where(np.isnan(x).any(axis=-1), np.nan, kth).astype(x.dtype)


@settings(max_examples=150, deadline=None)
@given(
    function=st.sampled_from(sorted(VALUES)),
    draw=st.sampled_from(sorted(DRAWS)),
    special=st.sampled_from(sorted(SPECIAL)),
    shape=st.sampled_from(SHAPES),
    place=st.sampled_from([0.0, 1e-5, 1e-3, 0.004, 0.0156, 0.02, 0.5, 0.98, 0.9845, 0.996, 0.999, 0.99999, 1.0]),
    dtype=st.sampled_from([np.float32, np.float64]),
    seed=st.integers(0, 2**32 - 1),
)
def test_values_are_those_of_sorting(function, draw, special, shape, place, dtype, seed):
    """Of all sizes, ties, infinities, NaN, zeros and denormals, the value is that of NumPy, to the bit."""
    compute, transform = VALUES[function]
    rng = np.random.default_rng(seed)
    x = DRAWS[draw](rng, shape).astype(dtype)
    for value in SPECIAL[special]:
        x.reshape(-1)[rng.integers(x.size)] = value
    k = round(place * shape[-1])
    assert _bits(_reference(transform(x), k)) == _bits(compute(torch.from_numpy(x), k).numpy())


@pytest.mark.parametrize("number", [1, 2, 11, 255, 256, 257, 300])
@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("end", ["first", "last"])
def test_gradient_of_different_values(end, function, number):
    """Near an end and farther from it, the gradient of a row goes to the value that was selected, with its sign."""
    compute, transform = FUNCTIONS[function]
    rng = np.random.default_rng(number)
    x = (rng.permutation(2 * 16390) * rng.choice([-1.0, 1.0], size=2 * 16390)).reshape(2, -1).astype(np.float32)
    k = number if end == "first" else x.shape[1] + 1 - number
    leaf = torch.tensor(x, requires_grad=True)
    (compute(leaf, k) * torch.tensor([3.0, 5.0])).sum().backward()
    expected = np.zeros_like(x)
    for row in range(2):
        place = np.argsort(transform(x[row]))[k - 1]
        expected[row, place] = (3.0, 5.0)[row] * (1.0 if function == "value" else np.sign(x[row, place]))
    assert (expected == leaf.grad.numpy()).all()


@pytest.mark.parametrize("k", [1, 3, 19998, 20000])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_gradient_of_ties(function, k):
    """Where several values are the k-th smallest, one of them receives all of the gradient."""
    compute, transform = FUNCTIONS[function]
    x = np.random.default_rng(k).integers(-3, 4, size=20000).astype(np.float32) + np.float32(0.25)
    leaf = torch.tensor(x, requires_grad=True)
    value = compute(leaf, k)
    value.backward()
    (place,) = np.flatnonzero(leaf.grad.numpy())
    expected = (value.item(), 1.0 if function == "value" else np.sign(x[place]))
    assert expected == (transform(x)[place], leaf.grad[place].item())


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize("shape", [(100,), (20011,), (3, 16384)])
def test_of_relu_is_by_way_of_relu(shape, draw):
    """The value of ReLU's output and its gradient are had from the input alone, ties and zeros included."""
    x = torch.from_numpy(DRAWS[draw](np.random.default_rng(0), shape).astype(np.float32))
    for k in (1, shape[-1] // 2, shape[-1] - 200, shape[-1] - 1, shape[-1]):
        leaves = [x.clone().requires_grad_() for _ in range(2)]
        results = kth_smallest_of_relu(leaves[0], k), kth_smallest_magnitude(torch.relu(leaves[1]), k)
        for result in results:
            result.sum().backward()
        assert torch.equal(*results)
        assert torch.equal(leaves[0].grad, leaves[1].grad)


@pytest.mark.parametrize("size", [100, 20000])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_nan_receives_no_gradient(function, size):
    """A row with a NaN gives NaN, and a gradient of zero, by either route."""
    leaf = torch.ones(2, size)
    leaf[0, 7] = math.nan
    leaf.requires_grad_()
    result = FUNCTIONS[function][0](leaf, size)
    result.sum().backward()
    assert ([True, False], 0.0, 1.0) == (
        torch.isnan(result).tolist(),
        leaf.grad[0].abs().sum().item(),
        leaf.grad[1].sum().item(),
    )


@pytest.mark.parametrize("function", FUNCTIONS)
def test_gradient_of_a_gradient(function):
    """The gradient can itself be differentiated: of the square of a value it is twice the value, and then two."""
    leaf = torch.arange(-5.0, 20000.0, requires_grad=True)
    (first,) = torch.autograd.grad(FUNCTIONS[function][0](leaf, 20004) ** 2, leaf, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), leaf)
    assert ([19998.0 * 2, 2.0], 2) == (
        [first[-2].item(), second[-2].item()],
        int((first != 0).sum() + (second != 0).sum()),
    )


@pytest.mark.parametrize("function", FUNCTIONS)
def test_compiled_and_transformed(function):
    """Compiled, and under `vmap`, values and gradients are the same."""
    torch.compiler.reset()
    compute, _ = FUNCTIONS[function]
    x = torch.from_numpy(np.random.default_rng(1).normal(size=(2, 20000)).astype(np.float32))
    results = []
    for run in (
        lambda x: compute(x, 19999),
        torch.compile(lambda x: compute(x, 19999), backend="aot_eager", fullgraph=True),
        torch.vmap(lambda x: compute(x, 19999)),
    ):
        leaf = x.clone().requires_grad_()
        result = run(leaf)
        result.sum().backward()
        results.append((result.tolist(), leaf.grad.nonzero().tolist(), leaf.grad.sum().item()))
    assert [results[0]] * 2 == results[1:]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_half_precision(function, dtype):
    """Half precision, in which many values are equal, is selected as it is."""
    compute, transform = FUNCTIONS[function]
    x = torch.from_numpy(np.random.default_rng(1).normal(size=20000)).to(dtype)
    expected = _reference(transform(x.double().numpy()), 19990)
    assert (expected, dtype) == (compute(x, 19990).double().item(), compute(x, 19990).dtype)


CASES = {
    "AbsPercentile": AbsPercentile,
    "PercentileInterval": PercentileInterval,
    "NegativePercentileOrZero": NegativePercentileOrZero,
}
LAYOUTS = {
    "tensor": PerTensor,
    "channels": lambda: PerChannel((64, 500), 0),
    "columns": lambda: PerChannel((64, 500), 1),
    "groups": lambda: PerGroup(group_size=100),
}
LARGE = {"tensor": (64, 500), "channels": (64, 500), "columns": (128, 500), "groups": (64, 500)}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", CASES)
def test_default_percentiles_sort_nothing(case, layout):
    """With the percentiles that are the defaults no selection, and no sorting, goes over a large tensor's values."""
    granularity = LAYOUTS[layout]()
    x = granularity.split(torch.randn(LARGE[layout], generator=torch.Generator().manual_seed(0)))
    with Operations() as operations:
        CASES[case](granularity)(x)
    whole = {name for name, size in operations.seen if size == x.numel()}
    assert set() == whole & {"kthvalue", "sort", "topk", "abs", "isnan"}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", CASES)
def test_percentiles_of_large_tensors(case, layout):
    """Percentiles of tensors, channels and groups, by few values, are those of NumPy, to the bit."""
    granularity = LAYOUTS[layout]()
    x = granularity.split(torch.randn(LARGE[layout], generator=torch.Generator().manual_seed(0)))
    rows = granularity(x).numpy()
    n = rows.shape[-1]
    high, low = math.floor(0.99999 * n + 0.5), math.ceil(0.00001 * n)
    expected = {
        "AbsPercentile": lambda: _reference(np.abs(rows), high),
        "PercentileInterval": lambda: _reference(rows, high).clip(0) - _reference(rows, low).clip(None, 0),
        "NegativePercentileOrZero": lambda: _reference(rows, low).clip(None, 0),
    }[case]()
    assert _bits(expected) == _bits(CASES[case](granularity)(x).reshape(expected.shape).numpy())


def test_a_percentile_does_not_keep_the_tensor():
    """For the gradient of a percentile few places are kept, and not the tensor that it is of."""
    kept, x = [], torch.randn(100_000, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        kth_smallest_magnitude(x, 99_999)
    assert max(kept) < 5000
