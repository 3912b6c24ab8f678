"""Statistics: what a scale or a zero-point is computed from."""

from brevq.core.stats.histogram import Entropy, HistogramPercentile, KLDivergence
from brevq.core.stats.norms import AbsMaxAve, AbsMaxL2, L1Norm, L2Norm, MeanLearnedSigmaStd, SignedAbsMax
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
from brevq.core.stats.running import (
    AbsHistogram,
    MovingAverage,
    Running,
    RunningMax,
    RunningPercentile,
    TrueAverage,
)
from brevq.core.stats.runtime import RuntimeStats
from brevq.core.stats.search import (
    MSE,
    HalfQuadratic,
    HalfQuadraticOptimizerScale,
    HalfQuadraticOptimizerZeroPoint,
    NearestGrid,
)

__all__ = [
    "MSE",
    "AbsAve",
    "AbsAveAboveThreshold",
    "AbsHistogram",
    "AbsMax",
    "AbsMaxAve",
    "AbsMaxL2",
    "AbsMinMax",
    "AbsPercentile",
    "Entropy",
    "HalfQuadratic",
    "HalfQuadraticOptimizerScale",
    "HalfQuadraticOptimizerZeroPoint",
    "HistogramPercentile",
    "KLDivergence",
    "L1Norm",
    "L2Norm",
    "MeanLearnedSigmaStd",
    "MeanSigmaStd",
    "MovingAverage",
    "NearestGrid",
    "NegativeMinOrZero",
    "NegativePercentileOrZero",
    "PercentileInterval",
    "Running",
    "RunningMax",
    "RunningPercentile",
    "RuntimeStats",
    "SignedAbsMax",
    "TrueAverage",
]
