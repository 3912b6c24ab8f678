"""The rows of a summary's table, in words: what text and HTML have in common."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import attrs

from brevq.overview.records import Record

#: The columns after the first, and whether numbers stand to the right in them.
COLUMNS = {
    "recipe": False,
    "bits": False,
    "granularity": False,
    "scale": False,
    "phase": False,
    "params": True,
    "bytes": True,
    "less": True,
}


@attrs.frozen
class Row:
    """A row of the table.

    Args:
        name: what stands in the first column.
        kind: class of a layer; empty for a tensor within one.
        cells: the other cells, by column; empty ones may be missing.
    """

    name: str
    kind: str = ""
    cells: Mapping[str, str] = attrs.field(factory=dict)


def folded(records: Sequence[Record], kinds: Mapping[str, str], depth: int | None) -> list[Row]:
    """The rows of all layers, or of the modules down to a depth, with what is below summed up.

    Args:
        records: the records, layer after layer.
        kinds: class of each module, by its path.
        depth: how many levels are shown apart; None for all.
    """
    rows: list[Row] = []
    for path, group in itertools.groupby(records, lambda record: _cut(record.layer, depth)):
        members = list(group)
        below = any(record.layer != path for record in members)
        rows += [_sum_of(path, kinds.get(path, ""), members)] if below else _layer(path, members)
    return rows


def amount(number: int, unit: str = "") -> str:
    """A number for readers: exact up to a million, then with three digits.

    Args:
        number: the number.
        unit: what stands behind large ones: ``B`` gives ``12.3 MB``.

    Examples:
        >>> amount(999_999), amount(12_345_678, "B"), amount(6_738_415_616)
        ('999,999', '12.3 MB', '6.74 G')
    """
    for size, prefix in ((10**12, "T"), (10**9, "G"), (10**6, "M")):
        if number >= size:
            return f"{number / size:#.3g}".rstrip(".") + f" {prefix}{unit}"
    return f"{number:,}"


def _cut(path: str, depth: int | None) -> str:
    return path if depth is None else ".".join(path.split(".")[:depth])


def _layer(path: str, records: Sequence[Record]) -> list[Row]:
    """A line for a layer, and below it one for each tensor; of a layer that is all in float, one line."""
    name, kind = path or "(model)", records[0].kind
    if all(record.in_float for record in records):
        return [Row(name, kind, {"bits": _bits_of(records), **_numbers(records)})]
    return [Row(name, kind), *(Row(record.tensor, "", _cells(record)) for record in records)]


def _sum_of(path: str, kind: str, records: Sequence[Record]) -> Row:
    """One line for all layers below a module."""
    layers = len({record.layer for record in records})
    stored = [record for record in records if record.float_bytes or record.bytes]
    return Row(path, f"{kind}, {_plural(layers, 'layer')}", {"bits": _bits_of(stored), **_numbers(records)})


def _cells(record: Record) -> dict[str, str]:
    return {
        "recipe": record.recipe or "",
        "bits": _bits(record),
        "granularity": _granularity(record),
        "scale": _scale(record),
        "phase": record.phase or "",
        **({"params": "shared", "bytes": amount(record.bytes, "B")} if record.counted_before else _numbers([record])),
    }


def _numbers(records: Sequence[Record]) -> dict[str, str]:
    """Parameters, bytes, and how many times less than in float that is, if it is."""
    parameters, size, before = (
        sum(getattr(record, name) for record in records) for name in ("parameters", "bytes", "float_bytes")
    )
    if not parameters and not size:
        return {}
    smaller = f"{before / size:.1f}x" if size and before > size else ""
    return {"params": amount(parameters), "bytes": amount(size, "B"), "less": smaller}


def _bits(record: Record) -> str:
    if record.in_float:
        return f"{record.bits:>2} {'float' if record.format == f'float{record.bits}' else record.format}"
    return f"{'?' if record.bits is None else record.bits:>2} {record.format}"


def _bits_of(records: Sequence[Record]) -> str:
    """The bits of several tensors: from the fewest to the most, if they differ."""
    bits = sorted({record.bits for record in records if record.bits is not None})
    alike = {_bits(record) for record in records}
    return alike.pop() if len(alike) == 1 else f"{bits[0]:>2} .. {bits[-1]}" if len(bits) > 1 else ""


def _granularity(record: Record) -> str:
    channels = record.granularity == "channel" and record.scales is not None
    return _plural(record.scales or 0, "channel") if channels else record.granularity or ""


def _scale(record: Record) -> str:
    """The scale, or from the smallest to the largest, or why it is not known."""
    if record.scale_min is None or record.scale_max is None:
        return record.scale_note
    low, high = f"{record.scale_min:.3g}", f"{record.scale_max:.3g}"
    return low if low == high else f"{low} .. {high}"


def _plural(count: int, word: str) -> str:
    return f"{count} {word}{'s' * (count != 1)}"
