"""Quantized embeddings."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from brevq.errors import ArgumentError
from brevq.nn.layer import QuantLayer
from brevq.nn.module import twin_of
from brevq.quantizer import Quantizer
from injectors import Int8WeightPerTensor

_SPARSE = (
    "{layer} got `sparse=True` and a `weight_quant`. The scale of a quantized table depends on all its rows, so its "
    "gradient is dense: set `sparse=False`, or `weight_quant=None`"
)
_INDICES = (
    "{layer} got `weight_quant={recipe}`, which asks for the bit width of the input, and indices have none: use one "
    "that does not, such as injectors.Int8WeightPerChannel"
)
_NO_CODES = (
    "{layer} got `return_quant_tensor=True` and `weight_quant=None`: what it looks up lies on no grid. "
    "Give it a `weight_quant` or an `output_quant`"
)
_NO_GRID_OF_BAGS = (
    "{layer} got `return_quant_tensor=True` without an `output_quant`: bags may have any size, so what is made of one "
    "lies on no grid that is known. Give it an `output_quant`"
)
_TABLE = "`embeddings` must have two dimensions, (num_embeddings, embedding_dim), not shape {shape}"

Self = TypeVar("Self", bound="QuantLookUp")


class QuantLookUp(QuantLayer):
    """The base of layers that look up rows of a quantized table. Subclass it together with the twin.

    The input is indices, which nothing quantizes, and there is no bias: the quantizers are `weight_quant` and
    `output_quant`. The axis of the outputs is that of the rows, so a recipe per channel gives each row a scale.

    With `max_norm`, rows of the float table that are looked up are scaled down to it first, as the twin does, and then
    quantized. The row `padding_idx` gets no gradient, not even through a scale that it determines.

    Raises:
        ArgumentError: `sparse=True` with a quantized table, whose gradient is dense; or a recipe that asks for the bit
            width of the input.
    """

    quants = {"weight_quant": Int8WeightPerTensor, "output_quant": None}  # noqa: RUF012  # a ClassVar of the base

    bias = None
    bias_quant = None
    input_quant = None

    num_embeddings: int
    padding_idx: int | None
    max_norm: float | None
    norm_type: float
    sparse: bool

    @classmethod
    def from_pretrained(
        cls: type[Self], embeddings: Tensor, freeze: bool = True, *options: Any, **keywords: Any
    ) -> Self:
        """A layer with a table that is there already.

        Args:
            embeddings: the table, ``(num_embeddings, embedding_dim)``; the layer keeps this very tensor.
            freeze: whether it stays as it is in training. Default: True.
            *options: what else `from_pretrained` of the twin takes, in its order.
            **keywords: likewise, and recipes and overrides, as in the constructor.

        Raises:
            ArgumentError: the table has not two dimensions.

        Examples:
            >>> from brevq.nn import QuantEmbedding
            >>> layer = QuantEmbedding.from_pretrained(torch.tensor([[1.0, -0.5], [0.25, 0.5]]), weight_bit_width=3)
            >>> layer(torch.tensor([1]))
            tensor([[0.3333, 0.6667]])
        """
        if embeddings.dim() != 2:
            raise ArgumentError(_TABLE.format(shape=tuple(embeddings.shape)))
        twin: Any = twin_of(cls)
        names = list(inspect.signature(twin.from_pretrained).parameters)[2:]
        layer = cls(*embeddings.shape, _weight=embeddings, **dict(zip(names, options, strict=False)), **keywords)
        layer.weight.requires_grad_(not freeze)
        return layer

    def bound(self, argument: str, given: Any) -> Quantizer | None:
        """The quantizer that an argument stands for; of the weight none beside sparse gradients."""
        if argument == "weight_quant" and given is not None and self.sparse:
            raise ArgumentError(_SPARSE.format(layer=type(self).__name__))
        quantizer = super().bound(argument, given)
        if quantizer is not None and quantizer.needs_input:
            raise ArgumentError(_INDICES.format(layer=type(self).__name__, recipe=quantizer.recipe.__name__))
        return quantizer

    @property
    def operations_per_value(self) -> int:
        """None: rows are looked up."""
        return 0

    def forward(self, input: Any, *others: Any, **keywords: Any) -> Any:  # noqa: A002  # the twins' name for it
        """The rows that indices stand for, or what is made of bags of them.

        Args:
            input: indices, of the shapes and dtypes that the twin takes.
            *others: what else the twin takes.
            **keywords: likewise.

        Returns:
            A tensor, or a `QuantTensor` with `return_quant_tensor`.

        Raises:
            UncalibratedError: the output's quantizer has seen no data, in evaluation.
        """
        if self.max_norm is not None:
            self._limit_norms(input, self.max_norm)
        return super().forward(input, *others, **keywords)

    @torch.no_grad()
    def _limit_norms(self, indices: Tensor, max_norm: float) -> None:
        """Scale rows of the float table that are looked up down to `max_norm`."""
        torch.embedding_renorm_(self.weight.detach(), indices.contiguous().reshape(-1), max_norm, self.norm_type)

    def float_parameters(self, x: Any) -> tuple[Any, None]:
        """The table, to whose row of the padding no gradient goes back."""
        if self.padding_idx is None or self.weight_quant is None:
            return self.weight, None
        rows = torch.arange(self.num_embeddings, device=self.weight.device)
        return torch.where((rows == self.padding_idx).unsqueeze(1), self.weight.detach(), self.weight), None


class QuantEmbedding(QuantLookUp, nn.Embedding):
    """`torch.nn.Embedding` with a quantized table, and quantized output where asked for.

    The constructor is that of `torch.nn.Embedding`, then `weight_quant` (default `Int8WeightPerTensor`), `output_quant`
    (default None), and the overrides of `QuantLayer`. Input: indices of any shape ``(...)``; output
    ``(..., embedding_dim)``. A recipe per channel gives each row a scale of its own, ``(num_embeddings, 1)``.

    With `return_quant_tensor` and without an `output_quant`, the output is the codes that were looked up, with their
    scales.

    Raises:
        ArgumentError: `sparse=True` with a quantized table; or `return_quant_tensor` with nothing quantized.

    Examples:
        >>> from injectors import Int8WeightPerChannel
        >>> layer = QuantEmbedding(10, 4, weight_quant=Int8WeightPerChannel, return_quant_tensor=True)
        >>> rows = layer(torch.tensor([[3, 1, 3]]))
        >>> rows.shape, rows.scale.shape, rows.int().dtype
        (torch.Size([1, 3, 4]), torch.Size([1, 3, 1]), torch.int8)
    """

    scale_grad_by_freq: bool

    def check_quants(self, quants: Mapping[str, Any], return_quant_tensor: bool) -> None:
        """Refuse a `QuantTensor` of nothing quantized."""
        if return_quant_tensor and quants["weight_quant"] is None and quants["output_quant"] is None:
            raise ArgumentError(_NO_CODES.format(layer=type(self).__name__))

    def compute(self, x: Any, weight: Any, bias: None) -> Any:
        """The rows of the table that the indices stand for."""
        # `max_norm` is for the float table, which `forward` has seen to.
        return F.embedding(x, weight, self.padding_idx, None, 2.0, self.scale_grad_by_freq, self.sparse)


class QuantEmbeddingBag(QuantLookUp, nn.EmbeddingBag):
    """`torch.nn.EmbeddingBag` with a quantized table, and quantized output where asked for.

    The constructor is that of `torch.nn.EmbeddingBag`, then `weight_quant` (default `Int8WeightPerTensor`),
    `output_quant` (default None), and the overrides of `QuantLayer`. Input: indices ``(bags, size)``, or ``(indices,)``
    with `offsets`, and `per_sample_weights`, which stay float; output ``(bags, embedding_dim)``. A recipe per channel
    gives each row a scale of its own.

    Raises:
        ArgumentError: `sparse=True` with a quantized table; or `return_quant_tensor` without an `output_quant`.

    Examples:
        >>> layer = QuantEmbeddingBag(10, 4, mode="sum", weight_bit_width=4)
        >>> layer(torch.tensor([1, 2, 4, 5]), torch.tensor([0, 3])).shape
        torch.Size([2, 4])
    """

    scale_grad_by_freq: bool
    mode: str
    include_last_offset: bool

    def check_quants(self, quants: Mapping[str, Any], return_quant_tensor: bool) -> None:
        """Refuse a `QuantTensor` without a quantizer of the output."""
        if return_quant_tensor and quants["output_quant"] is None:
            raise ArgumentError(_NO_GRID_OF_BAGS.format(layer=type(self).__name__))

    def compute(
        self,
        x: Any,
        weight: Any,
        bias: None,
        offsets: Tensor | None = None,
        per_sample_weights: Tensor | None = None,
    ) -> Any:
        """Sums, means or maxima over bags of rows."""
        return F.embedding_bag(
            x,
            weight,
            offsets,
            mode=self.mode,
            scale_grad_by_freq=self.scale_grad_by_freq,
            sparse=self.sparse,
            per_sample_weights=per_sample_weights,
            include_last_offset=self.include_last_offset,
            padding_idx=self.padding_idx,
        )
