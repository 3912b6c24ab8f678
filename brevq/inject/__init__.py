"""Dependency injection for recipes; knows nothing of torch.

A recipe is an `Injector`: a class whose attributes are the parts of a quantizer. `check` lists all its faults,
`explain` shows how it is wired, `diff` compares it with another, and `build` builds it. `dump` writes a recipe as
text, `load` reads it, and `fingerprint` tells whether two build the same.
"""

from brevq.inject.declare import supplied, this, value
from brevq.inject.difference import diff
from brevq.inject.injector import Injector
from brevq.inject.resolve import build, check
from brevq.inject.text import dump, fingerprint, load
from brevq.inject.wiring import explain

__all__ = ["Injector", "build", "check", "diff", "dump", "explain", "fingerprint", "load", "supplied", "this", "value"]
