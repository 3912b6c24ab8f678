"""Recipes for activations in floating-point formats whose scales are those of each input, by token or by group.

A token is all the values along the last axis; `feature_axis` names another. A group is 128 of them, and a last one that
is not full counts as filled up with zeros.
"""

from __future__ import annotations

from typing import Any

from brevq.core.formats.catalogue import (
    FP4_E2M1,
    FP6_E2M3,
    FP6_E3M2,
    FP8_E4M3FNUZ,
    FP8_E5M2,
    FP8_E5M2FNUZ,
    FP8_E5M3,
)
from brevq.core.function_wrapper import PerGroup, PerToken
from brevq.core.scaling import StatsScaling
from brevq.core.stats import AbsMax
from injectors.bases import ActQuant
from injectors.floating import FloatParts


class FloatActPerToken(FloatParts, ActQuant):
    """Floating-point activations, a scale for each token, computed from it: ``scale_t = max |x_t| / float_format.max``.

    Left to declare: `float_format`.

    Source: Yao et al., 2022, https://arxiv.org/abs/2206.01861, section 4.1, for tokens.
    """

    scaling_impl: Any = StatsScaling
    scaling_stats_impl: Any = AbsMax
    granularity_impl: Any = PerToken


class FloatActPerGroup(FloatActPerToken):
    """Floating-point activations in groups: 128 along the last axis share ``scale_g = max |x_g| / float_format.max``.

    Left to declare: `float_format`.

    Source: DeepSeek-AI, 2024, https://arxiv.org/abs/2412.19437, section 3.3.2, for groups.
    """

    granularity_impl = PerGroup
    group_size = 128
    group_axis = -1
    pad = True


class Fp8e5m2OCPActPerTokenDynamic(FloatActPerToken):
    """Activations in 8-bit floating-point, a scale for each token, computed from it: ``scale_t = max |x_t| / 57344``.

    5 exponent and 2 mantissa bits.

    Source: Micikevicius et al., 2022, https://arxiv.org/abs/2209.05433, for the format.
    """

    float_format = FP8_E5M2


class Fp8e5m2OCPActPerGroupDynamic(FloatActPerGroup):
    """Activations in 8-bit floating-point in groups: 128 along the last axis share ``scale_g = max |x_g| / 57344``.

    5 exponent and 2 mantissa bits. Scales are those of each input.

    Source: Micikevicius et al., 2022, https://arxiv.org/abs/2209.05433, for the format.
    """

    float_format = FP8_E5M2


class Fp8e4m3FNUZActPerTokenDynamic(FloatActPerToken):
    """Activations in 8-bit floating-point, a scale for each token, computed from it: ``scale_t = max |x_t| / 240``.

    4 exponent and 3 mantissa bits, no minus zero.

    Source: Noune et al., 2022, https://arxiv.org/abs/2206.02915, for the format.
    """

    float_format = FP8_E4M3FNUZ


class Fp8e4m3FNUZActPerGroupDynamic(FloatActPerGroup):
    """Activations in 8-bit floating-point in groups: 128 along the last axis share ``scale_g = max |x_g| / 240``.

    4 exponent and 3 mantissa bits, no minus zero. Scales are those of each input.

    Source: Noune et al., 2022, https://arxiv.org/abs/2206.02915, for the format.
    """

    float_format = FP8_E4M3FNUZ


class Fp8e5m2FNUZActPerTokenDynamic(FloatActPerToken):
    """Activations in 8-bit floating-point, a scale for each token, computed from it: ``scale_t = max |x_t| / 57344``.

    5 exponent and 2 mantissa bits, no minus zero.

    Source: Noune et al., 2022, https://arxiv.org/abs/2206.02915, for the format.
    """

    float_format = FP8_E5M2FNUZ


class Fp8e5m2FNUZActPerGroupDynamic(FloatActPerGroup):
    """Activations in 8-bit floating-point in groups: 128 along the last axis share ``scale_g = max |x_g| / 57344``.

    5 exponent and 2 mantissa bits, no minus zero. Scales are those of each input.

    Source: Noune et al., 2022, https://arxiv.org/abs/2206.02915, for the format.
    """

    float_format = FP8_E5M2FNUZ


class Fp8e5m3ActPerTokenDynamic(FloatActPerToken):
    """Unsigned activations in 8-bit floating-point, a scale for each token: ``scale_t = max |x_t| / 114688``.

    5 exponent and 3 mantissa bits, no sign: for outputs of ReLU.

    Source: AMD Quark, https://quark.docs.amd.com, for the format.
    """

    float_format = FP8_E5M3


class Fp8e5m3ActPerGroupDynamic(FloatActPerGroup):
    """Unsigned activations in 8-bit floating-point in groups: 128 in a row share ``scale_g = max |x_g| / 114688``.

    5 exponent and 3 mantissa bits, no sign: for outputs of ReLU. Scales are those of each input.

    Source: AMD Quark, https://quark.docs.amd.com, for the format.
    """

    float_format = FP8_E5M3


class Fp6e3m2ActPerTokenDynamic(FloatActPerToken):
    """Activations in 6-bit floating-point, a scale for each token, computed from it: ``scale_t = max |x_t| / 28``.

    3 exponent and 2 mantissa bits.

    Source: OCP Microscaling Formats Specification, version 1.0, section 5.3, for the format.
    """

    float_format = FP6_E3M2


class Fp6e3m2ActPerGroupDynamic(FloatActPerGroup):
    """Activations in 6-bit floating-point in groups: 128 along the last axis share ``scale_g = max |x_g| / 28``.

    3 exponent and 2 mantissa bits. Scales are those of each input.

    Source: OCP Microscaling Formats Specification, version 1.0, section 5.3, for the format.
    """

    float_format = FP6_E3M2


class Fp6e2m3ActPerTokenDynamic(FloatActPerToken):
    """Activations in 6-bit floating-point, a scale for each token, computed from it: ``scale_t = max |x_t| / 7.5``.

    2 exponent and 3 mantissa bits.

    Source: OCP Microscaling Formats Specification, version 1.0, section 5.3, for the format.
    """

    float_format = FP6_E2M3


class Fp6e2m3ActPerGroupDynamic(FloatActPerGroup):
    """Activations in 6-bit floating-point in groups: 128 along the last axis share ``scale_g = max |x_g| / 7.5``.

    2 exponent and 3 mantissa bits. Scales are those of each input.

    Source: OCP Microscaling Formats Specification, version 1.0, section 5.3, for the format.
    """

    float_format = FP6_E2M3


class Fp4e2m1ActPerTokenDynamic(FloatActPerToken):
    """Activations in 4-bit floating-point, a scale for each token, computed from it: ``scale_t = max |x_t| / 6``.

    2 exponent bits and 1 mantissa bit.

    Source: OCP Microscaling Formats Specification, version 1.0, section 5.3, for the format.
    """

    float_format = FP4_E2M1


class Fp4e2m1ActPerGroupDynamic(FloatActPerGroup):
    """Activations in 4-bit floating-point in groups: 128 along the last axis share ``scale_g = max |x_g| / 6``.

    2 exponent bits and 1 mantissa bit. Scales are those of each input.

    Source: OCP Microscaling Formats Specification, version 1.0, section 5.3, for the format.
    """

    float_format = FP4_E2M1
