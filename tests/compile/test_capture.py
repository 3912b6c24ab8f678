"""Networks as graphs: `torch.export`, `torch.fx`, `torch.jit.trace`."""

import pytest
import torch
from torch import nn

import brevq.nn as qnn
from brevq.graph import calibrating
from brevq.quant_tensor import QuantTensor
from tests.compile.networks import NETWORKS, Residual, images


def calibrated(network):
    """A network in evaluation, with fixed ranges."""
    model = NETWORKS[network]().eval()
    with calibrating(model):
        model(images())
    return model


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("network", NETWORKS)
def test_exported_for_batches_of_any_size(network, strict):
    """An exported network gives the outputs of eager, for batches of any size."""
    model = calibrated(network)
    exported = torch.export.export(
        model, (images(),), dynamic_shapes=({0: torch.export.Dim("batch")},), strict=strict
    ).module()
    assert [True] * 3 == [torch.equal(model(images(number)), exported(images(number))) for number in (2, 3, 5)]


def test_exported_for_training():
    """A network that is exported in training gives its outputs, and observes as it does."""
    model, twin = Residual(), Residual()
    model(images()), twin.load_state_dict(model.state_dict())
    exported = torch.export.export(model, (images(),)).module()
    assert [True] * 3 == [torch.equal(twin(images(seed=seed)), exported(images(seed=seed))) for seed in range(3)]


def test_exported_programs_are_saved(tmp_path):
    """What `torch.export.save` writes, another process can load without brevq."""
    model = calibrated("sequential")
    torch.export.save(torch.export.export(model, (images(),)), tmp_path / "model.pt2")
    assert torch.equal(model(images()), torch.export.load(tmp_path / "model.pt2").module()(images()))


def test_a_quantized_tensor_comes_out_of_an_export():
    """A layer that returns a `QuantTensor` still does after export."""
    layer = qnn.QuantIdentity(return_quant_tensor=True)
    with calibrating(layer.eval()):
        layer(images())
    exported = torch.export.export(layer, (images(),)).module()(images())
    assert isinstance(exported, QuantTensor)
    assert torch.equal(layer(images()).value, exported.value)


@pytest.mark.parametrize("network", NETWORKS)
def test_symbolic_trace(network):
    """A symbolically traced network gives the outputs of eager, and has layers as nodes."""
    model = calibrated(network)
    traced = torch.fx.symbolic_trace(model)
    layers = {name for name, module in model.named_modules() if isinstance(module, qnn.QuantLinear)}
    assert layers <= {node.target for node in traced.graph.nodes if node.op == "call_module"}
    assert torch.equal(model(images(3)), traced(images(3)))


def test_a_traced_network_trains():
    """A symbolically traced network is one of the same layers: it observes and learns as before."""
    model, twin = Residual(), Residual()
    twin.load_state_dict(model.state_dict())
    traced = torch.fx.symbolic_trace(model)
    for seed in range(5):
        ours, theirs = traced(images(seed=seed)), twin(images(seed=seed))
        assert torch.equal(ours, theirs)
    assert all(map(torch.equal, twin.state_dict().values(), model.state_dict().values()))


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize("network", NETWORKS)
def test_jit_trace_without_gradients(network):
    """Without gradients, `torch.jit.trace` gives the outputs of eager, for batches of any size."""
    model = calibrated(network)
    with torch.no_grad():
        traced = torch.jit.trace(model, images())
        assert [True] * 2 == [torch.equal(model(images(number)), traced(images(number))) for number in (2, 5)]


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:`torch.jit:DeprecationWarning")
def test_jit_trace_of_large_tensors():
    """What eager computes piece by piece is traced as a whole, for batches of any size."""
    layer = qnn.QuantReLU()
    with calibrating(layer.eval()):
        layer(torch.rand(8))
    with torch.no_grad():
        traced = torch.jit.trace(layer, torch.rand(4, 2**20))
        x = torch.rand(1, 2**20)
        assert torch.equal(layer(x), traced(x))


@pytest.mark.parametrize("mode", [True, False])
def test_export_of_shared_quantizers(mode):
    """Layers that share a quantizer and a weight are exported with what they share."""
    model = nn.Sequential(qnn.QuantLinear(4, 4), nn.ReLU(), qnn.QuantLinear(4, 4))
    model[2].weight = model[0].weight
    model[2].weight_quant = model[0].weight_quant
    x = torch.randn(2, 4)
    assert torch.equal(model.train(mode)(x), torch.export.export(model, (x,)).module()(x))
