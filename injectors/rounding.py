"""Recipes for weights that are rounded at random, or as is learned for each of them."""

from __future__ import annotations

from brevq.core.function_wrapper import (
    LearnedRoundHardSigmoid,
    LearnedRoundIdentity,
    LearnedRoundSte,
    StochasticRoundSte,
)
from injectors.group import Int4WeightPerGroup
from injectors.search import Int8WeightPerTensorMSE
from injectors.weight import Int8WeightPerTensorPoT


class Int4WeightPerTensorAdaRound(Int8WeightPerTensorMSE):
    """Signed 4-bit weights that are rounded up or down as is learned: ``codes = floor(w / scale) + h(v)``.

    ``h(v) = clamp(1.2 * sigmoid(v) - 0.1, 0, 1)`` of a learned `v` for each weight, which starts from the weight
    itself; evaluation rounds h. The scale starts where the squared error of rounding to nearest is smallest.

    Source: Nagel et al., 2020, https://arxiv.org/abs/2004.10568, sections 3.3 and 5.
    """

    bit_width = 4
    float_to_int_impl = LearnedRoundSte
    learned_round_impl = LearnedRoundHardSigmoid


class Int4WeightPerGroupSignRound(Int4WeightPerGroup):
    """Signed 4-bit weights in groups that are shifted, as is learned, before rounding: ``round(w / scale_g + v)``.

    `v` starts at zero for each weight. 128 weights along the inputs share ``scale_g = max |w_g| / 7``.

    Source: Cheng et al., 2023, https://arxiv.org/abs/2309.05516, section 3.
    """

    group_size = 128
    float_to_int_impl = LearnedRoundSte
    learned_round_impl = LearnedRoundIdentity


class Int16WeightPerTensorPoTStochastic(Int8WeightPerTensorPoT):
    """Signed 16-bit fixed-point weights, rounded at random in training: up with the probability of the fraction.

    ``scale = 2 ** ceil(log2 max |w|) / 32768``. Evaluation rounds to nearest.

    Source: Gupta et al., 2015, https://arxiv.org/abs/1502.02551, section 3.
    """

    bit_width = 16
    float_to_int_impl = StochasticRoundSte
