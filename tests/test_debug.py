"""Finding where a number went wrong."""

from collections import OrderedDict
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from brevq.debug import check_finite
from brevq.errors import ArgumentTypeError, NonFiniteError
from brevq.nn import QuantIdentity, QuantLinear, QuantLSTM
from injectors import Int8ActPerTensor


class Logarithm(nn.Module):
    """A layer that makes NaN of negative numbers."""

    def forward(self, x):
        """The logarithm."""
        return x.log()


def hooks(model):
    """The number of hooks on a model and its parts."""
    return sum(len(module._forward_pre_hooks) + len(module._forward_hooks) for module in model.modules())


def network():
    """A network whose middle layer fails for negative numbers."""
    first = nn.Linear(3, 3, bias=False)
    nn.init.eye_(first.weight)
    return nn.Sequential(first, Logarithm(), QuantLinear(3, 2, input_quant=Int8ActPerTensor))


def test_the_layer_that_made_nan_is_named():
    """Of all layers behind the culprit, the culprit is named, with how many values and where."""
    model = network()
    with check_finite(model), pytest.raises(NonFiniteError) as error:
        model(torch.tensor([[1.0, 2.0, 3.0], [1.0, -1.0, -2.0]]))
    assert str(error.value) == (
        "the output of `1` (Logarithm), whose input is finite, has 2 NaN of 6 values, the first at (1, 1)"
    )


def test_a_wrong_input_is_named():
    """A model that is given an infinity is not blamed for it."""
    model = network()
    with check_finite(model), pytest.raises(NonFiniteError) as error:
        model(torch.tensor([[float("inf"), 1.0, 1.0]]))
    assert str(error.value) == ("the input of the model (Sequential) has 1 infinite of 3 values, the first at (0, 0)")


def test_a_wrong_weight_is_named_at_once():
    """A parameter that is NaN is found before any call."""
    model = network()
    model[2].weight.data[1, 0] = float("nan")
    with pytest.raises(NonFiniteError) as error:
        check_finite(model)
    assert str(error.value) == "`2.weight` of the model has 1 NaN of 6 values, the first at (1, 0)"


def test_a_scale_that_overflows_is_named():
    """The scale of a quantizer counts as part of what it returns."""
    model = nn.Sequential(QuantIdentity())
    model[0].act_quant.tensor_quant.scaling_impl.register_forward_hook(lambda *_: torch.tensor(float("inf")))
    with check_finite(model), pytest.raises(NonFiniteError) as error:
        model(torch.ones(2))
    assert "the output of `0.act_quant` (Int8ActPerTensor), whose input is finite, has" in str(error.value)


def test_finite_models_pass_and_are_left_as_they_were():
    """A watch changes no number, and leaves no hook behind."""
    model = network().eval()
    x = torch.ones(1, 3)
    model.train()(x)
    expected, before = model.eval()(x), hooks(model)
    watch = check_finite(model)
    assert torch.equal(expected, model(x))
    watch.close()
    assert before == hooks(model)


def test_only_models_are_watched():
    """Anything else is refused by name."""
    with pytest.raises(ArgumentTypeError, match="`model` must be a module, not Tensor"):
        check_finite(torch.ones(1))


@dataclass
class Pair:
    """An output that is no tuple."""

    first: Tensor
    second: Tensor


class Output(OrderedDict):
    """An output as models of language return it."""


class Wrapped(nn.Module):
    """A model that takes keywords, and returns its output within something."""

    def __init__(self, wrap):
        super().__init__()
        self.identity = QuantIdentity(return_quant_tensor=True)
        self.wrap = wrap

    def forward(self, *, x, y):
        """The quantized `x` within something, with `y` made NaN."""
        return self.wrap(self.identity(x), y.log())


@pytest.mark.parametrize(
    "wrap",
    [
        lambda x, y: [x, {"y": y}],
        lambda x, y: {"x": (x, y)},
        Pair,
        lambda x, y: Output(x=x, y=y),
        lambda x, y: [Pair(x, y)],
        lambda x, y: nn.utils.rnn.PackedSequence(y, torch.tensor([2])),
    ],
)
def test_outputs_are_looked_into(wrap):
    """Numbers in lists, dictionaries, their subclasses and dataclasses, behind keywords, are found."""
    model = Wrapped(wrap)
    with check_finite(model), pytest.raises(NonFiniteError) as error:
        model(x=torch.ones(2), y=torch.tensor([1.0, -1.0]))
    assert str(error.value) == (
        "the output of the model (Wrapped), whose input is finite, has 1 NaN of 2 values, the first at (1,)"
    )


def test_keywords_are_looked_into():
    """An input that is given by keyword is named as one."""
    model = Wrapped(lambda x, y: y)
    with check_finite(model), pytest.raises(NonFiniteError) as error:
        model(x=torch.ones(2), y=torch.tensor([1.0, float("nan")]))
    assert str(error.value) == "the input of the model (Wrapped) has 1 NaN of 2 values, the first at (1,)"


def test_recurrent_layers_are_watched():
    """States count as input."""
    model = QuantLSTM(3, 4)
    states = torch.zeros(1, 2, 4), torch.full((1, 2, 4), float("inf"))
    with check_finite(model), pytest.raises(NonFiniteError) as error:
        model(torch.randn(5, 2, 3), states)
    assert str(error.value) == ("the input of the model (QuantLSTM) has 8 infinite of 8 values, the first at (0, 0, 0)")


def test_complex_numbers_are_looked_at():
    """A NaN in a complex tensor is one."""
    model = nn.Identity()
    with check_finite(model), pytest.raises(NonFiniteError, match="has 1 NaN of 1 values"):
        model(torch.tensor([complex(0.0, float("nan"))]))


def test_watches_nest_and_end_apart():
    """The inner watch names the path within its own model, and the outer one goes on after it."""
    model = network()
    wrong = torch.tensor([[1.0, 2.0, -3.0]])
    with check_finite(model):
        with check_finite(model[1]), pytest.raises(NonFiniteError, match="the output of `1` "):
            model(wrong)
        with pytest.raises(NonFiniteError, match="the output of `1` "):
            model(wrong)
    assert model(wrong).isnan().any()


def test_the_layer_behind_which_a_gradient_breaks_is_named():
    """Of a finite output with an infinite gradient the layer before is named, and the gradient is not handed on."""
    model = nn.Sequential(nn.Linear(2, 2), QuantLinear(2, 2), Root())
    with check_finite(model, gradients=True), pytest.raises(NonFiniteError) as error:
        model(torch.zeros(1, 2)).sum().backward()
    assert str(error.value).startswith("the gradient of the output of `1` (QuantLinear) has 2 infinite of 2 values")
    assert model[0].weight.grad is None


class Root(nn.Module):
    """A layer whose gradient at zero is infinite."""

    def forward(self, x):
        """The root of zero."""
        return (x - x.detach()).sqrt()


def test_the_gradient_of_a_parameter_is_named():
    """A parameter that is used outside of any layer's output is watched itself."""
    model = nn.ParameterDict({"scale": nn.Parameter(torch.zeros(()))})
    with check_finite(model, gradients=True), pytest.raises(NonFiniteError) as error:
        model["scale"].sqrt().backward()
    assert str(error.value) == "the gradient of `scale` of the model has 1 infinite of 1 values"


def test_gradients_are_left_as_they_are():
    """A watch changes no gradient, over several steps, and after its end none is looked at."""
    plain, watched = network()[2], network()[2]
    watched.load_state_dict(plain.state_dict())
    with check_finite(watched, gradients=True):
        for _ in range(2):
            for model in (plain, watched):
                model(torch.ones(1, 3)).sum().backward()
        late = watched(torch.ones(1, 3)).sum()
    assert torch.equal(plain.weight.grad, watched.weight.grad)
    (late * 1e38 * 1e38).backward()
    assert not watched.weight.grad.isfinite().all()


def test_wrong_flags_are_refused():
    """`gradients` is True or False."""
    with pytest.raises(ArgumentTypeError, match="`gradients` \\(=1\\) must be True or False"):
        check_finite(network(), gradients=1)
