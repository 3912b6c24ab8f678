"""A quantized tensor as a page: shape, grid, how often each code occurs, the scales."""

from __future__ import annotations

from collections import Counter
from typing import Any

import attrs
import torch
from torch import Tensor

from brevq.drawing import (
    Levels,
    attempt,
    facts,
    histogram,
    levels_axis,
    page,
    paragraph,
    scales_chart,
    section,
    short_number,
)
from brevq.function.recording import has_values
from brevq.quant_tensor.levels import levels_of

#: Up to how many values are counted; of more, as many are taken at even distances.
COUNTED = 2**16
#: Up to how many scales are shown; of more, the first ones.
_SCALES = 4096
# What may be off a whole code in half precision.
_OFF = 2.0**-6
_SPREAD = "its values are spread over several processes, and are not gathered for a picture"


@attrs.frozen
class Counts:
    """How often the numbers of a grid occur among values, and what else there is.

    `numbers` says how often each occurs; `total` values were looked at, `all_values` there are; `off` lie on no number
    of the grid, `strange` are NaN or infinite.
    """

    numbers: dict[float, int]
    total: int
    all_values: int
    off: int
    strange: int

    def share(self, number: float | None) -> str:
        """Which part of the values lies on `number`, in percent."""
        share = self.numbers.get(number, 0) / self.total if self.total and number is not None else 0.0
        return f"{100 * share:.3g} %"


def page_of(x: Any) -> str:
    """A `QuantTensor` as a page for notebooks. It changes nothing, and never raises.

    Args:
        x: the tensor.

    Examples:
        >>> from brevq.quant_tensor import QuantTensor
        >>> x = QuantTensor(torch.ones(3), torch.tensor(1.0), torch.tensor(0.0), torch.tensor(4.0), signed=True)
        >>> "int4" in page_of(x)
        True
    """
    return page("QuantTensor", *views(x))


@torch.no_grad()
def views(x: Any) -> tuple[str, ...]:
    """What there is to see of a `QuantTensor`, from facts to pictures.

    Args:
        x: the tensor.
    """
    return (
        attempt(lambda: facts(_facts(x)), "what it is"),
        attempt(lambda: _codes(x), "its codes"),
        attempt(lambda: _scales(x), "its scales"),
    )


def _facts(x: Any) -> list[tuple[str, object]]:
    plain = readable(x.scale) and x.scale.numel() > 0
    scale = short_number(x.scale.item()) if plain and x.scale.numel() == 1 else f"shape {tuple(x.scale.shape)}"
    return [
        ("shape", tuple(x.value.shape)),
        ("dtype, device", f"{str(x.value.dtype).removeprefix('torch.')}, {x.value.device}"),
        ("scale", scale),
        ("granularity", "" if x.granularity is None else repr(x.granularity)),
        ("zero", x.zero.value),
    ]


def readable(tensor: Tensor) -> bool:
    """Whether the values of a tensor are here and can be read: not fake, nor spread over processes.

    Args:
        tensor: the tensor.

    Examples:
        >>> readable(torch.ones(1)), readable(torch.ones(1, device="meta"))
        (True, False)
    """
    return has_values(tensor) and not type(tensor).__module__.startswith("torch.distributed")


def _codes(x: Any) -> str:
    """The grid, or how often each number of it occurs."""
    levels = levels_of(x)
    if not x.value.numel():
        return levels_axis(levels).svg() + paragraph("no values")
    if not (readable(x.value) and readable(x.scale)):
        there = has_values(x.value) and has_values(x.scale)
        why = _SPREAD if there else "on the meta device, or fake, where there are no values"
        return levels_axis(levels).svg() + paragraph(why)
    counts = count(x, levels)
    return section(
        "Codes on the grid", histogram(levels, counts.numbers, _title(levels)).svg(), *_remarks(levels, counts)
    )


def _title(levels: Levels) -> str:
    return f"{levels.name}: how often each of {levels.count} values occurs" if levels.known else levels.name


def _remarks(levels: Levels, counts: Counts) -> list[str]:
    """What the counts say beside the bars."""
    ends = f"on the lowest number ({short_number(levels.low or 0)}): {counts.share(levels.low)}, " * levels.known
    ends += f"on the highest ({short_number(levels.high or 0)}): {counts.share(levels.high)}" * levels.known
    used = f"; {len(counts.numbers)} different numbers occur" if counts.numbers else ""
    lines = [
        f"Clipped or at the end of the range: {ends}{used}." if ends else "",
        f"{counts.strange} of them NaN or infinite." if counts.strange else "",
        f"{counts.off} of them lie on no number of the grid." if counts.off else "",
        f"{counts.total} of {counts.all_values} values counted." if counts.total < counts.all_values else "",
    ]
    return [paragraph(line) for line in lines if line]


def count(x: Any, levels: Levels) -> Counts:
    """How often each number of the grid occurs among the values of a `QuantTensor`, or among some of very many.

    Args:
        x: the tensor.
        levels: its grid.

    Examples:
        >>> from brevq.quant_tensor import QuantTensor
        >>> x = QuantTensor(torch.tensor([1.0, 1.0, -0.5]), *map(torch.tensor, (0.5, 0.0, 4.0)), signed=True)
        >>> count(x, levels_of(x)).numbers
        {-1.0: 1, 2.0: 2}
    """
    exact = _exact(x)
    finite = exact[exact.isfinite()]
    codes = torch.round(finite) if levels.uniform and x.float_format is None else _nearest(finite, levels)
    slack = _OFF * codes.abs().clamp_min(1.0)
    fits = (finite - codes).abs() <= (slack if x.float_format is None else _OFF * codes.abs())
    if levels.low is not None and levels.high is not None:
        fits &= (codes >= levels.low) & (codes <= levels.high)
    numbers = dict(sorted(Counter((codes[fits] + 0.0).tolist()).items()))
    off = int((~fits).sum())
    return Counts(numbers, exact.numel(), x.value.numel(), off, exact.numel() - finite.numel())


def _nearest(values: Tensor, levels: Levels) -> Tensor:
    """The listed numbers nearest to `values`; where none are listed, the values."""
    if not levels.values:
        return values
    numbers = torch.tensor(levels.values, dtype=torch.float64, device=values.device)
    above = torch.bucketize(values, numbers).clamp(1, len(numbers) - 1)
    lower, upper = numbers[above - 1], numbers[above]
    return torch.where(values - lower <= upper - values, lower, upper)


def _exact(x: Any) -> Tensor:
    """Values in steps of their scale, before rounding: all of them, or `COUNTED` at even distances, shape `(n,)`."""
    granularity = x.granularity
    value = x.value.detach()
    laid_out = value if granularity is None else granularity.split(value)
    places = _places(laid_out, value, granularity)
    parts = (laid_out, x.scale.detach(), x.zero_point.detach())
    values, scale, zero_point = [part.expand(laid_out.shape)[places].reshape(-1).double() for part in parts]
    exact: Tensor = values / scale + zero_point
    return exact


def _places(laid_out: Tensor, value: Tensor, granularity: Any) -> tuple[Tensor, ...]:
    """Where to look: an index for each dimension."""
    if laid_out.numel() != value.numel():  # what fills the last group up is no value
        real = granularity.split(torch.ones(value.shape, dtype=torch.bool, device=value.device)).flatten().nonzero()
        numbers = real.squeeze(-1)
    else:
        numbers = torch.empty(0)
    total = value.numel()
    chosen = torch.arange(min(total, COUNTED), device=value.device) * total // min(total, COUNTED)
    if numbers.numel():
        chosen = numbers[chosen]
    return torch.unravel_index(chosen, laid_out.shape) if laid_out.dim() else ()


def _scales(x: Any) -> str:
    """The scales, where there are several."""
    if x.scale.numel() < 2 or not readable(x.scale):
        return ""
    scales = x.scale.detach().flatten()[:_SCALES].double().tolist()
    more = paragraph(f"the first {_SCALES} of {x.scale.numel()} scales") if x.scale.numel() > _SCALES else ""
    owner = type(x.granularity).__name__.removeprefix("Per").lower() if x.granularity is not None else "part"
    return section("Scales", scales_chart(scales, f"scale of each {owner}").svg(), more)
