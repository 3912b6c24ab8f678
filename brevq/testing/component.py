"""What the contracts of components share, and those of components in general and of core quantizers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import attrs
import torch
from torch import Tensor
from torch.nn import Module

from brevq.errors import ArgumentError
from brevq.testing import expect
from brevq.testing.contract import Contract, devices, dtypes
from brevq.testing.travel import WAYS, Way, outcome, scripted


@attrs.frozen
class Case:
    """A component to be tested.

    Args:
        create: makes one. What it is called with, the contract says.
        reference: what the component computes, written again: slowly, plainly, and without brevq.
        rounding: how far results may be off the reference, relatively, in units of the dtype's epsilon, because they
            are sums in another order, say. Default: 0, bit for bit.
        slope: the gradient that is documented, where the contract asks for it.
        inputs: what it is called with, where the contract does not say.
        scripts: whether TorchScript compiles it. Default: False.

    Examples:
        >>> case = Case(torch.nn.ReLU, lambda x: max(x, 0.0))
        >>> case.rounding, case.scripts
        (0.0, False)
    """

    create: Callable[..., Module]
    reference: Callable[..., Any]
    rounding: float = 0.0
    slope: Callable[[float], float] | None = None
    inputs: tuple[Tensor, ...] = ()
    scripts: bool = False

    def ways(self) -> dict[str, Way]:
        """The ways in which it travels, by name."""
        return {**WAYS, "scripted": scripted} if self.scripts else WAYS


class Components(Contract):
    """What the contracts of components share: either `create` and `reference` for one, or `cases` for many.

    A class declares `create` and `reference`, as methods; and, if the defaults do not fit, `rounding`, `slope`,
    `inputs` and `scripts`, whose meaning `Case` tells. With several components to test under one contract, it declares
    `cases` in their place.
    """

    #: Components by name, where there is more than one.
    cases: ClassVar[Mapping[str, Case]] = {}
    #: The dtypes that values are compared in.
    dtypes: ClassVar[Mapping[str, torch.dtype]] = dtypes("float32", "float64")
    rounding: ClassVar[float] = 0.0
    inputs: ClassVar[tuple[Tensor, ...]] = ()
    scripts: ClassVar[bool] = False
    create: Any = None
    reference: Any = None
    slope: Any = None

    def parameters(self) -> Mapping[str, Mapping[str, Any]]:
        """The components, the ways in which they travel, dtypes and devices."""
        cases = self._cases()
        travels = {f"{name}-{way}": (case, go) for name, case in cases.items() for way, go in case.ways().items()}
        return {"case": cases, "travel": travels, "dtype": self.dtypes, "device": devices()}

    def _cases(self) -> Mapping[str, Case]:
        if self.cases:
            return self.cases
        name = type(self).__name__
        missing = [part for part in ("create", "reference") if getattr(self, part) is None]
        if missing:
            raise ArgumentError(
                f"{name} declares no `{missing[0]}`: a contract needs `create` and `reference`, or `cases` with several"
            )
        case = Case(self.create, self.reference, self.rounding, self.slope, self.inputs, self.scripts)
        return {name.removeprefix("Test"): case}


class ComponentContract(Components):
    """The contract of any component: ranges (`scaling_impl`), zero-points, bit widths, and parts of a new kind.

    `create()` makes one, `inputs` is what it is called with, and `reference(*inputs)` what it returns the first time,
    in training: a number, a list, an array, or a tuple of those, in the shape of the result. Scales, zero-points and
    bit widths are float32.

    Examples:
        >>> class TestHalf(ComponentContract):
        ...     inputs = (torch.tensor([1.0, 3.0]),)
        ...     def create(self):
        ...         return Half()
        ...     def reference(self, x):
        ...         return [value / 2 for value in x.tolist()]
    """

    def test_values(self, case: Case, device: torch.device) -> None:
        """The first call returns the documented numbers, in their shape, in float32, on the device of the inputs."""
        expected = [torch.as_tensor(part, dtype=torch.float64) for part in _parts(case.reference(*case.inputs))]
        before = [part.clone() for part in case.inputs]
        results = _parts(case.create().to(device)(*_on(device, case.inputs)))
        expect.equal(before, list(case.inputs), "the inputs are left as they are")
        expect.equal(len(expected), len(results), "it returns as many tensors as the reference")
        for wanted, result in zip(expected, results, strict=True):
            expect.equal((torch.float32, device.type), (result.dtype, result.device.type), "results are float32, there")
            relative = case.rounding * torch.finfo(torch.float32).eps
            expect.close(wanted.float(), result, "the values are those of the reference", relative=relative)

    def test_travels(self, travel: tuple[Case, Way]) -> None:
        """After a first call, a copy gives equal values and gradients, by whatever way it came."""
        case, go = travel
        module = case.create()
        module(*case.inputs)
        arrived = go(case.create, module)
        expect.equal(
            outcome(module, *case.inputs), outcome(arrived, *case.inputs), "a copy computes what the original does"
        )

    def test_keys_are_fixed_at_construction(self, case: Case) -> None:
        """Data does not change the keys of the state."""
        module = case.create()
        before = list(module.state_dict())
        module(*case.inputs)
        expect.equal(before, list(module.state_dict()), "the keys of the state are fixed at construction")

    def test_gradients_are_finite(self, case: Case) -> None:
        """No gradient, to inputs or parameters, is infinite or NaN."""
        _, gradients = outcome(case.create(), *case.inputs)
        numbers = [torch.tensor(gradient) for gradient in gradients if gradient is not None]
        expect.holds(all(x.isfinite().all() for x in numbers), "all gradients are finite")


class QuantizerContract(ComponentContract):
    """The contract of core quantizers (`tensor_quant`): a tensor in, its dequantized self and its grid out.

    `inputs` begins with the tensor to be quantized, and `reference(*inputs)` returns values, scale, zero-point and bit
    width; after them whatever the quantizer adds.
    """

    def test_four_come_back(self, case: Case) -> None:
        """Values, scale, zero-point and bit width come first; scale and zero-point broadcast to the values."""
        results = _parts(case.create()(*case.inputs))
        expect.holds(len(results) >= 4, "values, scale, zero-point and bit width come back")
        value, scale, zero_point, bit_width = results[:4]
        expect.equal(case.inputs[0].shape, value.shape, "values have the shape of the input")
        expect.equal(value.shape, (value + scale).shape, "the scale broadcasts to the values")
        expect.equal(value.shape, (value + zero_point).shape, "the zero-point broadcasts to the values")
        expect.equal((), tuple(bit_width.shape), "the bit width is one number")
        expect.holds((scale > 0).all(), "scales are positive")

    def test_the_gradient_reaches_the_input(self, case: Case) -> None:
        """Training can move what is quantized."""
        x = case.inputs[0].clone().requires_grad_()
        case.create()(x, *case.inputs[1:])[0].sum().backward()
        expect.holds(x.grad is not None and x.grad.abs().sum() > 0, "the input gets a gradient that is not zero")

    def test_zeros_give_no_nan(self, case: Case) -> None:
        """An all-zero tensor has finite values and a finite scale."""
        value, scale, *_ = case.create()(torch.zeros_like(case.inputs[0]), *case.inputs[1:])
        expect.holds(value.isfinite().all() and scale.isfinite().all(), "zeros give finite values and scales")


def _parts(result: Any) -> list[Any]:
    return [part for part in (result if isinstance(result, tuple) else (result,)) if part is not None]


def _on(device: torch.device, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    return [part.to(device) for part in inputs]
