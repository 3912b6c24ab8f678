"""Quantized tensors of every kind, and the comparison of what functions make of them with integers in NumPy."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from brevq.core.formats import catalogue
from brevq.core.function_wrapper import PerGroup
from brevq.quant_tensor import QuantTensor, Zero

#: Kinds of integer grids: lowest and highest code, zero-point, and how the tensor states them.
KINDS = {
    "signed": (-8, 7, 0.0, {"bits": 4, "signed": True, "zero": Zero.AT_ZERO}),
    "unsigned": (0, 15, 0.0, {"bits": 4, "signed": False, "zero": Zero.AT_ZERO}),
    "narrow": (-7, 7, 0.0, {"bits": 4, "signed": True, "zero": Zero.AT_ZERO, "narrow": True}),
    "ternary": (-1, 1, 0.0, {"bits": 2, "signed": True, "zero": Zero.AT_ZERO, "narrow": True}),
    "binary": (-1, 1, 0.0, {"bits": 1, "signed": True, "zero": Zero.NO_CODE}),
    "shifted": (0, 15, 5.0, {"bits": 4, "signed": False, "zero": Zero.SHIFTED}),
    "shifted signed": (-8, 7, -3.0, {"bits": 4, "signed": True, "zero": Zero.SHIFTED}),
    "between": (0, 15, 4.25, {"bits": 4, "signed": False, "zero": Zero.BETWEEN}),
}


def of_kind(kind, codes, scale=0.5, dtype=torch.float32, granularity=None):
    """A quantized tensor of a kind of grid, with the given codes."""
    _, _, zero_point, stated = KINDS[kind]
    stated = dict(stated)
    grid = [torch.as_tensor(part, dtype=torch.float32) for part in (scale, zero_point, stated.pop("bits"))]
    codes = torch.as_tensor(np.asarray(codes), dtype=torch.float32)
    split = codes if granularity is None else granularity.split(codes)
    value = (split - grid[1]) * grid[0]
    value = value if granularity is None else granularity.join(value, codes.shape)
    return QuantTensor(value.to(dtype), *grid, stated.pop("signed"), None, granularity, **stated)


def random_codes(kind, shape, seed=0):
    """Codes of a kind of grid, as int64."""
    low, high, _, _ = KINDS[kind]
    codes = np.random.default_rng(seed).integers(low, high + 1, shape)
    return np.where(codes == 0, 1, codes) if kind == "binary" else codes


def centred(x):
    """The codes less the zero-point, in float64, which holds integers and quarters exactly."""
    return x.int().double().numpy() - x.spread()[1].double().numpy()


def bits_of(low, high, signed):
    """The smallest number of bits that holds a range, found by trying."""
    grids = ((n, -(2 ** (n - 1)), 2 ** (n - 1) - 1) if signed else (n, 0, 2**n - 1) for n in range(1 + signed, 64))
    return next(n for n, least, most in grids if least <= low and high <= most)


def check(function, reference, *tensors):
    """A function of tensors gives the values of torch, and the integers of NumPy, on a grid that holds them."""
    got = function(*tensors)
    assert isinstance(got, QuantTensor)
    assert torch.equal(function(*(x.value for x in tensors)), got.value)
    assert got.is_valid
    assert np.array_equal(reference(*map(centred, tensors)), centred(got))
    return got


def check_width(function, kinds, shapes):
    """The bit width of a result is the smallest that holds the largest and the smallest code that there can be."""
    codes, results = [], []
    for corner in itertools.product(*(KINDS[kind][:2] for kind in kinds)):
        got = function(*(of_kind(kind, np.full(n, c)) for kind, n, c in zip(kinds, shapes, corner, strict=True)))
        results.append(got)
        codes += [got.int().min().item(), got.int().max().item()]
    got = results[0]
    assert bits_of(min(codes), max(codes), got.signed) == got.bit_width
    assert got.signed or min(codes) >= 0


#: A tensor of shape (4, 6) for each way in which values share a scale, and of formats that are no integers.
GRAINS = {
    "tensor": lambda: of_kind("signed", random_codes("signed", (4, 6))),
    "rows": lambda: of_kind("signed", random_codes("signed", (4, 6)), 2.0 ** -np.arange(4).reshape(4, 1)),
    "columns": lambda: of_kind("shifted", random_codes("shifted", (4, 6)), 2.0 ** -np.arange(6)),
    "groups": lambda: of_kind(
        "signed",
        random_codes("signed", (4, 6)),
        2.0 ** -np.arange(12).reshape(4, 3, 1),
        granularity=PerGroup(2),
    ),
    "half": lambda: of_kind("signed", random_codes("signed", (4, 6)), dtype=torch.float16),
    "bfloat16": lambda: of_kind("between", random_codes("between", (4, 6)), dtype=torch.bfloat16),
    "float": lambda: floating(random_codes("narrow", (4, 6)) / 2.0),
}


def floating(numbers, scale=0.25):
    """A quantized tensor of numbers of OCP's FP8 E4M3."""
    numbers = torch.as_tensor(np.asarray(numbers), dtype=torch.float32)
    grid = torch.tensor(scale), torch.tensor(0.0), torch.tensor(8.0)
    return QuantTensor(numbers * scale, *grid, True, catalogue.FP8_E4M3, zero=Zero.AT_ZERO)


@pytest.fixture
def qt():
    """What the tests of quantized tensors share."""
    shared = (of_kind, random_codes, centred, floating, check, check_width, bits_of)
    return SimpleNamespace(kinds=KINDS, grains=GRAINS, **{function.__name__: function for function in shared})
