"""Rounding halves up and away, at random, and as is learned: against scalar functions of Python's `math`."""

import copy
import math
import pickle
from typing import ClassVar

import pytest
import torch

from brevq.core import function_wrapper as wrapper
from brevq.core.quant import IntQuant
from brevq.errors import ArgumentError
from brevq.function import ops_ste
from brevq.nn import QuantLinear
from brevq.testing import Case, ElementwiseContract
from injectors import Int4WeightPerChannel

# torch.compile itself makes an instance of an autograd.Function, and torch warns of those.
pytestmark = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")

FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
NUMBERS = [k / 4 for k in range(-14, 15)] + [-0.0, -0.1, 0.1, 0.3, -0.3, 1.7, -1.7, 100.5, -100.5, 101.5, -101.5]
SPECIAL = [math.inf, -math.inf, math.nan]


def _signed(whole, x):
    """A whole number with the sign of `x` where it is zero, as IEEE 754 has it."""
    return math.copysign(abs(float(whole)), x)


def _half_up(x):
    return _signed(math.floor(x) + (x - math.floor(x) >= 0.5), x) if math.isfinite(x) else x


def _half_away(x):
    return _signed(math.floor(abs(x)) + (abs(x) - math.floor(abs(x)) >= 0.5), x) if math.isfinite(x) else x


NEAREST = {"RoundHalfUpSte": ("round_half_up_ste", _half_up), "RoundHalfAwaySte": ("round_half_away_ste", _half_away)}


def _exact(x):
    """Numbers that compare bit for bit: minus zero and NaN included."""
    return [float.hex(value) for value in x.double().flatten().tolist()]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", NEAREST)
def test_values_and_gradients(name, dtype):
    """A module gives the exact value of its scalar definition, in the dtype of the input, and passes the gradient."""
    x = torch.tensor(NUMBERS + SPECIAL).to(dtype).requires_grad_()
    above = torch.randn(x.shape).to(dtype)
    y = getattr(wrapper, name)()(x)
    y.backward(above)
    expected = [float.hex(float(NEAREST[name][1](value))) for value in x.double().tolist()]
    assert (expected, _exact(above), dtype) == (_exact(y), _exact(x.grad), y.dtype)


@pytest.mark.parametrize("name", NEAREST)
def test_next_to_a_half(name):
    """What is a bit below a half, or whole and too large for halves, is not moved by rounding errors."""
    half = torch.tensor([0.5, -0.5, 1.5, -1.5, 8388608.5, -8388608.5])
    below, above = (torch.nextafter(half, torch.tensor(end)) for end in (-math.inf, math.inf))
    x = torch.cat([below, above, torch.tensor([8388609.0, -8388609.0, 16777215.0, 1e-30, -1e-30])])
    expected = [float.hex(NEAREST[name][1](value)) for value in x.tolist()]
    assert expected == _exact(getattr(wrapper, name)()(x))


class TestNearest(ElementwiseContract):
    """What any rounding must do."""

    cases: ClassVar = {name: Case(getattr(wrapper, name), reference) for name, (_, reference) in NEAREST.items()}


# torch deprecates torch.jit.script; the functions support it for as long as torch has it.
@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*is deprecated:DeprecationWarning")
@pytest.mark.parametrize("name", ["round_half_up_ste", "round_half_away_ste", "stochastic_round_ste"])
def test_scripts(name):
    """TorchScript gives equal values, minus zero included, and equal gradients."""
    function = getattr(ops_ste, name)
    arguments = (torch.rand(len(NUMBERS)),) if name == "stochastic_round_ste" else ()
    results = []
    for run in (function, torch.jit.script(function)):
        x = torch.tensor(NUMBERS, requires_grad=True)
        y = run(x, *arguments)
        y.backward(torch.arange(1.0, len(NUMBERS) + 1))
        results.append((_exact(y), _exact(x.grad)))
    assert results[0] == results[1]


@pytest.mark.parametrize("dtype", FLOATS)
def test_stochastic_value_is_decided_by_the_number_drawn(dtype):
    """A number goes away from zero where the drawn one is below its fraction, whatever the sign and the dtype."""
    x = torch.tensor(NUMBERS + SPECIAL).to(dtype)
    uniform = torch.where(x == x.trunc(), 0.0, torch.rand(x.shape))  # the least, for whole numbers, which stay

    def expected(value, drawn):
        if not math.isfinite(value):
            return value
        whole = math.floor(abs(value))
        return _signed(whole + (drawn < abs(value) - whole), value)

    pairs = zip(x.double().tolist(), uniform.tolist(), strict=True)
    assert [float.hex(expected(*pair)) for pair in pairs] == _exact(ops_ste.stochastic_round_ste(x, uniform))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("number", [-2.875, -1.5, -0.25, 0.0078125, 0.5, 1.75, 3.0])
def test_stochastic_rounding_is_unbiased(number, dtype):
    """The mean of many roundings is the number, within five standard errors: a chance of 6e-7 to fail if it is."""
    n = 40000
    rounding = wrapper.StochasticRoundSte(rounding_generator=torch.Generator().manual_seed(3))
    y = rounding(torch.full((n,), number, dtype=dtype)).double()
    fraction = number - math.floor(number)
    standard_error = math.sqrt(fraction * (1 - fraction) / n)
    assert (pytest.approx(number, abs=5 * standard_error), {math.floor(number), math.ceil(number)}) == (
        y.mean().item(),
        set(y.unique().int().tolist()),
    )


def test_stochastic_rounding_is_drawn_anew():
    """Each value and each call draws a number of its own."""
    rounding = wrapper.StochasticRoundSte()
    first, second = (rounding(torch.full((64,), 0.5)).tolist() for _ in range(2))
    assert (False, {0.0, 1.0}) == (first == second, set(first))


def test_stochastic_rounding_repeats_by_either_seed():
    """The same seed gives the same numbers: torch's own, or that of a generator, which leaves torch's alone."""
    x, outcomes = torch.full((64,), 0.5), []
    for _ in range(2):
        torch.manual_seed(7)
        own = wrapper.StochasticRoundSte(rounding_generator=torch.Generator().manual_seed(5))
        outcomes.append([own(x).tolist(), wrapper.StochasticRoundSte()(x).tolist(), torch.rand(1).item()])
    torch.manual_seed(7)
    wrapper.StochasticRoundSte()(x)
    assert ([outcomes[0], outcomes[0][2]]) == [outcomes[1], torch.rand(1).item()]


@pytest.mark.parametrize("travel", [lambda m: pickle.loads(pickle.dumps(m)), copy.deepcopy])
def test_generator_travels(travel):
    """A copy continues with the numbers that the original would draw."""
    rounding = wrapper.StochasticRoundSte(rounding_generator=torch.Generator().manual_seed(5))
    x = torch.full((64,), 0.5)
    rounding(x)
    other = travel(rounding)
    assert rounding(x).tolist() == other(x).tolist()


def test_stochastic_rounding_in_evaluation():
    """Evaluation rounds to nearest, halves to even, unless it is asked not to."""
    x = torch.tensor([0.5, 1.5, -0.75, 0.25]).repeat(16)
    modules = [wrapper.StochasticRoundSte(deterministic_inference=asked).eval() for asked in (True, False)]
    nearest = [0.0, 2.0, -1.0, 0.0] * 16
    assert [True, False] == [nearest == module(x).tolist() for module in modules]


def test_stochastic_gradient_is_that_of_the_identity():
    """What comes from above arrives below, in training and in evaluation."""
    x, above = torch.randn(32, requires_grad=True), torch.randn(32)
    rounding = wrapper.StochasticRoundSte()
    grads = [torch.autograd.grad(module(x), x, above)[0].tolist() for module in (rounding, copy.copy(rounding).eval())]
    assert [above.tolist()] * 2 == grads


def test_stochastic_rounding_compiles_whole():
    """One graph, without a break, draws the numbers that the module draws."""
    x, rounding = torch.full((64,), 0.5), wrapper.StochasticRoundSte()
    torch.compiler.reset()
    compiled = torch.compile(rounding, backend="eager", fullgraph=True)
    results = []
    for run in (rounding, compiled):
        torch.manual_seed(1)
        results.append(run(x).tolist())
    assert results[0] == results[1]


X = [-2.5, -1.7, -1.0, -0.2, 0.0, 0.3, 0.5, 1.0, 1.9]
VALUES = [-6.0, -2.0, -0.4, -0.1, 0.0, 0.1, 0.45, 2.0, 6.0]


def _sigmoid(value):
    return 1 / (1 + math.exp(-value))


# Constructor, share of the way up for a value, and its slope.
SHARES = {
    "LearnedRoundHardSigmoid": (
        wrapper.LearnedRoundHardSigmoid,
        lambda v: min(max(1.2 * _sigmoid(v) - 0.1, 0.0), 1.0),
        lambda v: 1.2 * _sigmoid(v) * _sigmoid(-v) if 0 < 1.2 * _sigmoid(v) - 0.1 < 1 else 0.0,
    ),
    "LearnedRoundHardSigmoid wide": (
        lambda: wrapper.LearnedRoundHardSigmoid(1.5, -0.25),
        lambda v: min(max(1.75 * _sigmoid(v) - 0.25, 0.0), 1.0),
        lambda v: 1.75 * _sigmoid(v) * _sigmoid(-v) if 0 < 1.75 * _sigmoid(v) - 0.25 < 1 else 0.0,
    ),
    "LearnedRoundSigmoid": (wrapper.LearnedRoundSigmoid, _sigmoid, lambda v: _sigmoid(v) * _sigmoid(-v)),
    "LearnedRoundSigmoid cold": (
        lambda: wrapper.LearnedRoundSigmoid(0.25),
        lambda v: _sigmoid(4 * v),
        lambda v: 4 * _sigmoid(4 * v) * _sigmoid(-4 * v),
    ),
}
LEARNED = {name: case[0] for name, case in SHARES.items()} | {"LearnedRoundIdentity": wrapper.LearnedRoundIdentity}


def _learned(name, shape=(9,), **options):
    return wrapper.LearnedRoundSte(LEARNED[name](), shape, **options)


@pytest.mark.parametrize("name", SHARES)
def test_learned_rounding_is_soft_in_training(name):
    """In training a number is rounded down and goes up by its share, whose gradient the value receives."""
    create, share, slope = SHARES[name]
    x, value = (torch.tensor(numbers, dtype=torch.float64, requires_grad=True) for numbers in (X, VALUES))
    y = create()(x, value)
    y.sum().backward()
    expected = [math.floor(number) + share(v) for number, v in zip(X, VALUES, strict=True)]
    # A sigmoid, a product and a sum in float64, near 1.
    assert (
        pytest.approx(expected, abs=1e-15),
        [1.0] * len(X),
        pytest.approx([slope(v) for v in VALUES], abs=1e-15),
    ) == (
        y.tolist(),
        x.grad.tolist(),
        value.grad.tolist(),
    )


@pytest.mark.parametrize("name", SHARES)
def test_learned_rounding_is_hard_in_evaluation(name):
    """In evaluation a number goes up where its share is above a half, down where not, and the gradient passes."""
    x = torch.tensor(X, requires_grad=True)
    y = LEARNED[name]().eval()(x, torch.tensor(VALUES))
    y.sum().backward()
    share = SHARES[name][1]
    expected = [math.floor(number) + (share(v) > 0.5) for number, v in zip(X, VALUES, strict=True)]
    assert (expected, [1.0] * len(X)) == (y.tolist(), x.grad.tolist())


def test_learned_shift():
    """The identity shifts before rounding to nearest, and passes the gradient to both."""
    x, value = (torch.tensor(numbers, requires_grad=True) for numbers in ([0.3, 0.3, -0.7], [0.1, 0.4, 0.3]))
    y = wrapper.LearnedRoundIdentity()(x, value)
    y.sum().backward()
    assert ([0.0, 1.0, 0.0], [1.0] * 3, [1.0] * 3) == (y.abs().tolist(), x.grad.tolist(), value.grad.tolist())


@pytest.mark.parametrize("name", SHARES)
def test_learned_rounding_starts_from_the_numbers(name):
    """The first tensor comes out as it went in: exactly by the stretched sigmoid, within 0.0001 by the plain one."""
    limit = 0.0 if "Hard" in name else 1e-4
    # A sigmoid and its inverse in float32, each with a few roundings of numbers below 10.
    assert pytest.approx(X, abs=limit + 10 * 2**-23) == _learned(name)(torch.tensor(X)).tolist()


@pytest.mark.parametrize("name", LEARNED)
def test_learned_rounding_starts_as_nearest_rounding(name):
    """In evaluation, before any training, numbers are rounded to nearest."""
    x = torch.tensor([-2.6, -1.7, -1.0, -0.2, 0.0, 0.3, 0.51, 1.0, 1.9])
    assert [-3.0, -2.0, -1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 2.0] == (_learned(name).eval()(x) + 0.0).tolist()


def test_learned_rounding_starts_once():
    """Only the first tensor gives the values; after a reset the next one does."""
    rounding = _learned("LearnedRoundHardSigmoid", (1,)).eval()
    x, other = torch.tensor([0.25]), torch.tensor([0.75])
    seen = [rounding(x).item(), rounding(other).item()]
    rounding.reset()
    assert [0.0, 0.0, 1.0] == [*seen, rounding(other).item()]


@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize("name", LEARNED)
def test_learned_rounding_travels(name, started, travel, outcome):
    """A copy, by whatever way, gives equal values and gradients, whether it has seen a tensor or not."""
    module = _learned(name)
    if started:
        module(torch.tensor(X))
        with torch.no_grad():
            module.value += torch.linspace(-1.0, 1.0, len(X))
    copied = travel(lambda: _learned(name), module)
    x = torch.tensor(X) + 0.05
    assert outcome(module, x) == outcome(copied, x)


def test_learned_rounding_state():
    """The values and whether they have started are saved."""
    rounding = _learned("LearnedRoundSigmoid", (2, 3))
    before = bool(rounding.started)
    rounding(torch.zeros(2, 3))
    expected = ({"value": (2, 3), "started": ()}, False, True)
    state = rounding.state_dict()
    assert expected == ({name: tuple(t.shape) for name, t in state.items()}, before, bool(state["started"]))


def test_learned_rounding_in_groups():
    """Values are laid out as the tensor is for quantization, and filled up as it is."""
    groups = wrapper.PerGroup(group_size=4, pad=True, tensor_shape=(2, 6))
    rounding = _learned("LearnedRoundHardSigmoid", (2, 6), granularity_impl=groups)
    x = groups.split(torch.randn(2, 6))
    # A sigmoid and its inverse in float32, each with a few roundings of numbers below 10.
    assert ((2, 2, 4), pytest.approx(x.flatten().tolist(), abs=10 * 2**-23)) == (
        tuple(rounding.value.shape),
        rounding(x).flatten().tolist(),
    )


def test_learned_rounding_on_a_grid():
    """As an integer grid's rounding it moves weights to one of their two neighbours, and learns which."""
    rounding = _learned("LearnedRoundHardSigmoid", (4,))
    grid = IntQuant(narrow_range=True, signed=True, float_to_int_impl=rounding)
    x, target = torch.tensor([0.3, 0.3, 0.7, 0.7]), torch.tensor([0.0, 1.0, 0.0, 1.0])
    optimizer = torch.optim.Adam(rounding.parameters(), lr=0.1)
    arguments = (torch.tensor(1.0), torch.tensor(0.0), torch.tensor(4.0), x)
    for _ in range(60):
        optimizer.zero_grad()
        grid(*arguments).sub(target).square().sum().backward()
        optimizer.step()
    assert target.tolist() == grid.eval()(*arguments).tolist()


@pytest.mark.parametrize("impl", [*NEAREST, "StochasticRoundSte"])
def test_recipes_name_rounding(impl):
    """A recipe's `float_to_int_impl` is any of them."""
    layer = QuantLinear(6, 4, weight_quant=Int4WeightPerChannel, weight_float_to_int_impl=getattr(wrapper, impl)).eval()
    codes = (layer.weight / layer.quant_weight().scale).detach()
    expected = [round(code) for code in codes.flatten().tolist()]  # none is a half
    assert expected == (layer.quant_weight().value / layer.quant_weight().scale).round().flatten().int().tolist()


@pytest.mark.parametrize("impl", [case for case in LEARNED if " " not in case])
def test_recipes_learn_rounding(impl):
    """A recipe names learned rounding and its variant; the layer supplies the shape, and its state round-trips."""
    recipe = Int4WeightPerChannel.let(
        float_to_int_impl=wrapper.LearnedRoundSte, learned_round_impl=getattr(wrapper, impl)
    )
    layer, other = (QuantLinear(6, 4, weight_quant=recipe) for _ in range(2))
    x = torch.randn(2, 6)
    layer(x).sum().backward()
    gradients = [p.grad.abs().sum().item() > 0 for name, p in layer.named_parameters() if name.endswith("_impl.value")]
    other.load_state_dict(layer.state_dict())
    assert ([True], layer(x).tolist()) == (gradients, other(x).tolist())


def test_regularization():
    """Shares of a half cost one each, decided ones nothing, and its gradient pushes away from a half."""
    share = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0], dtype=torch.float64, requires_grad=True)
    cost = wrapper.rounding_regularization(share, beta=3.0)
    cost.backward()
    expected = sum(1 - abs(2 * s - 1) ** 3 for s in share.tolist())
    slopes = [-6 * abs(2 * s - 1) ** 2 * ((s > 0.5) - (s < 0.5)) for s in share.tolist()]
    assert (expected, slopes) == (cost.item(), share.grad.tolist())


REFUSALS = [
    (
        lambda: wrapper.LearnedRoundHardSigmoid(learned_round_zeta=1.0),
        "`learned_round_zeta` (=1.0) must be a number from 1.001 to 100",
    ),
    (
        lambda: wrapper.LearnedRoundHardSigmoid(learned_round_gamma=0.0),
        "`learned_round_gamma` (=0.0) must be a number from -100 to -0.001",
    ),
    (
        lambda: wrapper.LearnedRoundSigmoid(learned_round_temperature=0),
        "`learned_round_temperature` (=0) must be a finite number above 0",
    ),
    (
        lambda: wrapper.rounding_regularization(torch.tensor(0.5), beta=0),
        "`beta` (=0) must be a number from 1 to 1000",
    ),
    (
        lambda: _learned("LearnedRoundSigmoid", (2, 3))(torch.zeros(3, 2)),
        "rounding is learned for each value of a tensor of shape (2, 3), and can not round one of shape (3, 2). "
        "`tensor_shape` is the shape of the weight; a quantizer that several layers share can not learn to round",
    ),
]


@pytest.mark.parametrize(("act", "message"), REFUSALS)
def test_what_makes_no_sense_is_refused(act, message):
    """An argument out of range, or a tensor of another shape, is refused with its rule."""
    with pytest.raises(ArgumentError) as error:
        act()
    assert message == str(error.value)
