"""A look at a model leaves no trace."""

import copy

import pytest
import torch
from torch import nn

import brevq
import injectors
from brevq.graph import calibrating
from brevq.nn import (
    QuantConv2d,
    QuantEmbedding,
    QuantIdentity,
    QuantLinear,
    QuantLSTM,
    QuantMultiheadAttention,
    QuantReLU,
    TruncQAccumulator,
)
from brevq.overview import undisturbed


def state(model):
    """All that a model holds, and whether its parts train."""
    tensors = {name: tensor.clone() for name, tensor in [*model.named_parameters(), *model.named_buffers()]}
    flags = {name: (module.training, getattr(module, "calibrating", None)) for name, module in model.named_modules()}
    phases = {name: str(module.phase) for name, module in model.named_modules() if hasattr(module, "phase")}
    return tensors, flags, phases


def same(before, after):
    """Whether two such states are equal."""
    tensors = before[0].keys() == after[0].keys() and all(
        torch.equal(tensor, after[0][name]) for name, tensor in before[0].items()
    )
    return tensors and before[1:] == after[1:]


MODELS = {
    "learned": lambda: QuantLinear(4, 2, weight_quant=injectors.Int8WeightPerTensorLSQ, bias_quant=injectors.Int32Bias),
    "rounding": lambda: QuantLinear(4, 2, weight_quant=injectors.Int4WeightPerTensorAdaRound),
    "delayed": lambda: QuantLinear(4, 2, weight_quant=injectors.Int8WeightPerTensor.let(quant_delay_steps=5)),
    "random": lambda: QuantLinear(
        4, 2, weight_quant=injectors.Int16WeightPerTensorPoTStochastic.let(deterministic_inference=False)
    ),
    "limited": lambda: QuantEmbedding(4, 2, max_norm=0.1),
    "recurrent": lambda: QuantLSTM(4, 2, hidden_quant=injectors.Int8ActPerTensor),
    "attention": lambda: QuantMultiheadAttention(4, 2, input_quant=injectors.Int8ActPerTensor),
    "activations": lambda: nn.Sequential(QuantIdentity(act_quant=injectors.Int8ActPerTensorLSQ), QuantReLU()),
    "truncation": lambda: TruncQAccumulator(trunc_quant=injectors.Int8TruncShiftRoundSaturate),
}


@pytest.mark.parametrize("name", sorted(MODELS))
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_summary_leaves_no_trace(name, training):
    """Numbers, phases, delays, flags and random numbers are as they were, and no gradient is recorded."""
    model = MODELS[name]().train(training)
    before, random = state(model), torch.get_rng_state()
    str(brevq.summary(model))
    assert same(before, state(model))
    assert torch.equal(random, torch.get_rng_state())


def test_summary_between_forward_and_backward():
    """A summary after a forward pass does not keep the backward pass from running."""
    layer = QuantLinear(4, 2, weight_quant=injectors.Int8WeightPerTensorLSQ, input_quant=injectors.Int8ActPerTensor)
    output = layer(torch.ones(3, 4)).sum()
    brevq.summary(layer)
    output.backward()
    assert layer.weight.grad is not None


def test_summary_in_calibration():
    """A summary in the midst of calibration ends none, and adds no data to it."""
    relu, x = QuantReLU(), torch.tensor([1.0, 2.0])
    with calibrating(relu):
        relu(x)
        before = state(relu)
        assert "observe" == brevq.summary(relu).records[0].phase
        assert same(before, state(relu))
        relu(x)
    assert "fixed" == brevq.summary(relu).records[0].phase


def test_a_batch_in_training_does_not_move_statistics():
    """Inside, batch normalization is in evaluation, and so are quantizers that observe."""
    model = nn.Sequential(QuantConv2d(1, 2, 1), nn.BatchNorm2d(2), QuantReLU())
    x = torch.randn(4, 1, 3, 3)
    model(x)
    before = state(model)
    with undisturbed(model):
        output = model(x)
    assert not output.requires_grad
    assert same(before, state(model))


def test_a_call_that_limits_norms():
    """Tables that look-ups limit are as they were."""
    layer = QuantEmbedding(4, 2, max_norm=0.1)
    before = layer.weight.clone()
    with undisturbed(layer):
        layer(torch.arange(4))
    assert torch.equal(before, layer.weight)


def test_everything_is_put_back_after_an_error():
    """An error inside passes, and leaves no trace either."""
    model = MODELS["learned"]()
    before = state(model)

    def fail():
        with undisturbed(model):
            model.weight_quant(model.weight)
            raise KeyError("inside")

    with pytest.raises(KeyError, match="inside"):
        fail()
    assert same(before, state(model))


def test_not_a_module():
    """Only modules can be looked at."""
    with pytest.raises(brevq.errors.ArgumentTypeError) as error, undisturbed(3):
        pass
    assert "`model` must be a module, not int" == str(error.value)


def test_looked_at_twice_is_alike():
    """What learning would start from is shown, and shown again."""
    layer = MODELS["learned"]()
    first, second = brevq.summary(layer), brevq.summary(copy.deepcopy(layer))
    assert first.to_dicts() == second.to_dicts() == brevq.summary(layer).to_dicts()
    assert ("empty", True) == (first.records[0].phase, first.records[0].scale_min > 0)
