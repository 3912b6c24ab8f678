"""The contract of functions of one number: roundings, clamps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch.nn import Module

from brevq.testing import expect
from brevq.testing.component import Case, Components
from brevq.testing.contract import dtypes
from brevq.testing.travel import Way, outcome


class ElementwiseContract(Components):
    """The contract of roundings, clamps and other functions of one number (`float_to_int_impl`, `tensor_clamp_impl`).

    `create()` makes one; `inputs` is what it is called with besides the numbers. `reference(x)` is what becomes of one
    number, a float, and `slope(x)` its documented gradient: 1 by default, the straight-through estimator.

    Examples:
        >>> class TestRound(ElementwiseContract):
        ...     def create(self):
        ...         return Round()
        ...     def reference(self, x):
        ...         return float(round(x))
    """

    dtypes: ClassVar[Mapping[str, torch.dtype]] = dtypes("float16", "bfloat16", "float32", "float64")
    #: The numbers that it is tried on: all of them exact in every dtype, with halves of either parity.
    numbers: ClassVar[Sequence[float]] = (-100.5, *(k / 4 for k in range(-14, 15)), 0.8125, -1.6875, 101.5, -0.0)
    slope: Any = None

    def test_values_and_gradients(self, case: Case, dtype: torch.dtype, device: torch.device) -> None:
        """Each number becomes what the reference says, and its gradient is the documented one, in every dtype."""
        x = torch.tensor(self.numbers, device=device, dtype=torch.float64).to(dtype).requires_grad_()
        numbers = x.tolist()
        y = case.create().to(device)(x, *(part.to(device, dtype) for part in case.inputs))
        y.sum().backward()
        slope = case.slope or (lambda value: 1.0)
        expect.equal(numbers, x, "the input is left as it is")
        expect.equal((dtype, device.type), (y.dtype, y.device.type), "the result has dtype and device of the input")
        expect.equal([float(case.reference(value)) for value in numbers], y, "the values are those of the reference")
        gradient = x.grad if x.grad is not None else torch.zeros_like(x)
        expect.equal([float(slope(value)) for value in numbers], gradient, "the gradient is the documented one")

    def test_evaluation(self, case: Case) -> None:
        """In evaluation numbers become what they become in training."""
        x = torch.tensor(self.numbers)
        module = case.create()
        expected = module(x, *case.inputs)
        if isinstance(module, Module):
            module.eval()
        expect.equal(expected, module(x, *case.inputs), "the values in evaluation are those in training")

    def test_any_shape(self, case: Case) -> None:
        """Numbers stay where they are, with any number of axes, also where none is there or memory has gaps."""
        module, x = case.create(), torch.tensor(self.numbers)
        expected = module(x, *case.inputs)
        expect.equal(expected[0], module(x[0], *case.inputs), "a scalar has the value that it has in a vector")
        matrix = torch.stack([x, x.flip(0)])
        for given in (matrix, matrix.T):
            result = module(given, *case.inputs)
            expect.equal(given.shape, result.shape, "the shape is that of the input")
            rows = result if given is matrix else result.T
            expect.equal([expected, expected.flip(0)], [rows[0], rows[1]], "numbers stay where they are")
        images = x[:12].reshape(1, 3, 2, 2)
        expect.equal(expected[:12], module(images, *case.inputs).reshape(-1), "numbers stay where they are")
        expect.equal((0, 3), tuple(module(torch.zeros(0, 3), *case.inputs).shape), "an empty tensor stays one")

    def test_travels(self, travel: tuple[Case, Way]) -> None:
        """A copy gives equal values and gradients, by whatever way it came."""
        case, go = travel
        module, x = case.create(), torch.tensor(self.numbers)
        arrived = go(case.create, module)
        expect.equal(
            outcome(module, x, *case.inputs),
            outcome(arrived, x, *case.inputs),
            "a copy computes what the original does",
        )

    def test_has_no_state(self, case: Case) -> None:
        """A function as a module has nothing to save."""
        expect.equal([], list(case.create().state_dict()), "it has no state")
