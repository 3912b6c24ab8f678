"""The errors that brevq raises on purpose.

Each is also the built-in error that fits, so ``except ValueError`` catches a wrong value from brevq as it would
from anybody else, and ``except BrevqError`` catches exactly what brevq has to say.
"""

from __future__ import annotations


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
