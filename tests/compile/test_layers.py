"""Every layer compiles as one graph, with weight, bias and activations quantized."""

import copy

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils import _pytree as pytree

from brevq.core.stats import RuntimeStats
from brevq.nn import QuantLinear
from injectors import Fp8e4m3OCPWeightPerChannel, Fp8e5m2OCPWeightPerTensor, Int4WeightPerTensor, MXFp4Weight
from tests.support.table import CASES, FAMILIES, leaves, total


def step(layer, run, case, seed):
    """Outputs of a call, and the gradients of inputs and parameters; inputs grow with the seed."""
    torch.manual_seed(seed)
    inputs = pytree.tree_map_only(
        Tensor, lambda x: (x * (1 + seed)).requires_grad_() if x.is_floating_point() else x, case.inputs()
    )
    output = run(*inputs)
    layer.zero_grad()
    if total(output).requires_grad:
        total(output).backward()
    differentiated = [x for x in pytree.tree_leaves(inputs) if isinstance(x, Tensor)] + [*layer.parameters()]
    return [*leaves(output), *(x.grad.clone() for x in differentiated if x.grad is not None)]


@pytest.mark.parametrize("name", CASES)
def test_one_graph_in_training_and_one_in_evaluation(name):
    """Outputs, gradients and state equal those of eager; ranges change, and are learned from the third step on."""
    torch.compiler.reset()
    case = CASES[name]
    layer = case.make(FAMILIES["int8, channel"])
    for module in layer.modules():
        if isinstance(module, RuntimeStats):
            module.collect_stats_steps = 3
    eager, graphs, counts = copy.deepcopy(layer), CompileCounterWithBackend("aot_eager"), {}
    with torch._dynamo.config.patch(allow_rnn=True):
        run = torch.compile(layer, fullgraph=True, backend=graphs)
        for mode in (True, False):
            layer.train(mode), eager.train(mode)
            for seed in range(10 if mode else 2):
                ours, theirs = step(layer, run, case, seed), step(eager, eager, case, seed)
                assert (len(theirs), True) == (len(ours), all(map(torch.equal, theirs, ours)))
            counts[mode] = graphs.frame_count
    assert {True: 1, False: 2} == counts
    assert all(map(torch.equal, eager.state_dict().values(), layer.state_dict().values()))


def test_one_number_format_after_another():
    """Layers of several formats compile as one graph each, one after the other in a process."""
    torch.compiler.reset()
    x = torch.randn(2, 64)
    for recipe in (Fp8e4m3OCPWeightPerChannel, MXFp4Weight, Fp8e5m2OCPWeightPerTensor, Int4WeightPerTensor):
        layer = QuantLinear(64, 8, weight_quant=recipe).eval()
        with torch.no_grad():
            assert torch.equal(layer(x), torch.compile(layer, fullgraph=True, backend="aot_eager")(x))
