"""Number formats as values: what a code means, which numbers there are, and which of them is nearest."""

from brevq.core.formats.floating import FloatFormat, Special
from brevq.core.formats.integer import IntFormat

__all__ = ["FloatFormat", "IntFormat", "Special"]
