"""What a specification may say: the rules between its fields, each with a way out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import attrs

from brevq.config.translate import DTYPES, OBSERVERS, is_mx
from brevq.config.type import DeviceType, Dtype, QSchemeType, QuantizationMode, RoundType, ScaleType, Word
from brevq.errors import ArgumentError
from brevq.inject.near import did_you_mean

if TYPE_CHECKING:
    from brevq.config.spec import TensorSpec

_WORDS: dict[str, type[Word]] = {
    "dtype": Dtype,
    "qscheme": QSchemeType,
    "scale_type": ScaleType,
    "round_method": RoundType,
    "device": DeviceType,
}
#: What a target takes.
_TARGETS: dict[DeviceType, dict[str, object]] = {
    DeviceType.CPU: {},
    DeviceType.IPU: {
        "dtype": Dtype.int8,
        "qscheme": QSchemeType.per_tensor,
        "scale_type": ScaleType.pof2,
        "symmetric": True,
    },
}
#: The fields that a format with nothing else to choose takes.
_TAKEN = {"cast": ("dtype", "round_method", "device"), "block": ("dtype", "round_method", "axis", "device")}
#: What means blocks of OCP MX, of floating-point formats.
_OCP = (QSchemeType.per_group, ScaleType.float8_e8m0fnu)
_FLOAT_OBSERVERS = ("min_max", "percentile", "mse")


def refuse(what: str, faults: Sequence[str]) -> None:
    """Raise one error that lists all faults, if there are any.

    Args:
        what: the first line.
        faults: one line each.

    Raises:
        ArgumentError: there are faults.
    """
    if faults:
        raise ArgumentError("\n".join([f"{what}:", "", *(f"  {fault}" for fault in faults)]))


def faults(spec: TensorSpec) -> list[str]:
    """All faults of a specification, whatever its role; of fields alone first, and if there are none, together.

    Args:
        spec: the specification.
    """
    alone = [*_unknown_words(spec), *_wrong_values(spec)]
    if alone:
        return alone
    kind = DTYPES[spec.dtype].kind
    within = _not_taken(spec, kind) if kind in _TAKEN else [*_layout(spec), *_numbers(spec, kind)]
    return [*within, *_target(spec)]


def defaults(kind: type[TensorSpec]) -> dict[str, object]:
    """What the fields of a specification are called, in their order, and what they are by default.

    Args:
        kind: `TensorSpec`; its default of `scale_type` is that for a device that leaves everything open.
    """
    given = {field.alias: field.default for field in attrs.fields(kind) if field.init}
    return {**given, "scale_type": ScaleType.float}


def scale_type(spec: TensorSpec) -> ScaleType:
    """The scale type of a specification that states none: the one that its device takes, of scales that it may choose.

    Args:
        spec: the specification, whose other words may be unknown.
    """
    chooses = isinstance(spec.dtype, Dtype) and DTYPES[spec.dtype].kind not in _TAKEN
    takes = _TARGETS[spec.device] if chooses and isinstance(spec.device, DeviceType) else {}
    return ScaleType(takes.get("scale_type", ScaleType.float))


def mode_faults(mode: object) -> list[str]:
    """Why a mode of conversion is refused: as a word, or because nothing converts models.

    Args:
        mode: a `QuantizationMode`, its string, or None, which is right.
    """
    if mode is None:
        return []
    if mode not in list(QuantizationMode):
        return [_unknown("mode", mode, [str(word) for word in QuantizationMode])]
    return [
        f"`mode` (={str(mode)!r}) is how a whole model is converted, which brevq can not do yet: leave it out, and "
        "give the recipe to layers, QuantLinear(8, 8, weight_quant=spec.recipe('weight'))"
    ]


def role_faults(spec: TensorSpec, role: object) -> list[str]:
    """All faults that a specification has in one role.

    Args:
        spec: the specification.
        role: *weight* or *activation*.
    """
    if role == "weight":
        return list(_weight_faults(spec))
    if role == "activation":
        return list(_activation_faults(spec))
    return [f"`role` (={role!r}) must be 'weight' or 'activation'"]


def _unknown(name: str, given: object, words: Sequence[str]) -> str:
    near = did_you_mean(given, words) if isinstance(given, str) else ""
    return f"`{name}` (={given!r}) must be one of {', '.join(repr(word) for word in words)}.{near}"


def _unknown_words(spec: TensorSpec) -> Iterator[str]:
    for name, kind in _WORDS.items():
        given = getattr(spec, name)
        if not isinstance(given, kind):
            yield _unknown(name, given, [str(word) for word in kind])
    if spec.observer is not None and spec.observer not in list(OBSERVERS):
        yield _unknown("observer", spec.observer, list(OBSERVERS))


def _wrong_values(spec: TensorSpec) -> Iterator[str]:
    for name in ("symmetric", "dynamic"):
        given = getattr(spec, name)
        if not isinstance(given, bool):
            yield f"`{name}` (={given!r}) must be True or False"
    axis, size = spec.axis, spec.group_size
    if axis is not None and (isinstance(axis, bool) or not isinstance(axis, int)):
        yield f"`axis` (={axis!r}) must be a whole number, or None"
    if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
        yield f"`group_size` (={size!r}) must be a whole number, 1 or more, or None"


def _not_taken(spec: TensorSpec, kind: str) -> Iterator[str]:
    """Fields that a cast or a block format has no use for."""
    what = "is a cast, without a scale" if kind == "cast" else "is a block format, which brings its own scales"
    for name, default in defaults(type(spec)).items():
        given = getattr(spec, name)
        if name not in _TAKEN[kind] and given != default:
            yield f"`{name}` (={_plain(given)!r}) has no effect on {spec.dtype}, which {what}: leave it out"


def _layout(spec: TensorSpec) -> Iterator[str]:
    """Faults of axis and group size with regard to the scheme."""
    scheme = spec.qscheme
    if spec.axis is not None and scheme not in (QSchemeType.per_channel, QSchemeType.per_group):
        yield (
            f"`axis` (={spec.axis}) has no effect with {str(scheme)!r}: leave it out, or choose 'per_channel' or "
            "'per_group'"
        )
    if scheme is QSchemeType.per_group and spec.group_size is None:
        yield "`group_size` is missing, the number of values that share a scale: `qscheme` is 'per_group'"
    if spec.group_size is not None and scheme not in (QSchemeType.per_group, QSchemeType.per_block):
        yield (
            f"`group_size` (={spec.group_size}) has no effect with {str(scheme)!r}: leave it out, or choose "
            "'per_group' or 'per_block'"
        )


def _numbers(spec: TensorSpec, kind: str) -> Iterator[str]:
    """Faults of number format, scale and statistic with regard to each other."""
    if kind == "float" and not spec.symmetric:
        yield f"`symmetric` (=False) is for integers, and `dtype` is {str(spec.dtype)!r}: leave it out"
    if kind == "float" and spec.observer not in (None, *_FLOAT_OBSERVERS):
        yield f"`observer` (={spec.observer!r}) is for integers; {spec.dtype} takes 'min_max', 'percentile' or 'mse'"
    if is_mx(spec) and spec.observer is not None:
        yield f"`observer` (={spec.observer!r}) has no effect on groups with scales in E8M0, as of OCP MX: leave it out"
    if spec.dtype is Dtype.fp8_e5m3 and (spec.qscheme, spec.scale_type) == _OCP:
        yield "`scale_type` (='float8_e8m0fnu') of groups is OCP MX, which has no fp8_e5m3: choose 'pof2'"
    if spec.scale_type is ScaleType.float16 and spec.dtype in (Dtype.int16, Dtype.uint16):
        yield (
            f"`scale_type` (='float16') can not be exact with {spec.dtype}: scale times largest code has more digits "
            "than float32; choose 'bfloat16' or 'pof2'"
        )


def _target(spec: TensorSpec) -> Iterator[str]:
    """Fields that the device does not take; of those that the format does not take either nothing is said."""
    taken = _TAKEN.get(DTYPES[spec.dtype].kind)
    for name, takes in _TARGETS[spec.device].items():
        given = getattr(spec, name)
        if given != takes and (taken is None or name in taken):
            yield f"`{name}` (={_plain(given)!r}) is refused by {spec.device}, which takes {_plain(takes)!r}"


def _weight_faults(spec: TensorSpec) -> Iterator[str]:
    if spec.dynamic:
        yield "`dynamic` (=True) is for activations: scales of weights follow them at every call. Leave it out"
    if spec.dtype is Dtype.fp8_e5m3:
        yield "`dtype` (='fp8_e5m3') takes all negative weights to zero: choose 'fp8_e4m3' or 'fp8_e5m2'"
    if spec.symmetric and spec.dtype.startswith("uint"):
        yield (
            f"`symmetric` (=True) with {spec.dtype} takes all negative weights to zero: set it to False, or choose "
            f"{spec.dtype[1:]!r}"
        )


def _activation_faults(spec: TensorSpec) -> Iterator[str]:
    if spec.qscheme is QSchemeType.per_channel:
        yield (
            "`qscheme` (='per_channel') is for weights, whose shape is known: choose 'per_tensor', or override "
            "`granularity_impl` of a dynamic recipe with `PerToken`"
        )
    if spec.qscheme in (QSchemeType.per_group, QSchemeType.per_block) and not spec.dynamic:
        yield (
            f"`qscheme` (={str(spec.qscheme)!r}) needs `dynamic` (=True) of activations, whose shape is not known, nor "
            "the number of scales"
        )


def _plain(value: object) -> object:
    return str(value) if isinstance(value, Word) else value
