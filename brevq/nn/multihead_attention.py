"""Quantized multi-head attention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from brevq.errors import ArgumentTypeError
from brevq.nn.arguments import check_given
from brevq.nn.attention import added_mask, attend, check_arguments
from brevq.nn.in_projection import QuantInProjections
from brevq.nn.linear import QuantLinear
from brevq.nn.module import QuantModule
from brevq.quant_tensor import plain
from brevq.quantizer import Quantizer
from injectors import Int8WeightPerTensor

#: Quantizers of the layer that are those of its out-projection, and what they are called there.
_OUT = {
    "out_input_quant": "input_quant",
    "out_weight_quant": "weight_quant",
    "out_bias_quant": "bias_quant",
    "output_quant": "output_quant",
}


class QuantMultiheadAttention(QuantInProjections, nn.MultiheadAttention):
    """`torch.nn.MultiheadAttention`, quantized: its projections, and attention itself where asked for.

    The constructor is that of `torch.nn.MultiheadAttention`, then the recipes, each with overrides prefixed by the name
    of its argument (``out_weight_bit_width=4``). Parameters have torch's names, so a float checkpoint loads strictly.
    The out-projection, `out_proj`, is a `QuantLinear`. Without any quantizer the layer is torch's own, bit for bit.

    Args:
        *args: positional arguments of `torch.nn.MultiheadAttention`.
        weight_quant: recipe or quantizer for the in-projections. They are one weight, ``(3 * embed_dim, embed_dim)``,
            with one quantizer; where `kdim` or `vdim` separates them, each has a quantizer of this recipe:
            `weight_quant` that of the query, `key_weight_quant` and `value_weight_quant`. Default:
            `Int8WeightPerTensor`.
        bias_quant: recipe or quantizer for the bias of all in-projections, ``(3 * embed_dim,)``. Default: None.
        input_quant: recipe or quantizer for `query`, and for `key` and `value`, with the same scale; tensors that are
            the same object are quantized once. Default: None.
        key_input_quant: recipe or quantizer for a `key` that is not `query`, and for a `value` that is neither.
            Default: None, which leaves them to `input_quant`.
        value_input_quant: recipe or quantizer for a `value` that is neither `query` nor `key`. Default: None, which
            leaves it to `key_input_quant`.
        query_quant: recipe or quantizer for the projected queries, divided by ``sqrt(head_dim)``, ``(batch, num_heads,
            L, head_dim)``. Default: None.
        key_quant: likewise for the projected keys. Default: None.
        value_quant: likewise for the projected values. Default: None.
        softmax_input_quant: likewise for the products of queries and keys, before the mask. Default: None.
        attention_quant: likewise for the softmax, before dropout. Default: None.
        out_input_quant: recipe or quantizer for what goes into the out-projection, ``(L, batch, embed_dim)``.
            Default: None.
        out_weight_quant: likewise for the weight of the out-projection. Default: `Int8WeightPerTensor`.
        out_bias_quant: likewise for its bias. Default: None.
        output_quant: likewise for the output. Default: None.
        return_quant_tensor: whether the output (not the attention weights) is a `QuantTensor`. Default: False.
        **keywords: keyword arguments of `torch.nn.MultiheadAttention`, and overrides.

    Raises:
        ArgumentTypeError: a keyword fits neither the twin nor a recipe, or a recipe is none; or a bias is quantized
            beside a float weight.
        ArgumentError: a recipe is for another role.
        RecipeError: a recipe has faults; all of them are listed.

    In `torch.nn.TransformerEncoderLayer` and its like it takes the place of the float layer, as in the example; as
    long as it has a quantizer, torch does not take the shortcut in evaluation that would pass by its quantizers. The
    shortcut with which a `torch.nn.TransformerEncoder` packs padded batches has to be switched off:
    ``enable_nested_tensor=False``.

    Examples:
        >>> layer = QuantMultiheadAttention(16, 4, batch_first=True, weight_bit_width=4, out_weight_bit_width=4)
        >>> x = torch.randn(2, 5, 16)
        >>> output, weights = layer(x, x, x)
        >>> output.shape, weights.shape
        (torch.Size([2, 5, 16]), torch.Size([2, 5, 5]))

        >>> from injectors import Int8ActPerTensor
        >>> encoder = nn.TransformerEncoderLayer(16, 4, dim_feedforward=32, batch_first=True)
        >>> quantized = QuantMultiheadAttention(16, 4, dropout=0.1, batch_first=True, input_quant=Int8ActPerTensor)
        >>> _ = quantized.load_state_dict(encoder.self_attn.state_dict())
        >>> encoder.self_attn = quantized
        >>> encoder(x).shape
        torch.Size([2, 5, 16])
    """

    quants = {  # noqa: RUF012  # a ClassVar of the base
        "weight_quant": Int8WeightPerTensor,
        "bias_quant": None,
        "input_quant": None,
        "key_input_quant": None,
        "value_input_quant": None,
        "query_quant": None,
        "key_quant": None,
        "value_quant": None,
        "softmax_input_quant": None,
        "attention_quant": None,
        "out_input_quant": None,
        "out_weight_quant": Int8WeightPerTensor,
        "out_bias_quant": None,
        "output_quant": None,
    }

    query_quant: Quantizer | None
    key_quant: Quantizer | None
    value_quant: Quantizer | None
    softmax_input_quant: Quantizer | None
    attention_quant: Quantizer | None
    out_proj: QuantLinear  # type: ignore[assignment]  # the twin's is another linear layer
    bias_k: Any
    bias_v: Any

    out_input_quant = property(lambda self: self.out_proj.input_quant, doc="Of the out-projection.")
    out_weight_quant = property(lambda self: self.out_proj.weight_quant, doc="Of the out-projection.")
    out_bias_quant = property(lambda self: self.out_proj.bias_quant, doc="Of the out-projection.")
    output_quant = property(lambda self: self.out_proj.output_quant, doc="Of the out-projection.")

    @property
    def return_quant_tensor(self) -> bool:
        """Whether the output is a `QuantTensor`."""
        return self.out_proj.return_quant_tensor

    @return_quant_tensor.setter
    def return_quant_tensor(self, flag: bool) -> None:
        """As for the out-projection, whose output it is."""
        self.out_proj.return_quant_tensor = flag

    @property
    def quantizes(self) -> bool:
        """Whether there is any quantizer."""
        return any(getattr(self, argument, None) is not None for argument in self.quants)

    @property
    def _qkv_same_embed_dim(self) -> bool:
        """What torch asks before its shortcuts, which know no quantizers: no, as long as there is one."""
        return bool(self.__dict__["_qkv_same_embed_dim"]) and not self.quantizes

    @_qkv_same_embed_dim.setter
    def _qkv_same_embed_dim(self, same: bool) -> None:
        self.__dict__["_qkv_same_embed_dim"] = same

    def __setattr__(self, name: str, content: Any) -> None:
        """Set an attribute; quantizers of the out-projection become its own, which is a layer that can have them."""
        if name in _OUT:
            setattr(self.out_proj, _OUT[name], self.bound(name, content))
            return
        super().__setattr__(name, _quantizable(content) if name == "out_proj" else content)

    def check_quants(self, quants: Mapping[str, Any], return_quant_tensor: bool) -> None:
        """Refuse a quantized bias beside a float weight."""
        super().check_quants(quants, return_quant_tensor)
        if quants["out_bias_quant"] is not None and quants["out_weight_quant"] is None:
            raise ArgumentTypeError(
                f"{type(self).__name__} got an `out_bias_quant` and `out_weight_quant=None`: the bias lies on the grid "
                "of input times weight"
            )

    def bound(self, argument: str, given: Any) -> Quantizer | None:
        """The quantizer that an argument stands for; none for a bias that is not there."""
        if argument not in _OUT:
            return super().bound(argument, given)
        if argument == "out_bias_quant" and self.out_proj.bias is None:
            check_given(type(self).__name__, argument, given)
            return None
        return QuantModule.bound(self, argument, given)

    def supplied_to(self, argument: str) -> dict[str, Any]:
        """Dtype and device of the weights; to recipes of weights and biases also their shapes and the channel axis.

        Args:
            argument: one of `quants`, or `key_weight_quant` or `value_weight_quant`.
        """
        if argument in _OUT:
            return self.out_proj.supplied_to(_OUT[argument])
        return super().supplied_to(argument)

    def forward(
        self,
        query: Any,
        key: Any,
        value: Any,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Any, Tensor | None]:
        """Attention of `query` to `key`, and what it draws from `value`; the arguments are the twin's.

        ``N`` is left out of unbatched inputs, and stands first with `batch_first`. A query whose keys are all masked
        gets zeros, where torch gives it NaN unless `need_weights` is False.

        Args:
            query: a tensor or a `QuantTensor`, ``(L, N, embed_dim)``.
            key: likewise, ``(S, N, kdim)``.
            value: likewise, ``(S, N, vdim)``.
            key_padding_mask: ``(N, S)``: True for keys to ignore, or what is added to products with them. Default:
                None.
            need_weights: whether to return the attention weights as well. Default: True.
            attn_mask: ``(L, S)`` or ``(N * num_heads, L, S)``: True where a query does not attend to a key, or what
                is added to their product. Default: None.
            average_attn_weights: whether weights are averaged over the heads. Default: True.
            is_causal: whether `attn_mask` is the causal one, and may be computed instead of read. Default: False.

        Returns:
            The output, ``(L, N, embed_dim)``, a `QuantTensor` with `return_quant_tensor`; and the attention weights,
            ``(N, L, S)`` or of each head ``(N, num_heads, L, S)``, as quantized, or None.

        Raises:
            ArgumentError: shapes do not fit, there is `is_causal` without a mask, inputs are nested tensors, a bias
                needs the scale of an input that has none, or a `QuantTensor` is asked for and there is no grid.
            ArgumentTypeError: a mask is neither boolean nor floating-point.
            UncalibratedError: a quantizer of activations has seen no data, in evaluation.
        """
        options = key_padding_mask, need_weights, attn_mask, average_attn_weights, is_causal
        if self.quantizes or self.return_quant_tensor:
            return self._composed(query, key, value, *options)
        return nn.MultiheadAttention.forward(self, plain(query), plain(key), plain(value), *options)

    def _composed(
        self,
        query: Any,
        key: Any,
        value: Any,
        key_padding_mask: Tensor | None,
        need_weights: bool,
        attn_mask: Tensor | None,
        average_attn_weights: bool,
        is_causal: bool,
    ) -> tuple[Any, Tensor | None]:
        """What `forward` says, step by step."""
        check_arguments(self, query, key, value, key_padding_mask, attn_mask, is_causal)
        batched = query.dim() == 3
        queries, keys, values = self._extended(*self.project(query, key, value))  # (N, num_heads, L or S, head_dim)
        is_causal = is_causal and key_padding_mask is None and not need_weights
        mask = added_mask(None if is_causal else attn_mask, key_padding_mask, queries, keys)
        attended, weights = attend(
            self,
            queries,
            keys,
            values,
            mask,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=is_causal,
            need_weights=need_weights,
        )
        output = self.out_proj(attended.permute(2, 0, 1, 3).flatten(2))  # (L, N, embed_dim)
        output = output.squeeze(1) if not batched else output.transpose(1, 0) if self.batch_first else output
        if weights is None or not need_weights:
            return output, None
        weights = weights.mean(dim=1) if average_attn_weights else weights
        return output, weights if batched else weights.squeeze(0)

    def _extended(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """All heads; keys and values have a learned one more with `add_bias_kv`, a zero more with `add_zero_attn`."""
        if self.bias_k is not None:
            key, value = _one_more(key, self.bias_k), _one_more(value, self.bias_v)
        zero = self.add_zero_attn
        return self._heads(query), self._heads(key, zero), self._heads(value, zero)

    def _heads(self, x: Tensor, zero: bool = False) -> Tensor:
        """``(L, N, embed_dim)`` as ``(N, num_heads, L, head_dim)``, and a zero more along `L` where asked for."""
        length, batch, _ = x.shape
        heads = x.reshape(length, batch * self.num_heads, self.head_dim).transpose(0, 1)
        heads = torch.cat([heads, torch.zeros_like(heads[:, :1])], dim=1) if zero else heads
        return heads.reshape(batch, self.num_heads, heads.shape[1], self.head_dim)


def _one_more(x: Tensor, extra: Tensor) -> Tensor:
    """Keys or values of a batch, ``(S, N, embed_dim)``, and one more that is the same for all of the batch."""
    return torch.cat([x, extra.expand(1, *x.shape[1:])])


def _quantizable(linear: nn.Linear) -> QuantLinear:
    """A linear layer as one that takes quantizers, and has none yet, with the same parameters."""
    if isinstance(linear, QuantLinear):
        return linear
    bias = linear.bias is not None
    quantizable = QuantLinear(linear.in_features, linear.out_features, bias, device="meta", weight_quant=None)
    quantizable.weight, quantizable.bias = linear.weight, linear.bias
    return quantizable.train(linear.training)
