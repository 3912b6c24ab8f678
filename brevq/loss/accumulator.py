"""What keeps learned norms of weights within their accumulators, as a loss."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn

from brevq.core.scaling import AccumulatorAwareScaling
from brevq.errors import ArgumentError
from brevq.loss.watching import Watching

_NONE_AWARE = """
{model} has no weights that suit an accumulator.

Give a layer some: `weight_quant = Int8WeightPerChannelA2Q`.
""".strip()

_NOT_RUN = "no weight was quantized yet: run the model once, between making this loss and closing it"


class _Noted(dict[AccumulatorAwareScaling, Tensor]):
    """What a model's last run gave, by module. A copy of the model has had no run, and takes no graph along."""

    def __reduce__(self) -> tuple[type[_Noted], tuple[()]]:
        return _Noted, ()


class AccumulatorLoss(Watching):
    """How far the learned norms of a model's weights are above what their accumulators hold.

    ``sum max(log2 g_c - log2(scale_c * T), 0)``, over the channels of all layers whose weights suit an accumulator,
    as those of `Int8WeightPerChannelA2Q` do: `g` is the learned norm and `T` the bound, in codes, for the layer's
    input. A norm above its limit is cut there, and the task's loss has no gradient to bring it back; this one has, and
    is zero when all fit. The source adds it with a factor of 0.001.

    Bit widths of inputs are those of the model's last run, which hooks on the model see. The loss is a context manager,
    which removes the hooks in the end; `close` does it without one. The graph of the last run's norms is kept.

    Args:
        model: a model, or a single layer.

    Raises:
        ArgumentError: the model has no such weights.

    Source:
        Colbert et al., 2023, "A2Q: Accumulator-Aware Quantization with Guaranteed Overflow Avoidance", section 4.1,
        https://arxiv.org/abs/2308.13504

    Examples:
        >>> from brevq.nn import QuantLinear
        >>> from injectors import Int8ActPerTensor, Int8WeightPerChannelA2Q
        >>> suited = Int8WeightPerChannelA2Q.let(accumulator_bit_width=14)
        >>> layer = QuantLinear(1, 1, weight_quant=suited, input_quant=Int8ActPerTensor)
        >>> with AccumulatorLoss(layer) as above:  # 127 codes, where at most 8191 / 128 fit: a factor of 1.98
        ...     _ = layer(torch.ones(1, 1))
        ...     round(above().item(), 2)
        0.99
    """

    def __init__(self, model: nn.Module) -> None:
        aware = [module for module in model.modules() if isinstance(module, AccumulatorAwareScaling)]
        if not aware:
            raise ArgumentError(_NONE_AWARE.format(model=type(model).__name__))
        self._excess = _Noted()
        note = functools.partial(_note, self._excess)
        super().__init__([module.register_forward_hook(note) for module in aware])

    def __call__(self) -> Tensor:
        """The loss, shape `()`, in powers of two; differentiable in norms and scales.

        Raises:
            ArgumentError: the model has not run yet.
        """
        if not self._excess:
            raise ArgumentError(_NOT_RUN)
        return torch.stack([excess.sum() for excess in self._excess.values()]).sum()


def _note(noted: _Noted, module: AccumulatorAwareScaling, arguments: tuple[Any, ...], threshold: Tensor) -> None:
    noted[module] = module.excess(*arguments)
