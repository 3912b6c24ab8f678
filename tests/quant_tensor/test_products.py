"""Sums of products: integers that NumPy computes from integers, and no bit more than the worst case takes."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from brevq.graph import calibrating
from brevq.nn import QuantConv2d, QuantConvTranspose2d, QuantIdentity, QuantLinear
from brevq.quant_tensor import QuantTensor, Zero
from injectors import (
    Int8ActPerTensor,
    Int8WeightPerChannel,
    Int8WeightPerTensor,
    Int32Bias,
    ShiftedUint8ActPerTensor,
    TernaryWeightPerTensor,
    Uint8ActPerTensor,
)

KINDS = ["signed", "unsigned", "narrow", "ternary", "binary", "shifted", "shifted signed"]
PAIRS = [
    ("signed", "signed"),
    ("unsigned", "signed"),
    ("unsigned", "unsigned"),
    ("shifted", "ternary"),
    ("binary", "binary"),
]


def powers(*shape):
    """Scales that are different powers of two, in some shape."""
    return 2.0 ** -np.arange(math.prod(shape)).reshape(shape)


def convolved(x, weight, stride, padding, dilation, groups):
    """A convolution of any number of dimensions, by loops over kernel and groups."""
    axes = range(2, x.ndim)
    x = np.pad(x, [(0, 0), (0, 0), *((p, p) for p in padding)])
    sizes = [(x.shape[a] - dilation[a - 2] * (weight.shape[a] - 1) - 1) // stride[a - 2] + 1 for a in axes]
    y = np.zeros((x.shape[0], weight.shape[0], *sizes))
    ins, outs = weight.shape[1], weight.shape[0] // groups
    for tap in itertools.product(*(range(weight.shape[a]) for a in axes)):
        places = [
            slice(t * d, t * d + (n - 1) * s + 1, s) for t, d, n, s in zip(tap, dilation, sizes, stride, strict=True)
        ]
        for g, o in itertools.product(range(groups), range(outs)):
            for i in range(ins):
                y[:, g * outs + o] += x[(slice(None), g * ins + i, *places)] * weight[(g * outs + o, i, *tap)]
    return y


def spread_out(x, weight, stride, padding, output_padding, groups, dilation):
    """A transposed convolution of any number of dimensions: each input adds a copy of the kernel to the output."""
    axes = range(2, x.ndim)
    sizes = [(x.shape[a] - 1) * stride[a - 2] + dilation[a - 2] * (weight.shape[a] - 1) + 1 for a in axes]
    extra = list(output_padding)
    ins, outs = weight.shape[0] // groups, weight.shape[1]
    y = np.zeros((x.shape[0], outs * groups, *(n + e for n, e in zip(sizes, extra, strict=True))))
    for at in itertools.product(*(range(x.shape[a]) for a in axes)):
        for tap in itertools.product(*(range(weight.shape[a]) for a in axes)):
            place = tuple(p * s + t * d for p, s, t, d in zip(at, stride, tap, dilation, strict=True))
            for g, i, o in itertools.product(range(groups), range(ins), range(outs)):
                y[(slice(None), g * outs + o, *place)] += (
                    x[(slice(None), g * ins + i, *at)] * weight[(g * ins + i, o, *tap)]
                )
    cut = [slice(p, n + e - p) for p, n, e in zip(padding, sizes, extra, strict=True)]
    return y[(slice(None), slice(None), *cut)]


MATRICES = [
    ((4, 6), (6, 3), (), ()),
    ((4, 6), (6, 3), (4, 1), (1, 3)),
    ((4, 6), (6, 3), (), (3,)),
    ((4, 6), (6,), (4, 1), ()),
    ((6,), (6, 3), (), (1, 3)),
    ((6,), (6,), (), ()),
    ((2, 4, 6), (2, 6, 3), (2, 1, 1), (2, 1, 3)),
    ((2, 4, 6), (6, 3), (2, 4, 1), (1, 3)),
    ((4, 6), (2, 6, 3), (4, 1), (2, 1, 1)),
    ((2, 4, 6), (6,), (2, 4, 1), ()),
    ((0, 6), (6, 3), (), ()),
]


@pytest.mark.parametrize(("x", "y", "x_scale", "y_scale"), MATRICES)
def test_matrices_and_their_scales(qt, x, y, x_scale, y_scale):
    """Products of vectors, matrices and batches of them, with scales of rows, columns, batches or tensors."""
    tensors = [
        qt.of_kind("signed", qt.random_codes("signed", x), powers(*x_scale)),
        qt.of_kind("unsigned", qt.random_codes("unsigned", y), powers(*y_scale)),
    ]
    for function in (torch.matmul, lambda x, y: x @ y):
        got = qt.check(function, np.matmul, *tensors)
        assert got.shape == torch.broadcast_shapes(got.shape, *(part.shape for part in got.spread()))


@pytest.mark.parametrize(
    ("function", "x", "y"),
    [
        (torch.mm, (4, 6), (6, 3)),
        (torch.bmm, (2, 4, 6), (2, 6, 3)),
        (torch.mv, (4, 6), (6,)),
        (torch.dot, (6,), (6,)),
        (torch.vdot, (6,), (6,)),
    ],
)
@pytest.mark.parametrize(("one", "other"), list(itertools.product(KINDS, KINDS)))
def test_products_of_matrices(qt, function, x, y, one, other):
    """Products of all kinds of integers, in the bits that they take."""
    qt.check(
        function, np.matmul, qt.of_kind(one, qt.random_codes(one, x)), qt.of_kind(other, qt.random_codes(other, y))
    )
    qt.check_width(function, (one, other), [x, y])


@pytest.mark.parametrize(
    ("function", "reference", "shapes"),
    [
        (torch.addmm, lambda z, x, y: z + x @ y, ((4, 3), (4, 6), (6, 3))),
        (torch.addmv, lambda z, x, y: z + x @ y, ((4,), (4, 6), (6,))),
        (torch.baddbmm, lambda z, x, y: z + x @ y, ((2, 4, 3), (2, 4, 6), (2, 6, 3))),
        (torch.addbmm, lambda z, x, y: z + (x @ y).sum(0), ((4, 3), (2, 4, 6), (2, 6, 3))),
    ],
)
@pytest.mark.parametrize("kind", ["signed", "shifted"])
def test_products_and_more(qt, function, reference, shapes, kind):
    """Products of matrices added to what lies on their grid."""
    kinds, scales = (kind, "signed", "unsigned"), (0.125, 0.5, 0.25)
    tensors = [qt.of_kind(k, qt.random_codes(k, n), s) for k, n, s in zip(kinds, shapes, scales, strict=True)]
    qt.check(function, reference, *tensors)
    qt.check_width(lambda z, x, y: function(z / 2, x, y), kinds, shapes)
    assert isinstance(function(*tensors, alpha=2), torch.Tensor)
    assert isinstance(function(tensors[0].value, *tensors[1:]), torch.Tensor)


@pytest.mark.parametrize(("one", "other"), PAIRS)
@pytest.mark.parametrize(
    ("x", "scale"), [((5, 6), ()), ((5, 6), (5, 1)), ((6,), ()), ((2, 5, 6), (2, 5, 1)), ((0, 6), ())]
)
def test_linear(qt, one, other, x, scale):
    """Linear layers, of one scale or one for each token and output channel, in the bits that they take."""
    tensors = (
        qt.of_kind(one, qt.random_codes(one, x), powers(*scale)),
        qt.of_kind(other, qt.random_codes(other, (3, 6)), powers(3, 1)),
    )
    got = qt.check(F.linear, lambda x, w: x @ w.T, *tensors)
    assert got.shape == torch.broadcast_shapes(got.shape, got.scale.shape)
    if 0 not in x:
        qt.check_width(F.linear, (one, other), [x, (3, 6)])


@pytest.mark.parametrize("kind", ["signed", "unsigned", "shifted", "binary"])
@pytest.mark.parametrize("x", [(5, 6), (6,)])
def test_linear_with_bias(qt, kind, x):
    """A bias on the grid of the products is added to them, and takes bits and a sign where it has one."""
    scale = powers(3)
    tensors = (
        qt.of_kind("unsigned", qt.random_codes("unsigned", x), 0.5),
        qt.of_kind("unsigned", qt.random_codes("unsigned", (3, 6)), scale.reshape(3, 1)),
        qt.of_kind(kind, qt.random_codes(kind, (3,)), scale / 2),
    )
    got = qt.check(F.linear, lambda x, w, b: x @ w.T + b, *tensors)
    assert (kind != "unsigned") == got.signed
    qt.check_width(lambda x, w, b: F.linear(x, w, b / 2), ("unsigned", "unsigned", kind), [x, (3, 6), (3,)])


def test_wide_accumulators(qt):
    """Sums of more products than float32 counts have the bits that they take: 2**31 is one more than 32 bits hold."""
    one, many = (qt.of_kind("signed", [[-8]]).expand(1, n) for n in (2**25 - 1, 2**25))
    assert [32, 33] == [F.linear(x, x).bit_width for x in (one, many)]


CONVOLUTIONS = [
    (F.conv1d, (2, 4, 9), (6, 4, 3), {}),
    (F.conv1d, (2, 4, 9), (6, 2, 3), {"stride": 2, "padding": 2, "groups": 2}),
    (F.conv1d, (2, 4, 9), (6, 4, 3), {"dilation": 2, "padding": (1,)}),
    (F.conv2d, (2, 4, 7, 6), (6, 4, 3, 2), {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 2)}),
    (F.conv2d, (2, 4, 7, 6), (4, 1, 3, 3), {"groups": 4}),
    (F.conv3d, (1, 2, 4, 5, 4), (3, 2, 2, 3, 2), {"stride": 2, "padding": 1}),
]


def each(value, n):
    """One number for each of n dimensions."""
    return (value,) * n if isinstance(value, int) else tuple(value) * (n if len(value) == 1 else 1)


@pytest.mark.parametrize(("one", "other"), PAIRS)
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize(("function", "x", "weight", "options"), CONVOLUTIONS)
def test_convolutions(qt, function, x, weight, options, per_channel, one, other):
    """Convolutions with strides, padding, dilation and groups, of one weight scale or one for each output channel."""
    n = len(x) - 2
    places = [each(options.get(name, default), n) for name, default in (("stride", 1), ("padding", 0), ("dilation", 1))]
    got = qt.check(
        lambda x, w: function(x, w, **options),
        lambda x, w: convolved(x, w, *places, options.get("groups", 1)),
        qt.of_kind(one, qt.random_codes(one, x)),
        qt.of_kind(other, qt.random_codes(other, weight), powers(weight[0], *(1,) * (n + 1)) if per_channel else 0.25),
    )
    assert got.shape == torch.broadcast_shapes(got.shape, got.scale.shape)
    wide = (*x[:2], *(12 for _ in x[2:]))
    qt.check_width(lambda x, w: function(x, w, **options), (one, other), [wide, weight])


@pytest.mark.parametrize("per_channel", [False, True])
def test_convolution_of_one_image(qt, per_channel):
    """A convolution without a batch, with a bias, and with padding given as a word."""
    x = qt.of_kind("unsigned", qt.random_codes("unsigned", (4, 7, 6)), 0.5)
    scale = powers(5, 1, 1, 1) if per_channel else 0.25
    weight = qt.of_kind("signed", qt.random_codes("signed", (5, 4, 3, 3)), scale)
    bias = qt.of_kind("signed", qt.random_codes("signed", (5,)), np.asarray(scale).reshape(-1) * 0.5)
    got = qt.check(
        lambda x, w, b: F.conv2d(x, w, b, padding="same"),
        lambda x, w, b: convolved(x[None], w, (1, 1), (1, 1), (1, 1), 1)[0] + b[:, None, None],
        x,
        weight,
        bias,
    )
    # 36 products of up to 15 and 8, and a bias of up to 8: -4328 at least.
    assert (14, True) == (got.bit_width, got.signed)


TRANSPOSED = [
    (F.conv_transpose1d, (2, 4, 5), (4, 3, 3), {}),
    (F.conv_transpose1d, (2, 4, 5), (4, 3, 4), {"stride": 2, "padding": 1, "groups": 2}),
    (F.conv_transpose1d, (2, 4, 5), (4, 3, 5), {"stride": 3, "output_padding": 1}),
    (F.conv_transpose1d, (2, 4, 5), (4, 3, 3), {"stride": 2, "dilation": 2}),
    (F.conv_transpose1d, (2, 4, 5), (4, 3, 5), {"stride": 6, "dilation": 4}),
    (F.conv_transpose1d, (2, 4, 5), (4, 3, 2), {"stride": 3}),
    (
        F.conv_transpose2d,
        (1, 4, 4, 5),
        (4, 2, 3, 2),
        {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 2), "groups": 2},
    ),
    (F.conv_transpose3d, (1, 2, 3, 3, 3), (2, 2, 2, 3, 2), {"stride": 2}),
]


@pytest.mark.parametrize(("one", "other"), PAIRS)
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize(("function", "x", "weight", "options"), TRANSPOSED)
def test_transposed_convolutions(qt, function, x, weight, options, per_channel, one, other):
    """Transposed convolutions, whose strides and dilations say how many products one sum can have."""
    n = len(x) - 2
    names = (("stride", 1), ("padding", 0), ("output_padding", 0), ("groups", 1), ("dilation", 1))
    places = [options.get(name, d) if name == "groups" else each(options.get(name, d), n) for name, d in names]
    scale = powers(1, weight[1], *(1,) * n) if per_channel else 0.25
    got = qt.check(
        lambda x, w: function(x, w, **options),
        lambda x, w: spread_out(x, w, *places),
        qt.of_kind(one, qt.random_codes(one, x)),
        qt.of_kind(other, qt.random_codes(other, weight), scale),
    )
    assert got.shape == torch.broadcast_shapes(got.shape, got.scale.shape)
    wide = (*x[:2], *(12 for _ in x[2:]))
    qt.check_width(lambda x, w: function(x, w, **options), (one, other), [wide, weight])


@pytest.mark.parametrize(
    ("function", "x", "y"),
    [
        (F.linear, ((4, 6), powers(6)), ((3, 6), 0.5)),
        (F.linear, ((4, 6), 0.5), ((3, 6), powers(6))),
        (F.linear, ((4, 6), 0.5), ((3, 6), powers(3, 6))),
        (torch.matmul, ((4, 6), powers(1, 6)), ((6, 3), 0.5)),
        (torch.matmul, ((4, 6), 0.5), ((6, 3), powers(6, 1))),
        (torch.matmul, ((6,), powers(6)), ((6, 3), 0.5)),
        (torch.matmul, ((4, 6), 0.5), ((6,), powers(6))),
        (F.conv1d, ((2, 3, 5), powers(3, 1)), ((4, 3, 3), 0.5)),
        (F.conv1d, ((2, 3, 5), 0.5), ((4, 3, 3), powers(1, 3, 1))),
        (F.conv1d, ((2, 3, 5), 0.5), ((4, 3, 3), powers(3))),
        (F.conv_transpose1d, ((2, 3, 5), 0.5), ((3, 4, 3), powers(3, 1, 1))),
    ],
)
def test_sums_over_several_scales(qt, function, x, y):
    """Where one sum has products of several scales, there is no grid: the result is a plain tensor."""
    tensors = [qt.of_kind("signed", qt.random_codes("signed", shape), scale) for shape, scale in (x, y)]
    assert torch.equal(function(*(z.value for z in tensors)), function(*tensors))


@pytest.mark.parametrize("kind", ["between", "float"])
def test_no_integers(qt, kind):
    """What is no integer, or lies about no integer, has products that are plain tensors."""
    x = qt.of_kind("signed", qt.random_codes("signed", (3, 3)))
    y = qt.floating(np.ones((3, 3))) if kind == "float" else qt.of_kind(kind, np.ones((3, 3)))
    for function in (torch.mm, torch.mul, F.linear, lambda a, b: F.conv1d(a[None], b[..., None])):
        assert all(isinstance(function(*pair), torch.Tensor) for pair in ((x, y), (y, x), (x.value, x), (x, x.value)))


def test_a_plain_bias_leaves_the_grid(qt):
    """A plain bias lies on no grid."""
    x = qt.of_kind("signed", qt.random_codes("signed", (3, 3)))
    assert torch.equal(F.linear(x.value, x.value, torch.ones(3)), F.linear(x, x, torch.ones(3)))


@pytest.mark.parametrize("function", [torch.matmul, F.linear, lambda x, w: F.conv1d(x[:, :, None], w[:, :, None])])
def test_gradients(qt, function):
    """Gradients reach both factors as they reach plain ones."""
    x, w = (qt.of_kind("signed", qt.random_codes("signed", (4, 4), i)) for i in range(2))
    x.requires_grad, w.requires_grad = True, True
    function(x, w).value.square().sum().backward()
    leaves = [z.value.detach().clone().requires_grad_() for z in (x, w)]
    function(*leaves).square().sum().backward()
    assert all(torch.equal(leaf.grad, z.grad) for leaf, z in zip(leaves, (x, w), strict=True))


LAYERS = {
    "linear": (lambda **k: QuantLinear(6, 4, **k), (5, 6), lambda x, w: x @ w.T, (4,)),
    "conv": (
        lambda **k: QuantConv2d(4, 6, 3, stride=2, padding=1, groups=2, **k),
        (2, 4, 7, 7),
        lambda x, w: convolved(x, w, (2, 2), (1, 1), (1, 1), 2),
        (6, 1, 1),
    ),
    "circular": (
        lambda **k: QuantConv2d(4, 6, 3, padding=1, padding_mode="circular", **k),
        (2, 4, 7, 7),
        lambda x, w: convolved(np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), "wrap"), w, (1, 1), (0, 0), (1, 1), 1),
        (6, 1, 1),
    ),
    "transposed": (
        lambda **k: QuantConvTranspose2d(4, 6, 3, stride=2, padding=1, **k),
        (2, 4, 5, 5),
        lambda x, w: spread_out(x, w, (2, 2), (1, 1), (0, 0), 1, (1, 1)),
        (6, 1, 1),
    ),
}


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("weight_quant", [Int8WeightPerTensor, Int8WeightPerChannel, TernaryWeightPerTensor])
@pytest.mark.parametrize("input_quant", [Int8ActPerTensor, Uint8ActPerTensor, ShiftedUint8ActPerTensor])
@pytest.mark.parametrize("bias_quant", [None, Int32Bias])
def test_layers_return_accumulators(layer, weight_quant, input_quant, bias_quant):
    """Layers without an output quantizer return the integers that a chip would have in its accumulators."""
    create, shape, reference, outputs = LAYERS[layer]
    options = {"weight_quant": weight_quant, "input_quant": input_quant, "bias_quant": bias_quant}
    module, x = create(bias=bias_quant is not None, return_quant_tensor=True, **options).eval(), torch.randn(*shape)
    with calibrating(module):
        module(x)
    codes, weight = module.input_quant(x), module.quant_weight()
    expected = reference((codes.int().double() - codes.zero_point).detach().numpy(), weight.int().double().numpy())
    if bias_quant is not None:
        expected = expected + module.quant_bias().int().reshape(outputs).double().numpy()
    got = module(x)
    assert np.array_equal(expected, got.int().double().numpy())
    assert (module, Zero.AT_ZERO) == (got.producer, got.zero)


def test_compiled_accumulators():
    """Products, sums and moves compile to one graph, with the numbers and bit widths of eager code."""
    first, second = QuantIdentity(return_quant_tensor=True), QuantLinear(6, 6, bias=False, return_quant_tensor=True)

    def run(x):
        y = second(first(x))
        z = (y + y).reshape(3, 2, 3).transpose(1, 2) * 4
        return z.mean(-1), torch.cat([z, z]).amax((0, 1)), torch.matmul(z, z.mT).abs()

    x = torch.randn(3, 6)
    first(x)
    first.eval()
    compiled = torch.compile(run, fullgraph=True, backend="eager")
    for one, other in zip(run(x), compiled(x), strict=True):
        assert isinstance(other, QuantTensor)
        assert torch.equal(one.value, other.value)
        assert (one.bit_width, one.scale) == (other.bit_width, other.scale)
