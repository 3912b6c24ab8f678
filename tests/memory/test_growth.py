"""A thousand steps take no more memory than ten."""

import gc
import tracemalloc

import pytest
import torch
from torch import Tensor, nn

import brevq.nn as qnn
from brevq.graph import calibrating
from injectors import Int8WeightPerTensorLSQ, Int32Bias

STEPS = 1000


def network():
    """A small network whose ranges are observed for 20 steps, then learned."""
    return nn.Sequential(
        qnn.QuantIdentity(return_quant_tensor=True, collect_stats_steps=20),
        qnn.QuantLinear(4, 4, weight_quant=Int8WeightPerTensorLSQ, bias_quant=Int32Bias),
        qnn.QuantReLU(collect_stats_steps=20, quant_delay_steps=10),
        qnn.QuantLinear(4, 2),
    )


def training(model):
    """Steps of training."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def step():
        optimizer.zero_grad()
        model(torch.randn(8, 4)).square().mean().backward()
        optimizer.step()

    return step


def evaluation(model):
    """Calls in evaluation, with gradients of the weights that nobody takes."""
    with calibrating(model.eval()):
        model(torch.randn(8, 4))
    return lambda: model(torch.randn(8, 4))


def calibration(model):
    """Calibrations, of one batch each."""
    model.eval()

    def step():
        with calibrating(model):
            model(torch.randn(8, 4))

    return step


def tensors():
    """How many tensors there are."""
    gc.collect()
    return sum(issubclass(type(thing), Tensor) for thing in gc.get_objects())


@pytest.mark.parametrize("use", [training, evaluation, calibration], ids=lambda use: use.__name__)
def test_no_growth(use):
    """After some steps, a thousand more leave no tensor behind, and no memory of Python beyond some numbers."""
    step = use(network())
    tracemalloc.start()
    for _ in range(600):  # until what Python and torch keep for later calls is there
        step()
    before, start = tensors(), tracemalloc.get_traced_memory()[0]
    for _ in range(STEPS):
        step()
    after, grown = tensors(), tracemalloc.get_traced_memory()[0] - start
    tracemalloc.stop()
    assert before == after
    assert grown < 48 * STEPS  # less than the smallest container for each step; what torch keeps levels off below


def test_as_many_tensors_are_saved_in_each_step():
    """What a step keeps for its backward pass does not grow, from observing to learning."""
    step, counts = training(network()), []
    for _ in range(60):
        saved = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor, saved=saved: saved.append(1) or tensor, lambda x: x
        ):
            step()
        counts.append(len(saved))
    assert [1, 1] == [len(set(counts[30:])), len(set(counts[5:15]))]
    assert counts[-1] <= counts[5]


def test_the_state_has_one_size():
    """The state of a model has as many numbers after training as before."""
    model = network()
    before = sum(tensor.numel() for tensor in model.state_dict().values())
    step = training(model)
    for _ in range(30):
        step()
    assert before == sum(tensor.numel() for tensor in model.state_dict().values())
