"""What constructor arguments must satisfy, each rule written once."""

from __future__ import annotations

import functools
import inspect
import math
from typing import Any, TypeVar

from brevq.errors import ArgumentError, ArgumentTypeError

MAX_BIT_WIDTH = 32

_C = TypeVar("_C")
_CALLED = (
    "`{name}` (={shown}) is called with ({given}), and takes ({asked}): hand in a component that takes ({given}), or "
    "hand this one to a component that calls it with ({asked})"
)
_NO_COMPONENT = "no component"
_EXCHANGED = (
    "`{name}` of {part} can not be exchanged: quantizers are made for the parts that they are given, and others may "
    "have this one, too. Have one built with another part: "
    "layer.weight_quant = layer.weight_quant.recipe.let({name}=...), or whichever it is"
)
_LACKS = "`{name}` (={shown}) has no `{attribute}`, which a {what} has: hand in one, such as `{example}`"


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


def called(name: str, component: _C, *passed: str) -> _C:
    """`component`, which takes the arguments that it will be called with, as far as its signature tells.

    Args:
        name: what the argument is called, for the message.
        component: what was given; None, where there is a default, passes.
        passed: the names of the arguments that it will be called with, by position.

    Raises:
        ArgumentTypeError: it takes fewer or needs more, is a class, or can not be called at all.

    Examples:
        >>> from brevq.core.function_wrapper import RoundSte
        >>> called("float_to_int_impl", RoundSte(), "x")
        RoundSte()
        >>> called("tensor_clamp_impl", RoundSte(), "x", "min_val", "max_val")
        Traceback (most recent call last):
        ...
        brevq.errors.ArgumentTypeError: `tensor_clamp_impl` (=RoundSte()) is called with (x, min_val, max_val), and
        takes (x): hand in a component that takes (x, min_val, max_val), or hand this one to a component that calls it
        with (x)
    """
    if component is None:
        return component
    kind: Any = type(component)  # as a key of a cache
    asked = _asks_otherwise(kind, len(passed))
    if asked == _NO_COMPONENT:
        raise ArgumentTypeError(f"`{name}` (={component!r}) must be a component, which can be called: make an instance")
    if asked is not None:
        raise ArgumentTypeError(
            _CALLED.format(name=name, shown=_shown(component), given=", ".join(passed), asked=asked)
        )
    return component


def statistic(name: str, component: _C) -> _C:
    """`component`, which is a statistic: called with a tensor, and with a granularity.

    Args:
        name: what the argument is called, for the message.
        component: what was given.

    Raises:
        ArgumentTypeError: it is something else.

    Examples:
        >>> from brevq.core.stats import AbsMax
        >>> statistic("scaling_stats_impl", AbsMax()).granularity_impl
        PerTensor()
    """
    return _with("granularity_impl", "statistic", "AbsMax", name, called(name, component, "x"))


def restriction(name: str, component: _C) -> _C:
    """`component`, which is a restriction: it encodes values, and called with what is stored it restricts them.

    Args:
        name: what the argument is called, for the message.
        component: what was given.

    Raises:
        ArgumentTypeError: it is something else.

    Examples:
        >>> from brevq.core.restrict_val import PowerOfTwoRestrictValue
        >>> type(restriction("restrict_scaling_impl", PowerOfTwoRestrictValue())).__name__
        'PowerOfTwoRestrictValue'
    """
    return _with("encode", "restriction", "FloatRestrictValue", name, called(name, component, "stored"))


def kept(part: Any, name: str, *parts: str) -> None:
    """Refuse to exchange what a part was made of, which would change nothing here, or something elsewhere.

    Args:
        part: whose attribute is to be set.
        name: of the attribute.
        parts: those that stay as they are once they are there.

    Raises:
        ArgumentError: it is one of them, and there.

    Examples:
        >>> from brevq.core.function_wrapper import FloorSte
        >>> from brevq.core.restrict_val import PowerOfTwoRestrictValue
        >>> PowerOfTwoRestrictValue().float_to_int_impl = FloorSte()
        Traceback (most recent call last):
        ...
        brevq.errors.ArgumentError: `float_to_int_impl` of PowerOfTwoRestrictValue can not be exchanged: quantizers are
        made for the parts that they are given, and others may have this one, too. Have one built with another part:
        layer.weight_quant = layer.weight_quant.recipe.let(float_to_int_impl=...), or whichever it is
    """
    if name in parts and (name in vars(part) or name in vars(part).get("_modules", ())):
        raise ArgumentError(_EXCHANGED.format(name=name, part=type(part).__name__))


def _with(attribute: str, what: str, example: str, name: str, component: _C) -> _C:
    """`component`, which has an attribute of its kind."""
    if not hasattr(component, attribute):
        raise ArgumentTypeError(
            _LACKS.format(name=name, shown=_shown(component), attribute=attribute, what=what, example=example)
        )
    return component


@functools.lru_cache(maxsize=1024)
def _asks_otherwise(kind: type, number: int) -> str | None:
    """What components of a class take, where `number` arguments do not fit; None where they do, or no one can tell."""
    # Of a class itself `__call__` is its metaclass's.
    calls = [vars(base)["__call__"] for base in kind.__mro__ if "__call__" in vars(base)]
    call: Any = getattr(kind, "forward", calls[0] if calls else None)
    if call is None or issubclass(kind, type):
        return _NO_COMPONENT
    try:
        signature = inspect.signature(call)
    except (TypeError, ValueError):
        return None
    try:
        signature.bind(None, *range(number))
    except TypeError:
        return ", ".join(list(signature.parameters)[1:])
    return None


def _shown(component: object) -> str:
    """A component in a line: its class, and that it is an instance."""
    return f"{type(component).__name__}()"


def _number(name: str, value: object, rule: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ArgumentTypeError(f"`{name}` (={value!r}) {rule}, not {type(value).__name__}")
    return float(value)
