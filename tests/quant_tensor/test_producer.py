"""What quantized tensors are said to come from."""

import pickle

from torch import nn

from brevq.nn import QuantIdentity
from brevq.quant_tensor.producer import derived, describe_origin


def test_results_name_the_function(qt):
    """The producer of a result is the function and the modules behind its arguments; a uniform view keeps its own."""
    layers = [QuantIdentity(), nn.ReLU()]
    x, y = qt.of_kind("signed", [1, 2]), qt.of_kind("signed", [1, 2])
    x.producer, y.producer = layers
    assert ("add", tuple(layers)) == (x + y).producer
    assert layers[0] is x.reshape(1, 2).producer
    assert "`add` of A QuantIdentity and A ReLU" == describe_origin((x + y).producer)


def test_parts_of_several_scales_name_the_function(qt):
    """A row of a tensor with a scale for each is no longer what the quantizer gave."""
    w = qt.of_kind("signed", [[1, 2], [3, 4]], [[0.5], [0.25]])
    w.producer = nn.ReLU()
    assert ("__getitem__", (w.producer,)) == w[0].producer


def test_at_most_two_modules():
    """A long computation names the first two modules behind it."""
    modules = [nn.ReLU() for _ in range(3)]
    assert ("cat", tuple(modules[:2])) == derived("cat", *modules)


def test_copies_have_no_producer(qt):
    """A pickled tensor does not take its layer along."""
    x = qt.of_kind("signed", [1, 2])
    x.producer = nn.ReLU()
    assert "a tensor of unknown origin" == describe_origin(pickle.loads(pickle.dumps(x)).producer)
