"""Sums and tensors side by side: one grid for all inputs, by one quantizer or by layers that share one."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn

from brevq.core.phase import Phase
from brevq.errors import ArgumentError, ArgumentTypeError
from brevq.graph import calibrating
from brevq.nn import QuantCat, QuantEltwiseAdd, QuantIdentity, QuantLinear, QuantOperation
from brevq.quant_tensor import QuantTensor
from brevq.quantizer import Quantizer
from injectors import Int8ActPerTensor, Int8ActPerTensorMax, Uint8ActPerTensor

#: Layer, torch's function, and how both take two tensors.
OPERATIONS = [
    pytest.param(QuantEltwiseAdd, torch.add, lambda layer, x, y: layer(x, y), id="add"),
    pytest.param(QuantCat, lambda x, y: torch.cat([x, y], 1), lambda layer, x, y: layer([x, y]), id="cat"),
]


def copied(module):
    """A module by way of `torch.save`."""
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES = [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module)), copied]


def codes(x, scale, low=-128, high=127):
    """The codes of values on a grid of 8 bits."""
    return [min(max(round(value / scale), low), high) for value in x.flatten().tolist()]


def gradients(function, *inputs):
    """What a function returns, and the gradients of what it takes."""
    leaves = [x.clone().requires_grad_() for x in inputs]
    y = function(*leaves)
    y.square().sum().backward()
    return [y, *(leaf.grad for leaf in leaves)]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("layer", "function", "call"), OPERATIONS)
def test_without_quantizers_it_is_torch(layer, function, call, training):
    """With every quantizer None a layer is torch's function bit for bit, forward and backward, and has no state."""
    module, x, y = layer(input_quant=None).train(training), torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    ours, theirs = gradients(lambda *xs: call(module, *xs), x, y), gradients(function, x, y)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert {} == module.state_dict()


def test_defaults_are_one_signed_grid():
    """By default the inputs go to signed 8 bits and the output stays as it comes."""
    add = QuantEltwiseAdd()
    assert (Int8ActPerTensor, None) == (add.input_quant.recipe, add.output_quant)


@pytest.mark.parametrize(("layer", "expected"), [(QuantEltwiseAdd, [191, -256, 60]), (QuantCat, [127, -128, 30])])
def test_inputs_share_one_scale(layer, expected):
    """Inputs of different ranges lie on the grid of the largest that calibration saw, and so does the result."""
    module = layer(**({"dim": 0} if layer is QuantCat else {}), return_quant_tensor=True).eval()
    x, y = torch.tensor([1.28, -1.28, 0.3]), torch.tensor([0.64, -1.28, 0.3])
    call = (lambda: module([x, y])) if layer is QuantCat else (lambda: module(x, y))
    with calibrating(module):
        call()
    out = call()
    assert torch.equal(module.input_quant.current().scale, out.scale)
    assert expected == out.int()[:3].tolist()
    assert out.is_valid


def test_the_range_is_that_of_all_inputs():
    """One call in calibration sees all inputs as one batch, whichever comes first and of whatever shapes."""
    small, big = torch.linspace(-1, 1, 50), torch.linspace(-10, 10, 60).reshape(3, 20)
    scales = []
    for inputs in ([small, big], [big, small]):
        cat = QuantCat(dim=0, input_quant=Int8ActPerTensorMax).eval()
        with calibrating(cat):
            cat([x.reshape(-1, 10) for x in inputs])
        scales.append(cat.input_quant.current().scale.item())
    assert [10 / 128, 10 / 128] == scales


def test_a_sum_takes_a_bit_more():
    """A sum of two 8-bit inputs is one of 9 bits, tensors side by side are of 8."""
    x = torch.randn(2, 3)
    sums, pairs = QuantEltwiseAdd(return_quant_tensor=True)(x, x), QuantCat(return_quant_tensor=True)([x, x, x])
    assert (9, 8) == (sums.bit_width, pairs.bit_width)


@pytest.mark.parametrize(("layer", "function", "call"), OPERATIONS)
def test_the_output_has_its_own_grid(layer, function, call):
    """With an `output_quant` the output is that of torch's function on quantized inputs, quantized."""
    module = layer(output_quant=Int8ActPerTensor, output_bit_width=4, return_quant_tensor=True)
    x, y = torch.randn(2, 3), torch.randn(2, 3)
    shared, last = Quantizer(Int8ActPerTensor, {}), Quantizer(Int8ActPerTensor.let(bit_width=4), {})
    expected, out = last(function(*shared(torch.stack([x, y])).value.unbind())), call(module, x, y)
    assert torch.equal(expected.value, out.value)
    assert 4 == out.bit_width
    module.return_quant_tensor = False
    assert not isinstance(call(module, x, y), QuantTensor)


@pytest.mark.parametrize(("layer", "function", "call"), OPERATIONS)
def test_quantized_inputs_of_one_grid_keep_it(layer, function, call):
    """Without quantizers, quantized inputs of one grid keep it where a QuantTensor is asked for."""
    before = QuantIdentity(return_quant_tensor=True)
    x, y = (before(torch.randn(2, 3)) for _ in range(2))
    module = layer(input_quant=None, return_quant_tensor=True)
    assert torch.equal(function(x, y).value, call(module, x, y).value)
    assert torch.equal(y.scale, call(module, x, y).scale)
    assert torch.equal(function(x.value, y.value), call(layer(input_quant=None), x, y))


def test_two_grids_are_refused():
    """Quantized inputs on two grids, without a quantizer that they share, name both and the ways out."""

    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = (QuantIdentity(return_quant_tensor=True) for _ in range(2))
            self.add = QuantEltwiseAdd(input_quant=None, return_quant_tensor=True)

        def forward(self, x):
            return self.add(self.a(x), self.b(2 * x))

    with pytest.raises(ArgumentError) as error:
        Residual()(torch.tensor([1.28, -0.5]))
    assert str(error.value) == (
        "`add` of two quantized tensors is exact on one grid only, and these two have different scales:\n"
        "  `a.act_quant` (Int8ActPerTensor): 0.01\n"
        "  `b.act_quant` (Int8ActPerTensor): 0.02\n"
        "\n"
        "Three ways out:\n"
        "  - share one quantizer, as brevq.nn.QuantEltwiseAdd and brevq.nn.QuantCat do, or one that both layers are "
        "given;\n"
        "  - quantize one of them again, on the grid of the other: pass both through the same QuantIdentity;\n"
        "  - leave the grid: add the values, x.value and y.value, and quantize the result where it has to be."
    )


def test_plain_inputs_without_a_quantizer_are_refused():
    """A QuantTensor of plain tensors, without any quantizer, is refused with both ways out."""
    with pytest.raises(ArgumentError) as error:
        QuantEltwiseAdd(input_quant=None, return_quant_tensor=True)(torch.ones(2), torch.ones(2))
    assert str(error.value) == (
        "A QuantEltwiseAdd got `return_quant_tensor=True` without an `output_quant`, so it returns a grid that its "
        "inputs share, and they share none: some are plain tensors.\n"
        "Give it an `input_quant`, which all inputs go through, or an `output_quant`"
    )


def test_an_operation_of_ones_own():
    """A subclass says what it computes; one that leaves the grid says so where a QuantTensor is asked for."""

    class QuantDistance(QuantOperation):
        def forward(self, x, y):
            return self.combined(x, y)

        def compute(self, inputs):
            return torch.hypot(*inputs)

    x, y = torch.tensor([3.0]), torch.tensor([4.0])
    assert 5 == QuantDistance(input_quant=None)(x, y)
    with pytest.raises(ArgumentError, match="they share none: the operation is not exact on their codes"):
        QuantDistance(return_quant_tensor=True)(x, y)


def test_an_operation_without_compute_is_refused():
    """The base alone computes nothing, and says what to override."""
    with pytest.raises(NotImplementedError) as error:
        QuantOperation().combined(torch.ones(2))
    assert "QuantOperation must say what it computes: override `compute`" == str(error.value)


def test_wrong_arguments_are_refused():
    """What fits no recipe is named, and so is an axis that is none."""
    for wrong, message in (
        (lambda: QuantEltwiseAdd(input_bitwidth=4), "QuantEltwiseAdd got `input_bitwidth`, and nothing in Int8ActPer"),
        (lambda: QuantEltwiseAdd(Uint8ActPerTensor), "QuantEltwiseAdd got Uint8ActPerTensor by position: name what it"),
        (lambda: QuantCat("1"), "QuantCat got `dim='1'`, and needs an integer"),
    ):
        with pytest.raises(ArgumentTypeError) as error:
            wrong()
        assert str(error.value).startswith(message)


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_cat_takes_any_axis(dim):
    """Tensors lie side by side along `dim`, which is printed."""
    x, y = torch.randn(2, 2, 2), torch.randn(2, 2, 2)
    assert torch.equal(torch.cat([x, y], dim), QuantCat(dim, input_quant=None)([x, y]))
    assert f"dim={dim}, one quantizer for all inputs" == QuantCat(dim=dim).extra_repr()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("layer", "function", "call"), OPERATIONS)
def test_half_precision_stays(layer, function, call, dtype):
    """A layer returns the dtype that it is given."""
    out = call(layer(return_quant_tensor=True).to(dtype), *(torch.randn(2, 3).to(dtype) for _ in range(2)))
    assert (dtype, torch.float32) == (out.value.dtype, out.scale.dtype)


@pytest.mark.parametrize(("layer", "function", "call"), OPERATIONS)
def test_state_goes_round(layer, function, call):
    """A calibrated state loads into a fresh layer, and copies compute the same."""
    module, fresh, inputs = layer().eval(), layer().eval(), [torch.randn(2, 3) for _ in range(2)]
    with calibrating(module):
        call(module, *inputs)
    fresh.load_state_dict(module.state_dict(), strict=True)
    assert all(
        torch.equal(call(module, *inputs), call(other, *inputs))
        for other in [fresh, *(copy(module) for copy in COPIES)]
    )


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("layer", "function", "call"), OPERATIONS)
def test_it_compiles_without_a_break(layer, function, call, training):
    """A layer compiles to one graph, with the numbers of eager code, in training and in evaluation."""
    module, inputs = layer(return_quant_tensor=True).train(training), [torch.randn(2, 3) for _ in range(2)]
    with calibrating(module, then="learned"):
        call(module, *inputs)
    compiled = torch.compile(lambda *xs: call(module, *xs).value, fullgraph=True, backend="aot_eager")
    eager = gradients(lambda *xs: call(module, *xs).value, *inputs)
    assert all(torch.equal(a, b) for a, b in zip(eager, gradients(compiled, *inputs), strict=True))


class Group(nn.Module):
    """Two layers in a scale group: they were given one quantizer for their outputs, which are added."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        shared = Quantizer(Int8ActPerTensor.let(collect_stats_steps=8), {})
        self.a, self.b = (QuantLinear(4, 3, output_quant=shared, return_quant_tensor=True) for _ in range(2))

    def forward(self, x):
        return self.a(x) + self.b(x)


def in_phase(phase):
    """A group whose shared quantizer is in a phase."""
    group, x = Group(), torch.randn(20, 4)
    if phase is Phase.FIXED:
        with calibrating(group):
            group(x)
    else:
        for _ in range({Phase.OBSERVE: 1, Phase.LEARNED: 5}[phase]):
            group(x).value.square().sum().backward()
    return group, x


def test_a_scale_group_is_one_quantizer():
    """Layers that were given the same quantizer have it, and that can be asked for."""
    group = Group()
    assert group.a.output_quant is group.b.output_quant


def test_a_scale_group_adds_up_while_it_observes():
    """In training the outputs of a group are added from the first batch on, when its scale moves from call to call."""
    group, x = in_phase(Phase.OBSERVE)
    outputs = [group(x), group(x)]
    assert [Phase.OBSERVE, 9, 9] == [group.a.output_quant.phase, *(total.bit_width for total in outputs)]


@pytest.mark.parametrize(
    ("phase", "training"),
    [(Phase.OBSERVE, False), (Phase.FIXED, True), (Phase.FIXED, False), (Phase.LEARNED, True), (Phase.LEARNED, False)],
)
def test_a_scale_group_adds_up(phase, training):
    """Outputs of layers that share a quantizer are added on its grid, in every phase and mode."""
    group, x = in_phase(phase)
    total = group.train(training)(x)
    assert phase is group.a.output_quant.phase
    scale = group.a.output_quant.current().scale.item()
    each = [codes(layer(x).value, scale) for layer in (group.a, group.b)]
    assert [m + n for m, n in zip(*each, strict=True)] == total.int().flatten().tolist()


def test_a_scale_group_learns_one_scale():
    """In training both layers of a group move the one scale that they have."""
    group, x = in_phase(Phase.LEARNED)
    parameters = dict(group.named_parameters())
    (scale,) = [name for name in parameters if "output_quant" in name]
    both = torch.autograd.grad(group(x).value.sum(), parameters[scale])[0]
    each = [torch.autograd.grad(layer(x).value.sum(), parameters[scale])[0] for layer in (group.a, group.b)]
    torch.testing.assert_close(sum(each), both)


@pytest.mark.parametrize("copied", COPIES)
def test_copies_of_a_scale_group_are_one(copied):
    """A copy of a group shares a quantizer of its own, and computes the same."""
    group, x = in_phase(Phase.FIXED)
    other = copied(group)
    assert other.a.output_quant is other.b.output_quant
    assert other.a.output_quant is not group.a.output_quant
    assert torch.equal(group(x).value, other(x).value)


def test_a_scale_group_is_saved_and_loaded():
    """The state of a group, which both layers list, loads into another group."""
    group, x = in_phase(Phase.LEARNED)
    other = Group().eval()
    other.load_state_dict(group.state_dict(), strict=True)
    assert torch.equal(group.eval()(x).value, other(x).value)


def test_a_scale_group_compiles():
    """Adding the outputs of a group compiles to one graph."""
    group, x = in_phase(Phase.LEARNED)
    compiled = torch.compile(lambda y: group(y).value, fullgraph=True, backend="aot_eager")
    assert torch.equal(group(x).value, compiled(x))
