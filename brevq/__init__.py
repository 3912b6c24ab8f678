"""Quantizers for PyTorch, assembled by dependency injection.

Importing this package is cheap: it loads neither torch nor any of its own parts. A part is loaded when it is
first asked for, by ``import brevq.nn`` or by plain attribute access.

>>> import brevq
>>> brevq.nn.QuantLinear.__name__
'QuantLinear'
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_PARTS = (
    "checkpoint",
    "cli",
    "config",
    "core",
    "debug",
    "draw",
    "drawing",
    "errors",
    "frozen",
    "function",
    "graph",
    "inject",
    "loss",
    "nn",
    "overview",
    "plot",
    "quant_tensor",
    "quantizer",
    "recipes",
    "testing",
)

#: What is done to whole models, and where it lives.
_FUNCTIONS = {"freeze": "frozen", "unfreeze": "frozen", "summary": "overview"}


def __getattr__(name: str) -> Any:
    """The part or the function of the library called `name`, imported now."""
    if name in _PARTS:
        return importlib.import_module(f"brevq.{name}")
    if name in _FUNCTIONS:
        return getattr(importlib.import_module(f"brevq.{_FUNCTIONS[name]}"), name)
    offered = ", ".join([*_PARTS, *_FUNCTIONS])
    raise AttributeError(f"module 'brevq' has no attribute {name!r}; it has {offered}")


def __dir__() -> list[str]:
    """The parts and functions of the library, loaded or not."""
    own = {name for name in globals() if name.startswith("__")}
    return sorted({*own, *_PARTS, *_FUNCTIONS})
