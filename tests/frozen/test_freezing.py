"""Whole models frozen: what changes, what does not, and what is refused."""

import copy
import io
import weakref

import pytest
import torch
from torch import nn

import brevq
from brevq.errors import ArgumentError, ArgumentTypeError, NonFiniteError, UncalibratedError
from brevq.frozen import FrozenLayer, FrozenQuantizer, FrozenTensor, load_state, memory
from brevq.graph import calibrating, unquantized
from brevq.nn import (
    QuantBatchNorm2d,
    QuantConv2d,
    QuantEmbedding,
    QuantIdentity,
    QuantLayer,
    QuantLinear,
    QuantLSTM,
    QuantMultiheadAttention,
    QuantReLU,
)
from injectors import (
    Fp8e4m3OCPWeightPerTensor,
    Int4WeightPerChannel,
    Int4WeightPerGroupSignRound,
    Int4WeightPerTensorAdaRound,
    Int8ActPerTensor,
    Int8ActPerTensorDynamic,
    Int8ActPerTensorLearnedBits,
    Int8BiasPerTensor,
    Int8WeightPerChannel,
    Int8WeightPerChannelA2Q,
    Int8WeightPerTensor,
    Int8WeightPerTensorLearnedBits,
    Int8WeightPerTensorLSQ,
    Int32Bias,
)


def network(weight=Int8WeightPerChannel):
    """A small convolutional network."""
    return nn.Sequential(
        QuantIdentity(return_quant_tensor=True),
        QuantConv2d(3, 8, 3, weight_quant=weight, bias_quant=Int32Bias),
        nn.BatchNorm2d(8),
        QuantReLU(),
        nn.Flatten(),
        QuantLinear(8 * 6 * 6, 4, weight_quant=weight, input_quant=Int8ActPerTensor, bias_quant=Int32Bias),
    )


def ready(model, *inputs):
    """A model that was trained a step, in evaluation."""
    output = model(*inputs)
    (output[0] if isinstance(output, tuple) else output).sum().backward()
    return model.zero_grad() or model.eval()


IMAGES = torch.linspace(-1, 1, 2 * 3 * 64).reshape(2, 3, 8, 8)


def state_of(model):
    """A copy of a model's state."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def equal_states(one, other):
    """Whether two states have the same keys in the same order and the same tensors."""
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


def test_in_place():
    """The model itself is frozen, and its layers are what they were to isinstance."""
    model = ready(network(), IMAGES)
    layers, expected = list(model), model(IMAGES)
    assert brevq.freeze(model) is model
    assert layers == list(model)
    assert isinstance(model[5], QuantLinear)
    assert isinstance(model[5], nn.Linear)
    assert isinstance(model[5], FrozenLayer)
    assert isinstance(model[5].weight_quant, FrozenTensor)
    assert isinstance(model[5].input_quant, FrozenQuantizer)
    assert torch.equal(expected, model(IMAGES))


def test_no_float_weights_left():
    """Parameters that were frozen are gone, and what is left needs no gradient."""
    model = ready(network(), IMAGES)
    brevq.freeze(model)
    names = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    assert {"1.bias": False, "2.weight": True, "2.bias": True} == names
    assert not [name for name in model.state_dict() if name in ("1.weight", "5.weight", "5.bias")]


def test_weight_reads_as_float():
    """A frozen weight reads as its dequantized values."""
    layer = QuantLinear(8, 4, weight_quant=Int4WeightPerChannel).eval()
    expected = layer.quant_weight()
    brevq.freeze(layer)
    assert torch.equal(expected.value, layer.weight)
    assert torch.equal(expected.int(), layer.quant_weight().int())


def test_printing():
    """A frozen layer says that it is."""
    layer = brevq.freeze(QuantLinear(8, 4, weight_quant=Int4WeightPerChannel).eval())
    expected = """
FrozenQuantLinear(
  in_features=8, out_features=4, bias=True
  (weight_quant): FrozenTensor(Int4WeightPerChannel, 4 bits, 32 values in 16 bytes)
)""".strip()
    assert expected == repr(layer)


def test_bias_codes():
    """A bias on the grid of the accumulator is codes of 32 bits, where the input's scale is known; else float."""
    model = ready(network(), IMAGES)
    expected = model[5].quant_bias().int()
    brevq.freeze(model)
    assert torch.int32 == model[5].bias_quant.codes.dtype
    assert expected.tolist() == model[5].bias_quant.codes.tolist()
    assert {"bias": "its scale is that of the input times that of the weight, and no constant"} == model[1].frozen.kept


def test_bias_of_eight_bits():
    """A bias with a scale of its own is codes of as many bits."""
    layer = QuantLinear(8, 4, bias_quant=Int8BiasPerTensor).eval()
    expected = layer.quant_bias()
    brevq.freeze(layer)
    assert (torch.int8, 4) == (layer.bias_quant.codes.dtype, layer.bias_quant.codes.nbytes)
    assert torch.equal(expected.value, layer.bias)


def test_dynamic_stays():
    """A quantizer whose scale is that of each input stays as it is."""
    layer = QuantLinear(8, 4, input_quant=Int8ActPerTensorDynamic).eval()
    quantizer, x = layer.input_quant, torch.randn(3, 8)
    expected = layer(x), layer(10 * x)
    brevq.freeze(layer)
    assert layer.input_quant is quantizer
    assert all(torch.equal(one, other) for one, other in zip(expected, (layer(x), layer(10 * x)), strict=True))


def test_constants():
    """Of a settled quantizer, scale and bit width are buffers, and it has neither parameters nor statistics."""
    layer = QuantIdentity(act_quant=Int8ActPerTensorLearnedBits)
    layer(torch.tensor([-2.56, 1.0]))
    layer.eval()
    expected = layer.act_quant.current()
    brevq.freeze(layer)
    assert [] == list(layer.parameters())
    now = layer.act_quant.current()
    assert [expected.scale, expected.zero_point, expected.bit_width] == [now.scale, now.zero_point, now.bit_width]
    assert layer.act_quant.phase is None
    assert not layer.act_quant.observes


def test_stays_in_evaluation():
    """`train` moves nothing in frozen layers, and gradients reach what comes before them."""
    model = ready(network(), IMAGES)
    expected = brevq.freeze(model)(IMAGES)
    model.train()
    assert [False, False, True] == [model[1].training, model[5].weight_quant.training, model[2].training]
    model[2].eval()
    x = IMAGES.clone().requires_grad_()
    output = model(x)
    assert torch.equal(expected, output)
    output.sum().backward()
    assert x.grad is not None
    assert bool(x.grad.abs().sum() > 0)


def test_twice():
    """Freezing again changes nothing, and unfreezing brings all back."""
    model = ready(network(), IMAGES)
    before = state_of(model)
    brevq.freeze(model, keep_float=True)
    frozen = state_of(model)
    assert equal_states(frozen, state_of(brevq.freeze(model)))
    assert equal_states(before, state_of(brevq.unfreeze(brevq.unfreeze(model))))


def test_float_model():
    """A model without quantizers stays as it is."""
    model = nn.Linear(2, 2)
    assert brevq.freeze(model) is model
    assert nn.Linear is type(brevq.unfreeze(model))


def test_no_quantizers_for_a_while():
    """Frozen weights are used without the quantizers of activations within `unquantized`."""
    model = ready(nn.Sequential(QuantLinear(4, 3, input_quant=Int8ActPerTensor)), torch.randn(5, 4))
    brevq.freeze(model)
    x = torch.randn(2, 4)
    with unquantized(model):
        assert torch.equal(nn.functional.linear(x, model[0].weight, model[0].bias), model(x))


def test_setting_is_refused():
    """What is frozen can not be set."""
    layer = brevq.freeze(QuantLinear(8, 4).eval())
    message = (
        "`weight` of this FrozenQuantLinear is frozen and stays as it is: call brevq.unfreeze(model) before changing it"
    )
    with pytest.raises(ArgumentError) as raised:
        layer.weight = nn.Parameter(torch.zeros(4, 8))
    assert message == str(raised.value)
    with pytest.raises(ArgumentError):
        layer.weight_quant = Int4WeightPerChannel
    layer.bias = nn.Parameter(torch.ones(4))
    assert 1.0 == layer.bias[0]


# Bringing back


def test_training_goes_on():
    """With keep_float, parameters are the same objects, and training gives what it would have without freezing."""
    model = ready(network(Int8WeightPerTensorLSQ), IMAGES).train()
    twin = copy.deepcopy(model)
    losses = []
    for trained, freezes in ((model, True), (twin, False)):
        torch.manual_seed(0)
        optimizer = torch.optim.Adam(trained.parameters(), 0.01)
        for _ in range(3):
            optimizer.zero_grad()
            trained(IMAGES).square().mean().backward()
            optimizer.step()
            if freezes:
                parameters = dict(trained.named_parameters())
                brevq.unfreeze(brevq.freeze(trained.eval(), keep_float=True)).train()
                assert all(parameter is parameters[name] for name, parameter in trained.named_parameters())
                assert all(parameter.requires_grad for parameter in trained.parameters())
        losses.append(state_of(trained))
    assert equal_states(*losses)


def test_training_without_floats():
    """Without the floats there are new parameters on the grid, and they are trained."""
    model = ready(network(), IMAGES)
    before = [part.quant_weight() for part in (model[1], model[5])]
    outputs = model(IMAGES)
    brevq.unfreeze(brevq.freeze(model))
    for quantized, part in zip(before, (model[1], model[5]), strict=True):
        assert torch.equal(quantized.value, part.weight)
        assert torch.equal(quantized.int(), part.quant_weight().int())
        torch.testing.assert_close(quantized.scale, part.quant_weight().scale, rtol=2**-22, atol=0.0)
    torch.testing.assert_close(outputs, model(IMAGES))
    model.train()(IMAGES).sum().backward()
    assert all(parameter.grad is not None for name, parameter in model.named_parameters() if "quant" not in name)


def test_warning():
    """Weights whose statistics do not survive are named."""
    model = nn.Sequential(QuantLinear(32, 4, weight_quant=Int8WeightPerChannelA2Q, input_quant=Int8ActPerTensor))
    ready(model, torch.randn(4, 32))
    brevq.freeze(model)
    with pytest.warns(UserWarning, match=r"other values than they were frozen with:\n  0.weight\n"):
        brevq.unfreeze(model)


def test_tied():
    """Tied parameters with one quantizer have one tensor of codes, and are tied again."""
    first = QuantLinear(8, 8)
    model = nn.Sequential(first, QuantLinear(8, 8, weight_quant=first.weight_quant))
    model[1].weight = model[0].weight
    model.eval()
    brevq.freeze(model)
    assert model[0].weight_quant is model[1].weight_quant
    assert 64 == sum(layer.codes for layer in memory(model).layers)
    brevq.unfreeze(model)
    assert model[0].weight is model[1].weight
    assert model[0].weight_quant is model[1].weight_quant


def test_tied_with_equal_codes():
    """Equal codes of a parameter by two quantizers are one tensor, also where a state brought them."""

    def tied():
        model = nn.Sequential(QuantLinear(8, 8), QuantLinear(8, 8))
        model[1].weight = model[0].weight
        return model.eval()

    model = brevq.freeze(tied())
    assert 64 == sum(layer.codes for layer in memory(model).layers)
    fresh = load_state(tied(), model.state_dict())
    assert 64 == sum(layer.codes for layer in memory(fresh).layers)
    assert torch.equal(model(torch.eye(8)), fresh(torch.eye(8)))


def test_other_codes_for_one_of_two():
    """Codes that were equal for a while are loaded each for themselves."""
    model = nn.Sequential(QuantLinear(8, 8, bias=False), QuantLinear(8, 8, bias=False))
    other = copy.deepcopy(model)
    model[1].weight = model[0].weight
    brevq.freeze(model.eval()).load_state_dict(brevq.freeze(other.eval()).state_dict())
    assert torch.equal(other(torch.eye(8)), model(torch.eye(8)))


def test_tied_with_two_quantizers():
    """A parameter with two quantizers is two tensors of codes; it comes back with the finer values, tied."""
    model = nn.Sequential(QuantLinear(8, 8, weight_bit_width=3), QuantLinear(8, 8, weight_bit_width=8))
    model[1].weight = model[0].weight
    model.eval()
    fine = model[1].quant_weight().value
    brevq.freeze(model)
    brevq.unfreeze(model)
    assert model[0].weight is model[1].weight
    assert torch.equal(fine, model[0].weight)


def test_tied_with_float():
    """A parameter that a float layer reads too stays there, and is the same one again."""
    model = nn.Sequential(QuantEmbedding(6, 4), nn.Linear(4, 6, bias=False))
    model[1].weight = model[0].weight
    weight, x = model[0].weight, torch.tensor([1, 5])
    model.eval()
    expected = model(x)
    brevq.freeze(model)
    assert torch.equal(expected, model(x))
    assert model[1].weight is weight
    assert brevq.unfreeze(model)[0].weight is weight


def test_shared_quantizer():
    """Layers whose weights share a scale keep it, and share the quantizer again."""
    first = QuantLinear(8, 8)
    model = nn.Sequential(first, QuantLinear(8, 8, weight_quant=first.weight_quant)).eval()
    x, quantizer = torch.randn(3, 8), first.weight_quant
    expected = model(x)
    brevq.freeze(model)
    assert torch.equal(expected, model(x))
    assert torch.equal(expected, copy.deepcopy(model)(x))
    brevq.unfreeze(model)
    assert model[0].weight_quant is quantizer
    assert model[1].weight_quant is quantizer
    torch.testing.assert_close(expected, model(x))


@pytest.mark.parametrize("options", [{"scale_per_gate": True}, {"share_input_hidden": True}, {"bidirectional": True}])
def test_recurrent(options):
    """Recurrent layers are frozen matrix by matrix, whatever shares scales."""
    recipes = {"weight_quant": Int8WeightPerChannel, "input_quant": Int8ActPerTensor, "hidden_quant": Int8ActPerTensor}
    model, x = QuantLSTM(6, 5, num_layers=2, bias_quant=Int32Bias, **recipes, **options), torch.randn(4, 2, 6)
    ready(model, x)
    before, expected = state_of(model), model(x)
    brevq.freeze(model, keep_float=True)
    assert not [name for name in model.state_dict() if name.startswith("weight_hh")]
    for one in (model, copy.deepcopy(model)):
        output, (h, c) = one(x)
        assert torch.equal(expected[0], output)
        assert torch.equal(expected[1][0], h)
        assert torch.equal(expected[1][1], c)
    assert torch.bfloat16 == copy.deepcopy(model).bfloat16()(x.bfloat16())[0].dtype
    assert equal_states(before, state_of(brevq.unfreeze(model)))


@pytest.mark.parametrize("sizes", [{}, {"kdim": 12, "vdim": 16}])
def test_attention(sizes):
    """In-projections are frozen as one weight or three."""
    recipes = {"weight_quant": Int4WeightPerChannel, "bias_quant": Int32Bias, "input_quant": Int8ActPerTensor}
    model = QuantMultiheadAttention(8, 2, **recipes, **sizes)
    inputs = (torch.randn(3, 2, 8), torch.randn(5, 2, sizes.get("kdim", 8)), torch.randn(5, 2, sizes.get("vdim", 8)))
    ready(model, *inputs)
    before, expected = state_of(model), model(*inputs)
    brevq.freeze(model, keep_float=True)
    assert not [name for name in model.state_dict() if name.endswith(("proj_weight", "out_proj.weight", "proj_bias"))]
    assert torch.equal(expected[0], model(*inputs)[0])
    assert torch.equal(expected[1], model(*inputs)[1])
    assert equal_states(before, state_of(brevq.unfreeze(model)))


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ({}, ["in_proj_weight", "in_proj_bias"]),
        ({"kdim": 12, "vdim": 16}, ["q_proj_weight", "k_proj_weight", "v_proj_weight", "in_proj_bias"]),
    ],
)
def test_attention_decodes_once(monkeypatch, sizes, expected):
    """Each in-projection is decoded once in a forward, by whatever ways the layer asks for it."""
    model = QuantMultiheadAttention(8, 2, bias_quant=Int32Bias, input_quant=Int8ActPerTensor, **sizes)
    inputs = (torch.randn(3, 2, 8), torch.randn(5, 2, sizes.get("kdim", 8)), torch.randn(5, 2, sizes.get("vdim", 8)))
    ready(model, *inputs)
    brevq.freeze(model)
    names = {id(tensor): name for name, tensor in model.frozen.tensors.items()}
    decoded, value = [], FrozenTensor.value
    monkeypatch.setattr(FrozenTensor, "value", lambda tensor: decoded.append(names.get(id(tensor))) or value(tensor))
    model(*inputs)
    assert sorted(expected) == sorted(name for name in decoded if name is not None)


def test_transformer():
    """A layer of torch's transformer with quantized parts is frozen as a whole, and takes no shortcut."""
    model = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    model.self_attn = QuantMultiheadAttention(16, 4, batch_first=True, input_quant=Int8ActPerTensor)
    model.linear1, model.linear2 = QuantLinear(16, 32), QuantLinear(32, 16)
    x = torch.randn(2, 5, 16)
    ready(model, x)
    with torch.no_grad():
        expected = model(x)
        assert torch.equal(expected, brevq.freeze(model)(x))


# What stays in float


class Standardized(QuantLayer, nn.Linear):
    """A layer whose weight is standardized before it is quantized."""

    def float_parameters(self, x):
        """The weight with mean 0 and deviation 1."""
        return (self.weight - self.weight.mean()) / self.weight.std(), self.bias

    def compute(self, x, weight, bias):
        """As the twin."""
        return nn.functional.linear(x, weight, bias)


def parametrized():
    """A layer whose weight is computed from two other parameters."""
    return nn.utils.parametrizations.weight_norm(QuantLinear(4, 4))


@pytest.mark.parametrize(
    ("make", "x", "kept"),
    [
        (lambda: QuantBatchNorm2d(3), IMAGES, ["weight"]),
        (lambda: QuantEmbedding(6, 4, max_norm=1.0), torch.tensor([3, 5]), ["weight"]),
        (lambda: Standardized(4, 4), torch.randn(2, 4), ["weight"]),
        (parametrized, torch.randn(2, 4), ["weight"]),
    ],
    ids=["batch normalization", "max_norm", "float_parameters", "parametrized"],
)
def test_kept(make, x, kept):
    """What is no constant stays in float, outputs are equal, and the report says why."""
    model = nn.Sequential(make())
    model(x)
    model.eval()
    before, expected = state_of(model), model(x)
    brevq.freeze(model)
    assert torch.equal(expected, model(x))
    assert kept == list(model[0].frozen.kept)
    assert all(model[0].frozen.kept.values())
    assert kept == [name for layer in memory(model).layers for name in layer.kept]
    assert equal_states(before, state_of(model))
    assert equal_states(before, state_of(brevq.unfreeze(model)))


# What is refused


def refused(error, model, **options):
    """The message with which freezing a model is refused; the model is as it was."""
    modules, before = dict(model.named_modules()), state_of(model)
    kinds = [type(module) for module in modules.values()]
    with pytest.raises(error) as raised:
        brevq.freeze(model, **options)
    assert modules == dict(model.named_modules())
    assert kinds == [type(module) for module in model.modules()]
    assert before["grid"].is_meta or equal_states(before, state_of(model))
    return str(raised.value)


def with_grid(model):
    """A model with a quantizer of its own, which says whether it is on the meta device."""
    model.register_buffer("grid", torch.zeros(()))
    return model


def test_uncalibrated():
    """All quantizers without data are listed, and nothing is frozen."""
    model = with_grid(network().eval())
    expected = """
These quantizers have seen no data, so they have no range to freeze:
  0.act_quant (Int8ActPerTensor)
  3.act_quant (Uint8ActPerTensor)
  5.input_quant (Int8ActPerTensor)

Nothing was frozen. Calibrate or train the model first; or remove those that are not in use:

    with brevq.graph.calibrating(model):
        for batch in batches:
            model(batch)""".strip()
    assert expected == refused(UncalibratedError, model)


def test_in_training():
    """A model in training is refused."""
    model = with_grid(nn.Sequential(QuantLinear(2, 2), QuantLinear(2, 2), QuantReLU(), QuantReLU()))
    expected = (
        "`0`, `1`, `2` and 1 more are in training mode, and what is frozen is what evaluation computes: "
        "call model.eval() first"
    )
    assert expected == refused(ArgumentError, model)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_not_finite(number):
    """A weight without codes is named, and the layers before it are not frozen either."""
    model = with_grid(nn.Sequential(QuantLinear(2, 2), QuantLinear(2, 2)).eval())
    model[1].weight.data[0, 0] = number
    assert "`1.weight` has a NaN or an infinity, which has no code. Nothing was frozen" == str(
        refused(NonFiniteError, with_nan_equal(model))
    )


def with_nan_equal(model):
    """A model whose state is compared to itself although it has a NaN."""
    model._register_state_dict_hook(lambda _, state, *__: state.update({"1.weight": state["1.weight"].nan_to_num(7.0)}))
    return model


def test_calibrating():
    """A model that is being calibrated is refused."""
    model = with_grid(QuantReLU().eval())
    with calibrating(model):
        model(torch.ones(2))
        assert "`act_quant` is being calibrated: freeze the model after that" == refused(ArgumentError, model)


def test_meta():
    """A model without values is refused."""
    with torch.device("meta"):
        model = with_grid(nn.Sequential(QuantLinear(2, 2)).eval())
    expected = "`0.weight_quant` is on the meta device, where there are no values to freeze: load the model first"
    assert expected == refused(ArgumentError, model)


@pytest.mark.parametrize("function", [brevq.freeze, brevq.unfreeze, memory, lambda model: load_state(model, {})])
def test_no_module(function):
    """Anything but a module is refused."""
    with pytest.raises(ArgumentTypeError, match="`model` must be a module, not int"):
        function(3)


def test_no_state():
    """Anything but a state is refused."""
    with pytest.raises(ArgumentTypeError, match=r"`state` \(=None\) must be a state of a frozen model"):
        load_state(QuantLinear(2, 2).eval(), None)


# Memory


def storages(model):
    """The bytes of all tensors that a model holds, each storage once, the hidden ones of frozen quantizers too."""
    found = {}

    def add(module):
        for part in module.modules():
            for tensor in (*part._parameters.values(), *part._buffers.values()):
                if tensor is not None and tensor.numel():
                    found[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            if hasattr(part, "_origin"):
                add(part._origin[0])

    add(model)
    return sum(found.values())


def test_memory_by_hand():
    """Codes, scales and float remainder of a layer are those that can be counted."""
    model = nn.Sequential(QuantLinear(100, 10, weight_quant=Int4WeightPerChannel), nn.ReLU(), nn.Linear(10, 2)).eval()
    report = memory(brevq.freeze(model))
    quantized, linear = report.layers
    assert (4 * (100 * 10 + 10), 100 * 10 // 2, 4 * 10 + 4, 4 * 10) == (
        quantized.float_bytes,
        quantized.codes,
        quantized.scales,  # ten scales and one zero-point
        quantized.rest,
    )
    assert (4 * 22, 4 * 22, 0) == (linear.float_bytes, linear.bytes, linear.codes)
    assert (4 * (1010 + 22), storages(model)) == (report.float_bytes, report.bytes)


@pytest.mark.parametrize("freezes", [False, True])
def test_memory_is_storage(freezes):
    """Before and after, what is reported is what all tensors of the model take, and the float model is the same."""
    model = ready(network(Int4WeightPerChannel), IMAGES)
    floats = 4 * (3 * 8 * 9 + 8 + 4 * 8 + 288 * 4 + 4) + 8  # the last: the counter of batch normalization
    if freezes:
        brevq.freeze(model)
    assert (floats, storages(model)) == (memory(model).float_bytes, memory(model).bytes)


def test_memory_of_kept_floats():
    """Floats that are kept beside the codes are counted, once where layers are tied."""
    model = nn.Sequential(QuantLinear(8, 8, bias=False), QuantLinear(8, 8, bias=False)).eval()
    model[1].weight = model[0].weight
    without = memory(brevq.freeze(copy.deepcopy(model)))
    kept = memory(brevq.freeze(model, keep_float=True))
    assert (4 * 64, 4 * 64) == (without.float_bytes, kept.float_bytes)
    assert without.bytes + 4 * 64 == kept.bytes


@pytest.mark.parametrize("first", [nn.Linear, QuantLinear])
def test_memory_of_floats_elsewhere(first):
    """A parameter that a float layer reads too is one of the float model, whichever comes first."""
    second = nn.Linear if first is QuantLinear else QuantLinear
    model = nn.Sequential(first(8, 8, bias=False), second(8, 8, bias=False)).eval()
    model[1].weight = model[0].weight
    assert 4 * 64 == memory(brevq.freeze(model)).float_bytes


def test_floats_are_freed():
    """No reference to a float weight is left without keep_float."""
    layer = QuantLinear(64, 64).eval()
    weight = weakref.ref(layer.weight)
    brevq.freeze(layer)
    assert weight() is None


def test_memory_prints():
    """The report is a table, with a line for all layers."""
    model = nn.Sequential(QuantLinear(512, 512, weight_quant=Int4WeightPerChannel, bias=False)).eval()
    lines = str(memory(brevq.freeze(model))).splitlines()
    assert ["layer", "0", "all"] == [line.split()[0] for line in lines]
    assert ["1048576", "131072"] == [lines[1].split()[place] for place in (1, 3)]
    assert lines[2].endswith("times smaller")


# States


def test_state_file():
    """The state goes through a file that runs nothing into a new model, which is brought back as the frozen one is."""
    model = ready(network(Int8WeightPerTensorLSQ), IMAGES)
    expected = brevq.freeze(model)(IMAGES)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    fresh = load_state(network(Int8WeightPerTensorLSQ), torch.load(file, weights_only=True))
    assert torch.equal(expected, fresh(IMAGES))
    assert not fresh.training
    brevq.unfreeze(fresh)
    brevq.unfreeze(model)
    assert equal_states(state_of(model), state_of(fresh))


@pytest.mark.parametrize("keep_float", [True, False])
@pytest.mark.parametrize("recipe", [Int4WeightPerTensorAdaRound, Int4WeightPerGroupSignRound])
def test_state_of_learned_rounding(recipe, keep_float):
    """What a rounding has learned for each value is in the codes, and comes into a new model with these."""
    layer = QuantLinear(64, 4, weight_quant=recipe)
    layer(torch.eye(64))
    expected = brevq.freeze(layer.eval(), keep_float)(torch.eye(64))
    assert torch.equal(expected, load_state(QuantLinear(64, 4, weight_quant=recipe), layer.state_dict())(torch.eye(64)))


def test_a_state_that_does_not_fit_shared_rounding():
    """Nor do layers that share a quantizer lose it."""

    def shared():
        model = nn.Sequential(QuantLinear(8, 8, weight_quant=Int4WeightPerTensorAdaRound), QuantLinear(8, 8))
        model[1].weight_quant = model[0].weight_quant
        model(torch.eye(8))
        return model.eval()

    state = {**brevq.freeze(shared()).state_dict(), "extra": torch.zeros(1)}
    model = shared()
    expected = model(torch.eye(8))
    with pytest.raises(ArgumentError, match="the model has no extra"):
        load_state(model, state)
    assert torch.equal(expected, model(torch.eye(8)))


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_state_that_does_not_fit_learned_rounding(device):
    """A layer that is refused keeps what its rounding has learned."""
    state = brevq.freeze(QuantLinear(64, 4, weight_quant=Int4WeightPerTensorAdaRound).eval()).state_dict()
    layer = QuantLinear(64, 4, bias=False, weight_quant=Int4WeightPerTensorAdaRound, device=device)
    value = layer.weight_quant.tensor_quant.int_quant.float_to_int_impl.value
    with pytest.raises(ArgumentError, match="the model is on the meta device" if device == "meta" else "has no bias"):
        load_state(layer, state)
    assert layer.weight_quant.tensor_quant.int_quant.float_to_int_impl.value is value


def test_state_into_frozen():
    """A frozen model takes the state of another one by `load_state_dict`."""
    one, other = ready(network(), IMAGES), ready(network(), 3 * IMAGES)
    for model in (one, other):
        brevq.freeze(model)
    one.load_state_dict(other.state_dict())
    assert torch.equal(other(IMAGES), one(IMAGES))


def test_other_state():
    """A state that is not that of the model is refused, and the model is as it was."""
    model = with_grid(network())
    before = state_of(model)
    frozen = brevq.freeze(ready(network(), IMAGES)).state_dict()
    for state in ({}, nn.Linear(2, 2).state_dict(), frozen):
        with pytest.raises(ArgumentError, match="the state is not one of this model frozen: it lacks"):
            load_state(model, state)
        assert equal_states(before, state_of(model))
        assert QuantLinear is type(model[5])


@pytest.mark.parametrize(("inputs", "bits"), [(16, 8), (8, 4)])
def test_state_of_another_weight(inputs, bits):
    """Codes of another shape or number of bits are refused."""
    model = nn.Sequential(QuantLinear(8, 4))
    state = brevq.freeze(nn.Sequential(QuantLinear(inputs, 4, weight_bit_width=bits)).eval()).state_dict()
    with pytest.raises(ArgumentError, match=r"the state is not one of this model frozen: 0.weight_quant"):
        load_state(model, state)
    assert QuantLinear is type(model[0])


def test_state_with_another_shape():
    """A state that fits but for a shape of what is no quantizer's is refused, and the model is as it was."""
    model = nn.Sequential(QuantLinear(8, 4), nn.Linear(4, 3))
    before = state_of(model)
    state = {**brevq.freeze(copy.deepcopy(model).eval()).state_dict(), "1.weight": torch.ones(5, 4)}
    with pytest.raises(ArgumentError, match=r"it has another shape of 1\.weight\. The model"):
        load_state(model, state)
    assert (QuantLinear, True) == (type(model[0]), model.training)
    assert equal_states(before, state_of(model))


def test_state_with_another_grid_of_what_is_not_frozen():
    """A state in which a dynamic quantizer has another grid is refused, and the model is as it was."""

    def model(bits):
        return nn.Sequential(QuantLinear(8, 4), QuantIdentity(act_quant=Int8ActPerTensorDynamic.let(bit_width=bits)))

    state, other = brevq.freeze(model(8).eval()).state_dict(), model(4)
    with pytest.raises(ArgumentError, match=r"1\.act_quant is quantized to .* 4 bits, and in the state to .* 8 bits"):
        load_state(other, state)
    assert QuantLinear is type(other[0])


@pytest.mark.parametrize("bits", [3, 7, 12, 20])
def test_state_of_other_learned_bits(bits):
    """A frozen model whose bit widths are learned takes the state of one that learned others."""
    models = [nn.Sequential(QuantLinear(8, 4, weight_quant=Int8WeightPerTensorLearnedBits)).eval() for _ in range(2)]
    models[1][0].weight_quant.tensor_quant.bit_width_impl.offset.data.fill_(bits - 2)
    one, other = map(brevq.freeze, models)
    one.load_state_dict(other.state_dict())
    x = torch.linspace(-1, 1, 8)
    assert bits == one[0].quant_weight().bit_width
    assert torch.equal(other(x), one(x))
    assert torch.equal(other[0].quant_weight().int(), brevq.unfreeze(one)[0].quant_weight().int())


def test_state_of_another_recipe_into_frozen():
    """What a frozen model says to the state of another recipe names the quantizer."""
    one, other = (brevq.freeze(nn.Sequential(QuantLinear(8, 4, weight_bit_width=bits)).eval()) for bits in (8, 7))
    with pytest.raises(RuntimeError, match=r"0\.weight_quant\.origin: (.|\n)*is quantized to signed narrow 8 bits"):
        one.load_state_dict(other.state_dict())


def test_kept_floats_give_way_to_a_state():
    """Where a frozen model was given other codes, kept parameters are the same objects, with what those stand for."""
    one, other = nn.Sequential(QuantLinear(8, 4)).eval(), nn.Sequential(QuantLinear(8, 4)).eval()
    weight, x = one[0].weight, torch.linspace(-1, 1, 8)
    brevq.freeze(one, keep_float=True)
    one.load_state_dict(one.state_dict())
    one.load_state_dict(brevq.freeze(other).state_dict())
    expected = other(x)
    assert torch.equal(expected, brevq.unfreeze(one)(x))
    assert weight is one[0].weight


def test_floats_elsewhere_are_loaded():
    """A parameter that a float layer reads too is what a state says, not what its codes stand for."""
    models = []
    for _ in range(2):
        linear, twin = QuantLinear(4, 4), nn.Linear(4, 4)
        linear.weight = twin.weight
        models.append(brevq.freeze(nn.Sequential(linear, twin).eval()))
    models[0].load_state_dict(models[1].state_dict())
    expected = models[1][1].weight
    brevq.unfreeze(models[0])
    assert models[0][0].weight is models[0][1].weight
    assert torch.equal(expected, models[0][0].weight)


def test_kept_floats_move():
    """Kept parameters go along to another dtype, as the same objects."""
    model = nn.Sequential(QuantLinear(8, 4)).eval()
    weight = model[0].weight
    brevq.unfreeze(brevq.freeze(model, keep_float=True).bfloat16())
    assert (True, torch.bfloat16) == (weight is model[0].weight, weight.dtype)
    assert torch.bfloat16 == model(torch.ones(8, dtype=torch.bfloat16)).dtype


def test_kept_floats_are_not_on_meta():
    """On the meta device kept parameters are given up: what comes back is what the loaded codes stand for."""
    model = brevq.freeze(nn.Sequential(QuantLinear(8, 4)).eval(), keep_float=True)
    expected, state = model[0].weight, state_of(model)
    model.to("meta").to_empty(device="cpu").load_state_dict(state)
    assert torch.equal(expected, brevq.unfreeze(model)[0].weight)


@pytest.mark.parametrize("weight", [Int8WeightPerTensor, Fp8e4m3OCPWeightPerTensor])
@pytest.mark.parametrize("assign", [False, True])
def test_from_meta(weight, assign):
    """A frozen model on the meta device is filled by a state, whatever else it holds than what is in that."""
    model = brevq.freeze(ready(network(weight), IMAGES))
    expected, state, copied = model(IMAGES), state_of(model), copy.deepcopy(model).to("meta")
    copied = copied if assign else copied.to_empty(device="cpu")
    copied.load_state_dict(state, assign=assign)
    assert torch.equal(expected, copied(IMAGES))
    assert equal_states(state, state_of(copied))


def test_frozen_names_can_not_be_deleted():
    """What is frozen is not deleted either, and a frozen layer is as it was."""
    layer = brevq.freeze(QuantLinear(8, 4).eval())
    for name in ("weight", "weight_quant"):
        with pytest.raises(ArgumentError, match=rf"`{name}` of this FrozenQuantLinear is frozen and stays as it is"):
            delattr(layer, name)
    assert isinstance(layer.weight_quant, FrozenTensor)


def test_unfreezing_in_inference_mode():
    """A model that was brought back in inference mode can be trained."""
    model = brevq.freeze(nn.Sequential(QuantLinear(8, 4)).eval())
    with torch.inference_mode():
        brevq.unfreeze(model)
    model.train()(torch.ones(8)).sum().backward()
    assert model[0].weight.grad is not None


def test_moving():
    """A frozen model in another dtype computes in it, and copies to the meta device and back keep the state."""
    model = brevq.freeze(ready(network(), IMAGES))
    half = copy.deepcopy(model).to(torch.bfloat16)
    assert torch.bfloat16 == half(IMAGES.bfloat16()).dtype
    assert torch.int8 == half[1].weight_quant.codes.dtype
    assert "meta" == copy.deepcopy(model).to("meta")[1].weight_quant.codes.device.type


def test_weight_per_tensor_is_default():
    """The default recipe is frozen to one byte a weight."""
    layer = brevq.freeze(QuantLinear(8, 4, weight_quant=Int8WeightPerTensor).eval())
    assert 32 == layer.weight_quant.codes.nbytes
