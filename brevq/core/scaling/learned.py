"""Learned ranges that begin as a statistic of the tensor, and what LSQ adds to them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import Module, Parameter

from brevq.core.checks import called, flag, positive, restriction, statistic
from brevq.core.function_wrapper import Granularity, PerTensor
from brevq.core.interfaces import Restriction, Statistic
from brevq.core.phase import Phase
from brevq.core.restrict_val import FloatRestrictValue
from brevq.core.stats.ops import saturating, summable
from brevq.function.ops import max_int
from brevq.function.recording import has_values


class LearnedStatsScaling(Module):
    """A learned range that starts as a statistic of the first tensor that it sees.

    For weights: the first tensor is the weight at its first use, so a checkpoint of a float network that is loaded
    before gives ranges that fit the loaded weights. For activations that pass through phases, see
    `RuntimeStatsScaling`.

    Args:
        scaling_stats_impl: the statistic to start from.
        restrict_scaling_impl: which values the range may take. Default: `FloatRestrictValue()`.
        gradient_scale_impl: what the range's gradient is multiplied by, such as `LsqGradientScale`. Default: 1.

    Source:
        Esser et al., 2020, "Learned Step Size Quantization", https://arxiv.org/abs/1902.08153

    Examples:
        >>> from brevq.core.stats import AbsMax
        >>> scaling = LearnedStatsScaling(AbsMax())
        >>> scaling.phase, scaling(torch.tensor([1.0, -3.0])).item(), scaling(torch.tensor([9.0])).item()
        (Phase.EMPTY, 3.0, 3.0)
    """

    phase_code: Tensor

    def __init__(
        self,
        scaling_stats_impl: Statistic,
        restrict_scaling_impl: Restriction | None = None,
        gradient_scale_impl: Module | None = None,
    ) -> None:
        super().__init__()
        self.stats_impl = statistic("scaling_stats_impl", scaling_stats_impl)
        self.restrict_scaling_impl: Restriction = restriction(
            "restrict_scaling_impl", restrict_scaling_impl or FloatRestrictValue()
        )
        self.gradient_scale_impl = called("gradient_scale_impl", gradient_scale_impl, "stored", "x")
        self.value = Parameter(torch.zeros(scaling_stats_impl.granularity_impl.scale_shape))
        self._phase = Phase.EMPTY
        self.register_buffer("phase_code", torch.zeros((), dtype=torch.int64))

    @property
    def phase(self) -> Phase:
        """*empty* before the first tensor, *learned* after it."""
        return self._phase

    def forward(self, x: Tensor) -> Tensor:
        """The learned ranges, in the shape of the scale; `x` is looked at once."""
        if self._phase == Phase.EMPTY:
            self._catch_up()
        if self._phase == Phase.EMPTY:
            self._start_from(x)
        value = self.value
        if self.gradient_scale_impl is not None:
            value = self.gradient_scale_impl(value, x)
        return self.restrict_scaling_impl(value)

    def reset(self) -> None:
        """Start again from the next tensor."""
        self._set_phase(Phase.EMPTY)

    def extra_repr(self) -> str:
        """The phase, for printing."""
        return f"phase={self._phase}"

    def _catch_up(self) -> None:
        """Take a phase over that came with the buffers alone, as from another process."""
        if not torch.compiler.is_compiling() and has_values(self.phase_code):
            self._phase = Phase(int(self.phase_code))

    @torch.no_grad()
    def _start_from(self, x: Tensor) -> None:
        self.value.copy_(self.restrict_scaling_impl.encode(self.stats_impl(x)))
        self._set_phase(Phase.LEARNED)

    def _set_phase(self, phase: Phase) -> None:
        self._phase = phase
        self.phase_code.fill_(int(phase))

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._catch_up()


class LearnedFactorScaling(Module):
    """A range times a learned factor: ``restrict(range_impl(x) * factor)``.

    With a range that follows the tensor it clips more or less of it, as training likes, whatever its size: the range of
    BatchQuant. The gradient reaches the factor and the range.

    Args:
        range_impl: returns the range of a tensor, such as `RuntimeStatsScaling`.
        factor_init: the factor to start from, above 0. Default: 1.
        restrict_scaling_impl: which values the range may take. Default: `FloatRestrictValue()`.

    Raises:
        ArgumentTypeError: the factor is not a number.
        ArgumentError: it is not above zero.

    Source:
        Bai et al., 2021, "BatchQuant: Quantized-for-all Architecture Search with Robust Quantizer", section 3.2,
        https://arxiv.org/abs/2105.08952

    Examples:
        >>> from brevq.core.scaling import ConstScaling
        >>> LearnedFactorScaling(ConstScaling(3.0), factor_init=0.5)(torch.zeros(1)).item()
        1.5
    """

    def __init__(
        self, range_impl: Module, factor_init: float = 1.0, restrict_scaling_impl: Restriction | None = None
    ) -> None:
        super().__init__()
        self.range_impl = called("range_impl", range_impl, "x")
        self.restrict_scaling_impl: Restriction = restriction(
            "restrict_scaling_impl", restrict_scaling_impl or FloatRestrictValue()
        )
        self.factor = Parameter(torch.tensor(positive("factor_init", factor_init)))

    def forward(self, x: Tensor) -> Tensor:
        """The ranges of `x`, in the shape of the scale."""
        return self.restrict_scaling_impl(self.restrict_scaling_impl.encode(self.range_impl(x) * self.factor))


class LsqIntScaledAve(Module):
    """The range that LSQ starts from: its step ``2 * mean |x| / sqrt(q)`` times the integer threshold.

    ``q`` is the largest code of the grid. A range beyond the largest number of the dtype becomes that.

    Args:
        int_scaling_impl: the integer threshold that the range will be divided by.
        bit_width_impl: the bit width of the grid.
        signed: whether the grid has negative codes.
        narrow_range: whether the range gives up one code.
        granularity_impl: which values are reduced together. Default: all of them.

    Source:
        Esser et al., 2020, "Learned Step Size Quantization", section 2.1, https://arxiv.org/abs/1902.08153

    Examples:
        >>> from brevq.core.bit_width import BitWidthConst
        >>> from brevq.core.scaling import IntScaling
        >>> stats = LsqIntScaledAve(IntScaling(True, True), BitWidthConst(3), signed=True, narrow_range=True)
        >>> stats(torch.tensor([1.0, -1.0])) / 3  # the step: 2 * 1 / sqrt(3)
        tensor(1.1547)
    """

    def __init__(
        self,
        int_scaling_impl: Module,
        bit_width_impl: Module,
        signed: bool,
        narrow_range: bool,
        granularity_impl: Granularity | None = None,
    ) -> None:
        super().__init__()
        self.int_scaling_impl = called("int_scaling_impl", int_scaling_impl, "bit_width")
        self.bit_width_impl = called("bit_width_impl", bit_width_impl)
        self.signed = signed
        self.narrow_range = narrow_range
        self.granularity_impl = granularity_impl or PerTensor()

    def forward(self, x: Tensor) -> Tensor:
        """The statistic of `x`, in the shape of the scale."""
        bit_width = self.bit_width_impl()
        largest_code = max_int(self.signed, self.narrow_range, bit_width)
        magnitude, unit = summable(self.granularity_impl(x).abs())
        step = 2 * magnitude.mean(dim=-1) / torch.sqrt(largest_code)
        return self.granularity_impl.to_scale(saturating(step * self.int_scaling_impl(bit_width), unit))


class LsqGradientScale(Module):
    """LSQ's balance between the updates of a step and of what it quantizes: its gradient times ``1 / sqrt(n * q)``.

    ``n`` is the number of values that share the step (of one sample, for activations), and ``q`` the largest code
    of the grid. The value passes unchanged. The factor is the same for the range, the step times a constant.

    Args:
        bit_width_impl: the bit width of the grid.
        signed: whether the grid has negative codes.
        narrow_range: whether the range gives up one code.
        batched: whether the first dimension of the tensor is a batch, which does not count. Default: False.

    Source:
        Esser et al., 2020, "Learned Step Size Quantization", section 2.2, https://arxiv.org/abs/1902.08153

    Examples:
        >>> from brevq.core.bit_width import BitWidthConst
        >>> value = torch.tensor(2.0, requires_grad=True)
        >>> LsqGradientScale(BitWidthConst(2, signed=True), True, True)(value, torch.zeros(16)).backward()
        >>> value.grad
        tensor(0.2500)
    """

    def __init__(self, bit_width_impl: Module, signed: bool, narrow_range: bool, batched: bool = False) -> None:
        super().__init__()
        self.batched = flag("batched", batched)
        self.bit_width_impl = called("bit_width_impl", bit_width_impl)
        self.signed = signed
        self.narrow_range = narrow_range

    def forward(self, value: Tensor, x: Tensor) -> Tensor:
        """`value`, the ranges of `x`, with its gradient scaled."""
        largest_code = max_int(self.signed, self.narrow_range, self.bit_width_impl())
        samples = x.shape[0] if self.batched and x.dim() > 0 else 1
        n = max(1.0, x.numel() / samples / value.numel()) if samples else 1.0
        factor = torch.rsqrt(n * largest_code).detach()
        scaled: Tensor = _ScaleGradient.apply(value, factor)  # type: ignore[no-untyped-call]  # torch's
        return scaled


class _ScaleGradient(torch.autograd.Function):
    """A value whose gradient is multiplied by a factor."""

    generate_vmap_rule = True

    @staticmethod
    def forward(value: Tensor, factor: Tensor) -> Tensor:
        """`value`, of any shape."""
        return value.view_as(value)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        """The factor is all that is kept."""
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """The gradient times the factor."""
        (factor,) = ctx.saved_tensors
        return grad * factor, None
