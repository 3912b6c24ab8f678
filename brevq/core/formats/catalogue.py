"""The number and block formats that specifications and chips name."""

from __future__ import annotations

from brevq.core.formats.block import BlockFormat
from brevq.core.formats.floating import FloatFormat
from brevq.core.formats.integer import IntFormat

# Open Compute Project, "OCP 8-bit Floating Point Specification", revision 1.0.
FP8_E4M3 = FloatFormat("fp8_e4m3", 4, 3, special="last")
FP8_E5M2 = FloatFormat("fp8_e5m2", 5, 2, special="ieee")
# Noune et al., 2022, https://arxiv.org/abs/2206.02915: bias one larger, NaN in the place of minus zero.
FP8_E4M3FNUZ = FloatFormat("fp8_e4m3fnuz", 4, 3, bias=8, special="negative_zero")
FP8_E5M2FNUZ = FloatFormat("fp8_e5m2fnuz", 5, 2, bias=16, special="negative_zero")
# AMD Quark's unsigned format for scales: E5M2 with a third mantissa bit in the place of the sign, NaN as in E4M3.
FP8_E5M3 = FloatFormat("fp8_e5m3", 5, 3, special="last", signed=False)
# Open Compute Project, "OCP Microscaling Formats (MX) Specification", version 1.0, sections 5.3 and 5.4.1.
FP6_E3M2 = FloatFormat("fp6_e3m2", 3, 2)
FP6_E2M3 = FloatFormat("fp6_e2m3", 2, 3)
FP4_E2M1 = FloatFormat("fp4_e2m1", 2, 1)
E8M0 = FloatFormat("e8m0", 8, 0, special="last", signed=False, has_zero=False)
# IEEE 754-2019 binary16, and the upper half of binary32.
FLOAT16 = FloatFormat("float16", 5, 10, special="ieee", saturating=False)
BFLOAT16 = FloatFormat("bfloat16", 8, 7, special="ieee", saturating=False)

#: All element and scale formats by name.
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

# Open Compute Project, "OCP Microscaling Formats (MX) Specification", version 1.0, section 5.
MXFP8_E4M3 = BlockFormat("mxfp8_e4m3", FP8_E4M3, E8M0, 32)
MXFP8_E5M2 = BlockFormat("mxfp8_e5m2", FP8_E5M2, E8M0, 32)
MXFP6_E3M2 = BlockFormat("mxfp6_e3m2", FP6_E3M2, E8M0, 32)
MXFP6_E2M3 = BlockFormat("mxfp6_e2m3", FP6_E2M3, E8M0, 32)
MXFP4 = BlockFormat("mxfp4", FP4_E2M1, E8M0, 32)
MXINT8 = BlockFormat("mxint8", IntFormat(8, fraction_bits=6), E8M0, 32)
# NVIDIA, 2025, "Pretraining Large Language Models with NVFP4", https://arxiv.org/abs/2509.25149, appendix B.
NVFP4 = BlockFormat("nvfp4", FP4_E2M1, FP8_E4M3, 16, rule="nearest", tensor_scale=True)
# AMD Quark, "BFP16 (Block Floating Point) Quantization", https://quark.docs.amd.com/latest/pytorch/tutorial_bfp16.html:
# eight 8-bit mantissas in two's complement and one exponent, the largest of the block. What rounds to 128 becomes 127,
# as in AMD's kernel for ONNX, which gives up -128 as well; the one for PyTorch takes the next exponent then.
BFP16 = BlockFormat("bfp16", IntFormat(8, fraction_bits=6), E8M0, 8)
# Rouhani et al., 2023, https://arxiv.org/abs/2302.08007: mantissas are sign and magnitude with an explicit leading bit,
# which is what one exponent bit makes of them; a micro-exponent of 0 or -1 for each pair.
_MICRO = FloatFormat("e1m0", 1, 0, bias=1, signed=False, has_zero=False)
MX9 = BlockFormat("mx9", FloatFormat("e1m6", 1, 6, bias=1), E8M0, 16, micro=_MICRO)
MX6 = BlockFormat("mx6", FloatFormat("e1m3", 1, 3, bias=1), E8M0, 16, micro=_MICRO)

#: All block formats by name.
BLOCK_FORMATS = {
    format_.name: format_
    for format_ in (
        MXFP8_E4M3,
        MXFP8_E5M2,
        MXFP6_E3M2,
        MXFP6_E2M3,
        MXFP4,
        MXINT8,
        NVFP4,
        BFP16,
        MX9,
        MX6,
    )
}
