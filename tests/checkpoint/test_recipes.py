"""Recipes of networks as plain data, and float networks quantized with them."""

import copy
import json

import pytest
import torch
from torch import nn

import brevq
import injectors
from brevq.checkpoint import CheckpointError, load_state, quantize, recipes
from brevq.inject import fingerprint
from brevq.nn import (
    QuantEltwiseAdd,
    QuantGRU,
    QuantIdentity,
    QuantLinear,
    QuantLSTM,
    QuantMultiheadAttention,
    QuantReLU,
    QuantRNN,
)
from brevq.nn.layer import QuantLayer
from tests.support.table import CASES, FAMILIES, Behind, calibrated, leaves


class FloatScale(nn.Module):
    """A float layer of a user's own."""

    def __init__(self, features):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = None

    def forward(self, x):
        return x * self.weight


class QuantScale(QuantLayer, FloatScale):
    """Its quantized twin."""

    def compute(self, x, weight, bias):
        return x * weight


def as_json(described):
    """What a file would hold of it, read again."""
    return json.loads(json.dumps(described))


def float_of(module):
    """The float twin of a layer, with as little as `quantize` may find: class and parameters, no quantizers."""
    for child in module.modules():
        for argument in getattr(child, "quants", {}):
            setattr(child, argument, None)
    return module


@pytest.mark.parametrize("name", CASES)
def test_every_layer_is_rebuilt(name):
    """Every layer gets its quantizers back: its outputs are equal, and its state loads strictly."""
    layer, inputs = calibrated(CASES[name])
    rebuilt = quantize(float_of(copy.deepcopy(layer)), as_json(recipes(layer)))
    load_state(rebuilt, layer.state_dict())
    expected, actual = leaves(layer(*inputs)), leaves(rebuilt(*inputs))
    assert len(expected) == sum(map(torch.equal, expected, actual))


TWINS = {
    name: case
    for name, case in CASES.items()
    if not case.behind and (torch_name := name.removeprefix("Quant")) != name and hasattr(nn, torch_name)
}


@pytest.mark.parametrize("name", TWINS)
def test_every_twin_is_quantized(name):
    """Every layer of torch that has a quantized twin becomes that, with equal outputs."""
    layer, inputs = calibrated(CASES[name])
    twin = getattr(nn, name.removeprefix("Quant"))(*CASES[name].args).eval()
    load_state(quantize(twin, as_json(recipes(layer))), layer.state_dict())
    assert type(layer) is type(twin)
    expected, actual = leaves(layer(*inputs)), leaves(twin(*inputs))
    assert len(expected) == sum(map(torch.equal, expected, actual))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_recipe_family_is_rebuilt(family):
    """Recipes of every family come back with their fingerprints."""
    layer = CASES["QuantLinear"].make(FAMILIES[family])
    rebuilt = quantize(nn.Linear(32, 8), as_json(recipes(layer)))
    for argument in layer.quants:
        ours, theirs = getattr(rebuilt, argument), getattr(layer, argument)
        assert (ours is None) == (theirs is None)
        assert ours is None or fingerprint(ours.recipe) == fingerprint(theirs.recipe)


@pytest.mark.parametrize(
    ("quantized", "twin"),
    [
        (
            lambda: QuantMultiheadAttention(
                8, 2, weight_bit_width=4, out_weight_bit_width=5, attention_quant=injectors.Uint8ActPerTensor
            ),
            lambda: nn.MultiheadAttention(8, 2),
        ),
        (
            lambda: QuantMultiheadAttention(8, 2, kdim=4, vdim=6, weight_quant=injectors.Int8WeightPerChannel),
            lambda: nn.MultiheadAttention(8, 2, kdim=4, vdim=6),
        ),
        (lambda: QuantRNN(8, 4, nonlinearity="relu", bias_quant=None), lambda: nn.RNN(8, 4, nonlinearity="relu")),
        (
            lambda: QuantLSTM(
                8,
                4,
                bidirectional=True,
                share_input_hidden=True,
                scale_per_gate=True,
                weight_quant=injectors.Int4WeightPerChannel,
                hidden_quant=injectors.Int8ActPerTensor,
            ),
            lambda: nn.LSTM(8, 4, bidirectional=True),
        ),
        (lambda: QuantGRU(8, 4, 2), lambda: nn.GRU(8, 4, 2)),
    ],
    ids=["attention", "attention, separate", "RNN", "LSTM", "GRU"],
)
def test_layers_of_many_quantizers(quantized, twin):
    """Attention and recurrent layers get all their quantizers back, and how matrices share scales."""
    layer, x = quantized().train(), torch.randn(5, 2, 8)
    inputs = (x, x[..., :4], x[..., :6]) if getattr(layer, "kdim", 8) == 4 else (x, x, x)
    inputs = inputs if isinstance(layer, nn.MultiheadAttention) else (x,)
    layer(*inputs)
    rebuilt = quantize(twin(), as_json(recipes(layer)))
    load_state(rebuilt, layer.state_dict())
    assert repr(layer) == repr(rebuilt)
    assert torch.equal(layer.eval()(*inputs)[0], rebuilt.eval()(*inputs)[0])


def test_a_quantizer_of_all_parts():
    """A quantizer that serves all matrices of a recurrent layer, and another layer, serves them again."""
    layer = QuantGRU(4, 4)
    network = nn.Sequential(layer, QuantLinear(4, 4))
    network[0].weight_quant = injectors.Int8WeightPerTensorLSQ
    shared = QuantLinear(4, 4, weight_quant=injectors.Int8WeightPerTensorLSQ).weight_quant
    network[0].weight_quant = network[1].weight_quant = shared
    described = recipes(network)
    assert {"same_as": "0.weight_quant"} == described["1"]["quants"]["weight_quant"]
    rebuilt = quantize(nn.Sequential(nn.GRU(4, 4), nn.Linear(4, 4)), as_json(described))
    assert rebuilt[1].weight_quant is rebuilt[0].weight_quant["all"]
    load_state(rebuilt, network.state_dict())


def test_shared_quantizers():
    """What several layers share they share again, and the scale is that of all their weights."""
    first = QuantLinear(4, 4)
    network = nn.Sequential(first, QuantLinear(4, 4, weight_quant=first.weight_quant))
    with torch.no_grad():
        network[1].weight.mul_(10)
    rebuilt = quantize(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), as_json(recipes(network)))
    load_state(rebuilt, network.state_dict())
    assert rebuilt[0].weight_quant is rebuilt[1].weight_quant
    assert torch.equal(network[0].quant_weight().scale, rebuilt[0].quant_weight().scale)


def test_layers_stay_the_same_objects():
    """Layers, parameters, hooks, and a layer that stands in two places stay what they are."""
    relu = nn.ReLU()
    network = nn.Sequential(nn.Linear(4, 4), relu, nn.Linear(4, 4), relu)
    parameters, calls = [id(p) for p in network.parameters()], []
    network[0].register_forward_hook(lambda *_: calls.append("called"))
    quant_relu = QuantReLU(bit_width=3)
    described = recipes(nn.Sequential(QuantLinear(4, 4), quant_relu, QuantLinear(4, 4), quant_relu))
    assert ["0", "1", "2"] == list(described)
    assert network is quantize(network, described)
    assert network[1] is network[3] is relu
    assert (QuantReLU, ["called"]) == (type(relu), [network(torch.ones(1, 4)), calls][1])
    assert set(parameters) <= {id(p) for p in network.parameters()}


def test_the_mode_of_layers():
    """Quantizers are in training or evaluation as their layers are."""
    described = recipes(nn.Sequential(QuantLinear(4, 4), QuantReLU()))
    network = nn.Sequential(nn.Linear(4, 4).eval(), nn.ReLU())
    quantize(network, described)
    assert [False, True] == [network[0].weight_quant.training, network[1].act_quant.training]


def test_return_quant_tensor():
    """Whether a layer returns a `QuantTensor` comes back, and so do layers without any quantizer."""
    network = nn.Sequential(
        QuantIdentity(return_quant_tensor=True), QuantReLU(act_quant=None, return_quant_tensor=True)
    )
    rebuilt = quantize(nn.Sequential(nn.Identity(), nn.ReLU()), as_json(recipes(network)))
    assert (8, True) == (int(rebuilt(torch.ones(2)).bit_width), rebuilt[1].act_quant is None)


def test_layers_without_a_twin():
    """A layer that torch has not is in the float network already, and gets its recipes."""
    rebuilt = quantize(QuantEltwiseAdd(input_quant=None), as_json(recipes(QuantEltwiseAdd(input_bit_width=4))))
    assert 4 == rebuilt.input_quant.recipe.bit_width


def test_layers_of_the_users_own():
    """A user's own layer is rebuilt if its package is allowed."""
    described = as_json(recipes(QuantScale(4, weight_bit_width=3)))
    assert described[""]["layer"] == f"{__name__}:QuantScale"
    allowed = ("brevq", "injectors", __name__)
    assert "QuantScale" == type(quantize(FloatScale(4), described, allowed)).__name__


def refusal(model, described, **keywords):
    """What `quantize` says of it, the model being left as it was."""
    before = repr(model)
    with pytest.raises(CheckpointError) as error:
        quantize(model, described, **keywords)
    assert before == repr(model)
    return str(error.value)


def test_other_architectures():
    """Layers that are absent or of another kind are listed, all of them, with near names."""

    class Own(nn.Linear):
        def forward(self, x):
            return x

    network = nn.Sequential()
    network.first, network.fc1, network.add = QuantLinear(4, 4), QuantReLU(), QuantEltwiseAdd()
    network.lost = QuantLinear(4, 4)
    model = nn.Sequential()
    model.first, model.fc_1, model.add = Own(4, 4), nn.ReLU(), nn.ReLU()
    assert refusal(model, recipes(network)) == (
        "The model can not be quantized:\n"
        "- `first` is a Own, and the recipes are those of a QuantLinear, the twin of torch.nn.modules.linear.Linear.\n"
        "- The model has no `fc1`. Did you mean `fc_1`?\n"
        "- `add` is a ReLU, and the recipes are those of a QuantEltwiseAdd.\n"
        "- The model has no `lost`."
    )


def test_other_options():
    """An argument that decides what is computed, and that the float twin has too, must be the same."""
    assert refusal(nn.RNN(4, 4), recipes(QuantRNN(4, 4, nonlinearity="relu"))) == (
        "The model can not be quantized:\n"
        "- The model itself has nonlinearity='tanh', and the recipes are those of a layer with nonlinearity='relu'."
    )


def test_changed_data():
    """Fields that are missing, classes that do not exist and recipes that were changed are listed."""
    network = nn.Sequential(QuantLinear(4, 4), QuantReLU(), QuantReLU(bit_width=4))
    described = as_json(recipes(network))
    del described["0"]["quants"]
    described["1"]["layer"] = "brevq.nn:QuantTeLU"
    described["2"]["quants"]["act_quant"]["overrides"]["bit_width"] = 5
    told = refusal(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.ReLU()), described)
    assert told.startswith(
        "The model can not be quantized:\n"
        "- `0` lacks the field `quants`.\n"
        "- `1` (='brevq.nn:QuantTeLU') does not exist: there is no `QuantTeLU` in brevq.nn.\n"
        "- `2.act_quant`: Can not load the recipe.\n"
    )
    assert "It was changed after it was written, or a package that it names has changed since." in told


def test_what_can_not_be_written():
    """Layers and recipes without an import path, and parametrized layers, are refused when saving, all of them."""

    class Here(QuantLinear):
        pass

    class Half(nn.Module):
        pass

    network = nn.Sequential(Here(4, 4), QuantLinear(4, 4), QuantReLU())
    nn.utils.parametrizations.weight_norm(network[1])
    object.__setattr__(network[2].act_quant, "recipe", injectors.Uint8ActPerTensor.let(scaling_stats_impl=Half))
    with pytest.raises(CheckpointError) as error:
        recipes(network)
    told = str(error.value)
    assert told.startswith(
        "The recipes can not be written:\n"
        "- `0` is a Here, which can not be imported: define it at the top level of a module that others can import\n"
        "- `1` is parametrized, and its class is made at run time: call "
        "torch.nn.utils.parametrize.remove_parametrizations before, and parametrize it again after\n"
        "- `2.act_quant`: Can not write"
    )


def test_frozen_models_are_not_written():
    """A frozen model is refused, once for all of its layers, with the ways to write it; thawed it is written again."""
    network = nn.Sequential(QuantLinear(4, 4), QuantReLU(), QuantLinear(4, 2)).train()
    network(torch.ones(1, 4))
    described = recipes(network)
    brevq.freeze(network.eval())
    with pytest.raises(CheckpointError) as error:
        recipes(network)
    assert str(error.value) == (
        "The model is frozen: call brevq.unfreeze(model) before, or save model.state_dict(), which "
        "brevq.frozen.load_state reads"
    )
    assert described == recipes(brevq.unfreeze(network))


def test_parametrized_layers_are_not_quantized():
    """A float layer that is parametrized is refused, for its class is made at run time."""
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
    assert refusal(layer, recipes(QuantLinear(4, 4))) == (
        "The model can not be quantized:\n"
        "- The model itself is parametrized, and its class is made at run time: call "
        "torch.nn.utils.parametrize.remove_parametrizations before, and parametrize it again after"
    )


def test_a_layer_behind_another():
    """A layer that takes quantized tensors alone is rebuilt behind the one that makes them."""
    behind = Behind(QuantReLU(act_quant=None, return_quant_tensor=True), injectors.Int8ActPerTensor)
    described = as_json(recipes(behind))
    assert ["before", "layer"] == list(described)
    assert 8 == int(quantize(float_of(copy.deepcopy(behind)), described)(torch.ones(2)).bit_width)
