"""Quantizers in notebooks: recipe, phase, grid, what they do now, and that looking changes nothing."""

import copy
from xml.etree import ElementTree

import pytest
import torch
from IPython.core.formatters import DisplayFormatter

import injectors
from brevq.graph import calibrating
from brevq.inject import explain
from brevq.nn import QuantIdentity, QuantLinear
from brevq.quantizer import Quantizer
from brevq.quantizer.page import example, levels, look, still

RECIPES = [pytest.param(getattr(injectors, name), id=name) for name in injectors.__all__]


def words(shown):
    """All texts of a page."""
    return {text for text in ElementTree.fromstring(shown._repr_html_()).itertext() if text}


def state(module):
    """Everything that could change: tensors, their versions and gradients, and plain attributes of all parts."""
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    kept = {name: (tensor.clone(), tensor._version, tensor.grad) for name, tensor in tensors.items()}
    plain = {
        name: {key: content for key, content in vars(part).items() if isinstance(content, (bool, int, float, str))}
        for name, part in module.named_modules()
    }
    return kept, plain


def same(one, other):
    """Whether two states are one."""
    tensors = all(
        torch.equal(a, b) and version == now and grad is None and new is None
        for (a, version, grad), (b, now, new) in zip(one[0].values(), other[0].values(), strict=True)
    )
    return tensors and one[0].keys() == other[0].keys() and one[1] == other[1]


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe(recipe):
    """The page of a quantizer of any recipe has the recipe, and all names of its wiring."""
    quantizer = example(recipe)
    found = words(quantizer)
    assert {recipe.__name__, recipe.role} <= found
    assert {line.name for line in explain(recipe).lines} <= found


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_nothing_changes(recipe, training):
    """Looking at a recipe or a quantizer, fresh or used, changes no tensor, counts no step, draws no number."""
    if recipe.role == "weight":
        needs = {"input_quant": injectors.Int8ActPerTensor} if "A2Q" in recipe.__name__ else {}
        owner = QuantLinear(64, 8, weight_quant=recipe, **needs)
        quantizer = owner.weight_quant
    else:
        owner = quantizer = Quantizer(recipe, {"tensor_shape": (8,)})
    owner.train(training)
    before, numbers = state(owner), torch.random.get_rng_state()
    recipe._repr_html_()
    quantizer._repr_html_()
    owner._repr_html_()
    assert same(before, state(owner))
    assert torch.equal(numbers, torch.random.get_rng_state())
    assert training is quantizer.training


def test_observing_goes_on():
    """A quantizer that observes is shown with what it has seen, and observes on as if nobody had looked."""
    fresh = QuantIdentity(act_quant=injectors.Int8ActPerTensor)
    layer, other = copy.deepcopy(fresh), copy.deepcopy(fresh)
    batches = [torch.randn(16) for _ in range(3)]
    for batch in batches:
        layer(batch)
        other(batch)
        layer.act_quant._repr_html_()
    assert same(state(other), state(layer))
    assert "observe" in words(layer.act_quant)


def test_calibrating():
    """During calibration that is told, and the scale so far is shown."""
    layer = QuantIdentity(act_quant=injectors.Int8ActPerTensor).eval()
    with calibrating(layer):
        layer(torch.full((4,), 2.0))
        found = words(layer.act_quant)
    assert {"calibrating", "scale now", "0.015625"} <= found


def test_uncalibrated():
    """A quantizer that has seen nothing shows its grid, and says so."""
    found = words(Quantizer(injectors.Int8ActPerTensor, {}).eval())
    assert "int8: 256 values from -128 to 127" in found
    assert any("has seen no data" in text for text in found)


def test_scale_of_each_channel():
    """A quantizer of a weight shows the scales of the layer that it serves."""
    layer = QuantLinear(8, 3, weight_quant=injectors.Int8WeightPerChannel)
    assert {"scale of each channel", "scale", "shape (3, 1)"} <= words(layer.weight_quant)


def test_gone_layer():
    """A quantizer whose layer is gone says where its scale would come from."""
    quantizer = QuantLinear(8, 3).weight_quant
    assert "its scale follows from the weight: look at the layer" in words(quantizer)


def test_meta_device():
    """A quantizer that holds no values yet shows its wiring."""
    with torch.device("meta"):
        layer = QuantLinear(4, 4, input_quant=injectors.Int8ActPerTensor)
    for quantizer in (layer.weight_quant, layer.input_quant):
        assert "bit_width_impl" in words(quantizer)


def test_look_quantizes_as_evaluation_does():
    """What is looked at is what evaluation would give."""
    layer = QuantLinear(16, 4, weight_quant=injectors.Int8WeightPerChannel)
    assert torch.equal(layer.eval().quant_weight().value, look(layer.weight_quant, layer.weight).value)


def test_still_copy_shares_layers_and_has_no_hooks():
    """The copy that is looked at serves the same layers, and nobody listens to it."""
    calls = []
    layer = QuantLinear(4, 4, weight_quant=injectors.Int8WeightPerChannel)
    layer.weight_quant.register_forward_hook(lambda *arguments: calls.append(1))
    twin = still(layer.weight_quant)
    twin(layer.weight)
    assert [] == calls
    assert twin.granularity.peers[0]() is layer
    assert twin.granularity is not layer.weight_quant.granularity


def test_learned_bits_as_they_are_now():
    """A learned number of bits is drawn as it is, not as it began."""
    layer = QuantIdentity(act_quant=injectors.Int8ActPerTensorLearnedBits)
    with torch.no_grad():
        layer.act_quant.tensor_quant.bit_width_impl.offset.fill_(1.0)
    found = levels(layer.act_quant)
    assert ("int3", -4.0, 3.0) == (found.name, found.low, found.high)


def test_in_ipython():
    """IPython shows the page of a quantizer."""
    quantizer = Quantizer(injectors.Int8ActPerTensor, {})
    shown, _ = DisplayFormatter().format(quantizer)
    assert quantizer._repr_html_() == shown["text/html"]
    shown, _ = DisplayFormatter().format(injectors.MXFp4Weight)
    assert "fp4_e2m1: 15 values from -6 to 6" in shown["text/html"]
