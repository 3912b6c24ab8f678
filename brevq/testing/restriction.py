"""The contract of restrictions: which values a scale may take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from brevq.testing import expect
from brevq.testing.component import Case, Components
from brevq.testing.travel import Way, outcome


class RestrictionContract(Components):
    """The contract of restrictions of scales (`restrict_scaling_impl`): which values a scale may take.

    `create()` makes one; `reference(x)` is what becomes of a positive number on its way in, through `encode`, and out.
    """

    #: The positive numbers that it is tried on.
    numbers: ClassVar[Sequence[float]] = (
        1e-30,
        0.01,
        0.124,
        0.125,
        0.3,
        0.5,
        0.75,
        1.0,
        1.5,
        2.5,
        3.0,
        4.0,
        127.0,
        1e6,
    )

    def test_values(self, case: Case, dtype: torch.dtype, device: torch.device) -> None:
        """A number that is stored and read becomes the one that the restriction allows."""
        value = torch.tensor(self.numbers, dtype=dtype, device=device)
        actual = _there_and_back(case.create().to(device), value)
        expected = torch.tensor([case.reference(number) for number in value.tolist()], dtype=dtype)
        expect.equal(
            (dtype, device.type), (actual.dtype, actual.device.type), "dtype and device are those of the input"
        )
        relative = case.rounding * torch.finfo(dtype).eps
        expect.close(expected, actual, "the value is the one that the restriction allows", relative=relative)

    def test_it_stays_where_it_is(self, case: Case) -> None:
        """What is allowed already is kept."""
        module = case.create()
        once = _there_and_back(module, torch.tensor(self.numbers[1:-1]))
        relative = case.rounding * torch.finfo(torch.float32).eps
        expect.close(once, _there_and_back(module, once), "what is allowed already is kept", relative=relative)

    def test_zero_becomes_positive(self, case: Case) -> None:
        """From a range of zero comes a positive number, and a finite gradient above zero, so learning can start."""
        value = torch.zeros((), requires_grad=True)
        result = _there_and_back(case.create(), value)
        (gradient,) = torch.autograd.grad(result, value)
        expect.holds(result > 0, "a range of zero becomes a positive number")
        expect.holds(gradient.isfinite() and gradient > 0, "its gradient is finite, and lets the range grow")

    def test_any_shape(self, case: Case) -> None:
        """A restriction works value by value."""
        for shape in ((), (3,), (3, 1, 1)):
            found = tuple(_there_and_back(case.create(), torch.ones(shape)).shape)
            expect.equal(shape, found, "the shape is that of the input")

    def test_travels(self, travel: tuple[Case, Way]) -> None:
        """A copy gives equal values and gradients, by whatever way it came."""
        case, go = travel
        module, x = case.create(), torch.tensor([0.3, 2.5, 3.0])
        expect.equal(outcome(module, x), outcome(go(case.create, module), x), "a copy computes what the original does")


def _there_and_back(module: Any, value: Tensor) -> Tensor:
    result: Tensor = module(module.encode(value))
    return result
