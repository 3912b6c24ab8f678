"""Compilation of core quantizers on request: the environment variable ``BREVQ_JIT``."""

import inspect
import os
from typing import Any

import torch
from torch.nn import Module

from brevq.errors import ArgumentError


def compile_if_asked(quantizer: Module) -> bool:
    """Compile `quantizer` with `torch.compile`, in place, where ``BREVQ_JIT=1`` is set; numbers stay the same.

    Read whenever a core quantizer is constructed. ``0``, an empty value and no value mean no.

    Args:
        quantizer: the module, complete.

    Returns:
        Whether it was asked for.

    Raises:
        ArgumentError: the variable has another value.

    Examples:
        >>> from brevq.core.quant import IntQuant
        >>> compile_if_asked(IntQuant(narrow_range=True, signed=True))
        False
    """
    asked = os.environ.get("BREVQ_JIT", "")
    if asked not in ("", "0", "1"):
        raise ArgumentError(f"the environment variable BREVQ_JIT (={asked!r}) must be 0 or 1")
    if asked == "1":
        quantizer.compile(**_options())
    return asked == "1"


def _options() -> dict[str, Any]:
    """Room for many quantizers: all share one compiled function, which by default is specialized 8 times at most."""
    known = inspect.signature(torch.compile).parameters
    return {"recompile_limit": 256} if "recompile_limit" in known else {}
