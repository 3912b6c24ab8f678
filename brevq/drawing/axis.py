"""A grid as a picture: its numbers on an axis, and those of floating-point formats on a second one by powers of two."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import attrs

from brevq.drawing.levels import Levels
from brevq.drawing.markup import element, short_number
from brevq.drawing.picture import BLUE, ORANGE, Drawing, rect, strokes, text, width_of, wrapped

WIDTH = 720.0
_LEFT = 24.0
_TICK = 22.0
_LABEL = 11
# Up to how many numbers are all labelled, or round ones of more.
_FEW = 16
# From how many ticks on they are thin.
_CROWD = 96
#: Up to how many numbers the picture carries as data.
CARRIED = 512


@attrs.frozen
class Axis:
    """A line from `low` to `high`, and where numbers fall on it.

    Args:
        low: number at its left end.
        high: number at its right end.
        left: where it begins, in pixels. Default: 24.
        right: where it ends. Default: 696.

    Examples:
        >>> Axis(0.0, 10.0, left=0.0, right=100.0)(2.5)
        25.0
    """

    low: float
    high: float
    left: float = _LEFT
    right: float = WIDTH - _LEFT

    def __call__(self, number: float) -> float:
        """Where `number` falls, in pixels."""
        # Halved, because the distance between the ends of float64 is beyond it.
        span = self.high / 2 - self.low / 2
        share = (number / 2 - self.low / 2) / span if span else 0.5
        return self.left + share * (self.right - self.left)


def levels_axis(levels: Levels) -> Drawing:
    """The picture of a grid: every number a tick, the ends labelled; where numbers are too dense, a band.

    Numbers of floating-point formats have a second axis, on which powers of two are equally far apart.

    Args:
        levels: the grid.

    Examples:
        >>> drawing = levels_axis(Levels.integers("int4", -8, 7))
        >>> drawing.title
        'int4: 16 values from -8 to 7'
    """
    title = heading(levels)
    shapes = [text(0, 14, title, font_weight="bold", font_size=13)]
    top = 26.0
    if levels.known:
        row, top = _linear(levels, top)
        shapes += row
    if not levels.uniform and levels.values and max(levels.values) > 0:
        row, top = _logarithmic(levels, top + 8)
        shapes += row
    for note in levels.notes:
        for line in wrapped(note, 112):
            top += 17
            shapes.append(text(0, top, line, fill_opacity=0.85))
    return Drawing(WIDTH, top + 6, tuple(shapes), title, _words(levels))


def heading(levels: Levels) -> str:
    """What a grid is called, how many numbers it has, and from where to where.

    Args:
        levels: the grid.

    Examples:
        >>> heading(Levels.unknown("learned bits"))
        'learned bits'
    """
    if levels.low is None or levels.high is None:
        return levels.name
    count = f"2^{levels.count.bit_length() - 1}" if _large_power(levels.count) else str(levels.count)
    return f"{levels.name}: {count} values from {short_number(levels.low)} to {short_number(levels.high)}"


def _large_power(count: int) -> bool:
    return count > 2**20 and count & (count - 1) == 0


def _words(levels: Levels) -> str:
    """The grid in words: all numbers where they are few, then what has a name."""
    listed = ", ".join(map(short_number, levels.values)) if len(levels.values) <= CARRIED else ""
    marks = "; ".join(f"{name}: {short_number(number)}" for number, name in levels.marks)
    return "\n".join(filter(None, [heading(levels), listed, marks, *levels.notes]))


def _linear(levels: Levels, top: float) -> tuple[list[str], float]:
    """The numbers on a line, and where the row ends."""
    low, high = levels.low or 0.0, levels.high or 0.0
    axis = Axis(low, high)
    base = top + _TICK
    row = [strokes(f"M{axis.left:g} {base:g}H{axis.right:g}", stroke_opacity=0.4)]
    if levels.values:
        row.append(_ticks(levels.values, axis, base, BLUE, "linear"))
    else:
        row.append(rect(axis.left, top, axis.right - axis.left, _TICK, fill=BLUE, fill_opacity=0.55))
    row += labels_below(axis, base + 15, candidates(levels), short_number)
    return row, base + 18


def _logarithmic(levels: Levels, top: float) -> tuple[list[str], float]:
    """The numbers above zero on a line by their logarithms, and where the row ends."""
    positive = [value for value in levels.values if value > 0]
    exponents = range(math.floor(math.log2(positive[0])), math.ceil(math.log2(positive[-1])) + 1)
    axis = Axis(float(exponents[0]), float(exponents[-1]))
    base = top + 14 + _TICK
    normal = levels.smallest_normal or 0.0
    row = [
        text(0, top + 8, "above zero, by powers of two" + " (subnormals in orange)" * (positive[0] < normal)),
        strokes(f"M{axis.left:g} {base:g}H{axis.right:g}", stroke_opacity=0.4),
    ]
    for kind, colour in ((False, BLUE), (True, ORANGE)):
        chosen = [math.log2(value) for value in positive if (value < normal) is kind]
        row.append(_ticks(chosen, axis, base, colour, "subnormal" if kind else "logarithmic"))
    row += labels_below(axis, base + 15, [exponents[-1], *exponents], lambda exponent: f"2^{int(exponent)}")
    return row, base + 18


def _ticks(values: Iterable[float], axis: Axis, base: float, colour: str, kind: str) -> str:
    """One tick for each number, or for each quarter of a pixel that has one; few carry their numbers as data."""
    numbers = list(values)
    places = dict.fromkeys(round(axis(number) * 4) / 4 for number in numbers)
    crowded = len(places) > _CROWD
    data = " ".join(repr(number) for number in numbers) if len(numbers) <= CARRIED else None
    ticks = strokes(
        "".join(f"M{place:g} {base:g}v-{_TICK:g}" for place in places),
        stroke=colour,
        stroke_width=1.0 if crowded else 2.0,
        stroke_opacity=0.8 if crowded else None,
        class_=kind,
        data_values=data,
    )
    return ticks if numbers else ""


def candidates(levels: Levels) -> list[float]:
    """The numbers that may be labelled, the most wanted first.

    Args:
        levels: the grid.

    Examples:
        >>> candidates(Levels.integers("int2", -2, 1))
        [-2.0, 1.0, 0.0, -2.0, -1.0, 0.0, 1.0]
    """
    low, high = levels.low or 0.0, levels.high or 0.0
    wanted = [low, high]
    if low < 0 < high:
        wanted.append(0.0)
    if levels.count <= _FEW:
        return [*wanted, *levels.values]
    largest = max(abs(low), abs(high))
    if levels.uniform:
        step = 2.0 ** math.ceil(math.log2(max(high - low, 1.0) / _FEW))
        return [*wanted, *(step * i for i in range(math.ceil(low / step), math.floor(high / step) + 1))]
    powers = (2.0**exponent for exponent in range(math.frexp(largest)[1] - 1, -1, -1))
    return [*wanted, *(sign * power for power in powers for sign in (1, -1) if low < sign * power < high)]


def labels_below(axis: Axis, y: float, wanted: Iterable[float], words: Callable[[float], str]) -> list[str]:
    """Labels below an axis, each where it has room beside those before it.

    Args:
        axis: the axis.
        y: where they stand.
        wanted: the numbers, the most wanted first.
        words: how a number is written.

    Examples:
        >>> labels_below(Axis(0.0, 9.0), 10.0, [0.0, 0.1], short_number)[0].count("<text")
        1
    """
    taken: list[tuple[float, float]] = []
    labels = []
    for number in dict.fromkeys(wanted):
        content = words(number)
        half = width_of(content, _LABEL) / 2 + 3
        place = min(max(axis(number), half), WIDTH - half)
        if all(place + half <= left or place - half >= right for left, right in taken):
            taken.append((place - half, place + half))
            labels.append(text(place, y, content, text_anchor="middle", font_size=_LABEL))
    return [element("g", *labels, class_="labels")]
