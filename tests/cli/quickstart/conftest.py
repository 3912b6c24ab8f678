"""Data that a network learns in a second."""

import pytest
import torch

from brevq.cli.quickstart.data import Digits


@pytest.fixture(autouse=True)
def _one_thread(_same_random_numbers):
    """Networks this small are many times slower on two threads where other programs want them too."""
    torch.set_num_threads(1)


@pytest.fixture
def easy_digits():
    """Makes images that are bright in one of two halves, which is their label; to train on and, again, to test on."""

    def make(count):
        labels = torch.arange(count) % 2
        images = torch.rand(count, 1, 28, 28) / 2
        images[labels == 1, :, :14] += 0.5
        images[labels == 0, :, 14:] += 0.5
        return Digits(images, labels, images, labels)

    return make
