"""Quantized attention: softmax of products of queries and keys, times values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from brevq.errors import ArgumentError, ArgumentTypeError
from brevq.nn.module import QuantModule
from brevq.quant_tensor import describe, plain
from brevq.quantizer import Quantizer
from injectors import Int8ActPerTensor, Uint8ActPerTensor

_TWO_MASKS = "{layer} got an `attn_mask` and `is_causal=True`, which is a mask of its own: give it one of the two"

_NO_MASK = "{layer} got `is_causal=True` without an `attn_mask`: it says that the mask is causal, and there is none"
_DIMENSIONS = (
    "{layer} got query, key and value of shapes {shapes}: all have 2 dimensions, (length, features), or all have 3, "
    "with a batch"
)
_NESTED = """
{layer} got nested tensors, and quantizes plain ones.
If they come from a torch.nn.TransformerEncoder, which packs padded batches in evaluation, build it with
enable_nested_tensor=False, or set its `use_nested_tensor = False`.
""".strip()


class AttentionQuants(Protocol):
    """The quantizers inside of attention, each of which may be None."""

    query_quant: Quantizer | None
    key_quant: Quantizer | None
    value_quant: Quantizer | None
    softmax_input_quant: Quantizer | None
    attention_quant: Quantizer | None


def attend(
    quants: AttentionQuants,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None,
    *,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    need_weights: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Attention, quantized at each step: ``dropout(softmax(scale * query @ key.T + mask)) @ value``.

    Quantized are ``scale * query``, `key`, `value`, their products before the mask, and the softmax before dropout.
    Where nothing is quantized and nobody asks for weights, this is `torch.nn.functional.scaled_dot_product_attention`.

    Args:
        quants: what has the quantizers.
        query: ``(..., query heads, L, E)``.
        key: ``(..., heads, S, E)``.
        value: ``(..., heads, S, Ev)``.
        attn_mask: broadcasts to ``(..., query heads, L, S)``; added if it is floating-point, and if it is boolean, True
            where a query attends to a key. None for no mask.
        dropout_p: probability that a weight becomes zero. Default: 0.
        is_causal: whether a query attends to no later key than its own place. Default: False.
        scale: factor of the products. Default: ``1 / sqrt(E)``.
        enable_gqa: whether several heads of `query` share one of `key` and `value`. Default: False.
        need_weights: whether the weights are returned as well. Default: False.

    Returns:
        The output, ``(..., query heads, L, Ev)``, and the weights, ``(..., query heads, L, S)``, or None.
    """
    if not need_weights and all(getattr(quants, name) is None for name in AttentionQuants.__annotations__):
        output = F.scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
        return output, None
    factor = math.sqrt(1.0 / max(1, query.shape[-1])) if scale is None else scale
    queries = _quantized(quants.query_quant, query * factor)
    keys, values = _quantized(quants.key_quant, key), _quantized(quants.value_quant, value)
    if enable_gqa:
        keys, values = (x.repeat_interleave(query.shape[-3] // x.shape[-3], -3) for x in (keys, values))
    scores = _quantized(quants.softmax_input_quant, queries @ keys.transpose(-2, -1))
    mask = _causal(scores) if is_causal else _added(attn_mask, scores)
    weights = _quantized(quants.attention_quant, _softmax(scores, mask))
    weights = F.dropout(weights, dropout_p) if dropout_p else weights
    return weights @ values, weights


def _quantized(quantizer: Quantizer | None, x: Tensor) -> Tensor:
    return x if quantizer is None else quantizer(x).value


def _causal(scores: Tensor) -> Tensor:
    """Minus infinity where a key comes after a query, else zero: ``(L, S)``."""
    return torch.full_like(scores[(0,) * (scores.dim() - 2)], -math.inf).triu(1)


def _added(attn_mask: Tensor | None, scores: Tensor) -> Tensor | None:
    """What a mask adds to the scores."""
    if attn_mask is None or attn_mask.is_floating_point():
        return None if attn_mask is None else attn_mask.to(scores.dtype)
    return torch.zeros_like(attn_mask, dtype=scores.dtype).masked_fill(attn_mask.logical_not(), -math.inf)


def _softmax(scores: Tensor, mask: Tensor | None) -> Tensor:
    """The softmax of masked scores; zero for a query that no key is left for, where the formula has 0 / 0."""
    if mask is None:
        return F.softmax(scores, dim=-1)
    alone = mask.isneginf().all(dim=-1, keepdim=True)
    return F.softmax(scores + mask.masked_fill(alone, 0.0), dim=-1).masked_fill(alone, 0.0)


def added_mask(
    attn_mask: Tensor | None, key_padding_mask: Tensor | None, queries: Tensor, keys: Tensor
) -> Tensor | None:
    """What the two masks of multi-head attention add to the scores.

    Args:
        attn_mask: ``(L, S)`` or ``(N * heads, L, S)``: True where a query does not attend to a key, or what is added.
        key_padding_mask: ``(N, S)``, or ``(S,)`` where there is no batch: likewise for keys.
        queries: ``(N, heads, L, head_dim)``.
        keys: ``(N, heads, S + extra, head_dim)``; nothing masks extra ones.

    Returns:
        None, or a tensor that broadcasts to ``(N, heads, L, S + extra)``, in the dtype of `queries`.
    """
    batch, heads = queries.shape[:2]
    masks = []
    if attn_mask is not None:
        shape = (1, 1) if attn_mask.dim() == 2 else (batch, heads)
        masks.append(_ignoring(attn_mask, queries.dtype).reshape(*shape, *attn_mask.shape[-2:]))
    if key_padding_mask is not None:
        masks.append(_ignoring(key_padding_mask, queries.dtype).reshape(batch, 1, 1, key_padding_mask.shape[-1]))
    extended = [F.pad(mask, (0, keys.shape[2] - mask.shape[-1])) for mask in masks]
    return sum(extended[1:], extended[0]) if extended else None


def _ignoring(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask that is True for what to ignore, as what it adds; one that is added already as it is."""
    if mask.is_floating_point():
        return mask.to(dtype)
    return torch.zeros_like(mask, dtype=dtype).masked_fill(mask, -math.inf)


def check_arguments(
    layer: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_padding_mask: Tensor | None,
    attn_mask: Tensor | None,
    is_causal: bool,
) -> None:
    """Refuse what multi-head attention can not be computed of.

    Args:
        layer: a `torch.nn.MultiheadAttention`.
        query: what its `forward` was given, as all that follows.
        key: likewise.
        value: likewise.
        key_padding_mask: likewise.
        attn_mask: likewise.
        is_causal: likewise.

    Raises:
        ArgumentError: a shape does not fit, there is `is_causal` without a mask, or inputs are nested tensors.
        ArgumentTypeError: a mask is neither boolean nor floating-point.
    """
    if query.is_nested or key.is_nested or value.is_nested:
        raise ArgumentError(_NESTED.format(layer=describe(layer)))
    if query.dim() not in (2, 3) or not query.dim() == key.dim() == value.dim():
        raise ArgumentError(
            _DIMENSIONS.format(layer=describe(layer), shapes=[tuple(x.shape) for x in (query, key, value)])
        )
    if is_causal and attn_mask is None:
        raise ArgumentError(_NO_MASK.format(layer=describe(layer)))
    masks = {"key_padding_mask": key_padding_mask, "attn_mask": attn_mask}
    given = {"query": query, "key": key, "value": value, **{k: mask for k, mask in masks.items() if mask is not None}}
    for argument, allowed in _shapes(layer, query, key).items():
        if argument in given and not any(_same(given[argument].shape, shape) for shape in allowed):
            raise ArgumentError(
                f"{describe(layer)} got `{argument}` of shape {tuple(given[argument].shape)}, and beside a `query` of "
                f"shape {tuple(query.shape)} and a `key` of shape {tuple(key.shape)} it must be "
                f"{' or '.join(map(str, allowed))}"
            )
        if argument in masks and argument in given and not _is_mask(given[argument]):
            raise ArgumentTypeError(
                f"{describe(layer)} got `{argument}` of {given[argument].dtype}: a mask is boolean, or floating-point "
                "and added"
            )


def _same(shape: Sequence[int], other: Sequence[int]) -> bool:
    """Whether two shapes are equal, size by size: compiled code with symbolic sizes compares no tuples."""
    return len(shape) == len(other) and all(a == b for a, b in zip(shape, other, strict=True))


def _is_mask(mask: Tensor) -> bool:
    return mask.dtype == torch.bool or mask.is_floating_point()


def _shapes(layer: Any, query: Tensor, key: Tensor) -> dict[str, list[tuple[int, ...]]]:
    """The shapes that each argument of multi-head attention may have."""
    along = 1 if layer.batch_first and query.dim() == 3 else 0
    batch = [] if query.dim() == 2 else [query.shape[1 - along]]
    length, source = query.shape[along], key.shape[along]
    leading = (*batch, source) if along else (source, *batch)
    return {
        "query": [(*query.shape[:-1], layer.embed_dim)],
        "key": [(*leading, layer.kdim)],
        "value": [(*leading, layer.vdim)],
        "key_padding_mask": [(*batch, source)],
        "attn_mask": [(length, source), (layer.num_heads * (batch[0] if batch else 1), length, source)],
    }


class QuantScaledDotProductAttention(QuantModule):
    """`torch.nn.functional.scaled_dot_product_attention` as a layer, quantized at each step.

    ``dropout(softmax(scale * query @ key.T + mask)) @ value``; each quantizer is an attribute. Without any it is that
    function. As there, a query that attends to no key gets zeros. What is quantized is the softmax before dropout, so
    that the range that training observes is the one of evaluation.

    Args:
        query_quant: recipe or quantizer for ``scale * query``; None for float. Default: `Int8ActPerTensor`.
        key_quant: likewise for the keys. Default: `Int8ActPerTensor`.
        value_quant: likewise for the values. Default: `Int8ActPerTensor`.
        softmax_input_quant: likewise for ``scale * query @ key.T``, before the mask, whose infinities are on no grid.
            Default: None.
        attention_quant: likewise for the softmax, before dropout. Default: `Uint8ActPerTensor`.
        output_quant: likewise for the output. Default: None.
        return_quant_tensor: whether the output is a `QuantTensor`. Default: False.
        **overrides: names of the recipes to override, prefixed by ``query_``, ``key_``, ``value_``,
            ``softmax_input_``, ``attention_`` or ``output_``.

    Raises:
        ArgumentTypeError: a keyword fits no recipe, or a recipe is none.
        ArgumentError: a recipe is for another role, or a `QuantTensor` is asked for without an `output_quant`.
        RecipeError: a recipe has faults; all of them are listed.

    Examples:
        >>> layer = QuantScaledDotProductAttention(query_bit_width=4, key_bit_width=4)
        >>> query, key, value = torch.randn(2, 8, 5, 16), torch.randn(2, 8, 7, 16), torch.randn(2, 8, 7, 16)
        >>> layer(query, key, value, dropout_p=0.1 if layer.training else 0.0).shape
        torch.Size([2, 8, 5, 16])
    """

    quants = {  # noqa: RUF012  # a ClassVar of the base
        "query_quant": Int8ActPerTensor,
        "key_quant": Int8ActPerTensor,
        "value_quant": Int8ActPerTensor,
        "softmax_input_quant": None,
        "attention_quant": Uint8ActPerTensor,
        "output_quant": None,
    }

    query_quant: Quantizer | None
    key_quant: Quantizer | None
    value_quant: Quantizer | None
    softmax_input_quant: Quantizer | None
    attention_quant: Quantizer | None
    output_quant: Quantizer | None

    def check_quants(self, quants: Mapping[str, Any], return_quant_tensor: bool) -> None:
        """Refuse a `QuantTensor` without a scale."""
        if return_quant_tensor and quants["output_quant"] is None:
            raise ArgumentError(
                f"{type(self).__name__} got `return_quant_tensor=True` and `output_quant=None`, which gives it no scale"
            )

    def forward(
        self,
        query: Any,
        key: Any,
        value: Any,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Any:
        """Attention; the arguments are those of `torch.nn.functional.scaled_dot_product_attention`.

        Args:
            query: a tensor or a `QuantTensor`, ``(..., query heads, L, E)``.
            key: likewise, ``(..., heads, S, E)``.
            value: likewise, ``(..., heads, S, Ev)``.
            attn_mask: broadcasts to ``(..., query heads, L, S)``; added if it is floating-point, and if it is boolean,
                True where a query attends to a key. Default: None.
            dropout_p: probability that a weight becomes zero, in evaluation too: as the function, the layer does not
                ask whether it is in training. Default: 0.
            is_causal: whether a query attends to no later key than its own place. Default: False.
            scale: factor of the products. Default: ``1 / sqrt(E)``.
            enable_gqa: whether several heads of `query` share one of `key` and `value`. Default: False.

        Returns:
            A tensor ``(..., query heads, L, Ev)``, or a `QuantTensor` with `return_quant_tensor`.

        Raises:
            ArgumentError: there is an `attn_mask` and `is_causal`.
            UncalibratedError: a quantizer has seen no data, in evaluation.
        """
        if is_causal and attn_mask is not None:
            raise ArgumentError(_TWO_MASKS.format(layer=describe(self)))
        output, _ = attend(
            self,
            plain(query),
            plain(key),
            plain(value),
            attn_mask,
            dropout_p=dropout_p,
            is_causal=is_causal,
            scale=scale,
            enable_gqa=enable_gqa,
        )
        if self.output_quant is None:
            return output
        quantized = self.output_quant(output)
        return quantized if self.return_quant_tensor else quantized.value
