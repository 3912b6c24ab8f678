"""Scales: where the range of a quantizer comes from, and what it is divided by."""

from brevq.core.scaling.floating import FloatScaling, PowerOfTwoFloatScaling
from brevq.core.scaling.integer import IntScaling, PowerOfTwoIntScaling, TruncMsbScaling
from brevq.core.scaling.learned import LearnedStatsScaling, LsqGradientScale, LsqIntScaledAve
from brevq.core.scaling.runtime import RuntimeStatsScaling
from brevq.core.scaling.standalone import ConstScaling, ParameterScaling
from brevq.core.scaling.statistics import StatsScaling

__all__ = [
    "ConstScaling",
    "FloatScaling",
    "IntScaling",
    "LearnedStatsScaling",
    "LsqGradientScale",
    "LsqIntScaledAve",
    "ParameterScaling",
    "PowerOfTwoFloatScaling",
    "PowerOfTwoIntScaling",
    "RuntimeStatsScaling",
    "StatsScaling",
    "TruncMsbScaling",
]
