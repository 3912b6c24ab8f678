"""Quantized layers: twins of those in `torch.nn`, with recipes for weight, bias, input and output."""

from brevq.nn.accumulator import ClampQAccumulator, TruncQAccumulator
from brevq.nn.activation import (
    QuantActivation,
    QuantELU,
    QuantGELU,
    QuantHardSigmoid,
    QuantHardSwish,
    QuantHardTanh,
    QuantIdentity,
    QuantLeakyReLU,
    QuantMish,
    QuantPReLU,
    QuantReLU,
    QuantReLU6,
    QuantSigmoid,
    QuantSiLU,
    QuantSoftmax,
    QuantTanh,
)
from brevq.nn.attention import QuantScaledDotProductAttention
from brevq.nn.conv import (
    QuantConv1d,
    QuantConv2d,
    QuantConv3d,
    QuantConvTranspose1d,
    QuantConvTranspose2d,
    QuantConvTranspose3d,
)
from brevq.nn.eltwise import QuantCat, QuantEltwiseAdd, QuantOperation
from brevq.nn.embedding import QuantEmbedding, QuantEmbeddingBag
from brevq.nn.layer import QuantLayer
from brevq.nn.linear import QuantLinear
from brevq.nn.merge import merge_all_bn, merge_bn
from brevq.nn.module import QuantModule
from brevq.nn.multihead_attention import QuantMultiheadAttention
from brevq.nn.norm import QuantBatchNorm1d, QuantBatchNorm2d, QuantLayerNorm, QuantRMSNorm
from brevq.nn.pool import TruncAdaptiveAvgPool2d, TruncAvgPool2d
from brevq.nn.recurrent import QuantGRU, QuantLSTM, QuantRNN
from brevq.nn.recurrent_layer import QuantRecurrent

__all__ = [
    "ClampQAccumulator",
    "QuantActivation",
    "QuantBatchNorm1d",
    "QuantBatchNorm2d",
    "QuantCat",
    "QuantConv1d",
    "QuantConv2d",
    "QuantConv3d",
    "QuantConvTranspose1d",
    "QuantConvTranspose2d",
    "QuantConvTranspose3d",
    "QuantELU",
    "QuantEltwiseAdd",
    "QuantEmbedding",
    "QuantEmbeddingBag",
    "QuantGELU",
    "QuantGRU",
    "QuantHardSigmoid",
    "QuantHardSwish",
    "QuantHardTanh",
    "QuantIdentity",
    "QuantLSTM",
    "QuantLayer",
    "QuantLayerNorm",
    "QuantLeakyReLU",
    "QuantLinear",
    "QuantMish",
    "QuantModule",
    "QuantMultiheadAttention",
    "QuantOperation",
    "QuantPReLU",
    "QuantRMSNorm",
    "QuantRNN",
    "QuantReLU",
    "QuantReLU6",
    "QuantRecurrent",
    "QuantScaledDotProductAttention",
    "QuantSiLU",
    "QuantSigmoid",
    "QuantSoftmax",
    "QuantTanh",
    "TruncAdaptiveAvgPool2d",
    "TruncAvgPool2d",
    "TruncQAccumulator",
    "merge_all_bn",
    "merge_bn",
]
