"""QuantTensor: its codes, its validity, its copies, and how torch handles it as a whole."""

import copy
import io
import pickle

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.utils import _pytree as pytree
from torch.utils.checkpoint import checkpoint

from brevq.core.formats import FloatFormat, IntFormat
from brevq.core.function_wrapper import PerGroup
from brevq.errors import ArgumentError, ArgumentTypeError
from brevq.nn import QuantIdentity, QuantLinear
from brevq.quant_tensor import QuantTensor, Zero


def quantized(bits=4, signed=True, scale=0.5, zero_point=0.0, codes=(3, -4, 0)):
    """A QuantTensor with the given codes."""
    grid = [torch.tensor(float(part)) for part in (scale, zero_point, bits)]
    value = (torch.tensor(codes, dtype=torch.float32) - grid[1]) * grid[0]
    return QuantTensor(value, *grid, signed)


@pytest.mark.parametrize(
    ("bits", "signed", "dtype"),
    [
        (1, True, torch.int8),
        (8, True, torch.int8),
        (9, True, torch.int16),
        (32, True, torch.int32),
        (8, False, torch.uint8),
        (15, False, torch.int16),
        (16, False, torch.int32),
        (32, False, torch.int64),
    ],
)
def test_codes_have_the_smallest_dtype(bits, signed, dtype):
    """Codes come in the smallest torch dtype that holds the whole grid."""
    codes = quantized(bits, signed, codes=(0, 1)).int()
    assert (dtype, [0, 1]) == (codes.dtype, codes.tolist())


def test_codes_have_the_zero_point():
    """Codes of a shifted grid are value / scale + zero-point."""
    assert [0, 10, 255] == quantized(8, False, 0.1, 10, (0, 10, 255)).int().tolist()


@pytest.mark.parametrize("codes", [(8,), (-9,), (0.5,), (float("nan"),)])
def test_values_off_the_grid_have_no_codes(codes):
    """A value between two codes, beyond the range or NaN is not valid, and asking for codes says so."""
    x = quantized(codes=codes)
    assert not x.is_valid
    with pytest.raises(ArgumentError) as error:
        x.int()
    assert str(error.value) == (
        "the values of this QuantTensor do not lie on its grid of 4 bits with the given scale, "
        "so they have no codes: quantize them first"
    )


def test_attributes_are_those_of_the_value():
    """Shape, dtype, device and the like are the value's."""
    x = quantized()
    assert (x.value.shape, x.value.dtype, x.value.device, 3) == (x.shape, x.dtype, x.device, len(x))
    with pytest.raises(AttributeError):
        _ = x.no_such_name


def test_copies_are_equal():
    """Copies, pickles and detached ones have the same parts."""
    x = quantized()
    for other in (copy.deepcopy(x), pickle.loads(pickle.dumps(x)), x.detach(), x.to("cpu")):
        assert torch.equal(x.value, other.value)
        assert torch.equal(x.scale, other.scale)
        assert x.signed == other.signed


def test_conversion_keeps_the_grid_in_float32():
    """Half precision is for the values; scale, zero-point and bit width stay what they are."""
    x = quantized().to(torch.bfloat16)
    assert (torch.bfloat16, torch.float32) == (x.value.dtype, x.scale.dtype)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_codes_of_half_precision_weights_are_exact(dtype):
    """Codes of a weight in half precision are those that NumPy computes from it in float32."""
    layer = QuantLinear(64, 64).to(dtype)
    weight = layer.weight.detach().float().numpy()
    expected = np.rint(weight / (np.abs(weight).max() / np.float32(127)))
    assert np.array_equal(expected, layer.quant_weight().int().numpy())


def test_it_prints_its_grid():
    """Printing shows values, sign, bits, scale and zero-point."""
    assert repr(quantized()) == (
        "QuantTensor(tensor([ 1.5000, -2.0000,  0.0000]), signed, 4 bits, scale=tensor(0.5000), zero_point=tensor(0.))"
    )


def test_it_passes_through_compiled_code():
    """A QuantTensor between layers compiles to one graph, with the numbers of eager code."""
    first, second = QuantIdentity(return_quant_tensor=True), QuantLinear(6, 4)
    x = torch.randn(3, 6)
    first(x)
    first.eval()
    run = torch.compile(lambda x: second(first(x)), fullgraph=True, backend="eager")
    assert torch.equal(second(first(x)), run(x))


def test_one_bit_has_no_zero():
    """Where the codes are -1 and 1, zero is no valid value."""
    grid = torch.tensor(0.5), torch.tensor(0.0), torch.tensor(1.0)
    valid = [
        QuantTensor(torch.tensor(value), *grid, True, zero=Zero.NO_CODE).is_valid
        for value in ([0.5, -0.5], [0.5, 0.0], [1.0, 0.5])
    ]
    assert [True, False, False] == valid


def test_the_format_is_that_of_the_codes(qt):
    """The format says bits, sign and narrow range, or is the floating-point one; accumulators may be too wide."""
    assert IntFormat(4) == quantized().format
    assert isinstance(qt.floating([1.0]).format, FloatFormat)
    with pytest.raises(ArgumentError):
        _ = quantized(33).format


def test_bit_patterns(qt):
    """The codes of floats are their bit patterns, whatever the layout in memory: 1.5 is 0x3c and -2 is 0xc0 in E4M3."""
    x = qt.floating([[1.5, -2.0], [0.0, 1.5]])
    assert [[0x3C, 0x00], [0xC0, 0x3C]] == x.t().int().tolist()


def test_it_is_a_pytree():
    """Trees of tensors have its tensors as leaves, and put it together again."""
    x = quantized()
    leaves, spec = pytree.tree_flatten({"x": x})
    assert 4 == len(leaves)
    doubled = pytree.tree_map(lambda leaf: leaf * 2, pytree.tree_unflatten(leaves, spec))["x"]
    assert ([6.0, -8.0, 0.0], 1.0, 8.0, True) == (
        (doubled.value * 2).tolist(),
        doubled.scale,
        doubled.bit_width,
        doubled.signed,
    )


def test_it_passes_through_checkpoints_and_transforms():
    """Recomputation in the backward pass, and the gradients and batches of torch.func."""
    x = quantized().requires_grad_()
    y = checkpoint(lambda x: x * x, x, use_reentrant=False)
    y.value.sum().backward()
    assert (8, [3.0, -4.0, 0.0]) == (y.bit_width, x.grad.tolist())
    gradient = torch.func.grad(lambda x: (x * x).value.sum())(quantized())
    assert [3.0, -4.0, 0.0] == gradient.value.tolist()
    axes = pytree.tree_map(lambda part: 0 if part.dim() else None, quantized())
    assert [3.0, -4.0, 0.0] == torch.func.vmap(lambda x: (x + x).value, in_dims=(axes,))(quantized()).tolist()


def test_saved_tensors(qt):
    """`torch.save` keeps value, grid and granularity, and no trace of the producer."""
    x = qt.of_kind("signed", np.ones((4, 6)), np.full((4, 3, 1), 0.5), granularity=PerGroup(2))
    x.producer = QuantIdentity()
    file = io.BytesIO()
    torch.save({"x": x}, file)
    file.seek(0)
    y = torch.load(file, weights_only=False)["x"]
    assert torch.equal(x.int(), y.int())
    assert (x.zero, x.narrow, 2, None) == (y.zero, y.narrow, y.granularity.group_size, y.producer)


def test_meta_tensors():
    """Shapes, bit widths that need no numbers, and printing work where tensors hold nothing."""
    x = quantized(codes=((1, 2), (3, 4))).to("meta")
    y = F.linear(x + x, x).reshape(4)
    assert ((4,), True, True) == (tuple(y.shape), y.value.is_meta, y.bit_width.is_meta)
    assert repr(y).startswith("QuantTensor(tensor(..., device='meta', size=(4,)), signed, ? bits")


def test_empty_tensors():
    """A tensor without values lies on any grid, and has codes: none."""
    x = quantized(codes=())
    assert (True, torch.int8, 0) == (x.is_valid, x.int().dtype, x.int().numel())


def test_arguments_by_name():
    """Functions find a quantized tensor whether it is given by place or by name."""
    x = quantized()
    functions = [torch.relu, torch.neg, torch.sum, torch.max, torch.clone, torch.square, F.relu]
    assert [QuantTensor] * 7 == [type(function(input=x)) for function in functions]


def test_results_are_not_written_into_it():
    """`out=` may be a plain tensor, into which goes the value; a quantized one is refused."""
    x, out = quantized(), torch.empty(3)
    torch.add(x, x, out=out)
    assert torch.equal(2 * x.value, out)
    with pytest.raises(ArgumentTypeError) as error:
        torch.add(x, x, out=x)
    assert str(error.value) == (
        "`out` of `add` is a QuantTensor, whose values would leave its grid: "
        "use what the function returns, or write into its values with out=x.value"
    )


def test_torch_does_not_take_it_for_a_tensor():
    """It is no subclass of torch's tensor, and has its methods and attributes nevertheless."""
    x = quantized()
    assert not isinstance(x, torch.Tensor)
    assert (1, 3, True, False) == (x.dim(), x.numel(), x.is_floating_point(), x.is_cuda)
    assert torch.is_tensor(x.exp())


def test_backward_from_it():
    """`backward` and `grad` are those of the value."""
    x = quantized()
    x.requires_grad = True
    (x * 2).sum().backward()
    assert (True, [2.0, 2.0, 2.0]) == (x.requires_grad, x.grad.tolist())


def test_shape_and_choice_compile():
    """Functions of every kind compile to one graph."""

    def run(x):
        y = torch.cat([x, x[:1]]).view(2, 2, 2).transpose(0, 1)
        z = torch.where(y > 0, y, 0).masked_fill(y > 2, 0).clamp(min=0)
        chosen = torch.maximum(z, y).max(dim=-1).values
        return F.pad(chosen, (1, 1)), y.sum((0, 1)), (y**2).cumsum(0), F.relu(y, inplace=True), torch.stack([y, y])

    x = quantized(codes=((1, 2), (3, -4), (5, -6)))
    for one, other in zip(run(x), torch.compile(run, fullgraph=True, backend="eager")(x), strict=True):
        assert isinstance(other, QuantTensor)
        assert (one.bit_width, True) == (other.bit_width, torch.equal(one.value, other.value))
