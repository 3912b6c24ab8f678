"""Losses on bit widths: what they weigh, by how much, and what they leave behind."""

import copy
import gc
import io
import weakref

import pytest
import torch
from torch import nn

from brevq import nn as qnn
from brevq.core.bit_width import BitWidthParameter
from brevq.errors import ArgumentError
from brevq.loss import BitWidthLoss, activations_by_size, outputs_by_operations, weights_by_size
from brevq.nn import QuantConv2d, QuantIdentity, QuantLinear, QuantReLU
from injectors import Int8ActPerTensor, Int8WeightPerTensor, Uint8ActPerTensor


class Weight(Int8WeightPerTensor):
    """Weights with a learned bit width."""

    bit_width_impl = BitWidthParameter


class Act(Int8ActPerTensor):
    """Signed activations with a learned bit width."""

    bit_width_impl = BitWidthParameter


class Uact(Uint8ActPerTensor):
    """Unsigned activations with a learned bit width."""

    bit_width_impl = BitWidthParameter


def network():
    """3 by 6 by 6 images, a convolution, a rectifier and a linear layer, all learned but for one constant each."""
    return nn.Sequential(
        QuantConv2d(3, 4, 3, weight_quant=Weight, weight_bit_width=4, output_quant=Act, output_bit_width=6),
        QuantReLU(act_quant=Uact, bit_width=5),
        nn.Flatten(),
        QuantIdentity(),
        QuantLinear(64, 10, weight_quant=Weight, output_quant=Act, output_bit_width=7),
        QuantLinear(10, 2),
    )


# Weighting; then count and bit width of each place in the network above, for a sample.
TERMS = {
    "weights": (weights_by_size, [(4 * 3 * 9, 4), (64 * 10, 8)]),
    "activations": (activations_by_size, [(4 * 16, 6), (4 * 16, 5), (10, 7)]),
    "operations": (outputs_by_operations, [(4 * 16 * 27, 6), (10 * 64, 7)]),
}


class Transposed(QuantLinear):
    """A linear layer whose weight has its inputs first, as that of a transposed convolution."""

    channel_axis = 1

    def compute(self, x, weight, bias):
        """``x @ weight``."""
        return x @ weight


def bit_widths(model):
    """The learned bit widths of a model."""
    return [module for module in model.modules() if isinstance(module, BitWidthParameter)]


@pytest.mark.parametrize("case", TERMS)
@pytest.mark.parametrize("batch", [1, 5])
def test_mean(case, batch):
    """The loss is the mean of the learned bit widths, weighted for one sample, whatever the batch."""
    weighting, terms = TERMS[case]
    model = network()
    with BitWidthLoss(model, weighting) as bits:
        model(torch.randn(batch, 3, 6, 6))
        actual = bits()
    expected = sum(n * b for n, b in terms) / sum(n for n, _ in terms)
    # Whole numbers below 2 ** 24 and one quotient, in float32.
    assert (pytest.approx(expected, rel=2**-23), torch.Size([])) == (actual.item(), actual.shape)


@pytest.mark.parametrize("case", TERMS)
def test_gradient(case):
    """Each learned bit width that is weighed has its share as gradient, and the others have none."""
    weighting, terms = TERMS[case]
    model = network()
    with BitWidthLoss(model, weighting) as bits:
        model(torch.randn(2, 3, 6, 6))
        bits().backward()
    total = sum(n for n, _ in terms)
    actual = [module.offset.grad.item() for module in bit_widths(model) if module.offset.grad is not None]
    # One float32 quotient.
    assert pytest.approx([n / total for n, _ in terms], rel=2**-23) == actual


def test_training_moves_bit_widths():
    """A loss on bits, alone, takes bits away down to the fewest."""
    layer = QuantLinear(4, 4, weight_quant=Weight, weight_min_bit_width=3)
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    with BitWidthLoss(layer, weights_by_size) as bits:
        story = [bits().item()]
        for _ in range(5):
            optimizer.zero_grad()
            bits().backward()
            optimizer.step()
            story.append(bits().item())
    assert [8.0, 7.0, 6.0, 5.0, 4.0, 3.0] == story


def test_weights_need_no_run():
    """Weights are counted without data."""
    layer = QuantLinear(4, 4, weight_quant=Weight, weight_bit_width=5)
    assert 5.0 == BitWidthLoss(layer, weights_by_size)().item()


def test_the_last_run_counts():
    """What flows through a model is counted anew at each run, in its own size."""
    model = nn.Sequential(QuantIdentity(act_quant=Act), nn.AdaptiveAvgPool1d(2), QuantReLU(act_quant=Uact, bit_width=2))
    story = []
    with BitWidthLoss(model, activations_by_size) as bits:
        for size in (2, 6):
            model(torch.randn(3, 1, size))
            story.append(bits().item())
    assert [(2 * 8 + 2 * 2) / 4, (6 * 8 + 2 * 2) / 8] == story


def test_a_quantizer_that_runs_twice_counts_twice():
    """A quantizer that one run passes twice counts both passes."""
    act = QuantReLU(act_quant=Uact, bit_width=4)
    model = nn.Sequential(QuantIdentity(act_quant=Act), act, act)
    with BitWidthLoss(model, activations_by_size) as bits:
        model(torch.randn(3, 10))
        assert (8 + 2 * 4) / 3 == pytest.approx(bits().item(), rel=2**-23)  # one float32 quotient


def test_a_layer_that_runs_twice_has_its_weights_once():
    """A weight counts once, however often its layer runs."""
    twice, once = (QuantLinear(4, 4, weight_quant=Weight, weight_bit_width=bits) for bits in (2, 6))
    model = nn.Sequential(twice, twice, once)
    assert 4.0 == BitWidthLoss(model, weights_by_size)().item()


def test_a_single_layer():
    """The model may itself be a place that is watched."""
    layer = QuantIdentity(act_quant=Act, bit_width=3)
    with BitWidthLoss(layer.act_quant, activations_by_size) as bits:
        layer(torch.randn(2, 3))
        layer(torch.randn(2, 3))
        assert 3.0 == bits().item()


@pytest.mark.parametrize(("kind", "sizes"), [(QuantLinear, (5, 2)), (Transposed, (2, 5))])
def test_operations_of_either_layout(kind, sizes):
    """From 5 inputs to 2 outputs it takes 10 multiplications a row, whichever way the weight is laid out."""
    layer = kind(*sizes, bias=False, output_quant=Act, output_bit_width=3)
    other = QuantLinear(2, 10, output_quant=Act, output_bit_width=6)
    model = nn.Sequential(layer, other)
    with BitWidthLoss(model, outputs_by_operations) as bits:
        model(torch.randn(4, 3, 5))
        expected = (3 * 10 * 3 + 3 * 20 * 6) / (3 * 10 + 3 * 20)
        assert expected == bits().item()


def hooks(model):
    """The number of hooks on a model and its parts."""
    return sum(len(module._forward_pre_hooks) + len(module._forward_hooks) for module in model.modules())


@pytest.mark.parametrize("case", TERMS)
def test_hooks_are_removed(case):
    """After the context, and after an error in it, a model has the hooks that it had."""
    model = network()
    before = hooks(model)
    with pytest.raises(ZeroDivisionError), BitWidthLoss(model, TERMS[case][0]):
        raise ZeroDivisionError
    left = [hooks(model)]
    loss = BitWidthLoss(model, TERMS[case][0])
    loss.close()
    loss.close()
    assert [before, before] == [*left, hooks(model)]


def test_no_tensor_is_kept():
    """A loss keeps neither what flowed through the model nor the graph that holds it."""
    model = network()
    with BitWidthLoss(model, activations_by_size) as bits:
        x = torch.randn(2, 3, 6, 6)
        y = model(x)
        kept = [weakref.ref(x), weakref.ref(y)]
        del x, y
        gc.collect()
        assert [None, None] == [ref() for ref in kept]
        assert bits().requires_grad


def test_a_model_that_is_watched_can_be_copied_and_saved():
    """A watched model is copied and saved as any other, and its copy is not counted."""
    model, file = network(), io.BytesIO()
    with BitWidthLoss(model, activations_by_size) as bits:
        model(torch.randn(2, 3, 6, 6))
        before = bits().item()
        copied = copy.deepcopy(model)
        torch.save(model, file)
        for module in bit_widths(copied):
            module.offset.data.zero_()
        copied(torch.randn(2, 3, 6, 6))
        assert before == bits().item()


def test_a_watched_model_compiles():
    """Runs of compiled code are counted too."""
    torch.compiler.reset()
    model = nn.Sequential(QuantIdentity(act_quant=Act, bit_width=4), QuantReLU(act_quant=Uact, bit_width=2))
    with BitWidthLoss(model, activations_by_size) as bits:
        compiled = torch.compile(model, backend="eager")
        for _ in range(2):
            compiled(torch.randn(2, 3))
            assert 3.0 == bits().item()


@pytest.mark.parametrize("case", TERMS)
def test_nothing_to_weigh_is_refused(case):
    """A model without learned bit widths is refused, with what to do."""
    weighting, _ = TERMS[case]
    with pytest.raises(ArgumentError) as error:
        BitWidthLoss(nn.Sequential(QuantLinear(4, 4, output_quant=Int8ActPerTensor)), weighting)
    expected = f"""\
Sequential has no learned bit width for `{weighting.__name__}` to weigh.

Give a recipe one: `bit_width_impl = BitWidthParameter`."""
    assert expected == str(error.value)


def test_a_model_that_has_not_run_is_refused():
    """What flows through a model has to be seen before it can be weighed."""
    with BitWidthLoss(network(), activations_by_size) as bits, pytest.raises(ArgumentError) as error:
        bits()
    expected = "nothing was weighed yet: run the model once, between making this loss and closing it"
    assert expected == str(error.value)


@pytest.mark.parametrize(
    ("make", "elements"),
    [
        (lambda recipe: qnn.QuantLSTM(3, 4, weight_quant=recipe), 4 * 4 * (3 + 4)),
        (lambda recipe: qnn.QuantBatchNorm2d(5, affine=False, weight_quant=recipe), 5),
        (lambda recipe: qnn.QuantEmbedding(7, 2, weight_quant=recipe), 14),
    ],
    ids=["lstm", "norm", "embedding"],
)
def test_weights_of_all_layers_count(make, elements):
    """Weights count by their elements wherever they are: in matrices of a recurrence, computed, or looked up."""
    assert elements == sum(place.count for place in weights_by_size(make(Weight)))
