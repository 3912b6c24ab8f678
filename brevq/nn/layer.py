"""The base of quantized layers: what they take beside their twins' arguments, and their one `forward`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from brevq.core.checks import flag
from brevq.core.function_wrapper import PerTensor
from brevq.errors import ArgumentError, ArgumentTypeError
from brevq.inject.plan import plan_of
from brevq.nn.arguments import bind, parameter_names, refuse_positional, split_overrides, twin_of
from brevq.quant_tensor import QuantTensor, plain
from brevq.quantizer import Quantizer, describe
from injectors import Int8WeightPerTensor

_BIAS_NEEDS_SCALE = (
    "{bias} needs the scale of the layer's input, and the input is a plain tensor.\n"
    "Give the layer an `input_quant`, or let the layer before it return one: return_quant_tensor=True. What lies "
    "between them, such as pooling or flatten, has to keep it: torch's own layers return plain tensors"
)


_WEIGHT_NEEDS_INPUT = (
    "{weight} needs the bit width of the layer's input, and the input is a plain tensor.\n"
    "Give the layer an `input_quant`, or let the layer before it return one: return_quant_tensor=True"
)
_BIAS_NEEDS_ONE_SCALE = (
    "{bias} lies on the grid of the accumulator, and there is none: each output needs one scale, of the whole input "
    "times that of the weight or of its output channel"
)
_NO_OVERRIDE = (
    "{layer} is built already, and `{name}` would change nothing.\n"
    "Give it another recipe: layer.{role}_quant = layer.{role}_quant.recipe.let(...)"
)
_QUANTS = ("weight_quant", "bias_quant", "input_quant", "output_quant")
_PREFIXES = tuple(name.removesuffix("quant") for name in _QUANTS)


class QuantLayer(nn.Module):
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
        refuse_positional(name, args, quants)
        theirs = {key: keywords.pop(key) for key in list(keywords) if key in twins}
        overrides = split_overrides(name, keywords, quants, [*twins, "return_quant_tensor"])
        flag("return_quant_tensor", return_quant_tensor)
        _check_combination(name, weight_quant, bias_quant, output_quant, return_quant_tensor)
        super().__init__(*args, **theirs)
        self.return_quant_tensor = return_quant_tensor
        for argument, given in quants.items():
            if argument == "bias_quant" and self.bias is None:
                given = None  # noqa: PLW2901  # there is nothing to quantize
            setattr(self, argument, bind(name, argument, given, overrides[argument], self._supplies(argument)))

    def __setattr__(self, name: str, content: Any) -> None:
        """Set an attribute; a recipe that is assigned to one of the quantizers is built for this layer.

        Raises:
            ArgumentTypeError: the name is that of an override, which means something to the constructor alone.
        """
        if name in _QUANTS:
            content = bind(type(self).__name__, name, content, {}, self._supplies(name))
        elif name.startswith(_PREFIXES):
            self._refuse_override(name)
        super().__setattr__(name, content)
        if name == "weight_quant" and content is not None:
            content.share(self)

    def _refuse_override(self, name: str) -> None:
        """Refuse to set what looks like an override of a recipe, and would change nothing."""
        role, _, override = name.partition("_")
        quantizer = getattr(self, "_modules", {}).get(f"{role}_quant")
        if quantizer is not None and override in plan_of(quantizer.recipe).known:
            raise ArgumentTypeError(_NO_OVERRIDE.format(layer=type(self).__name__, name=name, role=role))

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
        weight = self.weight if self.weight_quant is None else self._weight(quant_input, self.weight_quant)
        bias = self._bias(quant_input, weight, self.bias_quant)
        output = self.compute(plain(quant_input), plain(weight), plain(bias))
        if self.output_quant is None:
            return output
        quant_output = self.output_quant(output)
        return quant_output if self.return_quant_tensor else quant_output.value

    def quant_weight(self, x: QuantTensor | None = None) -> QuantTensor:
        """The weight as `forward` uses it.

        Args:
            x: the quantized input, whose bit width an accumulator-aware weight needs. Default: the grid that
                `input_quant` has now.

        Raises:
            ArgumentError: the layer has a float weight, or the input's bit width is needed and not known.
        """
        if self.weight_quant is None:
            raise ArgumentError(f"{type(self).__name__} has a float weight: `weight_quant` is None")
        if x is None and self.input_quant is not None and self.weight_quant.needs_input:
            x = self.input_quant.current()
        return self._weight(x, self.weight_quant.peek)

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
        quantized: QuantTensor = self._bias(x, self.quant_weight(x), self.bias_quant.peek)
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

    def _weight(self, x: Any, quantize: Callable[..., QuantTensor]) -> QuantTensor:
        """The weight, quantized; for a quantizer that asks for it, to suit the integers of the input."""
        quantizer: Any = self.weight_quant
        if not quantizer.needs_input:
            return quantize(self.weight)
        if not isinstance(x, QuantTensor):
            raise ArgumentError(_WEIGHT_NEEDS_INPUT.format(weight=describe(quantizer)))
        return quantize(self.weight, x.bit_width, torch.tensor(x.signed, device=x.value.device))

    def _bias(self, x: Any, weight: Any, quantize: Any) -> Any:
        """The bias, quantized by the product of the input's and the weight's scale where its recipe asks for one."""
        if self.bias_quant is None or self.bias is None:
            return self.bias
        if not self.bias_quant.needs_scale:
            return quantize(self.bias)
        if not isinstance(x, QuantTensor):
            raise ArgumentError(_BIAS_NEEDS_SCALE.format(bias=describe(self.bias_quant)))
        granularity = (self.weight_quant and self.weight_quant.granularity) or PerTensor()
        if x.scale.numel() != 1 or getattr(granularity, "channel_axis", self.channel_axis) != self.channel_axis:
            raise ArgumentError(_BIAS_NEEDS_ONE_SCALE.format(bias=describe(self.bias_quant)))
        return quantize(self.bias, x.scale.reshape(()) * granularity.per_output(weight.scale))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Weights that come without the state of their quantizer are a float network's: learned ranges start again."""
        super()._load_from_state_dict(state_dict, prefix, *args)
        weight = state_dict.get(prefix + "weight")
        known = any(key.startswith(prefix + "weight_quant.") for key in state_dict)
        if self.weight_quant is not None and not known and weight is not None and weight.shape == self.weight.shape:
            self.weight_quant.restart()


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
