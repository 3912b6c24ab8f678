"""What all tests share: one thread, which is the fastest for tensors as small, the same random numbers, libraries."""

import sys

import pytest

from tests.installing import installing


@pytest.fixture(autouse=True)
def _same_random_numbers():
    """Seed torch before each test, where the test uses torch at all."""
    if "torch" in sys.modules:
        import torch  # noqa: PLC0415  # the injector's tests run without torch

        torch.set_num_threads(1)
        torch.manual_seed(0)


@pytest.fixture
def distribution(tmp_path):
    """Installs distributions that declare libraries of recipes, until the test ends: see `tests.installing`."""
    yield from installing(tmp_path / "installed")


@pytest.fixture(scope="module")
def lasting_distribution(tmp_path_factory):
    """As `distribution`, until the last test of a module ends."""
    yield from installing(tmp_path_factory.mktemp("installed"))
