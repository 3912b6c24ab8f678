"""Compiled networks give the numbers of eager ones, in few graphs."""

import copy

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

import brevq.nn as qnn
from brevq.errors import UncalibratedError
from brevq.graph import calibrating
from brevq.quant_tensor import QuantTensor
from tests.compile.networks import NETWORKS, Residual, images, sequential


@pytest.fixture(autouse=True)
def _nothing_compiled():
    """Begin without graphs, and leave none."""
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def compiled(model, **options):
    """The model as one graph each time, and what counts the graphs."""
    graphs = CompileCounterWithBackend("aot_eager")
    return torch.compile(model, fullgraph=True, backend=graphs, **options), graphs


def trained(model, run, steps=10):
    """Outputs, gradients and state of some steps of training, each with another range."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    seen = []
    for step in range(steps):
        x = images(seed=step).requires_grad_()
        optimizer.zero_grad()
        output = run(x)
        output.square().mean().backward()
        seen += [output.detach(), x.grad, *(p.grad.clone() for p in model.parameters() if p.grad is not None)]
        optimizer.step()
    return [*seen, *model.state_dict().values()]


def equal(ours, theirs):
    """Whether two lists of tensors are equal bit for bit."""
    return len(ours) == len(theirs) and all(map(torch.equal, ours, theirs))


@pytest.mark.parametrize("network", NETWORKS)
def test_training_equals_eager(network):
    """Ten steps, in which ranges are observed and then learned: outputs, gradients and states are those of eager."""
    model = NETWORKS[network]()
    eager = copy.deepcopy(model)
    run, _ = compiled(model)
    assert equal(trained(eager, eager), trained(model, run))


@pytest.mark.parametrize(("network", "graphs"), [("residual", 1), ("sequential", 1), ("learned", 2)])
def test_training_compiles_once(network, graphs):
    """No change of statistics or phase asks for another graph; learned scales that begin with the first batch do."""
    model = NETWORKS[network]()
    run, counter = compiled(model)
    trained(model, run)
    assert graphs == counter.frame_count


def test_a_batch_before_compiling_saves_a_graph():
    """Weights that begin to learn their scale in eager need one graph alone."""
    model = NETWORKS["learned"]()
    model(images())
    run, counter = compiled(model)
    trained(model, run)
    assert 1 == counter.frame_count


@pytest.mark.parametrize("network", NETWORKS)
def test_evaluation_equals_eager(network):
    """After calibration, outputs for other images are those of eager, from one graph."""
    model = NETWORKS[network]().eval()
    with calibrating(model):
        model(images())
    run, counter = compiled(model)
    assert [True] * 3 == [torch.equal(model(images(seed=seed)), run(images(seed=seed))) for seed in range(3)]
    assert 1 == counter.frame_count


def test_epochs_settle_after_three_graphs():
    """Epochs of training and evaluation: one graph that observes, one that learned, one that evaluates."""
    model = sequential()
    run, counter = compiled(model)
    graphs = []
    for _ in range(3):
        trained(model.train(), run)
        with torch.no_grad():
            model.eval(), run(images())
        graphs.append(counter.frame_count)
    assert [2, 3, 3] == graphs


def test_epochs_with_calibration_stay_below_the_limit():
    """Training, evaluation and calibration in turn need 5 graphs; torch keeps 8."""
    model = sequential()
    run, counter = compiled(model)
    graphs = []
    for _ in range(3):
        trained(model.train(), run)
        model.eval()
        with torch.no_grad():
            run(images())
            with calibrating(model):
                run(images())
                run(images(seed=1))
            run(images())
        graphs.append(counter.frame_count)
    assert [4, 5, 5] == graphs


def test_calibration_can_be_compiled():
    """Ranges that compiled calls observe are those that eager calls observe."""
    states = []
    for compile_it in (False, True):
        torch.manual_seed(0)
        model = Residual().eval()
        run = compiled(model)[0] if compile_it else model
        with calibrating(model):
            for seed in range(3):
                run(images(seed=seed))
        states.append(list(model.state_dict().values()))
    assert equal(*states)


def test_batches_of_any_size():
    """A second size of batches compiles once more, for any; batches of one are a size of their own."""
    model = sequential().eval()
    with calibrating(model):
        model(images())
    run, counter = compiled(model)
    graphs = []
    for number in (2, 3, 4, 5, 6, 1):
        assert torch.equal(model(images(number)), run(images(number)))
        graphs.append(counter.frame_count)
    assert [1, 2, 2, 2, 2, 3] == graphs


def test_a_quantized_tensor_comes_out():
    """A compiled layer returns the `QuantTensor` that it returns in eager."""
    layer = qnn.QuantIdentity(return_quant_tensor=True)
    with calibrating(layer.eval()):
        layer(images())
    ours, theirs = compiled(layer)[0](images()), layer(images())
    assert isinstance(ours, QuantTensor)
    assert equal([ours.value, ours.scale, ours.bit_width], [theirs.value, theirs.scale, theirs.bit_width])


def test_without_data_the_error_says_so():
    """An uncalibrated model that is compiled is refused in the words of eager, if the graph may break there."""
    model = Residual().eval()
    with pytest.raises(UncalibratedError, match="has seen no data, so it has no range to quantize to"):
        torch.compile(model, backend="eager")(images())
    torch.compiler.reset()
    with pytest.raises(torch._dynamo.exc.Unsupported, match="has seen no data, so it has no range to quantize to"):
        torch.compile(model, backend="eager", fullgraph=True)(images())


def test_different_scales_are_refused_when_compiled_code_runs():
    """Compiled code can not choose an error by values: the sum of two grids fails when it runs, and names them."""

    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = qnn.QuantIdentity(return_quant_tensor=True)
            self.other = qnn.QuantIdentity(return_quant_tensor=True)

        def forward(self, x):
            return (self.one(x) + self.other(2 * x)).value

    with pytest.raises(RuntimeError, match=r"add: scales of .*Int8ActPerTensor.* differ"):
        compiled(Sum())[0](images())


def test_layers_share_one_limit_unless_isolated():
    """What is compiled one by one counts together, as layers of torch do, unless each has its own count."""
    layers = [qnn.QuantLinear(size, 2) for size in range(1, 11)]
    for layer in layers[:8]:
        compiled(layer)[0](torch.ones(1, layer.in_features))
    with pytest.raises(torch._dynamo.exc.FailOnRecompileLimitHit):
        compiled(layers[8])[0](torch.ones(1, 9))
    torch.compiler.reset()
    for layer in layers:
        x = torch.ones(1, layer.in_features)
        assert torch.equal(layer(x), compiled(layer, isolate_recompiles=True)[0](x))


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # inductor's own
def test_inductor_is_close():
    """Generated code sums in another order, so that outputs differ by the last bits of float32."""
    model = NETWORKS["sequential"]()
    trained(model, model)
    model.eval()
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(model, fullgraph=True)(images()), model(images()), rtol=0, atol=1e-5)
