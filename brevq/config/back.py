"""From recipes back to specifications: the table of the vocabulary, read the other way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from brevq.config.translate import DTYPES, GRANULARITIES, MX, OBSERVERS, ROUNDINGS, SCALES, contents
from brevq.config.type import Dtype, QSchemeType, RoundType
from brevq.core.restrict_val import PowerOfTwoRestrictValue
from brevq.core.scaling import StatsScaling
from brevq.errors import ArgumentError
from brevq.inject.analyse import short

_INTEGER = ("bit_width", "signed")


def fields_of(recipe: Any) -> tuple[str, dict[str, Any]]:
    """The role of `recipe`, and the fields of the specification that it looks like.

    What the vocabulary has no word for is left out; `unlike` finds it.

    Args:
        recipe: a recipe for weights or activations.

    Raises:
        ArgumentError: it is no such recipe, or its number format has no word.
    """
    if not hasattr(recipe, "__declared__"):
        raise ArgumentError(f"a TensorSpec is read from a recipe, not {recipe!r}")
    parts = contents(recipe)
    role = parts.get("role")
    if role not in ("weight", "activation"):
        raise ArgumentError(
            f"no TensorSpec says what {recipe.__name__} is: its role is {role!r}, and they are for weights and "
            "activations"
        )
    fields = _read(parts)
    if fields["dtype"] is None:
        raise ArgumentError(f"no TensorSpec says what {recipe.__name__} is: no dtype is {_number_format(parts)}")
    return role, fields


def unlike(recipe: Any, found: Any) -> list[str]:
    """How the parts of a recipe differ from those of the nearest one that the vocabulary has, a line for each name.

    Args:
        recipe: the recipe.
        found: the nearest one.
    """
    ours, theirs = contents(recipe), contents(found)
    return [
        f"{name} = {_content(ours, name)}, not {_content(theirs, name)}"
        for name in sorted({*ours, *theirs})
        if ours.get(name, _content) != theirs.get(name, _content)
    ]


def _content(parts: Mapping[str, Any], name: str) -> str:
    return short(parts[name]) if name in parts else "undeclared"


def _number_format(parts: Mapping[str, Any]) -> str:
    """What a recipe quantizes to, in words."""
    for name in ("block_format", "float_format"):
        if name in parts:
            return str(parts[name])
    return ", ".join(f"{name} = {_content(parts, name)}" for name in _INTEGER)


def _read(parts: Mapping[str, Any]) -> dict[str, Any]:
    dynamic = parts.get("role") == "activation" and StatsScaling in (
        parts.get("scaling_impl"),
        parts.get("range_impl"),
    )
    fields = _read_format(parts) | ({"dynamic": True} if dynamic else {})
    roundings = {part: word for word, part in ROUNDINGS.items()}
    fields["round_method"] = roundings.get(parts.get("float_to_int_impl"), RoundType.half_even)
    return fields


def _read_format(parts: Mapping[str, Any]) -> dict[str, Any]:
    if "block_format" in parts:
        return _read_block(parts)
    casts = {contents(DTYPES[dtype].weight)["float_format"]: dtype for dtype in (Dtype.bfloat16, Dtype.float16)}
    number_format = parts.get("float_format")
    if number_format in casts:
        return {"dtype": casts[number_format]}
    key = ("float_format",) if "float_format" in parts else _INTEGER
    dtype = next((dtype for dtype, meaning in DTYPES.items() if _says(meaning.parts, parts, key)), None)
    return {"dtype": dtype} | _read_scale(parts) | _read_granularity(parts) | _read_observer(parts)


def _says(meant: Mapping[str, Any], parts: Mapping[str, Any], names: tuple[str, ...]) -> bool:
    """Whether the parts that a word means include these, and they are those of a recipe."""
    return all(name in meant and meant[name] == parts.get(name) for name in names)


def _read_block(parts: Mapping[str, Any]) -> dict[str, Any]:
    default = None if parts.get("role") == "weight" else -1
    axis = parts.get("group_axis", default)
    fields = {} if axis == default else {"axis": axis}
    found = parts["block_format"]
    for dtype, meaning in DTYPES.items():
        if meaning.kind == "block" and contents(meaning.weight)["block_format"] == found:
            return {"dtype": dtype, **fields}
    for dtype, whole in MX.items():
        if whole.element == found.element:
            group = {"qscheme": "per_group", "group_size": found.size, "scale_type": "float8_e8m0fnu"}
            return {"dtype": dtype, **group, **fields, "dynamic": parts.get("role") == "activation"}
    return {"dtype": None}


def _read_scale(parts: Mapping[str, Any]) -> dict[str, Any]:
    formats = {number_format: word for word, number_format in SCALES.items()}
    if parts.get("scale_format") in formats:
        return {"scale_type": formats[parts["scale_format"]]}
    return {"scale_type": "pof2"} if parts.get("restrict_scaling_impl") is PowerOfTwoRestrictValue else {}


def _read_granularity(parts: Mapping[str, Any]) -> dict[str, Any]:
    words = {part: word for word, part in GRANULARITIES.items()}
    qscheme = words.get(parts.get("granularity_impl"), QSchemeType.per_tensor)
    if qscheme is QSchemeType.per_channel and isinstance(parts.get("channel_axis"), int):
        return {"qscheme": qscheme, "axis": parts["channel_axis"]}
    if qscheme is QSchemeType.per_group:
        default = None if parts.get("role") == "weight" else -1
        axis = parts.get("group_axis", -1)
        return {
            "qscheme": qscheme,
            "group_size": parts.get("group_size"),
            "axis": None if axis == default else axis,
        }
    if qscheme is QSchemeType.per_block and "block_shape" in parts:
        return {"qscheme": qscheme, "group_size": parts["block_shape"][0]}
    return {"qscheme": qscheme}


def _read_observer(parts: Mapping[str, Any]) -> dict[str, Any]:
    found = parts.get("scaling_stats_impl"), parts.get("zero_point_stats_impl")
    symmetric = found[1] is None
    dynamic = StatsScaling in (parts.get("scaling_impl"), parts.get("range_impl"))
    default = "min_max" if parts.get("role") == "weight" or dynamic else "percentile"
    for word, (alone, shifted) in OBSERVERS.items():
        if found == ((alone, None) if symmetric else shifted):
            return {"symmetric": symmetric, "observer": None if word == default else word}
    return {"symmetric": symmetric}
