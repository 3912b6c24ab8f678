"""Folding batch normalization into the layer before it."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from brevq import nn as qnn
from brevq.errors import ArgumentError, ArgumentTypeError
from brevq.nn import merge_all_bn, merge_bn
from injectors import Int8ActPerTensor, Int8WeightPerChannel, Int8WeightPerTensorLSQ, Int32Bias

#: A layer and its arguments, the batch normalization that follows, and the shape of an input.
PAIRS = {
    "linear": ("Linear", (4, 6), {}, nn.BatchNorm1d, (5, 4)),
    "conv1d": ("Conv1d", (4, 6, 3), {}, nn.BatchNorm1d, (2, 4, 5)),
    "conv2d-groups": ("Conv2d", (4, 6, (3, 2)), {"groups": 2}, nn.BatchNorm2d, (2, 4, 5, 5)),
    "conv3d": ("Conv3d", (4, 6, 2), {"padding": 1}, nn.BatchNorm3d, (2, 4, 3, 3, 3)),
    "transposed1d": ("ConvTranspose1d", (4, 6, 3), {"stride": 2}, nn.BatchNorm1d, (2, 4, 5)),
    "transposed2d-groups": ("ConvTranspose2d", (4, 6, (3, 2)), {"groups": 2}, nn.BatchNorm2d, (2, 4, 5, 5)),
    "transposed3d": ("ConvTranspose3d", (4, 6, 2), {}, nn.BatchNorm3d, (2, 4, 3, 3, 3)),
}


def batch_norm(kind=nn.BatchNorm2d, channels=6, **keywords):
    """A batch normalization with parameters and statistics that are not trivial."""
    bn = kind(channels, **keywords)
    with torch.no_grad():
        for tensor in (bn.weight, bn.bias, bn.running_mean):
            if tensor is not None:
                tensor.copy_(torch.randn(tensor.shape))
        bn.running_var.copy_(torch.rand(channels) + 0.1)
    return bn.eval()


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
@pytest.mark.parametrize("affine", [True, False], ids=["affine", "plain"])
@pytest.mark.parametrize("quantized", [True, False], ids=["twin", "float"])
def test_the_layer_computes_what_both_did(pair, bias, affine, quantized):
    """Before quantization, the merged layer equals layer and batch normalization; what is left of that does nothing."""
    name, arguments, keywords, kind, shape = PAIRS[pair]
    if quantized:
        layer = getattr(qnn, "Quant" + name)(*arguments, bias=bias, weight_quant=None, **keywords).double()
    else:
        layer = getattr(nn, name)(*arguments, bias=bias, **keywords).double()
    bn = batch_norm(kind, affine=affine).double()
    x = torch.randn(shape, dtype=torch.float64)
    expected = bn(layer(x))
    merge_bn(layer, bn)
    assert torch.allclose(expected, layer(x), rtol=1e-12, atol=1e-12)  # rounding in float64
    assert torch.allclose(layer(x), bn(layer(x)), rtol=1e-12, atol=1e-12)


def test_values_are_those_of_the_formula():
    """The weight is w * gamma / sqrt(var + eps), and the bias (b - mean) * gamma / sqrt(var + eps) + beta."""
    layer, bn = nn.Linear(1, 2), nn.BatchNorm1d(2, eps=0.0)
    layer.load_state_dict({"weight": torch.tensor([[2.0], [3.0]]), "bias": torch.tensor([1.0, -1.0])})
    state = {
        "weight": torch.tensor([3.0, -1.0]),
        "bias": torch.tensor([0.5, 0.25]),
        "running_mean": torch.tensor([2.0, 1.0]),
        "running_var": torch.tensor([4.0, 0.25]),
        "num_batches_tracked": torch.tensor(7),
    }
    bn.load_state_dict(state)
    merge_bn(layer, bn)
    assert ([[3.0], [-6.0]], [-1.0, 4.25]) == (layer.weight.tolist(), layer.bias.tolist())


@pytest.mark.parametrize("name", ["QuantConv2d", "QuantConvTranspose2d"])
def test_scales_are_those_of_the_folded_weight(name):
    """After merging, each channel has the scale of its folded weight."""
    layer, bn = getattr(qnn, name)(4, 6, 3, weight_quant=Int8WeightPerChannel), batch_norm()
    factor = (bn.weight / torch.sqrt(bn.running_var + bn.eps)).detach().abs().numpy()
    before = layer.quant_weight().scale.flatten().detach().numpy()
    merge_bn(layer, bn)
    assert np.allclose(before * factor, layer.quant_weight().scale.flatten().detach().numpy(), rtol=1e-6)  # float32


def test_learned_ranges_start_again():
    """A learned scale is that of the folded weight again."""
    layer = qnn.QuantConv2d(4, 6, 3, weight_quant=Int8WeightPerTensorLSQ)
    layer.quant_weight()
    merge_bn(layer, batch_norm())
    fresh = qnn.QuantConv2d(4, 6, 3, weight_quant=Int8WeightPerTensorLSQ)
    fresh.load_state_dict({"weight": layer.weight, "bias": layer.bias})
    assert torch.equal(fresh.quant_weight().scale, layer.quant_weight().scale)


def test_a_bias_that_is_new_can_be_quantized():
    """A layer that had no bias gets a parameter, whose recipe is assigned then."""
    layer = qnn.QuantConv2d(4, 6, 3, bias=False, input_quant=Int8ActPerTensor, bias_quant=Int32Bias)
    merge_bn(layer, batch_norm())
    layer.bias_quant = Int32Bias
    layer(torch.randn(2, 4, 5, 5))
    assert isinstance(layer.bias, nn.Parameter)
    assert layer.quant_bias().is_valid


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_rounded_once(dtype):
    """Weights in half precision stay so, and are those folded in float32, rounded."""
    layer, bn = nn.Conv2d(4, 6, 3).to(dtype), batch_norm()
    wide = copy.deepcopy(layer).float()
    merge_bn(wide, copy.deepcopy(bn))
    merge_bn(layer, bn)
    assert torch.equal(wide.weight.to(dtype), layer.weight)
    assert torch.equal(wide.bias.to(dtype), layer.bias)


def test_a_quantized_batch_norm_is_merged_as_its_twin():
    """Of a quantized batch normalization, the float scale and bias are merged."""
    layers = [nn.Conv2d(4, 6, 3) for _ in range(2)]
    layers[1].load_state_dict(layers[0].state_dict())
    bn = batch_norm()
    quantized = qnn.QuantBatchNorm2d(6)
    quantized.load_state_dict(bn.state_dict())
    for layer, norm in zip(layers, (bn, quantized), strict=True):
        merge_bn(layer, norm)
    assert torch.equal(layers[0].weight, layers[1].weight)


def test_frozen_layers_stay_frozen():
    """A bias that is new is trained where the weight is."""
    layer = nn.Conv2d(4, 6, 3, bias=False).requires_grad_(False)
    merge_bn(layer, batch_norm())
    assert not layer.bias.requires_grad


def merged():
    """A batch normalization that was merged."""
    bn = batch_norm()
    merge_bn(nn.Conv2d(4, 6, 3), bn)
    return bn


def observed():
    """A layer whose output was observed."""
    layer = qnn.QuantConv2d(4, 6, 3, output_quant=Int8ActPerTensor)
    layer(torch.randn(1, 4, 3, 3))
    return layer


REFUSALS = {
    "channels": (
        lambda: nn.Conv2d(4, 6, 3),
        lambda: nn.BatchNorm2d(4),
        ArgumentError,
        "A BatchNorm2d has 4 channels, and the layer before it puts out 6",
    ),
    "no-statistics": (
        lambda: nn.Conv2d(4, 6, 3),
        lambda: nn.BatchNorm2d(6, track_running_stats=False),
        ArgumentError,
        "A BatchNorm2d keeps no running statistics (track_running_stats=False), so what it does depends on the batch, "
        "and no weight can do the same",
    ),
    "merged": (
        lambda: nn.Conv2d(4, 6, 3),
        merged,
        ArgumentError,
        "A BatchNorm2d is merged already: replace it by torch.nn.Identity()",
    ),
    "merged-copy": (
        lambda: nn.Conv2d(4, 6, 3),
        lambda: copy.deepcopy(merged()),
        ArgumentError,
        "A BatchNorm2d is merged already: replace it by torch.nn.Identity()",
    ),
    "observed": (
        observed,
        batch_norm,
        ArgumentError,
        "A QuantConv2d has an `output_quant` that has seen outputs before they were normalized, and its range is "
        "theirs: merge before calibrating or training, or assign it anew after merging: layer.output_quant = ...",
    ),
    "computed": (
        lambda: parametrizations.weight_norm(nn.Conv2d(4, 6, 3)),
        batch_norm,
        ArgumentError,
        "A ParametrizedConv2d has a weight that is no parameter but computed from others: remove that first, as "
        "torch.nn.utils.parametrize.remove_parametrizations does",
    ),
    "no-layer": (
        nn.ReLU,
        batch_norm,
        ArgumentTypeError,
        "a batch normalization can be merged into a linear layer or a convolution, not into ReLU",
    ),
    "no-batch-norm": (
        lambda: nn.Conv2d(4, 6, 3),
        lambda: nn.InstanceNorm2d(6),
        ArgumentTypeError,
        "`bn` must be a batch normalization, such as torch.nn.BatchNorm2d, not InstanceNorm2d",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_can_not_be_merged_is_refused(case):
    """What can not be merged is refused by name, and nothing is changed."""
    make_layer, make_bn, kind, text = REFUSALS[case]
    layer, bn = make_layer(), make_bn()
    before = [part.clone() for module in (layer, bn) for part in module.state_dict().values()]
    with pytest.raises(kind) as error:
        merge_bn(layer, bn)
    assert text == str(error.value)
    after = [part for module in (layer, bn) for part in module.state_dict().values()]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_a_whole_model():
    """All pairs in sequences are merged, inner ones too, and the model computes what it did."""
    model = nn.Sequential(
        qnn.QuantConv2d(4, 6, 3, weight_quant=None, bias=False),
        batch_norm(),
        nn.ReLU(),
        nn.Sequential(nn.ConvTranspose2d(6, 2, 3), batch_norm(channels=2), batch_norm(channels=2)),
        batch_norm(channels=2),
    )
    model = model.double().eval()
    x = torch.randn(2, 4, 5, 5, dtype=torch.float64)
    expected = model(x)
    assert ["1", "3.1"] == merge_all_bn(model)
    assert [nn.Identity, nn.Identity] == [type(model[1]), type(model[3][1])]
    assert torch.allclose(expected, model(x), rtol=1e-12, atol=1e-12)  # rounding in float64
    assert [] == merge_all_bn(model)


class Reversed(nn.Sequential):
    """A sequence that runs the other way."""

    def forward(self, x):
        """The last module first."""
        for module in reversed(list(self)):
            x = module(x)
        return x


def test_modules_in_several_places_stay():
    """What occurs twice, or is connected in another way, is left as it is."""
    conv, bn = nn.Conv2d(6, 6, 1), batch_norm()
    twice = nn.Sequential(conv, bn, conv, batch_norm())
    other_way = Reversed(nn.Conv2d(6, 6, 1), batch_norm())
    assert [] == merge_all_bn(nn.Sequential(twice, other_way))
    assert [nn.Conv2d, nn.BatchNorm2d] * 2 == [type(module) for module in twice]
