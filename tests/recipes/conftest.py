"""What libraries of others have, as they are installed for these tests."""

import pytest

RECIPES = '''
"""Recipes of another's making."""

from injectors import Int8ActPerTensor, Int8WeightPerTensor
from injectors.bases import IntWeight


class NarrowWeight(IntWeight):
    """What all have in common."""

    scaling_min_val = 1e-8


class Int3Weight(NarrowWeight):
    """Signed 3-bit weights.

    Source: a paper.
    """

    bit_width = 3


class _Hidden(Int3Weight):
    """For nobody else."""


Int5Weight = Int3Weight.let(bit_width=5)
'''


@pytest.fixture
def acme(distribution):
    """Installs a library of a base and two recipes, under a name, as a package or a module."""

    def install(name="acme", module=None, source=RECIPES, more=None):
        module = module or name
        files = {f"{module.replace('.', '/')}/__init__.py": source, **(more or {})}
        return distribution(f"{name}-quant", {name: module}, files)

    return install
