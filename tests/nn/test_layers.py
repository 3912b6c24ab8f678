"""Layers with a weight: their twins' constructors and numbers, their quantizers, and what they refuse."""

import copy
import gc
import inspect

import numpy as np
import pytest
import torch
from torch import nn

import injectors
from brevq import nn as qnn
from brevq.core.stats import MeanSigmaStd
from brevq.errors import ArgumentError, ArgumentTypeError, UncalibratedError
from brevq.graph import calibrating
from brevq.inject import plan
from brevq.quantizer import Quantizer
from injectors import (
    Fp8e4m3OCPActPerTensor,
    Int8ActPerTensor,
    Int8Bias,
    Int8WeightPerChannel,
    Int8WeightPerChannelA2Q,
    Int8WeightPerTensor,
    Int8WeightPerTensorLSQ,
    Int32Bias,
    ShiftedUint8ActPerTensor,
)

LAYERS = [
    pytest.param("Linear", {"in_features": 6, "out_features": 4}, (5, 6), id="linear"),
    pytest.param("Linear", {"in_features": 6, "out_features": 4, "bias": False}, (2, 5, 6), id="linear-no-bias"),
    pytest.param("Conv1d", {"in_channels": 4, "out_channels": 6, "kernel_size": 3}, (2, 4, 9), id="conv1d"),
    pytest.param(
        "Conv1d",
        {"in_channels": 4, "out_channels": 6, "kernel_size": 3, "padding": 2, "padding_mode": "replicate"},
        (2, 4, 9),
        id="conv1d-replicate",
    ),
    pytest.param("Conv2d", {"in_channels": 4, "out_channels": 6, "kernel_size": (3, 2)}, (2, 4, 7, 8), id="conv2d"),
    pytest.param(
        "Conv2d",
        {"in_channels": 4, "out_channels": 6, "kernel_size": 3, "groups": 2, "stride": 2, "dilation": (1, 2)},
        (2, 4, 9, 9),
        id="conv2d-groups-stride-dilation",
    ),
    pytest.param(
        "Conv2d",
        {"in_channels": 4, "out_channels": 4, "kernel_size": 3, "groups": 4, "padding": "same", "bias": False},
        (2, 4, 9, 9),
        id="conv2d-depthwise-same",
    ),
    pytest.param(
        "Conv2d",
        {"in_channels": 4, "out_channels": 6, "kernel_size": 3, "padding": 1, "padding_mode": "circular"},
        (2, 4, 9, 9),
        id="conv2d-circular",
    ),
    pytest.param("Conv3d", {"in_channels": 4, "out_channels": 6, "kernel_size": 3}, (2, 4, 5, 5, 5), id="conv3d"),
]


def twins(name, arguments, **quant):
    """A quantized layer and its float twin, with the same parameters."""
    layer, twin = getattr(qnn, "Quant" + name)(**arguments, **quant), getattr(nn, name)(**arguments)
    layer.load_state_dict(twin.state_dict(), strict=True)
    return layer, twin


@pytest.mark.parametrize(("name", "arguments", "shape"), LAYERS)
@pytest.mark.parametrize("training", [True, False])
def test_without_quantizers_a_layer_is_its_twin(name, arguments, shape, training):
    """With every quantizer None a layer equals its twin bit for bit, forward and backward."""
    layer, twin = twins(name, arguments, weight_quant=None)
    x = torch.randn(shape)
    outputs = []
    for module in (layer.train(training), twin.train(training)):
        leaf = x.clone().requires_grad_()
        y = module(leaf)
        y.square().sum().backward()
        outputs.append([y, leaf.grad, *(p.grad for p in module.parameters())])
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*outputs, strict=True))


@pytest.mark.parametrize(("name", "arguments", "shape"), LAYERS)
def test_forward_is_the_twin_on_quantized_weights(name, arguments, shape):
    """The output is the twin's for the weight that `quant_weight` gives."""
    layer, twin = twins(name, arguments, weight_quant=Int8WeightPerChannel)
    twin.weight.data = layer.quant_weight().value.detach()
    x = torch.randn(shape)
    assert torch.equal(twin(x), layer(x))


@pytest.mark.parametrize(("name", "arguments", "shape"), LAYERS)
def test_layer_is_an_instance_of_its_twin(name, arguments, shape):
    """A quantized layer is its twin to `isinstance`, and takes the twin's arguments first, in the twin's order."""
    layer, twin = twins(name, arguments)
    theirs = list(inspect.signature(type(twin)).parameters)
    assert isinstance(layer, type(twin))
    assert theirs == list(inspect.signature(type(layer)).parameters)[: len(theirs)]


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_weight_codes_are_those_of_numpy(bits):
    """Per-channel weight codes are round(w / (max |w| / (2 ** (bits - 1) - 1))), halves to even."""
    layer = qnn.QuantLinear(50, 7, weight_quant=Int8WeightPerChannel, weight_bit_width=bits)
    weight = layer.weight.detach().numpy()
    scale = np.abs(weight).max(axis=1, keepdims=True) / np.float32(2 ** (bits - 1) - 1)
    assert np.array_equal(np.rint(weight / scale).astype(np.int8), layer.quant_weight().int().numpy())


def test_bias_codes_are_those_of_numpy():
    """A tied bias has codes round(b / (input scale * weight scale)), clipped to its bits."""
    layer = qnn.QuantLinear(
        6, 4, weight_quant=Int8WeightPerChannel, bias_quant=Int8Bias, bias_bit_width=16, input_quant=Int8ActPerTensor
    ).eval()
    with calibrating(layer):
        layer(torch.randn(100, 6))
    bias, weight = layer.bias.detach().numpy(), layer.weight.detach().numpy()
    input_scale = layer.input_quant.current().scale.detach().numpy()
    scale = input_scale * (np.abs(weight).max(axis=1) / np.float32(127))
    expected = np.clip(np.rint(bias / scale), -(2**15), 2**15 - 1)
    assert np.array_equal(expected, layer.quant_bias().int().numpy())


def test_bias_takes_the_scale_of_a_quant_tensor():
    """A layer without an input quantizer ties its bias to the scale of the QuantTensor that it is given."""
    before = qnn.QuantIdentity(return_quant_tensor=True)
    layer = qnn.QuantLinear(6, 4, bias_quant=Int32Bias)
    x = before(torch.randn(3, 6))
    expected = (x.scale * layer.quant_weight().scale).detach()
    assert torch.equal(expected, layer.quant_bias(x).scale.detach())
    assert torch.equal(nn.functional.linear(x.value, layer.quant_weight().value, layer.quant_bias(x).value), layer(x))


def test_bias_without_an_input_scale_is_refused():
    """A tied bias with a plain input names the quantizer, and both ways out."""
    model = nn.Sequential(qnn.QuantLinear(6, 4, bias_quant=Int32Bias))
    with pytest.raises(ArgumentError) as error:
        model(torch.randn(3, 6))
    assert str(error.value) == (
        "`0.bias_quant` (Int32Bias) needs the scale of the layer's input, and the input is a plain tensor.\n"
        "Give the layer an `input_quant`, or let the layer before it return one: return_quant_tensor=True. What lies "
        "between them has to keep its grid, as pooling by maximum and flatten do"
    )


def test_a_float_checkpoint_loads_and_sets_the_scales():
    """Float weights load strictly, and recomputed and learned scales are then those of the loaded weights."""
    recomputed, _ = twins("Linear", {"in_features": 6, "out_features": 4})
    learned = qnn.QuantLinear(6, 4, weight_quant=Int8WeightPerTensorLSQ)
    learned.quant_weight()
    state = {"weight": torch.full((4, 6), 2.0), "bias": torch.zeros(4)}
    recomputed.load_state_dict(state)
    learned.load_state_dict(state)
    assert recomputed.quant_weight().scale.item() == pytest.approx(2 / 127, rel=1e-7)  # one rounding in float32
    assert learned.quant_weight().scale.item() == pytest.approx(2 * 2 / 127**0.5, rel=3e-7)  # five of them


def test_a_learned_checkpoint_keeps_its_scale():
    """A quantized checkpoint's learned scale is loaded, not computed again."""
    trained, fresh = (qnn.QuantLinear(6, 4, weight_quant=Int8WeightPerTensorLSQ) for _ in range(2))
    trained.quant_weight()
    trained.weight_quant.tensor_quant.scaling_impl.value.data.fill_(3.0)
    fresh.load_state_dict(trained.state_dict())
    assert torch.equal(trained.quant_weight().scale, fresh.quant_weight().scale)


def test_missing_quantizer_keys_are_reported():
    """A checkpoint that has some of a quantizer's keys, and not all, is incomplete."""
    layer = qnn.QuantIdentity()
    state = layer.state_dict()
    del state["act_quant.tensor_quant.scaling_impl.runtime_stats.average"]
    with pytest.raises(RuntimeError, match=r"Missing key.*runtime_stats\.average"):
        layer.load_state_dict(state)


def test_shared_quantizer_has_one_scale_for_both_weights():
    """Two layers with one quantizer share a scale: that of the largest weight of both."""
    first = qnn.QuantLinear(6, 4)
    second = qnn.QuantLinear(3, 4, weight_quant=first.weight_quant)
    first.weight.data[0, 0], second.weight.data[0, 0] = 3.0, -9.0
    assert first.weight_quant is second.weight_quant
    assert [9 / 127, 9 / 127] == pytest.approx([layer.quant_weight().scale.item() for layer in (first, second)])


def test_shared_quantizer_per_channel_needs_equal_channels():
    """A per-channel quantizer can not be shared with a weight of another number of channels."""
    first = qnn.QuantLinear(6, 4, weight_quant=Int8WeightPerChannel)
    with pytest.raises(ArgumentError) as error:
        qnn.QuantLinear(6, 5, weight_quant=first.weight_quant)
    assert str(error.value) == (
        "a quantizer whose scale has shape (4, 1) can not be shared with a weight of shape (5, 6): "
        "share one that is per tensor, or between equal numbers of channels"
    )


def test_fifty_layers_plan_their_recipe_once(monkeypatch):
    """Layers of one recipe with the same overrides share one plan."""
    planned = []
    original = plan.Plan.__init__

    def counted(self, recipe, *arguments):
        planned.append(recipe.__name__)
        original(self, recipe, *arguments)

    monkeypatch.setattr(plan.Plan, "__init__", counted)
    recipe = Int8WeightPerTensor.let(quant_delay_steps=7)
    layers = [qnn.QuantLinear(4, 4, weight_quant=recipe, weight_bit_width=5) for _ in range(50)]
    assert 50 == len(layers)
    assert sorted(set(planned)) == sorted(planned)


REFUSALS = [
    pytest.param(
        {"weight_bitwidth": 4},
        ArgumentTypeError,
        "QuantLinear got `weight_bitwidth`, and nothing in Int8WeightPerTensor takes `bitwidth`. "
        "Did you mean `weight_bit_width`?",
        id="misspelt-override",
    ),
    pytest.param(
        {"wieght_bit_width": 4, "inputquant": None},
        ArgumentTypeError,
        "QuantLinear got `wieght_bit_width`, which it does not take. Did you mean `weight_bit_width`?\n"
        "QuantLinear got `inputquant`, which it does not take. Did you mean `input_quant`?",
        id="two-misspelt-keywords",
    ),
    pytest.param(
        {"input_bit_width": 4},
        ArgumentTypeError,
        "QuantLinear got `input_bit_width`, and `input_quant` is None: there is no recipe to override.",
        id="override-of-nothing",
    ),
    pytest.param(
        {"weight_quant": "int8"},
        ArgumentTypeError,
        "QuantLinear got `weight_quant='int8'`, and needs a recipe (a class, such as injectors.Int8WeightPerTensor), "
        "a quantizer, or None",
        id="string",
    ),
    pytest.param(
        {"weight_quant": "int8", "weight_bit_width": 4},
        ArgumentTypeError,
        "QuantLinear got `weight_quant='int8'`, and needs a recipe (a class, such as injectors.Int8WeightPerTensor), "
        "a quantizer, or None",
        id="string-and-override",
    ),
    pytest.param(
        {"weight_quant": Int8ActPerTensor},
        ArgumentError,
        "QuantLinear got `weight_quant=Int8ActPerTensor`, a recipe for the role 'activation', and needs one for "
        "'weight', such as injectors.Int8WeightPerTensor",
        id="activation-recipe-as-weight",
    ),
    pytest.param(
        {"input_quant": Int8WeightPerTensor},
        ArgumentError,
        "QuantLinear got `input_quant=Int8WeightPerTensor`, a recipe for the role 'weight', and needs one for "
        "'activation', such as injectors.Int8ActPerTensor",
        id="weight-recipe-as-input",
    ),
    pytest.param(
        {"weight_signed": False},
        ArgumentError,
        "Int8WeightPerTensor.let(signed=False) is unsigned and its zero-point is zero, so all negative weights would "
        "become zero: set `signed = True`, or give it a zero-point, as ShiftedUint8WeightPerTensor has",
        id="unsigned-weight",
    ),
    pytest.param(
        {"bit_width": 4},
        ArgumentTypeError,
        "QuantLinear got `bit_width`, which it does not take. Did you mean `weight_bit_width`?",
        id="override-without-prefix",
    ),
    pytest.param(
        {"weight_qant": Int8WeightPerTensor},
        ArgumentTypeError,
        "QuantLinear got `weight_qant`, and nothing in Int8WeightPerTensor takes `qant`. Did you mean `weight_quant`?",
        id="misspelt-argument",
    ),
    pytest.param(
        {"input_qunat": Int8ActPerTensor},
        ArgumentTypeError,
        "QuantLinear got `input_qunat`, and `input_quant` is None: there is no recipe to override. "
        "Did you mean `input_quant`?",
        id="misspelt-argument-of-nothing",
    ),
    pytest.param(
        {"weight_role": "activation", "weight_tensor_shape": (1, 1)},
        ArgumentTypeError,
        "QuantLinear got `weight_role`, which QuantLinear itself tells the recipe.\n"
        "QuantLinear got `weight_tensor_shape`, which QuantLinear itself tells the recipe.",
        id="what-the-layer-supplies",
    ),
    pytest.param(
        {"return_quant_tensor": "no"},
        ArgumentTypeError,
        "`return_quant_tensor` (='no') must be True or False, not str",
        id="flag",
    ),
    pytest.param(
        {"weight_quant": None, "bias_quant": Int32Bias},
        ArgumentTypeError,
        "QuantLinear got a `bias_quant` and `weight_quant=None`: the bias lies on the grid of input times weight",
        id="bias-without-weight",
    ),
]


@pytest.mark.parametrize(("keywords", "kind", "text"), REFUSALS)
def test_refusals_name_the_culprit_and_the_way_out(keywords, kind, text):
    """What a layer refuses, it refuses by name, and says what it takes instead."""
    with pytest.raises(kind) as error:
        qnn.QuantLinear(8, 8, **keywords)
    assert text == str(error.value)


BIT_WIDTHS = [
    ("4", "ArgumentTypeError: `bit_width` (='4') must be a whole number of signed bits from 2 to 32, not str"),
    (None, "ArgumentTypeError: `bit_width` (=None) must be a whole number of signed bits from 2 to 32, not NoneType"),
    (0, "ArgumentError: `bit_width` (=0) must be a whole number of signed bits from 2 to 32"),
    (1, "ArgumentError: `bit_width` (=1) must be a whole number of signed bits from 2 to 32"),
    (-1, "ArgumentError: `bit_width` (=-1) must be a whole number of signed bits from 2 to 32"),
    (33, "ArgumentError: `bit_width` (=33) must be a whole number of signed bits from 2 to 32"),
    (2.5, "ArgumentError: `bit_width` (=2.5) must be a whole number of signed bits from 2 to 32"),
]


@pytest.mark.parametrize(("bits", "reason"), BIT_WIDTHS)
def test_wrong_bit_widths_are_refused(bits, reason):
    """A bit width that no integer grid has is refused with its place in the recipe and the rule."""
    with pytest.raises(ValueError) as error:  # noqa: PT011  # the whole text is compared
        qnn.QuantLinear(8, 8, weight_bit_width=bits)
    assert str(error.value) == (
        f"Can not build Int8WeightPerTensor.let(bit_width={bits!r}).\n"
        "\n"
        f"BitWidthConst raised {reason}\n"
        "\n"
        "  tensor_quant: RescalingIntQuant\n"
        "    bit_width_impl: BitWidthConst\n"
        f"      bit_width = {bits!r}, declared by Int8WeightPerTensor.let(...)\n"
        "      signed = True, declared by IntWeight"
    )


def test_override_of_a_shared_quantizer_is_refused():
    """A quantizer is built already: an override beside it has nowhere to go."""
    shared = qnn.QuantLinear(8, 8).weight_quant
    with pytest.raises(ArgumentTypeError) as error:
        qnn.QuantLinear(8, 8, weight_quant=shared, weight_bit_width=4)
    assert str(error.value) == (
        "QuantLinear got `weight_bit_width`, and `weight_quant` is a quantizer, which is built already: "
        "override its recipe where that is built."
    )


def test_evaluation_without_data_is_refused_by_name():
    """A quantizer that saw no data says so with its path in the model, and how to calibrate."""
    model = nn.Sequential(nn.Flatten(), qnn.QuantLinear(6, 4, input_quant=Int8ActPerTensor)).eval()
    with pytest.raises(UncalibratedError) as error:
        model(torch.randn(3, 6))
    assert str(error.value).splitlines()[0] == (
        "`1.input_quant` (Int8ActPerTensor) has seen no data, so it has no range to quantize to."
    )


def test_integer_inputs_are_refused_by_name():
    """A quantizer of activations takes floating-point tensors only, and says which one it was given."""
    model = nn.Sequential(qnn.QuantLinear(6, 4, input_quant=Int8ActPerTensor))
    with pytest.raises(ArgumentTypeError) as error:
        model(torch.zeros(3, 6, dtype=torch.int64))
    assert str(error.value) == "`0.input_quant` (Int8ActPerTensor) quantizes floating-point tensors, not torch.int64"


def test_explain_shows_what_the_layer_supplies():
    """With a layer as owner, the wiring shows its shapes, dtype and device."""
    from brevq.inject import explain  # noqa: PLC0415  # used here alone

    layer = qnn.QuantConv2d(3, 16, 3, weight_quant=Int8WeightPerChannel)
    wiring = str(explain(Int8WeightPerChannel, layer))
    assert "tensor_shape = (16, 3, 3, 3)" in wiring
    assert wiring.splitlines()[-1] == (
        "QuantConv2d supplies tensor_shape = (16, 3, 3, 3), channel_axis = 0, dtype = torch.float32, device = cpu"
    )


@pytest.mark.parametrize("name", ["QuantLinear", "QuantConv2d", "QuantReLU"])
def test_help_shows_the_arguments(name):
    """The signature of a layer lists the twin's arguments and the recipes, so that editors and `help` show them."""
    names = set(inspect.signature(getattr(qnn, name)).parameters)
    expected = {"act_quant"} if name == "QuantReLU" else {"weight_quant", "bias_quant", "input_quant", "output_quant"}
    assert expected <= names


def test_quantizers_are_attributes():
    """The quantizers of a layer are its attributes, None where there are none."""
    layer = qnn.QuantLinear(6, 4, input_quant=Int8ActPerTensor)
    kinds = {name: type(getattr(layer, name)) for name in ("weight_quant", "bias_quant", "input_quant", "output_quant")}
    assert kinds == {
        "weight_quant": Quantizer,
        "bias_quant": type(None),
        "input_quant": Quantizer,
        "output_quant": type(None),
    }


def test_a_network_trains_and_compiles_without_a_break():
    """Compiled training equals eager training over the change from observed to learned ranges, without recompiling."""
    from torch._dynamo.testing import CompileCounter  # noqa: PLC0415  # loads the compiler

    def network():
        torch.manual_seed(1)
        return nn.Sequential(
            qnn.QuantIdentity(return_quant_tensor=True, collect_stats_steps=3),
            qnn.QuantConv2d(1, 8, 3, weight_quant=Int8WeightPerTensorLSQ, bias_quant=Int32Bias),
            nn.BatchNorm2d(8),
            qnn.QuantReLU(collect_stats_steps=3),
            nn.Flatten(),
            qnn.QuantLinear(288, 10, input_quant=injectors.ShiftedUint8ActPerTensor, input_collect_stats_steps=4),
        )

    counter = CompileCounter()
    losses, states, frames = [], [], []
    for compile_it in (False, True):
        model = network()
        run = torch.compile(model, fullgraph=True, backend=counter) if compile_it else model
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        torch.manual_seed(2)
        losses.append([])
        for _ in range(8):
            loss = run(torch.randn(4, 1, 8, 8)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses[-1].append(loss.item())
            frames.append(counter.frame_count)
        states.append(model.state_dict())
    assert losses[0] == losses[1]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert frames[9] == frames[-1]  # the second step is the last that compiles: the first one leaves the empty phase


def test_a_recipe_by_position_is_refused():
    """Positional arguments are the twin's: a recipe among them is not taken for one of those."""
    with pytest.raises(ArgumentTypeError) as error:
        qnn.QuantReLU(injectors.Uint4ActPerTensor)
    assert str(error.value) == "QuantReLU got Uint4ActPerTensor by position: name what it is for, act_quant"


def test_a_component_and_its_argument_are_overridden_together():
    """An override may be for a part that another override brings."""
    layer = qnn.QuantLinear(8, 4, weight_scaling_stats_impl=MeanSigmaStd, weight_sigma=2.0)
    assert 2.0 == layer.weight_quant.tensor_quant.scaling_impl.stats_impl.sigma


def test_a_recipe_can_be_assigned():
    """A recipe that is assigned to a built layer is built for it."""
    layer = qnn.QuantLinear(8, 4)
    layer.weight_quant = injectors.Int4WeightPerChannel
    assert (4.0, (4, 1)) == (layer.quant_weight().bit_width.item(), tuple(layer.quant_weight().scale.shape))


def test_an_override_can_not_be_assigned():
    """What would change nothing is refused, with the way to do it."""
    layer = qnn.QuantLinear(8, 4)
    with pytest.raises(ArgumentTypeError) as error:
        layer.weight_bit_width = 4
    assert str(error.value) == (
        "QuantLinear is built already, and `weight_bit_width` would change nothing.\n"
        "Give it another recipe: layer.weight_quant = layer.weight_quant.recipe.let(...)"
    )


@pytest.mark.parametrize("layer", [qnn.QuantLSTM(4, 4), qnn.QuantMultiheadAttention(4, 2)])
def test_an_override_of_several_quantizers_can_not_be_assigned(layer):
    """Nor one of a table of quantizers, nor of what is a part's."""
    with pytest.raises(ArgumentTypeError, match=r"is built already, and `.*weight_bit_width` would change nothing"):
        setattr(layer, "weight_bit_width" if isinstance(layer, qnn.QuantLSTM) else "out_weight_bit_width", 4)


@pytest.mark.parametrize(
    ("create", "text"),
    [
        (lambda: qnn.QuantLinear(4, 4, bias=False, bias_quant=3), "QuantLinear got `bias_quant=3`, and needs a recipe"),
        (
            lambda: qnn.QuantLayerNorm(4, elementwise_affine=False, weight_quant=Int8ActPerTensor),
            "a recipe for the role 'activation', and needs one for 'weight'",
        ),
        (lambda: qnn.QuantLSTM(4, 4, bias=False, bias_quant="x"), "QuantLSTM got `bias_quant='x'`, and needs a recipe"),
        (
            lambda: qnn.QuantMultiheadAttention(4, 2, bias=False, out_bias_quant="x"),
            "QuantMultiheadAttention got `out_bias_quant='x'`, and needs a recipe",
        ),
    ],
)
def test_what_is_given_for_nothing_is_checked(create, text):
    """Even for a weight or a bias that is not there."""
    with pytest.raises((ArgumentError, ArgumentTypeError), match=text):
        create()


def test_quantizers_of_another_role_are_refused():
    """A table of quantizers of biases can not be that of weights, though the parts are called the same."""
    layer = qnn.QuantLSTM(4, 4, bias_quant=Int8Bias)
    with pytest.raises(ArgumentError, match="a recipe for the role 'bias', and needs one for 'weight'"):
        layer.weight_quant = layer.bias_quant


def test_a_bias_beside_a_weight_that_became_float():
    """It has no grid any more, and says so."""
    layer = qnn.QuantLinear(4, 4, input_quant=Int8ActPerTensor, bias_quant=Int32Bias)
    layer.weight_quant = None
    with pytest.raises(ArgumentError, match="QuantLinear has a float weight: `weight_quant` is None"):
        layer(torch.ones(1, 4))


def scale_of(layer):
    """The range of an 8-bit layer's weight."""
    return 127 * layer.quant_weight().scale.item()


@pytest.mark.parametrize("how", ["assigned", "loaded", "tied", "copied", "deleted", "half", "shared-later"])
def test_shared_quantizer_follows_its_layers(how):
    """The scale of a shared quantizer is that of the weights that its layers have now."""
    first, second = qnn.QuantLinear(4, 4), qnn.QuantLinear(4, 4)
    if how != "shared-later":
        second = qnn.QuantLinear(4, 4, weight_quant=first.weight_quant)
    weights = [torch.full((4, 4), 0.25), torch.full((4, 4), -2.0)]
    first.weight.data, second.weight.data = weights
    expected = [2.0, 2.0]
    if how == "assigned":
        second.weight = nn.Parameter(torch.full((4, 4), 8.0))
        expected = [8.0, 8.0]
    elif how == "loaded":
        second.load_state_dict({**second.state_dict(), "weight": torch.full((4, 4), 8.0)}, assign=True)
        expected = [8.0, 8.0]
    elif how == "tied":
        second.weight = first.weight
        expected = [0.25, 0.25]
    elif how == "copied":
        first, second = copy.deepcopy(nn.ModuleList([first, second]))
        second.weight.data.fill_(4.0)
        expected = [4.0, 4.0]
    elif how == "deleted":
        second = first
        gc.collect()
        expected = [0.25, 0.25]
    elif how == "half":
        first, second = first.bfloat16(), second.bfloat16()
    else:
        second.weight_quant = first.weight_quant
    assert torch.float32 == first.quant_weight().scale.dtype
    assert expected == pytest.approx([scale_of(first), scale_of(second)], rel=1e-6)  # one rounding in float32


def test_a_partial_checkpoint_leaves_other_ranges_alone():
    """Weights of another layer, or a refused checkpoint, do not touch a learned range."""
    model = nn.Sequential(qnn.QuantLinear(4, 4, weight_quant=Int8WeightPerTensorLSQ), nn.Linear(4, 2))
    model[0].quant_weight()
    value = model[0].weight_quant.tensor_quant.scaling_impl.value
    value.data.fill_(3.0)
    model.load_state_dict({"1.weight": torch.zeros(2, 4)}, strict=False)
    with pytest.raises(RuntimeError):
        model.load_state_dict({"bogus": torch.zeros(1)})
    assert 3.0 == pytest.approx(scale_of(model[0]), rel=1e-6)  # one rounding in float32


def test_a_checkpoint_of_another_grid_is_refused():
    """A 4-bit checkpoint does not load into an 8-bit layer, and the message says which grids they have."""
    with pytest.raises(RuntimeError) as error:
        qnn.QuantLinear(4, 4).load_state_dict(qnn.QuantLinear(4, 4, weight_bit_width=4).state_dict())
    assert "weight_quant is quantized to signed narrow 8 bits, and the checkpoint to signed narrow 4 bits" in str(
        error.value
    )


@pytest.mark.parametrize("recipe", [Int8WeightPerTensor, Int8WeightPerTensorLSQ, injectors.BinaryWeightPerTensor])
def test_layers_come_from_the_meta_device(recipe):
    """A layer that was made without memory, and then filled from a checkpoint, computes what the original does."""
    original = qnn.QuantLinear(8, 4, weight_quant=recipe)
    original.quant_weight()
    with torch.device("meta"):
        layer = qnn.QuantLinear(8, 4, weight_quant=recipe)
    layer.to_empty(device="cpu").load_state_dict(original.state_dict())
    assert torch.equal(original.quant_weight().value, layer.quant_weight().value)


def test_lsq_step_moves_toward_clipped_weights():
    """A clipped weight gives the step the gradient of its last code, times LSQ's factor, and gets none itself."""
    layer = qnn.QuantLinear(1, 1, bias=False, weight_quant=Int8WeightPerTensorLSQ, weight_bit_width=3)
    layer.quant_weight()
    value = layer.weight_quant.tensor_quant.scaling_impl.value
    value.data.fill_(3.0)  # a step of 1, and codes up to 3
    layer.weight.data.fill_(9.0)
    layer.quant_weight().value.sum().backward()
    # d value / d step is 3, a step is a third of the range, and the factor 1 / sqrt(1 * 3).
    assert [3 / 3 / 3**0.5, 0.0] == pytest.approx([value.grad.item(), layer.weight.grad.item()], rel=1e-6)


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors is a no-op")  # torch's, for the twin too
@pytest.mark.parametrize("shape", [(0, 4), (4, 0)])
def test_layers_without_weights_are_their_twins(shape):
    """A layer with no inputs or no outputs computes what its twin does."""
    layer = qnn.QuantLinear(*shape)
    x = torch.randn(3, shape[0])
    assert torch.equal(nn.functional.linear(x, layer.weight, layer.bias), layer(x))


def test_bias_on_a_grid_that_does_not_exist_is_refused():
    """A bias needs one scale for each output: scales along the inputs give it none."""
    layer = qnn.QuantLinear(
        4, 4, weight_quant=Int8WeightPerChannel.let(channel_axis=1), bias_quant=Int32Bias, input_quant=Int8ActPerTensor
    )
    with pytest.raises(ArgumentError) as error:
        layer(torch.randn(2, 4))
    assert str(error.value) == (
        "`bias_quant` (Int32Bias) lies on the grid of the accumulator, and there is none: each output needs one "
        "scale, of the whole input times that of the weight or of its output channel"
    )


def test_looking_at_a_weight_is_no_step():
    """Asking for the quantized weight in training does not use up the delay of its quantization."""
    layer = qnn.QuantLinear(4, 4, bias=False, weight_bit_width=2, weight_quant_delay_steps=1)
    for _ in range(3):
        assert torch.equal(layer.weight, layer.quant_weight().value)
    outputs = [layer(torch.eye(4)).T for _ in range(2)]
    assert [True, False] == [torch.equal(layer.weight, output) for output in outputs]


@pytest.mark.parametrize("name", ["Int8ActPerTokenDynamic", "Int8ActPerGroupDynamic"])
def test_the_scale_of_a_dynamic_input_can_be_asked_for(name):
    """`current` quantizes a zero, or as many as the granularity takes, without an error."""
    layer = qnn.QuantLinear(32, 4, input_quant=getattr(injectors, name))
    assert 8.0 == layer.input_quant.current().bit_width.item()


@pytest.mark.parametrize(
    ("recipe", "given"),
    [(Fp8e4m3OCPActPerTensor, "fp8_e4m3"), (ShiftedUint8ActPerTensor, "integers with a zero-point")],
)
def test_accumulator_aware_weights_need_integers_about_zero(recipe, given):
    """A bound on sums of integers means nothing for other codes, and the layer says which recipes fit."""
    model = nn.Sequential(qnn.QuantLinear(6, 4, weight_quant=Int8WeightPerChannelA2Q, input_quant=recipe))
    with pytest.raises(ArgumentError) as error:
        model(torch.randn(3, 6))
    assert str(error.value) == (
        "`0.weight_quant` (Int8WeightPerChannelA2Q) bounds sums of products with integers about zero, and the layer's "
        f"input is {given}.\n"
        "Give the layer an `input_quant` of integers without a zero-point, such as injectors.Int8ActPerTensor"
    )


def test_symbolic_tracing_sees_one_node_a_layer():
    """`torch.fx` traces a network of quantized layers as it does one of torch's, with equal outputs."""
    model = nn.Sequential(
        qnn.QuantLinear(6, 4, input_quant=Int8ActPerTensor), nn.ReLU(), qnn.QuantLinear(4, 2, weight_bit_width=4)
    )
    x = torch.randn(3, 6)
    model(x)
    traced = torch.fx.symbolic_trace(model.eval())
    assert ["0", "1", "2"] == [node.target for node in traced.graph.nodes if node.op == "call_module"]
    assert torch.equal(model(x), traced(x))


def test_a_bias_names_the_layer_that_should_give_the_scale():
    """A tied bias behind a layer that returns plain tensors names that layer, by its path."""
    model = nn.Sequential(qnn.QuantReLU(), nn.Flatten(), qnn.QuantLinear(6, 4, bias_quant=Int32Bias))
    with pytest.raises(ArgumentError) as error:
        model(torch.randn(3, 6))
    assert "let the layer before it, `0` (QuantReLU), return one: return_quant_tensor=True." in str(error.value)
