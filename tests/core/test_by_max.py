"""The short way of weights: what it takes, and that it leads where the long one does."""

import pytest
import torch
from torch import nn

from brevq.core.function_wrapper import FloorSte
from brevq.nn import QuantConv2d, QuantConvTranspose2d, QuantLinear
from brevq.quantizer import Quantizer
from injectors import Int4WeightPerGroup, Int8WeightPerChannel, Int8WeightPerTensor, Int8WeightPerTensorPoT

LAYERS = {
    "tensor": lambda: QuantLinear(40, 8, weight_quant=Int8WeightPerTensor),
    "tensor, 2 bits": lambda: QuantLinear(40, 8, weight_bit_width=2),
    "tensor, 16 bits": lambda: QuantLinear(40, 8, weight_bit_width=16),
    "channel": lambda: QuantConv2d(4, 8, 3, weight_quant=Int8WeightPerChannel),
    "group": lambda: QuantLinear(64, 8, weight_quant=Int4WeightPerGroup, weight_group_size=16),
    "large": lambda: QuantLinear(256, 256),
}
OTHERS = {
    "17 bits": lambda: QuantLinear(40, 8, weight_bit_width=17),
    "not narrow": lambda: QuantLinear(40, 8, weight_narrow_range=False),
    "power of two": lambda: QuantLinear(40, 8, weight_quant=Int8WeightPerTensorPoT),
    "floor": lambda: QuantLinear(40, 8, weight_float_to_int_impl=FloorSte),
    "delayed": lambda: QuantLinear(40, 8, weight_quant_delay_steps=1),
}


def watched(layer):
    """The layer, with a hook on its statistic, so that no part is passed by."""
    layer.weight_quant.tensor_quant.scaling_impl.stats_impl.register_forward_hook(lambda *_: None)
    return layer


def results(layer):
    """Values, scales, and the gradient of the weight to the sum of both, values weighed by their place."""
    quantized = layer.quant_weight()
    places = torch.arange(1.0, quantized.value.numel() + 1).reshape(quantized.value.shape)
    layer.weight.grad = None
    ((quantized.value * places).sum() + quantized.scale.sum()).backward()
    return quantized.value.tolist(), quantized.scale.tolist(), layer.weight.grad.clone()


@pytest.mark.parametrize("case", LAYERS)
def test_leads_where_the_long_way_does(case):
    """Values and scales are equal bit for bit; a gradient is, but for the order in which a sum is taken."""
    layer = LAYERS[case]()
    assert layer.weight_quant.tensor_quant.short.by_max is not None
    *short, gradient = results(layer)
    *long, expected = results(watched(layer))
    assert long == short
    torch.testing.assert_close(gradient, expected, rtol=2e-5, atol=0.1)  # of sums of up to 65536 ** 2 / 2
    with torch.no_grad():
        assert short == [part.tolist() for part in (layer.quant_weight().value, layer.quant_weight().scale)]


@pytest.mark.parametrize("case", OTHERS)
def test_others_go_the_long_way(case):
    """A recipe with another part than the usual ones has no short way."""
    assert OTHERS[case]().weight_quant.tensor_quant.short.by_max is None


def test_denormal_scales():
    """A scale that is rounded to a denormal number leaves no code beyond the last one."""
    layer = QuantLinear(4, 4, weight_scaling_min_val=1e-44)
    nn.init.constant_(layer.weight, 190 * 2.0**-149)
    assert 127 == layer.quant_weight().int().max().item()


def test_shared_quantizers_go_the_long_way():
    """A scale of several weights follows the largest value of all of them."""
    first, second = QuantLinear(4, 4), QuantLinear(4, 4)
    nn.init.constant_(second.weight, 5.0)
    first.weight_quant = second.weight_quant
    assert pytest.approx(5 / 127) == first.quant_weight().scale.item()


def test_rows_that_are_apart_go_the_long_way():
    """Channels that do not lie one after the other in memory are quantized all the same."""
    layer = QuantConvTranspose2d(4, 8, 3, weight_quant=Int8WeightPerChannel)
    expected = layer.weight.detach().abs().amax(dim=(0, 2, 3)) / 127
    assert torch.equal(expected, layer.quant_weight().scale.flatten())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes(dtype):
    """Half precision is quantized in float32 and double in its own, and both keep their dtype and their gradient."""
    layer = QuantLinear(40, 8).to(dtype)
    quantized = layer.quant_weight()
    quantized.value.sum().backward()
    assert (dtype, dtype) == (quantized.value.dtype, layer.weight.grad.dtype)
    assert torch.equal(watched(layer).quant_weight().value, quantized.value)


@pytest.mark.parametrize("shape", [(), (0,), (1, 1)])
def test_sizes(shape):
    """Single values, none at all, and values without an axis are quantized too."""
    quantizer = Quantizer(Int8WeightPerTensor, {"tensor_shape": shape, "channel_axis": 0})
    x = torch.full(shape, -2.0, requires_grad=True)
    y = quantizer(x)
    y.value.sum().backward()
    assert torch.equal(x, y.value)
    assert torch.equal(torch.ones(shape), x.grad)
