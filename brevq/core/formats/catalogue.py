"""The floating-point formats that specifications and chips name."""

from __future__ import annotations

from brevq.core.formats.floating import FloatFormat

# Open Compute Project, "OCP 8-bit Floating Point Specification", revision 1.0.
FP8_E4M3 = FloatFormat("fp8_e4m3", 4, 3, special="last")
FP8_E5M2 = FloatFormat("fp8_e5m2", 5, 2, special="ieee")
# Noune et al., 2022, https://arxiv.org/abs/2206.02915: bias one larger, NaN in the place of minus zero.
FP8_E4M3FNUZ = FloatFormat("fp8_e4m3fnuz", 4, 3, bias=8, special="negative_zero")
FP8_E5M2FNUZ = FloatFormat("fp8_e5m2fnuz", 5, 2, bias=16, special="negative_zero")
# An unsigned format for scales, with three mantissa bits in the place of the sign.
FP8_E5M3 = FloatFormat("fp8_e5m3", 5, 3, special="last", signed=False)
# Open Compute Project, "OCP Microscaling Formats (MX) Specification", version 1.0.
FP6_E3M2 = FloatFormat("fp6_e3m2", 3, 2)
FP6_E2M3 = FloatFormat("fp6_e2m3", 2, 3)
FP4_E2M1 = FloatFormat("fp4_e2m1", 2, 1)
E8M0 = FloatFormat("e8m0", 8, 0, special="last", signed=False, has_zero=False)
# IEEE 754-2019 binary16, and the upper half of binary32.
FLOAT16 = FloatFormat("float16", 5, 10, special="ieee", saturating=False)
BFLOAT16 = FloatFormat("bfloat16", 8, 7, special="ieee", saturating=False)

#: All of them by name.
FORMATS = {
    format_.name: format_
    for format_ in (
        FP8_E4M3,
        FP8_E5M2,
        FP8_E4M3FNUZ,
        FP8_E5M2FNUZ,
        FP8_E5M3,
        FP6_E3M2,
        FP6_E2M3,
        FP4_E2M1,
        E8M0,
        FLOAT16,
        BFLOAT16,
    )
}
