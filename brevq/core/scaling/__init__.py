"""Scales: where the range of a quantizer comes from, and what it is divided by."""

from brevq.core.scaling.accumulator import (
    AccumulatorAwareScaling,
    AccumulatorBound,
    CenteredAccumulatorBound,
    CenteredL1Norm,
)
from brevq.core.scaling.block import BlockScaling
from brevq.core.scaling.floating import FloatScaling, PowerOfTwoFloatScaling
from brevq.core.scaling.integer import (
    IntScaling,
    PowerOfTwoIntScaling,
    StepScaling,
    TruncLsbScaling,
    TruncMsbScaling,
    TruncRangeScaling,
)
from brevq.core.scaling.learned import (
    LearnedFactorScaling,
    LearnedStatsScaling,
    LsqGradientScale,
    LsqIntScaledAve,
)
from brevq.core.scaling.quantized import QuantizedScaling
from brevq.core.scaling.runtime import RuntimeStatsScaling
from brevq.core.scaling.standalone import ConstScaling, ParameterScaling
from brevq.core.scaling.statistics import StatsScaling
from brevq.core.scaling.weight_norm import NormalInterval, WeightNormScaling

__all__ = [
    "AccumulatorAwareScaling",
    "AccumulatorBound",
    "BlockScaling",
    "CenteredAccumulatorBound",
    "CenteredL1Norm",
    "ConstScaling",
    "FloatScaling",
    "IntScaling",
    "LearnedFactorScaling",
    "LearnedStatsScaling",
    "LsqGradientScale",
    "LsqIntScaledAve",
    "NormalInterval",
    "ParameterScaling",
    "PowerOfTwoFloatScaling",
    "PowerOfTwoIntScaling",
    "QuantizedScaling",
    "RuntimeStatsScaling",
    "StatsScaling",
    "StepScaling",
    "TruncLsbScaling",
    "TruncMsbScaling",
    "TruncRangeScaling",
    "WeightNormScaling",
]
