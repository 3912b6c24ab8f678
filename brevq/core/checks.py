"""What constructor arguments must satisfy, each rule written once."""

from __future__ import annotations

import math

from brevq.errors import ArgumentError, ArgumentTypeError

MAX_BIT_WIDTH = 32


def whole_bits(name: str, value: object, signed: bool | None = None, narrow: bool | None = None) -> int:
    """`value` as a number of bits of an integer grid: whole, from 1 (2 if `signed` or `narrow`) to 32.

    Args:
        name: what the argument is called, for the message.
        value: what was given.
        signed: whether the grid has negative codes; None if that is not known here.
        narrow: whether the range gives up one code; None if that is not known here.

    Raises:
        ArgumentTypeError: it is not a number.
        ArgumentError: it is not whole, or out of range.

    Examples:
        >>> whole_bits("bit_width", 4.0)
        4
    """
    lowest = 2 if signed or narrow else 1
    kind = "signed " if signed else "narrow " if narrow else ""
    rule = f"`{name}` (={value!r}) must be a whole number of {kind}bits from {lowest} to {MAX_BIT_WIDTH}"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ArgumentTypeError(f"{rule}, not {type(value).__name__}")
    if not math.isfinite(value) or value != int(value) or not lowest <= value <= MAX_BIT_WIDTH:
        raise ArgumentError(rule)
    return int(value)


def flag(name: str, value: object) -> bool:
    """`value`, which is True or False and nothing that counts as one of them.

    Args:
        name: what the argument is called, for the message.
        value: what was given.

    Raises:
        ArgumentTypeError: it is something else.

    Examples:
        >>> flag("signed", True)
        True
    """
    if not isinstance(value, bool):
        raise ArgumentTypeError(f"`{name}` (={value!r}) must be True or False, not {type(value).__name__}")
    return value


def positive(name: str, value: object) -> float:
    """`value` as a finite number above zero.

    Args:
        name: what the argument is called, for the message.
        value: what was given.

    Raises:
        ArgumentTypeError: it is not a number.
        ArgumentError: it is zero, negative, infinite or NaN.

    Examples:
        >>> positive("scaling_init", 1)
        1.0
    """
    number = _number(name, value, "must be a finite number above 0")
    if not (math.isfinite(number) and number > 0):
        raise ArgumentError(f"`{name}` (={value!r}) must be a finite number above 0")
    return number


def between(name: str, value: object, low: float, high: float) -> float:
    """`value` as a number from `low` to `high`, both included.

    Args:
        name: what the argument is called, for the message.
        value: what was given.
        low: smallest value that is allowed.
        high: largest value that is allowed.

    Raises:
        ArgumentTypeError: it is not a number.
        ArgumentError: it is out of range.

    Examples:
        >>> between("momentum", 0.1, 0, 1)
        0.1
    """
    rule = f"must be a number from {low:g} to {high:g}"
    number = _number(name, value, rule)
    if not low <= number <= high:
        raise ArgumentError(f"`{name}` (={value!r}) {rule}")
    return number


def count(name: str, value: object) -> int:
    """`value` as a whole number of steps, zero or more.

    Args:
        name: what the argument is called, for the message.
        value: what was given.

    Raises:
        ArgumentTypeError: it is not an integer.
        ArgumentError: it is negative.

    Examples:
        >>> count("quant_delay_steps", 300)
        300
    """
    rule = f"`{name}` (={value!r}) must be a whole number of steps, 0 or more"
    if isinstance(value, bool) or not isinstance(value, int):
        raise ArgumentTypeError(f"{rule}, not {type(value).__name__}")
    if value < 0:
        raise ArgumentError(rule)
    return value


def at_least_one(name: str, value: object) -> int:
    """`value` as a whole number of at least 1: iterations, bins or candidates.

    Args:
        name: what the argument is called, for the message.
        value: what was given.

    Raises:
        ArgumentTypeError: it is not an integer.
        ArgumentError: it is below 1.

    Examples:
        >>> at_least_one("mse_iters", 100)
        100
    """
    rule = f"`{name}` (={value!r}) must be a whole number, 1 or more"
    if isinstance(value, bool) or not isinstance(value, int):
        raise ArgumentTypeError(f"{rule}, not {type(value).__name__}")
    if value < 1:
        raise ArgumentError(rule)
    return value


def _number(name: str, value: object, rule: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ArgumentTypeError(f"`{name}` (={value!r}) {rule}, not {type(value).__name__}")
    return float(value)
