"""Layers in notebooks: their quantizers, their weight on the grid, and their scales."""

from collections import Counter
from xml.etree import ElementTree

import pytest
import torch
from IPython.core.formatters import DisplayFormatter
from torch import nn
from torch.nn.utils import prune

import injectors
from brevq import nn as qnn
from brevq.nn import QuantConv2d, QuantLinear, QuantReLU
from brevq.nn.module import QuantModule

SVG = "{http://www.w3.org/2000/svg}"


def page(layer):
    """The page of a layer, parsed, and all its texts."""
    root = ElementTree.fromstring(layer._repr_html_())
    return root, {text for text in root.itertext() if text}


def bars(root):
    """How often each number occurs, by the bars of the first histogram."""
    group = next(found for found in root.iter(f"{SVG}g") if found.get("class") == "bars")
    return dict(
        zip(map(float, group.get("data-values").split()), map(int, group.get("data-counts").split()), strict=True)
    )


def scales(root):
    """The scales, by the first chart."""
    group = next(found for found in root.iter(f"{SVG}g") if found.get("class") == "scales")
    return [float(scale) for scale in group.get("data-values").split()]


def test_weight_on_the_grid():
    """A layer shows how often each code of its weight occurs, and the scale of each channel."""
    layer = QuantConv2d(3, 5, 3, weight_quant=injectors.Int8WeightPerChannel, weight_bit_width=4)
    root, words = page(layer)
    largest = layer.weight.detach().abs().amax((1, 2, 3), keepdim=True)
    codes = torch.round(layer.weight.detach() / largest * 7).flatten().tolist()
    assert dict(sorted(Counter(code + 0.0 for code in codes).items())) == bars(root)
    assert (largest.flatten() / 7).tolist() == pytest.approx(scales(root), rel=1e-5)  # six digits are written
    assert {"QuantConv2d", "3, 5, kernel_size=(3, 3), stride=(1, 1)"} <= words


def test_quantizers():
    """All quantizers are listed with recipe, grid, granularity and phase, and arguments that have none as float."""
    layer = QuantLinear(4, 2, input_quant=injectors.Uint8ActPerTensor)
    rows = [["".join(cell.itertext()) for cell in row] for row in page(layer)[0].iter("tr")]
    assert ["weight_quant", "Int8WeightPerTensor", "signed narrow 8 bits", "PerTensor", ""] in rows
    assert ["input_quant", "Uint8ActPerTensor", "unsigned 8 bits", "PerTensor", "empty"] in rows
    assert ["output_quant", "none: float", "", "", ""] in rows


def test_accumulator_aware_weight():
    """A weight that suits its input is shown for the input's bits."""
    layer = QuantLinear(32, 4, weight_quant=injectors.Int8WeightPerChannelA2Q, input_quant=injectors.Int8ActPerTensor)
    layer(torch.randn(8, 32))
    expected = Counter(map(float, layer.eval().quant_weight().int().flatten().tolist()))
    assert dict(sorted(expected.items())) == bars(page(layer)[0])


ODD = {
    "float": lambda: QuantLinear(3, 2, weight_quant=None),
    "half": lambda: QuantLinear(3, 2).half(),
    "no weight": lambda: qnn.QuantBatchNorm2d(3),
    "activation": QuantReLU,
    "recurrent": lambda: qnn.QuantLSTM(3, 4),
    "attention": lambda: qnn.QuantMultiheadAttention(8, 2),
    "embedding": lambda: qnn.QuantEmbedding(5, 3),
    "parametrized": lambda: nn.utils.parametrizations.weight_norm(QuantLinear(3, 2)),
    "pruned": lambda: prune.l1_unstructured(QuantLinear(3, 2), "weight", 0.5),
    "shared": lambda: QuantLinear(3, 2, weight_quant=QuantLinear(3, 2).weight_quant),
    "uncalibrated input": lambda: QuantLinear(
        3, 2, weight_quant=injectors.Int8WeightPerChannelA2Q, input_quant=injectors.Int8ActPerTensor
    ).eval(),
}


@pytest.mark.parametrize("make", ODD.values(), ids=ODD)
def test_any_layer_has_a_page(make):
    """Whatever layer, in whatever state: its page can be parsed, and nothing is raised."""
    layer = make()
    assert type(layer).__name__ in page(layer)[1]


@pytest.mark.parametrize("fill", [0.0, float("nan"), float("inf")])
def test_odd_weights(fill):
    """A weight of zeros, NaN or infinities has a page."""
    layer = QuantLinear(3, 2)
    nn.init.constant_(layer.weight, fill)
    assert "Weight" in page(layer)[1]


def test_meta_device():
    """A layer on the meta device shows its quantizers, and that it has no values."""
    words = page(QuantLinear(3, 2, device="meta"))[1]
    assert {"weight_quant", "Int8WeightPerTensor"} <= words
    assert any("no values to show" in text for text in words)


def test_parametrized_weight():
    """What computes a weight, and may change in training, is not run then; it is in evaluation."""
    layer = nn.utils.parametrizations.spectral_norm(QuantLinear(6, 4))
    vector = layer.parametrizations.weight[0]._u.clone()
    assert any("shown in evaluation" in text for text in page(layer)[1])
    assert torch.equal(vector, layer.parametrizations.weight[0]._u)
    assert bars(page(layer.eval())[0])


LAYERS = [content for content in vars(qnn).values() if isinstance(content, type) and issubclass(content, QuantModule)]


@pytest.mark.parametrize("layer", LAYERS)
def test_every_layer_shows_itself(layer):
    """Every layer that takes recipes has a page of its own; its class has none."""
    shown, _ = DisplayFormatter().format(layer)
    assert "text/html" not in shown
    assert QuantModule._repr_html_ is layer._repr_html_


def test_in_ipython():
    """IPython shows the page of a layer."""
    layer = QuantLinear(3, 2)
    shown, _ = DisplayFormatter().format(layer)
    assert layer._repr_html_() == shown["text/html"]
