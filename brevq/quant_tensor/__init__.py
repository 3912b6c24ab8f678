"""QuantTensor: the one class of quantized tensors, and what torch's functions make of it."""

from brevq.quant_tensor import arithmetic, moves
from brevq.quant_tensor.producer import describe
from brevq.quant_tensor.tensor import QuantTensor, Zero, plain

__all__ = ["QuantTensor", "Zero", "arithmetic", "describe", "moves", "plain"]
