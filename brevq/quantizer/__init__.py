"""A recipe bound to its owner."""

from brevq.quant_tensor import describe
from brevq.quantizer import page
from brevq.quantizer.grid import Grid
from brevq.quantizer.quantizer import Quantizer

__all__ = ["Grid", "Quantizer", "describe", "page"]
