"""Products with quantized weights that keep what a weight was computed from, and compute it again for the gradient.

The float weight is alive anyway, so that its quantized twin takes memory in the forward pass alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from brevq.function.fused_max import again_by_max, fake_quantize_by_max
from brevq.function.recording import differentiate, is_differentiated, recorded

#: Where a weight has its `Source`.
_NAME = "_brevq_source"


class Source(NamedTuple):
    """What a weight was computed from, by `fake_quantize_by_max`."""

    rows: Tensor
    scale: Tensor
    floor: float
    threshold: float


def remember(weight: Tensor, source: Source) -> Tensor:
    """A weight, which knows what it was computed from.

    Args:
        weight: the rows on their grids, in any shape.
        source: what it was computed from.

    Examples:
        >>> rows = torch.randn(4, 6, requires_grad=True)
        >>> weight, scale = fake_quantize_by_max(rows, 1e-10, 7.0)
        >>> remember(weight, Source(rows, scale, 1e-10, 7.0)) is weight
        True
    """
    if weight.requires_grad:
        setattr(weight, _NAME, (source, weight._version))  # noqa: SLF001  # torch's, of whether it was changed
    return weight


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``x @ weight.T + bias``, as `torch.nn.functional.linear`.

    Args:
        x: shape `(..., in_features)`.
        weight: shape `(out_features, in_features)`.
        bias: shape `(out_features,)`, or None.

    Examples:
        >>> linear(torch.ones(1, 3), torch.ones(2, 3), None)
        tensor([[3., 3.]])
    """
    source = _source(x, weight)
    if source is None:
        return F.linear(x, weight, bias)
    return _applied(_Linear(), x, weight, bias, source)


def convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """The convolution, as `torch.convolution`.

    Args:
        x: shape `(batch, in_channels, *size)`.
        weight: shape `(out_channels, in_channels / groups, *kernel_size)`.
        bias: shape `(out_channels,)`, or None.
        stride: of each dimension.
        padding: likewise.
        dilation: likewise.
        groups: number of groups of channels.

    Examples:
        >>> convolution(torch.ones(1, 1, 4), torch.ones(1, 1, 3), None, (1,), (0,), (1,), 1)
        tensor([[[3., 3.]]])
    """
    product = _Convolution(stride, padding, dilation, groups)
    source = _source(x, weight)
    return product(x, weight, bias) if source is None else _applied(product, x, weight, bias, source)


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


def _source(x: Tensor, weight: Tensor) -> Source | None:
    """What a weight can be computed from again; None where it can not, or its product is to be recorded."""
    source, version = getattr(weight, _NAME, (None, 0))
    if source is None or not torch.is_grad_enabled() or recorded() or weight._version != version:  # noqa: SLF001
        return None
    plain = type(x) is Tensor and x.dtype == weight.dtype and not torch.is_autocast_enabled(x.device.type)
    return source if plain else None


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
        ctx.save_for_backward(x, bias, rows, scale)
        y: Tensor = product(x, weight, bias)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of `x`, weight and bias: `rows` and `scale` have theirs by way of the weight."""
        x, bias, rows, scale = ctx.saved_tensors
        needs = ctx.needs_input_grad[2:5]
        if is_differentiated(grad):
            weight = fake_quantize_by_max(rows, *ctx.limits)[0].view(ctx.shape)
            inputs = [part for part, needed in zip((x, weight, bias), needs, strict=True) if needed]

            def composed(*given: Tensor) -> Tensor:
                """The product, with what takes a gradient given."""
                parts = iter(given)
                each = zip((x, weight, bias), needs, strict=True)
                product: Tensor = ctx.product(*(next(parts) if needed else part for part, needed in each))
                return product

            found = iter(differentiate(composed, inputs, grad))
            return None, None, *(next(found) if needed else None for needed in needs), None, None
        weight = again_by_max(rows, scale).view(ctx.shape)
        return None, None, *ctx.product.gradients(grad, x, weight, needs), None, None
