"""The quickstart from beginning to end."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

from brevq.cli.quickstart import checkpoint, report
from brevq.cli.quickstart.bench import Bench
from brevq.cli.quickstart.data import load_digits
from brevq.cli.quickstart.network import float_network, quantized_network
from brevq.cli.quickstart.results import Results, Row, Settings
from brevq.cli.quickstart.training import accuracy, calibrate
from brevq.inject import diff, explain
from injectors import BinaryWeightPerChannel, Int4WeightPerChannel, Int8WeightPerChannel, TernaryWeightPerChannel

#: Names of the quantized networks, and the recipes of their weights.
RECIPES: dict[str, Any] = {
    "W8A8": Int8WeightPerChannel,
    "W4A8": Int4WeightPerChannel,
    "W3A8": Int8WeightPerChannel.let(bit_width=3),
    "W2A8": Int8WeightPerChannel.let(bit_width=2),
    "ternary": TernaryWeightPerChannel,
    "binary": BinaryWeightPerChannel,
}
_SHOWN, _COMPARED, _SAVED = "W4A8", "ternary", "W4A8"
_FLOAT_RATE, _TUNING_RATE = 3e-3, 1e-3


def run(out: Path, settings: Settings) -> Results:
    """Train, quantize, measure and show everything; see the command's help.

    Args:
        out: folder to write to.
        settings: what else is asked for.

    Returns:
        What was measured; it is also written to the folder.

    Raises:
        CheckpointError: the saved network differs when it is loaded again.
        OSError: the folder can not be written to.
        MissingExtraError: the package that brings the data is not installed.
    """
    started = time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(settings.threads)
    bench = Bench(settings, load_digits(settings.seed), Console(highlight=False, soft_wrap=True))
    _show_wiring(bench.console)
    network = _train_float(bench)
    bench.console.print("\nQuantized twins with the same weights, rounded and then trained:")
    baseline = bench.row("float", None, copy.deepcopy(network), _TUNING_RATE)
    rows = tuple(_quantized_rows(bench, network, out))
    seconds = round(time.perf_counter() - started, 1)
    results = Results(settings, baseline, rows, len(bench.digits.test_labels), seconds)
    _show_results(bench.console, results, out)
    return results


def _train_float(bench: Bench) -> nn.Module:
    torch.manual_seed(bench.settings.seed)
    network = float_network()
    bench.console.print(f"Training in float on {len(bench.digits.images)} digits:")
    bench.train("float", network, _FLOAT_RATE)
    bench.console.print(f"  accuracy {accuracy(network, bench.digits):.3f} on {len(bench.digits.test_images)} others")
    return network


def _quantized_rows(bench: Bench, trained: nn.Module, out: Path) -> Iterator[Row]:
    """Each quantized twin of the trained network, measured; one is also saved and loaded again."""
    for name, recipe in RECIPES.items():
        network = quantized_network(recipe)
        network.load_state_dict(trained.state_dict(), strict=True)
        torch.manual_seed(bench.settings.seed)
        calibrate(network, bench.digits)
        yield bench.row(name, recipe.__name__, network, _TUNING_RATE)
        if name == _SAVED:
            path = out / "checkpoint.pt"
            checkpoint.save(network, path)
            checkpoint.check_same(network, checkpoint.load(recipe, path), bench.digits)
            bench.console.print(f"  {name:8} saved, and loaded again into a fresh network: the same to the last bit")


def _show_wiring(console: Console) -> None:
    recipe, other = RECIPES[_SHOWN], RECIPES[_COMPARED]
    layer = quantized_network(recipe)[0]
    for text in ("How the weights of the first layer are quantized:", explain(recipe, layer), diff(recipe, other)):
        console.print(str(text) + "\n", markup=False)


def _show_results(console: Console, results: Results, out: Path) -> None:
    results.save(out / "results.json")
    report.picture(results, out / "accuracy.png")
    console.print()
    console.print(report.table(results), soft_wrap=False, width=80, crop=False)
    console.print(report.footnote(results))
    console.print(f"\n{results.seconds:.0f} s. In {out}: accuracy.png, checkpoint.pt, results.json", markup=False)
