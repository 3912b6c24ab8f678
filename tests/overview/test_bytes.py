"""Bytes of parameters, against figures computed by hand."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

import brevq
import injectors
from brevq import summary
from brevq.nn import (
    QuantBatchNorm2d,
    QuantConv2d,
    QuantConvTranspose2d,
    QuantEmbedding,
    QuantGRU,
    QuantLinear,
    QuantLSTM,
    QuantMultiheadAttention,
)


def linear(recipe, *, bias=False):
    """A layer whose weight has 10 rows of 64."""
    return QuantLinear(64, 10, bias=bias, weight_quant=getattr(injectors, recipe))


#: Of a weight of 10 by 64: its codes, its scales, its zero-points.
BYTES = {
    "Int8WeightPerTensor": 640 + 4,
    "Int8WeightPerChannel": 640 + 10 * 4,
    "Int8WeightPerChannelPoT": 640 + 10 * 4,
    "Int8WeightPerTensorLSQ": 640 + 4,
    "Int4WeightPerChannel": 320 + 10 * 4,
    "TernaryWeightPerTensor": 160 + 4,
    "BinaryWeightPerChannel": 80 + 10 * 4,
    "ShiftedUint8WeightPerChannel": 640 + 10 * 4 + 10,
    "ShiftedUint4WeightPerChannel": 320 + 10 * 4 + 5,
    "Fp8e4m3OCPWeightPerChannel": 640 + 10 * 4,
    "MXFp8e4m3Weight": 640 + 20,
    "MXFp6e2m3Weight": 480 + 20,
    "MXFp4Weight": 320 + 20,
    "MXInt8Weight": 640 + 20,
    "NVFP4Weight": 320 + 40 + 4,
    "BFP16Weight": 640 + 80,
    "MX9Weight": 640 + 40 + 40,  # scales of 16, and one bit for each pair
    "MX6Weight": 400 + 40 + 40,
    "Int8WeightPerChannelA2Q": 640 + 10 * 4,
    "Int4WeightPerTensorAdaRound": 320 + 4,
}


@pytest.mark.parametrize("recipe", list(BYTES))
def test_bytes_of_a_weight(recipe):
    """A weight takes its codes, packed, its scales and its zero-points."""
    assert BYTES[recipe] == summary(linear(recipe)).bytes


@pytest.mark.parametrize("recipe", ["MXFp4Weight", "NVFP4Weight", "MX9Weight", "Int8WeightPerChannel"])
def test_bytes_of_a_weight_of_which_blocks_are_not_full(recipe):
    """A last block that is not full has a scale as well, and as many codes as there are values."""
    layer = QuantLinear(40, 3, bias=False, weight_quant=getattr(injectors, recipe))
    by_hand = {
        "MXFp4Weight": 60 + 3 * 2,
        "NVFP4Weight": 60 + 3 * 3 + 4,
        "MX9Weight": 120 + 3 * 3 + -(-3 * 20 // 8),
        "Int8WeightPerChannel": 120 + 3 * 4,
    }
    assert by_hand[recipe] == summary(layer).bytes


def test_bytes_of_groups():
    """Groups of 32 have a scale each."""
    recipe = injectors.Int4WeightPerGroup.let(group_size=32)
    assert 320 + 20 * 4 == summary(QuantLinear(64, 10, bias=False, weight_quant=recipe)).bytes


def test_bytes_of_shifted_groups():
    """Groups with a zero-point have one each, of the bits of a code."""
    recipe = injectors.ShiftedUint4WeightPerGroup.let(group_size=32)
    assert 320 + 20 * 4 + 10 == summary(QuantLinear(64, 10, bias=False, weight_quant=recipe)).bytes


def test_bytes_of_a_zero_point_that_is_not_rounded():
    """A zero-point between two codes takes a float."""
    recipe = injectors.ShiftedUint8WeightPerChannelHQO
    assert 640 + 10 * 4 + 10 * 4 == summary(QuantLinear(64, 10, bias=False, weight_quant=recipe)).bytes


def test_bytes_of_scales_that_are_quantized():
    """Of a scale for each 64 weights there are 512 in a row: 8 bits each, a float for every 256, and their mean."""
    layer = QuantLinear(512, 64, bias=False, weight_quant=injectors.Int4WeightPerGroupDoubleQuant)
    assert 64 == layer.weight_quant.granularity.group_size
    assert 64 * 512 // 2 + 512 + 2 * 4 + 4 == summary(layer).bytes


def test_codes_are_rounded_up_to_bytes():
    """Five codes of 3 bits take two bytes."""
    assert 2 + 4 == summary(QuantLinear(5, 1, bias=False, weight_bit_width=3)).bytes


def test_float_counts_as_it_is():
    """What is not quantized takes what it takes in memory, and so does what it is compared with."""
    table = summary(nn.Linear(3, 2, dtype=torch.bfloat16))
    assert (16, 16, 8) == (table.bytes, table.float_bytes, table.parameters)


def test_half_precision_is_what_is_compared_with():
    """A quantized layer held in bfloat16 is compared with bfloat16; its scale stays a float32."""
    table = summary(QuantLinear(8, 4, bias=False, dtype=torch.bfloat16))
    assert (32 + 4, 64) == (table.bytes, table.float_bytes)


def test_a_float_bias_stays():
    """A bias that is not quantized is listed in float."""
    table = summary(QuantLinear(8, 4))
    assert (32 + 4 + 16, ("bias",)) == (table.bytes, table.in_float)


def test_a_tied_bias_has_no_scale():
    """A bias on the accumulator's grid takes its codes alone, whether or not the input's scale is known."""
    layer = QuantLinear(8, 4, bias_quant=injectors.Int16Bias, input_quant=injectors.Int8ActPerTensor)
    before = summary(layer).bytes
    layer(torch.ones(8))
    assert [32 + 4 + 8] * 2 == [before, summary(layer).bytes]


def test_a_bias_with_a_scale_of_its_own():
    """A bias of 8 bits takes these, and 4 bytes."""
    assert 32 + 4 + 4 + 4 == summary(QuantLinear(8, 4, bias_quant=injectors.Int8BiasPerTensor)).bytes


def test_bytes_of_a_transposed_convolution():
    """The outputs of a transposed weight lie along its second axis."""
    layer = QuantConvTranspose2d(3, 5, 2, bias=False, weight_quant=injectors.Int8WeightPerChannel)
    assert 3 * 5 * 4 + 5 * 4 == summary(layer).bytes


def test_bytes_of_an_embedding():
    """Each row of a table has a scale, where that is asked for."""
    layer = QuantEmbedding(100, 8, weight_quant=injectors.Int4WeightPerChannel)
    assert 100 * 8 // 2 + 100 * 4 == summary(layer).bytes


def test_bytes_of_a_recurrent_layer():
    """Each matrix has scales of its own; biases stay in float."""
    layer = QuantLSTM(3, 5, weight_quant=injectors.Int8WeightPerChannel)
    assert (60 + 80) + (100 + 80) + 2 * 80 == summary(layer).bytes


def test_bytes_of_a_scale_for_each_gate():
    """A matrix of three gates has three scales."""
    layer = QuantGRU(3, 5, bias=False, weight_quant=injectors.Int8WeightPerChannel, scale_per_gate=True)
    assert (45 + 12) + (75 + 12) == summary(layer).bytes


def test_bytes_of_a_scale_that_two_matrices_share():
    """One quantizer of two matrices has one scale."""
    layer = QuantLSTM(3, 5, bias=False, share_input_hidden=True)
    assert (60 + 4) + 100 == summary(layer).bytes


@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, (192 + 4) + (64 + 4)), ({"kdim": 4}, (64 + 4) + (32 + 4) + (64 + 4) + (64 + 4))],
    ids=["packed", "separate"],
)
def test_bytes_of_attention(options, expected):
    """In-projections are one matrix with one scale, or three; the out-projection is a layer of its own."""
    assert expected == summary(QuantMultiheadAttention(8, 2, bias=False, **options)).bytes


def test_bytes_of_a_quantized_batch_normalization():
    """It counts as the scale and bias that it becomes."""
    layer = QuantBatchNorm2d(6, bias_quant=injectors.Int8BiasPerTensor)
    assert (6 + 4 + 6 + 4, 12, 48) == (summary(layer).bytes, summary(layer).parameters, summary(layer).float_bytes)


def test_buffers_do_not_count():
    """Running statistics are no parameters."""
    assert (32, 8) == (summary(nn.BatchNorm2d(4)).bytes, summary(nn.BatchNorm2d(4)).parameters)


def test_learned_bits_are_those_of_now():
    """A bit width that training has moved counts as it is."""
    layer = QuantLinear(64, 10, bias=False, weight_quant=injectors.Int8WeightPerTensorLearnedBits)
    before = summary(layer).bytes
    with torch.no_grad():
        layer.weight_quant.tensor_quant.bit_width_impl.offset.fill_(1.0)
    (record,) = summary(layer).records
    assert (640 + 4, 240 + 4, 3) == (before, record.bytes, record.bits)


def test_a_tied_parameter_counts_once():
    """A parameter of two layers counts where it comes first, with equal codes; another grid adds codes of its own."""
    embedding, head = QuantEmbedding(16, 8), QuantLinear(8, 16, bias=False)
    head.weight = embedding.weight
    table = summary(nn.ModuleList([embedding, head]))
    assert (128 + 4, 128, 512) == (table.bytes, table.parameters, table.float_bytes)
    assert ["", "0.weight"] == [record.tensor_of for record in table.records]
    head.weight_quant = injectors.Int4WeightPerChannel
    assert 128 + 4 + 64 + 16 * 4 == summary(nn.ModuleList([embedding, head])).bytes


def test_a_tied_parameter_in_float_counts_once():
    """Float tables that are tied are one."""
    embedding, head = nn.Embedding(16, 8), nn.Linear(8, 16, bias=False)
    head.weight = embedding.weight
    table = summary(nn.ModuleList([embedding, head]))
    assert (512, 512, 128) == (table.bytes, table.float_bytes, table.parameters)


def test_a_shared_layer_counts_once():
    """A layer that a model has twice is listed once, and the other path is told."""
    layer = QuantLinear(8, 8, bias=False)
    table = summary(nn.Sequential(layer, nn.ReLU(), layer))
    assert (64 + 4, {"0": ("2",)}) == (table.bytes, table.also)
    assert "0 is also 2" in str(table)


def test_a_shared_quantizer_has_its_scale_once():
    """Two weights with one quantizer have one scale."""
    first = QuantLinear(8, 8, bias=False)
    second = QuantLinear(8, 4, bias=False, weight_quant=first.weight_quant)
    table = summary(nn.Sequential(first, second))
    assert 64 + 4 + 32 == table.bytes
    assert "1.weight has the quantizer of 0.weight" in str(table)


def test_weights_that_are_parametrized():
    """Codes take the place of what a weight is computed from; what a float one is computed from counts."""
    layer = parametrize.register_parametrization(QuantLinear(8, 4, bias=False), "weight", nn.Softplus())
    assert (32 + 4, 32, ()) == (summary(layer).bytes, summary(layer).parameters, summary(layer).in_float)
    floats = parametrize.register_parametrization(nn.Linear(8, 4, bias=False), "weight", nn.Softplus())
    assert (128, ("weight",)) == (summary(floats).bytes, summary(floats).in_float)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated:FutureWarning")
def test_weights_that_hooks_compute():
    """The parameters of the older `weight_norm` give way to the codes of the weight."""
    layer = torch.nn.utils.weight_norm(QuantLinear(8, 4, bias=False))
    assert (32 + 4, 36, ()) == (summary(layer).bytes, summary(layer).parameters, summary(layer).in_float)


@pytest.mark.parametrize("recipe", list(BYTES))
def test_bytes_on_the_meta_device(recipe):
    """A model without numbers takes as many bytes as one with them."""
    assert BYTES[recipe] == summary(linear(recipe).to("meta")).bytes


@pytest.mark.parametrize("recipe", ["Int8WeightPerTensor", "Int4WeightPerChannel", "MXFp4Weight", "NVFP4Weight"])
def test_freezing_changes_no_bytes(recipe):
    """A frozen model is counted by the same convention as before."""
    model = nn.Sequential(QuantConv2d(3, 4, 3), linear(recipe, bias=True)).eval()
    before, after = summary(model), summary(brevq.freeze(model))
    for name in ("bytes", "float_bytes", "parameters", "quantized_parameters"):
        assert getattr(before, name) == getattr(after, name)
