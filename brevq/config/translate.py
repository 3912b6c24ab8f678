"""From specifications to recipes: the one table of what each word of the vocabulary means."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import attrs

import injectors
from brevq.config.parts import FormatScaling
from brevq.config.type import Dtype, QSchemeType, RoundType, ScaleType
from brevq.core.formats import BlockFormat, FloatFormat
from brevq.core.formats.catalogue import (
    BFLOAT16,
    E8M0,
    FLOAT16,
    FP4_E2M1,
    FP6_E2M3,
    FP6_E3M2,
    FP8_E4M3,
    FP8_E5M2,
    FP8_E5M3,
    MXFP4,
    MXFP6_E2M3,
    MXFP6_E3M2,
    MXFP8_E4M3,
    MXFP8_E5M2,
)
from brevq.core.function_wrapper import (
    FloorSte,
    PerBlock,
    PerChannel,
    PerGroup,
    PerTensor,
    RoundHalfUpSte,
    TensorClampSte,
)
from brevq.core.restrict_val import PowerOfTwoRestrictValue
from brevq.core.scaling import PowerOfTwoFloatScaling, StatsScaling, StepScaling
from brevq.core.stats import (
    MSE,
    AbsMax,
    AbsMinMax,
    AbsPercentile,
    FormatGrid,
    HalfQuadraticOptimizerScale,
    HalfQuadraticOptimizerZeroPoint,
    IntervalSearch,
    MSEInterval,
    NearestGrid,
    NegativeMinOrZero,
    NegativeMSEOrZero,
    NegativePercentileOrZero,
    PercentileInterval,
)
from brevq.core.zero_point import StatsZeroPoint
from injectors.block import BlockAct, BlockWeight
from injectors.floating import FloatAct, FloatWeight

if TYPE_CHECKING:
    from brevq.config.spec import TensorSpec


@attrs.frozen
class Meaning:
    """What a `Dtype` means.

    Args:
        kind: *integer*, *float* (scaled), *cast* or *block*.
        weight: the recipe for weights, symmetric and per tensor where that can be chosen.
        activation: the recipe for activations.
        parts: what differs from these.
    """

    kind: str
    weight: Any
    activation: Any
    parts: dict[str, Any] = attrs.field(factory=dict)

    def recipe(self, role: str) -> Any:
        """The recipe for *weight* or *activation*."""
        return self.weight if role == "weight" else self.activation


def _integer(bits: int, signed: bool) -> Meaning:
    activation = injectors.Int8ActPerTensor if signed else injectors.Uint8ActPerTensor
    return Meaning("integer", injectors.Int8WeightPerTensor, activation, {"bit_width": bits, "signed": signed})


def _float(number_format: FloatFormat) -> Meaning:
    return Meaning("float", FloatWeight, FloatAct, {"float_format": number_format})


DTYPES = {
    Dtype.int2: _integer(2, True),
    Dtype.int3: _integer(3, True),
    Dtype.int4: _integer(4, True),
    Dtype.int8: _integer(8, True),
    Dtype.int16: _integer(16, True),
    Dtype.int32: _integer(32, True),
    Dtype.uint2: _integer(2, False),
    Dtype.uint4: _integer(4, False),
    Dtype.uint8: _integer(8, False),
    Dtype.uint16: _integer(16, False),
    Dtype.uint32: _integer(32, False),
    Dtype.bfloat16: Meaning("cast", injectors.Bf16Weight, injectors.Bf16Act),
    Dtype.float16: Meaning("cast", injectors.Fp16Weight, injectors.Fp16Act),
    Dtype.fp8_e4m3: _float(FP8_E4M3),
    Dtype.fp8_e5m2: _float(FP8_E5M2),
    Dtype.fp8_e5m3: Meaning("float", FloatWeight, FloatAct, {"float_format": FP8_E5M3, "signed": False}),
    Dtype.fp6_e3m2: _float(FP6_E3M2),
    Dtype.fp6_e2m3: _float(FP6_E2M3),
    Dtype.fp4: _float(FP4_E2M1),
    Dtype.mx: Meaning("block", injectors.MXFp8e4m3Weight, injectors.MXFp8e4m3Act),
    Dtype.mx6: Meaning("block", injectors.MX6Weight, injectors.MX6Act),
    Dtype.mx9: Meaning("block", injectors.MX9Weight, injectors.MX9Act),
    Dtype.bfp16: Meaning("block", injectors.BFP16Weight, injectors.BFP16Act),
}

#: Floating-point groups with scales in E8M0, as OCP MX has them.
MX = {
    Dtype.fp8_e4m3: MXFP8_E4M3,
    Dtype.fp8_e5m2: MXFP8_E5M2,
    Dtype.fp6_e3m2: MXFP6_E3M2,
    Dtype.fp6_e2m3: MXFP6_E2M3,
    Dtype.fp4: MXFP4,
}

GRANULARITIES: dict[QSchemeType, Any] = {
    QSchemeType.per_tensor: PerTensor,
    QSchemeType.per_channel: PerChannel,
    QSchemeType.per_group: PerGroup,
    QSchemeType.per_block: PerBlock,
}

#: The formats of scales; 16-bit ones saturate, so that no scale is infinite.
SCALES = {
    ScaleType.float16: attrs.evolve(FLOAT16, saturating=True),
    ScaleType.bfloat16: attrs.evolve(BFLOAT16, saturating=True),
    ScaleType.float8_e5m3: FP8_E5M3,
    ScaleType.float8_e8m0fnu: E8M0,
}

ROUNDINGS: dict[RoundType, Any] = {
    RoundType.half_even: None,
    RoundType.round: RoundHalfUpSte,
    RoundType.floor: FloorSte,
}

#: The statistic of a symmetric range; those of a shifted one, for the range and for the zero-point.
OBSERVERS: dict[str, tuple[type, tuple[type, type]]] = {
    "min_max": (AbsMax, (AbsMinMax, NegativeMinOrZero)),
    "percentile": (AbsPercentile, (PercentileInterval, NegativePercentileOrZero)),
    "mse": (MSE, (MSEInterval, NegativeMSEOrZero)),
    "hqo": (HalfQuadraticOptimizerScale, (AbsMinMax, HalfQuadraticOptimizerZeroPoint)),
}


#: The grid on which a range is searched for, by the kind of the format.
SEARCH_GRIDS: dict[str, type] = {"integer": NearestGrid, "float": FormatGrid}


def is_mx(spec: TensorSpec) -> bool:
    """Whether `spec` means blocks of OCP MX, written as floating-point groups with scales in E8M0."""
    grouped = (spec.qscheme, spec.scale_type) == (QSchemeType.per_group, ScaleType.float8_e8m0fnu)
    return grouped and spec.dtype in MX


@functools.cache
def compose(spec: TensorSpec, role: str) -> Any:
    """The recipe of a specification that is valid for a role; the library's own where it has the same parts.

    Args:
        spec: the specification.
        role: *weight* or *activation*.
    """
    if DTYPES[spec.dtype].kind in ("cast", "block") or is_mx(spec):
        base, parts = _whole_format(spec, role)
    else:
        base, parts = _scaled(spec, role)
    declared = contents(base)
    recipe = base.let(**{name: part for name, part in parts.items() if declared.get(name, _NONE) != part})
    return _library().get(frozenset(contents(recipe).items()), recipe)


def contents(recipe: Any) -> dict[str, Any]:
    """What a recipe declares, under each of its names, inherited ones included.

    Args:
        recipe: the recipe.
    """
    return {name: declared.content for name, declared in recipe.__declared__.items()}


_NONE = object()


@functools.cache
def _library() -> dict[frozenset[tuple[str, Any]], Any]:
    """The recipes that have a name in `injectors`, by what they declare."""
    recipes = [getattr(injectors, name) for name in injectors.__all__]
    return {frozenset(contents(recipe).items()): recipe for recipe in recipes}


def _whole_format(spec: TensorSpec, role: str) -> tuple[Any, dict[str, Any]]:
    """The recipe of a format that leaves nothing to choose but rounding and, of blocks, the axis."""
    base, parts = DTYPES[spec.dtype].recipe(role), _rounding(spec)
    if is_mx(spec):
        base = BlockWeight if role == "weight" else BlockAct
        parts["block_format"] = _mx_format(spec)
    return base, parts | ({} if spec.axis is None else {"group_axis": spec.axis})


def _mx_format(spec: TensorSpec) -> BlockFormat:
    whole, size = MX[spec.dtype], spec.group_size or 32
    return whole if size == whole.size else attrs.evolve(whole, name=f"{whole}_{size}", size=size, micro_size=size)


def _scaled(spec: TensorSpec, role: str) -> tuple[Any, dict[str, Any]]:
    """The recipe of an integer or floating-point format, scaled."""
    meaning = DTYPES[spec.dtype]
    base = _base(spec, role)
    steps = (_observer, _granularity, _dynamic, _rounding, _restriction, _shift)
    parts = functools.reduce(lambda done, step: done | step(spec, role), steps, dict(meaning.parts))
    if spec.scale_type in SCALES:
        range_impl = parts.get("scaling_impl", contents(base)["scaling_impl"])
        parts |= {
            "range_impl": range_impl,
            "scaling_impl": FormatScaling,
            "scale_format": SCALES[spec.scale_type],
        }
    return base, parts


def _base(spec: TensorSpec, role: str) -> Any:
    """The recipe that those of a scaled format derive from."""
    if not spec.symmetric:
        dynamic = injectors.ShiftedUint8ActPerTensorDynamic
        activation = dynamic if spec.dynamic else injectors.ShiftedUint8ActPerTensor
        return injectors.ShiftedUint8WeightPerTensor if role == "weight" else activation
    if spec.dynamic and DTYPES[spec.dtype].parts.get("bit_width") and DTYPES[spec.dtype].parts["signed"]:
        return injectors.Int8ActPerTensorDynamic
    return DTYPES[spec.dtype].recipe(role)


def _observer(spec: TensorSpec, role: str) -> dict[str, Any]:
    default = "min_max" if role == "weight" or spec.dynamic else "percentile"
    symmetric, shifted = OBSERVERS[spec.observer or default]
    search = {"search_grid_impl": SEARCH_GRIDS[DTYPES[spec.dtype].kind]} if spec.observer == "mse" else {}
    if spec.symmetric:
        return {"scaling_stats_impl": symmetric, **search}
    interval = {"interval_search_impl": IntervalSearch, **search} if search else {}
    return dict(zip(("scaling_stats_impl", "zero_point_stats_impl"), shifted, strict=True)) | interval


def _granularity(spec: TensorSpec, role: str) -> dict[str, Any]:
    parts: dict[str, Any] = {"granularity_impl": GRANULARITIES[spec.qscheme]}
    if spec.qscheme is QSchemeType.per_channel and spec.axis is not None:
        parts["channel_axis"] = spec.axis
    if spec.qscheme is QSchemeType.per_group:
        default = None if role == "weight" else -1
        parts |= {"group_size": spec.group_size, "group_axis": default if spec.axis is None else spec.axis}
    if spec.qscheme in (QSchemeType.per_group, QSchemeType.per_block):
        parts["pad"] = True
    if spec.qscheme is QSchemeType.per_block and spec.group_size is not None:
        parts["block_shape"] = (spec.group_size, spec.group_size)
    return parts


def _dynamic(spec: TensorSpec, role: str) -> dict[str, Any]:
    shift = {} if spec.symmetric else {"zero_point_impl": StatsZeroPoint}
    return {"scaling_impl": StatsScaling, **shift} if spec.dynamic else {}


def _rounding(spec: TensorSpec, role: str = "") -> dict[str, Any]:
    rounding = ROUNDINGS[spec.round_method]
    return {} if rounding is None else {"float_to_int_impl": rounding}


def _restriction(spec: TensorSpec, role: str) -> dict[str, Any]:
    if spec.scale_type is not ScaleType.pof2:
        return {}
    parts: dict[str, Any] = {"restrict_scaling_impl": PowerOfTwoRestrictValue}
    if DTYPES[spec.dtype].kind == "float":
        parts["float_scaling_impl"] = PowerOfTwoFloatScaling
    elif role == "weight":
        parts["tensor_clamp_impl"] = TensorClampSte
    return parts


def _shift(spec: TensorSpec, role: str) -> dict[str, Any]:
    if spec.symmetric or not DTYPES[spec.dtype].parts["signed"]:
        return {}
    power = {"power_of_two_steps": True} if spec.scale_type is ScaleType.pof2 else {}
    return {"int_scaling_impl": StepScaling, **power}
