"""Near misses."""

import pytest

from brevq.inject.near import did_you_mean, nearest

NAMES = ["bit_width", "bit_width_impl", "scaling_impl", "scaling_min_val", "signed", "narrow_range"]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("bitwidth", "bit_width"),
        ("bit_with", "bit_width"),
        ("BitWidth", "bit_width"),
        ("bit_width_imp", "bit_width_impl"),
        ("singed", "signed"),
        ("scaling_minval", "scaling_min_val"),
        ("scale_impl", "scaling_impl"),
        ("narow_range", "narrow_range"),
        ("colour", None),
        ("x", None),
        ("", None),
    ],
)
def test_nearest(written, meant):
    """A slip is recognised; a different word is not taken for one."""
    assert meant == nearest(written, NAMES)


def test_nearest_of_nothing():
    """Where there is nothing to mean, nothing was meant."""
    assert (None, "") == (nearest("bit_width", []), did_you_mean("bit_width", []))


def test_nearest_is_the_same_in_any_order():
    """Of two that are equally near, the order in which they come does not decide."""
    assert nearest("scale_c", ["scale_a", "scale_b"]) == nearest("scale_c", ["scale_b", "scale_a"])


def test_did_you_mean():
    """The sentence comes with the space before it."""
    assert (" Did you mean `signed`?", "") == (did_you_mean("singed", NAMES), did_you_mean("colour", NAMES))
