"""Scales that are kept: never those of another range, whoever changed it and how."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook
from torch.nn.utils.parametrize import register_parametrization

from brevq.core.function_wrapper import RoundSte, StochasticRoundSte
from brevq.core.memo import ScaleMemo, is_pure, is_watched
from brevq.core.phase import Phase
from brevq.core.restrict_val import FloatRestrictValue, LogFloatRestrictValue, PowerOfTwoRestrictValue
from brevq.core.scaling import StatsScaling
from brevq.core.stats import RuntimeStats
from brevq.graph import calibrating
from brevq.nn import QuantIdentity, QuantReLU
from injectors import Int8ActPerTensor, Int8ActPerTensorPoT, Uint8ActPerTensor

BATCH = torch.linspace(-3, 2, 64)
DYNAMIC = Uint8ActPerTensor.let(scaling_impl=StatsScaling)


def settled(recipe=Int8ActPerTensor, layer=QuantIdentity):
    """A layer after calibration, in evaluation, that was called twice."""
    module = layer(act_quant=recipe) if recipe else layer()
    with calibrating(module.eval()):
        module(BATCH)
    with torch.no_grad():
        module(BATCH), module(BATCH)
    return module


def range_of(module):
    """The parameter that holds the range."""
    return next(part for part in module.modules() if isinstance(part, RuntimeStats)).value


def long_way(module, x):
    """What the layer returns by way of all its parts: a hook that watches one keeps it from being passed by."""
    scaling = module.act_quant.tensor_quant.scaling_impl
    handle = scaling.register_forward_hook(lambda *_: None)
    with torch.no_grad():
        y = module(x)
    handle.remove()
    return y


def by_data(value):
    """A write that torch does not count."""
    value.data.fill_(1.0)


def by_storage(value):
    """Another tensor in the place of the first."""
    value.data = torch.tensor(1.0)


def in_place(value):
    """A write that torch counts."""
    with torch.no_grad():
        value.mul_(0.5)


@pytest.mark.parametrize("change", [by_data, by_storage, in_place], ids=lambda change: change.__name__)
def test_a_range_that_somebody_changes(change):
    """The next call follows the new range."""
    module = settled()
    change(range_of(module))
    with torch.no_grad():
        assert torch.equal(long_way(module, BATCH), module(BATCH))


def test_a_range_that_is_loaded():
    """So it does after a checkpoint was loaded, copied in or put in the place of the parameters."""
    for assign in (False, True):
        module, other = settled(), settled()
        range_of(other).data.fill_(0.7)
        module.load_state_dict(other.state_dict(), assign=assign)
        with torch.no_grad():
            assert torch.equal(long_way(other, BATCH), module(BATCH))


def test_a_range_that_is_learned():
    """And after a step of the optimizer, in evaluation and in training without gradients."""
    module = settled()
    for part in module.modules():
        if isinstance(part, RuntimeStats):
            part.settle(Phase.LEARNED)
    module.train()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        module(BATCH).square().sum().backward()
        assert range_of(module).grad != 0
        optimizer.step()
        with torch.no_grad():
            assert torch.equal(long_way(module, BATCH), module(BATCH))


@pytest.mark.parametrize("recipe", [Int8ActPerTensor, Int8ActPerTensorPoT])
def test_values_of_the_short_way(recipe):
    """What is kept gives the values of the long way, bit for bit."""
    module = settled(recipe)
    x = torch.randn(1000)
    with torch.no_grad():
        assert torch.equal(long_way(module, x), module(x))


@pytest.mark.parametrize("written_to", [lambda scale: scale, lambda scale: scale.data, lambda scale: scale.numpy()])
def test_a_scale_that_somebody_wrote_to(written_to):
    """A scale that a user changed in place, in whatever way, is not given out again."""
    module = settled()
    module.return_quant_tensor = True
    with torch.no_grad():
        scale = module(BATCH).scale.clone()
        written_to(module(BATCH).scale)[...] = 2
        assert torch.equal(scale, module(BATCH).scale)


def test_inference_mode():
    """What inference mode computed is of no use to training, and is not kept for it."""
    module = QuantIdentity()
    with calibrating(module.eval()):
        module(BATCH)
    with torch.inference_mode():
        inside = module(BATCH)
    x = BATCH.clone().requires_grad_()
    y = module(x)
    y.sum().backward()
    assert torch.equal(inside, y)


def test_hooks_see_each_call():
    """A hook on a part, in place of which something was kept, is called all the same."""
    module, calls = settled(), []
    stats = next(part for part in module.modules() if isinstance(part, RuntimeStats))
    for part in (stats, module.act_quant.tensor_quant.scaling_impl):
        part.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        module(BATCH), module(BATCH)
    assert 4 == len(calls)


def test_hooks_see_each_gradient():
    """A backward hook on the core quantizer changes gradients also where ReLU is left to the quantizer."""
    layer = QuantReLU(collect_stats_steps=1)
    layer.act_quant.tensor_quant.register_full_backward_hook(lambda module, given, above: (given[0] * 10,))
    for _ in range(3):
        x = torch.rand(64, requires_grad=True)
        layer(x * 1).sum().backward()
        assert 10 == x.grad.median().item()


def test_a_parametrized_range():
    """A learned range may be computed from another parameter."""
    layer = QuantReLU(collect_stats_steps=1)
    for _ in range(3):
        expected = layer(BATCH)
    register_parametrization(layer.act_quant.tensor_quant.scaling_impl.runtime_stats, "value", nn.Identity())
    assert torch.equal(expected, layer(BATCH))


def test_calibrating_again():
    """A new calibration observes, whatever was kept."""
    module = settled()
    with calibrating(module):
        module(10 * BATCH)
    with torch.no_grad():
        assert torch.equal(long_way(module, BATCH), module(BATCH))
        assert 30 == pytest.approx(range_of(module).item(), rel=1e-3)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_copies_keep_their_own(copied):
    """A copy follows its own range."""
    module = settled()
    other = copied(module)
    by_data(range_of(other))
    with torch.no_grad():
        assert torch.equal(long_way(other, BATCH), other(BATCH))
        assert torch.equal(long_way(module, BATCH), module(BATCH))
        assert not torch.equal(module(BATCH), other(BATCH))


def test_memo_of_several_dtypes():
    """A range of the same number in another dtype has another scale."""
    memo, scale = ScaleMemo(), torch.tensor(0.004)
    memo.keep(torch.tensor(0.5), scale)
    assert (scale, None) == (memo.find(torch.tensor(0.5)), memo.find(torch.tensor(0.5, dtype=torch.float64)))


def test_pure_parts():
    """A part is pure if it and all of its own parts say that they hold nothing."""

    class Odd(FloatRestrictValue):
        """A restriction of somebody's own, which says nothing."""

    parts = FloatRestrictValue(), LogFloatRestrictValue(), PowerOfTwoRestrictValue(RoundSte())
    assert [True] * 3 == [is_pure(part) for part in parts]
    assert [False] * 2 == [is_pure(part) for part in (Odd(), PowerOfTwoRestrictValue(StochasticRoundSte()))]


def test_watched_modules():
    """A module is watched while it, or every module, has a hook of any kind."""
    module = nn.Identity()
    for register in (
        module.register_forward_hook,
        module.register_forward_pre_hook,
        module.register_full_backward_hook,
        module.register_full_backward_pre_hook,
        register_module_forward_hook,
    ):
        handle = register(lambda *_: None)
        assert is_watched(module)
        handle.remove()
    assert not is_watched(module)


def test_relu_that_need_not_be_computed():
    """In settled evaluation the grid clamps what ReLU would: values are equal, and a watched quantizer sees ReLU's."""
    module, x, seen = settled(None, QuantReLU), torch.randn(1000), []
    assert (False, True) == (module.is_implied, _without_gradients(lambda: module.is_implied))
    y = _without_gradients(lambda: module(x))
    module.act_quant.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    assert torch.equal(y, _without_gradients(lambda: module(x)))
    assert 0 == seen[0].min()


@pytest.mark.parametrize("case", ["train", "signed", "observing", "dynamic", "float"])
def test_relu_that_is_computed(case):
    """Where a gradient, a negative code, or a statistic depends on it, ReLU is computed."""
    module = {
        "train": QuantReLU,
        "signed": lambda: QuantReLU(act_quant=Int8ActPerTensor),
        "observing": QuantReLU,
        "dynamic": lambda: QuantReLU(act_quant=DYNAMIC),
        "float": lambda: QuantReLU(act_quant=None),
    }[case]()
    if case not in {"observing", "train"}:
        with calibrating(module.eval()):
            module(BATCH)
    y = _without_gradients(lambda: (module.is_implied, module(BATCH)))
    assert (False, 0) == (y[0], max(0.0, -y[1].min().item()))


def _without_gradients(function):
    with torch.no_grad():
        return function()
