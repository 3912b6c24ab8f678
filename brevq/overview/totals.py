"""What a summary says of a whole model, at its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from brevq.overview.records import Record

if TYPE_CHECKING:
    from brevq.overview.summary import Summary

_LISTED = 6  # paths that are named one by one


def totals(summary: Summary) -> dict[str, str]:
    """What is said of a whole model, by headings; what there is none of is left out.

    Args:
        summary: of the model.
    """
    said = {
        "parameters": _parameters(summary),
        "bytes": _bytes(summary),
        "in float": _listed(_in_float(summary.records)),
        "no data yet": _listed(summary.uncalibrated),
        "shared": _listed(_shared(summary.records, summary.also)),
        "learned": _learned(summary.learned),
    }
    return {heading: words for heading, words in said.items() if words}


def _parameters(summary: Summary) -> str:
    quantized, all_of_them = summary.quantized_parameters, summary.parameters
    share = f" ({quantized / all_of_them:.1%})" if all_of_them else ""
    return f"{all_of_them:,}, of which {quantized:,}{share} quantized"


def _bytes(summary: Summary) -> str:
    size, before = summary.bytes, summary.float_bytes
    smaller = f", {summary.times_smaller:.2f} times less" if size < before else ""
    bits = f"; {8 * size / summary.parameters:.2f} bits a parameter" if summary.parameters else ""
    return f"{size:,}, in float {before:,}{smaller}{bits}"


def _learned(count: int) -> str:
    return f"{count:,} number{'s' * (count != 1)} in quantizers, besides the parameters above" if count else ""


def _in_float(records: Sequence[Record]) -> list[str]:
    """What stayed in float: paths of layers that did so altogether, and of the tensors of others."""
    quantized = {record.layer for record in records if not record.in_float}
    paths = [
        record.path if record.layer in quantized else record.layer or "(model)" for record in records if record.in_float
    ]
    return list(dict.fromkeys(paths))


def _shared(records: Sequence[Record], also: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Layers, parameters and quantizers that occur several times."""
    again = [f"{first} is also {' and '.join(others)}" for first, others in also.items()]
    tensors = [f"{record.path} is {record.tensor_of}" for record in records if record.tensor_of]
    quantizers = [
        f"{record.path} has the quantizer of {record.quantizer_of}" for record in records if record.quantizer_of
    ]
    return [*again, *tensors, *quantizers]


def _listed(paths: Sequence[str]) -> str:
    more = len(paths) - _LISTED
    return ", ".join(paths[:_LISTED]) + (f", and {more} more" if more > 0 else "")
