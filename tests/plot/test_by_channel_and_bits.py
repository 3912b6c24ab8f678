"""Scales by channel, and accuracy against bits, by their data."""

import importlib.util
import subprocess
import sys

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

import injectors
from brevq import plot
from brevq.errors import ArgumentError, ArgumentTypeError, MissingExtraError
from brevq.nn import QuantConv2d, QuantConvTranspose2d, QuantLinear, QuantLSTM, QuantReLU


def test_scales_of_channels():
    """Each output channel has the scale of its largest weight."""
    layer = QuantConv2d(3, 5, 2, weight_quant=injectors.Int8WeightPerChannel)
    largest = layer.weight.detach().abs().flatten(1).amax(1).numpy()
    assert (largest / np.float32(127)).tolist() == plot.scales_by_channel(layer).flatten().float().tolist()


def test_scales_of_a_transposed_layer():
    """Its outputs lie along the second axis."""
    layer = QuantConvTranspose2d(3, 5, 2, weight_quant=injectors.Int8WeightPerChannel)
    largest = layer.weight.detach().abs().amax((0, 2, 3)).numpy()
    assert (largest / np.float32(127)).tolist() == plot.scales_by_channel(layer).flatten().float().tolist()


@pytest.mark.parametrize(
    ("recipe", "shape"),
    [
        (injectors.Int8WeightPerTensor, (1, 1)),
        (injectors.Int4WeightPerGroup.let(group_size=16), (6, 4)),
        (injectors.Fp8e4m3OCPWeightPerBlock.let(block_shape=(2, 32)), (3, 2)),
    ],
)
def test_shapes_of_scales(recipe, shape):
    """One for the tensor, one for each group of a channel, one for each block of a row of blocks."""
    assert shape == plot.scales_by_channel(QuantLinear(64, 6, weight_quant=recipe)).shape


def test_scales_are_drawn():
    """Each channel has a dot at its scale."""
    layer = QuantLinear(4, 6, weight_quant=injectors.Int8WeightPerChannel)
    axes = plot.scales(layer)
    (line,) = axes.lines
    assert list(range(6)) == line.get_xdata().tolist()
    assert plot.scales_by_channel(layer).flatten().tolist() == line.get_ydata().tolist()
    assert ("output channel", "scale", 0) == (axes.get_xlabel(), axes.get_ylabel(), axes.get_ylim()[0])


def test_scales_of_groups_are_drawn():
    """Each channel has a bar from the smallest to the largest scale of its groups, and a dot at the median."""
    layer = QuantLinear(64, 6, weight_quant=injectors.Int4WeightPerGroup.let(group_size=16))
    axes, data = plot.scales(layer), plot.scales_by_channel(layer).numpy()
    ends = [(segment[0][1], segment[1][1]) for segment in axes.collections[0].get_segments()]
    assert list(zip(data.min(1), data.max(1), strict=True)) == ends
    assert np.median(data, axis=1) == pytest.approx(axes.lines[0].get_ydata())


def test_scales_far_apart_are_logarithmic():
    """Where scales differ much, their axis is logarithmic."""
    layer = QuantLinear(4, 2, bias=False, weight_quant=injectors.Int8WeightPerChannel)
    assert "linear" == plot.scales(layer).get_yscale()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0], [0.01]]).expand(2, 4))
    assert "log" == plot.scales(layer).get_yscale()


def test_scales_of_a_tensor_by_name():
    """A layer with several tensors shows the one that is named."""
    assert "Scales: weight_hh_l0 of QuantLSTM, Int8WeightPerTensor" == plot.scales(
        QuantLSTM(2, 3), "weight_hh_l0"
    ).get_title(loc="left")


def test_accuracy_that_was_measured():
    """Points are drawn by rising bits, and the baseline as a line."""
    axes = plot.accuracy({8: 0.97, 2: 0.5, 4: 0.9}, baseline=0.98)
    curve, baseline = axes.lines
    assert [[2, 0.5], [4, 0.9], [8, 0.97]] == curve.get_xydata().tolist()
    assert [0.98, 0.98] == list(baseline.get_ydata())
    assert [2, 4, 8] == axes.get_xticks().tolist()
    assert "50%" == axes.yaxis.get_major_formatter()(0.5)


def test_accuracy_that_is_evaluated():
    """A function is called once for each bit width, in the order given."""
    calls = []

    def evaluate(bits):
        calls.append(bits)
        return torch.tensor(bits / 10)

    (line,) = plot.accuracy(evaluate, [8, 4]).lines
    assert [8, 4] == calls
    assert [4, 8] == list(line.get_xdata())
    assert [0.4, 0.8] == pytest.approx(list(line.get_ydata()))


def test_several_curves():
    """Curves have names, and colours of their own."""
    axes = plot.accuracy({"a": {2: 0.5}, "b": {2: 0.6, 4: 0.7}})
    assert ["a", "b"] == [text.get_text() for text in axes.get_legend().get_texts()]
    assert 2 == len({line.get_color() for line in axes.lines})


def test_other_metrics():
    """A metric beyond 1 is shown as it is."""
    axes = plot.accuracy({2: 30.0, 4: 12.0}, metric="perplexity", baseline=11.5)
    assert ("perplexity", "Perplexity against bits") == (axes.get_ylabel(), axes.get_title(loc="left"))
    assert "float, 11.5" == axes.lines[1].get_label()


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (
            lambda: plot.accuracy(lambda bits: 1.0),
            ArgumentError,
            "`bits` must say at which bit widths to evaluate: accuracy(evaluate, [8, 4, 2])",
        ),
        (
            lambda: plot.accuracy({8: 1.0}, [8]),
            ArgumentError,
            "`bits` is for a function that is evaluated; what was measured has its bit widths itself",
        ),
        (lambda: plot.accuracy({}), ArgumentError, "there is nothing to plot: no bit width was measured"),
        (
            lambda: plot.accuracy([0.5]),
            ArgumentTypeError,
            "`measured` must be accuracies by bit width, such as {8: 0.97, 4: 0.95}, several of these by name, or a "
            "function of the bit width, not list",
        ),
        (
            lambda: plot.scales(nn.Linear(2, 2)),
            ArgumentError,
            "Linear has no quantized weight: give a layer with a `weight_quant`",
        ),
    ],
)
def test_wrong_arguments(call, kind, message):
    """Wrong arguments are refused, with the way out."""
    with pytest.raises(kind) as refused:
        call()
    assert message == str(refused.value)


PLOTS = {
    "weights": lambda ax: plot.weights(QuantLinear(4, 2), ax=ax),
    "activations": lambda ax: plot.activations(calibrated(), torch.ones(2), ax=ax),
    "sqnr": lambda ax: plot.sqnr(QuantLinear(4, 2), torch.ones(4), ax=ax),
    "scales": lambda ax: plot.scales(QuantLinear(4, 2), ax=ax),
    "accuracy": lambda ax: plot.accuracy({8: 0.9}, ax=ax),
}


def calibrated():
    """A layer that has seen data."""
    layer = QuantReLU()
    layer(torch.ones(2))
    return layer


@pytest.mark.parametrize("name", sorted(PLOTS))
def test_axes_that_are_given(name):
    """A plot goes onto the axes that it is given, and returns them; a figure of its own can be saved."""
    axes = Figure().add_subplot()
    assert axes is PLOTS[name](axes)
    own = PLOTS[name](None)
    own.figure.canvas.draw()
    assert own is not axes


def test_pyplot_is_not_touched():
    """No plot imports pyplot, which would choose a way to open windows."""
    code = "import sys; from brevq import plot; plot.accuracy({8: 0.9}); print('matplotlib.pyplot' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (0, "False\n") == (done.returncode, done.stdout)


@pytest.mark.parametrize("name", sorted(PLOTS))
def test_without_matplotlib(name, monkeypatch):
    """Without matplotlib, plots say what to install, on axes or not."""
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda package: None if package == "matplotlib" else found(package)
    )
    with pytest.raises(MissingExtraError) as refused:
        PLOTS[name](None)
    assert "matplotlib is not installed: pip install 'brevq[plot]'" == str(refused.value)


def test_data_without_matplotlib():
    """The data of all plots are there without it."""
    code = """
import sys
sys.modules["matplotlib"] = None
import torch
from brevq import plot
from brevq.nn import QuantLinear
layer = QuantLinear(4, 2)
print(len(plot.weight_histogram(layer).counts), len(plot.sqnr_by_layer(layer, torch.ones(4))))
print(plot.scales_by_channel(layer).shape)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (0, "100 1\ntorch.Size([1, 1])\n", "") == (done.returncode, done.stdout, done.stderr)
