"""What quantization costs in a recurrent layer: `QuantLSTM` beside a Python loop over torch's own cell.

Each row is a ratio of medians, measured in one process by alternating what is timed and what it is compared with, on
one thread: one forward and backward pass, or a forward pass in evaluation. The loop is over `nn.LSTMCell` (`GRUCell`,
`RNNCell`) with the same sizes. Run it with ``python benchmarks/recurrent.py [repetitions]``.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from brevq.graph import calibrating
from brevq.nn import QuantGRU, QuantLSTM, QuantRNN
from injectors import Int8ActPerTensor, Uint8ActPerTensor

STEPS = 32
#: Batch, input size and hidden size.
SIZES = [(8, 64, 64), (32, 128, 256)]
CELLS = {QuantLSTM: nn.LSTMCell, QuantGRU: nn.GRUCell, QuantRNN: nn.RNNCell}


class CellLoop(nn.Module):
    """What a user writes without a layer: a cell, called for each time step."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: Tensor) -> tuple[Tensor, Any]:
        state, outputs = None, []
        for step in x.unbind(0):
            state = self.cell(step, state)
            outputs.append(state[0] if isinstance(state, tuple) else state)
        return torch.stack(outputs), state


def seconds(run: Callable[[], object], calls: int) -> float:
    """The time of one call, from a few in a row."""
    start = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - start) / calls


def trained(layer: nn.Module, x: Tensor) -> Callable[[], object]:
    """A forward and a backward pass in training."""

    def run() -> None:
        layer.zero_grad()
        layer(x)[0].sum().backward()

    return run


def evaluated(layer: nn.Module, x: Tensor) -> Callable[[], object]:
    """A forward pass in evaluation."""

    def run() -> None:
        with torch.no_grad():
            layer(x)

    return run


def ratio(name: str, run: Callable[[], object], baseline: Callable[[], object], repetitions: int) -> None:
    """Print the ratio of the medians of two functions, timed in turn, and the spread of the ratio."""
    pairs = [(seconds(run, 3), seconds(baseline, 3)) for _ in range(repetitions + 2)][2:]
    ours, theirs = (statistics.median(times) for times in zip(*pairs, strict=True))
    each = sorted(a / b for a, b in pairs)
    low, high = each[len(each) // 10], each[-1 - len(each) // 10]
    print(f"{name:66} {ours / theirs:5.2f}  [{low:.2f} .. {high:.2f}]  {1e3 * ours:7.2f} ms")


def settled(layer: nn.Module, x: Tensor, then: str) -> nn.Module:
    """The layer with ranges from one batch, fixed or learned."""
    with calibrating(layer, then=then):
        layer(x)
    return layer


def rows(layer: type, size: tuple[int, int, int], repetitions: int) -> None:
    """Print the rows of one layer and size."""
    batch, *features = size
    x = torch.randn(STEPS, batch, features[0])
    loop = CellLoop(CELLS[layer](*features))
    about = f"{layer.__name__} {size}"
    all_acts = {
        "input_quant": Int8ActPerTensor,
        "hidden_quant": Int8ActPerTensor,
        "accumulator_quant": Int8ActPerTensor,
    }
    inner = {"cell": Int8ActPerTensor, "gate": Uint8ActPerTensor, "tanh": Int8ActPerTensor}
    all_acts |= {f"{name}_quant": recipe for name, recipe in inner.items() if f"{name}_quant" in layer.quants}
    weights = layer(*features)
    fixed = settled(layer(*features, hidden_quant=Int8ActPerTensor), x, "fixed")
    learned = settled(layer(*features, hidden_quant=Int8ActPerTensor), x, "learned")
    everything = settled(layer(*features, **all_acts), x, "learned")
    ratio(f"{about}: weights, training", trained(weights, x), trained(loop, x), repetitions)
    ratio(f"{about}: weights, evaluation", evaluated(weights.eval(), x), evaluated(loop, x), repetitions)
    ratio(f"{about}: weights, h learned, training", trained(learned, x), trained(loop, x), repetitions)
    ratio(f"{about}: weights, h fixed, training", trained(fixed, x), trained(loop, x), repetitions)
    ratio(f"{about}: weights, h fixed, evaluation", evaluated(fixed.eval(), x), evaluated(loop, x), repetitions)
    ratio(f"{about}: all quantizers, learned, training", trained(everything, x), trained(loop, x), repetitions)
    ratio(f"{about}: all quantizers, evaluation", evaluated(everything.eval(), x), evaluated(loop, x), repetitions)


def main(repetitions: int) -> None:
    """Print all rows."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"{STEPS} steps; (batch, input size, hidden size)".ljust(66), "ratio  [10 % .. 90 %]    median")
    for layer in CELLS:
        for size in SIZES:
            rows(layer, size, repetitions)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 21)
