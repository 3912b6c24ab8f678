"""Products that compute their weight again: values, gradients and memory, against torch with a weight in parts."""

import io

import pytest
import torch
from torch.autograd import forward_ad
from torch.nn import functional as F

from brevq.function.fused import fake_quantize
from brevq.function.fused_max import fake_quantize_by_max
from brevq.function.largest import abs_max
from brevq.function.recomputed import Source, convolution, linear, remember, source_of
from brevq.nn import QuantConv2d, QuantLinear

LIMITS = 1e-10, 7.0
#: The shapes of input and weight, and what follows these in a convolution.
LINEAR = {"vector": (6,), "rows": (5, 6), "batches": (2, 3, 6)}
CONVOLUTIONS = {
    "1d": ((2, 3, 9), (4, 3, 3), ((1,), (0,), (1,), 1)),
    "2d": ((2, 4, 7, 8), (6, 2, 3, 2), ((2, 1), (1, 0), (1, 2), 2)),
    "depthwise": ((2, 4, 7, 8), (4, 1, 3, 3), ((1, 1), (1, 1), (1, 1), 4)),
    "3d": ((1, 2, 4, 5, 6), (3, 2, 2, 2, 2), ((1, 1, 1), (0, 1, 0), (1, 1, 1), 1)),
}


def multiplied(x, weight, bias):
    """The product, as a layer asks for it."""
    source = source_of(x, weight)
    return F.linear(x, weight, bias) if source is None else linear(x, weight, bias, source)


PRODUCTS = {
    **{name: (shape, (4, 6), multiplied, F.linear) for name, shape in LINEAR.items()},
    **{
        name: (
            shape,
            weight,
            lambda x, w, b, rest=rest: convolution(x, w, b, source_of(x, w), *rest),
            lambda x, w, b, rest=rest: (F.conv1d, F.conv2d, F.conv3d)[x.dim() - 3](x, w, b, *rest),
        )
        for name, (shape, weight, rest) in CONVOLUTIONS.items()
    },
}


def quantized(weight):
    """A weight on the grid of its rows, which knows what it was computed from."""
    rows = weight.flatten(1)
    y, scale = fake_quantize_by_max(rows, *LIMITS)
    quantized_weight = y.view(weight.shape)
    if quantized_weight.requires_grad:
        remember(quantized_weight, Source(rows, scale, *LIMITS))
    return quantized_weight


def in_parts(weight):
    """The same by a statistic, a division and an integer grid."""
    rows = weight.flatten(1)
    scale = abs_max(rows).clamp_min(LIMITS[0]) / LIMITS[1]
    return fake_quantize(rows, scale.unsqueeze(-1), None, -LIMITS[1], LIMITS[1], straight=True).view(weight.shape)


def leaves(case, dtype=torch.float32, needs=(True, True, True)):
    """Input, weight and bias."""
    shape, weight, *_ = PRODUCTS[case]
    generator = torch.Generator().manual_seed(0)
    shapes = shape, weight, weight[:1]
    made = [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]
    return [part.requires_grad_(need) for part, need in zip(made, needs, strict=True)]


def result(product, quantize, parts):
    """The product, and the gradients of what takes one, of a loss that tells all outputs apart."""
    x, weight, bias = parts
    y = product(x, quantize(weight), bias)
    places = torch.arange(1.0, y.numel() + 1, dtype=y.dtype).view(y.shape)
    wanted = [part for part in parts if part is not None and part.requires_grad]
    return [y.detach(), *torch.autograd.grad((y * places).sum(), wanted)]


@pytest.mark.parametrize("needs", [(True, True, True), (False, True, False), (True, True, False)])
@pytest.mark.parametrize("case", PRODUCTS)
def test_values_and_gradients(case, needs):
    """The product is torch's, bit for bit, and so are the gradients of the input and the bias."""
    *_, product, reference = PRODUCTS[case]
    found = result(product, quantized, leaves(case, needs=needs))
    expected = result(reference, in_parts, leaves(case, needs=needs))
    same = [torch.equal(one, other) for one, other in zip(expected, found, strict=True)]
    of_weight = 1 + needs[0]
    assert [True] * (len(same) - 1) == same[:of_weight] + same[of_weight + 1 :]
    torch.testing.assert_close(found[of_weight], expected[of_weight], rtol=1e-5, atol=1e-3)  # of one sum of 200 places


@pytest.mark.parametrize("case", PRODUCTS)
def test_without_a_bias(case):
    """No bias is no bias."""
    *_, product, reference = PRODUCTS[case]
    x, weight, _ = leaves(case)
    found, expected = result(product, quantized, (x, weight, None)), result(reference, in_parts, (x, weight, None))
    assert [True, True] == [torch.equal(one, other) for one, other in zip(expected[:2], found[:2], strict=True)]


@pytest.mark.parametrize("case", PRODUCTS)
def test_gradients_of_gradients(case):
    """The gradients are differentiable themselves, in the weight too."""
    *_, product, reference = PRODUCTS[case]
    seconds = []
    for function, quantize in ((product, quantized), (reference, in_parts)):
        parts = leaves(case, torch.float64)
        loss = function(parts[0], quantize(parts[1]), parts[2]).square().sum()
        firsts = torch.autograd.grad(loss, parts, create_graph=True)
        seconds.append(torch.autograd.grad(sum(first.square().sum() for first in firsts), parts))
    torch.testing.assert_close(*seconds, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("case", ["rows", "2d"])
def test_the_weight_is_not_kept(case):
    """Of the quantized weight nothing is kept, and of its source the scales alone are new."""
    _, _, product, _ = PRODUCTS[case]
    x, weight, bias = leaves(case)
    y, kept = quantized(weight), []
    with torch.autograd.graph.saved_tensors_hooks(lambda part: kept.append(part) or part, lambda part: part):
        product(x, y, bias)
    alive = {part.data_ptr() for part in (x, weight, bias)}
    assert [(len(weight),)] == [tuple(part.shape) for part in kept if part.data_ptr() not in alive]


def changed_in_place(x, weight):
    """Written to after it was computed."""
    weight.mul_(2)
    return x, weight


@pytest.mark.parametrize(
    "other",
    [
        changed_in_place,
        lambda x, weight: (x, weight * 1.0),
        lambda x, weight: (x, weight.detach()),
        lambda x, weight: (torch.nn.Parameter(x.detach()), weight),
    ],
    ids=["changed in place", "computed from it", "detached", "a parameter as the input"],
)
def test_others_are_kept(other):
    """What is not the weight itself, as it was computed, is multiplied as it is."""
    x, weight, bias = leaves("rows")
    x, given = other(x, quantized(weight))
    y = multiplied(x, given, bias)
    assert torch.equal(F.linear(x, given, bias), y)
    assert "_RecomputedBackward" != y.grad_fn.name()
    assert source_of(x, given) is None


def test_autocast():
    """Where autocast chooses a dtype the product has it, and the gradients that it has there."""
    grads = []
    for product in (multiplied, F.linear):
        x, weight, bias = leaves("rows")
        with torch.autocast("cpu", torch.bfloat16):
            y = product(x, quantized(weight), bias)
        y.sum().backward()
        grads.append([x.grad, weight.grad, bias.grad])
        assert (torch.bfloat16, False) == (y.dtype, "Recomputed" in y.grad_fn.name())
    assert [True] * 3 == [torch.equal(*pair) for pair in zip(*grads, strict=True)]


def test_without_gradients():
    """Inside `torch.no_grad` there is nothing to keep."""
    x, weight, bias = leaves("rows")
    given = quantized(weight)
    assert source_of(x, given) is not None
    with torch.no_grad():
        y = multiplied(x, given, bias)
    assert (None, True) == (y.grad_fn, torch.equal(F.linear(x, given, bias), y))


def test_a_weight_is_saved_alone():
    """A weight that is saved has nothing with it, and is loaded as any tensor is."""
    weight, buffer = QuantLinear(64, 64).quant_weight().value, io.BytesIO()
    torch.save(weight.detach().clone(), alone := io.BytesIO())
    torch.save(weight, buffer)
    assert buffer.tell() <= alone.tell() + 200  # that it takes a gradient
    buffer.seek(0)
    assert torch.equal(weight, torch.load(buffer, weights_only=True))


def test_what_a_subclass_convolves_with():
    """A layer that says itself how it convolves does so."""

    class Twice(QuantConv2d):
        """A convolution, doubled."""

        def _conv_forward(self, *arguments):
            return 2 * super()._conv_forward(*arguments)

    layer, x = Twice(3, 4, 3), torch.randn(1, 3, 5, 5)
    expected = 2 * F.conv2d(x, layer.quant_weight().value, layer.bias)
    assert torch.equal(expected, layer(x))


LAYERS = {"linear": lambda: QuantLinear(3, 2), "convolution": lambda: QuantConv2d(3, 2, 1)}


def input_of(case):
    """What a layer takes."""
    return torch.randn(2, 3) if case == "linear" else torch.randn(2, 3, 4, 4)


@pytest.mark.parametrize("case", LAYERS)
def test_many_gradients_at_once(case):
    """A batch of gradients is that of each by itself."""
    layer, x = LAYERS[case](), input_of(case)
    y = layer(x)
    above = torch.randn(3, *y.shape)
    wanted = list(layer.parameters())
    batched = torch.autograd.grad(y, wanted, above, is_grads_batched=True, retain_graph=True)
    single = [torch.autograd.grad(y, wanted, one, retain_graph=True) for one in above]
    torch.testing.assert_close(list(batched), [torch.stack(each) for each in zip(*single, strict=True)])


# Torch scripts its own decompositions when the first derivative is taken forward.
@pytest.mark.filterwarnings("ignore:.*torch.jit.script.* is deprecated:DeprecationWarning")
@pytest.mark.parametrize("case", LAYERS)
def test_forward_differentiation(case):
    """A derivative along the input, forward, is the product with the direction."""
    layer, x, along = LAYERS[case](), input_of(case), input_of(case)
    with forward_ad.dual_level():
        found = forward_ad.unpack_dual(layer(forward_ad.make_dual(x, along))).tangent
    torch.testing.assert_close(found, layer(along) - layer(torch.zeros_like(along)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", LAYERS)
def test_a_weight_that_a_hook_writes_to(case):
    """A hook of the quantizer that sets weights to zero, in whatever way, makes the gradient of the input zero."""
    layer, x = LAYERS[case](), input_of(case).requires_grad_()

    def forget(module, args, output):
        """Write zeros, past torch's count of writes."""
        output.value.data.zero_()

    layer.weight_quant.register_forward_hook(forget)
    layer(x).sum().backward()
    assert x.grad.abs().sum().item() == 0


@pytest.mark.parametrize("case", LAYERS)
def test_what_a_weight_was_computed_from_is_written_to(case):
    """A weight that was quantized before its float one changed has its own gradients, not those of the new one."""
    layer, x = LAYERS[case](), input_of(case).requires_grad_()
    weight = layer.quant_weight().value
    kept = layer.compute(x, weight.detach(), None)
    with torch.no_grad():
        layer.weight.mul_(-5)
    expected = torch.autograd.grad(kept.sum(), x)[0]
    assert torch.equal(expected, torch.autograd.grad(layer.compute(x, weight, None).sum(), x)[0])


@pytest.mark.parametrize("case", LAYERS)
def test_a_bias_that_is_written_to(case):
    """A bias may be changed between forward and backward, as no gradient depends on it."""
    layer, x = LAYERS[case](), input_of(case).requires_grad_()
    y = layer(x)
    with torch.no_grad():
        layer.bias.add_(1)
    y.sum().backward()
    assert layer.bias.grad.tolist() == [float(y.numel() / 2)] * 2


def test_sparse_inputs():
    """A sparse input is multiplied as torch multiplies it."""
    layer = QuantLinear(8, 4, bias=False)
    layer(torch.eye(8).to_sparse()).sum().backward()
    assert layer.weight.grad.abs().sum().item() > 0


def test_a_stride_that_is_set_later():
    """A stride of one number is that of all dimensions."""
    layer = QuantConv2d(3, 4, 1)
    layer.stride = 2
    assert layer(torch.randn(1, 3, 6, 6)).shape == (1, 4, 3, 3)
