"""Quantized activation functions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from brevq.errors import ArgumentError
from brevq.function.bits import relu
from brevq.nn.module import QuantModule
from brevq.quant_tensor import QuantTensor, describe, plain
from brevq.quantizer import Quantizer
from injectors import Int8ActPerTensor, Uint8ActPerTensor

_NO_GRID = (
    "{layer} got `return_quant_tensor=True` and `act_quant=None`, so it returns its input's grid, and {why}.\n"
    "Give it an `act_quant`{way_out}"
)


class QuantActivation(QuantModule):
    """The base of activation functions whose output is quantized: a twin of a `torch.nn` one.

    Subclass it together with the twin, in this order. The quantizer is the attribute `act_quant`.

    Args:
        *args: positional arguments of the twin.
        act_quant: recipe or quantizer for the output; None for float. Default: the class's own.
        return_quant_tensor: whether the output is a `QuantTensor`: on the grid of `act_quant` or, without one, on that
            of the input, which ReLU and identity keep. Default: False.
        **keywords: keyword arguments of the twin, and overrides of names of the recipe, without a prefix.

    Raises:
        ArgumentTypeError: a keyword fits neither the twin nor the recipe, or the recipe is none.
        ArgumentError: the recipe is for another role.
        RecipeError: the recipe has faults; all of them are listed.

    Examples:
        >>> import torch
        >>> class QuantSoftsign(QuantActivation, nn.Softsign):
        ...     pass
        >>> QuantSoftsign(bit_width=4)(torch.tensor([-1.0, 3.0]))
        tensor([-0.4688,  0.6562], grad_fn=<_FakeQuantizeBackward>)
    """

    quants = {"act_quant": Int8ActPerTensor}  # noqa: RUF012  # a ClassVar of the base

    act_quant: Quantizer | None

    @property
    def is_implied(self) -> bool:
        """Whether the quantizer does now what the function does, which then need not be computed. Default: no."""
        return False

    def forward(self, x: Any) -> Any:
        """The twin's output, quantized.

        Args:
            x: a tensor or a `QuantTensor`, of any shape.

        Returns:
            A tensor of the shape of `x`, or a `QuantTensor` with `return_quant_tensor`.

        Raises:
            UncalibratedError: the quantizer has seen no data, in evaluation.
            ArgumentError: a `QuantTensor` is asked for without a quantizer, and the input has no grid, or the
                function leaves it.
        """
        act_quant: Any = self.act_quant
        y = self._twin(x) if act_quant is None else self._quantized(x, act_quant)
        if act_quant is None and self.return_quant_tensor and not isinstance(y, QuantTensor):
            raise ArgumentError(self._no_grid(x))
        return y if self.return_quant_tensor else plain(y)

    def _quantized(self, x: Any, act_quant: Quantizer) -> Any:
        """The function, quantized."""
        return act_quant(plain(x if self.is_implied else self._twin(x)))

    def _twin(self, x: Any) -> Any:
        """The function itself."""
        return super().forward(x)

    def _no_grid(self, x: Any) -> str:
        """Why there is no grid without a quantizer, and what to do about it."""
        if isinstance(x, QuantTensor):
            return _NO_GRID.format(layer=describe(self), why="its function leaves that", way_out="")
        way_out = ", or let the layer before it return a QuantTensor: return_quant_tensor=True"
        return _NO_GRID.format(layer=describe(self), why="that is a plain tensor", way_out=way_out)


class QuantIdentity(QuantActivation, nn.Identity):
    """A tensor, quantized. For inputs of a network, and wherever a quantizer has to stand by itself.

    Examples:
        >>> import torch
        >>> layer = QuantIdentity(bit_width=4)
        >>> layer(torch.tensor([-1.0, 0.3]))
        tensor([-1.0000,  0.2500], grad_fn=<_FakeQuantizeBackward>)
    """


class QuantReLU(QuantActivation, nn.ReLU):
    """`torch.nn.ReLU` with a quantized output, by default on an unsigned 8-bit grid.

    With ``act_quant=None`` a `QuantTensor` keeps its grid, where zero has a code.

    Examples:
        >>> import torch
        >>> layer = QuantReLU(bit_width=2)
        >>> layer(torch.tensor([-1.0, 0.9, 3.0]))
        tensor([0., 1., 3.], grad_fn=<_FakeQuantizeBackward>)
    """

    quants = {"act_quant": Uint8ActPerTensor}  # noqa: RUF012  # a ClassVar of the base

    @property
    def is_implied(self) -> bool:
        """Whether the quantizer clamps to zero what is below it, whatever comes, and no gradient is asked for."""
        return self.act_quant is not None and self.act_quant.clamps_at_zero

    def _quantized(self, x: Any, act_quant: Quantizer) -> Any:
        """The function, quantized; in training both at once, where the quantizer can do both."""
        both = type(x) is Tensor and x.requires_grad and torch.is_grad_enabled() and not self.inplace
        return act_quant.rectified(x) if both and act_quant.rectifies(x) else super()._quantized(x, act_quant)

    def _twin(self, x: Any) -> Any:
        """The function itself; its output is kept for the gradient where the quantizer keeps it too."""
        alone = self.act_quant is not None and self.act_quant.forgets_input and not self.inplace
        return relu(x) if alone else super()._twin(x)


class QuantReLU6(QuantActivation, nn.ReLU6):
    """`torch.nn.ReLU6` with a quantized output, by default on an unsigned 8-bit grid.

    Examples:
        >>> import torch
        >>> QuantReLU6(bit_width=2)(torch.tensor([-1.0, 3.0, 9.0]))
        tensor([0., 4., 6.], grad_fn=<_FakeQuantizeBackward>)
    """

    quants = {"act_quant": Uint8ActPerTensor}  # noqa: RUF012  # a ClassVar of the base


class QuantLeakyReLU(QuantActivation, nn.LeakyReLU):
    """`torch.nn.LeakyReLU` with a quantized output, by default on a signed 8-bit grid.

    Examples:
        >>> import torch
        >>> QuantLeakyReLU(0.5, bit_width=3)(torch.tensor([-1.0, 4.0]))
        tensor([-0.,  3.], grad_fn=<_FakeQuantizeBackward>)
    """


class QuantPReLU(QuantActivation, nn.PReLU):
    """`torch.nn.PReLU` with a quantized output, by default on a signed 8-bit grid; its slopes stay float.

    Examples:
        >>> import torch
        >>> QuantPReLU(init=0.5, bit_width=3)(torch.tensor([-4.0, 4.0])).tolist()
        [-2.0, 3.0]
    """


class QuantELU(QuantActivation, nn.ELU):
    """`torch.nn.ELU` with a quantized output, by default on a signed 8-bit grid.

    Examples:
        >>> import torch
        >>> QuantELU(bit_width=3)(torch.tensor([-9.0, 4.0]))
        tensor([-1.,  3.], grad_fn=<_FakeQuantizeBackward>)
    """


class QuantGELU(QuantActivation, nn.GELU):
    """`torch.nn.GELU` with a quantized output, by default on a signed 8-bit grid, for it has negative values.

    Examples:
        >>> import torch
        >>> QuantGELU("tanh", bit_width=5)(torch.tensor([-1.0, 4.0]))
        tensor([-0.2500,  3.7499], grad_fn=<_FakeQuantizeBackward>)
    """


class QuantSiLU(QuantActivation, nn.SiLU):
    """`torch.nn.SiLU` with a quantized output, by default on a signed 8-bit grid, for it has negative values.

    Examples:
        >>> import torch
        >>> QuantSiLU(bit_width=5)(torch.tensor([-1.0, 4.0]))
        tensor([-0.2455,  3.6826], grad_fn=<_FakeQuantizeBackward>)
    """


class QuantMish(QuantActivation, nn.Mish):
    """`torch.nn.Mish` with a quantized output, by default on a signed 8-bit grid, for it has negative values.

    Examples:
        >>> import torch
        >>> QuantMish(bit_width=5)(torch.tensor([-1.0, 4.0]))
        tensor([-0.2498,  3.7476], grad_fn=<_FakeQuantizeBackward>)
    """


class QuantHardSwish(QuantActivation, nn.Hardswish):
    """`torch.nn.Hardswish` with a quantized output, by default on a signed 8-bit grid, for it has negative values.

    Examples:
        >>> import torch
        >>> QuantHardSwish(bit_width=5)(torch.tensor([-1.5, 4.0]))
        tensor([-0.5000,  3.7500], grad_fn=<_FakeQuantizeBackward>)
    """


class QuantSigmoid(QuantActivation, nn.Sigmoid):
    """`torch.nn.Sigmoid` with a quantized output, by default on an unsigned 8-bit grid.

    The range is observed, and at most 0 to 1. For a fixed one: ``scaling_impl=ConstScaling, scaling_init=1.0``.

    Examples:
        >>> import torch
        >>> from brevq.core.scaling import ConstScaling
        >>> layer = QuantSigmoid(bit_width=2, scaling_impl=ConstScaling, scaling_init=1.0)
        >>> layer(torch.tensor([-9.0, 1.0, 9.0]))
        tensor([0.0000, 0.6667, 1.0000])
    """

    quants = {"act_quant": Uint8ActPerTensor}  # noqa: RUF012  # a ClassVar of the base


class QuantHardSigmoid(QuantActivation, nn.Hardsigmoid):
    """`torch.nn.Hardsigmoid` with a quantized output, by default on an unsigned 8-bit grid.

    Examples:
        >>> import torch
        >>> QuantHardSigmoid(bit_width=2)(torch.tensor([-9.0, 1.0, 9.0]))
        tensor([0.0000, 0.6667, 1.0000], grad_fn=<_FakeQuantizeBackward>)
    """

    quants = {"act_quant": Uint8ActPerTensor}  # noqa: RUF012  # a ClassVar of the base


class QuantTanh(QuantActivation, nn.Tanh):
    """`torch.nn.Tanh` with a quantized output, by default on a signed 8-bit grid.

    Examples:
        >>> import torch
        >>> QuantTanh(bit_width=3)(torch.tensor([-9.0, 0.3]))
        tensor([-1.0000,  0.2500], grad_fn=<_FakeQuantizeBackward>)
    """


class QuantHardTanh(QuantActivation, nn.Hardtanh):
    """`torch.nn.Hardtanh` with a quantized output, by default on a signed 8-bit grid, whose range is observed.

    Examples:
        >>> import torch
        >>> QuantHardTanh(-2.0, 2.0, bit_width=3)(torch.tensor([-9.0, 0.3]))
        tensor([-2.0000,  0.5000], grad_fn=<_FakeQuantizeBackward>)
    """


class QuantSoftmax(QuantActivation, nn.Softmax):
    """`torch.nn.Softmax` with a quantized output, by default on an unsigned 8-bit grid.

    The largest probability that was observed is its range. What is below half a step, 0.2 % of that, becomes zero.

    Examples:
        >>> import torch
        >>> QuantSoftmax(dim=-1, bit_width=2)(torch.tensor([0.0, 0.0, 3.0]))
        tensor([0.0000, 0.0000, 0.9094], grad_fn=<_FakeQuantizeBackward>)
    """

    quants = {"act_quant": Uint8ActPerTensor}  # noqa: RUF012  # a ClassVar of the base
