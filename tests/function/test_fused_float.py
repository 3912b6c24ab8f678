"""Quantization to floating-point numbers in few passes: its values bit for bit, its gradients, and what it keeps."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd.functional import jacobian

from brevq.core.bit_width import BitWidthConst
from brevq.core.formats import FloatFormat, IntFormat, cast_ste
from brevq.core.formats.catalogue import FORMATS, FP4_E2M1, FP8_E4M3, FP8_E5M2
from brevq.core.function_wrapper import PerChannel, RoundSte
from brevq.core.quant import FloatQuant
from brevq.core.restrict_val import FloatRestrictValue, PowerOfTwoRestrictValue
from brevq.core.scaling import ConstScaling, FloatScaling, ParameterScaling, StatsScaling
from brevq.core.stats import AbsMax, AbsPercentile
from brevq.function.fused_float import Numbers, fake_quantize_float
from brevq.function.ops_ste import round_ste, scalar_clamp_ste

DTYPES = [torch.float32, torch.float64]
E4M3 = Numbers(-448.0, 448.0, 3, 2.0**-6)
FORMATS_HERE = {
    **{
        name: format_ for name, format_ in FORMATS.items() if name != "e8m0"
    },  # which begins below float32's normal ones
    "overflows": FloatFormat("e4m3", 4, 3, special="last", saturating=False),
    "unsigned": FloatFormat("u", 3, 3, signed=False),
    "unsigned, overflows": FloatFormat("u", 3, 3, signed=False, special="ieee", saturating=False),
    "one exponent": FloatFormat("e1m6", 1, 6, bias=1),
    "int8": IntFormat(8),
    "int8/64": IntFormat(8, fraction_bits=6),
    "uint4": IntFormat(4, signed=False),
    "int24": IntFormat(24),
}
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


def numbers_of(format_):
    """The numbers of a format, as its quantizer has them."""
    return FloatQuant(format_, ConstScaling(1.0)).numbers


def _composed(x, scale, format_):
    """The formula, an operation at a time, as torch differentiates it."""
    y = cast_ste(format_, x / scale) * scale
    end = torch.finfo(y.dtype).max
    return scalar_clamp_ste(y, -end, end) if getattr(format_, "saturating", True) else y


def _bits(x):
    """The bit patterns of a tensor, those of NaN the same."""
    return torch.where(x.isnan(), math.nan, x).view({4: torch.int32, 8: torch.int64}[x.element_size()])


def _tensors(shape, dtype, seed=0):
    """A tensor that reaches beyond the range of small formats, its scale, and the gradient that comes in."""
    rng = np.random.default_rng(seed)
    x = torch.tensor(rng.normal(size=shape[0]) * 10.0 ** rng.integers(-3, 3, size=shape[0]), dtype=dtype)
    scale = torch.tensor(rng.uniform(0.01, 0.3, size=shape[1]), dtype=dtype)
    return x, scale, torch.tensor(rng.normal(size=shape[0]), dtype=dtype)


def _gradients(function, inputs, needs, above):
    """The values of a function, and the gradients of those of its inputs that need one."""
    inputs = [tensor.detach().clone().requires_grad_(need) for tensor, need in zip(inputs, needs, strict=True)]
    y = function(*inputs)
    y.backward(above)
    return y.detach(), [tensor.grad for tensor in inputs]


def _around(values):
    """Numbers, those between them, what is next to all of these, and the negatives, in float32."""
    middle = (values[1:] + values[:-1]) / 2
    with np.errstate(over="ignore"):  # twice the largest may be infinite
        here = np.concatenate([values, middle, 2 * values[-1:], 1.5 * values[-1:]]).astype(np.float32)
    beside = [np.nextafter(here, np.float32(end)) for end in (-np.inf, np.inf)]
    return torch.tensor(np.concatenate([here, *beside, -here, *(-one for one in beside)]))


# --- values ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS_HERE)
def test_every_number(name):
    """All numbers of a format, halfway between them, and next to these, go where the format takes them."""
    format_ = FORMATS_HERE[name]
    values = np.unique(format_.values().numpy()[-70000:])
    x = _around(values)
    expected = format_.cast(x)
    for tensor in (x, x.clone().requires_grad_()):
        y = fake_quantize_float(tensor, torch.tensor(1.0), numbers_of(format_)).detach()
        assert torch.equal(_bits(expected), _bits(y))


@pytest.mark.parametrize("scale", [1.0, 0.3, 2.0**-9, 1e-30, 1e30])
@pytest.mark.parametrize("name", FORMATS_HERE)
def test_every_half(name, scale):
    """All values of float16, and the edges of float32, have the bits that the formula gives them."""
    halves = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(torch.float16).float()
    powers = torch.exp2(torch.arange(-149.0, 128.0))
    edges = torch.cat([powers, torch.tensor([1e-45, 3.4e38, 3.4028235e38, 1.1754942e-38])])
    x = torch.cat(
        [halves, *(sign * (edges + shift * edges.abs() * 2**-23) for sign in (1, -1) for shift in (-1, 0, 1))]
    )
    x, scale = torch.cat([x, x * scale]), torch.tensor(scale)
    expected = _composed(x, scale, FORMATS_HERE[name])
    assert torch.equal(_bits(expected), _bits(fake_quantize_float(x, scale, numbers_of(FORMATS_HERE[name]))))


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.floats(width=32), min_size=1, max_size=30),
    st.floats(2.0**-60, 2.0**60, width=32),
    st.sampled_from(sorted(FORMATS_HERE)),
)
def test_any_floats(values, scale, name):
    """Whatever the values and the scale, values are those of the formula, and gradients the incoming ones or zero."""
    format_ = FORMATS_HERE[name]
    x, scale, above = torch.tensor(values), torch.tensor(scale), torch.linspace(1.0, 2.0, len(values))
    y, (grad,) = _gradients(lambda x: fake_quantize_float(x, scale, numbers_of(format_)), [x], [True], above)
    expected, (slow,) = _gradients(lambda codes: cast_ste(format_, codes), [x / scale], [True], above)
    assert torch.equal(_bits(_composed(x, scale, format_)), _bits(y))
    assert torch.where(slow == 0, 0, above).tolist() == grad.tolist()
    assert expected.shape == y.shape


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FORMATS_HERE)
@pytest.mark.parametrize("shape", SHAPES)
def test_values(shape, name, dtype):
    """With or without a gradient to come, the values are those of the formula, bit for bit."""
    x, scale, _ = _tensors(SHAPES[shape], dtype)
    numbers = numbers_of(FORMATS_HERE[name])
    expected = _composed(x, scale, FORMATS_HERE[name])
    plain = fake_quantize_float(x, scale, numbers)
    tracked = fake_quantize_float(x.requires_grad_(), scale, numbers)
    learned = fake_quantize_float(x, scale.requires_grad_(), numbers)
    assert [True] * 3 == [torch.equal(_bits(expected), _bits(y.detach())) for y in (plain, tracked, learned)]


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
    above, needs = torch.ones(()).expand(x.shape), (True, learned)
    y, grads = _gradients(lambda x, s: fake_quantize_float(x, s, E4M3), (x, scale), needs, above)
    expected, slow = _gradients(lambda x, s: _composed(x, s, FP8_E4M3), (x, scale), needs, above)
    assert (True, expected.stride(), True) == (torch.equal(expected, y), y.stride(), torch.equal(before, x))
    assert pytest.approx(slow[0].numpy(), rel=2**-22) == grads[0].numpy()


@pytest.mark.parametrize("scale", [torch.tensor([0.1], dtype=torch.float64), torch.full((3, 1), 0.1)])
def test_promotion(scale):
    """What a scale of another dtype or of more elements makes of a tensor is what the formula makes of it."""
    x = torch.randn(4)
    y, expected = fake_quantize_float(x, scale, E4M3), _composed(x, scale, FP8_E4M3)
    assert (expected.dtype, expected.tolist()) == (y.dtype, y.tolist())


def test_no_gradient_is_recorded_where_none_is_wanted():
    """Inside `torch.no_grad`, and of tensors that need no gradient, the result needs none."""
    x, scale = torch.randn(4, requires_grad=True), torch.tensor(0.1)
    with torch.no_grad():
        inside = fake_quantize_float(x, scale, E4M3)
    outside = fake_quantize_float(x.detach(), scale, E4M3)
    assert [False, False] == [y.requires_grad for y in (inside, outside)]


def test_meta():
    """A tensor without values has a result without values, of its shape."""
    y = fake_quantize_float(torch.empty(2, 3, device="meta", requires_grad=True), torch.tensor(0.1), E4M3)
    assert ((2, 3), True) == (tuple(y.shape), y.is_meta)


# --- gradients -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("needs", [(True, False), (True, True), (False, True)])
@pytest.mark.parametrize("name", ["fp8_e4m3", "fp4_e2m1", "fp8_e4m3fnuz", "unsigned", "int8/64", "float16"])
@pytest.mark.parametrize("shape", SHAPES)
def test_gradients(shape, name, needs, dtype):
    """The input receives the incoming gradient or zero, exactly; the scale receives the formula's sum."""
    *inputs, above = _tensors(SHAPES[shape], dtype)
    format_ = FORMATS_HERE[name]
    _, grads = _gradients(lambda x, s: fake_quantize_float(x, s, numbers_of(format_)), inputs, needs, above)
    _, slow = _gradients(lambda x, s: _composed(x, s, format_), inputs, needs, above)
    assert [grad is None for grad in slow] == [grad is None for grad in grads]
    if needs[0]:  # (g * s) / s is g, to rounding
        assert torch.equal(torch.where(slow[0] == 0, 0, above), grads[0])
        assert pytest.approx(slow[0].numpy(), rel=2 * torch.finfo(dtype).eps) == grads[0].numpy()
    if needs[1]:  # sums of up to 240 terms, each the difference of numbers of up to `size`, in another order
        size = (inputs[0] / inputs[1]).abs().amax().item() if inputs[0].numel() else 0.0
        bound = 240 * size * torch.finfo(dtype).eps * 4
        assert (slow[1].shape, True) == (grads[1].shape, torch.allclose(slow[1], grads[1], rtol=0, atol=bound))


@pytest.mark.parametrize("scale", [2.0**-3, 2.0**4])
@pytest.mark.parametrize("name", ["fp8_e4m3", "fp4_e2m1", "fp8_e4m3fnuz", "unsigned", "int8/64", "float16"])
def test_gradients_with_powers_of_two(name, scale):
    """Where the scale is a power of two, gradients of the input are those of the formula, bit for bit."""
    x, _, above = _tensors(SHAPES["tensor"], torch.float32)
    format_, scale = FORMATS_HERE[name], torch.tensor(scale)
    _, (grad,) = _gradients(lambda x: fake_quantize_float(x, scale, numbers_of(format_)), [x], [True], above)
    _, (slow,) = _gradients(lambda x: _composed(x, scale, format_), [x], [True], above)
    assert slow.tolist() == grad.tolist()


def test_the_gradient_of_a_scale_by_hand():
    """A scale receives the residue of each value that is not clipped, and the number of each that is."""
    x, scale = torch.tensor([0.3, -1.2, 9.0, -9.0]), torch.tensor(0.5, requires_grad=True)
    fake_quantize_float(x, scale, Numbers(-6.0, 6.0, 1, 1.0)).backward(torch.tensor([1.0, 10.0, 100.0, 1000.0]))
    # x / scale is 0.6, -2.4, 18 and -18.
    assert pytest.approx((0.5 - 0.6) + 10 * (-2 + 2.4) + 100 * 6 + 1000 * -6, rel=1e-6) == scale.grad.item()


def test_nothing_is_clipped():
    """Where it is known that nothing is clipped, the gradient passes everywhere."""
    x, scale = torch.tensor([0.3, 500.0], requires_grad=True), torch.tensor(1.0, requires_grad=True)
    fake_quantize_float(x, scale, E4M3, straight=True).sum().backward()
    assert ([1.0, 1.0], pytest.approx(0.3125 - 0.3 + 448 - 500)) == (x.grad.tolist(), scale.grad.item())


@pytest.mark.parametrize("learned", [False, True])
def test_hard_gradients(learned):
    """Clipped values and NaN receive zero, even of an infinite gradient; others receive what comes."""
    x = torch.tensor([0.3, 999.0, math.nan, 0.3], requires_grad=True)
    scale = torch.tensor(0.1, requires_grad=learned)
    fake_quantize_float(x, scale, E4M3).backward(torch.tensor([2.0, math.inf, 5.0, math.inf]))
    assert [2.0, 0.0, 0.0, math.inf] == x.grad.tolist()


@pytest.mark.parametrize("needs", [(True, False), (True, True)])
@pytest.mark.parametrize("straight", [False, True])
@pytest.mark.parametrize(
    "shape", [((3, 400_001), ()), ((3, 400_001), (3, 1)), ((500, 801), (500, 1)), ((30, 500, 32), (30, 500, 1))]
)
def test_large_tensors(shape, straight, needs):
    """Values and gradients of a tensor that goes in pieces are those of its rows."""
    *inputs, above = _tensors(shape, torch.float64)

    def function(x, scale):
        return fake_quantize_float(x, scale, E4M3, straight)

    def in_rows(x, scale):
        scales = scale if scale.dim() else scale.expand(len(x))
        return torch.stack([function(row, part) for row, part in zip(x, scales, strict=True)])

    y, grads = _gradients(function, inputs, needs, above)
    expected, slow = _gradients(in_rows, inputs, needs, above)
    assert (True, True) == (torch.equal(expected, y), torch.equal(slow[0], grads[0]))
    assert torch.equal(y, fake_quantize_float(*inputs, E4M3))
    if needs[1]:  # sums in another order
        assert pytest.approx(slow[1].numpy(), rel=1e-9, abs=1e-6) == grads[1].numpy()


# --- what is kept ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("needs", "straight", "kept"),
    [
        ((True, False), False, 1000),  # a byte for each value
        ((True, False), True, 0),
        ((True, True), False, 4000 + 4),  # the input and the scale
        ((False, False), False, 0),
    ],
)
def test_bytes_kept(needs, straight, kept):
    """For the gradient is kept a byte for each value or nothing, or the input where the scale receives one."""
    inputs = [t.requires_grad_(need) for t, need in zip((torch.randn(1000), torch.tensor(0.1)), needs, strict=True)]
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel() * t.element_size()), lambda t: t):
        fake_quantize_float(*inputs, E4M3, straight)
    assert kept == sum(sizes)


def test_changing_the_result_in_place():
    """The result may be changed in place before its gradient is asked for."""
    x, scale = torch.tensor([0.33, 99.0], requires_grad=True), torch.tensor(0.1, requires_grad=True)
    fake_quantize_float(x, scale, E4M3).mul_(2).sum().backward()
    assert [2.0, 0.0] == x.grad.tolist()


# --- where operations are recorded -----------------------------------------------------------------------------------


@pytest.fixture
def leaves():
    """A tensor and its scale, both of which need gradients."""
    x = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return x.requires_grad_(), torch.tensor(0.3, dtype=torch.float64, requires_grad=True)


ROUTES = [
    lambda x, s: fake_quantize_float(x, s, Numbers(-6.0, 6.0, 1, 1.0)),
    lambda x, s: _composed(x, s, FP4_E2M1),
]


def test_gradients_of_gradients(leaves):
    """A gradient can be differentiated again, with the result of the formula."""

    def twice(function):
        first = torch.autograd.grad(function(*leaves).pow(2).sum(), leaves, create_graph=True)
        second = torch.autograd.grad(sum(grad.sum() for grad in first), leaves)
        return np.concatenate([grad.detach().numpy().ravel() for grad in second])

    assert pytest.approx(twice(ROUTES[1]), rel=1e-12) == twice(ROUTES[0])


def test_gradients_of_gradients_of_the_scale_alone():
    """The gradient of a scale alone can be differentiated again."""
    x, scale = torch.tensor([0.3, 9.0]), torch.tensor(0.5, requires_grad=True)
    seconds = []
    for route in ROUTES:
        (first,) = torch.autograd.grad(route(x, scale).pow(2).sum(), scale, create_graph=True)
        seconds.append(torch.autograd.grad(first, scale)[0].item())
    assert pytest.approx(seconds[1]) == seconds[0]


def test_many_gradients_at_once(leaves):
    """Jacobians are equal, computed row by row or all rows at once."""
    one, many = (jacobian(ROUTES[0], leaves, vectorize=vectorize) for vectorize in (False, True))
    slow = jacobian(ROUTES[1], leaves)
    assert [True] * 4 == [torch.allclose(a, b, rtol=1e-12) for a, b in zip([*one, *many], [*slow, *slow], strict=True)]


def test_transforms(leaves):
    """`vmap` and `grad` of `torch.func` take the function, with the results of the formula."""
    x, scale = (leaf.detach() for leaf in leaves)
    results = []
    for function in ROUTES:
        mapped = torch.vmap(function, (0, None))(x, scale)
        grads = torch.func.grad(lambda x, s, function=function: function(x, s).sum(), (0, 1))(x, scale)
        results.append([mapped.tolist(), *(grad.tolist() for grad in grads)])
    assert results[0] == results[1]


@pytest.mark.parametrize("needs", [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("straight", [False, True])
@pytest.mark.parametrize("name", ["fp8_e4m3", "fp8_e4m3fnuz", "int8/64", "float16"])
@pytest.mark.parametrize("shape", ["tensor", "channels"])
def test_compiled(shape, name, straight, needs):
    """Compiled code has the same values and gradients, bit for bit, even of infinite ones."""
    *inputs, above = _tensors(SHAPES[shape], torch.float32)
    above.view(-1)[:2] = math.inf
    numbers = numbers_of(FORMATS_HERE[name])

    def function(*inputs):
        return fake_quantize_float(*inputs, numbers, straight)

    torch.compiler.reset()
    compiled = torch.compile(function, backend="eager", fullgraph=True)
    if not any(needs):
        assert function(*inputs).tolist() == compiled(*inputs).tolist()
        return
    results = [_gradients(route, inputs, needs, above) for route in (function, compiled)]
    listed = [[y.tolist(), *(None if grad is None else grad.tolist() for grad in grads)] for y, grads in results]
    assert str(listed[0]) == str(listed[1])


# --- the quantizer ---------------------------------------------------------------------------------------------------


class Round(torch.nn.Module):
    """Rounding halves to even, which no quantizer knows as the usual one."""

    def forward(self, x):
        """`x` rounded."""
        return round_ste(x)


@pytest.mark.parametrize("power_of_two", [False, True])
@pytest.mark.parametrize("name", sorted({*FORMATS_HERE} - {"bfloat16"}))  # the formula's passes through denormal steps
def test_a_quantizer_has_one_result_by_either_route(name, power_of_two):
    """Values, scale and gradients of a quantizer in few passes are those of one that goes step by step."""
    format_ = FORMATS_HERE[name]
    seen = []
    for rounding in (RoundSte(), Round()):
        restriction = PowerOfTwoRestrictValue() if power_of_two else FloatRestrictValue(1e-10)
        quant = FloatQuant(
            format_, StatsScaling(AbsMax(PerChannel((6, 40), 0)), restriction), FloatScaling(format_), rounding
        )
        x, _, above = _tensors(SHAPES["channels"], torch.float32)
        y, scale, *_ = quant(x.requires_grad_())
        y.backward(above)
        seen.append((quant.numbers is None, y.detach(), scale.detach(), x.grad))
    (fast, *ours), (slow, *theirs) = seen
    assert (False, True) == (fast, slow)
    assert [True, True] == [
        torch.equal(_bits(one), _bits(other)) for one, other in zip(ours[:2], theirs[:2], strict=True)
    ]
    largest = x.detach().abs().amax(1, keepdim=True) == x.detach().abs()  # these have the scale's gradient: a sum
    assert torch.allclose(ours[2][~largest], theirs[2][~largest], rtol=2**-21, atol=0, equal_nan=True)


@pytest.mark.parametrize(
    ("parts", "fast"),
    [
        ({}, True),
        ({"float_to_int_impl": RoundSte()}, True),
        ({"float_to_int_impl": Round()}, False),
        ({"quant_delay_steps": 1}, False),
        ({"bit_width_impl": BitWidthConst(6)}, False),
    ],
)
def test_which_quantizers_take_few_passes(parts, fast):
    """Those whose rounding is the usual one, without delay and without a bit width of their own."""
    assert fast == (FloatQuant(FP8_E5M2, ConstScaling(1.0), **parts).numbers is not None)


@pytest.mark.parametrize(
    "format_",
    [
        FloatFormat("tiny", 4, 3, bias=300),
        FloatFormat("huge", 4, 3, bias=-200),
        FloatFormat("no zero", 2, 1, has_zero=False),
        IntFormat(25),
    ],
    ids=str,
)
def test_which_formats_take_few_passes(format_):
    """Formats that float32 does not hold, and signed ones without zero, go step by step."""
    assert numbers_of(format_) is None


@pytest.mark.parametrize(
    ("statistic", "threshold", "covered"),
    [
        (AbsMax(), FloatScaling(FP8_E4M3), True),
        (AbsPercentile(), FloatScaling(FP8_E4M3), False),
        (AbsMax(), FloatScaling(FORMATS["fp8_e5m3"]), False),  # unsigned: negative values are clipped
        (AbsMax(), None, False),
    ],
)
def test_what_is_never_clipped(statistic, threshold, covered):
    """Nothing is clipped where the range is the largest absolute value, on the largest number of a signed format."""
    format_ = FP8_E4M3 if threshold is None else threshold.float_format
    assert covered == FloatQuant(format_, StatsScaling(statistic, FloatRestrictValue(1e-10)), threshold).covered


def test_a_learned_scale_is_trained_alike():
    """Steps of training a scale end in the same place by either route, to rounding."""
    ends = []
    for rounding in (RoundSte(), Round()):
        quant = FloatQuant(FP4_E2M1, ParameterScaling(2.0), FloatScaling(FP4_E2M1), rounding)
        optimizer = torch.optim.SGD(quant.parameters(), lr=1e-3)
        x = torch.tensor(np.random.default_rng(1).normal(size=(50, 20)))
        for _ in range(20):
            optimizer.zero_grad()
            (quant(x)[0] - x).square().mean().backward()
            optimizer.step()
        ends.append(quant.scaling_impl.value.item())
    assert pytest.approx(ends[1], rel=1e-5) == ends[0]
