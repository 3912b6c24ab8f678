"""Every layer with every family of recipes, frozen and brought back."""

import copy
import pickle
import warnings

import pytest
import torch
import torch._dynamo

import brevq
from brevq.graph import calibrating
from tests.support.table import CASES, FAMILIES, REASONS, calibrated, leaves

#: Layers that have codes, and one of those that have constants alone.
COMPILED = ["QuantLinear", "QuantConv2d", "QuantConvTranspose1d", "QuantEmbedding", "QuantLayerNorm"]
COMPILED += ["QuantBatchNorm2d", "QuantMultiheadAttention", "QuantLSTM", "QuantReLU"]
CELLS = [(layer, family) for layer in CASES for family in FAMILIES if (layer, family) not in REASONS]


def trained(layer, family):
    """A layer that has run in training and was calibrated, in evaluation, its inputs, and its outputs."""
    module, inputs = CASES[layer].make(FAMILIES[family]), CASES[layer].inputs()
    module(*inputs)
    module.eval()
    with calibrating(module):
        module(*inputs)
    return module, inputs, leaves(module(*inputs))


def same(expected, module, inputs):
    """Whether a module has the expected outputs, bit for bit."""
    return all(torch.equal(one, other) for one, other in zip(expected, leaves(module(*inputs)), strict=True))


@pytest.mark.parametrize(("layer", "family"), CELLS)
def test_outputs(layer, family):
    """Outputs are those before freezing, also of copies, and with keep_float the state comes back bit for bit."""
    module, inputs, expected = trained(layer, family)
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    brevq.freeze(module, keep_float=True)
    assert same(expected, module, inputs)
    assert same(expected, copy.deepcopy(module), inputs)
    brevq.unfreeze(module)
    after = module.state_dict()
    assert list(state) == list(after)
    assert all(torch.equal(state[name], after[name]) for name in state)
    assert same(expected, module, inputs)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "layer", ["QuantLinear", "QuantConvTranspose2d", "QuantEmbedding", "QuantMultiheadAttention", "QuantLSTM"]
)
def test_without_floats(layer, family):
    """Without floats, quantizing what comes back gives the same codes, but of weights that a warning names."""
    if (layer, family) in REASONS:
        return
    module, inputs, expected = trained(layer, family)
    brevq.freeze(module)
    codes = {part: f.tensors[part].value() for _, f in frozen_parts(module) for part in f.tensors}
    assert same(expected, pickle.loads(pickle.dumps(module)), inputs)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        brevq.unfreeze(module)
    assert (family == "accumulator") == bool(caught)
    if family not in ("accumulator", "binary"):  # whose activations are signs of sums that round otherwise
        assert codes
        torch.testing.assert_close(expected, leaves(module(*inputs)), rtol=2**-18, atol=2**-18)


def frozen_parts(module):
    """The frozen layers within a module, and what they know."""
    return [(part, part.frozen) for part in module.modules() if isinstance(part, brevq.frozen.FrozenLayer)]


@pytest.mark.parametrize("layer", COMPILED)
def test_compiled(layer):
    """One graph, with equal outputs."""
    module, inputs = calibrated(CASES[layer])
    expected = leaves(module(*inputs))
    brevq.freeze(module)
    torch._dynamo.reset()
    with torch._dynamo.config.patch(allow_rnn=True):  # else torch compiles no subclass of its recurrent layers
        assert same(expected, torch.compile(module, fullgraph=True, backend="aot_eager"), inputs)


@pytest.mark.parametrize("layer", COMPILED)
def test_exported(layer):
    """`torch.export` gives equal outputs."""
    module, inputs = calibrated(CASES[layer])
    expected = leaves(module(*inputs))
    brevq.freeze(module)
    assert same(expected, torch.export.export(module, inputs).module(), inputs)


@pytest.mark.parametrize("layer", CASES)
def test_state(layer):
    """The state of a frozen layer loads into one that is neither frozen nor calibrated."""
    module, inputs = calibrated(CASES[layer])
    expected = leaves(module(*inputs))
    state = brevq.freeze(module).state_dict()
    fresh = brevq.frozen.load_state(CASES[layer].make(FAMILIES["int8, channel"]), state)
    assert same(expected, fresh, inputs)
    assert same(expected, brevq.unfreeze(brevq.freeze(fresh)), inputs)
