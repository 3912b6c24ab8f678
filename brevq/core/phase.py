"""The life of a scale or zero-point that comes from data."""

from __future__ import annotations

import enum


class Phase(enum.IntEnum):
    """What a statistic is doing: waiting for data, observing it, held fixed, or learned.

    Examples:
        >>> Phase.OBSERVE
        Phase.OBSERVE
        >>> str(Phase.FIXED)
        'fixed'
    """

    EMPTY = 0  #: no data was seen
    OBSERVE = 1  #: statistics of each batch are used and averaged
    LEARNED = 2  #: the average became a parameter, which training moves
    FIXED = 3  #: the average is held as it is

    def __str__(self) -> str:
        return self.name.lower()

    def __repr__(self) -> str:
        return f"Phase.{self.name}"
