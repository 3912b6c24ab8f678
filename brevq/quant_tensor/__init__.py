"""QuantTensor: the one class of quantized tensors, and what torch's functions make of it."""

from brevq.quant_tensor import arithmetic, choices, moves, products, reductions
from brevq.quant_tensor.producer import describe
from brevq.quant_tensor.tensor import QuantTensor, Zero, plain

__all__ = ["QuantTensor", "Zero", "arithmetic", "choices", "describe", "moves", "plain", "products", "reductions"]
