"""Pooling and up-sampling: averages of integers cut to fewer bits, and layers of torch that keep a QuantTensor."""

import copy
import itertools
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from brevq.errors import ArgumentError
from brevq.graph import calibrating
from brevq.nn import QuantConv2d, QuantIdentity, QuantReLU, TruncAdaptiveAvgPool2d, TruncAvgPool2d, TruncQAccumulator
from brevq.quant_tensor import QuantTensor
from injectors import (
    Int8ActPerTensor,
    Int8Trunc,
    Int8TruncRound,
    ShiftedUint8ActPerTensor,
    Uint8ActPerTensor,
)

#: Layer, twin and arguments of both, for an input of 6 x 8.
POOLS = [
    pytest.param(TruncAvgPool2d, nn.AvgPool2d, {"kernel_size": 2}, id="2x2"),
    pytest.param(TruncAvgPool2d, nn.AvgPool2d, {"kernel_size": (3, 2), "stride": 1}, id="overlapping"),
    pytest.param(TruncAvgPool2d, nn.AvgPool2d, {"kernel_size": 3, "stride": 2, "padding": 1}, id="padded"),
    pytest.param(TruncAdaptiveAvgPool2d, nn.AdaptiveAvgPool2d, {"output_size": 1}, id="global"),
    pytest.param(TruncAdaptiveAvgPool2d, nn.AdaptiveAvgPool2d, {"output_size": (2, 4)}, id="adaptive"),
]
#: Layers of torch that choose among values, or move them, by the number of dimensions that they work on.
CHOOSING = [
    *(pytest.param(getattr(nn, f"MaxPool{n}d")(2), n, id=f"max-pool-{n}d") for n in (1, 2, 3)),
    *(pytest.param(getattr(nn, f"AdaptiveMaxPool{n}d")(2), n, id=f"adaptive-max-pool-{n}d") for n in (1, 2, 3)),
    *(pytest.param(nn.Upsample(scale_factor=2), n, id=f"upsample-{n}d") for n in (1, 2, 3)),
    pytest.param(nn.Upsample(size=(9, 11), mode="nearest-exact"), 2, id="upsample-exact"),
    pytest.param(nn.UpsamplingNearest2d(scale_factor=3), 2, id="upsampling-nearest-2d"),
    pytest.param(nn.PixelShuffle(2), 2, id="pixel-shuffle"),
    pytest.param(nn.PixelUnshuffle(2), 2, id="pixel-unshuffle"),
    pytest.param(nn.ZeroPad2d(1), 2, id="zero-pad"),
    pytest.param(nn.Flatten(), 2, id="flatten"),
]


def quantized(shape=(2, 3, 6, 8), recipe=Int8ActPerTensor, bits=8):
    """A QuantTensor in whose first channel all values are the smallest."""
    x = torch.randn(shape)
    x[:, 0] = -4
    return QuantIdentity(act_quant=recipe.let(bit_width=bits), return_quant_tensor=True)(x)


def sums(codes, pool):
    """The sums of the windows of an array of codes, and their size."""
    if isinstance(pool, nn.AdaptiveAvgPool2d):
        output = (pool.output_size,) * 2 if isinstance(pool.output_size, int) else pool.output_size
        kernel = stride = tuple(size // out for size, out in zip(codes.shape[2:], output, strict=True))
        padding = (0, 0)
    else:
        kernel, stride, padding = (
            (part, part) if isinstance(part, int) else part for part in (pool.kernel_size, pool.stride, pool.padding)
        )
    codes = np.pad(codes, ((0, 0), (0, 0), *((p, p) for p in padding)))
    windows = np.lib.stride_tricks.sliding_window_view(codes, kernel, axis=(2, 3))
    return windows[:, :, :: stride[0], :: stride[1]].sum(axis=(-2, -1)), kernel[0] * kernel[1]


def bits_of(low, high, area, signed):
    """The bits that sums of so many codes take, counted in integers."""
    fits = lambda half: -half * signed <= low * area and high * area < half  # noqa: E731
    return next(bits for bits in itertools.count(1) if fits(2 ** (bits - signed)))


@pytest.mark.parametrize("recipe", [Int8TruncRound, Int8Trunc])
@pytest.mark.parametrize(("source", "bits"), [(Int8ActPerTensor, 8), (Int8ActPerTensor, 3), (Uint8ActPerTensor, 8)])
@pytest.mark.parametrize(("layer", "twin", "arguments"), POOLS)
def test_codes_are_sums_cut_in_integers(layer, twin, arguments, source, bits, recipe):
    """Codes are sums of codes without their last bits, or rounded; the scale is the input's by area and shift."""
    x, pool = quantized(recipe=source, bits=bits), layer(**arguments, trunc_quant=recipe, bit_width=bits)
    pool.return_quant_tensor = True
    total, area = sums(x.int().numpy().astype(np.int64), pool)
    signed = int(x.signed)
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    factor = 2 ** (bits_of(low, high, area, signed) - bits)
    cut = np.floor if recipe is Int8Trunc else np.rint
    expected, y = np.clip(cut(total / factor), low, high), pool(x)
    assert np.array_equal(expected, y.int().numpy())
    assert (bits, x.signed) == (y.bit_width, y.signed)
    assert torch.equal(x.scale / area * factor, y.scale)


def test_a_window_of_a_power_of_two_keeps_the_scale():
    """Of four 8-bit codes the sum takes 10 bits, so that rounded to 8 it has the input's scale again."""
    x, pool = quantized(), TruncAvgPool2d(2, return_quant_tensor=True)
    assert torch.equal(x.scale, pool(x).scale)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("layer", "twin", "arguments"), POOLS)
def test_without_a_quantizer_a_layer_is_its_twin(layer, twin, arguments, training):
    """With `trunc_quant` None a layer is its twin bit for bit, forward and backward, also of a QuantTensor's values."""
    ours, theirs = layer(**arguments, trunc_quant=None).train(training), twin(**arguments).train(training)
    x, outputs = torch.randn(2, 3, 6, 8), []
    for module in (ours, theirs):
        leaf = x.clone().requires_grad_()
        y = module(leaf)
        y.square().sum().backward()
        outputs.append([y, leaf.grad])
    assert all(torch.equal(a, b) for a, b in zip(*outputs, strict=True))
    x = quantized()
    assert torch.equal(theirs(x.value), ours(x))
    assert isinstance(ours, twin)


@pytest.mark.parametrize(("layer", "twin", "arguments"), POOLS)
def test_without_a_quantizer_the_sums_are_there(layer, twin, arguments):
    """With `trunc_quant` None, a QuantTensor has the sums of codes, and as many bits as they take."""
    x, pool = quantized(), layer(**arguments, trunc_quant=None, return_quant_tensor=True)
    total, area = sums(x.int().numpy().astype(np.int64), pool)
    assert np.array_equal(total, pool(x).int().numpy())
    assert bits_of(-128, 127, area, 1) == pool(x).bit_width


def test_a_plain_tensor_is_refused():
    """A plain tensor has no codes to add up: the error names the layer, and who should produce them."""
    with pytest.raises(ArgumentError) as error:
        nn.Sequential(QuantReLU(), TruncAvgPool2d(2))(torch.randn(1, 1, 4, 4))
    assert str(error.value) == (
        "`1` (TruncAvgPool2d) works on integers, and its input is a plain tensor.\n"
        "Let the layer before it return them: return_quant_tensor=True. What lies between them has to keep its grid, "
        "as pooling by maximum and flatten do"
    )


def between():
    """A QuantTensor whose zero lies between two codes: its zero-point was cut."""
    return TruncQAccumulator(bit_width=4, return_quant_tensor=True)(quantized(recipe=ShiftedUint8ActPerTensor))


@pytest.mark.parametrize(
    ("source", "arguments"),
    [
        pytest.param(quantized, {"ceil_mode": True}, id="ceil-mode"),
        pytest.param(quantized, {"padding": 1, "count_include_pad": False}, id="no-padding-counted"),
        pytest.param(quantized, {"divisor_override": 3}, id="other-divisor"),
        pytest.param(between, {"padding": 1}, id="no-code-for-padding"),
    ],
)
def test_uneven_windows_are_refused(source, arguments):
    """Windows whose sums lie on several grids are refused, with what would make them even."""
    with pytest.raises(ArgumentError) as error:
        TruncAvgPool2d(2, **arguments)(source())
    assert str(error.value) == (
        "A TruncAvgPool2d adds up windows of integers, and the sums lie on no one grid: the values of a window need "
        "one scale and one zero-point, and all windows one size, which they have with ceil_mode=False, "
        "count_include_pad=True and divisor_override=None; padding needs a code that stands for zero"
    )


def test_uneven_adaptive_windows_are_refused():
    """An output whose size does not divide the input's has windows of several sizes."""
    with pytest.raises(ArgumentError) as error:
        TruncAdaptiveAvgPool2d(4)(quantized())
    assert str(error.value) == (
        "A TruncAdaptiveAvgPool2d adds up windows of integers, and the sums lie on no one grid: the values of a "
        "window need one scale and one zero-point, and all windows one size, which they have where the output's height "
        "and width divide the input's"
    )


@pytest.mark.parametrize("shape", [(3, 6, 8), (2, 3, 6, 8)])
def test_a_zero_point_goes_along(shape):
    """Codes with a zero-point are added up with it, and both are cut alike."""
    x, pool = quantized(shape, ShiftedUint8ActPerTensor), TruncAvgPool2d(2, return_quant_tensor=True)
    y = pool(x)
    assert torch.equal(x.zero_point, y.zero_point)
    error = (y.value - nn.functional.avg_pool2d(x.value, 2)).abs().max()
    assert error <= 0.5001 * y.scale  # half a step, and rounding in float32


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("layer", "twin", "arguments"), POOLS)
def test_half_precision_stays(layer, twin, arguments, dtype):
    """Values keep their dtype, and the scale is in float32."""
    y = layer(**arguments, return_quant_tensor=True)(quantized().to(dtype))
    assert (dtype, torch.float32) == (y.value.dtype, y.scale.dtype)


@pytest.mark.parametrize(("layer", "twin", "arguments"), POOLS)
def test_state_and_copies(layer, twin, arguments):
    """A layer's state loads into a fresh one, as the twin's does, and copies compute the same."""
    x, made, fresh = quantized(), layer(**arguments), layer(**arguments)
    fresh.load_state_dict(twin(**arguments).state_dict(), strict=True)
    fresh.load_state_dict(made.state_dict(), strict=True)
    copies = [fresh, copy.deepcopy(made), pickle.loads(pickle.dumps(made))]
    assert all(torch.equal(made(x), each(x)) for each in copies)


@pytest.mark.parametrize("training", [True, False])
def test_a_network_of_pools_compiles_and_trains(training):
    """A network of integers from end to end compiles to one graph, with the numbers and gradients of eager code."""
    network = nn.Sequential(
        QuantConv2d(3, 4, 3, input_quant=Int8ActPerTensor),
        QuantReLU(return_quant_tensor=True),
        nn.MaxPool2d(2),
        TruncAvgPool2d(2, return_quant_tensor=True),
        nn.Upsample(scale_factor=2),
        TruncAdaptiveAvgPool2d(1, return_quant_tensor=True),
        nn.Flatten(),
    ).train(training)
    x = torch.randn(2, 3, 18, 18)
    with calibrating(network, then="learned"):
        network(x)
    outputs = []
    for run in (network, torch.compile(network, fullgraph=True, backend="aot_eager")):
        network.zero_grad()
        y = run(x)
        y.value.square().sum().backward()
        outputs.append([y.value, y.scale, *(p.grad for p in network.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*outputs, strict=True))
    assert network[0].weight.grad.abs().sum() > 0


@pytest.mark.parametrize(("module", "dimensions"), CHOOSING)
def test_layers_of_torch_keep_the_grid(module, dimensions):
    """Pooling by maximum, up-sampling to the nearest value and moves keep a QuantTensor in a network."""
    network = nn.Sequential(QuantIdentity(return_quant_tensor=True), module)
    x = torch.randn(2, 4, *(6,) * dimensions)
    y, before = network(x), QuantIdentity(return_quant_tensor=True)(x)
    assert isinstance(y, QuantTensor)
    assert (8, True) == (y.bit_width, y.is_valid)
    assert torch.equal(before.scale, y.scale)
    assert torch.equal(module(before.value), y.value)


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize("name", ["MaxPool", "AdaptiveMaxPool"])
def test_indices_come_beside_the_grid(name, dimensions):
    """With `return_indices` pooling gives the maxima as a QuantTensor, and the indices as torch does."""
    module = getattr(nn, f"{name}{dimensions}d")(2, return_indices=True)
    before = QuantIdentity(return_quant_tensor=True)(torch.randn(2, 4, *(6,) * dimensions))
    (maxima, indices), (values, expected) = module(before), module(before.value)
    assert torch.equal(values, maxima.value)
    assert torch.equal(expected, indices)
    assert torch.equal(before.scale, maxima.scale)


def test_interpolation_leaves_the_grid():
    """Up-sampling that makes new values gives a plain tensor."""
    x = quantized()
    up = nn.Upsample(scale_factor=2, mode="bilinear")
    assert torch.equal(up(x.value), up(x))
