"""Statistics: what a scale or a zero-point is computed from."""

from brevq.core.stats.grids import BlockGrid, FormatGrid, NearestGrid
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
    RunningInterval,
    RunningMax,
    RunningPercentile,
    TrueAverage,
    TwoSided,
)
from brevq.core.stats.runtime import RuntimeStats
from brevq.core.stats.search import (
    MSE,
    HalfQuadratic,
    HalfQuadraticOptimizerScale,
    HalfQuadraticOptimizerZeroPoint,
)
from brevq.core.stats.shifted import IntervalSearch, MSEInterval, NegativeMSEOrZero

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
    "BlockGrid",
    "Entropy",
    "FormatGrid",
    "HalfQuadratic",
    "HalfQuadraticOptimizerScale",
    "HalfQuadraticOptimizerZeroPoint",
    "HistogramPercentile",
    "IntervalSearch",
    "KLDivergence",
    "L1Norm",
    "L2Norm",
    "MSEInterval",
    "MeanLearnedSigmaStd",
    "MeanSigmaStd",
    "MovingAverage",
    "NearestGrid",
    "NegativeMSEOrZero",
    "NegativeMinOrZero",
    "NegativePercentileOrZero",
    "PercentileInterval",
    "Running",
    "RunningInterval",
    "RunningMax",
    "RunningPercentile",
    "RuntimeStats",
    "SignedAbsMax",
    "TrueAverage",
    "TwoSided",
]
