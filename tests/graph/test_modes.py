"""Models without their quantizers for a while, and ranges that stop or begin to learn."""

import pytest
import torch
from torch import nn

from brevq.core.phase import Phase
from brevq.errors import ArgumentError, ArgumentTypeError
from brevq.graph import calibrating, settle, unquantized
from brevq.nn import QuantIdentity
from tests.support.table import CASES, FAMILIES, equal, leaves


@pytest.mark.parametrize("layer", CASES)
def test_a_layer_without_its_quantizers_is_its_twin(layer):
    """Inside, every layer gives what it gives with no recipes at all; afterwards it quantizes, and has its state."""
    case = CASES[layer]
    quantized = case.make(FAMILIES["int8, channel"]).eval()
    plain, inputs = case.make(None).eval(), case.inputs()
    if case.behind:
        plain.before = nn.Identity()
    plain.load_state_dict({name: value for name, value in quantized.state_dict().items() if name in plain.state_dict()})
    with calibrating(quantized):
        quantized(*inputs)
    expected, state = quantized(*inputs), {name: value.clone() for name, value in quantized.state_dict().items()}
    with unquantized(quantized):
        equal(quantized(*inputs), plain(*inputs))
    assert all(torch.equal(value, state[name]) for name, value in quantized.state_dict().items())
    equal(quantized(*inputs), expected)


def test_quantizers_come_back_after_an_error():
    """An error inside leaves the model quantized."""
    layer = QuantIdentity(return_quant_tensor=True)
    quantizer = layer.act_quant
    with pytest.raises(ZeroDivisionError), unquantized(layer):
        raise ZeroDivisionError
    assert (layer.act_quant is quantizer, layer.return_quant_tensor) == (True, True)


def test_nothing_is_observed():
    """A batch that passes in float is no data."""
    layer = QuantIdentity()
    with unquantized(layer):
        assert torch.equal(torch.ones(2), leaves(layer(torch.ones(2)))[0])
    assert layer.act_quant.phase == Phase.EMPTY


def test_ranges_settle_and_learn_again():
    """Observed ranges are held, then learned from where they were; what saw no data stays as it is."""
    model = nn.ModuleList([QuantIdentity(), QuantIdentity()])
    model[0](torch.tensor([3.0, -1.0]))
    before = model[0].eval().act_quant.current().scale
    phases = []
    for phase in ("fixed", "learned", "fixed"):
        settle(model, phase)
        phases.append([layer.act_quant.phase for layer in model])
    assert [[phase, Phase.EMPTY] for phase in (Phase.FIXED, Phase.LEARNED, Phase.FIXED)] == phases
    assert torch.equal(before, model[0].act_quant.current().scale)


def test_wrong_arguments():
    """Other phases, and what is no model, are refused by name."""
    with pytest.raises(ArgumentError, match=r"`phase` \(='frozen'\) must be 'fixed' or 'learned'"):
        settle(QuantIdentity(), "frozen")
    with pytest.raises(ArgumentTypeError, match="`model` must be a module, not int"), unquantized(3):
        pass
