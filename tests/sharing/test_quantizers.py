"""Quantizers that several layers have in common, and layers that are used twice."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize, prune

from brevq.core.phase import Phase
from brevq.core.stats import RuntimeStats
from brevq.errors import ArgumentError
from brevq.graph import calibrating
from brevq.nn import QuantIdentity, QuantLinear, QuantLSTM, QuantReLU
from injectors import Int4WeightPerTensor, Int8ActPerTensor, Int8WeightPerChannel, Int8WeightPerTensorLSQ


def linear(**keywords):
    """A quantized linear layer without a bias."""
    return QuantLinear(4, 4, bias=False, **keywords)


def pair(**keywords):
    """Two layers that share the quantizer of their weights; the second has the larger weights."""
    model = nn.Sequential(linear(**keywords), linear())
    model[1].weight_quant = model[0].weight_quant
    with torch.no_grad():
        model[1].weight.mul_(10)
    return model


def by_hand(model, x):
    """What a pair gives: both weights by the largest value of both."""
    scale = torch.cat([layer.weight for layer in model]).abs().max() / 127
    for layer in model:
        x = F.linear(x, (layer.weight / scale).round() * scale)
    return x


@pytest.fixture
def x():
    """An input."""
    return torch.randn(3, 4)


def stats(quantizer):
    """The statistic of a quantizer of activations."""
    return next(module for module in quantizer.modules() if isinstance(module, RuntimeStats))


def test_weights_share_one_scale(x):
    """The scale is that of the weights of all layers."""
    model = pair()
    assert torch.equal(by_hand(model, x), model(x))


def test_the_scale_follows_all_weights(x):
    """A change of one layer's weight changes the scale of the other."""
    model = pair()
    with torch.no_grad():
        model[1].weight.mul_(10)
    assert torch.equal(by_hand(model, x), model(x))


def test_tied_weight_and_shared_quantizer(x):
    """One weight that two layers have in common counts as one."""
    model = pair()
    model[1].weight = model[0].weight
    assert torch.equal(by_hand(model, x), model(x))


def test_a_learned_scale_gets_the_gradient_of_all_layers(x):
    """The gradient of a shared scale is the sum over the layers that use it."""
    model = pair(weight_quant=Int8WeightPerTensorLSQ)
    scale = model[0].weight_quant.tensor_quant.scaling_impl.value
    grads = []
    for run in (lambda: model[0](x).sum(), lambda: model[1](x).sum(), lambda: model[0](x).sum() + model[1](x).sum()):
        model.zero_grad()
        run().backward()
        grads.append(scale.grad.clone())
    torch.testing.assert_close(grads[0] + grads[1], grads[2])


@pytest.mark.parametrize("made_by", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_share_as_the_original(x, made_by):
    """A copy of the model shares among its own layers, and not with the original."""
    model = pair()
    twin = made_by(model)
    assert twin[0].weight_quant is twin[1].weight_quant
    assert torch.equal(model(x), twin(x))
    with torch.no_grad():
        twin[1].weight.mul_(10)
    assert [True, True] == [torch.equal(by_hand(each, x), each(x)) for each in (model, twin)]


def test_a_copy_of_one_layer_has_left_the_others(x):
    """A layer that is copied without those that it shares with has its own scale."""
    alone = copy.deepcopy(pair()[0])
    assert torch.equal(by_hand([alone], x), alone(x))


def test_a_layer_that_is_gone_no_longer_counts(x):
    """A deleted layer has no part in the scale."""
    model = pair()
    del model[1]
    assert torch.equal(by_hand(model, x), model(x))


def test_a_state_goes_round(x):
    """The state of a model that shares loads strictly, and each layer lists the quantizer, as modules that share do."""
    model, fresh = pair(weight_quant=Int8WeightPerTensorLSQ), pair(weight_quant=Int8WeightPerTensorLSQ)
    expected = model(x)
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(expected, fresh(x))


def test_other_channels_are_refused():
    """Scales of 4 channels are not those of 5."""
    one, other = linear(weight_quant=Int8WeightPerChannel), QuantLinear(4, 5)
    before = other.weight_quant
    with pytest.raises(ArgumentError) as error:
        other.weight_quant = one.weight_quant
    assert str(error.value) == (
        "a quantizer whose scale has shape (4, 1) can not be shared with a weight of shape (5, 4): share one that is "
        "per tensor, or between equal numbers of channels"
    )
    assert other.weight_quant is before


def test_other_matrices_are_refused():
    """Of a recurrent layer that is refused no matrix counts for the scales of the other."""
    one = QuantLSTM(4, 5, proj_size=3, weight_quant=Int8WeightPerChannel)
    other = QuantLSTM(4, 5, proj_size=2, weight_quant=None)
    expected = one.quant_weight("weight_ih_l0").scale
    nn.init.constant_(other.weight_ih_l0, 100.0)
    with pytest.raises(ArgumentError, match="can not be shared"):
        other.weight_quant = one.weight_quant
    assert other.weight_quant is None
    assert torch.equal(expected, one.quant_weight("weight_ih_l0").scale)


def test_shared_beside_a_parametrization(x):
    """The weight that a parametrization computes counts as it is now."""
    model = pair()
    parametrizations.weight_norm(model[1])
    assert torch.equal(by_hand(model, x), model(x))
    with torch.no_grad():
        model[1].parametrizations.weight.original0.mul_(3)
    assert torch.equal(by_hand(model, x), model(x))


def test_shared_beside_a_hook_is_refused(x):
    """The weight that a hook computes is that of the call before, so that the scale would be wrong: refused."""
    model = pair()
    prune.l1_unstructured(model[1], "weight", 0.5)
    with pytest.raises(ArgumentError) as error:
        model(x)
    assert str(error.value) == (
        "`0` (QuantLinear) shares the quantizer of its weight, and a hook computes the weight of `1` (QuantLinear) "
        "before each of its calls, as pruning and the older weight_norm and spectral_norm do. Until then it is the "
        "weight of the call before, and so would be the scale.\n"
        "Compute it by torch.nn.utils.parametrize, or give each layer a quantizer of its own"
    )


class Masked(nn.Module):
    """A pruning mask as a parametrization."""

    def __init__(self, mask):
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight):
        """The weight where the mask is 1."""
        return weight * self.mask


def test_shared_and_pruned_the_way_out(x):
    """A mask that is a parametrization prunes a layer that shares its quantizer, over steps of training."""
    model = pair()
    parametrize.register_parametrization(model[1], "weight", Masked((torch.randn(4, 4) > 0).float()))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(3):
        assert torch.equal(by_hand(model, x), model(x))
        optimizer.zero_grad()
        model(x).sum().backward()
        optimizer.step()


def test_activations_share_one_range():
    """A shared quantizer of activations observes all that it quantizes, in the order of the calls."""
    one = QuantIdentity(high_percentile_q=100.0)
    other = QuantIdentity(act_quant=one.act_quant)
    with calibrating(nn.Sequential(one, other).eval()):
        one(torch.tensor([1.28])), other(torch.tensor([3.84]))
    average = 0.9 * 1.28 + 0.1 * 3.84
    torch.testing.assert_close(torch.tensor(average / 128), one.act_quant.current().scale)
    assert 2 == stats(other.act_quant).steps


def test_a_layer_used_twice(x):
    """Both calls of a step are observed, and the weight gets the gradient of both."""
    layer = linear(input_quant=Int8ActPerTensor)
    layer(layer(x)).sum().backward()
    twice = layer.weight.grad.clone()
    assert 2 == stats(layer.input_quant).steps
    layer.zero_grad()
    first, second = copy.deepcopy(layer), copy.deepcopy(layer)
    for quantizer in (first.input_quant, second.input_quant):
        stats(quantizer).reset()
    second(first(x)).sum().backward()
    torch.testing.assert_close(twice, first.weight.grad + second.weight.grad)


def test_a_layer_used_twice_where_learning_begins(x):
    """The second call of a step may be the first that uses the learned range."""
    layer = linear(input_quant=Int8ActPerTensor, input_collect_stats_steps=1)
    layer(layer(x)).sum().backward()
    assert Phase.LEARNED == layer.input_quant.phase
    assert stats(layer.input_quant).value.grad.abs() > 0


def test_another_quantizer_in_a_live_model(x):
    """A quantizer that is assigned is used at once; its parameters are new, and the optimizer has to be told."""
    layer = linear(weight_quant=Int8WeightPerTensorLSQ)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    layer(x).sum().backward()
    optimizer.step()
    layer.weight_quant = Int8WeightPerTensorLSQ.let(bit_width=4)
    optimizer.add_param_group({"params": layer.weight_quant.parameters()})
    layer.zero_grad()
    layer(x).sum().backward()
    before = layer.weight_quant.tensor_quant.scaling_impl.value.clone()
    optimizer.step()
    assert 4 == layer.quant_weight().bit_width
    assert not torch.equal(before, layer.weight_quant.tensor_quant.scaling_impl.value)


def test_leaving_a_shared_quantizer(x):
    """A layer that gets another quantizer, or none, no longer counts for the scale of the one that it had."""
    for other in (Int4WeightPerTensor, None):
        model = pair()
        model[1].weight_quant = other
        assert torch.equal(by_hand(model[:1], x), model[0](x))


@pytest.mark.parametrize("other", [Int4WeightPerTensor, None])
def test_a_recurrent_layer_leaves(other):
    """Nor do the matrices of a recurrent layer."""
    first = QuantLSTM(4, 5)
    second = QuantLSTM(4, 5, weight_quant=first.weight_quant)
    nn.init.constant_(second.weight_ih_l0, 100.0)
    assert pytest.approx(100 / 127) == first.quant_weight("weight_ih_l0").scale.item()
    second.weight_quant = other
    assert pytest.approx(first.weight_ih_l0.abs().max().item() / 127) == first.quant_weight("weight_ih_l0").scale.item()


def test_shared_with_a_recurrent_layer(x):
    """A linear layer and the matrices of a recurrent one share a scale."""
    layer = linear()
    other = QuantLSTM(4, 5, weight_quant=layer.weight_quant)
    nn.init.constant_(other.weight_hh_l0, 127.0)
    assert torch.equal(F.linear(x, layer.weight.round()), layer(x))


def test_modules_are_applied_and_shared_in_memory(x):
    """`apply` reaches each module once, and `share_memory` moves all state."""
    model = nn.Sequential(linear(input_quant=Int8ActPerTensor), QuantReLU())
    model[1].act_quant = model[0].input_quant
    seen = []
    model.apply(seen.append)
    expected = model(x).detach()
    model.share_memory()
    assert 1 <= seen.count(model[0].input_quant)
    assert all(tensor.is_shared() for tensor in [*model.parameters(), *model.buffers()])
    assert torch.equal(expected, model(x))


def test_frozen_ranges_are_observed_and_stay_frozen(x):
    """A frozen model still observes its ranges; learning moves nothing."""
    layer = QuantIdentity(collect_stats_steps=1).requires_grad_(False)
    for _ in range(3):
        layer(x)
    assert Phase.LEARNED == layer.act_quant.phase
    assert [(False, None)] == [(p.requires_grad, p.grad) for p in layer.parameters()]
