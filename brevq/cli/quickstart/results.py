"""What the quickstart measures, and how it is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import torch

import brevq


@attrs.frozen
class Row:
    """What was measured of one network.

    Args:
        name: such as ``"W4A8"``: 4-bit weights, 8-bit activations.
        recipe: name of the weights' recipe; None in float.
        weight_bits: what a weight is stored in.
        weight_bytes: what all weights are stored in, scales included.
        rounded: accuracy with the float network's weights, quantized and not trained, from 0 to 1.
        trained: accuracy after a further training.
    """

    name: str
    recipe: str | None
    weight_bits: int
    weight_bytes: int
    rounded: float
    trained: float


@attrs.frozen
class Settings:
    """What a run is asked for.

    Args:
        epochs: of each training, at least 1.
        seed: of the split and the training.
        threads: of the processor.
    """

    epochs: int = 6
    seed: int = 0
    threads: int = 1


@attrs.frozen
class Results:
    """What one run of the quickstart found.

    Args:
        settings: what it was asked for.
        baseline: the float network.
        rows: the quantized ones.
        test_images: how many images the accuracies are measured on.
        seconds: what it all took.
    """

    settings: Settings
    baseline: Row
    rows: tuple[Row, ...]
    test_images: int
    seconds: float

    @property
    def standard_error(self) -> float:
        """How far chance moves the baseline's accuracy, which is measured on few images: one standard deviation."""
        p = self.baseline.rounded
        return float((p * (1 - p) / self.test_images) ** 0.5)

    def save(self, path: Path) -> None:
        """Write everything as JSON.

        Args:
            path: the file.
        """
        versions: dict[str, Any] = {"brevq": brevq.__version__, "torch": str(torch.__version__)}
        path.write_text(json.dumps({**attrs.asdict(self), **versions}, indent=2) + "\n", encoding="utf-8")
