"""Recipes with a zero-point: signed codes, and 4 bits for the whole tensor."""

from __future__ import annotations

from brevq.core.scaling import StepScaling
from injectors.activation import ShiftedUint8ActPerTensor
from injectors.group import ShiftedUint8WeightPerChannel
from injectors.weight import ShiftedUint8WeightPerTensor


class ShiftedInt8WeightPerTensor(ShiftedUint8WeightPerTensor):
    """Signed 8-bit weights with a zero-point: ``scale = (max(w, 0) - min(w, 0)) / 255``, codes -128 to 127.

    ``zero_point = round(-128 - min(w, 0) / scale)``.

    Source: Jacob et al., 2018, https://arxiv.org/abs/1712.05877, section 2.1.
    """

    signed = True
    int_scaling_impl = StepScaling  # type: ignore[assignment]  # a part takes the place of a `@value`


class ShiftedUint4WeightPerTensor(ShiftedUint8WeightPerTensor):
    """Unsigned 4-bit weights with a zero-point: ``scale = (max(w, 0) - min(w, 0)) / 15``, codes 0 to 15.

    ``zero_point = round(-min(w, 0) / scale)``.

    Source: Jacob et al., 2018, https://arxiv.org/abs/1712.05877, section 2.1, with fewer bits.
    """

    bit_width = 4


class ShiftedInt8WeightPerChannel(ShiftedUint8WeightPerChannel):
    """Signed 8-bit weights, a zero-point for each output channel: ``scale_c = (max(w_c, 0) - min(w_c, 0)) / 255``.

    ``zero_point_c = round(-128 - min(w_c, 0) / scale_c)``, codes -128 to 127.

    Source: Krishnamoorthi, 2018, https://arxiv.org/abs/1806.08342, sections 2.1 and 3.1.
    """

    signed = True
    int_scaling_impl = StepScaling  # type: ignore[assignment]  # a part takes the place of a `@value`


class ShiftedInt8ActPerTensor(ShiftedUint8ActPerTensor):
    """Signed 8-bit activations with a zero-point: ``scale = (high - low) / 255``, codes -128 to 127.

    ``high`` and ``low`` are percentiles, 99.999 % and 0.001 %, of which the interval includes zero, observed over
    batches, then fixed or learned. ``zero_point = round(-128 - low / scale)``.

    Source: Jacob et al., 2018, https://arxiv.org/abs/1712.05877, section 2.1, with percentiles for the extrema.
    """

    signed = True
    int_scaling_impl = StepScaling  # type: ignore[assignment]  # a part takes the place of a `@value`
