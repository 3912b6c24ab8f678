"""The delay of quantization: training steps in float, counted in the state."""

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from brevq.core.bit_width import BitWidthConst
from brevq.core.formats.catalogue import FP4_E2M1
from brevq.core.function_wrapper import RoundSte
from brevq.core.quant import (
    BinaryQuant,
    ClampedBinaryQuant,
    DecoupledIntQuant,
    DelayWrapper,
    FloatQuant,
    IntQuant,
    TernaryQuant,
    TruncIntQuant,
)
from brevq.core.scaling import ConstScaling, FloatScaling
from brevq.errors import ArgumentError, ArgumentTypeError

# torch.compile itself makes an instance of an autograd.Function, and torch warns of those.
pytestmark = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")

X = torch.tensor([0.31, -0.72])
SCALE, ZERO, BITS = torch.tensor(0.25), torch.tensor(0.0), torch.tensor(4.0)


def _first(result):
    return (result[0] if isinstance(result, tuple) else result).tolist()


# Constructor, given a number of steps; a call with X; and X quantized.
CASES = {
    "DelayWrapper": (DelayWrapper, lambda m: m(X, torch.round(X)), [0.0, -1.0]),
    "BinaryQuant": (
        lambda steps: BinaryQuant(ConstScaling(0.5), quant_delay_steps=steps),
        lambda m: m(X),
        [0.5, -0.5],
    ),
    "ClampedBinaryQuant": (
        lambda steps: ClampedBinaryQuant(ConstScaling(0.5), quant_delay_steps=steps),
        lambda m: m(X),
        [0.5, -0.5],
    ),
    "TernaryQuant": (
        lambda steps: TernaryQuant(ConstScaling(0.75), 0.5, quant_delay_steps=steps),
        lambda m: m(X),
        [0.0, -0.75],
    ),
    "IntQuant": (
        lambda steps: IntQuant(True, True, quant_delay_steps=steps),
        lambda m: m(SCALE, ZERO, BITS, X),
        [0.25, -0.75],
    ),
    "DecoupledIntQuant": (
        lambda steps: DecoupledIntQuant(True, True, quant_delay_steps=steps),
        lambda m: m(SCALE, ZERO, 2 * SCALE, ZERO, BITS, X),
        [0.5, -1.5],
    ),
    "FloatQuant": (
        lambda steps: FloatQuant(FP4_E2M1, ConstScaling(3.0), FloatScaling(FP4_E2M1), quant_delay_steps=steps),
        lambda m: m(X),
        [0.25, -0.75],
    ),
    "TruncIntQuant": (
        lambda steps: TruncIntQuant(RoundSte(), BitWidthConst(3), quant_delay_steps=steps),
        lambda m: m(X, SCALE, ZERO, BITS, torch.tensor(True)),
        [0.0, -1.0],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_training_is_delayed(case):
    """The first training steps give the input itself, with its gradient, and those after them the quantized one."""
    create, call, quantized = CASES[case]
    module = create(3)
    assert [X.tolist()] * 3 + [quantized] * 2 == [_first(call(module)) for _ in range(5)]


@pytest.mark.parametrize("steps", [0, None])
@pytest.mark.parametrize("case", CASES)
def test_no_delay_is_no_state(case, steps):
    """Without a delay the first step is quantized, a checkpoint holds nothing, and no part is there for it."""
    if steps is None and case not in ("DelayWrapper", "TernaryQuant"):
        steps = 0  # None is a value for these two alone
    create, call, quantized = CASES[case]
    module = create(steps)
    assert (quantized, {}) == (_first(call(module)), dict(module.state_dict()))
    assert [] == [part for part in module.children() if isinstance(part, DelayWrapper)]


@pytest.mark.parametrize("case", CASES)
def test_evaluation_is_quantized_and_counts_nothing(case):
    """Evaluation quantizes while training is still delayed, and leaves the count as it was."""
    create, call, quantized = CASES[case]
    module = create(2)
    story = [_first(call(module.train(mode))) for mode in (True, False, False, False, True, True)]
    assert [X.tolist(), quantized, quantized, quantized, X.tolist(), quantized] == story


@pytest.mark.parametrize("case", CASES)
def test_the_count_travels(case, travel):
    """A copy, by whatever way, continues the count."""
    create, call, quantized = CASES[case]
    module = create(3)
    call(module)
    copied = travel(lambda: create(3), module)
    assert [X.tolist(), X.tolist(), quantized] == [_first(call(copied)) for _ in range(3)]


@pytest.mark.parametrize("case", CASES)
def test_steps_do_not_recompile(case):
    """One graph serves all steps, delayed or not."""
    torch.compiler.reset()
    create, call, quantized = CASES[case]
    counter = CompileCounter()
    module = torch.compile(create(2), backend=counter, fullgraph=True)
    values = [_first(call(module)) for _ in range(5)]
    assert ([X.tolist()] * 2 + [quantized] * 3, 1) == (values, counter.frame_count)


def test_gradient_of_a_delayed_step():
    """A delayed step has the gradient of the identity, for values beyond the range as well."""
    x = torch.tensor([0.3, 99.0], requires_grad=True)
    module = IntQuant(True, True, quant_delay_steps=1)
    grads = []
    for _ in range(2):
        (grad,) = torch.autograd.grad(module(SCALE, ZERO, BITS, x).sum(), x)
        grads.append(grad.tolist())
    assert [[1.0, 1.0], [1.0, 0.0]] == grads


def test_the_count_ends_at_zero():
    """After many steps nothing is left, and never less than nothing."""
    module = DelayWrapper(1)
    for _ in range(3):
        module(X, X)
    assert {"steps_left": 0} == {name: tensor.item() for name, tensor in module.state_dict().items()}


REFUSALS = [
    (-1, ArgumentError, "`quant_delay_steps` (=-1) must be a whole number of steps, 0 or more"),
    (1.5, ArgumentTypeError, "`quant_delay_steps` (=1.5) must be a whole number of steps, 0 or more, not float"),
    (True, ArgumentTypeError, "`quant_delay_steps` (=True) must be a whole number of steps, 0 or more, not bool"),
    (False, ArgumentTypeError, "`quant_delay_steps` (=False) must be a whole number of steps, 0 or more, not bool"),
    (0.0, ArgumentTypeError, "`quant_delay_steps` (=0.0) must be a whole number of steps, 0 or more, not float"),
]


@pytest.mark.parametrize(("steps", "kind", "message"), REFUSALS)
@pytest.mark.parametrize("case", CASES)
def test_steps_must_be_a_whole_number(case, steps, kind, message):
    """A delay that is no whole number of steps is refused with the rule."""
    with pytest.raises(kind) as error:
        CASES[case][0](steps)
    assert message == str(error.value)
