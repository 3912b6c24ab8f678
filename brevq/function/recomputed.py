"""Products with quantized weights that keep what a weight was computed from, and compute it again for the gradient.

The float weight is alive anyway, so that its quantized twin takes memory in the forward pass alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import functional as F
from torch.utils.weak import WeakTensorKeyDictionary

from brevq.function.fused_max import fake_quantize_by_max, on_grids
from brevq.function.recording import differentiate, is_differentiated, recorded

#: What weights were computed from, and how often they had been written to then: beside them, so that it is not saved
#: with them.
_SOURCES: Any = WeakTensorKeyDictionary()


class Source(NamedTuple):
    """What a weight was computed from, by `fake_quantize_by_max`.

    Args:
        rows: the float weight, shape `(..., values)`, in memory with the parameter.
        scale: shape `(...)`.
        floor: the least range.
        threshold: the last code.
    """

    rows: Tensor
    scale: Tensor
    floor: float
    threshold: float


def remember(weight: Tensor, source: Source) -> None:
    """Note what a weight was computed from.

    Args:
        weight: the rows on their grids, in any shape.
        source: what it was computed from.

    Examples:
        >>> rows = torch.randn(4, 6, requires_grad=True)
        >>> weight, scale = fake_quantize_by_max(rows, 1e-10, 7.0)
        >>> remember(weight, Source(rows, scale, 1e-10, 7.0))
        >>> source_of(torch.ones(1, 6), weight).threshold
        7.0
    """
    _SOURCES[weight] = source, _writes(weight, source)


def _writes(weight: Tensor, source: Source) -> tuple[int, int]:
    """How often a weight was written to, and what it was computed from."""
    return weight._version, source.rows._version  # noqa: SLF001  # torch's count


def source_of(x: Tensor, weight: Tensor) -> Source | None:
    """What a weight was computed from.

    None where that is not known, or one of both was written to since, or where its product with `x` is compiled,
    transformed, differentiated forward, under autocast, of another dtype or layout or no plain tensor, or without a
    gradient.

    Args:
        x: what it is multiplied with.
        weight: any weight.

    Examples:
        >>> source_of(torch.ones(1, 3), torch.ones(2, 3)) is None
        True
    """
    if not torch.is_grad_enabled() or recorded() or forward_ad._current_level >= 0:  # noqa: SLF001  # no public name
        return None
    source, writes = _SOURCES.get(weight, (None, ())) if type(weight) is Tensor else (None, ())
    if source is None or writes != _writes(weight, source):
        return None
    plain = type(x) is Tensor and x.layout is torch.strided and not x.is_nested and x.dtype == weight.dtype
    return source if plain and not torch.is_autocast_enabled(x.device.type) else None


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, source: Source) -> Tensor:
    """``x @ weight.T + bias``, as `torch.nn.functional.linear`; keeps `source` and no `weight`.

    Args:
        x: shape `(..., in_features)`.
        weight: shape `(out_features, in_features)`.
        bias: shape `(out_features,)`, or None.
        source: what the weight was computed from.

    Returns:
        Shape `(..., out_features)`.

    Examples:
        >>> rows = torch.ones(2, 3, requires_grad=True)
        >>> weight, scale = fake_quantize_by_max(rows, 1e-10, 7.0)
        >>> linear(torch.ones(1, 3), weight, None, Source(rows, scale, 1e-10, 7.0)).tolist()
        [[3.0, 3.0]]
    """
    return _applied(_Linear(), x, weight, bias, source)


def convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    source: Source,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """The convolution, as `torch.convolution`; keeps `source` and no `weight`.

    Args:
        x: shape `(batch, in_channels, *size)`.
        weight: shape `(out_channels, in_channels / groups, *kernel_size)`.
        bias: shape `(out_channels,)`, or None.
        source: what the weight was computed from.
        stride: of each dimension.
        padding: likewise.
        dilation: likewise.
        groups: number of groups of channels.

    Returns:
        Shape `(batch, out_channels, *size_out)`.

    Examples:
        >>> rows = torch.ones(1, 3, requires_grad=True)
        >>> weight, scale = fake_quantize_by_max(rows, 1e-10, 7.0)
        >>> source = Source(rows, scale, 1e-10, 7.0)
        >>> convolution(torch.ones(1, 1, 4), weight.view(1, 1, 3), None, source, (1,), (0,), (1,), 1).tolist()
        [[[3.0, 3.0]]]
    """
    return _applied(_Convolution(stride, padding, dilation, groups), x, weight, bias, source)


class _Linear:
    """``x @ weight.T + bias``."""

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(x, weight, bias)

    def gradients(self, grad: Tensor, x: Tensor, weight: Tensor, needs: Sequence[bool]) -> tuple[Tensor | None, ...]:
        """Those of `x`, the weight and the bias, where they are needed."""
        flat = grad.reshape(-1, grad.shape[-1])
        return (
            flat.mm(weight).view(x.shape) if needs[0] else None,
            flat.t().mm(x.reshape(-1, x.shape[-1])) if needs[1] else None,
            flat.sum(dim=0) if needs[2] else None,
        )


class _Convolution(NamedTuple):
    """A convolution."""

    stride: Sequence[int]
    padding: Sequence[int]
    dilation: Sequence[int]
    groups: int

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        output: Tensor = torch.convolution(x, weight, bias, *self._rest())
        return output

    def gradients(self, grad: Tensor, x: Tensor, weight: Tensor, needs: Sequence[bool]) -> tuple[Tensor | None, ...]:
        """Those of `x`, the weight and the bias, where they are needed."""
        of: tuple[Tensor | None, ...] = torch.ops.aten.convolution_backward(
            grad, x, weight, [weight.shape[0]], *self._rest(), list(needs)
        )
        return of

    def _rest(self) -> tuple[Any, ...]:
        """What follows the tensors: not transposed, and no output padding."""
        return self.stride, self.padding, self.dilation, False, [0] * len(self.stride), self.groups


def _applied(product: _Linear | _Convolution, x: Tensor, weight: Tensor, bias: Tensor | None, source: Source) -> Tensor:
    """The product, with the gradients of `_Recomputed`."""
    parts = x, weight, bias, source.rows, source.scale
    y: Tensor = _Recomputed.apply(product, source[2:], *parts)  # type: ignore[no-untyped-call]  # torch's
    return y


class _Recomputed(torch.autograd.Function):
    """A product with a quantized weight, and its gradients."""

    @staticmethod
    def forward(
        ctx: Any,
        product: Any,
        limits: tuple[float, float],
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        rows: Tensor,
        scale: Tensor,
    ) -> Tensor:
        """The product; `rows`, `scale` and `limits` are what the weight is computed from again."""
        ctx.product, ctx.limits, ctx.shape = product, limits, weight.shape
        ctx.save_for_backward(x, rows, scale)
        y: Tensor = product(x, weight, bias)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of `x`, weight and bias: `rows` and `scale` have theirs by way of the weight."""
        x, rows, scale = ctx.saved_tensors
        needs = ctx.needs_input_grad[2:5]
        if not is_differentiated(grad):
            weight = on_grids(rows, scale).view(ctx.shape)
            return None, None, *ctx.product.gradients(grad, x, weight, needs), None, None
        with torch.enable_grad():
            weight = fake_quantize_by_max(rows, *ctx.limits)[0].view(ctx.shape)
            # No gradient depends on the bias.
            bias = x.new_zeros(ctx.shape[0], requires_grad=True) if needs[2] else None
        parts = x, weight, bias

        def composed(*given: Tensor) -> Tensor:
            """The product, with what takes a gradient given."""
            left = iter(given)
            each = zip(parts, needs, strict=True)
            product: Tensor = ctx.product(*(next(left) if needed else part for part, needed in each))
            return product

        wanted = [part for part, needed in zip(parts, needs, strict=True) if part is not None and needed]
        found = iter(differentiate(composed, wanted, grad))
        return None, None, *(next(found) if needed else None for needed in needs), None, None
