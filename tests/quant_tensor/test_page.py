"""QuantTensors in notebooks: grid, counts and scales."""

import copy
from collections import Counter
from xml.etree import ElementTree

import pytest
import torch
from IPython.core.formatters import DisplayFormatter

import injectors
from brevq.nn import QuantIdentity, QuantLinear
from brevq.quant_tensor import QuantTensor
from brevq.quant_tensor.levels import levels_of
from brevq.quant_tensor.page import COUNTED, count

SVG = "{http://www.w3.org/2000/svg}"


def integers(codes, scale=0.5, zero_point=0.0, bits=4.0, **kind):
    """A tensor of these codes."""
    value = (torch.as_tensor(codes, dtype=torch.float32) - zero_point) * scale
    return QuantTensor(
        value, torch.as_tensor(scale), torch.as_tensor(zero_point), torch.tensor(bits), **{"signed": True, **kind}
    )


def page(x):
    """The page of a tensor, parsed, and its text."""
    root = ElementTree.fromstring(x._repr_html_())
    return root, " ".join(filter(None, root.itertext()))


def bars(root):
    """How often each number occurs, by the bars."""
    group = next(found for found in root.iter(f"{SVG}g") if found.get("class") == "bars")
    return dict(
        zip(map(float, group.get("data-values").split()), map(int, group.get("data-counts").split()), strict=True)
    )


def scales(root):
    """The scales, by the chart."""
    return [float(s) for g in root.iter(f"{SVG}g") if g.get("class") == "scales" for s in g.get("data-values").split()]


def test_counts():
    """Each code is counted, and the page says how many are at the ends of the range."""
    root, words = page(integers([-8, -8, 0, 3, 7, 7, 7, 1]))
    assert {-8.0: 2, 0.0: 1, 1.0: 1, 3.0: 1, 7.0: 3} == bars(root)
    assert "on the lowest number (-8): 25 %, on the highest (7): 37.5 %; 5 different numbers occur." in words
    assert "int4: how often each of 16 values occurs" in words


@pytest.mark.parametrize(
    "recipe",
    [
        injectors.Int8WeightPerTensor,
        injectors.Int8WeightPerChannel,
        injectors.ShiftedUint8WeightPerChannel,
        injectors.Int4WeightPerGroup.let(group_size=8),
        injectors.Int4WeightPerGroup.let(group_size=32, pad=True),
        injectors.TernaryWeightPerTensor,
    ],
    ids=lambda recipe: recipe.__name__,
)
def test_counts_are_those_of_the_codes(recipe):
    """What is counted are the codes that `int` gives, whatever shares a scale."""
    x = QuantLinear(48, 6, weight_quant=recipe).quant_weight()
    expected = Counter(map(float, x.int().flatten().tolist()))
    assert dict(sorted(expected.items())) == count(x, levels_of(x)).numbers


@pytest.mark.parametrize(
    "recipe",
    [injectors.Fp8e4m3OCPWeightPerChannel, injectors.MXFp4Weight, injectors.NVFP4Weight, injectors.MXInt8Weight],
    ids=lambda recipe: recipe.__name__,
)
def test_counts_of_formats(recipe):
    """Of formats the numbers that the codes stand for are counted."""
    x = QuantLinear(48, 6, weight_quant=recipe).quant_weight()
    numbers = x.float_format.decode(x.int()) + 0.0
    counts = count(x, levels_of(x))
    assert dict(sorted(Counter(numbers.flatten().tolist()).items())) == counts.numbers
    assert (0, 0) == (counts.off, counts.strange)


def test_scales():
    """Several scales are drawn, in their order."""
    layer = QuantLinear(16, 5, weight_quant=injectors.Int8WeightPerChannel)
    root, words = page(layer.quant_weight())
    expected = [float(f"{row.abs().max().item() / 127:.6g}") for row in layer.weight]
    assert expected == pytest.approx(scales(root), rel=1e-5)  # six digits are written
    assert "scale of each channel" in words


def test_large_tensors_are_sampled():
    """Of very many values some are counted, from all over the tensor, and the page says so."""
    x = integers(torch.arange(2**18) // 2**14 - 8)
    counts = count(x, levels_of(x))
    assert (COUNTED, 2**18) == (counts.total, counts.all_values)
    assert {float(code): COUNTED // 16 for code in range(-8, 8)} == counts.numbers
    assert f"{COUNTED} of {2**18} values counted." in page(x)[1]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes(dtype):
    """Values in half precision lie on the grid as well as they can."""
    x = QuantLinear(64, 8, weight_quant=injectors.Int8WeightPerChannel).to(dtype).quant_weight()
    assert 0 == count(x, levels_of(x)).off
    assert str(dtype).removeprefix("torch.") in page(x)[1]


def test_off_the_grid():
    """Values between the numbers of the grid, or beyond it, are told apart."""
    root, words = page(integers([0.4, 1.0, 12.0]))
    assert {1.0: 1} == bars(root)
    assert "2 of them lie on no number of the grid." in words


def test_nan():
    """NaN and infinities are told apart."""
    root, words = page(integers([float("nan"), 1.0, float("inf")]))
    assert {1.0: 1} == bars(root)
    assert "2 of them NaN or infinite." in words


ODD = {
    "empty": lambda: integers(torch.empty(0, 3)),
    "scalar": lambda: integers(3.0),
    "meta": lambda: QuantTensor(*(torch.empty(s, device="meta") for s in ((2, 2), (), (), ())), signed=True),
    "nan scale": lambda: integers([1.0], scale=float("nan")),
    "zero scale": lambda: integers([1.0], scale=0.0),
    "scales that fit not": lambda: QuantTensor(
        torch.ones(2, 3), torch.ones(5), torch.zeros(()), torch.tensor(4.0), signed=True
    ),
    "no scale": lambda: QuantTensor(torch.ones(3), torch.ones(0), torch.zeros(()), torch.tensor(4.0), signed=True),
    "bits for each": lambda: QuantTensor(torch.ones(2), torch.ones(()), torch.zeros(()), torch.ones(2), signed=True),
    "accumulator": lambda: integers([1.0, 2.0**30], bits=40.0),
    "binary": lambda: integers([-1.0, 1.0], bits=1.0),
    "uint1": lambda: integers([0.0, 1.0], bits=1.0, signed=False),
    "gradients": lambda: QuantLinear(4, 4).quant_weight(),
    "shifted": lambda: integers([0.0, 3.0], zero_point=7.0, signed=False),
    "sum": lambda: integers([1, 2]) + integers([3, 4]),
}


@pytest.mark.parametrize("make", ODD.values(), ids=ODD)
def test_any_state_has_a_page(make):
    """Whatever state a tensor is in, its page can be parsed, and nothing is raised."""
    root, words = page(make())
    assert root.get("class") == "brevq"
    assert "shape" in words


def test_ternary():
    """A ternary tensor shows three numbers, not the four of two bits."""
    _, words = page(QuantLinear(8, 8, weight_quant=injectors.TernaryWeightPerTensor).quant_weight())
    assert "ternary: how often each of 3 values occurs" in words


def test_zero_point_is_told():
    """A code that stands for zero is told beside the grid."""
    assert ("code 7 stands for zero",) == levels_of(integers([3], zero_point=7.0, signed=False)).notes


def test_nothing_changes():
    """Looking at a tensor leaves its parts, its gradients and the random numbers alone."""
    layer = QuantIdentity(act_quant=injectors.Int8ActPerTensor, return_quant_tensor=True)
    x = layer(torch.randn(4, 4))
    before, state = copy.deepcopy(layer.state_dict()), torch.random.get_rng_state()
    x._repr_html_()
    x.value.sum().backward()
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(before[name], now) for name, now in layer.state_dict().items())


def test_in_ipython():
    """IPython shows the page of a tensor."""
    x = integers([1, 2])
    shown, _ = DisplayFormatter().format(x)
    assert x._repr_html_() == shown["text/html"]
