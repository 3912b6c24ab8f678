"""What all tests share: one thread, which is the fastest for tensors as small, and the same random numbers."""

import sys

import pytest


@pytest.fixture(autouse=True)
def _same_random_numbers():
    """Seed torch before each test, where the test uses torch at all."""
    if "torch" in sys.modules:
        import torch  # noqa: PLC0415  # the injector's tests run without torch

        torch.set_num_threads(1)
        torch.manual_seed(0)
