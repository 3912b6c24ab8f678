"""Finding where a number went wrong."""

import pytest
import torch
from torch import nn

from brevq.debug import check_finite
from brevq.errors import ArgumentTypeError, NonFiniteError
from brevq.nn import QuantIdentity, QuantLinear
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
