"""Whole models: calibration, and many processes."""

from brevq.graph.calibrate import calibrating
from brevq.graph.processes import broadcast_ranges, observe_across, replicate_ranges

__all__ = ["broadcast_ranges", "calibrating", "observe_across", "replicate_ranges"]
