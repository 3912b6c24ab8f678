"""Recurrent layers: their twins' numbers and shapes, what is quantized in the loop, shared scales, and refusals."""

import copy
import inspect
import io
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from brevq import nn as qnn
from brevq.core.scaling import ConstScaling
from brevq.errors import ArgumentError, ArgumentTypeError, UncalibratedError
from brevq.graph import calibrating
from brevq.quant_tensor import QuantTensor
from brevq.quantizer import Quantizer
from injectors import (
    Int8ActPerTensor,
    Int8ActPerTensorDynamic,
    Int8BiasPerTensor,
    Int8WeightPerChannel,
    Int8WeightPerChannelA2Q,
    Int8WeightPerTensor,
    Int8WeightPerTensorLSQ,
    Int32Bias,
    MXInt8Weight,
    Uint8ActPerTensor,
)

# torch's notice about its own layer.
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning")

TIME, BATCH, FEATURES, HIDDEN = 5, 3, 4, 6
LENGTHS = torch.tensor([2, 5, 3])

LAYERS = {
    "rnn": ("RNN", {}),
    "rnn-relu-no-bias": ("RNN", {"nonlinearity": "relu", "bias": False, "num_layers": 2}),
    "lstm": ("LSTM", {}),
    "lstm-projected": ("LSTM", {"proj_size": 2, "num_layers": 2, "bidirectional": True}),
    "lstm-batch-first": ("LSTM", {"batch_first": True, "num_layers": 2, "dropout": 0.4}),
    "gru": ("GRU", {}),
    "gru-both-ways": ("GRU", {"num_layers": 2, "bidirectional": True, "batch_first": True, "bias": False}),
}
INPUTS = ["batched", "unbatched", "packed", "packed-unsorted"]
STATES = [pytest.param(False, id="from-zeros"), pytest.param(True, id="from-states")]
NAMES = ["RNN", "LSTM", "GRU"]


def twins(name, arguments, dtype=torch.float32, **quant):
    """A quantized layer and its float twin, with the same parameters."""
    torch.manual_seed(1)
    twin = getattr(nn, name)(FEATURES, HIDDEN, **arguments, dtype=dtype)
    layer = getattr(qnn, "Quant" + name)(FEATURES, HIDDEN, **arguments, dtype=dtype, **quant)
    layer.load_state_dict(twin.state_dict(), strict=True)
    return layer, twin


def inputs(layer, kind, given, dtype=torch.float32):
    """The arguments of a call: a sequence of one kind, and initial states if they are to be given."""
    shape = (BATCH, TIME, FEATURES) if layer.batch_first else (TIME, BATCH, FEATURES)
    x = torch.randn(TIME, FEATURES) if kind == "unbatched" else torch.randn(shape)
    x = x.to(dtype).requires_grad_()
    lengths = LENGTHS if kind == "packed-unsorted" else LENGTHS.sort(descending=True).values
    if kind.startswith("packed"):
        x = pack_padded_sequence(x, lengths, layer.batch_first, enforce_sorted=kind == "packed")
    cells = layer.num_layers * (2 if layer.bidirectional else 1)
    batch = () if kind == "unbatched" else (BATCH,)
    h = torch.randn(cells, *batch, layer.proj_size or HIDDEN, dtype=dtype, requires_grad=True)
    c = torch.randn(cells, *batch, HIDDEN, dtype=dtype, requires_grad=True)
    states = (h, c) if isinstance(layer, nn.LSTM) else h
    return (x, states) if given else (x,)


def leaves(tree):
    """All tensors of what a layer takes or returns."""
    if isinstance(tree, torch.Tensor):
        return [tree]
    return [] if tree is None else [leaf for part in tree for leaf in leaves(part)]


def outcome(call, module, arguments):
    """What a layer returns, and all gradients of it."""
    torch.manual_seed(2)
    module.zero_grad()
    result = leaves(call(*arguments))
    wanted = [leaf for leaf in leaves(arguments) if leaf.requires_grad]
    loss = sum(part.square().sum() for part in result if part.is_floating_point())
    gradients = torch.autograd.grad(loss, [*wanted, *module.parameters()], allow_unused=True)
    return [*result, *(gradient for gradient in gradients if gradient is not None)]


def looped(layer):
    """The layer's own loop, which is not run where every quantizer is None."""

    def call(x, hx=None):
        layout = qnn.unrolling.Layout.of(x, layer.batch_first)
        return layer._unrolled(x.data if isinstance(x, PackedSequence) else x, hx, layout)

    return call


def const(recipe, scale_of_one):
    """A recipe whose largest code stands for a given value."""
    return recipe.let(scaling_impl=ConstScaling, scaling_init=scale_of_one)


def settled(layer, *arguments):
    """The layer with the ranges of one call, in evaluation."""
    layer.eval()
    with calibrating(layer):
        layer(*arguments)
    return layer


@pytest.mark.parametrize("given", STATES)
@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("case", LAYERS)
@pytest.mark.parametrize("training", [True, False])
def test_without_quantizers_a_layer_is_its_twin(case, kind, given, training):
    """With every quantizer None outputs, states and gradients equal the twin's bit for bit."""
    layer, twin = twins(*LAYERS[case], weight_quant=None)
    arguments = inputs(layer, kind, given)
    ours, theirs = (outcome(module.train(training), module, arguments) for module in (layer, twin))
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("given", STATES)
@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("case", LAYERS)
@pytest.mark.parametrize("training", [True, False])
def test_loop_is_the_twin(case, kind, given, training):
    """The loop itself gives the twin's outputs, states and gradients, dropout included, within rounding."""
    layer, twin = twins(*LAYERS[case], torch.float64, weight_quant=None)
    arguments = inputs(layer, kind, given, torch.float64)
    ours = outcome(looped(layer.train(training)), layer, arguments)
    theirs = outcome(twin.train(training), twin, arguments)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)  # sums of tens of products in another order


@pytest.mark.parametrize("case", LAYERS)
def test_quantized_weights_are_the_twins(case):
    """The output is the twin's for the weights that `quant_weight` gives."""
    layer, twin = twins(*LAYERS[case], torch.float64, weight_quant=Int8WeightPerChannel, weight_bit_width=4)
    for name, parameter in twin.named_parameters():
        parameter.data = layer.quant_weight(name).value.detach() if name.startswith("weight") else parameter.data
    arguments = inputs(layer, "packed-unsorted", given=True, dtype=torch.float64)
    for a, b in zip(leaves(layer.eval()(*arguments)), leaves(twin.eval()(*arguments)), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)  # as above


@pytest.mark.parametrize("name", NAMES)
def test_layer_is_an_instance_of_its_twin(name):
    """A layer is its twin to `isinstance`, and takes its arguments in the order that torch documents."""
    layer = getattr(qnn, "Quant" + name)
    nonlinearity = ["nonlinearity"] if name == "RNN" else []
    documented = ["input_size", "hidden_size", "num_layers", *nonlinearity, "bias", "batch_first", "dropout"]
    documented += ["bidirectional", *(["proj_size"] if name == "LSTM" else []), "device", "dtype"]
    assert issubclass(layer, getattr(nn, name))
    assert documented == list(inspect.signature(layer).parameters)[: len(documented)]


def test_positional_arguments_are_the_twins():
    """Arguments by position mean what they mean to the twin."""
    layer, twin = qnn.QuantRNN(3, 4, 2, "relu", False, True), nn.RNN(3, 4, 2, "relu", False, True)
    assert twin.extra_repr() == layer.extra_repr()
    assert "relu" == layer.nonlinearity


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def rounded(x, step, low, high):
    """`x` on a grid of integers."""
    return np.clip(np.rint(x / step), low, high) * step


def signed(x, largest):
    """`x` on a signed 8-bit grid whose largest code stands for `largest`."""
    return rounded(x, largest / 128, -128, 127)


def unsigned(x):
    """`x` on an unsigned 8-bit grid of 0 to 1."""
    return rounded(x, 1 / 255, 0, 255)


GRIDS = {"hidden_quant": 0.5, "accumulator_quant": 2.0, "cell_quant": 1.0, "tanh_quant": 0.9}


def numpy_step(name, x, h, c, w):
    """A time step on the grids above, in NumPy: h and c."""
    ih, hh = x @ w["weight_ih_l0"].T + w["bias_ih_l0"], h @ w["weight_hh_l0"].T + w["bias_hh_l0"]

    def total(sums):
        return signed(sums, GRIDS["accumulator_quant"])

    def tanh(sums):
        return signed(np.tanh(sums), GRIDS["tanh_quant"])

    if name == "RNN":
        return signed(np.tanh(total(ih + hh)), GRIDS["hidden_quant"]), c
    if name == "GRU":
        (ir, iz, i_new), (hr, hz, h_new) = np.split(ih, 3, -1), np.split(hh, 3, -1)
        r, z = unsigned(sigmoid(total(ir + hr))), unsigned(sigmoid(total(iz + hz)))
        new = tanh(total(i_new + r * h_new))
        return signed((1 - z) * new + z * h, GRIDS["hidden_quant"]), c
    i, f, g, o = np.split(total(ih + hh), 4, -1)
    i, f, o = (unsigned(sigmoid(gate)) for gate in (i, f, o))
    c = signed(f * c + i * tanh(g), GRIDS["cell_quant"])
    return signed(o * tanh(c), GRIDS["hidden_quant"]), c


@pytest.mark.parametrize("name", NAMES)
def test_quantized_states_and_gates_are_those_of_numpy(name):
    """With every value of the cell on a grid, outputs and states are those of a loop in NumPy."""
    kind = getattr(qnn, "Quant" + name)
    grids = {key: const(Int8ActPerTensor, largest) for key, largest in GRIDS.items() if key in kind.quants}
    grids |= {"gate_quant": const(Uint8ActPerTensor, 1.0)} if "gate_quant" in kind.quants else {}
    layer, twin = twins(name, {}, torch.float64, weight_quant=None, **grids)
    x = torch.randn(TIME, BATCH, FEATURES, dtype=torch.float64)
    w = {key: parameter.detach().numpy() for key, parameter in twin.named_parameters()}
    h = c = np.zeros((BATCH, HIDDEN))
    expected = []
    for step in x.numpy():
        h, c = numpy_step(name, step, h, c, w)
        expected.append(h)
    output, *states = leaves(layer(x))
    np.testing.assert_allclose(np.stack(expected), output.detach().numpy(), rtol=0, atol=1e-7)  # float32 scales
    for state, final in zip(states, (h, c), strict=False):
        np.testing.assert_allclose(final, state[0].detach().numpy(), rtol=0, atol=1e-7)  # as above


# Outputs and the final c of Brevitas 0.13.4: QuantLSTM(2, 2, weight_bit_width=4), bias and everything within the cell
# in float, in training, first call; parameter k of all, in torch's order, is sin(k), input k is cos(k).
BREVITAS = {
    "per gate": [
        [0.14271152019500732, -0.5074187517166138, -0.40094393491744995, 0.1440892219543457],
        [-0.5828343033790588, 0.12749500572681427, -0.9001287817955017, 0.17791089415550232],
    ],
    "per layer": [
        [0.14521589875221252, -0.5023685097694397, -0.39920735359191895, 0.1497027575969696],
        [-0.5810633897781372, 0.13618673384189606, -0.8959180116653442, 0.18823152780532837],
    ],
}


@pytest.mark.parametrize(
    ("shared", "recipe", "expected"),
    [
        pytest.param({"scale_per_gate": True}, Int8WeightPerChannel, BREVITAS["per gate"], id="per-gate"),
        pytest.param({}, Int8WeightPerTensor, BREVITAS["per layer"], id="per-layer"),
    ],
)
def test_shared_scales_are_those_of_brevitas(shared, recipe, expected):
    """Where Brevitas shares scales between matrices, and input and states share a quantizer, outputs are its own."""
    layer = qnn.QuantLSTM(2, 2, weight_quant=recipe, weight_bit_width=4, share_input_hidden=True, **shared)
    layer.input_quant = Quantizer(Int8ActPerTensor, {})
    layer.hidden_quant = layer.input_quant
    state = nn.LSTM(2, 2).state_dict()
    parts = torch.arange(48.0).sin().split([part.numel() for part in state.values()])
    layer.load_state_dict({name: part.reshape(state[name].shape) for name, part in zip(state, parts, strict=True)})
    output, (_, c) = layer(torch.arange(6.0).cos().reshape(3, 1, 2))
    assert np.concatenate(expected).tolist() == pytest.approx(
        [*output.flatten().tolist(), *c.flatten().tolist()], abs=3e-7
    )  # float32


def test_each_matrix_has_its_quantizer():
    """Each matrix, bias, layer and direction has a quantizer, called after the parameters that it serves."""
    layer = qnn.QuantLSTM(
        3, 4, 2, bidirectional=True, bias_quant=Int8BiasPerTensor, hidden_quant=Int8ActPerTensor,
        cell_quant=Int8ActPerTensor,
    )  # fmt: skip
    cells = ["l0", "l0_reverse", "l1", "l1_reverse"]
    matrices = [f"{kind}_{cell}" for cell in cells for kind in ("ih", "hh")]
    assert [matrices, matrices] == [[*layer.weight_quant], [*layer.bias_quant]]
    assert [["l0", "l1"], cells] == [[*layer.hidden_quant], [*layer.cell_quant]]


@pytest.mark.parametrize("recipe", [Int8WeightPerTensor, Int8WeightPerChannel])
def test_shared_input_hidden_has_the_scale_of_both_matrices(recipe):
    """Input-hidden and hidden-hidden matrix of a layer share the scale of the largest value of both."""
    layer = qnn.QuantGRU(3, 4, weight_quant=recipe, share_input_hidden=True)
    layer.weight_hh_l0.data[0, 0] = 9.0
    scales = [layer.quant_weight(name).scale for name in ("weight_ih_l0", "weight_hh_l0")]
    assert ["l0"] == [*layer.weight_quant]
    assert torch.equal(*scales)
    assert 9 / 127 == pytest.approx(scales[0].flatten()[0].item())


def test_shared_input_hidden_learns_one_scale():
    """A learned scale that both matrices share begins with the mean magnitude of both."""
    layer = qnn.QuantGRU(3, 4, weight_quant=Int8WeightPerTensorLSQ, share_input_hidden=True)
    both = torch.cat([layer.weight_ih_l0, layer.weight_hh_l0], -1).abs().mean().item()
    scales = [layer.quant_weight(name).scale.item() for name in ("weight_ih_l0", "weight_hh_l0")]
    assert [pytest.approx(2 * both / 127**0.5)] * 2 == scales


@pytest.mark.parametrize("share", [False, True])
def test_scale_per_gate_is_that_of_numpy(share):
    """With `scale_per_gate` all rows of a gate have the scale of its largest value."""
    layer = qnn.QuantLSTM(3, 4, weight_quant=Int8WeightPerChannel, scale_per_gate=True, share_input_hidden=share)
    names = ["weight_ih_l0", "weight_hh_l0"]
    largest = [getattr(layer, name).detach().abs().numpy().reshape(4, -1).max(-1) for name in names]
    largest = [np.maximum(*largest)] * 2 if share else largest
    for name, row in zip(names, largest, strict=True):
        quantized = layer.quant_weight(name)
        codes = np.rint(getattr(layer, name).detach().numpy() / np.repeat(row / np.float32(127), 4)[:, None])
        assert np.array_equal(codes.astype(np.int8), quantized.int().numpy())
        assert (16, 1) == quantized.scale.shape


def test_one_quantizer_serves_all_matrices():
    """A quantizer in a recipe's place has one scale, of the largest value of all matrices."""
    quantizer = Quantizer(Int8WeightPerTensor, qnn.QuantLinear(1, 1).supplied_to("weight_quant"))
    layer = qnn.QuantLSTM(3, 4, num_layers=2, weight_quant=quantizer)
    layer.weight_hh_l1.data[0, 0] = -5.0
    scales = [layer.quant_weight(name).scale.item() for name, _ in layer.named_parameters() if "weight_" in name]
    assert [pytest.approx(5 / 127)] * 4 == scales


def test_two_layers_with_one_table_share_its_scales():
    """The quantizers of another layer of the same parts have the scales of the largest values of both."""
    first, second = qnn.QuantGRU(3, 4), qnn.QuantGRU(2, 4)
    second.weight_quant = first.weight_quant
    second.weight_ih_l0.data[0, 0] = 6.0
    scales = [layer.quant_weight().scale.item() for layer in (first, second)]
    assert [pytest.approx(6 / 127)] * 2 == scales


def test_a_projection_has_a_scale_for_each_row():
    """The projection of an LSTM has no gates to share a scale."""
    layer = qnn.QuantLSTM(3, 4, proj_size=2, weight_quant=Int8WeightPerChannel, scale_per_gate=True)
    assert (2, 1) == layer.quant_weight("weight_hr_l0").scale.shape


def steps(quantizer):
    """The number of batches that a quantizer has observed."""
    return int(quantizer.tensor_quant.scaling_impl.runtime_stats.steps)


@pytest.mark.parametrize(("kind", "given", "expected"), [("batched", False, 5), ("packed", True, 6)])
def test_each_time_step_is_observed(kind, given, expected):
    """While observing, each time step counts as a batch, and an initial state that is given as another."""
    layer = qnn.QuantLSTM(FEATURES, HIDDEN, hidden_quant=Int8ActPerTensor, tanh_quant=Int8ActPerTensor)
    layer(*inputs(layer, kind, given))
    assert [expected, 10] == [steps(layer.hidden_quant["l0"]), steps(layer.tanh_quant["l0"])]


def test_padding_is_not_observed():
    """Statistics of a packed sequence are those of its values, whatever pads it."""
    recipe = Int8ActPerTensor.let(scaling_stats_momentum=1.0)
    layer = qnn.QuantRNN(1, 1, nonlinearity="relu", bias=False, weight_quant=None, hidden_quant=recipe)
    layer.load_state_dict({"weight_ih_l0": torch.ones(1, 1), "weight_hh_l0": torch.zeros(1, 1)})
    padded = torch.tensor([[1.0, 1.0], [3.0, 100.0]]).unsqueeze(-1)
    layer(pack_padded_sequence(padded, [2, 1]))
    assert 3.0 == layer.hidden_quant["l0"].tensor_quant.scaling_impl.runtime_stats.average.item()


@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("name", NAMES)
def test_quant_tensor_on_the_hidden_grid(name, kind):
    """The output is a `QuantTensor` on the grid of `hidden_quant`, with the values of the plain output."""
    arguments = {"bidirectional": True, "batch_first": True}
    layer = getattr(qnn, "Quant" + name)(FEATURES, HIDDEN, **arguments, hidden_quant=Int8ActPerTensor)
    (x,) = inputs(layer, kind, given=False)
    plain_output = leaves(settled(layer, x)(x)[0])[0]
    layer.return_quant_tensor = True
    output = layer(x)[0]
    quantized = output.data if isinstance(output, PackedSequence) else output
    assert torch.equal(plain_output, quantized.value)
    assert torch.equal(layer.hidden_quant["l0"].current().scale, quantized.scale)
    assert quantized.is_valid


@pytest.mark.parametrize("recipe", [Int8ActPerTensor, Int8ActPerTensorDynamic])
def test_quant_tensor_has_one_grid_while_ranges_move(recipe):
    """While each step has a range of its own, the output sequence lies on one grid all the same."""
    layer = qnn.QuantGRU(FEATURES, HIDDEN, hidden_quant=recipe, return_quant_tensor=True)
    output, _ = layer(torch.randn(TIME, BATCH, FEATURES))
    assert output.is_valid
    assert output.uniform


def test_output_quant_gives_the_grid():
    """With an `output_quant` the output lies on its grid, in its bits; the states do not."""
    layer = qnn.QuantGRU(FEATURES, HIDDEN, output_quant=Int8ActPerTensor, output_bit_width=3, return_quant_tensor=True)
    output, final = layer(torch.randn(TIME, BATCH, FEATURES))
    assert output.is_valid
    assert 3 == output.bit_width
    assert not torch.equal(final[0], output.value[-1])


@pytest.mark.parametrize("name", NAMES)
def test_a_sequence_in_two_parts(name):
    """In evaluation, a sequence may be cut and its states handed on, and nothing changes."""
    layer = getattr(qnn, "Quant" + name)(FEATURES, HIDDEN, hidden_quant=Int8ActPerTensor)
    x = torch.randn(TIME, BATCH, FEATURES)
    whole, _ = settled(layer, x)(x)
    first, state = layer(x[:2])
    assert torch.equal(whole, torch.cat([first, layer(x[2:], state)[0]]))


def test_tied_biases_are_those_of_numpy():
    """A tied bias has codes round(b / (scale of what enters * scale of the row of its input-hidden matrix))."""
    layer = qnn.QuantLSTM(
        FEATURES, HIDDEN, 2, weight_quant=Int8WeightPerChannel, bias_quant=Int32Bias, input_quant=Int8ActPerTensor,
        hidden_quant=Int8ActPerTensor,
    )  # fmt: skip
    settled(layer, torch.randn(TIME, BATCH, FEATURES))
    for quantizer, number in ((layer.input_quant, 0), (layer.hidden_quant["l0"], 1)):
        entering = quantizer.current()
        weight = getattr(layer, f"weight_ih_l{number}").detach().numpy()
        scale = entering.scale.numpy() * (np.abs(weight).max(axis=1) / np.float32(127))
        for name in (f"bias_ih_l{number}", f"bias_hh_l{number}"):
            bias = layer.quant_bias(name, entering)
            assert np.array_equal(np.rint(getattr(layer, name).detach().numpy() / scale), bias.int().numpy())


def test_tied_biases_per_gate():
    """Where gates share a scale, so do the biases of their rows; the input's grid may come from the layer before."""
    layer = qnn.QuantGRU(3, 4, weight_quant=Int8WeightPerChannel, scale_per_gate=True, bias_quant=Int32Bias)
    x = qnn.QuantIdentity(return_quant_tensor=True)(torch.randn(5, 2, 3))
    expected = x.scale * layer.quant_weight().scale.flatten()
    assert torch.equal(expected, layer.quant_bias("bias_hh_l0", x).scale)
    assert (5, 2, 4) == layer(x)[0].shape


def test_dropout_scales_the_grid_of_what_enters_the_next_layer():
    """What dropout leaves lies on the hidden grid divided by the fraction kept."""
    layer = qnn.QuantLSTM(3, 40, 2, dropout=0.5, bias_quant=Int32Bias, hidden_quant=Int8ActPerTensor)
    rows = torch.randn(8, 40)
    with calibrating(layer):
        layer.hidden_quant["l0"](rows)
    entering, before = layer._between(rows, 0), layer.hidden_quant["l0"](rows)
    kept = entering.value != 0
    assert entering.is_valid
    assert torch.equal(2 * before.scale, entering.scale)
    assert torch.equal(torch.where(kept, 2 * before.value, 0.0), entering.value)
    assert 0 < kept.sum() < kept.numel()


def test_learned_scales_get_gradients():
    """Learned scales of states and gates, and the weights behind them, are trained through the loop."""
    acts = dict.fromkeys(("hidden_quant", "cell_quant", "tanh_quant", "accumulator_quant"), Int8ActPerTensor)
    layer = qnn.QuantLSTM(FEATURES, HIDDEN, **acts, gate_quant=Uint8ActPerTensor)
    x = torch.randn(TIME, BATCH, FEATURES)
    with calibrating(layer, then="learned"):
        layer(x)
    layer(x)[0].square().sum().backward()
    assert [] == [name for name, p in layer.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]


def test_evaluation_before_any_data_is_refused():
    """In evaluation a state's quantizer without a range names itself."""
    model = nn.Sequential(qnn.QuantLSTM(3, 4, hidden_quant=Int8ActPerTensor)).eval()
    with pytest.raises(UncalibratedError, match=r"^`0\.hidden_quant\.l0` \(Int8ActPerTensor\) has seen no data"):
        model(torch.randn(2, 1, 3))


def test_a_quantized_checkpoint_round_trips():
    """State dict, pickle, `torch.save` and deepcopy keep ranges, tables and shared scales."""
    layer = qnn.QuantLSTM(
        FEATURES, HIDDEN, bidirectional=True, share_input_hidden=True, hidden_quant=Int8ActPerTensor,
        gate_quant=Uint8ActPerTensor,
    )  # fmt: skip
    x = torch.randn(TIME, BATCH, FEATURES)
    expected = settled(layer, x)(x)[0]
    buffer = io.BytesIO()
    torch.save(layer, buffer)
    fresh = type(layer)(
        FEATURES, HIDDEN, bidirectional=True, share_input_hidden=True, hidden_quant=Int8ActPerTensor,
        gate_quant=Uint8ActPerTensor,
    ).eval()  # fmt: skip
    fresh.load_state_dict(layer.state_dict())
    copies = [
        fresh,
        pickle.loads(pickle.dumps(layer)),
        torch.load(io.BytesIO(buffer.getvalue()), weights_only=False),
        copy.deepcopy(layer),
    ]
    assert all(torch.equal(expected, each(x)[0]) for each in copies)
    copies[-1].weight_hh_l0.data[0, 0] = 7.0
    assert 7 / 127 == pytest.approx(copies[-1].quant_weight("weight_ih_l0").scale.item())
    assert torch.equal(expected, layer(x)[0])


def test_float_weights_start_learned_ranges_again():
    """A float checkpoint loads strictly, and learned scales are then those of the loaded weights."""
    layer = qnn.QuantGRU(3, 4, weight_quant=Int8WeightPerTensorLSQ)
    layer(torch.randn(2, 1, 3))
    state = {name: torch.full_like(parameter, 2.0) for name, parameter in nn.GRU(3, 4).state_dict().items()}
    layer.load_state_dict(state, strict=True)
    assert 2 * 2 / 127**0.5 == pytest.approx(layer.quant_weight("weight_hh_l0").scale.item(), rel=3e-7)  # float32


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", NAMES)
def test_half_precision_keeps_its_dtype(name, dtype):
    """In half precision outputs and states have that dtype, and scales float32."""
    layer = getattr(qnn, "Quant" + name)(
        FEATURES, HIDDEN, hidden_quant=Int8ActPerTensor, bias_quant=Int32Bias, input_quant=Int8ActPerTensor
    ).to(dtype)
    assert {dtype} == {part.dtype for part in leaves(layer(torch.randn(TIME, BATCH, FEATURES, dtype=dtype)))}
    assert torch.float32 == layer.quant_weight().scale.dtype


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_compiles_as_one_graph(name, training):
    """The loop compiles as one graph, for training and for evaluation, with the same numbers."""
    layer = getattr(qnn, "Quant" + name)(FEATURES, HIDDEN, hidden_quant=Int8ActPerTensor)
    x = torch.randn(2, BATCH, FEATURES)
    settled(layer, x).train(training)
    expected = layer(x)
    with torch._dynamo.config.patch(allow_rnn=True):
        compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")(x)
    assert all(torch.equal(a, b) for a, b in zip(leaves(expected), leaves(compiled), strict=True))


def test_without_quantizers_it_compiles_too():
    """With every quantizer None the loop is compiled in the twin's place, which torch can not compile for training."""
    layer, twin = twins("LSTM", {}, torch.float64, weight_quant=None)
    x = torch.randn(2, BATCH, FEATURES, dtype=torch.float64)
    with torch._dynamo.config.patch(allow_rnn=True):
        compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")(x)[0]
    torch.testing.assert_close(twin(x)[0], compiled, rtol=0, atol=1e-12)  # sums in another order


def test_another_recipe_replaces_the_table():
    """A recipe that is assigned is built for all parts, and None takes the quantizers away."""
    layer = qnn.QuantLSTM(3, 4)
    layer.weight_quant = layer.weight_quant.recipe.let(bit_width=3)
    assert 3 == layer.quant_weight("weight_hh_l0").bit_width
    layer.weight_quant = None
    assert "weight_quant" not in dict(layer.named_modules())


def test_tables_print_what_is_alike_once():
    """Quantizers that print alike are printed once, with the names of all that they serve."""
    text = repr(qnn.QuantLSTM(3, 4, share_input_hidden=True, bidirectional=True))
    assert text.startswith(
        "QuantLSTM(\n  3, 4, bidirectional=True, share_input_hidden=True\n"
        "  (weight_quant): PartQuantizers(\n"
        "    (l0, l0_reverse): Quantizer(Int8WeightPerTensor, signed narrow 8 bits)\n"
    )
    assert 1 == text.count("Int8WeightPerTensor")


def test_an_empty_batch():
    """A batch of no sequences comes out as one."""
    layer = qnn.QuantGRU(3, 4, hidden_quant=Int8ActPerTensor)
    output, final = layer(torch.randn(5, 0, 3))
    assert ((5, 0, 4), (1, 0, 4)) == (output.shape, final.shape)


REFUSALS = [
    pytest.param(
        {"return_quant_tensor": True},
        ArgumentError,
        "QuantLSTM got `return_quant_tensor=True` without `hidden_quant` and `output_quant`, so its output lies on no "
        "grid: give it one of them",
        id="no-grid",
    ),
    pytest.param(
        {"weight_quant": None, "bias_quant": Int32Bias},
        ArgumentTypeError,
        "QuantLSTM got a `bias_quant` and `weight_quant=None`: the bias lies on the grid of input times weight",
        id="bias-without-weight",
    ),
    pytest.param(
        {"weight_quant": Int8WeightPerChannelA2Q},
        ArgumentError,
        "QuantLSTM got `weight_quant=Int8WeightPerChannelA2Q`, which needs the bit width of what a matrix is "
        "multiplied with. A state's is not known before the sequence begins: give it a recipe that is not "
        "accumulator-aware, such as Int8WeightPerChannel",
        id="accumulator-aware",
    ),
    pytest.param(
        {"hidden_bitwidth": 4, "hidden_quant": Int8ActPerTensor},
        ArgumentTypeError,
        "QuantLSTM got `hidden_bitwidth`, and nothing in Int8ActPerTensor takes `bitwidth`. "
        "Did you mean `hidden_bit_width`?",
        id="misspelt-override",
    ),
    pytest.param(
        {"scale_per_gate": 1},
        ArgumentTypeError,
        "`scale_per_gate` (=1) must be True or False, not int",
        id="no-flag",
    ),
    pytest.param(
        {"hidden_quant": "int8"},
        ArgumentTypeError,
        "QuantLSTM got `hidden_quant='int8'`, and needs a recipe (a class, such as injectors.Int8ActPerTensor), "
        "a quantizer, or None",
        id="string",
    ),
]


@pytest.mark.parametrize(("arguments", "error", "message"), REFUSALS)
def test_construction_is_refused(arguments, error, message):
    """Arguments that make no sense are refused, with what to do instead."""
    with pytest.raises(error) as raised:
        qnn.QuantLSTM(3, 4, **arguments)
    assert message == str(raised.value)


@pytest.mark.parametrize("number", [0, 1])
def test_tied_bias_without_an_input_scale_is_refused(number):
    """A tied bias names itself, and where its scale could come from."""
    before = {"input_quant": Int8ActPerTensor} if number else {}
    layer = qnn.QuantLSTM(3, 4, num_layers=2, bias_quant=Int32Bias, **before)
    with pytest.raises(ArgumentError) as raised:
        layer(torch.randn(5, 2, 3))
    assert str(raised.value) == (
        f"`bias_quant.ih_l{number}` (Int32Bias) needs the scale of what enters its layer, and that is a plain tensor.\n"
        "For the first layer give QuantLSTM an `input_quant`, or let the layer before it return a QuantTensor; for "
        "those above it a `hidden_quant`"
    )


def test_tied_bias_without_one_scale_is_refused():
    """A tied bias of rows that have several scales each is refused."""
    layer = qnn.QuantRNN(32, 4, weight_quant=MXInt8Weight, bias_quant=Int32Bias, input_quant=Int8ActPerTensor)
    with pytest.raises(ArgumentError) as raised:
        layer(torch.randn(5, 2, 32))
    assert str(raised.value) == (
        "`bias_quant.ih_l0` (Int32Bias) lies on the grid of the accumulator, and there is none: each row needs one "
        "scale, of the whole input times that of the weight or of its row"
    )


def test_no_time_steps_are_refused():
    """A sequence without time steps is refused."""
    with pytest.raises(ArgumentError) as raised:
        qnn.QuantLSTM(3, 4)(torch.randn(0, 2, 3))
    assert str(raised.value) == (
        "A QuantLSTM needs at least one time step, and its input, of shape (0, 2, 3), has none"
    )


@pytest.mark.parametrize(
    ("layer", "name", "message"),
    [
        (qnn.QuantRNN(3, 4), "weight_hr_l0", "it has the matrices ih_l0, hh_l0"),
        (qnn.QuantRNN(3, 4, weight_quant=None), "weight_ih_l0", "it has float weights"),
    ],
)
def test_other_weights_are_refused(layer, name, message):
    """A weight that is not there, or in float, is refused."""
    with pytest.raises(ArgumentError) as raised:
        layer.quant_weight(name)
    assert f"QuantRNN has no quantized weight `{name}`: {message}" == str(raised.value)


@pytest.mark.parametrize(
    ("layer", "name", "message"),
    [
        (qnn.QuantRNN(3, 4, bias_quant=Int8BiasPerTensor), "bias_ih_l1", "it has the biases ih_l0, hh_l0"),
        (qnn.QuantRNN(3, 4), "bias_ih_l0", "it has float biases, or none"),
        (qnn.QuantRNN(3, 4, bias=False, bias_quant=Int8BiasPerTensor), "bias_ih_l0", "it has float biases, or none"),
    ],
)
def test_other_biases_are_refused(layer, name, message):
    """A bias that is not there, or in float, is refused."""
    with pytest.raises(ArgumentError) as raised:
        layer.quant_bias(name)
    assert f"QuantRNN has no quantized bias `{name}`: {message}" == str(raised.value)


def test_wrong_shapes_are_refused_as_the_twin_does():
    """A state or an input of another size is refused with the twin's message."""
    layer, twin = twins("LSTM", {})
    x, wrong = torch.randn(TIME, BATCH, FEATURES), (torch.zeros(1, BATCH, HIDDEN), torch.zeros(1, 2, HIDDEN))
    for arguments in ((x, wrong), (x[..., :-1],)):
        with pytest.raises(RuntimeError) as theirs:
            twin(*arguments)
        with pytest.raises(RuntimeError) as ours:
            layer(*arguments)
        assert str(theirs.value) == str(ours.value)


def test_quant_tensors_go_in():
    """A `QuantTensor` goes in as its value, packed or not."""
    layer = qnn.QuantGRU(FEATURES, HIDDEN)
    x = qnn.QuantIdentity(return_quant_tensor=True)(torch.randn(TIME, BATCH, FEATURES))
    assert isinstance(x, QuantTensor)
    assert torch.equal(layer(x.value)[0], layer(x)[0])
