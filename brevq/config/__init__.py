"""The vocabulary of tensor specifications, and its translation to recipes.

A `TensorSpec` says in words how a tensor is quantized; `TensorSpec.recipe` gives the recipe that does it.
"""

from brevq.config.spec import TensorSpec
from brevq.config.type import DeviceType, Dtype, QSchemeType, QuantizationMode, RoundType, ScaleType

__all__ = ["DeviceType", "Dtype", "QSchemeType", "QuantizationMode", "RoundType", "ScaleType", "TensorSpec"]
