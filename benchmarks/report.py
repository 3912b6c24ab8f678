"""Results for people: lines while the benchmark runs, the table at its end, and the page of the documentation."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.targets import TARGETS, Target

PAGE = """\
Performance
===========

Ratios, measured side by side in one run by ``make bench``: each number is the median over repetitions in which brevq,
what it is compared with, and other libraries took turns. The limit of memory is ``clone``, which reads and writes
each value once. The float model is the same network of ``torch.nn`` layers, or for a recurrent layer a loop over its
cell. The process keeps the memory that it frees, as a training loop does once it has settled. Networks have 8-bit
weights and activations; images are 64 of 3 by 32 by 32, text is 8 times 128 words. *Must* is what this table is held
to, *aim* what would be better; a ``!`` marks what is above *must*.

{facts}

{table}

Bytes saved for backward are those of the distinct storages that autograd keeps, without the input and the parameters:
these are alive anyway, and *all saved* counts them, too. Activation memory is without them, over a whole training step.

How to run it
-------------

.. code-block:: console

   make bench-peers              # once: an environment for Brevitas and torchao, in build/peers
   make bench                    # everything: half an hour or more
   make bench ARGS="--quick"     # fewer sizes, and 5 repetitions of whole networks: ten minutes
   make bench ARGS="--quick --repetitions 20"   # fewer sizes alone: half an hour
   make bench ARGS="--only GPT --threads 2 --json result.json"

``BREVQ_PEERS`` names the Python of another environment for the peers; without one, their columns stay empty. This page
is written from a file of results by ``python -m benchmarks.report docs/performance.json``.

What is compared
----------------

No library here has integer kernels: quantized networks compute in float, so that none is faster than its float model.
Brevitas and torchao are as they are installed; recipes are those whose formats and scales are ours. *torch* is
`torch.fake_quantize_per_tensor_affine`, or its twin for channels, with a scale that was computed before. *naive* is the
formula in five lines with a straight-through estimator: less work, as its scale receives no gradient. All cases are
named by ``make bench ARGS=--list``.

Growth
------

The exponent of a power law, fitted to the times of several sizes: 1 is proportional, 0 does not depend on it.

{growth}

All that was measured
---------------------

{everything}
"""


def shown(values: Sequence[str]) -> str:
    """The cells of several cases in one."""
    return "; ".join(values)


def cell(found: dict[str, Any] | None, limit: float | None = None) -> str:
    """A value, with a mark if it is above its limit."""
    if found is None:
        return "—"
    if "value" not in found:
        return "refused"
    value = found["value"]
    digits = 0 if value >= 20 else 1 if value >= 5 else 2
    return f"{value:.{digits}f}{'!' if limit is not None and value > limit else ''}"


def limits(values: Sequence[float]) -> str:
    """Limits, once where they are all the same."""
    return shown([f"{value:g}" for value in (values[:1] if len(set(values)) == 1 else values)])


HEADER = ("", "brevq", "must", "aim", "Brevitas")


def line(target: Target, rows: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """A target beside what was measured."""
    found = {(row["case"], row["library"]): row for row in rows}
    ours = [cell(found.get((c, "brevq")), must) for c, must in zip(target.cases, target.must, strict=True)]
    theirs = [cell(found.get((c, "Brevitas"))) for c in target.cases]
    return target.label, shown(ours), limits(target.must), limits(target.aim), shown(theirs)


def lines(rows: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """The table, of the targets for which there is a result."""
    cases = {row["case"] for row in rows}
    return [line(target, rows) for target in TARGETS if cases & set(target.cases)]


def one_row(row: dict[str, Any]) -> str:
    """A result on a line."""
    about = f"{row['case']:62} {row['library']:9}"
    if "error" in row:
        return f"{about} refused: {row['error'].splitlines()[0][:100]}"
    spread = f"  [{row['low']:.2f} .. {row['high']:.2f}]" if "low" in row else ""
    return f"{about} {row['value']:8.2f}{spread}"


def facts(result: dict[str, Any]) -> str:
    """On what, and how, it was measured."""
    machine = result["machine"]
    named = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    threads = f"{result['threads']} thread{'s' if result['threads'] > 1 else ''}"
    return (
        f"Measured on {machine['processor']}, {machine['cores']} cores, {machine['memory_gb']} GB, "
        f"{machine['system']}, with {threads}; load "
        f"{machine['load'][0]} at the beginning and {machine['load'][1]} at the end; "
        f"{result['repetitions']} repetitions, {result['long_repetitions']} of whole networks; "
        f"Python {machine['python']}, {named}."
    )


def list_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in reStructuredText."""
    texts = [".. list-table::", "   :header-rows: 1", ""]
    for row in (header, *rows):
        texts += [f"   {'* -' if not place else '  -'} {text}".rstrip() for place, text in enumerate(row)]
    return "\n".join(texts)


def everything(rows: Sequence[dict[str, Any]]) -> str:
    """A table of all cases, and the ratios of all libraries."""
    ratios = [row for row in rows if row["measure"] != "exponent"]
    libraries = list(dict.fromkeys(row["library"] for row in ratios))
    found = {(row["case"], row["library"]): row for row in ratios}
    cases = dict.fromkeys((row["case"], row["against"]) for row in ratios)
    table = [[case, against, *(cell(found.get((case, lib))) for lib in libraries)] for case, against in cases]
    return list_table(["", "against", *libraries], table)


def page(result: dict[str, Any]) -> str:
    """The page of the documentation."""
    growth = [row for row in result["rows"] if row["measure"] == "exponent"]
    libraries = list(dict.fromkeys(row["library"] for row in growth))
    names = list(dict.fromkeys((row["case"], row["against"]) for row in growth))
    found = {(row["case"], row["library"]): row for row in growth}
    slopes = [[f"{name}, {sizes}", *(cell(found.get((name, lib))) for lib in libraries)] for name, sizes in names]
    table = list_table(HEADER, lines(result["rows"]))
    return PAGE.format(
        facts=facts(result),
        table=table,
        growth=list_table(["", *libraries], slopes),
        everything=everything(result["rows"]),
    )


def main() -> None:
    """Write the page beside the file of results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=main.__doc__)
    parser.add_argument("path", type=Path, metavar="FILE", help="results, as `python -m benchmarks --json` wrote them")
    path = parser.parse_args().path
    path.with_suffix(".rst").write_text(page(json.loads(path.read_text(encoding="utf-8"))), encoding="utf-8")


if __name__ == "__main__":
    main()
