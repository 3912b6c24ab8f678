"""Contracts: tests for the recipes and components of one's own, to inherit and to run with pytest.

A contract is a class. A class of tests inherits it, says what is to be tested, and pytest runs the rest:

>>> from brevq.testing import RecipeContract, StatisticContract
>>> from injectors import Int8WeightPerChannel
>>> class Int3Weight(Int8WeightPerChannel):
...     "Signed 3-bit weights, one scale for each output channel."
...     bit_width = 3
>>> class TestInt3Weight(RecipeContract):
...     recipe = Int3Weight
"""

from brevq.testing.component import Case, ComponentContract, QuantizerContract
from brevq.testing.contract import Contract
from brevq.testing.elementwise import ElementwiseContract
from brevq.testing.expect import ContractError, close, equal, holds
from brevq.testing.layers import Bench, benches
from brevq.testing.recipe import RecipeContract
from brevq.testing.restriction import RestrictionContract
from brevq.testing.statistic import StatisticContract
from brevq.testing.travel import WAYS, outcome, scripted

__all__ = [
    "WAYS",
    "Bench",
    "Case",
    "ComponentContract",
    "Contract",
    "ContractError",
    "ElementwiseContract",
    "QuantizerContract",
    "RecipeContract",
    "RestrictionContract",
    "StatisticContract",
    "benches",
    "close",
    "equal",
    "holds",
    "outcome",
    "scripted",
]
