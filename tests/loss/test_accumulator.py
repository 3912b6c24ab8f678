"""The loss on accumulators: what it adds up, what it moves, and what it leaves behind."""

import copy
import gc
import io
import math
import weakref

import numpy as np
import pytest
import torch
from torch import nn

from brevq.errors import ArgumentError
from brevq.loss import AccumulatorLoss
from brevq.nn import QuantConv2d, QuantLinear
from injectors import Int8ActPerTensor, Int8WeightPerChannelA2Q, Int8WeightPerChannelA2QPlus, Uint8ActPerTensor

RECIPES = {"A2Q": Int8WeightPerChannelA2Q, "A2Q+": Int8WeightPerChannelA2QPlus}


def layer_of(kind, accumulator, act=Uint8ActPerTensor):
    torch.manual_seed(3)
    recipe = RECIPES[kind].let(accumulator_bit_width=accumulator)
    return QuantLinear(24, 5, weight_quant=recipe, input_quant=act)


def largest_norm(kind, accumulator, bits, signed):
    """The L1 norm of codes that an accumulator holds, in Python's integers; and the margin for float32."""
    bound = {
        "A2Q": (2 ** (accumulator - 1) - 1) / 2 ** (bits - signed),
        "A2Q+": (2**accumulator - 2) / (2**bits - 1),
    }[kind]
    return bound * (1 - 2.0**-14)


@pytest.mark.parametrize("act", [Uint8ActPerTensor, Int8ActPerTensor])
@pytest.mark.parametrize("accumulator", [12, 15, 17, 32])
@pytest.mark.parametrize("kind", RECIPES)
def test_values(kind, accumulator, act):
    """The sum over channels of how many times the norm of the codes would have to be halved."""
    layer = layer_of(kind, accumulator, act)
    with AccumulatorLoss(layer) as above:
        layer(torch.rand(2, 24))
        actual = above()
    weight = layer.weight.detach().numpy().astype(np.float64)
    centred = weight - weight.mean(axis=1, keepdims=True) if kind == "A2Q+" else weight
    norms = np.abs(centred).sum(axis=1)
    scales = np.abs(weight).max(axis=1) / 127
    limits = scales * largest_norm(kind, accumulator, 8, act.signed)
    expected = math.fsum(max(math.log2(norm / limit), 0.0) for norm, limit in zip(norms, limits, strict=True))
    # Logarithms of float32 sums of 24 numbers.
    assert pytest.approx(expected, abs=5 * 2**-18) == actual.item()
    assert (accumulator == 32) == (actual.item() == 0)


def test_gradients():
    """A norm above its limit gets the gradient 1 as it is learned, in powers of two, its scale -1; others get none."""
    layer = layer_of("A2Q", 15)
    scaling = layer.weight_quant.tensor_quant.pre_scaling_impl
    with AccumulatorLoss(layer) as above:
        layer(torch.rand(2, 24))
        scaling.learned_norm.value.data[:2] = -20.0
        layer(torch.rand(2, 24))
        above().backward()
    expected = [0.0, 0.0, 1.0, 1.0, 1.0]
    # Chain rule through a power of two and its logarithm, in float32.
    assert pytest.approx(expected, abs=2**-20) == scaling.learned_norm.value.grad.flatten().tolist()
    assert pytest.approx([-v for v in expected], abs=2**-20) == scaling.scaling_impl.value.grad.flatten().tolist()
    assert layer.weight.grad is None


def test_training_brings_norms_back():
    """With this loss, norms come down until they fit; the task alone has no gradient for them."""
    layer = layer_of("A2Q", 13)
    learned = layer.weight_quant.tensor_quant.pre_scaling_impl.learned_norm
    x = torch.rand(8, 24)
    layer(x).square().sum().backward()
    assert 0.0 == learned.value.grad.abs().sum().item()
    optimizer = torch.optim.SGD([learned.value], lr=0.25)
    with AccumulatorLoss(layer) as above:
        for _ in range(40):
            optimizer.zero_grad()
            layer(x)
            above().backward()
            optimizer.step()
        layer(x)
        assert 0.0 == above().item()


def test_a_network():
    """Layers add up, each for its own input; a layer that has no accumulator to suit does not count."""
    conv = QuantConv2d(
        3, 4, 3, weight_quant=RECIPES["A2Q"].let(accumulator_bit_width=13), input_quant=Uint8ActPerTensor
    )
    linear = layer_of("A2Q+", 12, Int8ActPerTensor)
    model = nn.Sequential(conv, nn.Flatten(), QuantLinear(16, 24), linear)
    with AccumulatorLoss(model) as both, AccumulatorLoss(conv) as first, AccumulatorLoss(linear) as second:
        for bits in (1, 2):
            model(torch.rand(bits, 3, 4, 4))
        assert both().item() == (first() + second()).item()
        assert min(first().item(), second().item()) > 0


def test_nothing_to_follow():
    """A model without such weights is refused, with what to do; and before a run there is no loss."""
    with pytest.raises(ArgumentError) as caught:
        AccumulatorLoss(QuantLinear(2, 2))
    assert [
        "QuantLinear has no weights that suit an accumulator.",
        "",
        "Give a layer some: `weight_quant = Int8WeightPerChannelA2Q`.",
    ] == str(caught.value).splitlines()
    with AccumulatorLoss(layer_of("A2Q", 16)) as above, pytest.raises(ArgumentError) as caught:
        above()
    expected = "no weight was quantized yet: run the model once, between making this loss and closing it"
    assert expected == str(caught.value)


def test_copies_and_files_take_no_graph_along():
    """A model can be copied and saved while the loss follows it; the loss goes on with the model itself."""
    layer = layer_of("A2Q", 14)
    x = torch.rand(2, 24)
    with AccumulatorLoss(layer) as above:
        layer(x)
        before = above().item()
        torch.save(layer, io.BytesIO())
        assert torch.equal(layer(x), copy.deepcopy(layer)(x))
        assert before == above().item()


def test_what_is_left_behind():
    """Closed, the loss leaves no hook; and nothing keeps it alive."""
    layer = layer_of("A2Q", 14)
    above = AccumulatorLoss(layer)
    layer(torch.rand(2, 24))
    above.close()
    assert [] == [hook for module in layer.modules() for hook in module._forward_hooks]
    gone = weakref.ref(above)
    del above
    gc.collect()
    assert gone() is None
