"""Fused functions: their values bit for bit, their gradients, and the bytes that they keep, against the formulas."""

import math

import numpy as np
import pytest
import torch
from torch.autograd.functional import jacobian

from brevq.function.fused import fake_quantize
from brevq.function.largest import abs_max
from brevq.function.ops_ste import round_ste, straight_through
from brevq.function.recording import recorded

DTYPES = [torch.float32, torch.float64]
# Ends of 2 to 16 bits: signed, narrow, unsigned, and unsigned narrow.
ENDS = [(-2, 1), (-1, 1), (0, 3), (0, 14), (-8, 7), (-127, 127), (0, 255), (-32768, 32767)]
# Shape of the tensor, and of its scale: one, one for each channel, for each group, for each token, and no values.
SHAPES = {
    "tensor": ((6, 40), ()),
    "one of a tensor": ((6, 40), (1, 1)),
    "channels": ((6, 40), (6, 1)),
    "inner channels": ((2, 3, 4, 5), (1, 3, 1, 1)),
    "groups": ((3, 4, 10), (3, 4, 1)),
    "last": ((6, 40), (40,)),
    "scalar": ((), ()),
    "empty": ((0, 4), ()),
}
# What is hard: zeros of both signs, denormal, huge, infinite, and no number.
HARD = [0.0, -0.0, 1e-42, -1e-42, 1e38, -1e38, math.inf, -math.inf, math.nan]


def _composed(x, scale, zero_point, low, high, straight=False):
    """The formula, an operation at a time, as torch differentiates it."""
    codes = round_ste(x / scale + zero_point)
    inside = torch.clamp(codes, torch.tensor(float(low)), torch.tensor(float(high)))
    inside = straight_through(codes, inside) if straight else inside
    return (inside - zero_point) * scale


def _tensors(shape, dtype, shifted, seed=0):
    """A tensor, its scale and zero-point, and the gradient that comes in."""
    rng = np.random.default_rng(seed)
    x, above = (torch.tensor(rng.normal(size=shape[0]), dtype=dtype) for _ in range(2))
    scale = torch.tensor(rng.uniform(0.01, 0.3, size=shape[1]), dtype=dtype)
    zero_point = torch.tensor(rng.integers(-3, 4, size=shape[1]) * float(shifted), dtype=dtype)
    return x, scale, zero_point, above


def _gradients(function, inputs, needs, above):
    """The values of a function, and the gradients of those of its inputs that need one."""
    inputs = [tensor.detach().clone().requires_grad_(need) for tensor, need in zip(inputs, needs, strict=True)]
    y = function(*inputs)
    y.backward(above)
    return y.detach(), [tensor.grad for tensor in inputs]


def _saved(function):
    """Bytes that are kept for the gradient of what a function computes."""
    kept = []

    def keep(tensor):
        kept.append(tensor.numel() * tensor.element_size())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        function()
    return sum(kept)


# --- fake quantization: values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_values(shape, ends, shifted, dtype):
    """With or without a gradient to come, the values are those of the formula, bit for bit."""
    x, scale, zero_point, _ = _tensors(SHAPES[shape], dtype, shifted)
    given = zero_point if shifted else None
    expected = _composed(x, scale, zero_point, *ends)
    plain = fake_quantize(x, scale, given, *map(float, ends))
    tracked = fake_quantize(x.requires_grad_(), scale, given, *map(float, ends))
    learned = fake_quantize(x, scale.requires_grad_(), given, *map(float, ends))
    assert [True] * 3 == [torch.equal(expected, y) for y in (plain, tracked, learned)]
    assert [expected.dtype] * 3 == [y.dtype for y in (plain, tracked, learned)]


@pytest.mark.parametrize("zero_point", [None, 3.0])
@pytest.mark.parametrize("learned", [False, True])
def test_hard_values(learned, zero_point):
    """Denormal, huge and infinite numbers and NaN come out as the formula says."""
    x, scale = torch.tensor(HARD), torch.tensor(0.1, requires_grad=learned)
    shift = None if zero_point is None else torch.tensor(zero_point)
    y = fake_quantize(x.requires_grad_(), scale, shift, -8.0, 7.0)
    expected = _composed(x, scale, torch.tensor(zero_point or 0.0), -8, 7)
    assert torch.equal(expected.nan_to_num(99.0), y.nan_to_num(99.0))


def test_the_sign_of_zero():
    """Without a zero-point minus zero stays what it is, where adding a zero-point of zero makes it plus zero."""
    x, scale = torch.tensor([-0.0]), torch.tensor(0.1)
    signs = [
        torch.signbit(y).item() for y in (fake_quantize(x, scale, None, -8.0, 7.0), _composed(x, scale, 0.0, -8, 7))
    ]
    assert [True, False] == signs


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("layout", ["transposed", "channels last", "strided", "expanded"])
def test_layouts(layout, learned):
    """A tensor of any layout is quantized, stays as it is, and the result is laid out as the formula lays it out."""
    x = torch.randn(2, 3, 4, 5)
    x = {
        "transposed": lambda: x.transpose(1, 3),
        "channels last": lambda: x.to(memory_format=torch.channels_last),
        "strided": lambda: x[:, :, ::2, 1:],
        "expanded": lambda: x[:1].expand(2, 3, 4, 5),
    }[layout]()
    before, scale = x.clone(), torch.tensor(0.1)
    above = torch.ones(()).expand(x.shape)
    needs = (True, learned)
    y, grads = _gradients(lambda x, scale: fake_quantize(x, scale, None, -8.0, 7.0), (x, scale), needs, above)
    expected, slow = _gradients(lambda x, scale: _composed(x, scale, 0.0, -8, 7), (x, scale), needs, above)
    assert (True, expected.stride(), True) == (torch.equal(expected, y), y.stride(), torch.equal(before, x))
    assert pytest.approx(slow[0].numpy(), rel=2**-22) == grads[0].numpy()


@pytest.mark.parametrize(
    ("x", "scale"),
    [
        (torch.randn(4).half(), torch.tensor(0.1)),
        (torch.randn(4).bfloat16(), torch.tensor(0.1)),
        (torch.randn(4), torch.tensor([0.1], dtype=torch.float64)),
        (torch.randn(4), torch.full((3, 1), 0.1)),
        (torch.randn(4, 1), torch.full((4,), 0.1)),
        (torch.tensor(0.7), torch.tensor([0.1, 0.2])),
        (torch.tensor(0.7), torch.tensor(0.1, dtype=torch.float64)),
    ],
)
def test_promotion(x, scale):
    """What a scale of another dtype or of more elements makes of a tensor is what the formula makes of it."""
    y, expected = fake_quantize(x, scale, None, -8.0, 7.0), _composed(x, scale, 0.0, -8, 7)
    assert (expected.dtype, expected.tolist()) == (y.dtype, y.tolist())


def test_no_gradient_is_recorded_where_none_is_wanted():
    """Inside `torch.no_grad`, and of tensors that need no gradient, the result needs none."""
    x, scale = torch.randn(4, requires_grad=True), torch.tensor(0.1)
    with torch.no_grad():
        inside = fake_quantize(x, scale, None, -8.0, 7.0)
    outside = fake_quantize(x.detach(), scale, None, -8.0, 7.0)
    assert [False, False] == [y.requires_grad for y in (inside, outside)]


def test_meta():
    """A tensor without values has a result without values, of its shape."""
    y = fake_quantize(torch.empty(2, 3, device="meta", requires_grad=True), torch.tensor(0.1), None, -8.0, 7.0)
    assert ((2, 3), True) == (tuple(y.shape), y.is_meta)


# --- fake quantization: gradients ------------------------------------------------------------------------------------

NEEDS = [(True, False, False), (True, True, False), (True, True, True), (False, True, True), (True, False, True)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("needs", NEEDS)
@pytest.mark.parametrize("straight", [False, True])
@pytest.mark.parametrize("ends", [(-8, 7), (0, 15), (-127, 127)])
@pytest.mark.parametrize("shape", SHAPES)
def test_gradients(shape, ends, straight, needs, dtype):
    """The input receives the incoming gradient or zero, exactly; scale and zero-point receive the formula's sums."""
    *inputs, above = _tensors(SHAPES[shape], dtype, shifted=True)
    limits = (*map(float, ends), straight)
    _, grads = _gradients(lambda *inputs: fake_quantize(*inputs, *limits), inputs, needs, above)
    _, slow = _gradients(lambda *inputs: _composed(*inputs, *limits), inputs, needs, above)
    assert [grad is None for grad in slow] == [grad is None for grad in grads]
    if needs[0]:  # (g * s) / s is g, to rounding
        assert torch.equal(torch.where(slow[0] == 0, 0, above), grads[0])
        assert pytest.approx(slow[0].numpy(), rel=2 * torch.finfo(dtype).eps) == grads[0].numpy()
    for grad, reference in zip(grads[1:], slow[1:], strict=True):
        if grad is not None:  # sums of up to 240 terms of up to 127 steps, in another order
            bound = 240 * 127 * torch.finfo(dtype).eps
            assert (reference.shape, True) == (grad.shape, torch.allclose(reference, grad, rtol=bound, atol=bound))


@pytest.mark.parametrize("needs", NEEDS)
@pytest.mark.parametrize("straight", [False, True])
def test_gradients_of_large_tensors(straight, needs):
    """Gradients of a tensor of millions of values are those of its parts."""
    *inputs, above = _tensors(((3, 400_001), ()), torch.float64, shifted=True)

    def function(x, scale, zero_point):
        return fake_quantize(x, scale, zero_point, -8.0, 7.0, straight)

    def in_parts(x, scale, zero_point):
        return torch.stack([function(row, scale, zero_point) for row in x])

    y, grads = _gradients(function, inputs, needs, above)
    expected, slow = _gradients(in_parts, inputs, needs, above)
    assert torch.equal(expected, y)
    assert [grad is None for grad in slow] == [grad is None for grad in grads]
    if needs[0]:
        assert torch.equal(slow[0], grads[0])
    for grad, reference in zip(grads[1:], slow[1:], strict=True):
        if grad is not None:  # sums in another order
            assert pytest.approx(reference.item(), rel=1e-10, abs=1e-9) == grad.item()


def test_gradients_without_a_zero_point():
    """Without a zero-point the gradients are those with a zero-point of zero, exactly."""
    x, scale, zero_point, above = _tensors(SHAPES["channels"], torch.float32, shifted=False)
    needs = (True, True)
    with_zero = _gradients(lambda x, s: fake_quantize(x, s, zero_point, -8.0, 7.0), (x, scale), needs, above)
    without = _gradients(lambda x, s: fake_quantize(x, s, None, -8.0, 7.0), (x, scale), needs, above)
    assert [grad.tolist() for grad in with_zero[1]] == [grad.tolist() for grad in without[1]]


def test_the_gradient_of_a_scale_by_hand():
    """A scale receives the residue of each value that is not clipped, and the code of each that is."""
    x, scale = torch.tensor([0.3, -1.2, 9.0, -9.0]), torch.tensor(0.5, requires_grad=True)
    fake_quantize(x, scale, None, -4.0, 3.0).backward(torch.tensor([1.0, 10.0, 100.0, 1000.0]))
    # x / scale is 0.6, -2.4, 18 and -18.
    assert pytest.approx((1 - 0.6) + 10 * (-2 + 2.4) + 100 * 3 + 1000 * -4, rel=1e-6) == scale.grad.item()


@pytest.mark.parametrize("learned", [False, True])
def test_hard_gradients(learned):
    """Clipped values and NaN receive zero, even of an infinite gradient; others receive what comes."""
    x = torch.tensor([0.3, 99.0, math.nan, 0.3], requires_grad=True)
    scale = torch.tensor(0.1, requires_grad=learned)
    fake_quantize(x, scale, None, -8.0, 7.0).backward(torch.tensor([2.0, math.inf, 5.0, math.inf]))
    assert [2.0, 0.0, 0.0, math.inf] == x.grad.tolist()


def test_changing_the_result_in_place():
    """The result may be changed in place before its gradient is asked for."""
    x, scale = torch.tensor([0.33, 9.0], requires_grad=True), torch.tensor(0.1, requires_grad=True)
    fake_quantize(x, scale, None, -8.0, 7.0).mul_(2).sum().backward()
    assert [2.0, 0.0] == x.grad.tolist()


def test_changing_the_input_in_place():
    """An input that the scale's gradient needs, and that is changed in place, is an error of torch, not a number."""
    x, scale = torch.randn(4), torch.tensor(0.1, requires_grad=True)
    y = fake_quantize(x, scale, None, -8.0, 7.0)
    x.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


# --- fake quantization: what is kept ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("needs", "straight", "kept"),
    [
        ((True, False, False), False, 1000),  # a byte for each value
        ((True, False, False), True, 0),
        ((True, True, False), False, 4000 + 4 + 4),  # the input, the scale and the zero-point
        ((True, True, True), True, 4000 + 4 + 4),
        ((False, False, False), False, 0),
    ],
)
def test_bytes_kept(needs, straight, kept):
    """For the gradient is kept a byte for each value or nothing, or the input where the scale receives one."""
    inputs = (torch.randn(1000), torch.tensor(0.1), torch.tensor(3.0))
    inputs = [tensor.requires_grad_(need) for tensor, need in zip(inputs, needs, strict=True)]
    assert kept == _saved(lambda: fake_quantize(*inputs, -8.0, 7.0, straight))


def test_the_input_is_kept_and_not_a_copy():
    """What is kept of an input is itself, which costs nothing where something else keeps it."""
    x, scale, kept = torch.randn(1000), torch.tensor(0.1, requires_grad=True), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.data_ptr()), lambda t: t):
        fake_quantize(x, scale, None, -8.0, 7.0)
    assert [x.data_ptr(), scale.data_ptr()] == kept


# --- the largest absolute value --------------------------------------------------------------------------------------


def _rows(dtype):
    """Rows of all sizes; with ties, zeros, neighbours of the maximum, and denormal numbers."""
    rng = np.random.default_rng(3)
    rows = torch.tensor(rng.normal(size=(9, 33)) * 10.0 ** rng.integers(-44, 38, size=(9, 1)), dtype=dtype)
    rows[0], rows[1], rows[2] = 0.0, 2.0, -2.0
    rows[3, :5] = -rows[3].abs().max()
    rows[4] = torch.nextafter(rows[4].abs().max(), torch.zeros((), dtype=dtype))
    rows[5, 0], rows[5, 1:] = 1.0, 1.0 - torch.finfo(dtype).eps / 2
    rows[6], rows[6, 3] = 3e-45, 0.0
    return rows


@pytest.mark.parametrize("dtype", DTYPES)
def test_abs_max(dtype):
    """Maxima and gradients are those of `abs` and `amax`, bit for bit, ties and zeros included."""
    rows, above = _rows(dtype), torch.tensor(np.random.default_rng(4).normal(size=9), dtype=dtype)
    maxima, grads = _gradients(abs_max, [rows], [True], above)
    expected, slow = _gradients(lambda rows: rows.abs().amax(dim=-1), [rows], [True], above)
    assert (expected.tolist(), slow[0].tolist()) == (maxima.tolist(), grads[0].tolist())


@pytest.mark.parametrize("shape", [(20000,), (3, 20000), (20000, 3), (2, 20000, 1)])
def test_abs_max_of_many_values(shape):
    """Of many values the maxima are those of few, bit for bit."""
    rows = torch.tensor(np.random.default_rng(6).normal(size=shape))
    assert np.abs(rows.numpy()).max(axis=-1).tolist() == abs_max(rows).tolist()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_abs_max_of_half_precision(dtype):
    """In half precision the largest value is the largest value, in its dtype."""
    maxima = abs_max(torch.tensor([[1.0, -3.0], [0.5, 0.25]], dtype=dtype))
    assert (dtype, [3.0, 0.5]) == (maxima.dtype, maxima.tolist())


def test_abs_max_of_hard_values():
    """The largest of an infinity is it, that of a NaN is NaN, and that of minus zero is plus zero."""
    rows = torch.tensor([[1.0, -math.inf], [math.nan, 5.0], [-0.0, -0.0]])
    many = rows.repeat(1, 10000)
    assert ["[inf, nan, 0.0]"] * 2 == [str(abs_max(rows).tolist()), str(abs_max(many).tolist())]


def test_abs_max_of_infinities_has_no_gradient():
    """Gradients of a row whose largest value is infinite are NaN; those of other rows are what they are."""
    rows = torch.tensor([[1.0, math.inf], [1.0, -3.0]], requires_grad=True)
    abs_max(rows).sum().backward()
    assert "[[nan, nan], [0.0, -1.0]]" == str((rows.grad + 0.0).tolist())


def test_abs_max_keeps_the_rows():
    """For the gradient are kept the rows themselves, and the maxima."""
    rows = torch.randn(10, 100, requires_grad=True)
    assert 4000 + 40 == _saved(lambda: abs_max(rows))


# --- where operations are recorded -----------------------------------------------------------------------------------


def _functions():
    """Each function of a tensor and a scale, and its formula."""
    return {
        "fake_quantize": (lambda x, s: fake_quantize(x, s, None, -4.0, 3.0), lambda x, s: _composed(x, s, 0.0, -4, 3)),
        "abs_max": (lambda x, s: abs_max(x) * s, lambda x, s: x.abs().amax(dim=-1) * s),
    }


@pytest.fixture(params=_functions())
def routes(request):
    """A function, and its formula."""
    return _functions()[request.param]


@pytest.fixture
def leaves():
    """A tensor and its scale, both of which need gradients."""
    x = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return x.requires_grad_(), torch.tensor(0.3, dtype=torch.float64, requires_grad=True)


def test_gradients_of_gradients(routes, leaves):
    """A gradient can be differentiated again, with the result of the formula."""

    def twice(function):
        first = torch.autograd.grad(function(*leaves).pow(2).sum(), leaves, create_graph=True)
        second = torch.autograd.grad(sum(grad.sum() for grad in first), leaves)
        return np.concatenate([grad.detach().numpy().ravel() for grad in second])

    assert pytest.approx(twice(routes[1]), rel=1e-12) == twice(routes[0])


def test_gradients_of_gradients_of_the_input_alone():
    """The gradient of a quantized tensor depends on what comes in, linearly, and on the tensor not at all."""
    x = torch.tensor([0.3, 9.0], requires_grad=True)
    above = torch.tensor([2.0, 2.0], requires_grad=True)
    (grad,) = torch.autograd.grad(fake_quantize(x, torch.tensor(0.5), None, -4.0, 3.0), x, above, create_graph=True)
    slopes = torch.autograd.grad(grad.sum(), (above, x), allow_unused=True)
    assert ([1.0, 0.0], None) == (slopes[0].tolist(), slopes[1])


def test_many_gradients_at_once(routes, leaves):
    """Jacobians are equal, computed row by row or all rows at once."""
    one, many = (jacobian(routes[0], leaves, vectorize=vectorize) for vectorize in (False, True))
    slow = jacobian(routes[1], leaves)
    assert [True] * 4 == [torch.allclose(a, b, rtol=1e-12) for a, b in zip([*one, *many], [*slow, *slow], strict=True)]


def test_many_gradients_of_the_input_at_once():
    """The Jacobian of a quantized tensor is diagonal: 1 where it is not clipped, and 0 where it is."""
    matrix = jacobian(
        lambda x: fake_quantize(x, torch.tensor(0.5), None, -4.0, 3.0), torch.tensor([0.3, 9.0]), vectorize=True
    )
    assert [[1.0, 0.0], [0.0, 0.0]] == matrix.tolist()


def test_transforms(routes, leaves):
    """`vmap` and `grad` of `torch.func` take the functions, with the results of the formulas."""
    x, scale = (leaf.detach() for leaf in leaves)
    results = []
    for function in routes:
        mapped = torch.vmap(function, (0, None))(x, scale)
        grads = torch.func.grad(lambda x, s, function=function: function(x, s).sum(), (0, 1))(x, scale)
        results.append([mapped.tolist(), *(grad.tolist() for grad in grads)])
    assert results[0] == results[1]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("needs", [(False, False, False), (True, False, False), (True, True, True)])
@pytest.mark.parametrize("straight", [False, True])
@pytest.mark.parametrize("shape", ["tensor", "channels"])
def test_compiled(shape, straight, needs, dtype):
    """Compiled code has the same values and gradients, bit for bit, even of infinite ones."""
    *inputs, above = _tensors(SHAPES[shape], dtype, shifted=True)
    above.view(-1)[:2] = math.inf

    def function(*inputs):
        return fake_quantize(*inputs, -8.0, 7.0, straight)

    torch.compiler.reset()
    compiled = torch.compile(function, backend="eager", fullgraph=True)
    if not any(needs):
        assert function(*inputs).tolist() == compiled(*inputs).tolist()
        return
    results = [_gradients(route, inputs, needs, above) for route in (function, compiled)]
    listed = [[y.tolist(), *(None if grad is None else grad.tolist() for grad in grads)] for y, grads in results]
    assert str(listed[0]) == str(listed[1])


@pytest.mark.parametrize("shape", ["tensor", "channels"])
def test_compiled_of_another_layout(shape):
    """Compiled code sums in the same order, whatever the layout of the gradient that comes in."""
    *inputs, above = _tensors(SHAPES[shape], torch.float32, shifted=True)
    torch.compiler.reset()
    routes = [lambda *inputs: fake_quantize(*inputs, -8.0, 7.0)]
    routes.append(torch.compile(routes[0], backend="eager", fullgraph=True))
    results = [_gradients(route, inputs, (True, True, True), above.t().contiguous().t()) for route in routes]
    assert [grad.tolist() for grad in results[0][1]] == [grad.tolist() for grad in results[1][1]]


def test_abs_max_compiled():
    """Compiled code has the same maxima and gradients, bit for bit."""
    torch.compiler.reset()
    compiled = torch.compile(abs_max, backend="eager", fullgraph=True)
    rows, above = _rows(torch.float32), torch.ones(9)
    results = [_gradients(route, [rows], [True], above) for route in (abs_max, compiled)]
    assert [(y.tolist(), grads[0].tolist()) for y, grads in results[:1]] == [
        (y.tolist(), grads[0].tolist()) for y, grads in results[1:]
    ]


def test_recorded():
    """Only compilation and the transforms of `torch.func` count as recording."""
    seen = []
    torch.vmap(lambda x: (seen.append(recorded()), x)[1])(torch.ones(2))
    assert (False, [True]) == (recorded(), seen)


def test_a_gradient_that_is_differentiated_counts_nothing_twice():
    """Where the scale is computed from the tensor, its way is not also in the tensor's own gradient."""
    x = torch.tensor([0.3, -1.0, 0.55], dtype=torch.float64, requires_grad=True)
    y = fake_quantize(x, abs_max(x) / 7, None, -7, 7, straight=True)
    (kept,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    x = x.detach().requires_grad_()
    y = fake_quantize(x, abs_max(x) / 7, None, -7, 7, straight=True)
    (plain,) = torch.autograd.grad(y.square().sum(), x)
    torch.testing.assert_close(kept, plain, rtol=1e-12, atol=1e-12)
