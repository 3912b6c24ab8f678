"""Whole models: calibration."""

from brevq.graph.calibrate import calibrating

__all__ = ["calibrating"]
