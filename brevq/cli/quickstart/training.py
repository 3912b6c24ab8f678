"""Training, calibrating and testing a network: the loops of a user, with nothing of brevq but `calibrating`."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from brevq.cli.quickstart.data import Digits
from brevq.graph import calibrating

_BATCH = 64
_CALIBRATION_BATCHES = 16


def train(network: nn.Module, digits: Digits, epochs: int, learning_rate: float) -> Iterator[float]:
    """Train a network with Adam, the learning rate falling to zero along a cosine.

    It trains as it is iterated over, and leaves the network ready for evaluation.

    Args:
        network: a float or quantized network.
        digits: the data.
        epochs: how often to see all training images.
        learning_rate: the first one.

    Yields:
        The loss of each step, of which there are `train_steps`.
    """
    network.train()
    optimizer = torch.optim.Adam(network.parameters(), learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, train_steps(digits, epochs))
    for _ in range(epochs):
        for images, labels in _batches(digits):
            loss = F.cross_entropy(network(images), labels)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            optimizer.step()
            schedule.step()
            yield loss.item()
    network.eval()


def train_steps(digits: Digits, epochs: int) -> int:
    """How many steps `train` takes.

    Args:
        digits: the data.
        epochs: how often to see all training images.
    """
    return epochs * math.ceil(len(digits.images) / _BATCH)


def calibrate(network: nn.Module, digits: Digits) -> None:
    """Observe the ranges of activations on some training images; training may move them from there.

    Args:
        network: a quantized network; it is put into evaluation, so batch normalisation stays as it was.
        digits: the data, of which 1024 images are used.
    """
    network.eval()
    with torch.no_grad(), calibrating(network, then="learned"):
        for (images, _), _ in zip(_batches(digits), range(_CALIBRATION_BATCHES), strict=False):
            network(images)


@torch.no_grad()
def accuracy(network: nn.Module, digits: Digits) -> float:
    """The fraction of test images that the network tells right.

    Args:
        network: a float or quantized network, in evaluation.
        digits: the data.
    """
    right = network(digits.test_images).argmax(dim=1) == digits.test_labels
    return float(right.double().mean())


def _batches(digits: Digits) -> Iterator[tuple[Tensor, Tensor]]:
    """All training images once, in random order."""
    for indices in torch.split(torch.randperm(len(digits.images)), _BATCH):
        yield digits.images[indices], digits.labels[indices]
