"""The numbers that a quantizer can give, as data for pictures."""

from __future__ import annotations

import attrs

#: Up to how many numbers are listed one by one.
LISTED = 2**17


@attrs.frozen
class Levels:
    """The numbers that a quantizer can give, at scale 1: codes of integers, numbers of a floating-point format.

    Args:
        name: what the grid is called.
        values: the numbers, sorted; empty where there are more than `LISTED`, or where they are not known.
        low: the smallest number; None where it is not known.
        high: the largest.
        count: how many there are.
        uniform: whether neighbours are equally far apart.
        marks: numbers that have a name, such as the smallest normal one.
        smallest_normal: where subnormals end. Default: there are none.
        notes: what else there is to say, a line each.

    Examples:
        >>> Levels.integers("int4", -8, 7).values
        (-8.0, -7.0, -6.0, -5.0, -4.0, -3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0)
        >>> Levels.integers("int32", -(2**31), 2**31 - 1).count
        4294967296
    """

    name: str
    values: tuple[float, ...]
    low: float | None
    high: float | None
    count: int
    uniform: bool = True
    marks: tuple[tuple[float, str], ...] = ()
    smallest_normal: float | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def integers(cls, name: str, low: int, high: int, *notes: str) -> Levels:
        """All integers of a range.

        Args:
            name: what the grid is called.
            low: the smallest.
            high: the largest.
            *notes: what else there is to say.

        Examples:
            >>> Levels.integers("uint2", 0, 3).values
            (0.0, 1.0, 2.0, 3.0)
        """
        count = high - low + 1
        values = tuple(map(float, range(low, high + 1))) if count <= LISTED else ()
        return cls(name, values, float(low), float(high), count, notes=notes)

    @classmethod
    def unknown(cls, name: str, *notes: str) -> Levels:
        """A grid that depends on what is not known yet.

        Args:
            name: what the grid is called.
            *notes: what it depends on.

        Examples:
            >>> Levels.unknown("bits of the input").known
            False
        """
        return cls(name, (), None, None, 0, notes=notes)

    @property
    def known(self) -> bool:
        """Whether the smallest and the largest number are known."""
        return self.low is not None and self.high is not None

    def noted(self, *notes: str) -> Levels:
        """The same with more to say.

        Args:
            *notes: a line each; empty ones are left out.
        """
        return attrs.evolve(self, notes=(*self.notes, *filter(None, notes)))
