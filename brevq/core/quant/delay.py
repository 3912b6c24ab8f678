"""A delay of quantization: the first training steps run in float."""

import torch
from torch import Tensor
from torch.nn import Module

from brevq.core.checks import count
from brevq.core.phase import recomputing
from brevq.function.ops_ste import is_scripting


def delay_of(quant_delay_steps: int | None) -> "DelayWrapper | None":
    """What delays quantization for some training steps; None for no step.

    Args:
        quant_delay_steps: number of training steps; None means 0.

    Raises:
        ArgumentError: the number is negative.
        ArgumentTypeError: it is not an integer.

    Examples:
        >>> delay_of(0), delay_of(None), delay_of(300)
        (None, None, DelayWrapper())
    """
    steps = _steps(quant_delay_steps)
    return DelayWrapper(steps) if steps else None


def _steps(quant_delay_steps: int | None) -> int:
    """The number of steps, where it is one."""
    return 0 if quant_delay_steps is None else count("quant_delay_steps", quant_delay_steps)


class DelayWrapper(Module):
    """A choice between a tensor and its quantized self: the former for the first training steps, then the latter.

    Evaluation is always quantized and counts no step. The steps that are left are a buffer, so they survive a
    checkpoint; with no delay there is no state. A call that activation checkpointing repeats counts no step, and
    chooses as the latest call did.

    Args:
        quant_delay_steps: number of training steps to delay quantization for; None means 0.

    Raises:
        ArgumentError: the number is negative.
        ArgumentTypeError: it is not an integer.

    Examples:
        >>> delay = DelayWrapper(1)
        >>> x, y = torch.tensor(0.3), torch.tensor(0.0)
        >>> delay(x, y), delay(x, y)
        (tensor(0.3000), tensor(0.))
    """

    steps_left: Tensor | None

    def __init__(self, quant_delay_steps: int | None) -> None:
        super().__init__()
        steps = _steps(quant_delay_steps)
        self.register_buffer("steps_left", torch.tensor(steps) if steps else None)
        self._was_delayed: Tensor | None = None

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """`x` while there are steps left in training, else `y`; both of the same shape."""
        steps_left = self.steps_left
        if steps_left is None or not self.training:
            return y
        if is_scripting():
            out = torch.where(steps_left > 0, x, y)
            steps_left.sub_(1).clamp_(min=0)
            return out
        else:  # noqa: RET505  # TorchScript leaves a branch uncompiled only where it is an explicit else
            return self._counted(x, y, steps_left)

    @torch.jit.unused
    def _counted(self, x: Tensor, y: Tensor, steps_left: Tensor) -> Tensor:
        """One step, which a repeated call repeats; compiled code repeats no call."""
        if recomputing() and self._was_delayed is not None:
            return torch.where(self._was_delayed, x, y)
        delayed = steps_left > 0
        if not torch.compiler.is_compiling():
            self._was_delayed = delayed
        out = torch.where(delayed, x, y)
        steps_left.sub_(1).clamp_(min=0)
        return out
