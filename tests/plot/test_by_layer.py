"""The error of each layer, against NumPy's."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import brevq
import injectors
from brevq import plot
from brevq.errors import ArgumentError, ArgumentTypeError, UncalibratedError
from brevq.graph import calibrating, unquantized
from brevq.nn import QuantConv2d, QuantIdentity, QuantLinear, QuantLSTM, QuantMultiheadAttention, QuantReLU


def decibels(reference, quantized):
    """``10 log10`` of the power of the signal over that of the noise."""
    y, q = (x.detach().double().numpy() for x in (reference, quantized))
    return 10 * np.log10((y**2).sum() / ((y - q) ** 2).sum())


@pytest.fixture
def model():
    """Two layers and an activation, calibrated."""
    model = nn.Sequential(QuantLinear(6, 8, weight_bit_width=4), QuantReLU(), QuantLinear(8, 3)).eval()
    with calibrating(model):
        model(torch.randn(32, 6))
    return model


def test_ratios(model):
    """Each layer's output is compared with the float one, as errors have added up so far; the model's comes last."""
    x = torch.randn(16, 6)
    ratios = plot.sqnr_by_layer(model, x)
    quantized = [model[:end](x) for end in (1, 2, 3)]
    with unquantized(model):
        in_float = [model[:end](x) for end in (1, 2, 3)]
    expected = [decibels(y, q) for y, q in zip(in_float, quantized, strict=True)]
    assert ["0", "1", "2", ""] == list(ratios)
    assert [*expected, expected[-1]] == pytest.approx(list(ratios.values()), rel=1e-9)


def test_six_decibels_are_a_bit():
    """Of many uniform values, each bit more makes the noise a quarter."""
    x = torch.rand(100_000) * 2 - 1
    ratios = []
    for bits in (6, 7, 8):
        layer = QuantIdentity(act_quant=injectors.Int8ActPerTensorMax, bit_width=bits).eval()
        with calibrating(layer):
            layer(x)
        ratios.append(plot.sqnr_by_layer(layer, x)[""])
    assert [6.02, 6.02] == pytest.approx(np.diff(ratios), abs=0.15)  # grids of so few codes are not quite uniform


def test_a_reference():
    """A float model of the same paths can be what is compared with."""
    model = nn.Sequential(QuantLinear(6, 8, weight_bit_width=4), nn.ReLU())
    reference = nn.Sequential(nn.Linear(6, 8), nn.ReLU())
    x = torch.randn(4, 6)
    ratios = plot.sqnr_by_layer(model, x, reference)
    assert decibels(reference[0](x), model[0](x)) == pytest.approx(ratios["0"], rel=1e-9)


def test_layers_that_are_called_twice():
    """All calls of a layer count together."""
    layer = QuantLinear(4, 4, weight_bit_width=3)
    x = torch.randn(5, 4)
    ratio = plot.sqnr_by_layer(nn.Sequential(layer, layer), x)["0"]
    quantized = torch.cat([layer(x), layer(layer(x))])
    with unquantized(layer):
        in_float = torch.cat([layer(x), layer(layer(x))])
    assert decibels(in_float, quantized) == pytest.approx(ratio, rel=1e-9)


def test_outputs_that_are_equal():
    """Where quantization changes nothing, the ratio is infinite, and the plot says so."""
    model = nn.Sequential(nn.Linear(4, 4), QuantLinear(4, 2))
    assert np.inf == plot.sqnr_by_layer(model, torch.randn(3, 4))["0"]
    axes = plot.sqnr(model, torch.randn(3, 4))
    assert "equal" in [text.get_text() for text in axes.texts]
    assert 2 == len(axes.patches)


def test_outputs_on_a_grid():
    """A `QuantTensor` counts by its values."""
    layer = QuantLinear(4, 2, input_quant=injectors.Int8ActPerTensor, bias=False, return_quant_tensor=True)
    x = torch.randn(8, 4)
    layer(x)
    layer.eval()
    with unquantized(layer):
        in_float = layer(x)
    assert decibels(in_float, layer(x).value) == pytest.approx(plot.sqnr_by_layer(layer, x)[""], rel=1e-9)


@pytest.mark.parametrize(
    ("layer", "batch"),
    [
        (QuantLSTM(3, 5), torch.randn(4, 2, 3)),
        (QuantMultiheadAttention(4, 2), (torch.randn(3, 2, 4),) * 3),
        (QuantConv2d(1, 2, 3), {"input": torch.randn(1, 1, 5, 5)}),
    ],
    ids=["recurrent", "attention", "keywords"],
)
def test_layers_with_several_outputs_and_inputs(layer, batch):
    """Of several outputs the first counts; inputs are one, a tuple or keywords."""
    assert 10 < plot.sqnr_by_layer(layer, batch)[""] < 80


def test_transformer_layers():
    """In evaluation, torch's shortcuts do not pass the layers by."""
    encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    encoder.self_attn = QuantMultiheadAttention(8, 2, batch_first=True)
    encoder.linear1 = QuantLinear(8, 16)
    ratios = plot.sqnr_by_layer(encoder.eval(), torch.randn(2, 3, 8))
    assert ["self_attn", "norm1", "linear1", "linear2", "norm2", ""] == list(ratios)
    assert all(10 < ratio < 80 for ratio in ratios.values())


def test_bars(model):
    """Each layer has a bar as long as its ratio, from top to bottom, with the number beside it."""
    x = torch.randn(16, 6)
    ratios, axes = plot.sqnr_by_layer(model, x), plot.sqnr(model, x)
    assert list(ratios.values()) == [bar.get_width() for bar in axes.patches]
    assert [0, 1, 2, 3] == pytest.approx([bar.get_y() + bar.get_height() / 2 for bar in axes.patches])
    assert axes.get_ylim()[0] > axes.get_ylim()[1]
    assert ["0  QuantLinear", "1  QuantReLU", "2  QuantLinear", "output of the model"] == [
        label.get_text() for label in axes.get_yticklabels()
    ]
    assert [f"{ratio:.1f}" for ratio in ratios.values()] == [text.get_text() for text in axes.texts]
    assert "SQNR of the output in dB (more is better)" == axes.get_xlabel()


def test_nothing_is_disturbed():
    """Statistics, learned ranges, quantizers and hooks are as they were, in training too."""
    model = nn.Sequential(
        QuantLinear(4, 4, weight_quant=injectors.Int8WeightPerTensorLSQ), nn.BatchNorm1d(4), QuantReLU(), nn.Dropout()
    )
    model[2](torch.ones(2, 4))
    before, x = copy.deepcopy(model), torch.randn(8, 4)
    flags, random = {name: module.training for name, module in model.named_modules()}, torch.get_rng_state()
    plot.sqnr(model, x)
    plot.activations(model, x, at="2.act_quant")
    plot.weights(model[0])
    plot.scales(model[0])
    assert torch.equal(random, torch.get_rng_state())
    assert str(before) == str(model)
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in before.state_dict().items())
    assert flags == {name: module.training for name, module in model.named_modules()}
    assert not any(module._forward_hooks for module in model.modules())
    assert [len(module._forward_pre_hooks) for module in before.modules()] == [
        len(module._forward_pre_hooks) for module in model.modules()
    ]


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: plot.sqnr(3, torch.ones(1)), ArgumentTypeError, "a model must be a module, not int"),
        (
            lambda: plot.sqnr(nn.Sequential(QuantLinear(2, 2)), torch.ones(1, 2), nn.Sequential(nn.Linear(2, 3))),
            ArgumentError,
            "the output of `0` has shape (1, 2), and in the reference (1, 3): layers are compared by their path",
        ),
    ],
)
def test_wrong_arguments(call, kind, message):
    """Wrong arguments are refused."""
    with pytest.raises(kind) as refused:
        call()
    assert message == str(refused.value)


def test_without_data():
    """A quantizer without a range is refused, by name, and leaves no hook behind."""
    model = nn.Sequential(QuantReLU())
    with pytest.raises(UncalibratedError, match=r"`0\.act_quant`"):
        plot.sqnr(model, torch.ones(1))
    assert not model[0]._forward_hooks
    assert model[0].act_quant is not None


def test_frozen_models_need_a_reference():
    """Frozen weights are not taken for floats: the error is that against a reference, which has to be given."""
    reference, x = nn.Sequential(nn.Linear(8, 4)), torch.linspace(-1, 1, 24).reshape(3, 8)
    model = nn.Sequential(QuantLinear(8, 4, weight_bit_width=3)).eval()
    model.load_state_dict(reference.state_dict())
    expected = plot.sqnr_by_layer(model, x)
    brevq.freeze(model)
    with pytest.raises(ArgumentError, match="`0` is frozen, and its weights in float are not there to compare with"):
        plot.sqnr_by_layer(model, x)
    assert expected == plot.sqnr_by_layer(model, x, reference)
