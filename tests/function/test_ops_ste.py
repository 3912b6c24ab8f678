"""Straight-through estimators, against scalar functions of Python's `math`."""

import math

import pytest
import torch

from brevq.function import ops_ste

FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
NUMBERS = [k / 4 for k in range(-14, 15)] + [-0.0, -0.1, 0.1, 0.3, -0.3, 1.7, -1.7, 100.5, -100.5, 101.5, -101.5]
SPECIAL = [math.inf, -math.inf, math.nan]


def _of_finite(function):
    """A function of finite numbers that keeps what is infinite or NaN, and the sign of a zero, as IEEE 754 does."""
    return lambda x: math.copysign(abs(float(function(x))), x) if math.isfinite(x) else x


def _dpu(x):
    fraction = x - math.floor(x)
    return math.ceil(x) if x < 0 and fraction == 0.5 else round(x)


def _sign(at_zero):
    def sign(x):
        if math.isnan(x):
            return x
        return at_zero if x == 0 else math.copysign(1.0, x)

    return sign


ROUNDING = {
    "round_ste": _of_finite(round),  # Python's own rounds halves to even
    "ceil_ste": _of_finite(math.ceil),
    "floor_ste": _of_finite(math.floor),
    "round_to_zero_ste": _of_finite(math.trunc),
    "dpu_round_ste": _of_finite(_dpu),
}
SIGNS = {"binary_sign_ste": _sign(1.0), "ternary_sign_ste": _sign(0.0)}
CLAMPS = {
    "scalar_clamp_ste": ((-1.5, 2.0), lambda x: x if math.isnan(x) else min(max(x, -1.5), 2.0)),
    "scalar_clamp_min_ste": ((-1.5,), lambda x: x if math.isnan(x) else max(x, -1.5)),
    "tensor_clamp_ste": (
        (torch.tensor(-1.5), torch.tensor(2.0)),
        lambda x: x if math.isnan(x) else min(max(x, -1.5), 2.0),
    ),
}
# Each name with its further arguments and its scalar reference.
CASES = {name: ((), reference) for name, reference in {**ROUNDING, **SIGNS}.items()} | CLAMPS


def _exact(x):
    """Numbers that compare bit for bit: minus zero and NaN included."""
    return [float.hex(value) for value in x.double().flatten().tolist()]


def _applied(name, x):
    arguments, _ = CASES[name]
    return getattr(ops_ste, name)(x, *(a.to(x.dtype) if isinstance(a, torch.Tensor) else a for a in arguments))


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", CASES)
def test_values(name, dtype, requires_grad):
    """Every function gives the exact value of its scalar definition, special values and minus zero included."""
    x = torch.tensor(NUMBERS + SPECIAL).to(dtype)
    reference = CASES[name][1]
    expected = [float.hex(float(reference(value))) for value in x.double().tolist()]
    if name == "ternary_sign_ste":  # of a zero of either sign
        expected = [value.replace("-0x0.0p+0", "0x0.0p+0") for value in expected]
    assert expected == _exact(_applied(name, x.requires_grad_(requires_grad)))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", CASES)
def test_gradient_is_that_of_the_identity(name, dtype):
    """What comes from above arrives below, bit for bit, for values inside and outside of any limit."""
    x = torch.tensor(NUMBERS + SPECIAL).to(dtype).requires_grad_()
    above = torch.randn(x.shape).to(dtype)
    _applied(name, x).backward(above)
    assert _exact(above) == _exact(x.grad)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", CASES)
def test_dtype_and_shape_are_kept(name, dtype):
    """A result has the dtype and the shape of the input, scalars and empty tensors included."""
    inputs = [torch.randn(shape).to(dtype) for shape in [(), (0,), (3,), (2, 0, 4), (2, 3, 4)]]
    expected = [(x.dtype, x.shape) for x in inputs]
    assert expected == [(y.dtype, y.shape) for y in (_applied(name, x) for x in inputs)]


@pytest.mark.parametrize("name", CASES)
def test_layout_does_not_matter(name):
    """A transposed view gives the transposed result and the transposed gradient."""
    x = torch.randn(5, 3, requires_grad=True)
    y = _applied(name, x.t())
    y.backward(torch.arange(15.0).reshape(3, 5))
    expected = (_applied(name, x.detach()).t().tolist(), torch.arange(15.0).reshape(3, 5).t().tolist())
    assert expected == (y.tolist(), x.grad.tolist())


@pytest.mark.parametrize("name", CASES)
def test_input_is_left_alone(name):
    """No function writes to its input."""
    x = torch.tensor(NUMBERS)
    _applied(name, x)
    assert NUMBERS == pytest.approx(x.tolist(), rel=2**-24)  # they are doubles, x holds the nearest float32


@pytest.mark.parametrize("name", CASES)
def test_second_derivative_is_zero(name):
    """The estimator is linear, so the gradient of a square of it is twice the value, and of that, two."""
    x = torch.tensor([0.3, -1.2], requires_grad=True)
    y = _applied(name, x)
    (first,) = torch.autograd.grad((y**2).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    assert ((2 * y).tolist(), [2.0, 2.0]) == (first.tolist(), second.tolist())


@pytest.mark.parametrize("name", CASES)
def test_functional_gradients(name):
    """`torch.func` takes the gradient through an estimator, also of many inputs at once."""
    x, above = torch.tensor([0.3, -2.2, 1.5]), torch.tensor([1.0, 2.0, 3.0])
    whole = torch.func.grad(lambda z: (_applied(name, z) * above).sum())(x)
    mapped = torch.func.vmap(torch.func.grad(lambda z: _applied(name, z)))(x)
    assert ([1.0, 2.0, 3.0], [1.0, 1.0, 1.0]) == (whole.tolist(), mapped.tolist())


# torch.compile itself makes an instance of an autograd.Function, and torch warns of those.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("name", CASES)
def test_compiles_whole(name):
    """One graph, without a break, gives equal values and gradients."""
    x = torch.tensor(NUMBERS, requires_grad=True)
    above = torch.arange(1.0, len(NUMBERS) + 1)
    torch.compiler.reset()
    compiled = torch.compile(lambda z: _applied(name, z), backend="eager", fullgraph=True)
    y = compiled(x)
    y.backward(above)
    assert (_exact(_applied(name, x.detach())), _exact(above)) == (_exact(y), _exact(x.grad))


# torch deprecates torch.jit.script; the functions support it for as long as torch has it.
@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*is deprecated:DeprecationWarning")
@pytest.mark.parametrize("name", [*CASES, "tensor_clamp", "abs_binary_sign_grad"])
def test_scripts(name):
    """TorchScript gives equal values, minus zero included, and equal gradients."""
    arguments = CASES[name][0] if name in CASES else CLAMPS["tensor_clamp_ste"][0] if "clamp" in name else ()
    function = getattr(ops_ste, name)
    scripted = torch.jit.script(function)
    above = torch.arange(1.0, len(NUMBERS) + 1)
    results = []
    for run in (function, scripted):
        x = torch.tensor(NUMBERS, requires_grad=True)
        y = run(x, *arguments)
        y.backward(above)
        results.append((_exact(y), _exact(x.grad)))
    assert results[0] == results[1]


def test_straight_through_joins_a_value_to_a_gradient():
    """The value is that of the second argument, bit for bit, and the whole gradient goes to the first."""
    x = torch.tensor([1e30, 0.1, 5.0, -1.0, 2.0], requires_grad=True)
    y = torch.tensor([1e-30, -0.0, math.inf, math.nan, 3.0], requires_grad=True)
    result = ops_ste.straight_through(x, y)
    result.backward(torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]))
    assert (_exact(y), [1.0, 2.0, 3.0, 4.0, 5.0], None) == (_exact(result), x.grad.tolist(), y.grad)


def test_limits_of_a_straight_through_clamp_receive_no_gradient():
    """All of the gradient is the input's."""
    limits = [torch.tensor(limit, requires_grad=True) for limit in (-1.0, 1.0)]
    x = torch.tensor([-3.0, 0.5, 3.0], requires_grad=True)
    ops_ste.tensor_clamp_ste(x, *limits).sum().backward()
    assert ([1.0, 1.0, 1.0], [None, None]) == (x.grad.tolist(), [limit.grad for limit in limits])


def test_clamp_has_the_true_gradient():
    """Inside and on the ends it is the input's; beyond an end it is that end's."""
    low, high = (torch.tensor(limit, requires_grad=True) for limit in (-1.0, 1.0))
    x = torch.tensor([-3.0, -2.0, -1.0, 0.5, 1.0, 4.0], requires_grad=True)
    y = ops_ste.tensor_clamp(x, low, high)
    y.backward(torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0, 32.0]))
    expected = ([-1.0, -1.0, -1.0, 0.5, 1.0, 1.0], [0.0, 0.0, 4.0, 8.0, 16.0, 0.0], 3.0, 32.0)
    assert expected == (y.tolist(), x.grad.tolist(), low.grad.item(), high.grad.item())


def test_clamp_broadcasts_its_limits():
    """Limits with one value for each row limit that row, and add up its gradients."""
    low, high = torch.zeros(2, 1), torch.tensor([[1.0], [2.0]], requires_grad=True)
    y = ops_ste.tensor_clamp(torch.tensor([[-1.0, 3.0, 4.0], [-1.0, 3.0, 0.5]]), low, high)
    y.sum().backward()
    assert ([[0.0, 1.0, 1.0], [0.0, 2.0, 0.5]], [[2.0], [1.0]]) == (y.tolist(), high.grad.tolist())


def test_clamp_keeps_nan():
    """NaN is not a number below or above a limit: it stays."""
    assert ["nan"] == _exact(ops_ste.tensor_clamp(torch.tensor([math.nan]), torch.tensor(0.0), torch.tensor(1.0)))


@pytest.mark.parametrize("dtype", FLOATS)
def test_absolute_value_can_leave_zero(dtype):
    """The value is the absolute one; the gradient is 1 at zero and above, and -1 below."""
    x = torch.tensor([-2.5, -0.0, 0.0, 3.0, -math.inf], dtype=dtype, requires_grad=True)
    y = ops_ste.abs_binary_sign_grad(x)
    y.sum().backward()
    expected = ([2.5, 0.0, 0.0, 3.0, math.inf], [-1.0, 1.0, 1.0, 1.0, -1.0], dtype)
    assert expected == (y.tolist(), x.grad.tolist(), y.dtype)


def test_absolute_value_keeps_nan():
    """The absolute value of NaN is NaN."""
    assert ["nan"] == _exact(ops_ste.abs_binary_sign_grad(torch.tensor([math.nan])))
