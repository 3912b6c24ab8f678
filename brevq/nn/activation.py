"""Quantized activation functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from brevq.core.checks import flag
from brevq.errors import ArgumentError
from brevq.nn.arguments import bind, parameter_names, refuse_positional, split_overrides, twin_of
from brevq.nn.layer import signature_of
from brevq.quant_tensor import plain
from brevq.quantizer import Quantizer
from injectors import Int8ActPerTensor, Uint8ActPerTensor


class QuantActivation(nn.Module):
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

    #: Recipe of the output where none is given.
    default_quant: Any = Int8ActPerTensor

    act_quant: Quantizer | None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Show the twin's arguments and the quantizer's in the signature, for `help` and editors."""
        super().__init_subclass__(**kwargs)
        cls.__signature__ = signature_of(cls, QuantActivation)  # type: ignore[attr-defined]  # what inspect looks for

    def __init__(
        self, *args: Any, act_quant: Any = "default", return_quant_tensor: bool = False, **keywords: Any
    ) -> None:
        name = type(self).__name__
        refuse_positional(name, args, ["act_quant"])
        given = self.default_quant if isinstance(act_quant, str) and act_quant == "default" else act_quant
        twins = parameter_names(twin_of(type(self), QuantActivation))
        theirs = {key: keywords.pop(key) for key in list(keywords) if key in twins}
        overrides = split_overrides(name, keywords, {"act_quant": given}, [*twins, "return_quant_tensor"])
        super().__init__(*args, **theirs)
        self.return_quant_tensor = flag("return_quant_tensor", return_quant_tensor)
        if return_quant_tensor and given is None:
            raise ArgumentError(f"{name} got `return_quant_tensor=True` and `act_quant=None`, which gives it no scale")
        self.act_quant = bind(name, "act_quant", given, overrides["act_quant"], {})

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

    def supplies(self, recipe: Any) -> Mapping[str, Any]:
        """What this layer supplies to `recipe`: nothing.

        Args:
            recipe: a recipe class.
        """
        return {}


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

    default_quant = Uint8ActPerTensor
