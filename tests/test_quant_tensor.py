"""QuantTensor: a tensor to torch, with its codes."""

import copy
import pickle

import numpy as np
import pytest
import torch

from brevq.errors import ArgumentError
from brevq.nn import QuantIdentity, QuantLinear
from brevq.quant_tensor import QuantTensor


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


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x + 1,
        lambda x: 1 + x,
        lambda x: x - 1,
        lambda x: 1 - x,
        lambda x: 2 * x,
        lambda x: x / 3,
        lambda x: 3 / (x + 10),
        lambda x: x**2,
        lambda x: -x,
        lambda x: x == 0,
        lambda x: x != x,  # noqa: PLR0124  # element by element
        lambda x: x > 0,
        lambda x: x <= 0,
        lambda x: abs(x) % 2,
        lambda x: 2**x,
        lambda x: x[1:],
        lambda x: x @ torch.ones(3),
        lambda x: torch.ones(3) + x,
        lambda x: torch.ones(3) * x,
        lambda x: torch.ones(2, 3) @ x,
        torch.relu,
        lambda x: torch.cat([x, x]),
        lambda x: torch.nn.functional.max_pool1d(x.reshape(1, 3), 2),
        lambda x: x.view(3, 1).mean(),
        lambda x: torch.stack([x, torch.ones(3)]).sum(dim=0),
    ],
)
def test_torch_works_on_the_value(function):
    """Arithmetic and torch functions give what they give on the value."""
    x = quantized()
    assert torch.equal(function(x.value), function(x))


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
