"""Truncation recipes: codes cut to fewer bits, in integers, and what a shift leaves of the grid."""

import math

import numpy as np
import pytest
import torch

from brevq.core.phase import Phase
from brevq.graph import calibrating
from brevq.inject import check
from brevq.quantizer import Quantizer
from injectors import Int4Trunc, Int8Trunc, Int8TruncRound, Int8TruncShiftRoundSaturate

STEP = 0.25
RANGES = {"signed": (-(2**15), 2**15, True), "unsigned": (0, 2**16, False)}
FIXED = {"Int8Trunc": (Int8Trunc, 8), "Int4Trunc": (Int4Trunc, 4), "Int8TruncRound": (Int8TruncRound, 8)}


def codes_of(kind, n=500):
    """Codes of 16 bits, the ends of their range among them, and whether they have a sign."""
    low, high, signed = RANGES[kind]
    codes = np.random.default_rng(3).integers(low, high, size=n)
    codes[:2] = low, high - 1
    return codes, signed


def truncate(quantizer, codes, signed, zero_point=0, bits=16):
    """What a quantizer makes of codes of a number of bits, on a grid of a known step."""
    grid = (torch.tensor(STEP), torch.tensor(float(zero_point)), torch.tensor(float(bits)), torch.tensor(signed))
    return quantizer(torch.tensor((codes - zero_point) * STEP, dtype=torch.float32), *grid)


def cut(code, shift, low, high, rounds):
    """A code without its last bits, as Python's integers are shifted, or rounded halves to even; then limited."""
    whole = round(code / 2**shift) if rounds else code >> shift
    return min(max(whole, low), high)


def ends(bits, signed):
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


@pytest.mark.parametrize("zero_point", [0, 100])
@pytest.mark.parametrize("kind", RANGES)
@pytest.mark.parametrize("name", FIXED)
def test_the_most_significant_bits_are_kept(name, kind, zero_point):
    """Codes are those of a shift to the right, or of one that rounds; scale and zero-point follow it."""
    recipe, bits = FIXED[name]
    codes, signed = codes_of(kind)
    factor = 2 ** (16 - bits)
    truncated = truncate(Quantizer(recipe, {}), codes, signed, zero_point)
    expected = [cut(int(c), 16 - bits, *ends(bits, signed), "Round" in name) for c in codes]
    assert expected == (truncated.value / (STEP * factor) + zero_point / factor).tolist()
    assert (STEP * factor, zero_point / factor, bits) == (
        truncated.scale.item(),
        truncated.zero_point.item(),
        truncated.bit_width.item(),
    )


@pytest.mark.parametrize("kind", RANGES)
@pytest.mark.parametrize("largest", [20, 200, 5000, 2**15])
def test_a_shift_as_wide_as_the_range(kind, largest):
    """The shift is the least that the largest observed code fits, none where all fit; what is beyond is clipped."""
    codes, signed = codes_of(kind)
    codes = np.clip(codes, -largest, largest)
    exponent = math.ceil(math.log2(np.abs(codes).max()))
    shift = min(max(exponent - (8 - signed), 0), 8)
    quantizer = Quantizer(Int8TruncShiftRoundSaturate, {})
    with calibrating(quantizer):
        truncate(quantizer, codes, signed)
    assert Phase.FIXED == quantizer.phase
    truncated = truncate(quantizer, 2 * codes, signed, bits=17)
    expected = [cut(2 * int(c), shift, *ends(8, signed), True) for c in codes]
    assert expected == (truncated.value / truncated.scale).tolist()
    assert STEP * 2**shift == truncated.scale.item()


def test_no_bits_to_cut():
    """What has fewer bits than it is cut to is scaled up to them, most significant bits being kept, and loses none."""
    codes = np.arange(-8, 8)
    truncated = truncate(Quantizer(Int8Trunc, {}), codes, True, bits=4)
    assert (codes * 16).tolist() == (truncated.value / truncated.scale).tolist()
    assert (codes * STEP).tolist() == truncated.value.tolist()


def test_gradients():
    """What is not clipped passes its gradient, and a sum that rounds beyond the largest code gets none."""
    x = torch.tensor([-100.0, 3.0, 32767 * STEP], requires_grad=True)
    grid = (torch.tensor(STEP), torch.tensor(0.0), torch.tensor(16.0), torch.tensor(True))
    Quantizer(Int8TruncRound, {})(x, *grid).value.sum().backward()
    assert [1.0, 1.0, 0.0] == x.grad.tolist()


def test_a_learned_range_of_codes():
    """After the batches that it observes, the range is a parameter that training moves."""
    quantizer = Quantizer(Int8TruncShiftRoundSaturate.let(collect_stats_steps=1), {})
    codes, signed = codes_of("signed")
    truncate(quantizer, codes // 16, signed)
    (exponent,) = quantizer.parameters()
    assert (Phase.LEARNED, 11.0) == (quantizer.phase, math.ceil(exponent.item()))
    truncate(quantizer, codes, signed).value.abs().sum().backward()
    # Clipped to 128 steps of 2 ** e / 128: each moves by as much as 2 ** e does.
    clipped = [c for c in codes if not -2048 <= round(int(c) / 16) * 16 < 2032]
    assert len(clipped) > 400
    assert exponent.grad.item() > 0.9 * len(clipped) * 2048 * STEP * math.log(2)


@pytest.mark.parametrize("bits", [3, 12])
def test_other_widths(bits):
    """Another bit width is an override."""
    recipe = Int8TruncRound.let(bit_width=bits)
    check(recipe)
    codes, signed = codes_of("signed")
    truncated = truncate(Quantizer(recipe, {}), codes, signed)
    expected = [cut(int(c), 16 - bits, *ends(bits, signed), True) for c in codes]
    assert expected == (truncated.value / truncated.scale).tolist()
