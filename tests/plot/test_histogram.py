"""Histograms of weights and activations, against NumPy's."""

import numpy as np
import pytest
import torch
from torch import nn

import injectors
from brevq import plot
from brevq.errors import ArgumentError, ArgumentTypeError, UncalibratedError
from brevq.graph import calibrating
from brevq.nn import QuantBatchNorm1d, QuantIdentity, QuantLinear, QuantLSTM, QuantReLU


def linear(**options):
    """A layer of 40 by 50 weights from a normal distribution."""
    layer = QuantLinear(50, 40, bias=False, **options)
    nn.init.normal_(layer.weight)
    return layer


@pytest.mark.parametrize("bins", [1, 7, 100])
def test_weights_are_counted_as_numpy_counts(bins):
    """With one scale, values are counted as they are, in bins from the smallest to the largest."""
    layer = linear()
    data = plot.weight_histogram(layer, bins=bins)
    counts, edges = np.histogram(layer.weight.detach().double().numpy(), bins=bins)
    assert counts.tolist() == data.counts.tolist()
    assert edges == pytest.approx(data.edges.numpy(), rel=1e-12)


def test_grid_of_one_scale():
    """The grid is all numbers that weights are rounded to, and its ends are where clipping begins."""
    layer = linear(weight_bit_width=3)
    data = plot.weight_histogram(layer)
    scale = layer.quant_weight().scale.double().item()
    assert [code * scale for code in range(-3, 4)] == data.grid.tolist()
    assert (-3 * scale, 3 * scale, False) == (data.low, data.high, data.steps)
    assert set(layer.quant_weight().value.unique().double().tolist()) <= {
        torch.tensor(number).float().item() for number in data.grid.tolist()
    }


def test_several_scales_are_shown_in_steps():
    """With a scale for each channel, weights are counted in steps of their own grid."""
    layer = linear(weight_quant=injectors.Int4WeightPerChannel)
    data = plot.weight_histogram(layer, bins=20)
    weight = layer.weight.detach().double().numpy()
    steps = weight / layer.quant_weight().scale.detach().double().numpy()
    assert np.histogram(steps, bins=20)[0].tolist() == data.counts.tolist()
    assert (True, list(range(-7, 8)), -7, 7) == (data.steps, data.grid.tolist(), data.low, data.high)


def test_groups_are_shown_in_steps():
    """With groups, each weight is divided by the scale of its group."""
    layer = linear(weight_quant=injectors.Int4WeightPerGroup.let(group_size=10))
    data = plot.weight_histogram(layer, bins=20)
    weight = layer.weight.detach().double().numpy().reshape(40, 5, 10)
    steps = weight / layer.quant_weight().scale.detach().double().numpy()
    assert np.histogram(steps, bins=20)[0].tolist() == data.counts.tolist()


def test_zero_points_are_taken_off():
    """The numbers of a shifted grid are ``(code - zero_point) * scale``."""
    layer = linear(weight_quant=injectors.ShiftedUint4WeightPerTensor)
    quantized, data = layer.quant_weight(), plot.weight_histogram(layer)
    scale, zero_point = quantized.scale.double().item(), quantized.zero_point.item()
    assert [(code - zero_point) * scale for code in range(16)] == data.grid.tolist()


@pytest.mark.parametrize(
    ("recipe", "grid"),
    [
        ("BinaryWeightPerChannel", [-1, 1]),
        ("TernaryWeightPerChannel", [-1, 0, 1]),
        ("MXFp4Weight", [-6, -4, -3, -2, -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 2, 3, 4, 6]),
    ],
)
def test_grids_of_other_formats(recipe, grid):
    """Binary, ternary and floating-point grids are their numbers."""
    data = plot.weight_histogram(linear(weight_quant=getattr(injectors, recipe)))
    codes = [code for code in data.grid.tolist() if code in grid]
    assert grid == codes


def test_what_lies_beyond():
    """Beyond is what is further than half a step from the ends of the grid."""
    layer = QuantLinear(4, 1, bias=False, weight_quant=injectors.Int8WeightPerTensorMSE.let(bit_width=2))
    layer.weight_quant = injectors.TernaryWeightPerTensorConst.let(scaling_init=1.0)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.2, -1.4, 1.6, 9.0]]))
    data = plot.weight_histogram(layer)
    quantized = layer.quant_weight()
    end = data.high + 0.5 * quantized.scale.item()
    assert ((layer.weight.abs() > end).double().mean().item(), 0.5) == (data.beyond, data.beyond)


def test_wide_grids_are_drawn_by_their_ends():
    """A grid of 16 bits has ends, and no list of numbers."""
    data = plot.weight_histogram(linear(weight_bit_width=16))
    assert (0, True) == (len(data.grid), data.low < 0 < data.high)


def test_a_tensor_by_name():
    """A layer with several tensors shows the one that is named."""
    layer = QuantLSTM(3, 5)
    data = plot.weight_histogram(layer, "weight_hh_l0", bins=10)
    assert np.histogram(layer.weight_hh_l0.detach().double(), bins=10)[0].tolist() == data.counts.tolist()
    assert "weight_hh_l0 of QuantLSTM, Int8WeightPerTensor" == data.label


def test_what_a_layer_computes():
    """Of a batch normalization it is the scale that it becomes."""
    layer = QuantBatchNorm1d(8)
    nn.init.normal_(layer.weight)
    data = plot.weight_histogram(layer, bins=5)
    computed = (layer.weight / torch.sqrt(layer.running_var + layer.eps)).detach().double()
    assert np.histogram(computed.float().double(), bins=5)[0].tolist() == data.counts.tolist()


def test_equal_weights():
    """Weights that are all equal are in one bin."""
    layer = QuantLinear(4, 2, bias=False)
    nn.init.constant_(layer.weight, 0.25)
    data = plot.weight_histogram(layer, bins=4)
    assert (8.0, [-0.25, 0.75]) == (data.counts.sum().item(), [data.edges[0].item(), data.edges[-1].item()])


def test_weights_are_drawn():
    """The stairs are the counts, the marks the grid, and the title says what is shown."""
    layer = linear(weight_quant=injectors.Int8WeightPerTensorMSE.let(bit_width=3))
    data, axes = plot.weight_histogram(layer, bins=30), plot.weights(layer, bins=30)
    stairs = axes.patches[0].get_data()
    assert data.counts.tolist() == stairs.values.tolist()
    assert data.edges.tolist() == stairs.edges.tolist()
    marks = axes.collections[0].get_segments()
    assert data.grid.tolist() == [segment[0][0] for segment in marks]
    assert [data.low, data.high] == [line.get_xdata()[0] for line in axes.lines]
    assert ("weight", "count") == (axes.get_xlabel(), axes.get_ylabel())
    assert "weight of QuantLinear, Int8WeightPerTensorMSE.let(bit_width=3)" == axes.get_title(loc="left")
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert ["weights", f"grid: 7 numbers, {data.low:.3g} to {data.high:.3g}", f"clipped: {data.beyond:.2%}"] == labels


def test_nothing_is_shaded_where_nothing_is_clipped():
    """Without clipping there is no shade, and no word of it."""
    axes = plot.weights(linear())
    assert 1 == len(axes.patches)
    assert 2 == len(axes.get_legend().get_texts())


def test_far_ends_of_a_grid_are_not_shown():
    """A grid that is far wider than the values does not squeeze them."""
    layer = QuantIdentity(act_quant=injectors.TernaryActPerTensorConst.let(scaling_init=1000.0))
    x = torch.rand(100)
    low, high = plot.activations(layer, x).get_xlim()
    assert -0.1 < low < high < 1.1


def test_activations_are_counted_as_numpy_counts():
    """What enters the quantizer is counted, in all calls; here, what the layer before puts out."""
    model = nn.Sequential(nn.Linear(6, 6), QuantReLU(bit_width=4), QuantLinear(6, 2)).eval()
    x = torch.randn(64, 6)
    with calibrating(model):
        model(x)
    data = plot.activation_histogram(model, 2 * x, bins=25)
    entering = torch.relu(model[0](2 * x)).detach().double().numpy()
    assert np.histogram(entering, bins=25)[0].tolist() == data.counts.tolist()
    scale = model[1].act_quant.current().scale.double().item()
    assert [code * scale for code in range(16)] == data.grid.tolist()
    assert (entering > 15.5 * scale).mean() == data.beyond


def test_activations_of_one_of_several():
    """Of several quantizers, the one at a path is shown."""
    model = nn.Sequential(QuantIdentity(), nn.ReLU(), QuantReLU()).eval()
    x = torch.randn(50)
    with calibrating(model):
        model(x)
    data = plot.activation_histogram(model, x, at="2.act_quant", bins=5)
    assert "2.act_quant, Uint8ActPerTensor" == data.label
    assert np.histogram(model[0](x).relu().double(), bins=5)[0].tolist() == data.counts.tolist()


def test_activations_of_each_step():
    """A quantizer that is called at each time step has seen all of them."""
    layer = QuantLSTM(3, 5, hidden_quant=injectors.Int8ActPerTensor).eval()
    x = torch.randn(7, 2, 3)
    with calibrating(layer):
        layer(x)
    assert 7 * 2 * 5 == plot.activation_histogram(layer, x).counts.sum()


def test_dynamic_activations_are_shown_in_steps():
    """Where each token has its scale, values are shown in steps of it."""
    layer, x = QuantIdentity(act_quant=injectors.Int8ActPerTokenDynamic).eval(), torch.randn(9, 4)
    data = plot.activation_histogram(layer, x, bins=10)
    steps = x.double() / layer.act_quant(x).scale.double()
    assert np.histogram(steps, bins=10)[0].tolist() == data.counts.tolist()
    assert (True, -127, 127) == (data.steps, data.low, data.high)


@pytest.mark.parametrize("batch", [(torch.ones(2),), {"x": torch.ones(2)}, torch.ones(2)])
def test_batches(batch):
    """A batch is one argument, a tuple of them, or keywords."""
    layer = QuantReLU()
    layer(torch.ones(2))
    assert 2 == plot.activation_histogram(layer, batch).counts.sum()


def test_activations_are_drawn():
    """The stairs are the counts."""
    layer, x = QuantReLU(bit_width=2), torch.tensor([0.1, 0.5, 0.9, 3.0])
    layer(torch.ones(1))
    axes = plot.activations(layer, x, bins=4)
    assert plot.activation_histogram(layer, x, bins=4).counts.tolist() == axes.patches[0].get_data().values.tolist()
    assert "clipped: 25.00%" == axes.get_legend().get_texts()[-1].get_text()


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (
            lambda: plot.weights(nn.Linear(2, 2)),
            ArgumentError,
            "Linear has no quantized weight: give a layer with a `weight_quant`",
        ),
        (lambda: plot.weights(3), ArgumentTypeError, "`layer` must be a module, not int"),
        (
            lambda: plot.weights(QuantLinear(2, 2), "weigth"),
            ArgumentError,
            "`tensor` (='weigth') is no quantized tensor of this layer, which are 'weight'. Did you mean `weight`?",
        ),
        (
            lambda: plot.weights(QuantLinear(2, 2), bins=0),
            ArgumentError,
            "`bins` (=0) must be a whole number, 1 or more",
        ),
        (lambda: plot.activations(3, torch.ones(1)), ArgumentTypeError, "`model` must be a module, not int"),
        (
            lambda: plot.activations(QuantLinear(2, 2), torch.ones(2)),
            ArgumentError,
            "QuantLinear has no quantizer of activations: give a layer or a model that has one",
        ),
        (
            lambda: plot.activations(nn.Sequential(QuantReLU(), QuantReLU()), torch.ones(2)),
            ArgumentError,
            "`at` must say which activation to show: '0.act_quant', '1.act_quant'",
        ),
        (
            lambda: plot.activations(nn.Sequential(QuantReLU()), torch.ones(2), at="0.act_qant"),
            ArgumentError,
            "`at` (='0.act_qant') is no quantizer of activations, which are '0.act_quant'. Did you mean `0.act_quant`?",
        ),
        (
            lambda: plot.activations(nn.ModuleDict({"unused": QuantReLU()}), torch.ones(2)),
            NotImplementedError,
            None,
        ),
    ],
)
def test_wrong_arguments(call, kind, message):
    """Wrong arguments are refused, with their value, the rule and the way out."""
    with pytest.raises(kind) as refused:
        call()
    assert message in (None, str(refused.value))


def test_what_is_not_reached():
    """A quantizer that the model does not call is named."""

    class Beside(nn.Module):
        def __init__(self):
            super().__init__()
            self.relu = QuantReLU()

        def forward(self, x):
            return x

    with pytest.raises(ArgumentError) as refused:
        plot.activations(Beside(), torch.ones(1))
    assert "the batch did not reach `relu.act_quant`: the model does not call it" == str(refused.value)


def test_without_data():
    """A quantizer without a range is refused as in evaluation, and by name."""
    with pytest.raises(UncalibratedError, match=r"`0\.act_quant`"):
        plot.activations(nn.Sequential(QuantReLU()), torch.ones(1))
