"""Plots for what people look at in a quantized model: on matplotlib's axes, and each with its data as a function.

Drawing needs the extra `plot`; the data do not. Nothing here opens a window or touches `matplotlib.pyplot`: a plot goes
onto the axes that it is given, or onto those of a new figure, ``axes.figure``. Models are left as they were.
"""

from brevq.plot.by_bits import accuracy, accuracy_by_bits
from brevq.plot.by_channel import scales, scales_by_channel
from brevq.plot.by_layer import sqnr, sqnr_by_layer
from brevq.plot.histogram import Histogram, activation_histogram, activations, weight_histogram, weights

__all__ = [
    "Histogram",
    "accuracy",
    "accuracy_by_bits",
    "activation_histogram",
    "activations",
    "scales",
    "scales_by_channel",
    "sqnr",
    "sqnr_by_layer",
    "weight_histogram",
    "weights",
]
