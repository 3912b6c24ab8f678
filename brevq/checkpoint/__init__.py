"""Quantized networks in files: states, and the recipes from which a network is quantized again.

`save` writes a network's state and recipes to a file, and `load` reads them into its float architecture. They are
made of `recipes`, which lists the recipes of all layers as plain data, `quantize`, which gives a float network these,
and `load_state`, which loads a state or says what may be wrong with it.
"""

from brevq.checkpoint.error import CheckpointError
from brevq.checkpoint.files import load, save
from brevq.checkpoint.recipes import quantize, recipes
from brevq.checkpoint.state import load_state

__all__ = ["CheckpointError", "load", "load_state", "quantize", "recipes", "save"]
