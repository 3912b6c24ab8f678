"""The contract of statistics: one number for the values that share a scale."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, ClassVar

import attrs
import torch
from torch import Tensor
from torch.nn import Module

from brevq.core.function_wrapper import Granularity, PerChannel, PerGroup, PerTensor
from brevq.testing import expect
from brevq.testing.component import Case, Components
from brevq.testing.travel import Way, outcome


@attrs.frozen
class _Layout:
    """Which values share a scale, and the same again by plain indexing."""

    create: Callable[[], Granularity]
    rows: Callable[[Tensor], Iterable[Tensor]]


class StatisticContract(Components):
    """The contract of statistics (`scaling_stats_impl`, `zero_point_stats_impl`): one number for each scale.

    `create(granularity)` makes one, and `reference(row)` is the statistic of the values that share a scale, given as a
    list of floats.

    Examples:
        >>> class TestKthLargest(StatisticContract):
        ...     def create(self, granularity):
        ...         return KthLargest(granularity)
        ...     def reference(self, row):
        ...         return sorted(map(abs, row))[-2]
    """

    #: The shape of the tensor that statistics are taken of; its last size is even.
    shape: ClassVar[tuple[int, ...]] = (4, 3, 6)
    #: Whether it is continuous, so that its gradient is the slope of the reference.
    smooth: ClassVar[bool] = True

    def parameters(self) -> Mapping[str, Mapping[str, Any]]:
        """Besides those of all components: granularities, and on which side of zero the values lie."""
        spreads: dict[str, Callable[[Tensor], Tensor]] = {
            "both": lambda x: x,
            "positive": lambda x: x.abs() + 0.1,
            "negative": lambda x: -x.abs() - 0.1,
        }
        return {**super().parameters(), "layout": dict(self._layouts()), "spread": spreads}

    def _layouts(self) -> Iterator[tuple[str, _Layout]]:
        shape = self.shape
        yield "tensor", _Layout(PerTensor, lambda x: x.reshape(1, -1))
        for axis in (*range(len(shape)), -1):
            yield f"axis {axis}", _Layout(partial(PerChannel, shape, axis), partial(_lines, axis=axis))
        yield "group", _Layout(lambda: PerGroup(2, -1, tensor_shape=shape), lambda x: x.reshape(-1, 2))

    def _values(self, spread: Callable[[Tensor], Tensor], dtype: torch.dtype) -> Tensor:
        return spread(torch.randn(self.shape, dtype=torch.float64).to(dtype))

    def test_values(
        self,
        case: Case,
        layout: _Layout,
        spread: Callable[[Tensor], Tensor],
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        """A statistic is that of the values of each scale, in the shape of the scale and the dtype of the values."""
        x, granularity = self._values(spread, dtype), layout.create()
        actual = case.create(granularity).to(device)(granularity.split(x.to(device)))
        expected = torch.tensor([case.reference(row.tolist()) for row in layout.rows(x)], dtype=torch.float64)
        expect.equal(granularity.scale_shape, tuple(actual.shape), "the statistic has the shape of the scale")
        expect.equal(
            (dtype, device.type), (actual.dtype, actual.device.type), "dtype and device are those of the values"
        )
        relative = case.rounding * torch.finfo(dtype).eps
        expect.close(expected.to(dtype), actual.reshape(-1), "the statistic is the reference's", relative=relative)

    def test_gradients(self, case: Case, layout: _Layout, spread: Callable[[Tensor], Tensor]) -> None:
        """The gradient is the slope of the reference, measured by finite differences where it is smooth."""
        if not self.smooth:
            return
        x, granularity = self._values(spread, torch.float64), layout.create()
        leaf = x.clone().requires_grad_()
        result = case.create(granularity)(granularity.split(leaf))
        if result.requires_grad:
            result.sum().backward()
        actual = torch.zeros_like(x) if leaf.grad is None else leaf.grad
        expected = _slopes(x, lambda side: sum(case.reference(row.tolist()) for row in layout.rows(side)))
        # A central difference is off by rounding / step, 1e-15 / 1e-6, and by step squared.
        expect.close(expected, actual, "the gradient is the slope of the reference", absolute=1e-7)

    def test_travels(self, travel: tuple[Case, Way], layout: _Layout) -> None:
        """A copy gives equal values and gradients, by whatever way it came."""
        case, go = travel
        create = partial(_with_layout, case, layout)
        module, x = create(), layout.create().split(torch.randn(self.shape))
        expect.equal(outcome(module, x), outcome(go(create, module), x), "a copy computes what the original does")

    def test_any_shape(self, case: Case) -> None:
        """Over a whole tensor, the number of axes does not matter."""
        for shape in ((6,), (2, 3), (3, 1, 2), (1, 2, 3, 1)):
            x = torch.arange(1.0, 7.0).reshape(shape)
            expected = torch.tensor(case.reference([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]))
            actual = case.create(PerTensor())(x)
            relative = case.rounding * torch.finfo(torch.float32).eps
            expect.close(expected, actual, f"a tensor of shape {shape} has the reference's", relative=relative)

    def test_zeros_have_a_finite_statistic_and_gradient(self, case: Case) -> None:
        """An all-zero tensor gives a number and gradients, never NaN."""
        x = torch.zeros(3, 4, requires_grad=True)
        result = case.create(PerTensor())(x)
        if result.requires_grad:
            result.backward()
        expect.holds(result.isfinite(), "zeros have a finite statistic")
        expect.holds(x.grad is None or x.grad.isfinite().all(), "zeros get finite gradients")

    def test_one_value_has_a_finite_statistic(self, case: Case) -> None:
        """A single value is enough for any statistic."""
        result = case.create(PerTensor())(torch.tensor([-2.0])).item()
        expect.holds(math.isfinite(result), "a single value has a finite statistic")

    def test_nan_stays_visible(self, case: Case) -> None:
        """One NaN makes the statistic of its values NaN, wherever it stands, and no other's."""
        for values in ([1.0, math.nan, -2.0], [-3.0, math.nan, 2.0], [math.nan, math.nan, -1.0]):
            result = case.create(PerChannel((2, 3), 0))(torch.tensor([values, [1.0, -1.0, 1.0]]))
            expect.equal([True, False], result.isnan().flatten(), f"the statistic of {values} is NaN, the next is not")


def _with_layout(case: Case, layout: _Layout) -> Module:
    return case.create(layout.create())


def _lines(x: Tensor, axis: int) -> Tensor:
    """The values at each index of an axis, one line for each."""
    return x.movedim(axis, 0).flatten(1)


def _slopes(x: Tensor, total: Callable[[Tensor], float], step: float = 1e-6) -> Tensor:
    """The gradient of `total` at `x`, by central differences."""
    slopes = torch.zeros(x.numel(), dtype=x.dtype)
    for index in range(x.numel()):
        high, low = x.clone().reshape(-1), x.clone().reshape(-1)
        high[index] += step
        low[index] -= step
        slopes[index] = (total(high.reshape(x.shape)) - total(low.reshape(x.shape))) / (2 * step)
    return slopes.reshape(x.shape)
