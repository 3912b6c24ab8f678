"""Ranges that come from no data: a constant, or a parameter with a given start."""

import torch
from torch import Tensor
from torch.nn import Module, Parameter

from brevq.core.checks import positive
from brevq.core.function_wrapper import Granularity, PerTensor
from brevq.core.interfaces import Restriction
from brevq.core.restrict_val import FloatRestrictValue
from brevq.errors import ArgumentError


class ConstScaling(Module):
    """A constant range.

    Args:
        scaling_init: the range, above 0, in the unit of the tensor.
        restrict_scaling_impl: which values it may take. Default: `FloatRestrictValue()`.

    Raises:
        ArgumentError: the range is not a finite number above zero.

    Examples:
        >>> ConstScaling(0.1)(torch.randn(3))
        tensor(0.1000)
    """

    value: Tensor

    def __init__(self, scaling_init: float, restrict_scaling_impl: Restriction | None = None) -> None:
        super().__init__()
        restrict: Restriction = restrict_scaling_impl or FloatRestrictValue()
        init = torch.tensor(positive("scaling_init", scaling_init))
        self.register_buffer("value", restrict(restrict.encode(init)), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """The range, shape `()`, whatever `x` is."""
        return self.value


class ParameterScaling(Module):
    """A learned range with a given start.

    Args:
        scaling_init: the range to start from, above 0, in the unit of the tensor.
        restrict_scaling_impl: which values it may take. Default: `FloatRestrictValue()`.
        granularity_impl: how many ranges there are. Default: one.

    Raises:
        ArgumentError: the range is not a finite number above zero.

    Examples:
        >>> scaling = ParameterScaling(0.5)
        >>> scaling(torch.randn(3))
        tensor(0.5000, grad_fn=<_StraightThroughBackward>)
    """

    def __init__(
        self,
        scaling_init: float | Tensor,
        restrict_scaling_impl: Restriction | None = None,
        granularity_impl: Granularity | None = None,
    ) -> None:
        super().__init__()
        self.restrict_scaling_impl: Restriction = restrict_scaling_impl or FloatRestrictValue()
        shape = (granularity_impl or PerTensor()).scale_shape
        init = _ranges(scaling_init, shape)
        self.value = Parameter(self.restrict_scaling_impl.encode(init))

    def forward(self, x: Tensor) -> Tensor:
        """The ranges, in the shape of the scale, whatever `x` is."""
        return self.restrict_scaling_impl(self.value)


def _ranges(scaling_init: float | Tensor, shape: tuple[int, ...]) -> Tensor:
    """`scaling_init` as positive numbers in the shape of the scale."""
    if not isinstance(scaling_init, Tensor):
        return torch.full(shape, positive("scaling_init", scaling_init))
    if not bool((torch.isfinite(scaling_init) & (scaling_init > 0)).all()):
        raise ArgumentError(f"`scaling_init` (={scaling_init}) must be finite and above 0 everywhere")
    if scaling_init.numel() not in (1, max(1, torch.Size(shape).numel())):
        raise ArgumentError(
            f"`scaling_init` has shape {tuple(scaling_init.shape)} and the scale has shape {shape}: "
            "give one number, or one for each scale"
        )
    return scaling_init.detach().float().reshape(-1).expand(torch.Size(shape).numel()).reshape(shape).clone()
