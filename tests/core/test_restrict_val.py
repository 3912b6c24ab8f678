"""Restrictions of scales, against scalar functions."""

import math
from typing import ClassVar

import pytest
import torch

from brevq.core.function_wrapper import FloorSte, RoundSte
from brevq.core.restrict_val import (
    TINY,
    FloatRestrictValue,
    IntRestrictValue,
    LogFloatRestrictValue,
    PowerOfTwoRestrictValue,
)
from brevq.errors import ArgumentError
from brevq.testing import Case, RestrictionContract

# torch.compile itself makes an instance of an autograd.Function, and torch warns of those.
pytestmark = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")

FLOOR = 0.125
POSITIVE = [1e-30, 0.01, 0.124, 0.125, 0.3, 0.5, 0.75, 1.0, 1.5, 2.5, 3.0, 4.0, 127.0, 1e6]
# Constructor, and what becomes of a positive number on its way in and out.
CASES = {
    "float": (FloatRestrictValue, lambda v: v),
    "float floor": (lambda: FloatRestrictValue(FLOOR), lambda v: max(v, FLOOR)),
    "log": (LogFloatRestrictValue, lambda v: v),
    "log floor": (lambda: LogFloatRestrictValue(FLOOR), lambda v: max(v, FLOOR)),
    "power of two": (PowerOfTwoRestrictValue, lambda v: 2.0 ** math.ceil(math.log2(v))),
    "power of two floor": (
        lambda: PowerOfTwoRestrictValue(scaling_min_val=FLOOR),
        lambda v: 2.0 ** math.ceil(math.log2(max(v, FLOOR))),
    ),
    "power of two round": (lambda: PowerOfTwoRestrictValue(RoundSte()), lambda v: 2.0 ** round(math.log2(v))),
    "power of two down": (lambda: PowerOfTwoRestrictValue(FloorSte()), lambda v: 2.0 ** math.floor(math.log2(v))),
    "int": (IntRestrictValue, lambda v: float(max(round(v), 1))),
    "int, a floor that is no integer": (
        lambda: IntRestrictValue(scaling_min_val=0.25),
        lambda v: float(max(round(v), 1)),
    ),
    "int floor": (lambda: IntRestrictValue(scaling_min_val=2.0), lambda v: float(max(round(v), 2))),
}
LOGARITHMIC = [case for case in CASES if case.startswith(("log", "power"))]


def _there_and_back(module, value):
    return module(module.encode(value))


class TestRestrictions(RestrictionContract):
    """What any restriction must do."""

    # A logarithm of magnitude 100, rounded, and its power: 2 ** (100 * 2**-24) is off by 100 * ln 2 of 2**-24.
    cases: ClassVar = {
        name: Case(create, reference, rounding=128 if name.startswith("log") else 0)
        for name, (create, reference) in CASES.items()
    }


@pytest.mark.parametrize("exponent", range(-126, 127, 7))
def test_powers_of_two_are_kept(exponent):
    """A range that is a power of two already stays what it is, over the whole range of float32."""
    value = torch.tensor(2.0**exponent)
    assert 2.0**exponent == _there_and_back(PowerOfTwoRestrictValue(), value).item()


@pytest.mark.parametrize("case", ["log", "power of two", "power of two round", "power of two down"])
@pytest.mark.parametrize("value", [2.0**127, 3e38, torch.finfo(torch.float32).max])
def test_the_largest_ranges_stay_finite(case, value):
    """A range up to the largest float32 stays finite: a power of two ends at 2 ** 127."""
    actual = _there_and_back(CASES[case][0](), torch.tensor(value)).item()
    # The logarithm, at most 128, is rounded to 24 bits.
    assert pytest.approx(value if case == "log" else 2.0**127, rel=2**-17 if case == "log" else 0) == actual


@pytest.mark.parametrize("case", ["log", "power of two"])
def test_gradient_passes_the_largest_range(case):
    """What was learned beyond the largest float32 can be learned back."""
    stored = torch.tensor(200.0, requires_grad=True)
    result = CASES[case][0]()(stored)
    (result * 2.0**-100).backward()
    assert result.isfinite()
    assert pytest.approx(math.log(2) * result.item() * 2.0**-100, rel=2**-22) == stored.grad.item()


@pytest.mark.parametrize("case", CASES)
def test_zero_becomes_positive(case):
    """A range of zero becomes the floor, a positive number."""
    expected = {"float floor": FLOOR, "log floor": FLOOR, "power of two floor": FLOOR}
    expected |= {"int": 1.0, "int, a floor that is no integer": 1.0, "int floor": 2.0}
    actual = _there_and_back(CASES[case][0](), torch.zeros(2)).tolist()
    assert [expected.get(case, TINY)] * 2 == actual


@pytest.mark.parametrize("case", CASES)
def test_gradient_of_a_stored_value(case):
    """The gradient passes rounding and floors, and is that of 2 ** stored where a logarithm is stored."""
    stored = torch.tensor([-1.7, 0.4, 2.3], requires_grad=True)
    result = CASES[case][0]()(stored)
    result.sum().backward()
    slopes = [math.log(2) * v for v in result.tolist()] if case in LOGARITHMIC else [-1.0, 1.0, 1.0]
    # One product of float32 numbers.
    assert pytest.approx(slopes, rel=2**-22) == stored.grad.tolist()


@pytest.mark.parametrize("case", CASES)
def test_gradient_of_encoding(case):
    """The gradient of what is stored is that of the logarithm above the floor, or of the identity."""
    value = torch.tensor([0.5, 1.0, 4.0], requires_grad=True)
    CASES[case][0]().encode(value).sum().backward()
    slopes = [1 / (math.log(2) * v) for v in value.tolist()] if case in LOGARITHMIC else [1.0, 1.0, 1.0]
    # One quotient of float32 numbers.
    assert pytest.approx(slopes, rel=2**-22) == value.grad.tolist()


def test_only_powers_of_two_say_so():
    """The attribute from which recipes choose a power-of-two threshold is on that restriction alone."""
    kinds = [FloatRestrictValue, LogFloatRestrictValue, IntRestrictValue, PowerOfTwoRestrictValue]
    assert [False, False, False, True] == [getattr(kind, "power_of_two", False) for kind in kinds]


@pytest.mark.parametrize("value", [0, -1.0, math.inf])
@pytest.mark.parametrize("kind", [FloatRestrictValue, LogFloatRestrictValue, PowerOfTwoRestrictValue, IntRestrictValue])
def test_floor_must_be_positive(kind, value):
    """A floor of zero or below is refused."""
    with pytest.raises(ArgumentError) as error:
        kind(scaling_min_val=value)
    assert f"`scaling_min_val` (={value!r}) must be a finite number above 0" == str(error.value)
