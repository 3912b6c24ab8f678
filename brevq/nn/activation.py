"""Quantized activation functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from brevq.errors import ArgumentError
from brevq.nn.module import QuantModule
from brevq.quant_tensor import plain
from brevq.quantizer import Quantizer
from injectors import Int8ActPerTensor, Uint8ActPerTensor


class QuantActivation(QuantModule):
    """The base of activation functions whose output is quantized: a twin of a `torch.nn` one.

    Subclass it together with the twin, in this order. The quantizer is the attribute `act_quant`.

    Args:
        *args: positional arguments of the twin.
        act_quant: recipe or quantizer for the output; None for float. Default: the class's own.
        return_quant_tensor: whether the output is a `QuantTensor`. Default: False.
        **keywords: keyword arguments of the twin, and overrides of names of the recipe, without a prefix.

    Raises:
        ArgumentTypeError: a keyword fits neither the twin nor the recipe, or the recipe is none.
        ArgumentError: the recipe is for another role.
        RecipeError: the recipe has faults; all of them are listed.
    """

    quants = {"act_quant": Int8ActPerTensor}  # noqa: RUF012  # a ClassVar of the base

    act_quant: Quantizer | None

    def check_quants(self, quants: Mapping[str, Any], return_quant_tensor: bool) -> None:
        """Refuse a `QuantTensor` without a scale."""
        if return_quant_tensor and quants["act_quant"] is None:
            raise ArgumentError(
                f"{type(self).__name__} got `return_quant_tensor=True` and `act_quant=None`, which gives it no scale"
            )

    def forward(self, x: Any) -> Any:
        """The twin's output, quantized.

        Args:
            x: a tensor or a `QuantTensor`, of any shape.

        Returns:
            A tensor of the shape of `x`, or a `QuantTensor` with `return_quant_tensor`.

        Raises:
            UncalibratedError: the quantizer has seen no data, in evaluation.
        """
        y = super().forward(plain(x))
        if self.act_quant is None:
            return y
        quantized = self.act_quant(y)
        return quantized if self.return_quant_tensor else quantized.value


class QuantIdentity(QuantActivation, nn.Identity):
    """A tensor, quantized. For inputs of a network, and wherever a quantizer has to stand by itself.

    Examples:
        >>> import torch
        >>> layer = QuantIdentity(bit_width=4)
        >>> layer(torch.tensor([-1.0, 0.3]))
        tensor([-1.0000,  0.2500], grad_fn=<MulBackward0>)
    """


class QuantReLU(QuantActivation, nn.ReLU):
    """`torch.nn.ReLU` with a quantized output, by default on an unsigned 8-bit grid.

    Examples:
        >>> import torch
        >>> layer = QuantReLU(bit_width=2)
        >>> layer(torch.tensor([-1.0, 0.9, 3.0]))
        tensor([0., 1., 3.], grad_fn=<MulBackward0>)
    """

    quants = {"act_quant": Uint8ActPerTensor}  # noqa: RUF012  # a ClassVar of the base
