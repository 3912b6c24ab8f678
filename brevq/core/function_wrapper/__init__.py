"""Tensor functions as modules, so that a recipe can name them, and the views that granularity is made of."""

from brevq.core.function_wrapper.clamp import ScalarClampMinSte, ScalarClampSte, TensorClamp, TensorClampSte
from brevq.core.function_wrapper.group import PerBlock, PerGroup, PerToken
from brevq.core.function_wrapper.learned_round import (
    LearnedRoundHardSigmoid,
    LearnedRoundIdentity,
    LearnedRounding,
    LearnedRoundSigmoid,
    LearnedRoundSte,
    rounding_regularization,
)
from brevq.core.function_wrapper.misc import AbsBinarySignGrad, BinarySignSte, Identity, TernarySignSte, usual
from brevq.core.function_wrapper.rounding import (
    CeilSte,
    DPURoundSte,
    FloorSte,
    RoundHalfAwaySte,
    RoundHalfUpSte,
    RoundSte,
    RoundToZeroSte,
    StochasticRoundSte,
)
from brevq.core.function_wrapper.view import Granularity, PerChannel, PerTensor, granularity_of

__all__ = [
    "AbsBinarySignGrad",
    "BinarySignSte",
    "CeilSte",
    "DPURoundSte",
    "FloorSte",
    "Granularity",
    "Identity",
    "LearnedRoundHardSigmoid",
    "LearnedRoundIdentity",
    "LearnedRoundSigmoid",
    "LearnedRoundSte",
    "LearnedRounding",
    "PerBlock",
    "PerChannel",
    "PerGroup",
    "PerTensor",
    "PerToken",
    "RoundHalfAwaySte",
    "RoundHalfUpSte",
    "RoundSte",
    "RoundToZeroSte",
    "ScalarClampMinSte",
    "ScalarClampSte",
    "StochasticRoundSte",
    "TensorClamp",
    "TensorClampSte",
    "TernarySignSte",
    "granularity_of",
    "rounding_regularization",
    "usual",
]
