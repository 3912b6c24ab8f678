"""Statistics: what a scale or a zero-point is computed from."""

from brevq.core.stats.ops import (
    AbsAve,
    AbsAveAboveThreshold,
    AbsMax,
    AbsMinMax,
    AbsPercentile,
    MeanSigmaStd,
    NegativeMinOrZero,
    NegativePercentileOrZero,
    PercentileInterval,
)
from brevq.core.stats.runtime import RuntimeStats

__all__ = [
    "AbsAve",
    "AbsAveAboveThreshold",
    "AbsMax",
    "AbsMinMax",
    "AbsPercentile",
    "MeanSigmaStd",
    "NegativeMinOrZero",
    "NegativePercentileOrZero",
    "PercentileInterval",
    "RuntimeStats",
]
