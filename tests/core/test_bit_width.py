"""Bit widths, constant and learned."""

from typing import ClassVar

import pytest
import torch

from brevq.core.bit_width import BitWidthConst, BitWidthParameter
from brevq.errors import ArgumentError, ArgumentTypeError
from brevq.testing import Case, ComponentContract

# torch.compile itself makes an instance of an autograd.Function, and torch warns of those.
pytestmark = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")

CASES = {
    "constant": (lambda: BitWidthConst(4), 4.0),
    "constant 1": (lambda: BitWidthConst(1), 1.0),
    "constant 32": (lambda: BitWidthConst(32, signed=True), 32.0),
    "learned": (lambda: BitWidthParameter(5), 5.0),
    "learned from the fewest": (lambda: BitWidthParameter(3, min_bit_width=3), 3.0),
    "learned 1": (lambda: BitWidthParameter(1, min_bit_width=1, signed=False), 1.0),
}


class TestBitWidths(ComponentContract):
    """What any bit width must do: it starts as it was given, a float32 scalar."""

    cases: ClassVar = {name: Case(create, lambda bits=bits: bits) for name, (create, bits) in CASES.items()}


# What was learned, as an offset from 2 bits, then the bit width and its gradient to the offset.
OFFSETS = [(2.4, 4.0, 1.0), (2.5, 4.0, 1.0), (2.6, 5.0, 1.0), (0.0, 2.0, 1.0), (-3.2, 5.0, -1.0), (40.0, 32.0, 0.0)]


@pytest.mark.parametrize(("offset", "bits", "slope"), OFFSETS)
def test_learned_bits_are_whole(offset, bits, slope):
    """The offset's magnitude is rounded, with a straight-through gradient, and at most 32 bits come of it."""
    module = BitWidthParameter(4)
    with torch.no_grad():
        module.offset.fill_(offset)
    result = module()
    result.backward()
    assert (bits, slope) == (result.item(), module.offset.grad.item())


def test_learned_bits_survive_a_checkpoint():
    """What was learned is saved and loaded."""
    module, fresh = BitWidthParameter(4), BitWidthParameter(8)
    with torch.no_grad():
        module.offset.fill_(3.7)
    fresh.load_state_dict(module.state_dict())
    assert 6.0 == fresh().item()


def test_a_constant_has_no_state():
    """A recipe's constant is not part of a checkpoint."""
    assert {} == dict(BitWidthConst(4).state_dict())


BITS = "must be a whole number of bits from 1 to 32"
SIGNED = "must be a whole number of signed bits from 2 to 32"
REFUSALS = [
    (lambda: BitWidthConst(0), ArgumentError, f"`bit_width` (=0) {BITS}"),
    (lambda: BitWidthConst(-3), ArgumentError, f"`bit_width` (=-3) {BITS}"),
    (lambda: BitWidthConst(2.5), ArgumentError, f"`bit_width` (=2.5) {BITS}"),
    (lambda: BitWidthConst(33), ArgumentError, f"`bit_width` (=33) {BITS}"),
    (lambda: BitWidthConst(1, signed=True), ArgumentError, f"`bit_width` (=1) {SIGNED}"),
    (lambda: BitWidthConst("4"), ArgumentTypeError, f"`bit_width` (='4') {BITS}, not str"),
    (lambda: BitWidthParameter(0), ArgumentError, f"`bit_width` (=0) {BITS}"),
    (lambda: BitWidthParameter(4, min_bit_width=0), ArgumentError, f"`min_bit_width` (=0) {BITS}"),
    (lambda: BitWidthParameter(4, min_bit_width=1, signed=True), ArgumentError, f"`min_bit_width` (=1) {SIGNED}"),
    (
        lambda: BitWidthParameter(3, min_bit_width=4),
        ArgumentError,
        "`bit_width` (=3) must not be below `min_bit_width` (=4)",
    ),
]


@pytest.mark.parametrize(("create", "kind", "message"), REFUSALS)
def test_impossible_bits_are_refused(create, kind, message):
    """No bits, half bits, too many, and one signed bit are refused with the rule."""
    with pytest.raises(kind) as error:
        create()
    assert message == str(error.value)
