"""What is told of a recipe in a list: its role, bits, granularity, scale and source."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any

import attrs

from brevq.inject import build, explain
from brevq.inject.text.paths import path_of

#: What a layer would supply, to see what a recipe builds: the shape and the channel axis of a weight.
_TRIAL = {"tensor_shape": (64, 64), "channel_axis": 0}
#: What a restriction makes of scales, where it does.
_RESTRICTED = {"PowerOfTwoRestrictValue": ", power of two", "LogFloatRestrictValue": ", held as a logarithm"}
#: Under which name a recipe has the size of what shares a scale.
_SIZES = {"group": "group_size", "block": "block_shape"}
_GIVEN = "given by the layer"


@attrs.frozen
class Record:
    """A recipe, as lists and tables tell of it.

    Args:
        library: name of the library that has it; empty where none does.
        name: its name there.
        path: its import path; empty where it has none.
        role: what it is for: *weight*, *activation*, *bias*, *truncation*; None if it does not say.
        format: what its numbers are: ``int8``, ``uint4``, ``ternary``, ``fp8_e4m3``, ``mxfp4``.
        bits: bits of a number, to begin with where they are learned; None where the layer gives them.
        learned_bits: whether the bits are learned.
        bits_with_scales: bits of a number with its part of the scales, of block formats; None of others.
        signed: whether there are negative numbers; None where the layer says so.
        granularity: what shares a scale: ``tensor``, ``channel``, ``group of 32``.
        scale: the part that gives the scale, the statistic that it starts from, and which values it may take.
        doc: its documentation.
    """

    library: str
    name: str
    path: str
    role: str | None
    format: str
    bits: int | None
    learned_bits: bool
    bits_with_scales: float | None
    signed: bool | None
    granularity: str
    scale: str
    doc: str

    @property
    def summary(self) -> str:
        """What it is, in a line: the first paragraph of its documentation."""
        return " ".join(self.doc.split("\n\n")[0].split())

    @property
    def source(self) -> str:
        """Where it comes from, as its documentation says; empty where that says nothing."""
        return " ".join(self.doc.split()).partition("Source: ")[2].rstrip(".")

    @property
    def prefixed(self) -> str:
        """Its name with that of its library before it, under which no other library has it."""
        return f"{self.library}:{self.name}"

    def as_json(self) -> dict[str, Any]:
        """Everything that is told of it, as JSON has it."""
        return {**attrs.asdict(self), "summary": self.summary, "source": self.source}


def describe(recipe: Any, name: str | None = None, library: str = "", module: str | None = None) -> Record:
    """The record of a recipe, of a library or not; its parts are built for a trial.

    Args:
        recipe: a recipe class.
        name: what it is called. Default: its own name.
        library: name of the library that has it. Default: none.
        module: the module that has it under that name. Default: the one that can be imported.

    Raises:
        RecipeError: the recipe has faults; all of them are listed.
        ArgumentTypeError: `recipe` is not a recipe.

    Examples:
        >>> from injectors import Int8WeightPerTensor
        >>> record = describe(Int8WeightPerTensor.let(bit_width=4))
        >>> record.role, record.format, record.bits, record.granularity, record.scale
        ('weight', 'int4', 4, 'tensor', 'StatsScaling of AbsMax')
    """
    wired = {line.name: line.content.removesuffix(" (above)") for line in explain(recipe).lines}
    core, bits = _built(recipe)
    width = None if bits is None else int(bits)
    signed = _signed(recipe, core, wired)
    return Record(
        library=library,
        name=name or recipe.__name__,
        path=(path_of(recipe) or "") if module is None else f"{module}:{name or recipe.__name__}",
        role=str(recipe.role) if "role" in recipe else None,
        format=_format(recipe, core, width, signed),
        bits=width,
        learned_bits=bool(getattr(bits, "requires_grad", False)),
        bits_with_scales=recipe.block_format.bits_per_element if "block_format" in recipe else None,
        signed=signed,
        granularity=_granularity(recipe, wired),
        scale=_scale(recipe, wired),
        doc=inspect.getdoc(recipe) or "",
    )


def _built(recipe: Any) -> tuple[Any, Any]:
    """The core quantizer and its bit width; None for each that only a layer can give."""
    try:
        core = build(recipe, _TRIAL)
    except Exception:  # noqa: BLE001  # `explain` found no fault, so it is for lack of what a layer gives
        return None, None
    try:
        part = getattr(core, "bit_width_impl", None)
        bits = core.bit_width if part is None else part()
        return core, bits if int(bits) else None
    except Exception:  # noqa: BLE001  # the core quantizer keeps its bits elsewhere, or takes them from its input
        return core, None


def _signed(recipe: Any, core: Any, wired: Mapping[str, str]) -> bool | None:
    """Whether there are negative numbers: a number format says so, else the recipe; None where the input says so."""
    number_format = getattr(core, "float_format", None)
    if number_format is not None:
        return bool(number_format.signed)
    if "signed" in recipe:
        return bool(recipe.signed)
    return None if "trunc_scaling_impl" in wired else True


def _format(recipe: Any, core: Any, bits: int | None, signed: bool | None) -> str:
    """What the numbers are, in a word."""
    number_format = recipe.block_format if "block_format" in recipe else getattr(core, "float_format", None)
    if number_format is not None:
        return str(number_format)
    if "int_quant" in recipe or "decoupled_int_quant" in recipe or "trunc_scaling_impl" in recipe:
        return f"{'uint' if signed is False else 'int'}{'' if bits is None else bits}"
    return "binary" if bits == 1 else type(core).__name__.removesuffix("Quant").lower()


def _granularity(recipe: Any, wired: Mapping[str, str]) -> str:
    """What shares a scale."""
    if "block_format" in recipe:
        return ", ".join(levels(recipe.block_format))
    if "trunc_scaling_impl" in wired or "scaling_impl" not in wired:
        return _GIVEN
    kind = wired.get("granularity_impl", "PerTensor").removeprefix("Per").lower()
    size = wired.get(_SIZES.get(kind, ""), "")
    return f"{kind} of {' by '.join(re.findall('[0-9]+', size))}" if size else kind


def _scale(recipe: Any, wired: Mapping[str, str]) -> str:
    """The part that gives the scale, what from, and which values it may take."""
    if "trunc_scaling_impl" in wired:
        return f"{_GIVEN}, times {wired['trunc_scaling_impl']}"
    if "scaling_impl" not in wired:
        return _GIVEN
    if "block_format" in recipe:
        return f"{wired['scaling_impl']}: {', '.join(levels(recipe.block_format).values())}"
    start = wired.get("scaling_stats_impl") or wired.get("scaling_init")
    restricted = _RESTRICTED.get(wired.get("restrict_scaling_impl", ""), "")
    norm = f"; norm by {wired['pre_scaling_impl']}" if "pre_scaling_impl" in wired else ""
    return wired["scaling_impl"] + (f" of {start}" if start else "") + restricted + norm


def levels(block: Any) -> dict[str, str]:
    """What shares a scale in a block format, the largest first, and the format of that scale.

    Args:
        block: a `brevq.core.formats.BlockFormat`.

    Examples:
        >>> from brevq.core.formats.catalogue import NVFP4
        >>> levels(NVFP4)
        {'tensor': 'float32', 'block of 16': 'fp8_e4m3 (nearest)'}
    """
    tensor = {"tensor": "float32"} if block.tensor_scale else {}
    group = {f"group of {block.micro_size}": str(block.micro)} if block.micro else {}
    return {**tensor, f"block of {block.size}": f"{block.scale} ({block.rule.value})", **group}
