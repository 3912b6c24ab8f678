"""The bases of recipes: what a layer supplies for each role, and the parts lists of integer quantization."""

from __future__ import annotations

from typing import Any

from brevq.core.bit_width import BitWidthConst
from brevq.core.function_wrapper import PerTensor
from brevq.core.quant import IntQuant, PrescaledRestrictIntQuant, RescalingIntQuant
from brevq.core.restrict_val import FloatRestrictValue
from brevq.core.scaling import IntScaling, PowerOfTwoIntScaling, RuntimeStatsScaling, StatsScaling
from brevq.core.stats import AbsMax, AbsPercentile
from brevq.core.zero_point import ZeroZeroPoint
from brevq.inject import Injector, supplied, value


class WeightQuant(Injector):
    """Base of all weight recipes: their role, and what the layer supplies.

    A recipe of one's own needs one more name, `tensor_quant`, and what that asks for. It has no formula and no source
    of its own: those are the core quantizer's.
    """

    role = "weight"
    tensor_shape = supplied("shape of the weight")
    channel_axis = supplied("axis of the output channels")
    dtype = supplied("dtype of the weight")
    device = supplied("device of the weight")


class ActQuant(Injector):
    """Base of all activation recipes: their role, and what the layer supplies.

    A recipe of one's own needs one more name, `tensor_quant`, and what that asks for. It has no formula and no source
    of its own: those are the core quantizer's.
    """

    role = "activation"
    dtype = supplied("dtype of the layer")
    device = supplied("device of the layer")


class BiasQuant(Injector):
    """Base of all bias recipes: their role, and what the layer supplies.

    A recipe of one's own needs one more name, `tensor_quant`, and what that asks for. Where its `forward` takes a
    `scale`, the layer passes input scale times weight scale.
    """

    role = "bias"
    tensor_shape = supplied("shape of the bias")
    dtype = supplied("dtype of the bias")
    device = supplied("device of the bias")


class IntParts(Injector):
    """Parts list of scaled integer quantization: ``scale = range / integer threshold``.

    Left to declare: `bit_width`, `signed`, `narrow_range`, and `scaling_impl` with what it asks for.

    Source: Jacob et al., 2018, https://arxiv.org/abs/1712.05877, section 2.1.
    """

    tensor_quant: Any = RescalingIntQuant
    int_quant: Any = IntQuant
    bit_width_impl: Any = BitWidthConst
    zero_point_impl: Any = ZeroZeroPoint
    granularity_impl: Any = PerTensor
    restrict_scaling_impl: Any = FloatRestrictValue
    scaling_min_val: Any = 1e-10

    @value
    def int_scaling_impl(restrict_scaling_impl: Any) -> type:
        """The integer threshold: a power of two where ranges are, so that scales, their quotients, are too."""
        return PowerOfTwoIntScaling if getattr(restrict_scaling_impl, "power_of_two", False) else IntScaling


class IntWeight(IntParts, WeightQuant):
    """Signed, narrow, symmetric integer weights, whose range is their own largest absolute value at every step.

    ``scale = max |w| / (2 ** (bit_width - 1) - 1)``. Left to declare: `bit_width`.

    Source: Jacob et al., 2018, https://arxiv.org/abs/1712.05877, section 3.1, with a symmetric range.
    """

    signed = True
    narrow_range = True
    scaling_impl: Any = StatsScaling
    scaling_stats_impl: Any = AbsMax


class IntAct(IntParts, ActQuant):
    """Symmetric integer activations, whose range is a percentile, observed over batches, then fixed or learned.

    ``scale = percentile |x| / threshold``, where the threshold is ``2 ** (bit_width - 1)`` when signed and
    ``2 ** bit_width - 1`` when not. Left to declare: `bit_width` and `signed`.

    Source: Jacob et al., 2018, https://arxiv.org/abs/1712.05877, section 3.1, with a percentile for the maximum.
    """

    narrow_range = False
    scaling_impl: Any = RuntimeStatsScaling
    scaling_stats_impl: Any = AbsPercentile
    high_percentile_q = 99.999
    collect_stats_steps = 300
    scaling_stats_momentum = 0.1


class IntBias(BiasQuant):
    """Signed integer biases, on the grid of the layer's accumulator: ``scale = input scale * weight scale``.

    Left to declare: `bit_width`.

    Source: Jacob et al., 2018, https://arxiv.org/abs/1712.05877, section 2.4.
    """

    tensor_quant: Any = PrescaledRestrictIntQuant
    int_quant: Any = IntQuant
    bit_width_impl: Any = BitWidthConst
    signed = True
    narrow_range = False
