"""Ranges and many processes, as far as one process shows; the rest is in tests/distributed."""

import copy
import pickle

import pytest
import torch

from brevq.core.stats.ranks import Ranks
from brevq.errors import ArgumentTypeError
from brevq.graph import broadcast_ranges, observe_across, replicate_ranges
from brevq.nn import QuantLinear
from injectors import Int8ActPerTensor, Int8WeightPerTensorLSQ


@pytest.mark.parametrize("function", [broadcast_ranges, observe_across, replicate_ranges])
def test_what_is_no_module_is_refused(function):
    """A list of layers is no model."""
    with pytest.raises(ArgumentTypeError) as error:
        function([QuantLinear(2, 2)])
    assert "`model` must be a module, not list" == str(error.value)


def test_ranges_are_the_parameters_of_quantizers():
    """What is left whole is the two learned ranges, and neither weight nor bias; one process averages nothing."""
    layer = QuantLinear(2, 2, weight_quant=Int8WeightPerTensorLSQ, input_quant=Int8ActPerTensor)
    whole = replicate_ranges(layer)
    layer(torch.ones(1, 2)).sum().backward()
    expected = {p for name, p in layer.named_parameters() if name not in ("weight", "bias")}
    assert (expected, 2) == (whole, len(whole))


@pytest.mark.parametrize(
    ("ranks", "alone"), [(Ranks(), False), (Ranks(alone=True), True), (Ranks(group="a group"), True)]
)
def test_processes_travel(ranks, alone):
    """A copy is of the same processes; a pickle knows no group, and is alone where one was given."""
    unpickled = pickle.loads(pickle.dumps(ranks))
    assert (ranks.group, None, alone) == (copy.deepcopy(ranks).group, unpickled.group, unpickled.alone)
