"""Where the networks of the quickstart are trained and measured."""

from __future__ import annotations

import attrs
import torch
from rich.console import Console
from rich.progress import Progress
from torch import nn

from brevq.cli.quickstart.data import Digits
from brevq.cli.quickstart.network import weight_bits, weight_bytes
from brevq.cli.quickstart.results import Row, Settings
from brevq.cli.quickstart.training import accuracy, train, train_steps


@attrs.frozen(eq=False)
class Bench:
    """What all networks of a run share: the settings, the data, and where progress is shown.

    Args:
        settings: of the run.
        digits: the data.
        console: where to print to.
    """

    settings: Settings
    digits: Digits
    console: Console

    def train(self, name: str, network: nn.Module, learning_rate: float) -> None:
        """Train a network, with a progress bar where there is a terminal to draw it on.

        Args:
            name: what to call it beside the bar.
            network: a float or quantized network.
            learning_rate: the first one, of a falling schedule.
        """
        torch.manual_seed(self.settings.seed)  # each network sees the same batches, whatever was run before
        losses = train(network, self.digits, self.settings.epochs, learning_rate)
        total = train_steps(self.digits, self.settings.epochs)
        with Progress(console=self.console, transient=True, disable=not self.console.is_terminal) as progress:
            task = progress.add_task(name, total=total)
            for loss in losses:
                progress.update(task, advance=1, description=f"{name}, loss {loss:.3f}")

    def row(self, name: str, recipe: str | None, network: nn.Module, learning_rate: float) -> Row:
        """Measure a network, train it, and measure it again.

        Args:
            name: what to call it.
            recipe: name of its weights' recipe; None in float.
            network: a float network, or a calibrated one.
            learning_rate: of the training.
        """
        rounded = accuracy(network, self.digits)
        self.train(name, network, learning_rate)
        trained = accuracy(network, self.digits)
        self.console.print(f"  {name:8} {rounded:.3f}, after training {trained:.3f}")
        return Row(name, recipe, weight_bits(network), weight_bytes(network), rounded, trained)
