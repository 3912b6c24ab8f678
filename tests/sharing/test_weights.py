"""Weights that are tied, replaced, computed from others, or pruned are quantized as they are."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize, prune

from brevq.errors import ArgumentError
from brevq.nn import QuantEmbedding, QuantLinear
from injectors import Int4WeightPerTensorAdaRound, Int8WeightPerChannel, Int8WeightPerTensorLSQ

# torch would rather have its parametrizations than its older functions, which both work.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning")


def int8(weight, dim=None):
    """A weight rounded to 127 steps of its largest value, of all or along a dimension."""
    largest = weight.abs().max() if dim is None else weight.abs().amax(dim, keepdim=True)
    scale = largest / 127
    return (weight / scale).round() * scale


def by_hand(layer, x, dim=None):
    """What a linear layer of 8-bit weights without a bias gives."""
    return F.linear(x, int8(layer.weight, dim))


def linear(**keywords):
    """A quantized linear layer without a bias."""
    return QuantLinear(4, 4, bias=False, **keywords)


@pytest.fixture
def x():
    """An input."""
    return torch.randn(3, 4)


def test_tied_embedding_and_linear():
    """One parameter in two layers is one parameter, quantized by both, and gets the gradient of both."""
    embedding, head = QuantEmbedding(6, 4), QuantLinear(4, 6, bias=False)
    head.weight = embedding.weight
    one, other = copy.deepcopy(embedding), copy.deepcopy(head)
    tokens, weight = torch.tensor([1, 2]), int8(embedding.weight)
    output = head(embedding(tokens))
    assert torch.equal(F.linear(F.embedding(tokens, weight), weight), output)
    output.sum().backward(), other(one(tokens)).sum().backward()
    torch.testing.assert_close(one.weight.grad + other.weight.grad, embedding.weight.grad)
    assert 1 == len(list(nn.ModuleList([embedding, head]).parameters()))


def test_replaced_parameter(x):
    """A parameter that is assigned is what is quantized from then on."""
    layer = linear()
    layer.weight = nn.Parameter(torch.randn(4, 4))
    assert torch.equal(by_hand(layer, x), layer(x))


def test_replaced_data(x):
    """So is data that is assigned."""
    layer = linear()
    layer.weight.data = torch.randn(4, 4)
    assert torch.equal(by_hand(layer, x), layer(x))


def test_replaced_for_a_call(x):
    """`torch.func.functional_call` quantizes the weight that it was given."""
    layer, weight = linear(), torch.randn(4, 4)
    assert torch.equal(F.linear(x, int8(weight)), torch.func.functional_call(layer, {"weight": weight}, (x,)))


def test_another_shape_under_one_scale(x):
    """A scale of the whole tensor suits a weight of any shape."""
    layer = linear()
    layer.weight = nn.Parameter(torch.randn(7, 4))
    assert torch.equal(by_hand(layer, x), layer(x))


@pytest.mark.parametrize("replace", ["parameter", "data"])
def test_another_number_of_channels_is_refused(x, replace):
    """Scales of channels do not fit other channels; the recipe, assigned again, does."""
    model = nn.Sequential(linear(weight_quant=Int8WeightPerChannel))
    if replace == "parameter":
        model[0].weight = nn.Parameter(torch.randn(7, 4))
    else:
        model[0].weight.data = torch.randn(7, 4)
    with pytest.raises(ArgumentError) as error:
        model(x)
    assert str(error.value) == (
        "`0.weight_quant` (Int8WeightPerChannel) was built for a weight of another shape than (7, 4).\n"
        "Have it built again: layer.weight_quant = layer.weight_quant.recipe"
    )
    model[0].weight_quant = model[0].weight_quant.recipe
    assert torch.equal(by_hand(model[0], x, dim=1), model(x))


def test_another_shape_of_learned_rounding_is_refused(x):
    """A rounding that is learned for each value does not fit other values."""
    layer = linear(weight_quant=Int4WeightPerTensorAdaRound)
    layer(x)
    layer.weight = nn.Parameter(torch.randn(7, 4))
    with pytest.raises(ArgumentError, match="rounding is learned for each value of a tensor of shape"):
        layer(x)


class Symmetric(nn.Module):
    """The upper triangle, mirrored."""

    def forward(self, weight):
        """The symmetric matrix."""
        return weight.triu() + weight.triu(1).T


PARAMETRIZATIONS = {
    "orthogonal": parametrizations.orthogonal,
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "custom": lambda layer: parametrize.register_parametrization(layer, "weight", Symmetric()),
}


@pytest.mark.parametrize("name", PARAMETRIZATIONS)
def test_parametrized(x, name):
    """What a parametrization computes is quantized, and the gradient goes through it."""
    layer = PARAMETRIZATIONS[name](linear()).eval()
    assert isinstance(layer, QuantLinear)
    assert torch.equal(by_hand(layer, x), layer(x))
    layer(x).sum().backward()
    assert all(p.grad is not None for p in layer.parameters())
    assert torch.equal(int8(layer.weight), layer.quant_weight().value)
    assert torch.equal(layer(x), copy.deepcopy(layer)(x))


@pytest.mark.parametrize("name", PARAMETRIZATIONS)
def test_parametrization_removed(x, name):
    """Without its parametrization the layer is what it was, and its outputs stay."""
    layer = PARAMETRIZATIONS[name](linear()).eval()
    before = layer(x)
    parametrize.remove_parametrizations(layer, "weight")
    assert (QuantLinear, True) == (type(layer), torch.equal(before, layer(x)))


def test_weight_norm_by_channel(x):
    """Weight normalisation with a scale for each channel: magnitude and direction are both trained."""
    layer = parametrizations.weight_norm(linear(weight_quant=Int8WeightPerChannel))
    assert torch.equal(by_hand(layer, x, dim=1), layer(x))
    layer(x).square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in layer.parameters())


@pytest.mark.parametrize("apply", [nn.utils.weight_norm, nn.utils.spectral_norm])
def test_older_hooks(x, apply):
    """The older functions, which compute the weight before each call, work too, and their gradient."""
    layer = apply(linear()).eval()
    output = layer(x)
    assert torch.equal(by_hand(layer, x), output)
    output.sum().backward()
    assert all(p.grad is not None for p in layer.parameters() if p.requires_grad)


def test_pruned(x):
    """Pruned weights are quantized to zero and get no gradient; copies are pruned; removal keeps the outputs."""
    layer = linear()
    prune.l1_unstructured(layer, "weight", 0.5)
    mask = layer.weight_mask.bool()
    output = layer(x)
    output.sum().backward()
    assert torch.equal(by_hand(layer, x), output)
    assert torch.equal(mask, layer.quant_weight().value != 0)
    assert torch.equal(torch.zeros(8), layer.weight_orig.grad[~mask])
    with torch.no_grad():  # as of torch.nn.Linear, its computed weight can be copied if it has no history
        layer(x)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(output, twin(x))
    prune.remove(layer, "weight")
    assert torch.equal(output, layer(x))


def test_pruned_channels_are_zero():
    """A channel that is pruned as a whole is zero, whatever its scale."""
    layer = linear(weight_quant=Int8WeightPerChannel)
    prune.ln_structured(layer, "weight", 0.5, n=2, dim=0)
    assert 2 == int((layer(torch.ones(1, 4)) == 0).sum())


def test_frozen(x):
    """Parameters that are frozen stay so, those of scales too; inputs get their gradient."""
    layer = linear(weight_quant=Int8WeightPerTensorLSQ).requires_grad_(False)
    x.requires_grad_()
    layer(x).sum().backward()
    assert [(False, None)] * 2 == [(p.requires_grad, p.grad) for p in layer.parameters()]
    assert torch.equal(layer.quant_weight().value.sum(0).expand(3, 4), x.grad)
