"""Quantizers for PyTorch, assembled by dependency injection.

Importing this package is cheap: it loads neither torch nor any of its own parts. A part is loaded when it is
first asked for, by ``import brevq.nn`` or by plain attribute access.

>>> import brevq
>>> brevq.nn.QuantLinear.__name__
'QuantLinear'
"""

from __future__ import annotations

import importlib
from types import ModuleType

__version__ = "0.1.0"

_PARTS = (
    "checkpoint",
    "cli",
    "config",
    "core",
    "debug",
    "errors",
    "function",
    "graph",
    "inject",
    "loss",
    "nn",
    "quant_tensor",
    "quantizer",
)


def __getattr__(name: str) -> ModuleType:
    """The part of the library called `name`, imported now."""
    if name in _PARTS:
        return importlib.import_module(f"brevq.{name}")
    raise AttributeError(f"module 'brevq' has no attribute {name!r}; its parts are {', '.join(_PARTS)}")


def __dir__() -> list[str]:
    """The parts of the library, loaded or not."""
    return sorted({*globals(), *_PARTS})
