"""Contracts of components: kept by what is right, and broken, at the right rule, by what is not."""

import inspect
import itertools

import pytest
import torch
from torch import nn

from brevq.core.restrict_val import PowerOfTwoRestrictValue
from brevq.core.scaling import ConstScaling
from brevq.errors import ArgumentError
from brevq.testing import (
    Case,
    ComponentContract,
    ContractError,
    ElementwiseContract,
    QuantizerContract,
    RestrictionContract,
    StatisticContract,
)


class KthLargest(nn.Module):
    """The second largest absolute value, of those that share a scale."""

    def __init__(self, granularity_impl):
        super().__init__()
        self.granularity_impl = granularity_impl

    def forward(self, x):
        rows = self.granularity_impl(x).abs()
        k = min(2, rows.shape[-1])
        return self.granularity_impl.to_scale(rows.sort(dim=-1, descending=True).values[..., k - 1])


class TestKthLargest(StatisticContract):
    """A statistic of one's own, by methods."""

    def create(self, granularity):
        return KthLargest(granularity)

    def reference(self, row):
        return sorted(map(abs, row), reverse=True)[min(2, len(row)) - 1]

    def test_nan_stays_visible(self, case):
        """NaN counts as the largest, so only the second one is seen: a rule of the contract that does not hold here."""
        with pytest.raises(ContractError):
            super().test_nan_stays_visible(case)


class Toward(nn.Module):
    """Rounding toward zero, with the straight-through gradient."""

    def forward(self, x):
        return x + (x.trunc() - x).detach()


class TestToward(ElementwiseContract):
    """A rounding of one's own, which TorchScript compiles too."""

    create = Toward
    scripts = True

    def reference(self, x):
        return float(int(x))


class TestConstant(ComponentContract):
    """A range of one's own."""

    inputs = (torch.ones(3),)

    def create(self):
        return ConstScaling(0.25)

    def reference(self, x):
        return 0.25


class TestRestriction(RestrictionContract):
    """A restriction of one's own, by cases."""

    cases = {"up": Case(PowerOfTwoRestrictValue, lambda x: 2.0 ** torch.tensor(x).log2().ceil().item())}  # noqa: RUF012


def broken(contract):
    """The names of the tests that a class fails, whatever the values of their arguments."""
    parameters, names = contract().parameters(), set()
    for name, test in inspect.getmembers(contract, inspect.isfunction):
        if not name.startswith("test_"):
            continue
        given = [parameters[it] for it in inspect.signature(test).parameters if it != "self"]
        for values in itertools.product(*(it.values() for it in given)):
            instance = contract()
            instance.setup_method()
            try:
                getattr(instance, name)(*values)
            except ContractError:
                names.add(name)
    return names


def contract_of(kind, create, reference=None, **attributes):
    """A class under a contract."""
    attributes |= {"create": staticmethod(create), "reference": staticmethod(reference or (lambda *x: 0.0))}
    return type("TestFaulty", (kind,), attributes)


class Half(nn.Module):
    """Half of a number, in float32 whatever comes, with a state that grows and a gradient of one half."""

    def forward(self, x):
        self.register_buffer("seen", x.detach().clone())
        return x.float() / 2


class Statistic(KthLargest):
    """The mean, without regard to what shares a scale, and infinite for zeros."""

    def forward(self, x):
        return 1 / (1 / x.abs().nan_to_num()).mean()


class Pair(nn.Module):
    """A quantizer that returns two, and stops the gradient."""

    def forward(self, x):
        return x.detach() / 0.0, torch.tensor(0.1)


class Restriction(nn.Module):
    """Doubles on the way in, and lets zeros through."""

    def encode(self, value):
        return value * 2

    def forward(self, stored):
        return stored


class Shared(nn.Module):
    """Rounding that writes into what it is given."""

    def forward(self, x):
        y = x + (x.round() - x).detach()
        x.data.round_()
        return y


class Floor(nn.Module):
    """Rounding that rounds down in evaluation, and images up."""

    def forward(self, x):
        y = x.round() if self.training else x.floor()
        y = y.ceil() + 1 if x.dim() == 4 else y
        return y.detach() + (x - x.detach())


class Counted(nn.Module):
    """A sum that counts in what it is given."""

    def forward(self, x):
        y = x.sum()
        x.data.add_(1)
        return y


FAULTY = {
    "in place": (contract_of(ElementwiseContract, Shared, lambda x: float(round(x))), {"test_values_and_gradients"}),
    "evaluation": (
        contract_of(ElementwiseContract, Floor, lambda x: float(round(x))),
        {"test_evaluation", "test_any_shape"},
    ),
    "counted": (
        contract_of(ComponentContract, Counted, lambda x: float(x.sum()), inputs=(torch.ones(2),)),
        {"test_values"},
    ),
    "rounding": (
        contract_of(ElementwiseContract, Half, lambda x: x / 2, dtypes={"float64": torch.float64}),
        {"test_values_and_gradients"},
    ),
    "statistic": (
        contract_of(StatisticContract, Statistic, lambda row: sum(map(abs, row)) / len(row)),
        {"test_any_shape", "test_gradients", "test_nan_stays_visible", "test_values"},
    ),
    "range": (
        contract_of(ComponentContract, lambda: ConstScaling(0.25), lambda x: 0.5, inputs=(torch.ones(2),)),
        {"test_values"},
    ),
    "state": (
        contract_of(ComponentContract, Half, lambda x: [0.5, 0.5], inputs=(torch.ones(2),)),
        {"test_keys_are_fixed_at_construction"},
    ),
    "restriction": (
        contract_of(RestrictionContract, Restriction, lambda x: x),
        {"test_it_stays_where_it_is", "test_values", "test_zero_becomes_positive"},
    ),
}


class Twice(nn.Module):
    """A quantizer of which scale and bit width have the wrong shape and sign, that stops the gradient and makes NaN."""

    def forward(self, x):
        return x / x.abs().amax().detach() * 0.0 + x.detach(), torch.tensor(-1.0), torch.tensor(0.0), torch.ones(2)


def test_a_quantizer_that_keeps_no_rule():
    """Each rule of quantizers finds what breaks it."""
    x = torch.tensor([1.0, -2.0])
    contract = contract_of(QuantizerContract, Twice, lambda x: (x.tolist(), -1.0, 0.0, [1.0, 1.0]), inputs=(x,))
    expected = {"test_four_come_back", "test_the_gradient_reaches_the_input", "test_zeros_give_no_nan"}
    assert expected == broken(contract)


@pytest.mark.parametrize("case", ["counted", "evaluation", "in place", "range", "restriction", "rounding"])
def test_faults_are_found(case):
    """A component that is wrong fails the tests of the rules that it breaks, and no others."""
    contract, expected = FAULTY[case]
    assert expected == broken(contract)


def test_the_message_tells_where():
    """What differs most is told, with its place, and what was expected there."""
    contract = contract_of(RestrictionContract, Restriction, lambda x: x, numbers=(1.0, 4.0))()
    [case] = contract.parameters()["case"].values()
    with pytest.raises(ContractError) as error:
        contract.test_values(case, torch.float32, torch.device("cpu"))
    assert str(error.value) == (
        "It does not hold that the value is the one that the restriction allows.\n"
        "The largest error is 4, at [1]: expected 4.0, and there is 8.0."
    )


def test_what_is_not_declared_is_asked_for():
    """A class without a component to test says what it lacks."""

    class TestNothing(StatisticContract):
        create = KthLargest

    with pytest.raises(ArgumentError) as error:
        TestNothing().parameters()
    expected = "TestNothing declares no `reference`: a contract needs `create` and `reference`, or `cases` with several"
    assert expected == str(error.value)
