"""Pictures of what tensors hold: how often each number of a grid occurs, and the scale of each channel."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

from brevq.drawing.axis import CARRIED, WIDTH, Axis, candidates, labels_below
from brevq.drawing.levels import Levels
from brevq.drawing.markup import element, escape, short_number
from brevq.drawing.picture import BLUE, ORANGE, Drawing, rect, strokes, text

_HEIGHT, _TOP = 110.0, 24.0
_BINS = 256


def histogram(levels: Levels, counts: Mapping[float, int], title: str = "how often each number occurs") -> Drawing:
    """How often each number of a grid occurs, one bar each; the outermost numbers, where values are clipped, in orange.

    Args:
        levels: the grid.
        counts: how often each number occurs; numbers that do not may be left out.
        title: what is counted. Default: numbers.

    Examples:
        >>> drawing = histogram(Levels.integers("int2", -2, 1), {-2.0: 1, 0.0: 3})
        >>> drawing.description
        '-2: 1, 0: 3'
    """
    bars, axis, width = _bars(levels, counts)
    most = max(bars.values(), default=1)
    base = _TOP + _HEIGHT
    ends = {levels.low, levels.high}
    shapes = [text(0, 13, title, font_weight="bold")]
    for number, count in bars.items():
        height = max(count / most * _HEIGHT, 0.75)
        colour = ORANGE if number in ends else BLUE
        hint = element("title", escape(f"{short_number(number)}: {count}"))
        left = axis(number) - width / 2
        shapes.append(element("rect", hint, x=left, y=base - height, width=width, height=height, fill=colour))
    data = {"data_values": " ".join(map(repr, bars)), "data_counts": " ".join(map(str, bars.values()))}
    few = data if len(bars) <= CARRIED else {}
    inner = [
        element("g", *shapes[1:], class_="bars", **few),
        strokes(f"M{axis.left:g} {base:g}H{axis.right:g}", stroke_opacity=0.4),
        *labels_below(axis, base + 15, _shown(levels, axis), short_number),
        text(WIDTH, 13, f"highest bar: {most}", text_anchor="end", font_size=11, fill_opacity=0.85),
    ]
    words = ", ".join(f"{short_number(number)}: {count}" for number, count in bars.items())
    return Drawing(WIDTH, base + 22, (shapes[0], *inner), title, words)


def _bars(levels: Levels, counts: Mapping[float, int]) -> tuple[dict[float, int], Axis, float]:
    """The bars, the axis that they stand on, and how wide they are."""
    found = dict(sorted(counts.items()))
    low, high = levels.low, levels.high
    first, last = min(found, default=0.0), max(found, default=0.0)
    if low is None or high is None or (high / 2 - low / 2) > 16 * max(last / 2 - first / 2, 0.5):
        low, high = first - 0.5, last + 0.5  # the grid is far wider than what is on it
    if levels.uniform and high - low > _BINS:
        size = math.ceil((high - low + 1) / _BINS)
        binned: dict[float, int] = {}
        for number, count in found.items():
            middle = low + math.floor((number - low) / size) * size + (size - 1) / 2
            binned[middle] = binned.get(middle, 0) + count
        return binned, Axis(low - 0.5, high + 0.5), 672 * size / (high - low + 1) * 0.9
    if levels.uniform:
        return found, Axis(low - 0.5, high + 0.5), 672 / (high - low + 1) * 0.85
    neighbours = itertools.pairwise(levels.values)
    closest = min((right - left for left, right in neighbours), default=0.0)
    return found, Axis(low, high), min(max(672 * closest / (high - low) * 0.85, 2.5), 42.0)


def _shown(levels: Levels, axis: Axis) -> list[float]:
    """The numbers that the axis may label."""
    inside = [number for number in candidates(levels) if axis.low <= number <= axis.high] if levels.known else []
    return inside or [math.ceil(axis.low), math.floor(axis.high)]


def scales_chart(scales: Sequence[float], title: str = "scale of each channel") -> Drawing:
    """The scales in their order, one bar each; more than 256 in bins, from the smallest to the largest of each.

    Args:
        scales: positive numbers.
        title: what has the scales. Default: channels.

    Examples:
        >>> scales_chart([0.5, 0.25]).description
        '2 scales from 0.25 to 0.5'
    """
    finite = [scale for scale in scales if math.isfinite(scale)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    by_powers = low > 0 and high > 64 * low
    base = _TOP + 70.0
    size = math.ceil(max(len(scales), 1) / _BINS)
    groups = [[scale for scale in scales[i : i + size] if math.isfinite(scale)] for i in range(0, len(scales), size)]
    axis = Axis(0.0, float(max(len(groups), 1)))
    wide = 672 / max(len(groups), 8) * 0.85

    def height(scale: float) -> float:
        if by_powers:
            return 8 + 62 * math.log(scale / low) / math.log(high / low)
        return 70 * scale / high if high > 0 else 0.0

    bars = []
    for number, group in enumerate(groups):
        if group:
            top, bottom = height(max(group)), height(min(group))
            left = axis(number + 0.5) - wide / 2
            hint = element("title", escape(f"{number * size}: {' to '.join(_ends(group))}"))
            bars.append(element("rect", hint, x=left, y=base - top, width=wide, height=max(top, 0.75), fill=BLUE))
            if size > 1:
                bars.append(rect(left, base - top, wide, top - bottom, fill="currentColor", fill_opacity=0.3))
    data = " ".join(f"{scale:.6g}" for scale in scales) if len(scales) <= CARRIED else None
    how = ", by powers of two" if by_powers else ""
    words = f"{len(scales)} scales from {short_number(low)} to {short_number(high)}"
    shapes = (
        text(0, 13, title, font_weight="bold"),
        text(WIDTH, 13, words + how, text_anchor="end", font_size=11, fill_opacity=0.85),
        element("g", *bars, class_="scales", data_values=data),
        strokes(f"M{axis.left:g} {base:g}H{axis.right:g}", stroke_opacity=0.4),
        text(axis.left, base + 15, "0", font_size=11),
        text(axis.right, base + 15, len(scales) - 1, font_size=11, text_anchor="end"),
    )
    return Drawing(WIDTH, base + 20, shapes, title, words)


def _ends(group: Sequence[float]) -> list[str]:
    return list(dict.fromkeys(map(short_number, (min(group), max(group)))))
