"""Integer ranges, against Python's own integers."""

import math

import numpy as np
import pytest
import torch

from brevq.function.ops import max_int, min_int

KINDS = {  # signed, narrow: lowest and highest code of so many bits, as integers
    (True, False): lambda bits: (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1),
    (True, True): lambda bits: (-(2 ** (bits - 1)) + 1, 2 ** (bits - 1) - 1),
    (False, False): lambda bits: (0, 2**bits - 1),
    (False, True): lambda bits: (0, 2**bits - 2),
}
# d/db of 2 ** (b - 1) is ln 2 * 2 ** (b - 1), and so on; the lowest unsigned code does not depend on b.
SLOPES = {
    (True, False): lambda bits: (-math.log(2) * 2 ** (bits - 1), math.log(2) * 2 ** (bits - 1)),
    (True, True): lambda bits: (-math.log(2) * 2 ** (bits - 1), math.log(2) * 2 ** (bits - 1)),
    (False, False): lambda bits: (0.0, math.log(2) * 2**bits),
    (False, True): lambda bits: (0.0, math.log(2) * 2**bits),
}


@pytest.mark.parametrize(("signed", "narrow"), KINDS)
def test_ends_are_the_integers_of_a_grid(signed, narrow):
    """In float64 the ends of every grid from 1 to 32 bits are exactly those of integer arithmetic."""
    expected = [KINDS[signed, narrow](bits) for bits in range(1, 33)]
    widths = [torch.tensor(float(bits), dtype=torch.float64) for bits in range(1, 33)]
    actual = [(min_int(signed, narrow, b).item(), max_int(signed, narrow, b).item()) for b in widths]
    assert expected == actual


@pytest.mark.parametrize(("signed", "narrow"), KINDS)
def test_ends_in_float32_are_rounded_once(signed, narrow):
    """In float32 an end is the float32 nearest to the integer, so up to 24 bits it is the integer itself."""
    expected = [tuple(map(float, np.float32(KINDS[signed, narrow](bits)))) for bits in range(1, 33)]
    widths = [torch.tensor(float(bits)) for bits in range(1, 33)]
    actual = [(min_int(signed, narrow, b).item(), max_int(signed, narrow, b).item()) for b in widths]
    assert expected == actual


@pytest.mark.parametrize(("signed", "narrow"), KINDS)
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_ends_have_the_true_gradient(signed, narrow, bits):
    """The gradient to the bit width is the derivative of the power of two."""
    bit_width = torch.tensor(float(bits), dtype=torch.float64, requires_grad=True)
    ends = (min_int(signed, narrow, bit_width), max_int(signed, narrow, bit_width))
    actual = [torch.autograd.grad(end, bit_width)[0].item() if end.requires_grad else 0.0 for end in ends]
    expected = SLOPES[signed, narrow](bits)
    # Both sides are a product of two rounded float64: a few units in the last place.
    assert pytest.approx(expected, rel=1e-15, abs=0) == actual


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("end", [min_int, max_int])
@pytest.mark.parametrize(("signed", "narrow"), KINDS)
def test_ends_keep_dtype_and_shape(dtype, end, signed, narrow):
    """An end is a scalar tensor in the dtype of the bit width."""
    actual = end(signed, narrow, torch.tensor(4.0, dtype=dtype))
    assert (dtype, torch.Size([])) == (actual.dtype, actual.shape)
