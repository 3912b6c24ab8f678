"""Calls that activation checkpointing repeats: they count nothing, and return what they returned."""

import math
from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import injectors
from brevq.core.phase import Phase, recomputing
from brevq.core.quant import DelayWrapper
from brevq.core.stats import AbsMax, RuntimeStats
from brevq.core.stats.ranks import Ranks
from brevq.nn import QuantLinear, QuantReLU

WAYS = {
    "not at all": lambda function, *x: function(*x),
    "reentrant": partial(checkpoint, use_reentrant=True),
    "not reentrant": partial(checkpoint, use_reentrant=False),
}
REPEATING = ["reentrant", "not reentrant"]


class Block(nn.Module):
    """A layer between two uses of one activation, whose range therefore sees two batches in a step."""

    def __init__(self, **overrides):
        super().__init__()
        self.relu = QuantReLU(**{"bit_width": 4, **overrides})
        self.layer = QuantLinear(6, 6, weight_quant=injectors.Int8WeightPerTensorLSQ, weight_bit_width=4)

    def forward(self, x):
        return self.relu(self.layer(self.relu(x)))


def trained(way, steps=6, **overrides):
    """Losses of training, the gradients of each step, and the state after it."""
    torch.manual_seed(0)
    model = nn.ModuleList([Block(**overrides), Block(**overrides)])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses, grads = [], []
    for _ in range(steps):
        optimizer.zero_grad()
        x = torch.randn(5, 6, requires_grad=True)
        hidden = x
        for block in model:
            hidden = WAYS[way](block, hidden)
        loss = hidden.square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        grads.append([x.grad.tolist(), *(None if p.grad is None else p.grad.tolist() for p in model.parameters())])
    return losses, grads, {name: tensor.tolist() for name, tensor in model.state_dict().items()}


CASES = {
    "observing": {},
    "learning begins between steps": {"collect_stats_steps": 6},
    "learning begins within a step": {"collect_stats_steps": 5},
    "learning begins within the first step": {"collect_stats_steps": 1},
    "the largest of all batches": {"act_quant": injectors.Uint8ActPerTensorMax, "collect_stats_steps": 5},
    "a zero-point": {"act_quant": injectors.ShiftedUint8ActPerTensor, "collect_stats_steps": 5},
    "ranges of each batch": {"act_quant": injectors.Uint8ActPerTensorBatchQuant},
    "a delay": {"quant_delay_steps": 6},
    "learned bits": {"act_quant": injectors.Uint8ActPerTensorLearnedBits, "collect_stats_steps": 3, "bit_width": 6},
}


@pytest.mark.parametrize("way", REPEATING)
@pytest.mark.parametrize("case", CASES)
def test_training_is_the_same_with_activation_checkpointing(case, way):
    """Losses, gradients and state are, to the bit, those of training without it."""
    assert trained("not at all", **CASES[case]) == trained(way, **CASES[case])


@pytest.mark.parametrize("way", REPEATING)
def test_learning_may_begin_after_many_batches(way):
    """Which batches of the last step were observed is known too where most batches came long before."""
    arguments = {"steps": 26, "collect_stats_steps": 49}
    assert trained("not at all", **arguments) == trained(way, **arguments)


@pytest.mark.parametrize("way", WAYS)
def test_batches_are_compared_only_after_learning_began(way, monkeypatch):
    """While it observes, no sum of a batch is asked for, of this process or of others."""
    asked = []
    monkeypatch.setattr(Ranks, "totals", lambda self, sums: asked.append(len(sums)) or sums.tolist())
    stats, counts = RuntimeStats(AbsMax(), collect_stats_steps=3), []
    for _ in range(4):
        WAYS[way](lambda x: 2 * stats(x), torch.ones(2, requires_grad=True)).backward()
        counts.append(len(asked))
    assert [0, 0, way != "not at all", way != "not at all"] == counts


@pytest.mark.parametrize("way", WAYS)
def test_a_repeated_batch_is_observed_once(way):
    """The number of batches is that of the forward passes."""
    stats = RuntimeStats(AbsMax())
    for _ in range(3):
        WAYS[way](lambda x: 2 * stats(x), torch.ones(2, requires_grad=True)).backward()
    assert (3, Phase.OBSERVE) == (stats.steps.item(), stats.phase)


@pytest.mark.parametrize("way", WAYS)
def test_a_repeated_step_is_counted_once(way):
    """A delay of three steps has one left after two."""
    delay = DelayWrapper(3)
    for _ in range(2):
        x = torch.ones(2, requires_grad=True)
        WAYS[way](lambda x: delay(x * x, x * 0), x).sum().backward()
    assert 1 == delay.steps_left.item()


@pytest.mark.parametrize("way", WAYS)
def test_gradient_of_the_last_delayed_step(way):
    """The last step of a delay has the gradient of the float tensor, and the next that of the quantized one."""
    delay, grads = DelayWrapper(1), []
    for _ in range(2):
        x = torch.tensor(1.0, requires_grad=True)
        WAYS[way](lambda x: delay(2 * x * x, 3 * x * x), x).backward()
        grads.append(x.grad.item())
    assert [4.0, 6.0] == grads


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_bad_batch_at_the_change_is_repeated(bad, way):
    """A batch that is not finite, and so not averaged, can be repeated as any other."""
    stats = RuntimeStats(AbsMax(), collect_stats_steps=1)

    def both(x):
        return stats(x * bad) + stats(x) + stats(3 * x)

    x = torch.ones(2, requires_grad=True)
    WAYS[way](both, x).backward()
    assert (1.0, Phase.LEARNED) == (stats.average.item(), stats.phase)


@pytest.mark.parametrize("way", WAYS)
def test_an_empty_batch_is_repeated(way):
    """A batch without values gives the value there is, and its gradient to that, when repeated too."""
    stats = RuntimeStats(AbsMax())
    WAYS[way](lambda x: stats(x) * 2, torch.zeros(0, requires_grad=True)).backward()
    assert (2.0, 0, Phase.EMPTY) == (stats.value.grad.item(), stats.steps.item(), stats.phase)


def test_what_is_repeated_is_told_apart():
    """Inside of a backward pass, and nowhere else, a call is a repetition."""
    seen = []

    def note(x):
        seen.append(recomputing())
        return x * x

    checkpoint(note, torch.ones(2, requires_grad=True), use_reentrant=False).sum().backward()
    assert [False, True, False] == [*seen, recomputing()]


@pytest.mark.parametrize("way", REPEATING)
def test_what_is_kept_for_repetition_does_not_grow(way):
    """Batches of earlier steps are forgotten with the next step, and none is left once ranges are learned."""
    stats = RuntimeStats(AbsMax(), collect_stats_steps=3)
    kept = []
    for _ in range(5):
        WAYS[way](lambda x: 2 * stats(x), torch.ones(2, requires_grad=True)).backward()
        kept.append(len(stats._repeatable))
    assert [1, 1, 1, 0, 0] == kept
