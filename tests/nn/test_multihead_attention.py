"""Multi-head attention: torch's own without quantizers, each of its quantizers, and its place in transformers."""

import copy
import inspect
import io
import math
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from brevq import nn as qnn
from brevq.core.phase import Phase
from brevq.errors import ArgumentError, ArgumentTypeError
from brevq.graph import calibrating
from brevq.quant_tensor import QuantTensor
from brevq.quantizer import Quantizer
from injectors import (
    Int4WeightPerChannel,
    Int8ActPerTensor,
    Int8WeightPerChannel,
    Int8WeightPerChannelA2Q,
    Int8WeightPerTensor,
    Int8WeightPerTensorLSQ,
    Int32Bias,
    Uint8ActPerTensor,
)

FLOAT = {"weight_quant": None, "out_weight_quant": None}
EVERYTHING = {
    **dict.fromkeys(("weight_quant", "out_weight_quant"), Int8WeightPerChannel),
    **dict.fromkeys(("bias_quant", "out_bias_quant"), Int32Bias),
    **dict.fromkeys(
        ("input_quant", "query_quant", "key_quant", "value_quant", "out_input_quant", "output_quant"), Int8ActPerTensor
    ),
    "softmax_input_quant": Int8ActPerTensor,
    "attention_quant": Uint8ActPerTensor,
}

LAYERS = [
    pytest.param({}, id="plain"),
    pytest.param({"batch_first": True}, id="batch-first"),
    pytest.param({"batch_first": True, "bias": False}, id="no-bias"),
    pytest.param({"dropout": 0.4}, id="dropout"),
    pytest.param({"add_bias_kv": True, "dropout": 0.4}, id="bias-kv"),
    pytest.param({"add_zero_attn": True, "batch_first": True}, id="zero"),
    pytest.param({"add_zero_attn": True, "add_bias_kv": True, "batch_first": True}, id="zero-bias-kv"),
    pytest.param({"kdim": 6}, id="kdim"),
    pytest.param({"kdim": 6, "vdim": 5, "bias": False, "batch_first": True, "add_zero_attn": True}, id="kdim-vdim"),
]

BOOLEAN = torch.tensor([[0, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 1], [0, 0, 0, 1]], dtype=torch.bool)
PADDING = torch.tensor([[0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 1]], dtype=torch.bool)
CAUSAL = torch.full((4, 4), -math.inf).triu(1)
CALLS = [
    pytest.param({}, id="plain"),
    pytest.param({"need_weights": False}, id="no-weights"),
    pytest.param({"average_attn_weights": False, "attn_mask": BOOLEAN}, id="boolean-all-heads"),
    pytest.param({"attn_mask": torch.linspace(-2, 2, 96).reshape(6, 4, 4), "need_weights": False}, id="3d-no-weights"),
    pytest.param({"attn_mask": torch.linspace(-2, 2, 96).reshape(6, 4, 4)}, id="3d"),
    pytest.param({"key_padding_mask": PADDING}, id="padding"),
    pytest.param({"key_padding_mask": PADDING, "need_weights": False}, id="padding-no-weights"),
    pytest.param({"key_padding_mask": PADDING, "attn_mask": BOOLEAN, "need_weights": False}, id="both-no-weights"),
    pytest.param({"key_padding_mask": torch.linspace(-1, 1, 12).reshape(3, 4), "attn_mask": CAUSAL}, id="both-added"),
    pytest.param({"attn_mask": CAUSAL, "is_causal": True}, id="causal"),
    pytest.param({"attn_mask": CAUSAL, "is_causal": True, "need_weights": False}, id="causal-no-weights"),
]


DEFAULTS = {
    "key_padding_mask": None,
    "need_weights": True,
    "attn_mask": None,
    "average_attn_weights": True,
    "is_causal": False,
}


def tensor(layer, features, *, seed, batched=True):
    """An input of 4 places and a batch of 3, as the layer wants it."""
    shape = (3, 4, features) if layer.batch_first else (4, 3, features)
    return torch.randn(shape if batched else (4, features), generator=torch.Generator().manual_seed(seed))


def inputs(layer, same="all", batched=True):
    """Query, key and value: one tensor, two, or three."""
    query = tensor(layer, layer.embed_dim, seed=1, batched=batched)
    if same == "all" and layer.kdim == layer.vdim == layer.embed_dim:
        return query, query, query
    key = tensor(layer, layer.kdim, seed=2, batched=batched)
    if same != "none" and layer.kdim == layer.vdim:
        return query, key, key
    return query, key, tensor(layer, layer.vdim, seed=3, batched=batched)


def twins(arguments, **quant):
    """A quantized layer of 8 features and 2 heads, and its float twin with the same parameters."""
    twin = nn.MultiheadAttention(8, 2, **arguments)
    generator = torch.Generator().manual_seed(4)
    for parameter in twin.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    layer = qnn.QuantMultiheadAttention(8, 2, **arguments, **quant)
    layer.load_state_dict(twin.state_dict(), strict=True)
    return layer, twin


def results(module, function, tensors, options):
    """Output and weights of a function, and the gradients that it hands to its inputs and the module's parameters."""
    module.zero_grad()
    leaves = {}
    for x in tensors:
        leaves.setdefault(id(x), x.clone().requires_grad_())
    torch.manual_seed(6)
    output, weights = function(*(leaves[id(x)] for x in tensors), **options)
    loss = output.square().sum()
    if weights is not None:
        loss = loss + (weights * torch.arange(weights.numel()).reshape(weights.shape)).sum()
    loss.backward()
    gradients = [leaf.grad for leaf in leaves.values()] + [parameter.grad for parameter in module.parameters()]
    return [output, weights, *gradients]


def equal(ours, theirs):
    """Whether results are the same, bit for bit."""
    return all(a is b if a is None else torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("same", ["all", "two", "none"])
@pytest.mark.parametrize("options", CALLS)
@pytest.mark.parametrize("arguments", LAYERS)
def test_without_quantizers_it_is_its_twin(arguments, options, same, training):
    """Without quantizers output, weights and gradients are torch's bit for bit, and so are those of its own steps."""
    layer, twin = twins(arguments, **FLOAT)
    tensors = inputs(twin, same)
    theirs = results(twin.train(training), twin.forward, tensors, options)
    assert equal(results(layer.train(training), layer.forward, tensors, options), theirs)
    assert equal(results(layer, layer._composed, tensors, DEFAULTS | options), theirs)


@pytest.mark.parametrize("options", [{}, {"need_weights": False, "attn_mask": BOOLEAN}])
@pytest.mark.parametrize("same", ["all", "none"])
@pytest.mark.parametrize("training", [True, False])
def test_unbatched_inputs(options, same, training):
    """Inputs without a batch give outputs and weights without one, equal to torch's."""
    for arguments in ({}, {"batch_first": True}, {"kdim": 6, "add_bias_kv": True}):
        layer, twin = twins(arguments, **FLOAT)
        quantized, _ = twins(arguments, query_quant=Int8ActPerTensor)
        tensors = inputs(twin, same, batched=False)
        theirs = results(twin.train(training), twin.forward, tensors, options)
        assert equal(results(layer.train(training), layer.forward, tensors, options), theirs)
        assert [y if y is None else y.shape for y in theirs[:2]] == [
            y if y is None else y.shape for y in quantized(*tensors, **options)
        ]


@pytest.mark.parametrize("options", [{}, {"need_weights": False}, {"key_padding_mask": PADDING}])
def test_without_quantizers_evaluation_takes_torchs_fast_path(options, monkeypatch):
    """Without gradients a layer without quantizers runs torch's native kernel, and one with a quantizer does not."""
    native, calls = torch._native_multi_head_attention, []
    monkeypatch.setattr(torch, "_native_multi_head_attention", lambda *a: calls.append(1) or native(*a))
    layer, twin = twins({"batch_first": True}, **FLOAT)
    x, *_ = inputs(twin)
    with torch.no_grad():
        theirs, ours = twin.eval()(x, x, x, **options), layer.eval()(x, x, x, **options)
        assert 2 == len(calls)
        layer.weight_quant = Int8WeightPerTensor
        layer(x, x, x, **options)
    assert 2 == len(calls)
    assert equal(ours, theirs)


@pytest.mark.parametrize("same", ["all", "two", "none"])
@pytest.mark.parametrize("arguments", LAYERS)
def test_forward_is_the_twin_on_quantized_weights(arguments, same):
    """With quantized weights alone, output and weights are the twin's for the weights that the layer tells."""
    layer, twin = twins(arguments, weight_quant=Int4WeightPerChannel, out_weight_quant=Int8WeightPerChannel)
    weights = [weight.value.detach() for weight in layer.quant_weights()]
    if twin.in_proj_weight is None:
        twin.q_proj_weight.data, twin.k_proj_weight.data, twin.v_proj_weight.data = weights
    else:
        twin.in_proj_weight.data = torch.cat(weights)
    twin.out_proj.weight.data = layer.out_proj.quant_weight().value.detach()
    tensors = inputs(twin, same)
    assert equal(layer.eval()(*tensors), twin.eval()(*tensors))


def test_packed_weight_has_one_quantizer():
    """The packed weight has one scale for each of its output channels, or one for all."""
    per_channel, _ = twins({}, weight_quant=Int8WeightPerChannel)
    per_tensor, _ = twins({}, weight_quant=Int8WeightPerTensor)
    weight = per_channel.in_proj_weight.detach().numpy()
    scale = np.abs(weight).max(axis=1, keepdims=True) / np.float32(127)
    assert (24, 1) == tuple(per_channel.quant_weight().scale.shape)
    assert np.array_equal(np.rint(weight / scale).astype(np.int8), per_channel.quant_weight().int().numpy())
    assert np.abs(weight).max() / np.float32(127) == per_tensor.quant_weight().scale.item()
    assert (None, None) == (per_channel.key_weight_quant, per_channel.value_weight_quant)


def test_separate_weights_have_a_quantizer_each():
    """Separate projections have three quantizers of one recipe, with a scale each; assigning one recipe sets all."""
    layer, _ = twins({"kdim": 6, "vdim": 5}, weight_bit_width=4)
    names = ("q_proj_weight", "k_proj_weight", "v_proj_weight")
    expected = [getattr(layer, name).detach().abs().max().item() / 7 for name in names]
    assert expected == pytest.approx([weight.scale.item() for weight in layer.quant_weights()], rel=1e-6)  # a rounding
    layer.weight_quant = Int8WeightPerChannel
    assert [(8, 1)] * 3 == [tuple(weight.scale.shape) for weight in layer.quant_weights()]
    layer.weight_quant = None
    assert [None] * 3 == [layer.weight_quant, layer.key_weight_quant, layer.value_weight_quant]


def test_overrides_reach_their_quantizers():
    """An override goes to the quantizer that its prefix names, the longest that fits."""
    layer, _ = twins(
        {},
        **EVERYTHING | {"key_input_quant": Int8ActPerTensor},
        **{f"{role}_bit_width": bits for bits, role in enumerate(("key", "key_input", "out_weight", "weight"), 3)},
    )
    x = inputs(layer, "two")
    layer(*x)
    bits = [
        layer.key_quant.current().bit_width.item(),
        layer.key_input_quant.current().bit_width.item(),
        layer.out_proj.quant_weight().bit_width.item(),
        layer.quant_weight().bit_width.item(),
    ]
    assert [3, 4, 5, 6] == bits


def test_out_projection_is_a_quant_linear():
    """The out-projection's quantizers are those of a QuantLinear, and can be assigned on either."""
    layer, _ = twins({}, **EVERYTHING)
    names = ("weight_quant", "bias_quant", "input_quant")
    assert isinstance(layer.out_proj, qnn.QuantLinear)
    assert all(getattr(layer, f"out_{name}") is getattr(layer.out_proj, name) for name in names)
    assert layer.output_quant is layer.out_proj.output_quant
    layer.out_weight_quant = Int4WeightPerChannel
    assert 4 == layer.out_proj.quant_weight().bit_width.item()
    layer.out_proj = nn.Linear(8, 8)
    assert (None, None) == (layer.out_weight_quant, layer.output_quant)


def test_quantizers_are_counted_once():
    """Each quantizer stands in the layer once, and its state has keys of its own."""
    layer, twin = twins({}, **EVERYTHING)
    quantizers = [name for name, module in layer.named_modules() if isinstance(module, Quantizer)]
    float_keys = [key for key in layer.state_dict() if "_quant." not in key]
    assert len(EVERYTHING) == len(quantizers)
    assert list(twin.state_dict()) == float_keys
    assert {"out_proj.weight_quant", "out_proj.output_quant", "weight_quant", "attention_quant"} <= set(quantizers)


@pytest.mark.parametrize(
    ("own", "scales"),
    [
        ({}, ["input", "input", "input"]),
        ({"key_input_quant": Int8ActPerTensor}, ["input", "key", "key"]),
        ({"key_input_quant": Int8ActPerTensor, "value_input_quant": Int8ActPerTensor}, ["input", "key", "value"]),
    ],
)
@pytest.mark.parametrize("arguments", [{}, {"kdim": 6, "vdim": 5}])
def test_bias_takes_the_scale_of_its_input(arguments, own, scales):
    """Each third of a tied bias lies on the grid of the input of its projection times that of its weight."""
    layer, _ = twins(arguments, input_quant=Int8ActPerTensor, bias_quant=Int32Bias, **own)
    query, key, value = inputs(layer, "none")
    layer(query, 2 * key, 4 * value)
    quantizers = {"input": "input_quant", "key": "key_input_quant", "value": "value_input_quant"}
    of_inputs = [getattr(layer, quantizers[name]).current().scale.item() for name in scales]
    of_weights = [weight.scale.item() for weight in layer.quant_weights()]
    products = [np.float32(a) * np.float32(b) for a, b in zip(of_inputs, of_weights, strict=True)]
    bias = layer.in_proj_bias.detach().numpy()
    expected = np.rint(bias / np.repeat(products, 8)).astype(np.int32)
    assert np.array_equal(expected, layer.quant_bias().int().numpy())


def test_each_input_is_quantized_once():
    """Self-attention quantizes its one input once, and attention to a memory each of two."""
    layer, _ = twins({}, input_quant=Int8ActPerTensor)
    calls = []
    layer.input_quant.register_forward_hook(lambda *_: calls.append(1))
    layer(*inputs(layer, "all"))
    assert 1 == len(calls)
    layer(*inputs(layer, "two"))
    assert 3 == len(calls)


def test_accumulator_aware_weights_suit_each_input():
    """Weights that depend on the input's bit width are quantized for that of their projection's input."""
    for arguments in ({}, {"kdim": 6}):
        layer, _ = twins(
            arguments,
            weight_quant=Int8WeightPerChannelA2Q,
            input_quant=Int8ActPerTensor,
            key_input_quant=Int8ActPerTensor.let(bit_width=4),
            bias_quant=Int32Bias,
        )
        layer(*inputs(layer, "none"))
        assert [8] * 3 == [int(weight.bit_width) for weight in layer.quant_weights()]
        assert torch.isfinite(layer(*inputs(layer, "none"))[0]).all()


def test_quantized_attention_is_that_of_numpy():
    """With every step quantized, the output is that of NumPy with the scales of the layer, within a code."""
    layer, _ = twins({"batch_first": True}, **EVERYTHING)
    x = inputs(layer)[0]
    with calibrating(layer.eval()):
        layer(x, x, x)

    def quantized(a, name, low=-128, high=127):
        scale = getattr(layer, name).current().scale.detach().double().numpy()
        return np.clip(np.rint(a / scale), low, high) * scale

    def values(quant_tensor):
        return quant_tensor.value.detach().double().numpy()

    projected = quantized(x.double().numpy(), "input_quant") @ values(layer.quant_weight()).T
    projected = (projected + values(layer.quant_bias())).reshape(3, 4, 3, 2, 4).transpose(2, 0, 3, 1, 4)
    names = ("query_quant", "key_quant", "value_quant")
    query, key, value = (
        quantized(a, name) for a, name in zip(projected * [[[[[0.5]]]], [[[[1]]]], [[[[1]]]]], names, strict=True)
    )
    powers = np.exp(quantized(query @ key.swapaxes(-1, -2), "softmax_input_quant"))
    weights = quantized(powers / powers.sum(-1, keepdims=True), "attention_quant", 0, 255)
    joined = quantized((weights @ value).transpose(0, 2, 1, 3).reshape(3, 4, 8), "out_input_quant")
    expected = joined @ values(layer.out_proj.quant_weight()).T + values(layer.out_proj.quant_bias())
    output, returned = layer(x, x, x, average_attn_weights=False)
    step = layer.output_quant.current().scale.item()
    # Halves of a code may round the other way in float32.
    np.testing.assert_allclose(output.detach().numpy(), quantized(expected, "output_quant"), atol=1.01 * step)
    np.testing.assert_allclose(returned.detach().numpy(), weights, atol=1.01 / 255)


def test_a_batch_of_nothing():
    """An empty batch gives an empty output and empty weights, as torch's layer does."""
    layer, twin = twins({}, **EVERYTHING)
    x = torch.randn(4, 0, 8)
    options = {"attn_mask": BOOLEAN, "key_padding_mask": PADDING[:0]}
    assert [y.shape for y in twin(x, x, x, **options)] == [y.shape for y in layer(x, x, x, **options)]


@pytest.mark.parametrize("need_weights", [True, False])
def test_a_query_without_keys_gets_zeros(need_weights):
    """Where all keys are masked, attention is zero and all gradients are finite."""
    layer, _ = twins({}, query_quant=Int8ActPerTensor)
    x = inputs(layer)[0].requires_grad_()
    mask = PADDING.clone()
    mask[1] = True
    output, weights = layer(x, x, x, key_padding_mask=mask, need_weights=need_weights)
    output.sum().backward()
    assert torch.equal(layer.out_proj.bias.expand(4, 8), output[:, 1])
    assert weights is None or not weights[1].any()
    assert torch.isfinite(x.grad).all()


def test_output_can_be_a_quant_tensor():
    """A QuantTensor comes out on the grid of the output, or of the out-projection's accumulator, and goes in."""
    layer, _ = twins({"batch_first": True}, **EVERYTHING, return_quant_tensor=True)
    x = inputs(layer)[0]
    y, weights = layer(x, x, x)
    assert isinstance(y, QuantTensor)
    assert y.is_valid
    assert isinstance(weights, torch.Tensor)
    layer.input_quant = layer.output_quant = None
    z, _ = layer(y, y, y)
    assert torch.equal(layer.quant_bias(y).scale, y.scale * layer.quant_weight().scale.reshape(-1))
    assert z.is_valid
    assert z.bit_width > 16
    with pytest.raises(ArgumentError, match="`return_quant_tensor=True` without an `output_quant`"):
        twins({}, **FLOAT, return_quant_tensor=True)[0](x, x, x)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("need_weights", [True, False])
def test_dtype_stays(dtype, need_weights):
    """Outputs, weights and gradients have the dtype of the inputs."""
    layer, _ = twins({"add_zero_attn": True}, **EVERYTHING)
    x = inputs(layer)[0].to(dtype).requires_grad_()
    output, weights = layer.to(dtype)(x, x, x, need_weights=need_weights, attn_mask=BOOLEAN)
    output.sum().backward()
    assert {dtype} == {y.dtype for y in (output, weights, x.grad) if y is not None}


@pytest.mark.parametrize("arguments", [{}, {"kdim": 6, "add_bias_kv": True}])
def test_copies_compute_the_same(arguments):
    """Deep copies, pickles, saved models, checkpoints and layers from the meta device compute what the layer does."""
    layer, _ = twins(arguments, **EVERYTHING)
    tensors = inputs(layer)
    with calibrating(layer.eval()):
        layer(*tensors)
    saved = io.BytesIO()
    torch.save(layer, saved)
    saved.seek(0)
    loaded, _ = twins(arguments, **EVERYTHING)
    loaded.load_state_dict(layer.state_dict())
    with torch.device("meta"):
        empty = qnn.QuantMultiheadAttention(8, 2, **arguments, **EVERYTHING)
    filled = empty.to_empty(device="cpu")
    filled.load_state_dict(layer.state_dict())
    copies = [copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), torch.load(saved, weights_only=False)]
    expected = layer(*tensors)
    assert all(equal(other.eval()(*tensors), expected) for other in [*copies, loaded, filled])


def test_initial_parameters_are_those_of_the_twin():
    """A new layer draws the same random parameters as torch's, and leaves the generator where that does."""
    drawn = []
    for kind in (nn.MultiheadAttention, qnn.QuantMultiheadAttention):
        torch.manual_seed(7)
        drawn.append([*kind(8, 2, add_bias_kv=True).parameters(), torch.rand(3)])
    assert equal(*drawn)


@pytest.mark.parametrize("arguments", [{}, {"kdim": 6}])
def test_a_float_checkpoint_restarts_learned_ranges(arguments):
    """Float weights that are loaded give learned scales their start anew, in each projection."""
    layer, twin = twins(arguments, weight_quant=Int8WeightPerTensorLSQ)
    before = [weight.scale.item() for weight in layer.quant_weights()]
    layer.load_state_dict({key: 2 * parameter for key, parameter in twin.state_dict().items()})
    assert [2 * scale for scale in before] == pytest.approx([w.scale.item() for w in layer.quant_weights()], rel=1e-6)
    trained = [quantizer for quantizer in (layer.weight_quant, layer.key_weight_quant) if quantizer is not None]
    for quantizer in trained:
        quantizer.tensor_quant.scaling_impl.value.data.fill_(3.0)
    fresh, _ = twins(arguments, weight_quant=Int8WeightPerTensorLSQ)
    fresh.load_state_dict(layer.state_dict())
    assert [w.scale.item() for w in layer.quant_weights()] == [w.scale.item() for w in fresh.quant_weights()]


@pytest.mark.parametrize(
    ("quant", "training", "dynamic"),
    [(FLOAT, False, False), (EVERYTHING, False, False), (EVERYTHING, True, False), (EVERYTHING, True, True)],
)
def test_compiles_without_a_break(quant, training, dynamic):
    """The layer compiles as one graph, and computes what it does in Python."""
    layer, _ = twins({"batch_first": True, "add_zero_attn": True}, **quant)
    x = inputs(layer)[0]
    layer(x, x, x)
    other = copy.deepcopy(layer.train(training))
    torch.compiler.reset()  # all layers are one piece of code to the compiler, which gives up after eight of them
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    options = {"attn_mask": BOOLEAN, "key_padding_mask": PADDING}
    torch.testing.assert_close(compiled(x, x, x, **options), other(x, x, x, **options), rtol=1e-6, atol=1e-6)


def encoder_layer(**quant):
    """A torch encoder layer with quantized attention, calibrated, and an input."""
    torch.manual_seed(8)
    encoder = nn.TransformerEncoderLayer(8, 2, dim_feedforward=16, dropout=0.0, batch_first=True)
    attention = qnn.QuantMultiheadAttention(8, 2, batch_first=True, **quant)
    attention.load_state_dict(encoder.self_attn.state_dict())
    encoder.self_attn = attention
    x = torch.randn(3, 4, 8)
    with calibrating(encoder.eval()):
        encoder(x)
    return encoder, x


@pytest.mark.parametrize("mask", [None, PADDING])
@pytest.mark.parametrize("quant", [{}, {**FLOAT, "output_quant": Int8ActPerTensor}, EVERYTHING])
def test_torchs_encoder_layer_does_not_pass_quantizers_by(quant, mask, monkeypatch):
    """In evaluation without gradients, torch's encoder layer computes with quantized attention, not by its shortcut."""
    encoder, x = encoder_layer(**quant)
    with torch.no_grad():
        with monkeypatch.context() as without:
            without.setattr(torch.backends.mha, "get_fastpath_enabled", lambda: False)
            expected = encoder(x, src_key_padding_mask=mask)
        monkeypatch.delattr(torch, "_transformer_encoder_layer_fwd")
        assert torch.equal(expected, encoder(x, src_key_padding_mask=mask))


def test_torchs_encoder_layer_keeps_its_shortcut_without_quantizers():
    """Without a quantizer, torch's encoder layer is as fast as with its own attention, and computes the same."""
    encoder, x = encoder_layer(**FLOAT)
    own = copy.deepcopy(encoder)
    own.self_attn = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    own.self_attn.load_state_dict(encoder.self_attn.state_dict())
    with torch.no_grad():
        assert torch.equal(own(x), encoder(x))


def test_torchs_encoder_packs_no_batches_for_quantizers():
    """A torch encoder of quantized layers works with padding, and one that packs batches is refused with a way out."""
    layer, x = encoder_layer(**EVERYTHING)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    packing = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 1).eval()
    packing.layers[0].self_attn = layer.self_attn
    with torch.no_grad():
        assert torch.isfinite(encoder(x, src_key_padding_mask=PADDING)).all()
        with pytest.warns(UserWarning, match="nested tensors"), pytest.raises(ArgumentError) as error:
            packing(x, src_key_padding_mask=PADDING)
        packing.use_nested_tensor = False
        assert torch.isfinite(packing(x, src_key_padding_mask=PADDING)).all()
    assert str(error.value) == (
        "`layers.0.self_attn` (QuantMultiheadAttention) got nested tensors, and quantizes plain ones.\n"
        "If they come from a torch.nn.TransformerEncoder, which packs padded batches in evaluation, build it with\n"
        "enable_nested_tensor=False, or set its `use_nested_tensor = False`."
    )


def test_torchs_decoder_layer_trains_with_quantized_attention():
    """Both kinds of attention of torch's decoder layer can be quantized; the loss falls, and ranges are learned."""
    torch.manual_seed(9)
    decoder = nn.TransformerDecoderLayer(8, 2, 16, dropout=0.0)
    for name in ("self_attn", "multihead_attn"):
        recipes = EVERYTHING | {"key_input_quant": Int8ActPerTensor}
        setattr(decoder, name, qnn.QuantMultiheadAttention(8, 2, **recipes, input_collect_stats_steps=2))
    target, memory = torch.randn(4, 3, 8), torch.randn(5, 3, 8)
    optimizer = torch.optim.Adam(decoder.parameters(), lr=0.01)
    losses = []
    for _ in range(12):
        loss = (decoder(target, memory, tgt_mask=CAUSAL, tgt_is_causal=True) - target.flip(0)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    assert Phase.LEARNED == decoder.multihead_attn.input_quant.phase


WRONG = [
    ({"query": torch.randn(4, 3, 7)}, "`query` of shape (4, 3, 7), {beside} (4, 3, 8)"),
    ({"key": torch.randn(4, 2, 8)}, "`key` of shape (4, 2, 8), {beside} (4, 3, 8)"),
    ({"value": torch.randn(5, 3, 8)}, "`value` of shape (5, 3, 8), {beside} (4, 3, 8)"),
    ({"attn_mask": torch.zeros(4, 5)}, "`attn_mask` of shape (4, 5), {beside} (4, 4) or (6, 4, 4)"),
    ({"key_padding_mask": torch.zeros(4, 3)}, "`key_padding_mask` of shape (4, 3), {beside} (3, 4)"),
    (
        {"attn_mask": torch.zeros(4, 4, dtype=torch.uint8)},
        "`attn_mask` of torch.uint8: a mask is boolean, or floating-point and added",
    ),
    (
        {"is_causal": True},
        "`is_causal=True` without an `attn_mask`: it says that the mask is causal, and there is none",
    ),
    (
        {"key": torch.randn(4, 8)},
        "query, key and value of shapes [(4, 3, 8), (4, 8), (4, 3, 8)]: all have 2 dimensions, (length, features), or "
        "all have 3, with a batch",
    ),
]


@pytest.mark.parametrize(("wrong", "text"), WRONG)
def test_wrong_inputs_are_refused(wrong, text):
    """What does not fit is refused by name, with the shapes that would."""
    layer, _ = twins({})
    given = dict.fromkeys(("query", "key", "value"), torch.randn(4, 3, 8)) | wrong
    shapes = tuple(given["query"].shape), tuple(given["key"].shape)
    beside = "and beside a `query` of shape {} and a `key` of shape {} it must be".format(*shapes)
    with pytest.raises((ArgumentError, ArgumentTypeError)) as error:
        layer(**given)
    assert "A QuantMultiheadAttention got " + text.format(beside=beside) == str(error.value)


def test_wrong_arguments_are_refused():
    """Sizes are refused as torch refuses them, and recipes by name."""
    with pytest.raises(AssertionError, match="embed_dim must be divisible by num_heads"):
        qnn.QuantMultiheadAttention(8, 3)
    with pytest.raises(ValueError, match="must be greater than 0"):
        qnn.QuantMultiheadAttention(0, 1)
    texts = []
    for keywords in (
        {"out_weight_bitwidth": 4},
        {"out_weight_quant": Int8ActPerTensor},
        {"out_bias_quant": Int32Bias, "out_weight_quant": None},
    ):
        with pytest.raises((ArgumentError, ArgumentTypeError)) as error:
            qnn.QuantMultiheadAttention(8, 2, **keywords)
        texts.append(str(error.value))
    assert texts == [
        "QuantMultiheadAttention got `out_weight_bitwidth`, and nothing in Int8WeightPerTensor takes `bitwidth`. "
        "Did you mean `out_weight_bit_width`?",
        "QuantMultiheadAttention got `out_weight_quant=Int8ActPerTensor`, a recipe for the role 'activation', and "
        "needs one for 'weight', such as injectors.Int8WeightPerTensor",
        "QuantMultiheadAttention got an `out_bias_quant` and `out_weight_quant=None`: the bias lies on the grid of "
        "input times weight",
    ]


def test_layer_is_an_instance_of_its_twin():
    """A quantized layer is its twin to `isinstance`, and takes the twin's arguments first, in the twin's order."""
    theirs = list(inspect.signature(nn.MultiheadAttention).parameters)
    assert isinstance(qnn.QuantMultiheadAttention(8, 2), nn.MultiheadAttention)
    assert theirs == list(inspect.signature(qnn.QuantMultiheadAttention).parameters)[: len(theirs)]
