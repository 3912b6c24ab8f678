"""Scaled dot-product attention: torch's own without quantizers, and NumPy's with them."""

import copy
import io
import pickle

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from brevq import nn as qnn
from brevq.errors import ArgumentError, ArgumentTypeError, UncalibratedError
from brevq.graph import calibrating
from brevq.quant_tensor import QuantTensor
from injectors import Int8ActPerTensor, Int8WeightPerTensor

FLOAT = dict.fromkeys(("query_quant", "key_quant", "value_quant", "attention_quant"))
MASK = torch.tensor([[True, False, True, True], [True, True, False, False], [False, False, False, False]])

CALLS = [
    pytest.param({}, id="plain"),
    pytest.param({"attn_mask": MASK}, id="boolean"),
    pytest.param({"attn_mask": torch.linspace(-2, 2, 12).reshape(3, 4)}, id="added"),
    pytest.param({"attn_mask": MASK.expand(2, 1, 3, 4)}, id="broadcast-over-heads"),
    pytest.param({"is_causal": True}, id="causal"),
    pytest.param({"scale": 0.3}, id="scale"),
    pytest.param({"dropout_p": 0.4}, id="dropout"),
]


def inputs(heads=4, dtype=torch.float32):
    """Query, key and value: 3 queries, 4 keys of 4 features, in halves, and values of 5."""
    generator = torch.Generator().manual_seed(5)
    shapes = ((2, 4, 3, 4), (2, heads, 4, 4), (2, heads, 4, 5))
    return [torch.randint(-8, 9, shape, generator=generator).to(dtype) / 2 for shape in shapes]


def outputs(function, tensors, **options):
    """What a function returns, and the gradients that it hands to its tensors."""
    leaves = [x.clone().requires_grad_() for x in tensors]
    torch.manual_seed(1)
    y = function(*leaves, **options)
    y.square().sum().backward()
    return [y, *(leaf.grad for leaf in leaves)]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("options", [*CALLS, pytest.param({"enable_gqa": True}, id="grouped")])
def test_without_quantizers_it_is_the_function(options, training):
    """With every quantizer None output and gradients are those of torch's function, bit for bit."""
    tensors = inputs(heads=2 if "enable_gqa" in options else 4)
    layer = qnn.QuantScaledDotProductAttention(**FLOAT).train(training)
    ours, theirs = outputs(layer, tensors, **options), outputs(F.scaled_dot_product_attention, tensors, **options)
    assert all(torch.equal(*pair) for pair in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("options", [*CALLS[:-1], pytest.param({"enable_gqa": True}, id="grouped")])
def test_own_steps_agree_with_the_function(options):
    """Computed step by step, as it is beside a quantizer, attention is torch's but for the rounding of sums."""
    tensors = [x.double() for x in inputs(heads=2 if "enable_gqa" in options else 4)]
    layer = qnn.QuantScaledDotProductAttention(**FLOAT, softmax_input_quant=Int8ActPerTensor)
    with calibrating(layer):  # which hands tensors on in float
        ours = outputs(layer, tensors, **options)
    theirs = outputs(F.scaled_dot_product_attention, tensors, **options)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-13, atol=1e-13)  # sums of 5 products in float64


def numpy_attention(query, key, value, masked, scales):
    """Attention with 8-bit codes, in NumPy: scales of query, key, value (signed) and the softmax (unsigned)."""

    def quantized(x, scale, low, high):
        return np.clip(np.rint(x / scale), low, high) * scale

    query, key, value = (
        quantized(x, scale, -128, 127)
        for x, scale in zip((query * np.float32(0.5), key, value), scales[:3], strict=True)
    )
    scores = query @ np.swapaxes(key, -1, -2)
    scores[np.broadcast_to(masked, scores.shape)] = -np.inf
    with np.errstate(invalid="ignore"):
        powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights = np.nan_to_num(powers / powers.sum(axis=-1, keepdims=True), nan=0.0)
    return quantized(weights, scales[3], 0, 255) @ value


@pytest.mark.parametrize("mask", [None, MASK])
def test_quantized_attention_is_that_of_numpy(mask):
    """Output is that of codes in NumPy; a query without a key gets zeros."""
    layer = qnn.QuantScaledDotProductAttention().eval()
    tensors = inputs()
    with calibrating(layer):
        layer(*tensors, attn_mask=mask)
    names = ("query_quant", "key_quant", "value_quant", "attention_quant")
    scales = [getattr(layer, name).current().scale.detach().numpy() for name in names]
    masked = np.zeros((3, 4), bool) if mask is None else ~mask.numpy()
    expected = numpy_attention(*(x.numpy() for x in tensors), masked, scales)
    actual = layer(*tensors, attn_mask=mask).detach().numpy()
    np.testing.assert_allclose(expected, actual, rtol=1e-6, atol=1e-6)  # sums of 4 products in float32
    assert mask is None or not actual[..., 2, :].any()


def test_scores_are_quantized_before_the_mask():
    """Infinities of a mask reach no quantizer: masked keys stay masked, and the range is that of the products."""
    layer = qnn.QuantScaledDotProductAttention(**FLOAT, softmax_input_quant=Int8ActPerTensor, softmax_input_bit_width=4)
    query, key, value = inputs()
    causal = layer(query, key, value, is_causal=True)
    assert torch.isfinite(layer.softmax_input_quant.current().scale)
    assert torch.equal(value[:, :, 0], causal[:, :, 0])


def test_dropout_leaves_the_range_alone():
    """The softmax is quantized before dropout: what training observes is the range of evaluation."""
    layers = [qnn.QuantScaledDotProductAttention() for _ in range(2)]
    for layer, dropout_p in zip(layers, (0.0, 0.5), strict=True):
        layer(*inputs(), dropout_p=dropout_p)
    with_out, with_dropout = (layer.attention_quant.current().scale for layer in layers)
    assert torch.equal(with_out, with_dropout)


def test_output_can_be_a_quant_tensor():
    """With an `output_quant` the layer returns a QuantTensor where asked for, of values that it takes itself."""
    layer = qnn.QuantScaledDotProductAttention(output_quant=Int8ActPerTensor, return_quant_tensor=True)
    y = layer(*inputs())
    assert isinstance(y, QuantTensor)
    assert y.is_valid
    assert layer(y, y, y).shape == y.shape


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtype_stays(dtype):
    """Output has the dtype of the inputs, and so have masks that are given in another."""
    layer = qnn.QuantScaledDotProductAttention(output_quant=Int8ActPerTensor)
    mask = torch.zeros(3, 4)
    assert dtype == layer(*inputs(dtype=dtype), attn_mask=mask).dtype


def test_copies_compute_the_same():
    """Deep copies, pickles, saved models and checkpoints of a calibrated layer compute what it does."""
    layer = qnn.QuantScaledDotProductAttention(query_bit_width=4).eval()
    with calibrating(layer):
        layer(*inputs())
    saved = io.BytesIO()
    torch.save(layer, saved)
    saved.seek(0)
    loaded = qnn.QuantScaledDotProductAttention(query_bit_width=4).eval()
    loaded.load_state_dict(layer.state_dict())
    copies = [copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), torch.load(saved, weights_only=False), loaded]
    assert all(torch.equal(layer(*inputs()), other(*inputs())) for other in copies)


@pytest.mark.parametrize("training", [True, False])
def test_compiles_without_a_break(training):
    """The layer compiles as one graph, and computes what it does in Python."""
    layer = qnn.QuantScaledDotProductAttention()
    layer(*inputs())
    other = copy.deepcopy(layer.train(training))
    torch.compiler.reset()  # all layers are one piece of code to the compiler, which gives up after eight of them
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    assert torch.equal(other(*inputs(), attn_mask=MASK), compiled(*inputs(), attn_mask=MASK))


def test_refusals():
    """What the layer refuses, it refuses by name."""
    messages = []
    for keywords in ({"query_bitwidth": 4}, {"value_quant": Int8WeightPerTensor}, {"return_quant_tensor": True}):
        with pytest.raises((ArgumentError, ArgumentTypeError)) as error:
            qnn.QuantScaledDotProductAttention(**keywords)
        messages.append(str(error.value))
    layer = qnn.QuantScaledDotProductAttention()
    with pytest.raises(ArgumentError) as error:
        layer(*inputs(), attn_mask=MASK, is_causal=True)
    assert [*messages, str(error.value)] == [
        "QuantScaledDotProductAttention got `query_bitwidth`, and nothing in Int8ActPerTensor takes `bitwidth`. "
        "Did you mean `query_bit_width`?",
        "QuantScaledDotProductAttention got `value_quant=Int8WeightPerTensor`, a recipe for the role 'weight', and "
        "needs one for 'activation', such as injectors.Int8ActPerTensor",
        "QuantScaledDotProductAttention got `return_quant_tensor=True` and `output_quant=None`, which gives it no "
        "scale",
        "A QuantScaledDotProductAttention got an `attn_mask` and `is_causal=True`, which is a mask of its own: give it "
        "one of the two",
    ]
    with pytest.raises(UncalibratedError, match=r"`query_quant` \(Int8ActPerTensor\) has seen no data"):
        layer.eval()(*inputs())
