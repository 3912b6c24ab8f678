"""Whole models: calibration, quantizers off for a while, and many processes."""

from brevq.graph.calibrate import calibrating
from brevq.graph.modes import settle, unquantized
from brevq.graph.processes import broadcast_ranges, observe_across, replicate_ranges

__all__ = ["broadcast_ranges", "calibrating", "observe_across", "replicate_ranges", "settle", "unquantized"]
