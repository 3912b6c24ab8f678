"""Models frozen for deployment: weights as integer codes, quantizers as constants; and back."""

from brevq.frozen.accounting import LayerMemory, Memory, memory
from brevq.frozen.codes import FrozenTensor
from brevq.frozen.constants import FrozenQuantizer
from brevq.frozen.freezing import freeze
from brevq.frozen.layer import FrozenLayer
from brevq.frozen.state import load_state
from brevq.frozen.unfreezing import unfreeze

__all__ = [
    "FrozenLayer",
    "FrozenQuantizer",
    "FrozenTensor",
    "LayerMemory",
    "Memory",
    "freeze",
    "load_state",
    "memory",
    "unfreeze",
]
