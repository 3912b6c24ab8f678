"""What holds for number formats and any number: grids, order, signs, and codes."""

import hypothesis.extra.numpy as arrays_of
import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from brevq.core.formats import IntFormat
from brevq.core.formats.catalogue import BLOCK_FORMATS, FORMATS

SETTINGS = settings(derandomize=True, database=None, deadline=None, max_examples=40)

INTEGERS = [IntFormat(8), IntFormat(4, fraction_bits=2), IntFormat(6, signed=False), IntFormat(8, narrow=True)]
ALL = {str(number_format): number_format for number_format in [*FORMATS.values(), *INTEGERS]}
#: Block formats whose scale a cast can not move: a power of two that is not rounded to the nearest, and elements as far
#: below zero as above. (Of int8 elements -128 / 64 becomes -2, whose power of two is the next.)
STABLE = {
    name: block
    for name, block in BLOCK_FORMATS.items()
    if block.rule.name == "FLOOR"
    and block.micro is None
    and not block.tensor_scale
    and block.element.min == -block.element.max
}


LARGEST = float(np.finfo(np.float32).max)


def numbers(shape, largest=LARGEST):
    """Tensors of finite float32 numbers."""
    elements = st.floats(-largest, largest, width=32)
    return arrays_of.arrays(np.float32, shape, elements=elements, fill=st.just(0.0)).map(torch.from_numpy)


@pytest.mark.parametrize("name", ALL)
@given(x=numbers(12), dtype=st.sampled_from([torch.float32, torch.float64]))
@SETTINGS
def test_casts(name, x, dtype):
    """A cast keeps the order of numbers, and changes what it gave no more."""
    number_format, x = ALL[name], x.to(dtype)
    y = number_format.cast(x)
    assert y.dtype == dtype
    assert torch.equal(number_format.cast(y), y)
    assert (y[x.argsort()].diff().nan_to_num() >= 0).all()


@pytest.mark.parametrize("name", [name for name in ALL if getattr(ALL[name], "signed", False)])
@given(x=numbers(12))
@SETTINGS
def test_signs(name, x):
    """On a grid with the opposite of each number, the opposite of a number is cast to the opposite."""
    number_format = ALL[name]
    if -number_format.min == number_format.max:
        assert torch.equal(number_format.cast(-x), -number_format.cast(x))


@pytest.mark.parametrize("name", ALL)
@given(x=numbers(12))
@SETTINGS
def test_codes(name, x):
    """Codes have the bits of the format, and stand for what the cast gives."""
    number_format = ALL[name]
    cast = number_format.cast(x)
    codes = number_format.encode(x)
    assert codes.min() >= 0 or isinstance(number_format, IntFormat)
    assert codes.max() < 2**number_format.bits
    assert torch.equal(number_format.decode(codes).float(), cast)


@pytest.mark.parametrize("name", BLOCK_FORMATS)
@given(x=numbers((2, 40), largest=2.0**120))
@SETTINGS
def test_codes_of_blocks(name, x):
    """Codes of blocks stand for what the cast gives, and numbers stay finite and keep their signs."""
    block = BLOCK_FORMATS[name]
    cast = block.cast(x)
    assert cast.isfinite().all()
    assert (cast * x.sign() >= 0).all()
    assert torch.equal(block.decode(*block.encode(x)).float(), cast)


@pytest.mark.parametrize("name", STABLE)
@given(x=numbers((1, 40), largest=2.0**120))
@SETTINGS
def test_blocks_are_cast_once(name, x):
    """What a cast gave it does not change."""
    y = STABLE[name].cast(x)
    assert torch.equal(STABLE[name].cast(y), y)


@pytest.mark.parametrize("name", BLOCK_FORMATS)
@given(x=numbers((2, 40)))
@SETTINGS
def test_blocks_of_the_largest_numbers_stay_finite(name, x):
    """Up to the largest float32 a finite number is cast to a finite one."""
    assert BLOCK_FORMATS[name].cast(x).isfinite().all()
