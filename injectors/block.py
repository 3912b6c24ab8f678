"""Recipes for block formats: MX, NVFP4, block floating point and shared micro-exponents."""

from __future__ import annotations

from typing import Any

from brevq.core.formats.catalogue import (
    BFP16,
    MX6,
    MX9,
    MXFP4,
    MXFP6_E2M3,
    MXFP6_E3M2,
    MXFP8_E4M3,
    MXFP8_E5M2,
    MXINT8,
    NVFP4,
)
from brevq.core.function_wrapper import PerGroup
from brevq.core.scaling import BlockScaling
from brevq.core.stats import AbsMax
from brevq.inject import value
from injectors.bases import ActQuant, WeightQuant
from injectors.floating import FormatParts


class BlockParts(FormatParts):
    """Parts list of quantization in blocks, whose scales follow from the tensor itself at every call.

    ``scale = block_format.scale_of(max |x|)`` over each group, and ``y = element.cast(x / scale) * scale``. A last
    block that is not full counts as filled up with zeros. Left to declare: `block_format` and `group_axis`.

    Source: OCP Microscaling Formats Specification, version 1.0, sections 5 and 6.3, of which other blocks are variants.
    """

    scaling_impl: Any = BlockScaling
    scaling_stats_impl: Any = AbsMax
    granularity_impl: Any = PerGroup
    pad = True

    @value
    def float_format(block_format: Any) -> Any:
        """The elements' format."""
        return block_format.element

    @value
    def group_size(block_format: Any) -> int:
        """The number of elements that share a scale."""
        return int(block_format.group_size)


class BlockWeight(BlockParts, WeightQuant):
    """Weights in blocks along their inputs: ``scale = block_format.scale_of(max |w|)``.

    Left to declare: `block_format`.

    Source: OCP Microscaling Formats Specification, version 1.0, sections 5 and 6.3, of which other blocks are variants.
    """

    group_axis = None


class BlockAct(BlockParts, ActQuant):
    """Activations in blocks along their last axis, of each input anew: ``scale = block_format.scale_of(max |x|)``.

    Left to declare: `block_format`.

    Source: OCP Microscaling Formats Specification, version 1.0, sections 5 and 6.3, of which other blocks are variants.
    """

    group_axis = -1


class MXFp8e4m3Weight(BlockWeight):
    """Weights in OCP MXFP8 (E4M3): 32 weights share ``scale = 2 ** (floor(log2 max |w|) - 8)``.

    Source: OCP Microscaling Formats Specification, version 1.0, sections 5 and 6.3.
    """

    block_format = MXFP8_E4M3


class MXFp8e4m3Act(BlockAct):
    """Activations in OCP MXFP8 (E4M3): 32 values share ``scale = 2 ** (floor(log2 max |x|) - 8)``.

    Source: OCP Microscaling Formats Specification, version 1.0, sections 5 and 6.3.
    """

    block_format = MXFP8_E4M3


class MXFp8e5m2Weight(BlockWeight):
    """Weights in OCP MXFP8 (E5M2): 32 weights share ``scale = 2 ** (floor(log2 max |w|) - 15)``.

    Source: OCP Microscaling Formats Specification, version 1.0, sections 5 and 6.3.
    """

    block_format = MXFP8_E5M2


class MXFp8e5m2Act(BlockAct):
    """Activations in OCP MXFP8 (E5M2): 32 values share ``scale = 2 ** (floor(log2 max |x|) - 15)``.

    Source: OCP Microscaling Formats Specification, version 1.0, sections 5 and 6.3.
    """

    block_format = MXFP8_E5M2


class MXFp6e3m2Weight(BlockWeight):
    """Weights in OCP MXFP6 (E3M2): 32 weights share ``scale = 2 ** (floor(log2 max |w|) - 4)``.

    Source: OCP Microscaling Formats Specification, version 1.0, sections 5 and 6.3.
    """

    block_format = MXFP6_E3M2


class MXFp6e3m2Act(BlockAct):
    """Activations in OCP MXFP6 (E3M2): 32 values share ``scale = 2 ** (floor(log2 max |x|) - 4)``.

    Source: OCP Microscaling Formats Specification, version 1.0, sections 5 and 6.3.
    """

    block_format = MXFP6_E3M2


class MXFp6e2m3Weight(BlockWeight):
    """Weights in OCP MXFP6 (E2M3): 32 weights share ``scale = 2 ** (floor(log2 max |w|) - 2)``.

    Source: OCP Microscaling Formats Specification, version 1.0, sections 5 and 6.3.
    """

    block_format = MXFP6_E2M3


class MXFp6e2m3Act(BlockAct):
    """Activations in OCP MXFP6 (E2M3): 32 values share ``scale = 2 ** (floor(log2 max |x|) - 2)``.

    Source: OCP Microscaling Formats Specification, version 1.0, sections 5 and 6.3.
    """

    block_format = MXFP6_E2M3


class MXFp4Weight(BlockWeight):
    """Weights in OCP MXFP4 (E2M1): 32 weights share ``scale = 2 ** (floor(log2 max |w|) - 2)``.

    Source: OCP Microscaling Formats Specification, version 1.0, sections 5 and 6.3.
    """

    block_format = MXFP4


class MXFp4Act(BlockAct):
    """Activations in OCP MXFP4 (E2M1): 32 values share ``scale = 2 ** (floor(log2 max |x|) - 2)``.

    Source: OCP Microscaling Formats Specification, version 1.0, sections 5 and 6.3.
    """

    block_format = MXFP4


class MXInt8Weight(BlockWeight):
    """Weights in OCP MXINT8: 32 weights share ``scale = 2 ** floor(log2 max |w|)``, in steps of 1/64.

    Source: OCP Microscaling Formats Specification, version 1.0, sections 5 and 6.3.
    """

    block_format = MXINT8


class MXInt8Act(BlockAct):
    """Activations in OCP MXINT8: 32 values share ``scale = 2 ** floor(log2 max |x|)``, in steps of 1/64.

    Source: OCP Microscaling Formats Specification, version 1.0, sections 5 and 6.3.
    """

    block_format = MXINT8


class NVFP4Weight(BlockWeight):
    """Weights in NVFP4 (E2M1): 16 weights share ``scale = t * e4m3(max |w| / (6 * t))``.

    One float32 scale for the tensor: ``t = max of all |w| / (6 * 448)``.

    Source: NVIDIA, 2025, https://arxiv.org/abs/2509.25149, appendix B.
    """

    block_format = NVFP4


class NVFP4Act(BlockAct):
    """Activations in NVFP4 (E2M1): 16 values share ``scale = t * e4m3(max |x| / (6 * t))``.

    One float32 scale for the tensor: ``t = max of all |x| / (6 * 448)``.

    Source: NVIDIA, 2025, https://arxiv.org/abs/2509.25149, appendix B.
    """

    block_format = NVFP4


class BFP16Weight(BlockWeight):
    """Weights in block floating point: 8 weights share ``scale = 2 ** floor(log2 max |w|)``, in steps of 1/64.

    What rounds to the code 128 becomes 127.

    Source: AMD Quark, https://quark.docs.amd.com/latest/pytorch/tutorial_bfp16.html, for block and codes.
    """

    block_format = BFP16


class BFP16Act(BlockAct):
    """Activations in block floating point: 8 values share ``scale = 2 ** floor(log2 max |x|)``, in steps of 1/64.

    What rounds to the code 128 becomes 127.

    Source: AMD Quark, https://quark.docs.amd.com/latest/pytorch/tutorial_bfp16.html, for block and codes.
    """

    block_format = BFP16


class MX9Weight(BlockWeight):
    """Weights in MX9: 16 weights share a power of two, each pair of them may halve it; steps of 1/64.

    Source: Rouhani et al., 2023, https://arxiv.org/abs/2302.08007.
    """

    block_format = MX9


class MX9Act(BlockAct):
    """Activations in MX9: 16 values share a power of two, each pair of them may halve it; steps of 1/64.

    Source: Rouhani et al., 2023, https://arxiv.org/abs/2302.08007.
    """

    block_format = MX9


class MX6Weight(BlockWeight):
    """Weights in MX6: 16 weights share a power of two, each pair of them may halve it; steps of 1/8.

    Source: Rouhani et al., 2023, https://arxiv.org/abs/2302.08007.
    """

    block_format = MX6


class MX6Act(BlockAct):
    """Activations in MX6: 16 values share a power of two, each pair of them may halve it; steps of 1/8.

    Source: Rouhani et al., 2023, https://arxiv.org/abs/2302.08007.
    """

    block_format = MX6
