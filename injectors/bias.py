"""Recipes for biases."""

from __future__ import annotations

from typing import Any

from brevq.core.restrict_val import PowerOfTwoRestrictValue
from brevq.core.scaling import StatsScaling
from brevq.core.stats import AbsMax
from injectors.bases import BiasQuant, IntBias, IntParts


class Int32Bias(IntBias):
    """Signed 32-bit biases on the accumulator's grid: ``scale = input scale * weight scale``.

    Source: Jacob et al., 2018, https://arxiv.org/abs/1712.05877, section 2.4.
    """

    bit_width = 32


class Int8Bias(IntBias):
    """Signed 8-bit biases on the accumulator's grid: ``scale = input scale * weight scale``, codes -128 to 127.

    A bias of more than 128 steps of the accumulator is clipped, and then gets no gradient.

    Source: Jacob et al., 2018, https://arxiv.org/abs/1712.05877, section 2.4, with fewer bits.
    """

    bit_width = 8


class Int16Bias(IntBias):
    """Signed 16-bit biases on the accumulator's grid: ``scale = input scale * weight scale``.

    A bias of more than 32768 steps of the accumulator is clipped, and then gets no gradient.

    Source: Jacob et al., 2018, https://arxiv.org/abs/1712.05877, section 2.4, with fewer bits.
    """

    bit_width = 16


class Int24Bias(IntBias):
    """Signed 24-bit biases on the accumulator's grid: ``scale = input scale * weight scale``.

    Source: Jacob et al., 2018, https://arxiv.org/abs/1712.05877, section 2.4, with fewer bits.
    """

    bit_width = 24


class Int8BiasPerTensor(IntParts, BiasQuant):
    """Signed 8-bit biases with a scale of their own: ``scale = max |b| / 128``, codes -128 to 127.

    They need no scale of the input, and have to be brought to the accumulator's grid by what adds them.
    ``let(bit_width=16)``, or 24, is finer; codes of more bits float32 does not hold, so 32 bits make sense with a tied
    scale only.

    Source: Jacob et al., 2018, https://arxiv.org/abs/1712.05877, section 3.1, for biases.
    """

    bit_width = 8
    signed = True
    narrow_range = False
    scaling_impl: Any = StatsScaling
    scaling_stats_impl: Any = AbsMax


class Int8BiasPerTensorPoT(Int8BiasPerTensor):
    """Signed 8-bit fixed-point biases with a scale of their own: ``scale = 2 ** ceil(log2 max |b|) / 128``.

    A shift brings them to the grid of an accumulator of fixed-point weights and inputs.

    Source: Jain et al., 2020, https://arxiv.org/abs/1903.08066, section 3, for biases.
    """

    restrict_scaling_impl = PowerOfTwoRestrictValue
