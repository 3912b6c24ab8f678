"""What the tests of core share: the ways in which a component travels, and numbers that compare bit for bit."""

import pytest

from brevq import testing


@pytest.fixture(params=testing.WAYS)
def travel(request):
    """A function of a constructor and what it made, which gives another module that must act like the latter."""
    return testing.WAYS[request.param]


@pytest.fixture
def outcome():
    """A function that runs a module and lists its values and its gradients, as numbers."""
    return testing.outcome
