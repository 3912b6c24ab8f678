"""The base of quantized layers with a weight, and their one `forward`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from brevq.core.function_wrapper import Granularity, PerTensor
from brevq.core.memo import is_watched
from brevq.errors import ArgumentError, ArgumentTypeError
from brevq.function.recomputed import Source, source_of
from brevq.nn.arguments import check_given, role_of
from brevq.nn.module import QuantModule
from brevq.quant_tensor import QuantTensor, Zero, describe, plain
from brevq.quant_tensor.producer import running_model
from brevq.quantizer import Quantizer
from injectors import Int8WeightPerTensor

_BIAS_NEEDS_SCALE = (
    "{bias} needs the scale of the layer's input, and the input is a plain tensor.\n"
    "Give the layer an `input_quant`, or let {before} return one: return_quant_tensor=True. What lies "
    "between them has to keep its grid, as pooling by maximum and flatten do"
)
_BIAS_NEEDS_INPUT = (
    "{bias} needs the scale of the layer's input: give what enters the layer, layer.quant_bias(x) with a QuantTensor, "
    "or give the layer an `input_quant`"
)
_WEIGHT_NEEDS_INPUT = (
    "{weight} needs the bit width of the layer's input, and the input is a plain tensor.\n"
    "Give the layer an `input_quant`, or let the layer before it return one: return_quant_tensor=True"
)
_WEIGHT_NEEDS_INTEGERS = (
    "{weight} bounds sums of products with integers about zero, and the layer's input is {input}.\n"
    "Give the layer an `input_quant` of integers without a zero-point, such as injectors.Int8ActPerTensor"
)
_BIAS_NEEDS_ONE_SCALE = (
    "{bias} lies on the grid of the accumulator, and there is none: each output needs one scale, of the whole input "
    "times that of the weight or of its output channel"
)
_NO_ACCUMULATOR = """
{layer} got `return_quant_tensor=True` without an `output_quant`, so it returns what it has accumulated, and that lies
on no grid of integers: {why}.
Give it an `output_quant`, or what is missing.
""".strip()


_ANOTHER_SHAPE = (
    "{weight} was built for a weight of another shape than {shape}.\n"
    "Have it built again: layer.weight_quant = layer.weight_quant.recipe"
)
_HOOKED = (
    "{layer} shares the quantizer of its weight, and a hook computes the weight of {other} before each of its calls, "
    "as pruning and the older weight_norm and spectral_norm do. Until then it is the weight of the call before, and "
    "so would be the scale.\n"
    "Compute it by torch.nn.utils.parametrize, or give each layer a quantizer of its own"
)

_NOT_INTEGERS = (
    "a sum runs over several scales, or the codes of input and weight are not all integers, or what the layer computes "
    "is not exact on codes"
)


class QuantLayer(QuantModule):
    """The base of layers with a weight: a twin of a `torch.nn` layer, whose constructor comes first.

    Subclass it together with the twin, in this order, and say in `compute` what the twin computes from input,
    weight and bias. The quantizers are attributes: `weight_quant`, `bias_quant`, `input_quant`, `output_quant`.

    Args:
        *args: positional arguments of the twin.
        weight_quant: recipe or quantizer for the weight; None for float. Default: `Int8WeightPerTensor`.
        bias_quant: recipe or quantizer for the bias; None for float. A layer without a bias has no use for it.
            Default: None.
        input_quant: recipe or quantizer for the input; None for as it comes. Default: None.
        output_quant: recipe or quantizer for the output; None for float. Default: None.
        return_quant_tensor: whether the output is a `QuantTensor`: on the grid of `output_quant` or, without one, on
            that of the accumulator, in as many bits as it takes. Default: False.
        **keywords: keyword arguments of the twin, and overrides of names of the recipes, prefixed by ``weight_``,
            ``bias_``, ``input_`` or ``output_``.

    Raises:
        ArgumentTypeError: a keyword fits neither the twin nor a recipe, or a recipe is none.
        ArgumentError: a recipe is for another role, or the arguments contradict each other.
        RecipeError: a recipe has faults; all of them are listed.

    Examples:
        >>> from torch import nn
        >>> class QuantBilinear(QuantLayer, nn.Bilinear):
        ...     def compute(self, x, weight, bias, y):
        ...         return nn.functional.bilinear(x, y, weight, bias)
        >>> layer = QuantBilinear(4, 5, 6, weight_bit_width=4)
        >>> layer(torch.randn(2, 4), torch.randn(2, 5)).shape
        torch.Size([2, 6])
    """

    quants = {  # noqa: RUF012  # a ClassVar of the base
        "weight_quant": Int8WeightPerTensor,
        "bias_quant": None,
        "input_quant": None,
        "output_quant": None,
    }

    #: Axis of the weight along which the outputs lie.
    channel_axis: ClassVar[int] = 0

    weight: Any
    bias: Any
    weight_quant: Quantizer | None
    bias_quant: Quantizer | None
    input_quant: Quantizer | None
    output_quant: Quantizer | None

    def __setattr__(self, name: str, content: Any) -> None:
        """Set an attribute; a quantizer of the weight learns that it serves this layer, the one before that it left."""
        before: Quantizer | None = vars(self).get("_modules", {}).get(name) if name == "weight_quant" else None
        if name == "weight_quant" and isinstance(content, Quantizer) and self.weight is not None:
            content.check_shared(self)
        super().__setattr__(name, content)
        if before is not None:
            before.leave(self)
        # There is none for a weight that is not there.
        if name == "weight_quant" and self.weight_quant is not None:
            self.weight_quant.share(self)

    def check_quants(self, quants: Mapping[str, Any], return_quant_tensor: bool) -> None:
        """Refuse a quantized bias beside a float weight."""
        if quants.get("bias_quant") is not None and quants["weight_quant"] is None:
            raise ArgumentTypeError(
                f"{type(self).__name__} got a `bias_quant` and `weight_quant=None`: the bias lies on the grid of input "
                "times weight"
            )

    def bound(self, argument: str, given: Any) -> Quantizer | None:
        """The quantizer that an argument stands for; none for a weight or bias that is not there."""
        quantized = argument.removesuffix("_quant")
        if role_of(argument) in ("weight", "bias") and getattr(self, quantized, None) is None:
            check_given(type(self).__name__, argument, given)
            return None
        return super().bound(argument, given)

    def compute(self, x: Any, weight: Any, bias: Any, *others: Any, **keywords: Any) -> Any:
        """What the twin computes; the only thing that a subclass adds.

        Args:
            x: the input.
            weight: the weight, quantized or not, or None.
            bias: the bias, quantized or not, or None.
            *others: what else `forward` was given.
            **keywords: likewise.
        """
        raise NotImplementedError(f"{type(self).__name__} must say what it computes: override `compute`")

    def forward(self, input: Any, *others: Any, **keywords: Any) -> Any:  # noqa: A002  # the twins' name for it
        """The twin's output, computed with quantized input, weight and bias, and quantized.

        Args:
            input: a tensor or a `QuantTensor`, of the shapes that the twin takes.
            *others: what else the twin takes.
            **keywords: likewise.

        Returns:
            A tensor, or a `QuantTensor` with `return_quant_tensor`.

        Raises:
            UncalibratedError: a quantizer of activations has seen no data, in evaluation.
            ArgumentError: the bias needs the input's scale, and the input has none; or a `QuantTensor` is asked for,
                and the output lies on no grid.
        """
        quant_input = input if self.input_quant is None else self.input_quant(plain(input))
        float_weight, float_bias = self.float_parameters(quant_input)
        weight = float_weight
        if self.weight_quant is not None:
            weight = self._weight(quant_input, float_weight, self.weight_quant)
        bias = self._bias(quant_input, weight, float_bias, self.bias_quant)
        if self.output_quant is None and self.return_quant_tensor:
            return self._accumulated(self.compute(quant_input, weight, bias, *others, **keywords), quant_input, bias)
        output = self.compute(plain(quant_input), plain(weight), plain(bias), *others, **keywords)
        if self.output_quant is None:
            return output
        quant_output = self.output_quant(output)
        return quant_output if self.return_quant_tensor else quant_output.value

    @property
    def operations_per_value(self) -> int:
        """Multiply-accumulates for each value of the output; of the input, where a weight has its inputs first."""
        return int(self.weight[0].numel())

    def source_of(self, x: Any, weight: Any) -> Source | None:
        """What the quantized weight can be computed from again, to be kept in its place; None where it is kept itself.

        Args:
            x: what it is multiplied with.
            weight: the weight that `compute` was given.
        """
        source = source_of(x, weight)
        if source is None:
            return None
        quantizer: Any = self.weight_quant
        # Who watches may have written to it past torch's count.
        return None if is_watched(quantizer, quantizer.tensor_quant) else source

    def float_parameters(self, x: Any) -> tuple[Any, Any]:
        """The weight and the bias that are quantized: the parameters, unless a subclass computes them from those.

        Args:
            x: the quantized input; None where there is none, as for `quant_weight`.
        """
        return self.weight, getattr(self, "bias", None)

    def reset_parameters(self) -> None:
        """As the twin does; learned ranges of the weight start again."""
        super().reset_parameters()  # type: ignore[misc]  # the twin's
        quantizer = self._modules.get("weight_quant")
        if isinstance(quantizer, Quantizer):
            quantizer.restart()

    def _accumulated(self, output: Any, x: Any, bias: Any) -> QuantTensor:
        """The output on the grid of its accumulator."""
        if isinstance(output, QuantTensor):
            output.producer = self
            return output
        why = "the bias is in float" if isinstance(bias, Tensor) else _NOT_INTEGERS
        why = why if isinstance(x, QuantTensor) else "the input is a plain tensor"
        raise ArgumentError(_NO_ACCUMULATOR.format(layer=describe(self), why=why))

    def quant_weight(self, x: QuantTensor | None = None) -> QuantTensor:
        """The weight as `forward` uses it.

        Args:
            x: the quantized input, whose bit width an accumulator-aware weight needs. Default: the grid that
                `input_quant` has now.

        Raises:
            ArgumentError: the layer has a float weight, or the input's bit width is needed and not known.
        """
        quantizer: Any = self.weight_quant
        if quantizer is None:
            raise ArgumentError(f"{type(self).__name__} has a float weight: `weight_quant` is None")
        if x is None and quantizer.needs_input and self.input_quant is not None:
            x = self.input_quant.current()
        return self._weight(x, self.float_parameters(x)[0], quantizer.peek)

    def quant_bias(self, x: QuantTensor | None = None) -> QuantTensor:
        """The bias as `forward` uses it.

        Args:
            x: the quantized input, whose scale the bias may need. Default: the scale that `input_quant` has now.

        Raises:
            ArgumentError: the layer has a float bias, or the input's scale is not known.
        """
        if self.bias_quant is None:
            raise ArgumentError(f"{type(self).__name__} has no quantized bias: `bias_quant` is None, or `bias` is")
        if x is None and self.input_quant is not None and self.bias_quant.needs_scale:
            x = self.input_quant.current()
        weight = self.quant_weight(x) if self.bias_quant.needs_scale else None
        quantized: QuantTensor = self._bias(x, weight, self.float_parameters(x)[1], self.bias_quant.peek)
        return quantized

    def supplied_to(self, argument: str) -> dict[str, Any]:
        """Dtype and device of the weight; to its recipe and that of the bias also their shapes and the channel axis.

        Args:
            argument: one of `quants`.
        """
        if self.weight is None:
            return {}
        about = {"dtype": self.weight.dtype, "device": self.weight.device}
        if argument == "weight_quant":
            return {"tensor_shape": tuple(self.weight.shape), "channel_axis": self.channel_axis, **about}
        if argument == "bias_quant" and getattr(self, "bias", None) is not None:
            return {"tensor_shape": tuple(self.bias.shape), **about}
        return about

    def _weight(self, x: Any, weight: Any, quantize: Callable[..., QuantTensor]) -> QuantTensor:
        """The weight, quantized; for a quantizer that asks for it, to suit the integers of the input."""
        quantizer: Any = self._modules["weight_quant"]
        self._check_weight(weight, quantizer.granularity)
        if not quantizer.needs_input:
            return quantize(weight)
        if not isinstance(x, QuantTensor):
            raise ArgumentError(_WEIGHT_NEEDS_INPUT.format(weight=describe(quantizer)))
        if x.float_format is not None or x.zero is not Zero.AT_ZERO:
            given = x.float_format or "integers with a zero-point"
            raise ArgumentError(_WEIGHT_NEEDS_INTEGERS.format(weight=describe(quantizer), input=given))
        return quantize(weight, x.bit_width, torch.tensor(x.signed, device=x.value.device))

    def _check_weight(self, weight: Tensor, granularity: Granularity | None) -> None:
        """Refuse a weight that the quantizer does not fit, and peers whose weight is that of the call before."""
        if granularity is None:
            return
        if not granularity.fits(weight.shape):
            quantizer: Any = self.weight_quant
            raise ArgumentError(_ANOTHER_SHAPE.format(weight=describe(quantizer), shape=tuple(weight.shape)))
        layers = [peer() for peer in granularity.peers] if len(granularity.peers) > 1 else []
        hooked = next((layer for layer in layers if layer is not None and _is_hooked(layer)), None)
        if hooked is not None:
            raise ArgumentError(_HOOKED.format(layer=describe(self), other=describe(hooked)))

    def _bias(self, x: Any, weight: Any, bias: Any, quantize: Any) -> Any:
        """The bias, quantized by the product of the input's and the weight's scale where its recipe asks for one."""
        if self.bias_quant is None or bias is None:
            return bias
        if not self.bias_quant.needs_scale:
            return quantize(bias)
        scale = self.accumulator_scale(x, weight)
        return quantize(bias, scale, x.bit_width) if self.bias_quant.needs_input else quantize(bias, scale)

    def accumulator_scale(self, x: Any, weight: Any) -> Tensor:
        """The scale of what the layer accumulates, on whose grid a tied bias lies: ``input scale * weight scale``.

        Args:
            x: the quantized input.
            weight: the quantized weight.

        Returns:
            A tensor of shape `()`, or of one value for each output.

        Raises:
            ArgumentError: the input is a plain tensor, the weight is, or an output has several scales.
        """
        if x is None:
            raise ArgumentError(_BIAS_NEEDS_INPUT.format(bias=describe(self.bias_quant)))  # type: ignore[arg-type]
        if not isinstance(x, QuantTensor):
            raise ArgumentError(_BIAS_NEEDS_SCALE.format(bias=describe(self.bias_quant), before=self._before()))  # type: ignore[arg-type]
        if not isinstance(weight, QuantTensor):
            raise ArgumentError(f"{type(self).__name__} has a float weight: `weight_quant` is None")
        granularity = (self.weight_quant and self.weight_quant.granularity) or PerTensor()
        if x.scale.numel() != 1 or getattr(granularity, "channel_axis", self.channel_axis) != self.channel_axis:
            raise ArgumentError(_BIAS_NEEDS_ONE_SCALE.format(bias=describe(self.bias_quant)))  # type: ignore[arg-type]
        return x.scale.reshape(()) * granularity.per_output(weight.scale)

    def _before(self) -> str:
        """What the quantized layer before this one is called, by the order of the model that is running."""
        layers = [module for module in running_model(self).modules() if isinstance(module, QuantModule)]
        before = layers[: layers.index(self)] if self in layers else []
        apart = [layer for layer in before if not any(part is self for part in layer.modules())]
        return f"the layer before it, {describe(apart[-1])}," if apart else "the layer before it"

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Weights that come without the state of their quantizer are a float network's: learned ranges start again."""
        super()._load_from_state_dict(state_dict, prefix, *args)
        known = any(key.startswith(prefix + "weight_quant.") for key in state_dict)
        ours = {prefix + name: own.shape for name, own in self.named_parameters(recurse=False) if name != "bias"}
        loaded = any(key in state_dict and state_dict[key].shape == shape for key, shape in ours.items())
        if self.weight_quant is not None and loaded and not known:
            self.weight_quant.restart()


def _is_hooked(layer: Any) -> bool:
    """Whether the weight is neither a parameter nor a property of the layer's class, which computes it when read."""
    return not hasattr(type(layer), "weight") and "weight" not in layer._parameters  # noqa: SLF001  # torch's
