"""The base of quantized layers: what they take beside their twins' arguments, and their one `forward`."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from brevq.core.function_wrapper import PerTensor
from brevq.errors import ArgumentError, ArgumentTypeError
from brevq.nn.arguments import bind, parameter_names, split_overrides, twin_of
from brevq.quant_tensor import QuantTensor, plain
from brevq.quantizer import Quantizer, describe
from injectors import Int8WeightPerTensor

_BIAS_NEEDS_SCALE = (
    "{bias} needs the scale of the layer's input, and the input is a plain tensor.\n"
    "Give the layer an `input_quant`, or let the layer before it return one: return_quant_tensor=True"
)


class QuantLayer(nn.Module):
    """The base of layers with a weight: a twin of a `torch.nn` layer, whose constructor comes first.

    Subclass it together with the twin, in this order, and say in `compute` what the twin computes from input,
    weight and bias. The quantizers are attributes: `weight_quant`, `bias_quant`, `input_quant`, `output_quant`.

    Args:
        *args: positional arguments of the twin.
        weight_quant: recipe or quantizer for the weight; None for float. Default: `Int8WeightPerTensor`.
        bias_quant: recipe or quantizer for the bias; None for float. Default: None.
        input_quant: recipe or quantizer for the input; None for as it comes. Default: None.
        output_quant: recipe or quantizer for the output; None for float. Default: None.
        return_quant_tensor: whether the output is a `QuantTensor`, which takes an `output_quant`. Default: False.
        **keywords: keyword arguments of the twin, and overrides of names of the recipes, prefixed by ``weight_``,
            ``bias_``, ``input_`` or ``output_``.

    Raises:
        ArgumentTypeError: a keyword fits neither the twin nor a recipe, or a recipe is none.
        ArgumentError: a recipe is for another role, or the arguments contradict each other.
        RecipeError: a recipe has faults; all of them are listed.
    """

    #: Axis of the weight along which the outputs lie.
    channel_axis: ClassVar[int] = 0

    weight: Any
    bias: Any
    weight_quant: Quantizer | None
    bias_quant: Quantizer | None
    input_quant: Quantizer | None
    output_quant: Quantizer | None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Show the twin's arguments and the quantizers' in the signature, for `help` and editors."""
        super().__init_subclass__(**kwargs)
        cls.__signature__ = signature_of(cls, QuantLayer)  # type: ignore[attr-defined]  # inspect looks for it

    def __init__(
        self,
        *args: Any,
        weight_quant: Any = Int8WeightPerTensor,
        bias_quant: Any = None,
        input_quant: Any = None,
        output_quant: Any = None,
        return_quant_tensor: bool = False,
        **keywords: Any,
    ) -> None:
        name = type(self).__name__
        twins = parameter_names(twin_of(type(self), QuantLayer))
        quants = {
            "weight_quant": weight_quant,
            "bias_quant": bias_quant,
            "input_quant": input_quant,
            "output_quant": output_quant,
        }
        theirs = {key: keywords.pop(key) for key in list(keywords) if key in twins}
        overrides = split_overrides(name, keywords, quants, [*twins, "return_quant_tensor"])
        _check_combination(name, weight_quant, bias_quant, output_quant, return_quant_tensor)
        super().__init__(*args, **theirs)
        self.return_quant_tensor = return_quant_tensor
        for argument, given in quants.items():
            if argument == "bias_quant" and self.bias is None:
                given = None  # noqa: PLW2901  # there is nothing to quantize
            quantizer = bind(name, argument, given, overrides[argument], self._supplies(argument))
            setattr(self, argument, quantizer)
        if self.weight_quant is not None:
            self.weight_quant.share(self.weight)

    def compute(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """What the twin computes; the only thing that a subclass adds.

        Args:
            x: the input.
            weight: the weight, quantized or not.
            bias: the bias, quantized or not, or None.
        """
        raise NotImplementedError(f"{type(self).__name__} must say what it computes: override `compute`")

    def forward(self, x: Any) -> Any:
        """The twin's output, computed with quantized input, weight and bias, and quantized.

        Args:
            x: a tensor or a `QuantTensor`, of the shapes that the twin takes.

        Returns:
            A tensor, or a `QuantTensor` with `return_quant_tensor`.

        Raises:
            UncalibratedError: a quantizer of activations has seen no data, in evaluation.
            ArgumentError: the bias needs the input's scale, and the input has none.
        """
        quant_input = x if self.input_quant is None else self.input_quant(plain(x))
        weight = self.weight if self.weight_quant is None else self.weight_quant(self.weight)
        bias = self._bias(quant_input, weight)
        output = self.compute(plain(quant_input), plain(weight), plain(bias))
        if self.output_quant is None:
            return output
        quant_output = self.output_quant(output)
        return quant_output if self.return_quant_tensor else quant_output.value

    def quant_weight(self) -> QuantTensor:
        """The weight as `forward` uses it.

        Raises:
            ArgumentError: the layer has a float weight.
        """
        if self.weight_quant is None:
            raise ArgumentError(f"{type(self).__name__} has a float weight: `weight_quant` is None")
        quantized: QuantTensor = self.weight_quant(self.weight)
        return quantized

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
        quantized: QuantTensor = self._bias(x, self.quant_weight())
        return quantized

    def supplies(self, recipe: Any) -> Mapping[str, Any]:
        """What this layer supplies to `recipe`, by the recipe's role; `explain` shows it.

        Args:
            recipe: a recipe class.
        """
        role = recipe.role if "role" in recipe else "weight"
        return self._supplies({"weight": "weight_quant", "bias": "bias_quant"}.get(role, "input_quant"))

    def _supplies(self, argument: str) -> dict[str, Any]:
        about = {"dtype": self.weight.dtype, "device": self.weight.device}
        if argument == "weight_quant":
            return {"tensor_shape": tuple(self.weight.shape), "channel_axis": self.channel_axis, **about}
        if argument == "bias_quant" and self.bias is not None:
            return {"tensor_shape": tuple(self.bias.shape), **about}
        return about

    def _bias(self, x: Any, weight: Any) -> Any:
        """The bias, quantized by the product of the input's and the weight's scale where its recipe asks for one."""
        if self.bias_quant is None or self.bias is None:
            return self.bias
        if not self.bias_quant.needs_scale:
            return self.bias_quant(self.bias)
        if not isinstance(x, QuantTensor):
            raise ArgumentError(_BIAS_NEEDS_SCALE.format(bias=describe(self.bias_quant)))
        granularity = (self.weight_quant and self.weight_quant.granularity) or PerTensor()
        return self.bias_quant(self.bias, x.scale * granularity.per_output(weight.scale))


def signature_of(layer: type, base: type) -> inspect.Signature:
    """The arguments of a layer's twin, then those that `base` adds by keyword.

    Args:
        layer: the layer class.
        base: the class that adds quantizers; the twin comes after it in the layer's bases.
    """
    theirs = inspect.signature(twin_of(layer, base)).parameters.values()
    ours = [p for p in inspect.signature(base).parameters.values() if p.kind is p.KEYWORD_ONLY]
    rest = inspect.Parameter("overrides", inspect.Parameter.VAR_KEYWORD, annotation="Any")
    named = [p for p in theirs if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    return inspect.Signature([*named, *ours, rest])


def _check_combination(name: str, weight: Any, bias: Any, output: Any, return_quant_tensor: bool) -> None:
    if return_quant_tensor and output is None:
        raise ArgumentError(f"{name} got `return_quant_tensor=True` without an `output_quant` to give it a scale")
    if bias is not None and weight is None:
        raise ArgumentTypeError(
            f"{name} got a `bias_quant` and `weight_quant=None`: the bias lies on the grid of input times weight"
        )
