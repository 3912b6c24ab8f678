"""A quantized network on disk: saved, loaded into a fresh one, and compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from brevq.cli.quickstart.data import Digits
from brevq.cli.quickstart.network import quantized_network
from brevq.cli.quickstart.training import accuracy
from brevq.errors import BrevqError


class CheckpointError(BrevqError, ValueError):
    """A network that was saved and loaded again is not the same."""


def save(network: nn.Module, path: Path) -> None:
    """Write a network's `state_dict`, scales and phases of activations included.

    Args:
        network: a quantized network.
        path: the file.
    """
    torch.save(network.state_dict(), path)


def load(recipe: Any, path: Path) -> nn.Module:
    """A fresh quantized network, ready for evaluation, with what was saved.

    Args:
        recipe: the weight recipe of the network that was saved.
        path: the file.
    """
    network = quantized_network(recipe)
    network.load_state_dict(torch.load(path, weights_only=True), strict=True)
    return network.eval()


@torch.no_grad()
def check_same(saved: nn.Module, loaded: nn.Module, digits: Digits) -> None:
    """Refuse a network that computes anything else than the one that was saved.

    Args:
        saved: the network in memory.
        loaded: the network from disk.
        digits: the data to compare on.

    Raises:
        CheckpointError: a logit of a test image differs.
    """
    if not torch.equal(saved(digits.test_images), loaded(digits.test_images)):
        was, now = accuracy(saved, digits), accuracy(loaded, digits)
        raise CheckpointError(
            f"the network that was loaded again has an accuracy of {now:.3f}, not exactly that of the one saved, "
            f"{was:.3f}: its checkpoint does not hold all that it computes with"
        )
