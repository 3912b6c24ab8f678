"""What brevq costs before any number is computed: import, resolution of recipes, construction of layers.

Each row is a ratio of medians, measured in one process by alternating what is timed and what it is compared with, on
one thread. Run it with ``python benchmarks/overhead.py [repetitions]``.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch import nn

from brevq.inject import build
from brevq.nn import QuantLinear
from injectors import Int8ActPerTensor, Int8WeightPerTensor

SUPPLIED = {"tensor_shape": (64, 64), "channel_axis": 0}


def seconds(run: Callable[[], object], calls: int = 20) -> float:
    """The time of one call, from a few in a row."""
    start = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - start) / calls


def ratio(name: str, run: Callable[[], object], baseline: Callable[[], object], repetitions: int) -> None:
    """Print the ratio of the medians of two functions, timed in turn, and the spread of the ratio."""
    pairs = [(seconds(run), seconds(baseline)) for _ in range(repetitions + 1)][1:]
    ours, theirs = (statistics.median(times) for times in zip(*pairs, strict=True))
    each = sorted(a / b for a, b in pairs)
    low, high = each[len(each) // 10], each[-1 - len(each) // 10]
    print(f"{name:52} {ours / theirs:7.2f}  [{low:.2f} .. {high:.2f}]  {1e6 * ours:8.1f} us")


def float_layer() -> nn.Linear:
    """What layers are compared with."""
    return nn.Linear(64, 64)


def import_cost(repetitions: int) -> None:
    """Print the median time of importing torch, and of importing torch and then brevq."""
    times: dict[str, list[float]] = {"import torch": [], "import torch, brevq": []}
    for _ in range(repetitions):
        for statement, found in times.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", statement], check=True)
            found.append(time.perf_counter() - start)
    alone, both = (statistics.median(found) for found in times.values())
    print(f"import torch {alone:.3f} s; with brevq {both:.3f} s: {1000 * (both - alone):.0f} ms more")


def main(repetitions: int) -> None:
    """Print all rows."""
    torch.set_num_threads(1)
    counter = iter(range(10**9))
    print(f"{'':52} ratio    [10 % .. 90 %]     median")
    ratio("QuantLinear(64, 64) / nn.Linear", lambda: QuantLinear(64, 64), float_layer, repetitions)
    ratio(
        "with input and output quantizers / nn.Linear",
        lambda: QuantLinear(64, 64, input_quant=Int8ActPerTensor, output_quant=Int8ActPerTensor),
        float_layer,
        repetitions,
    )
    ratio("with one override / nn.Linear", lambda: QuantLinear(64, 64, weight_bit_width=4), float_layer, repetitions)
    ratio("build a recipe / nn.Linear", lambda: build(Int8WeightPerTensor, SUPPLIED), float_layer, repetitions)
    ratio(
        "derive a recipe with one override, plan and build it",
        lambda: build(Int8WeightPerTensor.let(scaling_min_val=1e-9 * (1 + next(counter))), SUPPLIED),
        float_layer,
        repetitions,
    )
    import_cost(5)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 21)
