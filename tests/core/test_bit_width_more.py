"""Bit widths that change: by hand, with the input, by learning, and together."""

import copy
import pickle

import numpy as np
import pytest
import torch

from brevq.core.bit_width import BitWidthConst, BitWidthFromInput, BitWidthMutable, BitWidthParameter
from brevq.core.quant import IntQuant, PrescaledRestrictIntQuantWithInputBitWidth
from brevq.errors import ArgumentError, ArgumentTypeError
from brevq.inject import check, value
from brevq.nn import QuantLinear
from injectors import Int8WeightPerTensor

# torch.compile itself makes an instance of an autograd.Function, and torch warns of those.
pytestmark = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")

SHARED = BitWidthParameter(6)


class MutableWeight(Int8WeightPerTensor):
    """Weights whose bit width can be changed."""

    bit_width_impl = BitWidthMutable


class SharedWeight(Int8WeightPerTensor):
    """Weights of which all quantizers have one learned bit width."""

    @value
    def bit_width_impl():
        return SHARED


@pytest.fixture
def shared():
    """The bit width that all quantizers of `SharedWeight` have, as it was declared, and so again afterwards."""
    yield SHARED
    SHARED.load_state_dict(BitWidthParameter(6).state_dict())
    SHARED.zero_grad()


def _changed():
    bit_width = BitWidthMutable(8)
    bit_width.set(3)
    return bit_width


def test_a_mutable_bit_width_is_what_was_set():
    """It starts as it was given, and is what was set last: a float32 scalar."""
    bit_width = BitWidthMutable(8, signed=True)
    story = [bit_width()]
    for bits in (4, 2, 32):
        bit_width.set(bits)
        story.append(bit_width())
    assert [8.0, 4.0, 2.0, 32.0] == [bits.item() for bits in story]
    assert {(torch.float32, torch.Size([]))} == {(bits.dtype, bits.shape) for bits in story}


def test_a_changed_bit_width_travels(travel, outcome):
    """A copy, by whatever way, has the number of bits that was set."""
    copied = travel(lambda: BitWidthMutable(8), _changed())
    assert ([3.0], []) == outcome(copied)


def test_a_compiled_bit_width_follows_what_is_set():
    """Compiled code uses the number that is set after compiling."""
    torch.compiler.reset()
    bit_width = BitWidthMutable(8)
    compiled = torch.compile(bit_width, backend="eager", fullgraph=True)
    compiled()
    bit_width.set(5)
    assert 5.0 == compiled().item()


def test_a_layer_follows_its_bit_width():
    """After `set`, a layer's weights have as many levels as the new number of bits allows."""
    layer = QuantLinear(64, 64, weight_quant=MutableWeight)
    layer.weight_quant.tensor_quant.bit_width_impl.set(2)
    quantized = layer.quant_weight()
    assert ([-1, 0, 1], 2.0) == (quantized.int().unique().tolist(), quantized.bit_width.item())


def test_a_bit_width_is_set_between_forward_and_backward():
    """What was computed with the old number has its gradient: that of a range of 2, over 7 codes of 4 bits."""
    bit_width, largest = BitWidthMutable(4), torch.tensor(2.0, requires_grad=True)
    scale = largest / (2.0 ** (bit_width() - 1) - 1)
    bit_width.set(8)
    scale.backward()
    # One float32 quotient.
    assert pytest.approx(1 / 7, rel=2**-23) == largest.grad.item()


def test_a_refused_bit_width_changes_nothing():
    """A number of bits that is impossible is refused, and the old one stays."""
    bit_width = BitWidthMutable(4, signed=True)
    with pytest.raises(ArgumentError) as error:
        bit_width.set(1)
    expected = "`bit_width` (=1) must be a whole number of signed bits from 2 to 32"
    assert (expected, 4.0) == (str(error.value), bit_width().item())


# Arguments, then input bits, output bits, and the gradient between them.
FROM_INPUT = [
    ({}, 8.0, 8.0, 1.0),
    ({"bit_width_to_remove": 3}, 8.0, 5.0, 1.0),
    ({"bit_width_to_remove": 3}, 5.0, 2.0, 1.0),
    ({"bit_width_to_remove": 3}, 4.0, 2.0, 0.0),
    ({"bit_width_to_remove": 3, "min_bit_width": 4}, 6.0, 4.0, 0.0),
    ({"max_bit_width": 16}, 32.0, 16.0, 0.0),
    ({"max_bit_width": 16}, 12.0, 12.0, 1.0),
    ({"bit_width_to_remove": 2, "min_bit_width": 1, "signed": False}, 3.0, 1.0, 1.0),
]


@pytest.mark.parametrize(("arguments", "bits", "left", "slope"), FROM_INPUT)
def test_bits_that_are_left_of_the_input(arguments, bits, left, slope):
    """The input's bits less those removed, between the limits; no gradient where they were clamped."""
    given = torch.tensor(bits, requires_grad=True)
    result = BitWidthFromInput(**arguments)(given)
    result.backward()
    assert (left, torch.Size([]), slope) == (result.item(), result.shape, given.grad.item())


def test_bits_of_the_input_travel(travel, outcome):
    """A copy, by whatever way, gives equal values and gradients."""
    module = BitWidthFromInput(3)
    copied = travel(lambda: BitWidthFromInput(3), module)
    assert outcome(module, torch.tensor(8.0)) == outcome(copied, torch.tensor(8.0))


def test_quantization_by_the_bits_of_the_input():
    """A quantizer that is told 8 bits and keeps 5 of them has codes -15 to 15."""
    quant = PrescaledRestrictIntQuantWithInputBitWidth(IntQuant(narrow_range=True, signed=True), BitWidthFromInput(3))
    x = np.array([0.4, -9.0, 100.0], np.float32)
    y, _, _, bit_width = quant(torch.tensor(x), torch.tensor(0.5), torch.tensor(8.0))
    expected = [0.5 * min(max(round(v / 0.5), -15), 15) for v in x.tolist()]
    assert (expected, 5.0) == (y.tolist(), bit_width.item())


@pytest.mark.parametrize(("override", "bits"), [(False, 6.0), (True, 4.0)])
def test_learned_bits_of_a_checkpoint_are_overridden_on_request(override, bits):
    """A checkpoint's bit width is taken, or left where the declared one has to hold."""
    module = BitWidthParameter(4, override_pretrained_bit_width=override)
    module.load_state_dict(BitWidthParameter(6).state_dict())
    assert bits == module().item()


def test_an_override_misses_nothing():
    """Where the declared bit width holds, a checkpoint without one loads strictly."""
    module = BitWidthParameter(4, override_pretrained_bit_width=True)
    module.load_state_dict({}, strict=True)
    assert 4.0 == module().item()


@pytest.mark.parametrize("bits", [3, 7])
def test_learning_goes_on_from_bits_that_were_set(bits):
    """A checkpoint of a mutable bit width loads as the start of a learned one."""
    module = BitWidthParameter(4, min_bit_width=3)
    module.load_state_dict(BitWidthMutable(bits).state_dict(), strict=True)
    assert bits == module().item()


@pytest.mark.parametrize("offset", [0.0, 0.4, 0.5, 1.5, 2.5, 2.6, -3.2, 40.0])
@pytest.mark.parametrize(("before", "after"), [(2, 1), (2, 3), (3, 2), (5, 2), (4, 4)])
def test_bits_of_a_checkpoint_with_another_minimum(before, after, offset):
    """A checkpoint has its number of bits, whatever the minimum is; below a minimum it is refused."""
    module, loaded = BitWidthParameter(8, before), BitWidthParameter(6, after, signed=False)
    with torch.no_grad():
        module.offset.fill_(offset)
    if module() < after:
        with pytest.raises(ArgumentError):
            loaded.load_state_dict(module.state_dict(), strict=True)
    else:
        loaded.load_state_dict(module.state_dict(), strict=True)
        assert (module().item(), float(after)) == (loaded().item(), loaded.state_dict()["least"].item())


def test_what_was_learned_goes_round_exactly():
    """With the same minimum the offset is loaded as it is, fraction and sign."""
    module, loaded = BitWidthParameter(8), BitWidthParameter(4)
    with torch.no_grad():
        module.offset.fill_(-3.3)
    loaded.load_state_dict(module.state_dict())
    assert module.offset.item() == loaded.offset.item()


@pytest.mark.parametrize("checkpoint", [BitWidthParameter(4), BitWidthMutable(4)])
def test_too_few_bits_of_a_checkpoint_are_refused(checkpoint):
    """A checkpoint with fewer bits than the minimum is refused, and with the override keeps what is declared."""
    with pytest.raises(ArgumentError) as error:
        BitWidthParameter(6, min_bit_width=5).load_state_dict(checkpoint.state_dict())
    module = BitWidthParameter(6, min_bit_width=5, override_pretrained_bit_width=True)
    module.load_state_dict(checkpoint.state_dict())
    assert (
        "the checkpoint's bit width (=4) must not be below `min_bit_width` (=5): declare a lower minimum, or "
        "`override_pretrained_bit_width` to keep the bit width that is declared",
        6.0,
    ) == (str(error.value), module().item())


def test_a_checkpoint_without_a_minimum():
    """Where a checkpoint does not say what the minimum was it is taken to be the same."""
    module = BitWidthParameter(4)
    module.load_state_dict({"offset": torch.tensor(5.0)}, strict=True)
    assert 7.0 == module().item()


def _pair():
    return torch.nn.Sequential(
        QuantLinear(4, 5, weight_quant=SharedWeight), QuantLinear(5, 3, weight_quant=SharedWeight)
    )


def test_quantizers_share_one_learned_bit_width(shared):
    """Two layers of a recipe whose `@value` returns one bit width quantize by it, and add up their gradients."""
    check(SharedWeight)
    model = _pair()
    grads = []
    for layer in model:
        layer.quant_weight().value.sum().backward()
        grads.append(shared.offset.grad.item())
        shared.offset.grad = None
    (model[0].quant_weight().value.sum() + model[1].quant_weight().value.sum()).backward()
    # A sum of two float32 numbers.
    assert pytest.approx(sum(grads), rel=2**-22) == shared.offset.grad.item()
    assert 0.0 not in grads
    with torch.no_grad():
        shared.offset.fill_(1.0)
    assert [3.0, 3.0] == [layer.quant_weight().bit_width.item() for layer in model]


def test_a_shared_bit_width_is_one_parameter(shared):
    """The parameters of a model list a shared bit width once."""
    assert 1 == sum(parameter is shared.offset for parameter in _pair().parameters())


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
@pytest.mark.usefixtures("shared")
def test_a_copy_shares_its_own_bit_width(copied):
    """A copied model has one bit width of its own in both layers."""
    parts = [layer.weight_quant.tensor_quant.bit_width_impl for layer in copied(_pair())]
    assert (True, False) == (parts[0] is parts[1], parts[0] is SHARED)


def test_a_shared_bit_width_goes_round(shared):
    """The state of a model with a shared bit width loads strictly."""
    model = _pair()
    with torch.no_grad():
        shared.offset.fill_(2.0)
    state = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        shared.offset.fill_(5.0)
    model.load_state_dict(state, strict=True)
    assert 4.0 == model[1].quant_weight().bit_width.item()


BITS = "must be a whole number of bits from 1 to 32"
REFUSALS = [
    (lambda: BitWidthMutable(0), ArgumentError, f"`bit_width` (=0) {BITS}"),
    (lambda: BitWidthMutable("4"), ArgumentTypeError, f"`bit_width` (='4') {BITS}, not str"),
    (lambda: BitWidthFromInput(-1), ArgumentError, f"`bit_width_to_remove` (=-1) {BITS}"),
    (lambda: BitWidthFromInput(1.5), ArgumentError, f"`bit_width_to_remove` (=1.5) {BITS}"),
    (
        lambda: BitWidthFromInput(min_bit_width=1, signed=True),
        ArgumentError,
        "`min_bit_width` (=1) must be a whole number of signed bits from 2 to 32",
    ),
    (
        lambda: BitWidthFromInput(min_bit_width=8, max_bit_width=4),
        ArgumentError,
        "`max_bit_width` (=4) must not be below `min_bit_width` (=8)",
    ),
]


@pytest.mark.parametrize(("create", "kind", "message"), REFUSALS)
def test_impossible_bits_are_refused(create, kind, message):
    """No bits, half bits and limits that exclude each other are refused with the rule."""
    with pytest.raises(kind) as error:
        create()
    assert message == str(error.value)


def test_a_constant_stays_out_of_checkpoints():
    """Of the two constants only the mutable one is part of a checkpoint."""
    states = [BitWidthConst(4).state_dict(), BitWidthMutable(4).state_dict()]
    assert [[], ["bit_width"]] == [list(state) for state in states]
