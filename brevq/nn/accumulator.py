"""Integers cut to fewer bits: the base of layers that do it, and accumulators."""

from __future__ import annotations

from typing import Any

from torch import nn

from brevq.errors import ArgumentError
from brevq.nn.module import QuantModule
from brevq.quant_tensor import QuantTensor, describe, plain
from brevq.quantizer import Quantizer
from injectors import Int8TruncRound, Int16Clamp

_NEEDS_INTEGERS = (
    "{layer} works on integers, and its input is {what}.\n"
    "Let the layer before it return them: return_quant_tensor=True. What lies between them has to keep its grid, as "
    "pooling by maximum and flatten do"
)


class QuantTruncation(QuantModule):
    """The base of layers whose output is integers cut to fewer bits: a twin of a `torch.nn` one that is exact on codes.

    Subclass it together with the twin, in this order. The quantizer is the attribute `trunc_quant`.

    Args:
        *args: positional arguments of the twin.
        trunc_quant: recipe or quantizer that cuts the twin's output; None to leave it. Default: the class's own.
        return_quant_tensor: whether the output is a `QuantTensor`. Default: False.
        **keywords: keyword arguments of the twin, and overrides of names of the recipe, without a prefix.

    Raises:
        ArgumentTypeError: a keyword fits neither the twin nor the recipe, or the recipe is none.
        ArgumentError: the recipe is for another role.
        RecipeError: the recipe has faults; all of them are listed.
    """

    quants = {"trunc_quant": Int8TruncRound}  # noqa: RUF012  # a ClassVar of the base

    #: Why the twin's output may not be integers, and what to do about it.
    off_grid = "{layer} can not do with the codes of its input what it does with integers"

    trunc_quant: Quantizer | None

    def forward(self, x: Any) -> Any:
        """The twin's output, cut to fewer bits.

        Args:
            x: a `QuantTensor` of integers; any tensor, if there is nothing to cut and no `QuantTensor` to return.

        Returns:
            A tensor, or a `QuantTensor` with `return_quant_tensor`.

        Raises:
            ArgumentError: integers are needed, and `x` is none, or the twin does not keep them.
            UncalibratedError: the quantizer observes ranges, and has seen no data, in evaluation.
        """
        y = super().forward(x)
        if self.trunc_quant is not None or self.return_quant_tensor:
            self._check(x, y)
        if self.trunc_quant is not None:
            y = self.trunc_quant.truncate(y)
        return y if self.return_quant_tensor else plain(y)

    def _check(self, x: Any, y: Any) -> None:
        """Refuse what are no integers."""
        if not isinstance(x, QuantTensor):
            raise ArgumentError(_NEEDS_INTEGERS.format(layer=describe(self), what="a plain tensor"))
        if x.float_format is not None:
            raise ArgumentError(_NEEDS_INTEGERS.format(layer=describe(self), what=f"of the format {x.float_format}"))
        if not isinstance(y, QuantTensor):
            raise ArgumentError(self.off_grid.format(layer=describe(self)))


class TruncQAccumulator(QuantTruncation, nn.Identity):
    """Integers of an accumulator, cut to their most significant bits: by default rounded to 8.

    Nothing overflows: the scale grows as the bits become fewer. What rounds beyond the largest code becomes that code
    (saturation, never a wrap), and gets no gradient. `Int8Trunc` drops bits instead of rounding, and
    `Int8TruncShiftRoundSaturate` observes how many bits are in use.

    Args:
        trunc_quant: recipe or quantizer; None to leave the integers. Default: `Int8TruncRound`.
        return_quant_tensor: whether the output is a `QuantTensor`. Default: False.
        **keywords: overrides of names of the recipe, without a prefix.

    Examples:
        >>> import torch
        >>> from brevq.nn import QuantLinear
        >>> from injectors import Int8ActPerTensor
        >>> linear = QuantLinear(6, 4, bias=False, input_quant=Int8ActPerTensor, return_quant_tensor=True)
        >>> accumulator = TruncQAccumulator(bit_width=6, return_quant_tensor=True)
        >>> x = linear(torch.randn(2, 6))
        >>> x.bit_width, accumulator(x).bit_width, (accumulator(x).scale / x.scale).detach()
        (tensor(18.), tensor(6.), tensor(4096.))
    """


class ClampQAccumulator(QuantTruncation, nn.Identity):
    """Integers of an accumulator of few bits, by default 16, which saturates: their scale and zero-point stay.

    What is beyond the smallest or the largest code becomes that code, never wraps, and gets no gradient. It is the sum
    that saturates, at its end; partial sums are taken to fit. Fewer bits than the accumulator has become more, and no
    code changes.

    Args:
        trunc_quant: recipe or quantizer; None to leave the integers. Default: `Int16Clamp`.
        return_quant_tensor: whether the output is a `QuantTensor`. Default: False.
        **keywords: overrides of names of the recipe, without a prefix: ``bit_width=12``.

    Examples:
        >>> import torch
        >>> from brevq.nn import QuantIdentity
        >>> x = QuantIdentity(return_quant_tensor=True)(torch.tensor([-1.0, 0.03]))
        >>> x.int(), ClampQAccumulator(bit_width=4, return_quant_tensor=True)(x).int()
        (tensor([-128,    4], dtype=torch.int8), tensor([-8,  4], dtype=torch.int8))
    """

    quants = {"trunc_quant": Int16Clamp}  # noqa: RUF012  # a ClassVar of the base
