"""What all tests share: one thread for each core at most, and the same random numbers in every run."""

import sys

import pytest


@pytest.fixture(autouse=True)
def _same_random_numbers():
    """Seed torch before each test, where the test uses torch at all."""
    if "torch" in sys.modules:
        import torch  # noqa: PLC0415  # the injector's tests run without torch

        torch.set_num_threads(2)
        torch.manual_seed(0)
