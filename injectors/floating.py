"""Recipes for floating-point formats: FP8, FP6, FP4, and casts to 16 bits."""

from __future__ import annotations

from typing import Any

from brevq.core.formats.catalogue import (
    BFLOAT16,
    FLOAT16,
    FP4_E2M1,
    FP6_E2M3,
    FP6_E3M2,
    FP8_E4M3,
    FP8_E4M3FNUZ,
    FP8_E5M2,
    FP8_E5M2FNUZ,
    FP8_E5M3,
)
from brevq.core.function_wrapper import PerChannel, PerTensor
from brevq.core.quant import FloatQuant
from brevq.core.restrict_val import FloatRestrictValue
from brevq.core.scaling import ConstScaling, FloatScaling, RuntimeStatsScaling, StatsScaling
from brevq.core.stats import AbsMax, AbsPercentile
from brevq.inject import Injector, value
from injectors.bases import ActQuant, WeightQuant


class FormatParts(Injector):
    """Parts list of quantization to a number format, which says itself whether it is signed.

    ``y = float_format.cast(x / scale) * scale``. Left to declare: `float_format`, and `scaling_impl` with what it
    asks for.

    Source: IEEE 754-2019, conversion with ties to even.
    """

    tensor_quant: Any = FloatQuant

    @value
    def signed(float_format: Any) -> bool:
        """Whether the format has negative numbers."""
        return bool(float_format.signed)


class FloatParts(FormatParts):
    """Parts list of scaled floating-point quantization: ``scale = range / largest number of the format``.

    Left to declare: `float_format`, and `scaling_impl` with what it asks for.

    Source: Micikevicius et al., 2022, https://arxiv.org/abs/2209.05433, for formats of 8 bits.
    """

    float_scaling_impl: Any = FloatScaling
    granularity_impl: Any = PerTensor
    restrict_scaling_impl: Any = FloatRestrictValue
    scaling_min_val: Any = 1e-10


class FloatWeight(FloatParts, WeightQuant):
    """Floating-point weights, whose range is their own largest absolute value at every step.

    ``scale = max |w| / float_format.max``. Left to declare: `float_format`.

    Source: Micikevicius et al., 2022, https://arxiv.org/abs/2209.05433, for formats of 8 bits.
    """

    scaling_impl: Any = StatsScaling
    scaling_stats_impl: Any = AbsMax


class FloatAct(FloatParts, ActQuant):
    """Floating-point activations, whose range is a percentile, observed over batches, then fixed or learned.

    ``scale = percentile |x| / float_format.max``. Left to declare: `float_format`.

    Source: Micikevicius et al., 2022, https://arxiv.org/abs/2209.05433, with a percentile for the maximum.
    """

    scaling_impl: Any = RuntimeStatsScaling
    scaling_stats_impl: Any = AbsPercentile
    high_percentile_q = 99.999
    collect_stats_steps = 300
    scaling_stats_momentum = 0.1


class FloatCast(FormatParts):
    """Parts list of a cast to a floating-point format: ``float_format.cast(x)``, with ``scale = 1``.

    Left to declare: `float_format`.

    Source: IEEE 754-2019, conversion with ties to even.
    """

    scaling_impl: Any = ConstScaling
    scaling_init = 1.0


class Fp8e4m3OCPWeightPerTensor(FloatWeight):
    """Weights in 8-bit floating-point, one scale for the tensor: ``scale = max |w| / 448``.

    4 exponent and 3 mantissa bits.

    Source: OCP 8-bit Floating Point Specification, revision 1.0.
    """

    float_format = FP8_E4M3


class Fp8e4m3OCPWeightPerChannel(Fp8e4m3OCPWeightPerTensor):
    """Weights in 8-bit floating-point, one scale for each output channel: ``scale_c = max |w_c| / 448``.

    4 exponent and 3 mantissa bits.

    Source: OCP 8-bit Floating Point Specification, revision 1.0.
    """

    granularity_impl = PerChannel


class Fp8e4m3OCPActPerTensor(FloatAct):
    """Activations in 8-bit floating-point, one scale: ``scale = percentile |x| / 448``.

    4 exponent and 3 mantissa bits. The percentile, 99.999 %, is observed over
    batches, then fixed by calibration or learned in training.

    Source: OCP 8-bit Floating Point Specification, revision 1.0.
    """

    float_format = FP8_E4M3


class Fp8e5m2OCPWeightPerTensor(FloatWeight):
    """Weights in 8-bit floating-point, one scale for the tensor: ``scale = max |w| / 57344``.

    5 exponent and 2 mantissa bits.

    Source: OCP 8-bit Floating Point Specification, revision 1.0.
    """

    float_format = FP8_E5M2


class Fp8e5m2OCPWeightPerChannel(Fp8e5m2OCPWeightPerTensor):
    """Weights in 8-bit floating-point, one scale for each output channel: ``scale_c = max |w_c| / 57344``.

    5 exponent and 2 mantissa bits.

    Source: OCP 8-bit Floating Point Specification, revision 1.0.
    """

    granularity_impl = PerChannel


class Fp8e5m2OCPActPerTensor(FloatAct):
    """Activations in 8-bit floating-point, one scale: ``scale = percentile |x| / 57344``.

    5 exponent and 2 mantissa bits. The percentile, 99.999 %, is observed over
    batches, then fixed by calibration or learned in training.

    Source: OCP 8-bit Floating Point Specification, revision 1.0.
    """

    float_format = FP8_E5M2


class Fp8e4m3FNUZWeightPerTensor(FloatWeight):
    """Weights in 8-bit floating-point, one scale for the tensor: ``scale = max |w| / 240``.

    4 exponent and 3 mantissa bits, no minus zero.

    Source: Noune et al., 2022, https://arxiv.org/abs/2206.02915.
    """

    float_format = FP8_E4M3FNUZ


class Fp8e4m3FNUZWeightPerChannel(Fp8e4m3FNUZWeightPerTensor):
    """Weights in 8-bit floating-point, one scale for each output channel: ``scale_c = max |w_c| / 240``.

    4 exponent and 3 mantissa bits, no minus zero.

    Source: Noune et al., 2022, https://arxiv.org/abs/2206.02915.
    """

    granularity_impl = PerChannel


class Fp8e4m3FNUZActPerTensor(FloatAct):
    """Activations in 8-bit floating-point, one scale: ``scale = percentile |x| / 240``.

    4 exponent and 3 mantissa bits, no minus zero. The percentile, 99.999 %, is observed over
    batches, then fixed by calibration or learned in training.

    Source: Noune et al., 2022, https://arxiv.org/abs/2206.02915.
    """

    float_format = FP8_E4M3FNUZ


class Fp8e5m2FNUZWeightPerTensor(FloatWeight):
    """Weights in 8-bit floating-point, one scale for the tensor: ``scale = max |w| / 57344``.

    5 exponent and 2 mantissa bits, no minus zero.

    Source: Noune et al., 2022, https://arxiv.org/abs/2206.02915.
    """

    float_format = FP8_E5M2FNUZ


class Fp8e5m2FNUZWeightPerChannel(Fp8e5m2FNUZWeightPerTensor):
    """Weights in 8-bit floating-point, one scale for each output channel: ``scale_c = max |w_c| / 57344``.

    5 exponent and 2 mantissa bits, no minus zero.

    Source: Noune et al., 2022, https://arxiv.org/abs/2206.02915.
    """

    granularity_impl = PerChannel


class Fp8e5m2FNUZActPerTensor(FloatAct):
    """Activations in 8-bit floating-point, one scale: ``scale = percentile |x| / 57344``.

    5 exponent and 2 mantissa bits, no minus zero. The percentile, 99.999 %, is observed over
    batches, then fixed by calibration or learned in training.

    Source: Noune et al., 2022, https://arxiv.org/abs/2206.02915.
    """

    float_format = FP8_E5M2FNUZ


class Fp8e5m3ActPerTensor(FloatAct):
    """Unsigned activations in 8-bit floating-point, one scale: ``scale = percentile |x| / 114688``.

    5 exponent and 3 mantissa bits, no sign: for outputs of ReLU. The percentile, 99.999 %, is observed over
    batches, then fixed by calibration or learned in training.

    Source: AMD Quark, https://quark.docs.amd.com, which has the format for scales.
    """

    float_format = FP8_E5M3


class Fp6e3m2WeightPerTensor(FloatWeight):
    """Weights in 6-bit floating-point, one scale for the tensor: ``scale = max |w| / 28``.

    3 exponent and 2 mantissa bits.

    Source: OCP Microscaling Formats Specification, version 1.0, section 5.3.
    """

    float_format = FP6_E3M2


class Fp6e3m2WeightPerChannel(Fp6e3m2WeightPerTensor):
    """Weights in 6-bit floating-point, one scale for each output channel: ``scale_c = max |w_c| / 28``.

    3 exponent and 2 mantissa bits.

    Source: OCP Microscaling Formats Specification, version 1.0, section 5.3.
    """

    granularity_impl = PerChannel


class Fp6e3m2ActPerTensor(FloatAct):
    """Activations in 6-bit floating-point, one scale: ``scale = percentile |x| / 28``.

    3 exponent and 2 mantissa bits. The percentile, 99.999 %, is observed over
    batches, then fixed by calibration or learned in training.

    Source: OCP Microscaling Formats Specification, version 1.0, section 5.3.
    """

    float_format = FP6_E3M2


class Fp6e2m3WeightPerTensor(FloatWeight):
    """Weights in 6-bit floating-point, one scale for the tensor: ``scale = max |w| / 7.5``.

    2 exponent and 3 mantissa bits.

    Source: OCP Microscaling Formats Specification, version 1.0, section 5.3.
    """

    float_format = FP6_E2M3


class Fp6e2m3WeightPerChannel(Fp6e2m3WeightPerTensor):
    """Weights in 6-bit floating-point, one scale for each output channel: ``scale_c = max |w_c| / 7.5``.

    2 exponent and 3 mantissa bits.

    Source: OCP Microscaling Formats Specification, version 1.0, section 5.3.
    """

    granularity_impl = PerChannel


class Fp6e2m3ActPerTensor(FloatAct):
    """Activations in 6-bit floating-point, one scale: ``scale = percentile |x| / 7.5``.

    2 exponent and 3 mantissa bits. The percentile, 99.999 %, is observed over
    batches, then fixed by calibration or learned in training.

    Source: OCP Microscaling Formats Specification, version 1.0, section 5.3.
    """

    float_format = FP6_E2M3


class Fp4e2m1WeightPerTensor(FloatWeight):
    """Weights in 4-bit floating-point, one scale for the tensor: ``scale = max |w| / 6``.

    2 exponent bits and 1 mantissa bit.

    Source: OCP Microscaling Formats Specification, version 1.0, section 5.3.
    """

    float_format = FP4_E2M1


class Fp4e2m1WeightPerChannel(Fp4e2m1WeightPerTensor):
    """Weights in 4-bit floating-point, one scale for each output channel: ``scale_c = max |w_c| / 6``.

    2 exponent bits and 1 mantissa bit.

    Source: OCP Microscaling Formats Specification, version 1.0, section 5.3.
    """

    granularity_impl = PerChannel


class Fp4e2m1ActPerTensor(FloatAct):
    """Activations in 4-bit floating-point, one scale: ``scale = percentile |x| / 6``.

    2 exponent bits and 1 mantissa bit. The percentile, 99.999 %, is observed over
    batches, then fixed by calibration or learned in training.

    Source: OCP Microscaling Formats Specification, version 1.0, section 5.3.
    """

    float_format = FP4_E2M1


class Bf16Weight(FloatCast, WeightQuant):
    """Weights rounded to bfloat16: ``cast(w)``, halves to even, infinity beyond the range.

    Source: Kalamkar et al., 2019, https://arxiv.org/abs/1905.12322.
    """

    float_format = BFLOAT16


class Bf16Act(FloatCast, ActQuant):
    """Activations rounded to bfloat16: ``cast(x)``, halves to even, infinity beyond the range.

    Source: Kalamkar et al., 2019, https://arxiv.org/abs/1905.12322.
    """

    float_format = BFLOAT16


class Fp16Weight(FloatCast, WeightQuant):
    """Weights rounded to float16: ``cast(w)``, halves to even, infinity beyond the range.

    Source: IEEE 754-2019, binary16.
    """

    float_format = FLOAT16


class Fp16Act(FloatCast, ActQuant):
    """Activations rounded to float16: ``cast(x)``, halves to even, infinity beyond the range.

    Source: IEEE 754-2019, binary16.
    """

    float_format = FLOAT16
