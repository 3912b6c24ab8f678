"""Number formats as values: what a code means, which numbers there are, and which of them is nearest."""

from brevq.core.formats.block import BlockCodes, BlockFormat, ScaleRule
from brevq.core.formats.cast import NumberFormat, cast_ste
from brevq.core.formats.floating import FloatFormat, Special
from brevq.core.formats.integer import IntFormat

__all__ = [
    "BlockCodes",
    "BlockFormat",
    "FloatFormat",
    "IntFormat",
    "NumberFormat",
    "ScaleRule",
    "Special",
    "cast_ste",
]
