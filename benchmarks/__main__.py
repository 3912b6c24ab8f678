"""``python -m benchmarks``."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import sys
import time
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.case import Bench, Row
from benchmarks.peers import Peers, interpreter
from benchmarks.registry import CASES, GROWTHS
from benchmarks.report import HEADER, facts, lines, one_row

#: The allocator of glibc keeps the memory that is freed. Else it hands pages to the system and asks for them again, or
#: not, depending on all that was allocated before, which triples the time of a formula with temporaries.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1)}


def keep_memory() -> None:
    """Start anew, with what the allocator reads when a process begins; processes of peers inherit it."""
    if not ALLOCATOR.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, "-m", "benchmarks", *sys.argv[1:]], os.environ | ALLOCATOR)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="TEXT", help="cases whose names contain one of these")
    parser.add_argument("--quick", action="store_true", help="fewer sizes, and 5 repetitions of whole networks")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results to this file")
    parser.add_argument("--threads", type=number, default=1, help="threads of torch (default: 1)")
    parser.add_argument("--repetitions", type=number, help="of all cases (default: 20, with --quick 20 and 5)")
    parser.add_argument("--list", action="store_true", help="print the names of all cases")
    options = parser.parse_args()
    if not any(wanted(case.name, options) for case in [*CASES, *GROWTHS]):
        parser.error(f"no case has {' or '.join(map(repr, options.only))} in its name: --list prints all names")
    return options


def number(text: str) -> int:
    """A number of at least 1."""
    found = int(text)
    if found < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {found}")
    return found


def wanted(name: str, options: argparse.Namespace) -> bool:
    """Whether a case is asked for."""
    return not options.only or any(text in name for text in options.only)


def processor() -> str:
    """The name of the processor."""
    with contextlib.suppress(OSError):
        for text in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if text.startswith("model name"):
                return text.partition(":")[2].strip()
    return platform.machine()


def machine(peers: Peers | None) -> dict[str, Any]:
    """What the numbers depend on; nothing that tells whose machine it is."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    versions = {name: version(name) for name in ("brevq", "torch")}
    if peers is not None:
        versions |= peers.versions()
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(memory / 2**30),
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": versions,
        "load": [load()],
    }


def load() -> float | None:
    """How busy the machine is: processes that want to run, on average of the last minute."""
    return round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None


def results(bench: Bench, options: argparse.Namespace) -> Iterator[Row]:
    """All results, one after the other."""
    for case in CASES:
        if wanted(case.name, options) and not (options.quick and case.extended):
            yield from bench.rows(case)
    for growth in GROWTHS:
        if wanted(growth.name, options):
            yield from bench.slopes(growth)


def measured(options: argparse.Namespace, peers: Peers | None) -> dict[str, Any]:
    """Run the benchmark, until it is interrupted; print each result when it is there."""
    bench = Bench(peers, options.repetitions or 20, options.repetitions or (5 if options.quick else 20))
    about, rows = machine(peers), []
    with contextlib.suppress(KeyboardInterrupt):
        for row in results(bench, options):
            rows.append(row.data())
            print(one_row(rows[-1]), flush=True)
    about["load"].append(load())
    repetitions = {"repetitions": bench.repetitions, "long_repetitions": bench.long_repetitions}
    return {"machine": about, "threads": options.threads, **repetitions, "rows": rows}


def print_table(result: dict[str, Any]) -> None:
    """The table of targets, of those that were measured."""
    if not lines(result["rows"]):
        return
    table = Table(*HEADER, show_lines=True)
    for row in lines(result["rows"]):
        table.add_row(*row)
    console = Console(width=max(Console().width, 140))
    console.print(table, "! marks what is above what it must reach.", facts(result), sep="\n", highlight=False)


def main() -> None:
    """Measure, print, write."""
    options = arguments()
    if options.list:
        print(*(case.name for case in [*CASES, *GROWTHS]), sep="\n")
        return
    keep_memory()
    warnings.simplefilter("ignore")
    torch.set_num_threads(options.threads)
    python = interpreter()
    if python is None:
        print("Without Brevitas and torchao, which `make bench-peers` installs for this.")
    start = time.monotonic()
    with contextlib.ExitStack() as stack:
        result = measured(options, None if python is None else stack.enter_context(Peers(python, options.threads)))
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print_table(result)
    print(f"{time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
