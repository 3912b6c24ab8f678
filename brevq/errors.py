"""The errors that brevq raises on purpose.

Each is also the built-in error that fits, so ``except ValueError`` catches a wrong value from brevq as it would
from anybody else, and ``except BrevqError`` catches exactly what brevq has to say.
"""

from __future__ import annotations

import importlib.util


class BrevqError(Exception):
    """Base of every error that brevq raises on purpose."""


class ArgumentError(BrevqError, ValueError):
    """An argument has the right type and a value that makes no sense."""


class ArgumentTypeError(BrevqError, TypeError):
    """An argument is of a kind that cannot be used, or does not exist."""


class RecipeError(BrevqError, ValueError):
    """A recipe cannot be built; the message lists all its faults."""


class RecipeAttributeError(RecipeError, AttributeError):
    """A recipe was asked for a name that it does not declare, or that can not be built."""


class UncalibratedError(BrevqError, ValueError):
    """A quantizer was used in evaluation before it saw any data."""


class NonFiniteError(BrevqError, ArithmeticError):
    """A watched model met a NaN or an infinity."""


class MissingExtraError(BrevqError, ImportError):
    """A package that an optional part of brevq needs is not installed."""


def require(extra: str, *packages: str) -> None:
    """Refuse to go on without the packages of an extra.

    Args:
        extra: name of the extra of brevq that brings them.
        *packages: their import names.

    Raises:
        MissingExtraError: one or more are not installed.

    Examples:
        >>> require("cli", "clik")
        Traceback (most recent call last):
        ...
        brevq.errors.MissingExtraError: clik is not installed: pip install 'brevq[cli]'
    """
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise MissingExtraError(f"{', '.join(missing)} {verb} not installed: pip install 'brevq[{extra}]'")
