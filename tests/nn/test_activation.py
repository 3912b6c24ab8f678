"""Activation layers: their twins' numbers, their ranges, and their overrides."""

import copy
import functools
import io
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from brevq import nn as qnn
from brevq.core.phase import Phase
from brevq.core.stats import AbsPercentile
from brevq.errors import ArgumentError, ArgumentTypeError
from brevq.graph import calibrating
from brevq.nn import QuantIdentity, QuantReLU
from brevq.quant_tensor import QuantTensor
from brevq.quantizer import Quantizer
from injectors import Int8ActPerTensor, ShiftedUint8ActPerTensor, Uint8ActPerTensor

UNSIGNED, SIGNED = Uint8ActPerTensor, Int8ActPerTensor
#: Layer, twin, arguments of both, and the default recipe.
LAYERS = [
    pytest.param(qnn.QuantIdentity, nn.Identity, {}, SIGNED, id="identity"),
    pytest.param(qnn.QuantReLU, nn.ReLU, {}, UNSIGNED, id="relu"),
    pytest.param(qnn.QuantReLU6, nn.ReLU6, {}, UNSIGNED, id="relu6"),
    pytest.param(qnn.QuantLeakyReLU, nn.LeakyReLU, {"negative_slope": 0.2}, SIGNED, id="leaky-relu"),
    pytest.param(qnn.QuantPReLU, nn.PReLU, {"num_parameters": 6}, SIGNED, id="prelu"),
    pytest.param(qnn.QuantELU, nn.ELU, {"alpha": 0.5}, SIGNED, id="elu"),
    pytest.param(qnn.QuantGELU, nn.GELU, {"approximate": "tanh"}, SIGNED, id="gelu"),
    pytest.param(qnn.QuantSiLU, nn.SiLU, {}, SIGNED, id="silu"),
    pytest.param(qnn.QuantMish, nn.Mish, {}, SIGNED, id="mish"),
    pytest.param(qnn.QuantHardSwish, nn.Hardswish, {}, SIGNED, id="hard-swish"),
    pytest.param(qnn.QuantSigmoid, nn.Sigmoid, {}, UNSIGNED, id="sigmoid"),
    pytest.param(qnn.QuantHardSigmoid, nn.Hardsigmoid, {}, UNSIGNED, id="hard-sigmoid"),
    pytest.param(qnn.QuantTanh, nn.Tanh, {}, SIGNED, id="tanh"),
    pytest.param(qnn.QuantHardTanh, nn.Hardtanh, {"min_val": -0.5, "max_val": 2.0}, SIGNED, id="hard-tanh"),
    pytest.param(qnn.QuantSoftmax, nn.Softmax, {"dim": -1}, UNSIGNED, id="softmax"),
]


def run(module, x):
    """The output of a module, and the gradients of its input and parameters."""
    leaf = x.clone().requires_grad_()
    y = module(leaf)
    y.square().sum().backward()
    return [y, leaf.grad, *(p.grad for p in module.parameters())]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("layer", "twin", "arguments", "recipe"), LAYERS)
def test_without_a_quantizer_a_layer_is_its_twin(layer, twin, arguments, recipe, training):
    """With `act_quant` None a layer is its twin bit for bit, forward and backward, and its state is the twin's."""
    ours, theirs = layer(**arguments, act_quant=None).train(training), twin(**arguments).train(training)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = torch.randn(5, 6)
    assert all(torch.equal(a, b) for a, b in zip(run(ours, x), run(theirs, x), strict=True))


@pytest.mark.parametrize(("layer", "twin", "arguments", "recipe"), LAYERS)
def test_output_is_that_of_the_twin_on_its_default_grid(layer, twin, arguments, recipe):
    """A layer is its twin to `isinstance`, and quantizes its output to 8 bits, unsigned if never below 0."""
    ours, theirs, x = layer(**arguments), twin(**arguments), torch.randn(5, 6)
    assert isinstance(ours, twin)
    assert recipe is ours.act_quant.recipe
    assert torch.equal(Quantizer(recipe, {})(theirs(x)).value, ours(x))


@pytest.mark.parametrize(("layer", "twin", "arguments", "recipe"), LAYERS)
def test_a_trained_layer_is_copied_and_saved(layer, twin, arguments, recipe):
    """A float state of the twin and a calibrated state load, and copies compute the same."""
    ours, fresh, x = layer(**arguments).eval(), layer(**arguments).eval(), torch.randn(5, 6)
    ours.load_state_dict(twin(**arguments).state_dict(), strict=True)
    with calibrating(ours):
        ours(x)
    fresh.load_state_dict(ours.state_dict(), strict=True)
    file = io.BytesIO()
    torch.save(ours, file)
    file.seek(0)
    copies = [copy.deepcopy(ours), pickle.loads(pickle.dumps(ours)), torch.load(file, weights_only=False), fresh]
    assert all(torch.equal(ours(x), each(x)) for each in copies)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("layer", "twin", "arguments", "recipe"), LAYERS)
def test_half_precision_stays(layer, twin, arguments, recipe, dtype):
    """A layer returns the dtype that it is given."""
    ours = layer(**arguments, return_quant_tensor=True).to(dtype)
    out = ours(torch.randn(5, 6).to(dtype))
    assert (dtype, torch.float32) == (out.value.dtype, out.scale.dtype)


@pytest.mark.parametrize("training", [True, False])
def test_all_of_them_compile_without_a_break(training):
    """A network of all activation layers compiles to one graph, with the numbers of eager code."""
    network = nn.Sequential(*(case.values[0](**case.values[2]) for case in LAYERS)).train(training)
    x = torch.randn(5, 6)
    with calibrating(network, then="learned"):
        network(x)
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    assert all(torch.equal(a, b) for a, b in zip(run(network, x)[:2], run(compiled, x)[:2], strict=True))


def test_relu_keeps_the_grid_of_its_input():
    """Without a quantizer of its own, ReLU of a QuantTensor lies on the grid that the input has."""
    x = QuantIdentity(return_quant_tensor=True)(torch.tensor([-1.0, 0.5]))
    y = QuantReLU(act_quant=None, return_quant_tensor=True)(x)
    assert ([0, 64], 8, True) == (y.int().tolist(), y.bit_width.item(), y.signed)
    assert torch.equal(x.scale, y.scale)


def test_a_grid_that_is_left_is_refused():
    """A QuantTensor of a function that leaves the grid of its input, without a quantizer, is refused."""
    network = nn.Sequential(
        QuantIdentity(return_quant_tensor=True), qnn.QuantSigmoid(act_quant=None, return_quant_tensor=True)
    )
    with pytest.raises(ArgumentError) as error:
        network(torch.randn(5))
    assert str(error.value) == (
        "`1` (QuantSigmoid) got `return_quant_tensor=True` and `act_quant=None`, so it returns its input's grid, and "
        "its function leaves that.\nGive it an `act_quant`"
    )


def test_a_grid_that_is_not_there_is_refused():
    """A QuantTensor of a plain tensor, without a quantizer, is refused with both ways out."""
    with pytest.raises(ArgumentError) as error:
        QuantReLU(act_quant=None, return_quant_tensor=True)(torch.randn(5))
    assert str(error.value) == (
        "A QuantReLU got `return_quant_tensor=True` and `act_quant=None`, so it returns its input's grid, and that is "
        "a plain tensor.\nGive it an `act_quant`, or let the layer before it return a QuantTensor: "
        "return_quant_tensor=True"
    )


def test_a_quant_tensor_is_taken_by_its_values():
    """A layer with a quantizer quantizes the function of the values, whatever grid they come on."""
    x = QuantIdentity(act_quant=ShiftedUint8ActPerTensor, return_quant_tensor=True)(torch.randn(5, 6))
    assert torch.equal(qnn.QuantTanh()(x.value), qnn.QuantTanh()(x))


def test_overrides_have_no_prefix():
    """Overrides of an activation layer are names of the recipe as they are."""
    assert 3 == QuantReLU(bit_width=3).act_quant.recipe.bit_width


def test_misspelt_override_is_refused():
    """A misspelt override names the near miss."""
    with pytest.raises(ArgumentTypeError) as error:
        QuantReLU(bitwidth=3)
    assert str(error.value) == (
        "QuantReLU got `bitwidth`, and nothing in Uint8ActPerTensor takes `bitwidth`. Did you mean `bit_width`?"
    )


def test_twin_arguments_stay():
    """The twin's own arguments are taken as the twin takes them."""
    x = torch.tensor([-1.0, 2.0])
    QuantReLU(inplace=True)(x)
    assert [0.0, 2.0] == x.tolist()


def test_observed_values_are_those_of_numpy():
    """While it observes, ReLU's output is round(relu(x) / s) * s with s the largest value of the batch over 255."""
    layer, x = QuantReLU(), torch.randn(50)
    relu = np.maximum(x.numpy(), 0)
    scale = relu.max() / np.float32(255)
    expected = np.clip(np.rint(relu / scale), 0, 255) * scale
    assert np.array_equal(expected, layer(x).detach().numpy())


def test_a_quant_tensor_comes_out_where_asked_for():
    """With `return_quant_tensor` the output carries its scale, and another layer takes it as it is."""
    x = torch.randn(5, 6)
    out = QuantIdentity(return_quant_tensor=True)(x)
    assert isinstance(out, QuantTensor)
    assert torch.equal(QuantReLU(act_quant=None)(out.value), QuantReLU(act_quant=None)(out))


def test_training_passes_from_observing_to_learning():
    """After `collect_stats_steps` batches in training the range is a parameter, and the phase says so."""
    layer = QuantIdentity(collect_stats_steps=2)
    phases = [layer.act_quant.phase]
    for _ in range(3):
        layer(torch.randn(10)).sum().backward()
        phases.append(layer.act_quant.phase)
    assert [Phase.EMPTY, Phase.OBSERVE, Phase.LEARNED, Phase.LEARNED] == phases
    assert "phase=learned" in repr(layer)


# --- ReLU and its quantizer in one -----------------------------------------------------------------------------------


def _in_phase(phase, **arguments):
    """A ReLU that has seen data: it observes for ever, or its range is learned or fixed."""
    layer, x = QuantReLU(collect_stats_steps=2**30, **arguments), torch.randn(5000)
    if phase == "observe":
        layer(x)
        return layer
    with calibrating(layer, then=phase):
        layer(x)
    return layer.train()


def _watched(layer):
    """The same layer, whose quantizer somebody watches: it is called with what ReLU returns."""
    layer = copy.deepcopy(layer)
    layer.act_quant.register_forward_pre_hook(lambda module, args: None)
    return layer


def _step(layer, x):
    """Values, and gradients of the input and of the range."""
    leaf = x.clone().requires_grad_()
    y = layer(leaf * 1)
    value = layer.act_quant.tensor_quant.scaling_impl.runtime_stats.value
    y.backward(torch.linspace(-1, 2, x.numel()).to(y.dtype))
    return y.detach(), leaf.grad, value.grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("size", [10, 5000, 300_000])
@pytest.mark.parametrize("bit_width", [2, 4, 8, 9])
@pytest.mark.parametrize("phase", ["observe", "learned", "fixed"])
def test_relu_and_its_quantizer_in_one(phase, bit_width, size, dtype):
    """Values and gradients are those of one after the other; zeros and huge ones included."""
    layer, x = _in_phase(phase, bit_width=bit_width), torch.randn(size).to(dtype)
    x[:5] = torch.tensor([0.0, -0.0, -1e-3, 1e-3, -9.0])
    if phase != "observe":
        x[5:7] = torch.tensor([9.0, 1e30])
    (y, of_x, of_range), (expected, passed, slope) = _step(layer, x), _step(_watched(layer), x)
    assert torch.equal(expected, y)
    if phase == "observe":  # what the range hands on to the largest value
        assert torch.allclose(passed, of_x, rtol=1e-3, atol=1e-3)
    else:
        assert torch.equal(passed, of_x)
    assert (slope is None) == (of_range is None)
    if slope is not None:  # sums, in another order, of what is known to 2**-13, whose errors have either sign
        assert torch.allclose(slope, of_range, rtol=1e-4, atol=1e-6 * size)


@pytest.mark.parametrize("phase", ["observe", "learned", "fixed"])
def test_relu_is_repeated_by_checkpointing(phase):
    """Activation checkpointing changes no number."""
    layer, x = _in_phase(phase), torch.randn(5000)
    repeated = copy.deepcopy(layer)
    plain, again = _step(layer, x), []
    leaf = x.clone().requires_grad_()
    y = checkpoint(repeated, leaf * 1, use_reentrant=False)
    y.backward(torch.linspace(-1, 2, x.numel()))
    again = [y.detach(), leaf.grad]
    assert [True, True] == [torch.equal(one, other) for one, other in zip(plain[:2], again, strict=True)]


def test_relu_that_learning_begins_after_is_repeated():
    """The step that ends observing is repeated as it was, and the next one as it is."""
    layer, found = QuantReLU(collect_stats_steps=2), []
    for step in range(4):
        x = torch.randn(5000, generator=torch.Generator().manual_seed(step)).requires_grad_()
        y = checkpoint(lambda x: layer(x * 1), x, use_reentrant=False)
        alone = copy.deepcopy(layer)
        y.sum().backward()
        found.append((str(alone.act_quant.phase), (x.grad[x <= 0] == 0).all().item()))
    assert [("observe", True), ("learned", True), ("learned", True), ("learned", True)] == found


@pytest.mark.parametrize(("phase", "kept"), [("observe", 2), ("learned", 2), ("fixed", 1)])
def test_bytes_that_relu_keeps(phase, kept):
    """Two bytes are kept of each value for a range that is observed or learned, and one for one that is fixed."""
    layer, x, sizes = _in_phase(phase), torch.randn(20_000, requires_grad=True) * 1, {}
    with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.update({t.data_ptr(): t.nbytes}) or t, lambda t: t):
        layer(x)
    assert [20_000 * kept] == [size for size in sizes.values() if size > 2000]


def test_statistics_of_ones_own_see_relu():
    """A statistic that is made from one of ours, and knows nothing of ReLU, is that of ReLU's output."""

    class Second(AbsPercentile):
        """The second largest value, of whatever sign."""

        def forward(self, x):
            return self.granularity_impl.to_scale(x.flatten().topk(2).values[1] + x.flatten().amin())

    layer = QuantReLU(scaling_stats_impl=Second, collect_stats_steps=2**30)
    x = torch.linspace(-9.0, 5.0, 20_000, requires_grad=True)
    outputs = [layer(x * 1) for _ in range(2)]
    assert torch.equal(*outputs)
    assert outputs[1].max().item() == pytest.approx(x.detach().topk(2).values[1].item(), rel=1e-6)


def test_the_last_batches_that_are_observed():
    """Observing ends where it would, with the average that it would have, whichever way a batch was observed."""
    batches = torch.randn(70, 20_000, generator=torch.Generator().manual_seed(0))
    layer = QuantReLU(collect_stats_steps=69)
    for x in batches:
        layer(x.clone().requires_grad_() * 1).sum().backward()
    average = functools.reduce(
        lambda found, x: 0.9 * found + 0.1 * x if found else x, [max(x.max().item(), 0.0) for x in batches[:69]], 0.0
    )
    stats = layer.act_quant.tensor_quant.scaling_impl.runtime_stats
    assert (Phase.LEARNED, 69, pytest.approx(average, rel=1e-5)) == (layer.act_quant.phase, stats.steps, stats.average)


def test_relu_in_place_stays_in_place():
    """A ReLU that overwrites its input does so, whatever its quantizer could do."""
    layer = _in_phase("learned", inplace=True)
    x = torch.randn(5000, requires_grad=True) * 1
    y = layer(x)
    assert (False, False) == (bool((x < 0).any()), bool((y < 0).any()))
