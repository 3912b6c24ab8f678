"""The specification of a quantized tensor: a value that prints, compares, and goes to JSON and back."""

from __future__ import annotations

import json
from typing import Any, TypeVar

import attrs

from brevq.config import rules
from brevq.config.back import fields_of, unlike
from brevq.config.translate import compose
from brevq.config.type import DeviceType, Dtype, QSchemeType, QuantizationMode, RoundType, ScaleType, Word
from brevq.errors import ArgumentError
from brevq.inject.near import did_you_mean

_W = TypeVar("_W", bound=Word)

_VERSION = 1
_REFUSED = "no TensorSpec says what {recipe} is, and the nearest is refused. {error}"
_DIFFERS = "no TensorSpec says what {recipe} is; the nearest, {spec!r}, differs"


def _word(kind: type[_W], given: _W | str) -> _W:
    """The member of a vocabulary; what is none stays as it is, for all faults to be told together."""
    try:
        return kind(given)
    except ValueError:
        return given  # type: ignore[return-value]  # refused by the rules


def _dtype(given: Dtype | str) -> Dtype:
    return _word(Dtype, given)


def _qscheme(given: QSchemeType | str) -> QSchemeType:
    return _word(QSchemeType, given)


def _scale_type(given: ScaleType | str | None) -> ScaleType | None:
    return None if given is None else _word(ScaleType, given)


def _round_method(given: RoundType | str) -> RoundType:
    return _word(RoundType, given)


def _device(given: DeviceType | str) -> DeviceType:
    return _word(DeviceType, given)


@attrs.frozen(repr=False)
class TensorSpec:
    """How a tensor is quantized, in the words of the vocabulary.

    Each word is a member of its enumeration or its string. Specifications are values: equal ones are equal, they
    hash, and print what differs from the defaults.

    Args:
        dtype: what the values become.
        qscheme: which values share a scale. Default: all of the tensor. bfloat16, float16 and the block formats have
            no such choice, nor one of scales: they take `round_method` alone, and blocks an `axis`.
        scale_type: which numbers scales may be. Default: any above zero; for a device that takes others only, those.
        round_method: how values between two numbers are rounded. Default: to the nearest, halves to even.
        symmetric: whether zero is the code 0, rather than one that follows from the smallest value. Default: True.
        axis: the axis that channels are counted along, or groups lie along; negative ones count from the end.
            Default: the output channels that the layer knows; groups lie along axis 1 of weights, the inputs, and
            the last one of activations.
        group_size: the number of values in a group, or along each side of a block, which is 128 by default.
        observer: the statistic for ranges: *min_max*, *percentile* (99.999 %), *mse* (smallest squared error) or *hqo*
            (half-quadratic optimization). Default: *min_max* of weights and dynamic activations, else *percentile*.
            Statistics of activations are averaged over batches.
        dynamic: whether the scales of activations follow each input, without calibration. Default: False.
        device: what the model is for, which limits the other fields: those that are stated and do not fit it are
            refused. Default: *CPU*, no limit.

    Raises:
        ArgumentError: fields are unknown words, out of range, or have no meaning together; all faults are listed.

    Examples:
        >>> spec = TensorSpec("int8", "per_channel", scale_type="pof2")
        >>> spec
        TensorSpec('int8', qscheme='per_channel', scale_type='pof2')
        >>> spec.recipe("weight").__name__
        'Int8WeightPerChannelPoT'
        >>> TensorSpec.from_json(spec.to_json()) == spec
        True
        >>> TensorSpec("int8", device="IPU")
        TensorSpec('int8', scale_type='pof2', device='IPU')
        >>> import attrs
        >>> attrs.evolve(TensorSpec("int8"), device="IPU") == TensorSpec("int8", device="IPU")
        True
    """

    dtype: Dtype = attrs.field(converter=_dtype)
    qscheme: QSchemeType = attrs.field(default=QSchemeType.per_tensor, converter=_qscheme)
    #: As it was stated, which a copy for another device keeps; None if the device decides.
    _stated_scale_type: ScaleType | None = attrs.field(
        default=None, converter=_scale_type, alias="scale_type", eq=False
    )
    round_method: RoundType = attrs.field(default=RoundType.half_even, converter=_round_method)
    symmetric: bool = True
    axis: int | None = None
    group_size: int | None = None
    observer: str | None = None
    dynamic: bool = False
    device: DeviceType = attrs.field(default=DeviceType.CPU, converter=_device)
    scale_type: ScaleType = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Complete what the device decides, and refuse fields that are wrong, or wrong together, all at once."""
        stated = self._stated_scale_type
        object.__setattr__(self, "scale_type", rules.scale_type(self) if stated is None else stated)
        rules.refuse("this TensorSpec makes no sense", rules.faults(self))

    def recipe(self, role: str, mode: QuantizationMode | str | None = None) -> Any:
        """The recipe that quantizes as the specification says, to be given to a layer, subclassed or explained.

        The same specification and role give the same class; the library's own, where it has one with these parts.

        Args:
            role: *weight* or *activation*.
            mode: how a whole model is to be converted; brevq does not do that yet, so anything but None is refused.

        Raises:
            ArgumentError: the specification has no meaning in this role, or a `mode` was asked for.

        Examples:
            >>> spec = TensorSpec("int4", "per_group", group_size=32)
            >>> recipe = spec.recipe("weight")
            >>> recipe.bit_width, recipe.group_size, recipe is spec.recipe("weight")
            (4, 32, True)
        """
        rules.refuse(f"{self!r} has no recipe", [*rules.mode_faults(mode), *rules.role_faults(self, role)])
        return compose(self, role)

    @classmethod
    def of(cls, recipe: Any) -> TensorSpec:
        """The specification whose recipe has the same parts as `recipe`, by whatever name.

        Args:
            recipe: a recipe for weights or activations.

        Raises:
            ArgumentError: the vocabulary can not say it; the parts that it has no words for are listed.

        Examples:
            >>> from injectors import Int4WeightPerChannelPoT
            >>> TensorSpec.of(Int4WeightPerChannelPoT)
            TensorSpec('int4', qscheme='per_channel', scale_type='pof2')
        """
        role, fields = fields_of(recipe)
        try:
            spec = cls(**fields)
            found = spec.recipe(role)
        except ArgumentError as error:
            raise ArgumentError(_REFUSED.format(recipe=recipe.__name__, error=error)) from None
        rules.refuse(_DIFFERS.format(recipe=recipe.__name__, spec=spec), unlike(recipe, found))
        return spec

    def to_json(self) -> str:
        """The specification as JSON: all fields, and the version of their names.

        Examples:
            >>> print(TensorSpec("mx").to_json())
            {"version": 1, "dtype": "mx", "qscheme": "per_tensor", "scale_type": "float",
             "round_method": "half_even", "symmetric": true, "axis": null, "group_size": null,
             "observer": null, "dynamic": false, "device": "CPU"}
        """
        return json.dumps({"version": _VERSION, **{name: getattr(self, name) for name in rules.defaults(type(self))}})

    @classmethod
    def from_json(cls, text: str) -> TensorSpec:
        """The specification that `to_json` wrote. Fields that are missing have their defaults.

        Args:
            text: a JSON object.

        Raises:
            ArgumentError: it is none, of another version, or has keys that are no fields; or the fields are wrong.

        Examples:
            >>> TensorSpec.from_json('{"version": 1, "dtype": "int8", "symmetric": false}')
            TensorSpec('int8', symmetric=False)
        """
        try:
            found = json.loads(text)
        except (TypeError, ValueError) as error:
            raise ArgumentError(f"this is no JSON of a TensorSpec: {error}") from None
        if not isinstance(found, dict):
            raise ArgumentError(f"the JSON of a TensorSpec is an object, not {found!r}")
        names = list(rules.defaults(cls))
        rules.refuse("this is no JSON of a TensorSpec", _key_faults(found, names))
        return cls(**{name: found[name] for name in names if name in found})

    def __repr__(self) -> str:
        _, *others = rules.defaults(type(self)).items()
        chosen = [(name, getattr(self, name), default) for name, default in others]
        words = [f"{name}={_plain(value)!r}" for name, value, default in chosen if value != default]
        return f"TensorSpec({', '.join([repr(_plain(self.dtype)), *words])})"


def _plain(value: object) -> object:
    """A member of a vocabulary as its string; anything else as it is."""
    return str(value) if isinstance(value, Word) else value


def _key_faults(found: dict[str, Any], names: list[str]) -> list[str]:
    version = found.get("version")
    faults = []
    if isinstance(version, bool) or version != _VERSION:
        faults.append(f"`version` (={version!r}) must be {_VERSION}, the one that this brevq writes")
    for name in found:
        if name not in ("version", *names):
            faults.append(f"`{name}` is no field of a TensorSpec.{did_you_mean(name, names)}")
    if "dtype" not in found:
        faults.append("`dtype` is missing")
    return faults
