"""The first half of quantized multi-head attention: projections of query, key and value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from brevq.nn.layer import QuantLayer
from brevq.quant_tensor import QuantTensor, plain
from brevq.quantizer import Quantizer

#: The parameters of separate in-projections, and their quantizers.
_SEPARATE = {
    "weight_quant": "q_proj_weight",
    "key_weight_quant": "k_proj_weight",
    "value_weight_quant": "v_proj_weight",
}

T = TypeVar("T")


class QuantInProjections(QuantLayer):
    """The projections of query, key and value: a base of `QuantMultiheadAttention`, whose twin has their parameters.

    They are one weight with one quantizer, `weight_quant`; or three, of which that is the query's, and
    `key_weight_quant` and `value_weight_quant` are the others', of the same recipe.
    """

    embed_dim: int
    batch_first: bool
    in_proj_weight: Any
    in_proj_bias: Any
    q_proj_weight: Any

    key_weight_quant: Quantizer | None
    value_weight_quant: Quantizer | None
    key_input_quant: Quantizer | None
    value_input_quant: Quantizer | None

    @property
    def separate(self) -> bool:
        """Whether the weights of the in-projections are three. Torch's flag tells it without reading a weight."""
        return not self.__dict__["_qkv_same_embed_dim"]

    @property
    def weight(self) -> Any:
        """The weight of the in-projections, or that of the query's where they are separate."""
        return self.q_proj_weight if self.separate else self.in_proj_weight

    @property
    def bias(self) -> Any:
        """The bias of the in-projections, or None."""
        return self.in_proj_bias

    def __setattr__(self, name: str, content: Any) -> None:
        """Set an attribute; a recipe for the weight is that of all three where they are separate."""
        super().__setattr__(name, content)
        if name == "weight_quant":
            for argument in ("key_weight_quant", "value_weight_quant"):
                super().__setattr__(argument, self._like_the_query(argument))

    def supplied_to(self, argument: str) -> dict[str, Any]:
        """Dtype and device of the weights; to recipes of weights and biases also their shapes and the channel axis.

        Args:
            argument: one of `quants`, or `key_weight_quant` or `value_weight_quant`.
        """
        supplied = super().supplied_to(argument)
        if argument in _SEPARATE and self.separate:
            shape = tuple(getattr(self, _SEPARATE[argument]).shape)
            return {**supplied, "tensor_shape": shape, "channel_axis": self.channel_axis}
        return supplied

    def project(self, query: Any, key: Any, value: Any) -> list[Tensor]:
        """Queries, keys and values, ``(L or S, N, embed_dim)`` each; those of one input in one product, as torch's."""
        quantize = [_identity if quantizer is None else _of_plain(quantizer) for quantizer in self._input_quants()]
        inputs = _once(quantize, query, key, value)
        counts = self._counts(*inputs)
        weights = self._in_weights(inputs, counts, _identity)
        bias = plain(self._bias(inputs, weights, self.in_proj_bias, self.bias_quant))
        biases = [None] * len(counts) if bias is None else bias.split(self._rows(counts))
        projected: list[Tensor] = []
        laid_out = _once([self._length_first] * 3, *inputs)
        for x, weight, part, count in zip(laid_out, weights, biases, counts, strict=False):
            product = F.linear(x, plain(weight), part)
            projected += [product] if count == 1 else _apart(product, count)
        return projected

    def _length_first(self, x: Any) -> Tensor:
        """An input as ``(L, N, features)``."""
        values: Tensor = plain(x)
        if values.dim() == 2:
            return values.unsqueeze(1)
        return values.transpose(1, 0) if self.batch_first else values

    def _input_quants(self) -> tuple[Quantizer | None, Quantizer | None, Quantizer | None]:
        """The quantizers of query, key and value, where they are three tensors."""
        key = self.key_input_quant or self.input_quant
        return self.input_quant, key, self.value_input_quant or key

    def _counts(self, query: Any, key: Any, value: Any) -> list[int]:
        """How many of the three projections each product makes: all of one input, where the weight is one."""
        if self.separate or key is not value:
            return [1, 1, 1]
        return [3] if query is key else [1, 2]

    def _rows(self, counts: Sequence[int]) -> list[int]:
        return [count * self.embed_dim for count in counts]

    def _in_weights(
        self, inputs: Sequence[Any], counts: Sequence[int], called: Callable[[Quantizer], Callable[..., QuantTensor]]
    ) -> Sequence[Any]:
        """The weight of each product, quantized where it has a quantizer, to suit its input where that asks for it."""
        if self.separate:
            return [self._separate_weight(argument, x, called) for argument, x in zip(_SEPARATE, inputs, strict=True)]
        rows, quantizer = self._rows(counts), self.weight_quant
        if quantizer is None or not quantizer.needs_input:
            packed = self.in_proj_weight if quantizer is None else called(quantizer)(self.in_proj_weight)
            parts: Sequence[Any] = packed.split(rows)
            return parts
        suited = (self._weight(x, self.in_proj_weight, called(quantizer)) for x in inputs[: len(counts)])
        return [weight.split(rows)[i] for i, weight in enumerate(suited)]

    def _separate_weight(
        self, argument: str, x: Any, called: Callable[[Quantizer], Callable[..., QuantTensor]]
    ) -> Tensor | QuantTensor:
        """One of three separate weights."""
        quantizer, weight = getattr(self, argument), getattr(self, _SEPARATE[argument])
        if quantizer is None:
            return weight  # type: ignore[no-any-return]  # a parameter
        return self._weight(x, weight, called(quantizer))

    def _like_the_query(self, argument: str) -> Quantizer | None:
        """A quantizer for another in-projection, of the recipe of the query's; none where they are one weight."""
        quantizer = self.weight_quant
        if quantizer is None or not self.separate:
            return None
        return Quantizer(quantizer.recipe, self.supplied_to(argument))

    def quant_weights(self) -> tuple[QuantTensor, QuantTensor, QuantTensor]:
        """The weights of the projections of query, key and value as `forward` uses them, ``(embed_dim, features)``.

        Raises:
            ArgumentError: the layer has float weights, or the input's bit width is needed and not known.
        """
        if not self.separate:
            packed: tuple[QuantTensor, QuantTensor, QuantTensor] = self.quant_weight().chunk(3)
            return packed
        self.quant_weight()
        query, key, value = self._in_weights(self._inputs_now(needed=False), [1, 1, 1], _peek)
        return query, key, value

    def quant_bias(self, x: Any = None) -> QuantTensor:
        """The bias of the in-projections as `forward` uses it, ``(3 * embed_dim,)``.

        Args:
            x: the quantized inputs, whose scales the bias may need: one for all, or a tuple of those of query, key and
                value. Default: the scales that the quantizers of inputs have now, for inputs that are three tensors.

        Raises:
            ArgumentError: the layer has a float bias, or an input's scale is not known.
        """
        if self.bias_quant is None:
            return super().quant_bias()
        given = x if isinstance(x, tuple) else (x, x, x)
        inputs = self._inputs_now(self.bias_quant.needs_scale) if x is None else given
        weights = self._in_weights(inputs, self._counts(*inputs), _peek)
        quantized: QuantTensor = self._bias(inputs, weights, self.in_proj_bias, self.bias_quant.peek)
        return quantized

    def _inputs_now(self, needed: bool) -> tuple[Any, Any, Any]:
        """What stands for quantized inputs where there are none: zeros on the grids of their quantizers, if needed."""
        needed = needed or (self.weight_quant is not None and self.weight_quant.needs_input)
        current = [lambda quantizer: quantizer.current() if quantizer and needed else None] * 3
        return _once(current, *self._input_quants())

    def accumulator_scale(self, x: Any, weight: Any) -> Tensor:
        """The scale of what the in-projections accumulate, on whose grid a tied bias lies.

        Args:
            x: the quantized inputs, of query, key and value.
            weight: the quantized weights of their products.

        Returns:
            A tensor of shape `()`, or of one value for each of ``3 * embed_dim`` outputs.

        Raises:
            ArgumentError: an input is a plain tensor, or an output has several scales.
        """
        scales = [QuantLayer.accumulator_scale(self, *of_one) for of_one in zip(x, weight, strict=False)]
        if len(scales) == 1:
            return scales[0]
        rows = (len(plain(part)) for part in weight)
        return torch.cat([scale.expand(count) for scale, count in zip(scales, rows, strict=True)])

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Weights that come without the state of their quantizer are a float network's: learned ranges start again."""
        known = any(key.startswith(prefix + "weight_quant.") for key in state_dict)
        super()._load_from_state_dict(state_dict, prefix, *args)
        parameters = _SEPARATE if self.separate else {"weight_quant": "in_proj_weight"}
        for argument, name in parameters.items():
            quantizer, weight = getattr(self, argument), state_dict.get(prefix + name)
            if quantizer is not None and not known and weight is not None and weight.shape == getattr(self, name).shape:
                quantizer.restart()


def _apart(product: Tensor, count: int) -> Sequence[Tensor]:
    """Projections that lie side by side in the last dimension."""
    return product.reshape(*product.shape[:-1], count, product.shape[-1] // count).movedim(-2, 0).contiguous().unbind()


def _identity(x: T) -> T:
    return x


def _of_plain(quantizer: Quantizer) -> Callable[[Any], QuantTensor]:
    return lambda x: quantizer(plain(x))


def _peek(quantizer: Quantizer) -> Callable[..., QuantTensor]:
    return quantizer.peek


def _once(functions: Sequence[Callable[[Any], Any]], query: Any, key: Any, value: Any) -> tuple[Any, Any, Any]:
    """What three functions make of query, key and value; of those that are the same object the first one's, once."""
    of_query = functions[0](query)
    of_key = of_query if key is query else functions[1](key)
    return of_query, of_key, of_query if value is query else of_key if value is key else functions[2](value)
