"""Operations that bring several tensors together: sums, and tensors side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from brevq.core.function_wrapper import PerTensor
from brevq.errors import ArgumentError, ArgumentTypeError
from brevq.nn.module import QuantModule
from brevq.quant_tensor import QuantTensor, describe, plain
from brevq.quantizer import Quantizer
from injectors import Int8ActPerTensor

_NO_GRID = (
    "{layer} got `return_quant_tensor=True` without an `output_quant`, so it returns a grid that its inputs share, and "
    "they share none: {why}.\n"
    "Give it an `input_quant`, which all inputs go through, or an `output_quant`"
)


class QuantOperation(QuantModule):
    """The base of operations on several tensors: one quantizer for all inputs, so that they share one grid.

    Subclass it and say in `compute` what becomes of the inputs. `input_quant` is **one** quantizer, with one scale
    and one zero-point, that each input goes through; its range is that of all inputs together.
    ``input_quant=None`` takes the inputs as they come: quantized tensors of the same grid keep it. Layers have
    the same grid that were given the same `Quantizer` as their `output_quant` or `act_quant`, and
    ``a.output_quant is b.output_quant`` tells.

    Args:
        input_quant: recipe or quantizer for all inputs; None for as they come. Default: `Int8ActPerTensor`.
        output_quant: recipe or quantizer for the output; None for as it comes. Default: None.
        return_quant_tensor: whether the output is a `QuantTensor`: on the grid of `output_quant` or, without one, on
            that of the inputs, in as many bits as it takes. Default: False.
        **keywords: overrides of names of the recipes, prefixed by ``input_`` or ``output_``.

    Raises:
        ArgumentTypeError: a keyword fits no recipe, or a recipe is none.
        ArgumentError: a recipe is for another role.
        RecipeError: a recipe has faults; all of them are listed.

    Examples:
        >>> class QuantMaximum(QuantOperation):
        ...     def forward(self, input, other):
        ...         return self.combined(input, other)
        ...
        ...     def compute(self, inputs):
        ...         return torch.maximum(*inputs)
        >>> QuantMaximum(input_bit_width=4)(torch.tensor([-1.0, 0.3]), torch.tensor([-0.8, 0.0])).detach()
        tensor([-0.7500,  0.2500])
    """

    quants = {"input_quant": Int8ActPerTensor, "output_quant": None}  # noqa: RUF012  # a ClassVar of the base

    input_quant: Quantizer | None
    output_quant: Quantizer | None

    def compute(self, inputs: Sequence[Any]) -> Any:
        """What becomes of the inputs; the only thing that a subclass adds, beside the arguments of `forward`.

        Args:
            inputs: the inputs, quantized or not.
        """
        raise NotImplementedError(f"{type(self).__name__} must say what it computes: override `compute`")

    def combined(self, *inputs: Any) -> Any:
        """The output of `compute` for quantized inputs, quantized.

        Args:
            *inputs: tensors or quantized tensors.

        Returns:
            A tensor, or a `QuantTensor` with `return_quant_tensor`.

        Raises:
            UncalibratedError: a quantizer has seen no data, in evaluation.
            ArgumentError: a `QuantTensor` is asked for, and the inputs share no grid.
        """
        quant_inputs = inputs if self.input_quant is None else self._quantized(self.input_quant, inputs)
        if self.output_quant is None and self.return_quant_tensor:
            return self._on_grid(self.compute(quant_inputs), quant_inputs)
        output = self.compute([plain(x) for x in quant_inputs])
        if self.output_quant is None:
            return output
        quant_output = self.output_quant(output)
        return quant_output if self.return_quant_tensor else quant_output.value

    def _quantized(self, quantizer: Quantizer, inputs: Sequence[Any]) -> Sequence[QuantTensor]:
        """The inputs on one grid; while their quantizer observes one range, all of them are one batch to it."""
        values = [plain(x) for x in inputs]
        one_range = quantizer.granularity is None or isinstance(quantizer.granularity, PerTensor)
        # In training also once the range is learned: compiled code does not see that change.
        may_observe = quantizer.observes and (self.training or quantizer.calibrating)
        if not (may_observe and one_range and len({x.dtype for x in values}) == 1):
            return [quantizer(x) for x in values]
        together = quantizer(torch.cat([x.reshape(-1) for x in values])).split([x.numel() for x in values])
        return [part.reshape(x.shape) for part, x in zip(together, values, strict=True)]

    def _on_grid(self, output: Any, inputs: Sequence[Any]) -> QuantTensor:
        """The output on the grid of the inputs."""
        if isinstance(output, QuantTensor):
            return output
        some_plain = not all(isinstance(x, QuantTensor) for x in inputs)
        why = "some are plain tensors" if some_plain else "the operation is not exact on their codes"
        raise ArgumentError(_NO_GRID.format(layer=describe(self), why=why))

    def extra_repr(self) -> str:
        """That the inputs share a quantizer, for printing."""
        return "" if self.input_quant is None else "one quantizer for all inputs"


class QuantEltwiseAdd(QuantOperation):
    """The sum of two tensors, which one quantizer, `input_quant`, brings to the same grid.

    Without an `output_quant` the sum lies on that grid too, with a bit more: two codes of 8 bits add up to 9. With
    every quantizer None it is `torch.add`. Arguments are those of `QuantOperation`; shapes are those that `torch.add`
    takes.

    Examples:
        >>> add = QuantEltwiseAdd(return_quant_tensor=True)
        >>> x = torch.tensor([0.5, -1.0])
        >>> add(x, x).bit_width
        tensor(9.)
        >>> repr(add).splitlines()[:2]
        ['QuantEltwiseAdd(', '  one quantizer for all inputs']
    """

    def forward(self, input: Any, other: Any) -> Any:  # noqa: A002  # torch's name for it
        """``input + other``, quantized.

        Args:
            input: a tensor or a `QuantTensor`.
            other: another, whose shape broadcasts with that of `input`.

        Returns:
            A tensor, or a `QuantTensor` with `return_quant_tensor`.

        Raises:
            UncalibratedError: a quantizer has seen no data, in evaluation.
            ArgumentError: a `QuantTensor` is asked for, and the inputs share no grid.
        """
        return self.combined(input, other)

    def compute(self, inputs: Sequence[Any]) -> Any:
        """``input + other``."""
        return torch.add(*inputs)


class QuantCat(QuantOperation):
    """Tensors side by side, which one quantizer, `input_quant`, brings to the same grid.

    With every quantizer None it is `torch.cat`. Arguments are `dim`, then those of `QuantOperation`.

    Args:
        dim: the axis along which they lie. Default: 1, that of the channels.
        **keywords: see `QuantOperation`.

    Raises:
        ArgumentTypeError: `dim` is not an integer; or see `QuantOperation`.

    Examples:
        >>> cat = QuantCat(dim=0, return_quant_tensor=True, input_bit_width=4)
        >>> cat([torch.tensor([0.5, -1.0]), torch.tensor([1.0])]).int()
        tensor([ 4, -8,  7], dtype=torch.int8)
    """

    def __init__(self, dim: int = 1, **keywords: Any) -> None:
        if not isinstance(dim, int):
            raise ArgumentTypeError(f"QuantCat got `dim={dim!r}`, and needs an integer")
        super().__init__(**keywords)
        self.dim = dim

    def forward(self, tensors: Sequence[Any]) -> Any:
        """The tensors along `dim`, quantized.

        Args:
            tensors: tensors or quantized tensors, whose shapes differ along `dim` alone.

        Returns:
            A tensor, or a `QuantTensor` with `return_quant_tensor`.

        Raises:
            UncalibratedError: a quantizer has seen no data, in evaluation.
            ArgumentError: a `QuantTensor` is asked for, and the inputs share no grid.
        """
        return self.combined(*tensors)

    def compute(self, inputs: Sequence[Any]) -> Any:
        """The inputs along `dim`."""
        return torch.cat(list(inputs), self.dim)

    def extra_repr(self) -> str:
        """The axis, and that the inputs share a quantizer, for printing."""
        return ", ".join(filter(None, (f"dim={self.dim}", super().extra_repr())))
