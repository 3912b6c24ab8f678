"""Recipes for biases."""

from __future__ import annotations

from injectors.bases import IntBias


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
