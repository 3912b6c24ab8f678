"""What the pages of this folder have in common."""

import warnings

import pytest

from tests.support import bad_input


@pytest.fixture(scope="session")
def bad_inputs():
    """What becomes of bad input, tried once."""
    with warnings.catch_warnings():
        # Torch's, for integers in RMSNorm.
        warnings.filterwarnings("ignore", "Mismatch dtype between input and weight")
        return bad_input.results()
