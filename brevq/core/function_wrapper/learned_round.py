"""Rounding that is learned, up or down for each value: a `float_to_int_impl` for weights, and its variants."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import Module, Parameter

from brevq.core.checks import between, positive
from brevq.core.function_wrapper.view import Granularity, PerTensor
from brevq.errors import ArgumentError
from brevq.function import ops_ste
from brevq.function.recording import has_values

_OTHER_SHAPE = (
    "rounding is learned for each value of a tensor of shape {known}, and can not round one of shape {given}. "
    "`tensor_shape` is the shape of the weight; a quantizer that several layers share can not learn to round"
)


class LearnedRounding(Protocol):
    """How a number and a learned value give an integer: a variant of learned rounding."""

    def encode(self, x: Tensor, /) -> Tensor:
        """The values to start from, for numbers that have not been rounded."""

    def __call__(self, x: Tensor, value: Tensor, /) -> Tensor:
        """`x` rounded by the learned `value`, of the same shape."""


class LearnedRoundSte(Module):
    """Rounding up or down as is learned for each value of one tensor, with a straight-through gradient.

    The first tensor that it sees gives the values to start from. The gradient of what comes out reaches both the
    numbers and the learned values, `value`.

    Args:
        learned_round_impl: how a value rounds a number, such as `LearnedRoundHardSigmoid`.
        tensor_shape: shape of the tensor; the layer supplies its weight's.
        granularity_impl: how that tensor is laid out for quantization. Default: as it is.

    Raises:
        ArgumentError: a tensor of another shape comes.

    Source:
        Nagel et al., 2020, "Up or Down? Adaptive Rounding for Post-Training Quantization",
        https://arxiv.org/abs/2004.10568

    Examples:
        >>> rounding = LearnedRoundSte(LearnedRoundHardSigmoid(), tensor_shape=(2,))
        >>> rounding(torch.tensor([0.3, -1.4])).detach()  # it starts from the numbers themselves
        tensor([ 0.3000, -1.4000])
        >>> rounding.eval()(torch.tensor([0.3, -1.4])).detach()
        tensor([ 0., -1.])
    """

    started: Tensor

    def __init__(
        self,
        learned_round_impl: LearnedRounding,
        tensor_shape: tuple[int, ...],
        granularity_impl: Granularity | None = None,
    ) -> None:
        super().__init__()
        laid_out = (granularity_impl or PerTensor()).split(torch.empty(tensor_shape, device="meta"))
        self.learned_round_impl = learned_round_impl
        self.value = Parameter(torch.zeros(laid_out.shape))
        self._started = False
        self.register_buffer("started", torch.tensor(False))

    def forward(self, x: Tensor) -> Tensor:
        """`x`, of the shape of the values, rounded: softly in training, to integers in evaluation."""
        if x.shape != self.value.shape:
            raise ArgumentError(_OTHER_SHAPE.format(known=tuple(self.value.shape), given=tuple(x.shape)))
        if not self._started:
            self._catch_up()
        if not self._started:
            self._start_from(x)
        return self.learned_round_impl(x, self.value)

    def reset(self) -> None:
        """Start again from the next tensor."""
        self._started = False
        self.started.fill_(False)

    def _catch_up(self) -> None:
        """Take over what came with the buffers alone, as from another process."""
        if not torch.compiler.is_compiling() and has_values(self.started):
            self._started = bool(self.started)

    @torch.no_grad()
    def _start_from(self, x: Tensor) -> None:
        self.value.copy_(self.learned_round_impl.encode(x))
        self.started.fill_(True)
        self._started = True

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._started = False
        self._catch_up()


class LearnedRoundHardSigmoid(Module):
    """A share of the way up that training can take to its ends: ``floor(x) + h``, with a stretched, limited sigmoid.

    ``h = clamp(sigmoid(value) * (zeta - gamma) + gamma, 0, 1)``. In evaluation ``h > 1/2`` rounds up. It starts from
    the number itself.

    Args:
        learned_round_zeta: upper end of the stretched sigmoid, above 1. Default: 1.1.
        learned_round_gamma: lower end of it, below 0. Default: -0.1.

    Raises:
        ArgumentError: an end is out of range.

    Source:
        Nagel et al., 2020, https://arxiv.org/abs/2004.10568, equation 23.

    Examples:
        >>> impl = LearnedRoundHardSigmoid()
        >>> impl.share(torch.tensor([-5.0, 0.0, 5.0]))
        tensor([0.0000, 0.5000, 1.0000])
    """

    def __init__(self, learned_round_zeta: float = 1.1, learned_round_gamma: float = -0.1) -> None:
        super().__init__()
        self.learned_round_zeta = between("learned_round_zeta", learned_round_zeta, 1.001, 100)
        self.learned_round_gamma = between("learned_round_gamma", learned_round_gamma, -100, -0.001)

    def encode(self, x: Tensor) -> Tensor:
        """The values with which the share is the fraction of `x`."""
        stretch = self.learned_round_zeta - self.learned_round_gamma
        return torch.logit((x - torch.floor(x) - self.learned_round_gamma) / stretch)

    def forward(self, x: Tensor, value: Tensor) -> Tensor:
        """`x`, of any shape, rounded by `value`, of the same shape."""
        return _up_by(x, self.share(value), hard=not self.training)

    def share(self, value: Tensor) -> Tensor:
        """How far each goes up, 0 to 1."""
        stretch = self.learned_round_zeta - self.learned_round_gamma
        return torch.clamp(torch.sigmoid(value) * stretch + self.learned_round_gamma, 0.0, 1.0)


class LearnedRoundSigmoid(Module):
    """A share of the way up by a plain sigmoid: ``floor(x) + h`` with ``h = sigmoid(value / temperature)``.

    In evaluation ``h > 1/2`` rounds up. It starts from the number itself, or, where that is nearer than 0.0001 to an
    integer, from a distance of 0.0001.

    Args:
        learned_round_temperature: above 0; the smaller, the sooner a value is at an end. Default: 1.

    Raises:
        ArgumentError: the temperature is not above zero.

    Examples:
        >>> LearnedRoundSigmoid().share(torch.tensor([-100.0, 0.0, 100.0]))
        tensor([0.0000, 0.5000, 1.0000])
    """

    #: Distance from an integer, which the sigmoid never reaches, to start from.
    NEAREST = 1e-4

    def __init__(self, learned_round_temperature: float = 1.0) -> None:
        super().__init__()
        self.learned_round_temperature = positive("learned_round_temperature", learned_round_temperature)

    def encode(self, x: Tensor) -> Tensor:
        """The values with which the share is the fraction of `x`, or nearly."""
        fraction = torch.clamp(x - torch.floor(x), self.NEAREST, 1 - self.NEAREST)
        return self.learned_round_temperature * torch.logit(fraction)

    def forward(self, x: Tensor, value: Tensor) -> Tensor:
        """`x`, of any shape, rounded by `value`, of the same shape."""
        return _up_by(x, self.share(value), hard=not self.training)

    def share(self, value: Tensor) -> Tensor:
        """How far each goes up, between 0 and 1."""
        return torch.sigmoid(value / self.learned_round_temperature)


class LearnedRoundIdentity(Module):
    """A shift before rounding to nearest: ``round(x + value)``, in training and in evaluation, starting from zero.

    The gradient is straight-through to both. A value beyond one half moves further than to a neighbour: training by
    signed gradients keeps it within.

    Source:
        Cheng et al., 2023, "Optimize Weight Rounding via Signed Gradient Descent", https://arxiv.org/abs/2309.05516

    Examples:
        >>> LearnedRoundIdentity()(torch.tensor([0.3, 0.3]), torch.tensor([0.0, 0.4]))
        tensor([0., 1.])
    """

    def encode(self, x: Tensor) -> Tensor:
        """Zeros: no shift."""
        return torch.zeros_like(x)

    def forward(self, x: Tensor, value: Tensor) -> Tensor:
        """`x`, of any shape, shifted by `value`, of the same shape, and rounded."""
        return ops_ste.round_ste(x + value)


def rounding_regularization(share: Tensor, beta: float) -> Tensor:
    """What pulls learned rounding to a decision, to be added to a loss: ``sum 1 - |2 * share - 1| ** beta``.

    Zero where each share is 0 or 1, one for each that is 1/2.

    Args:
        share: how far each value goes up, 0 to 1, of any shape; see `LearnedRoundHardSigmoid.share`.
        beta: 1 to 1000. Large, it acts near one half only; training lowers it, from 20 to 2 in the source.

    Returns:
        The sum, shape `()`.

    Raises:
        ArgumentError: beta is out of range.

    Source:
        Nagel et al., 2020, https://arxiv.org/abs/2004.10568, equation 24.

    Examples:
        >>> rounding_regularization(torch.tensor([0.0, 0.5, 0.75]), beta=2.0)
        tensor(1.7500)
    """
    return (1 - torch.abs(2 * share - 1) ** between("beta", beta, 1, 1000)).sum()


def _up_by(x: Tensor, share: Tensor, hard: bool) -> Tensor:
    """`x` rounded down and then up by `share`, or, `hard`, by one where that is above a half."""
    decision = (share > 0.5).to(x.dtype)
    return ops_ste.floor_ste(x) + (decision if hard else share)
