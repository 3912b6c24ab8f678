"""Recipes for activations, which are inputs and outputs of layers."""

from __future__ import annotations

from brevq.core.quant import ClampedBinaryQuant
from brevq.core.restrict_val import PowerOfTwoRestrictValue
from brevq.core.scaling import ConstScaling, LsqGradientScale, LsqIntScaledAve
from brevq.core.stats import NegativePercentileOrZero, PercentileInterval
from brevq.core.zero_point import RuntimeStatsZeroPoint
from injectors.bases import ActQuant, IntAct


class Int8ActPerTensor(IntAct):
    """Signed 8-bit activations, one scale: ``scale = percentile |x| / 128``, codes -128 to 127.

    The percentile, 99.999 %, is observed over batches, then fixed by calibration or learned in training.

    Source: Jacob et al., 2018, https://arxiv.org/abs/1712.05877, section 3.1, with a percentile for the maximum.
    """

    bit_width = 8
    signed = True


class Int4ActPerTensor(Int8ActPerTensor):
    """Signed 4-bit activations, one scale: ``scale = percentile |x| / 8``, codes -8 to 7.

    Source: Jacob et al., 2018, https://arxiv.org/abs/1712.05877, section 3.1, with a percentile for the maximum.
    """

    bit_width = 4


class Uint8ActPerTensor(IntAct):
    """Unsigned 8-bit activations, one scale: ``scale = percentile |x| / 255``, codes 0 to 255. For outputs of ReLU.

    The percentile, 99.999 %, is observed over batches, then fixed by calibration or learned in training.

    Source: Jacob et al., 2018, https://arxiv.org/abs/1712.05877, section 3.1, with a percentile for the maximum.
    """

    bit_width = 8
    signed = False


class Uint4ActPerTensor(Uint8ActPerTensor):
    """Unsigned 4-bit activations, one scale: ``scale = percentile |x| / 15``, codes 0 to 15. For outputs of ReLU.

    Source: Jacob et al., 2018, https://arxiv.org/abs/1712.05877, section 3.1, with a percentile for the maximum.
    """

    bit_width = 4


class Int8ActPerTensorPoT(Int8ActPerTensor):
    """Signed 8-bit fixed-point activations: ``scale = 2 ** ceil(log2 percentile |x|) / 128``.

    Source: Jain et al., 2020, https://arxiv.org/abs/1903.08066, section 3.
    """

    restrict_scaling_impl = PowerOfTwoRestrictValue


class Uint8ActPerTensorPoT(Uint8ActPerTensor):
    """Unsigned 8-bit fixed-point activations: ``scale = 2 ** ceil(log2 percentile |x|) / 256``.

    Source: Jain et al., 2020, https://arxiv.org/abs/1903.08066, section 3.
    """

    restrict_scaling_impl = PowerOfTwoRestrictValue


class ShiftedUint8ActPerTensor(Uint8ActPerTensor):
    """Unsigned 8-bit activations with a zero-point: ``scale = (high - low) / 255``, codes 0 to 255.

    ``high`` and ``low`` are percentiles, 99.999 % and 0.001 %, of which the interval includes zero, observed over
    batches, then fixed or learned. ``zero_point = round(-low / scale)``.

    Source: Jacob et al., 2018, https://arxiv.org/abs/1712.05877, section 2.1, with percentiles for the extrema.
    """

    scaling_stats_impl = PercentileInterval
    low_percentile_q = 0.001
    zero_point_impl = RuntimeStatsZeroPoint
    zero_point_stats_impl = NegativePercentileOrZero


class Int8ActPerTensorLSQ(Int8ActPerTensor):
    """Signed 8-bit activations with one learned scale, which starts from ``2 * mean |x| / sqrt(127)`` of a batch.

    Its gradient is multiplied by ``1 / sqrt(n * 127)``, ``n`` being the number of values in a sample.

    Source: Esser et al., 2020, https://arxiv.org/abs/1902.08153, section 2.
    """

    scaling_stats_impl = LsqIntScaledAve
    gradient_scale_impl = LsqGradientScale
    batched = True
    collect_stats_steps = 1


class Uint8ActPerTensorLSQ(Uint8ActPerTensor):
    """Unsigned 8-bit activations with one learned scale, which starts from ``2 * mean |x| / sqrt(255)`` of a batch.

    Its gradient is multiplied by ``1 / sqrt(n * 255)``, ``n`` being the number of values in a sample.

    Source: Esser et al., 2020, https://arxiv.org/abs/1902.08153, section 2.
    """

    scaling_stats_impl = LsqIntScaledAve
    gradient_scale_impl = LsqGradientScale
    batched = True
    collect_stats_steps = 1


class BinaryActPerTensor(ActQuant):
    """Binary activations: -1 and 1, with no gradient outside of that interval.

    Source: Hubara et al., 2016, https://arxiv.org/abs/1602.02830, section 1.3.
    """

    tensor_quant = ClampedBinaryQuant
    scaling_impl = ConstScaling
    scaling_init = 1.0
