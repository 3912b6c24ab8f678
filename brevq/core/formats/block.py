"""Block formats: elements of a small format that share a scale, itself a number of a format."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import NamedTuple

import attrs
import torch
from torch import Tensor
from torch.nn import functional as F

from brevq.core.formats.cast import NumberFormat, cast_ste
from brevq.core.formats.floating import FloatFormat
from brevq.core.formats.integer import check_flag, check_name
from brevq.errors import ArgumentError, ArgumentTypeError
from brevq.function.ops_ste import ceil_ste, floor_ste, round_ste

#: The largest absolute value that a tensor scale is computed from, at least: well above where float32 ends.
TENSOR_FLOOR = 2.0**-100
# The largest power of two that float32 and E8M0 have: a tensor scale times the largest scale of a block, at most.
_LARGEST_SCALE = 2.0**127


class ScaleRule(enum.Enum):
    """How the scale of a block follows from its largest absolute value, `amax`.

    Where the scale is a power of two, with ``emax`` the exponent of the largest power of two among the elements:

    - `FLOOR`: ``2 ** (floor(log2 amax) - emax)``. Values up to twice that power may saturate.
    - `EVEN`: the same of `amax` rounded to the mantissa of the elements: what would round up to the next power of two
      takes its scale.
    - `CEIL`: ``2 ** (ceil(log2 amax) - emax)``.
    - `FIT`: the smallest power of two at which nothing saturates, ``2 ** ceil(log2(amax / element.max))``.
    - `NEAREST`: ``amax / element.max``, rounded to nearest, halves to even: for scales with a mantissa.

    Source:
        FLOOR: Open Compute Project, "OCP Microscaling Formats (MX) Specification", version 1.0, section 6.3.
        EVEN, CEIL: AMD Quark, whose `scale_calculation_mode` has these names; EVEN is its default.
        FIT: Mishra et al., 2025, https://arxiv.org/abs/2506.08027.
        NEAREST: NVIDIA, 2025, https://arxiv.org/abs/2509.25149, appendix B.

    Examples:
        >>> ScaleRule("floor").name
        'FLOOR'
    """

    FLOOR = "floor"
    EVEN = "even"
    CEIL = "ceil"
    FIT = "fit"
    NEAREST = "nearest"


_ROUND: dict[ScaleRule, Callable[[Tensor], Tensor]] = {
    ScaleRule.FLOOR: floor_ste,
    ScaleRule.CEIL: ceil_ste,
    ScaleRule.FIT: ceil_ste,
    ScaleRule.NEAREST: round_ste,
}


class BlockCodes(NamedTuple):
    """A tensor in a block format, as bit patterns.

    Examples:
        >>> codes = BlockCodes(torch.tensor([[127]]), torch.tensor([[2, 3]]))
        >>> codes.micro is None
        True
    """

    scale: Tensor  #: of each block, ``(..., blocks)``
    element: Tensor  #: of each element, in the shape of the tensor
    micro: Tensor | None = None  #: the micro-exponent of each group, ``(..., groups)``
    tensor_scale: Tensor | None = None  #: the scale of the whole tensor, a float32 of shape `()`


def _rule(value: ScaleRule | str) -> ScaleRule:
    try:
        return ScaleRule(value)
    except ValueError:
        names = ", ".join(repr(member.value) for member in ScaleRule)
        raise ArgumentError(f"`rule` (={value!r}) must be one of {names}") from None


def _check_element(format_: BlockFormat, attribute: object, element: NumberFormat) -> None:
    if not isinstance(element, NumberFormat):
        raise ArgumentTypeError(
            f"`element` (={element!r}) must be a number format, such as FP4_E2M1 or IntFormat(8), "
            f"not {type(element).__name__}"
        )


def _check_scale(format_: BlockFormat, attribute: attrs.Attribute[FloatFormat], scale: FloatFormat) -> None:
    if not isinstance(scale, FloatFormat):
        raise ArgumentTypeError(
            f"`{attribute.name}` (={scale!r}) must be a FloatFormat, such as E8M0, not {type(scale).__name__}"
        )


def _check_size(format_: BlockFormat, attribute: object, size: int) -> None:
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ArgumentError(f"`size` (={size!r}) must be a whole number of elements, 1 or more")


def _check_micro_size(format_: BlockFormat, attribute: object, micro_size: int) -> None:
    if isinstance(micro_size, bool) or not isinstance(micro_size, int) or micro_size < 1 or format_.size % micro_size:
        raise ArgumentError(f"`micro_size` (={micro_size!r}) must divide `size` (={format_.size})")


def _check_rule(format_: BlockFormat, attribute: object, rule: ScaleRule) -> None:
    if rule is not ScaleRule.NEAREST and format_.scale.mantissa_bits:
        raise ArgumentError(
            f"`rule` (={rule.value!r}) chooses a power of two, and `scale` (={format_.scale}) has a mantissa: "
            "choose 'nearest'"
        )


def _check_levels(format_: BlockFormat, attribute: object, tensor_scale: bool) -> None:
    if tensor_scale and format_.micro is not None:
        raise ArgumentError("`tensor_scale` (=True) and `micro` are two second levels of scales; choose one")


@attrs.frozen
class BlockFormat:
    """A block format: `size` elements along the last axis share a scale.

    An element ``p`` of a block with scale ``s`` stands for ``s * p``; with micro-exponents ``u``, one for each
    `micro_size` elements, for ``s * u * p``; with a tensor scale ``t`` for ``t * s * p``. How ``s`` is chosen says
    `ScaleRule`; ``t = max(max |x|, 2 ** -100) / (scale.max * element.max)``; a micro-exponent is that of its group's
    largest absolute value, rounded down, relative to the scale.

    Corner cases: a block with a NaN or an infinity is NaN altogether, with a tensor scale the whole tensor. A block of
    zeros is zeros: its scale is the smallest above zero that the scale format has, and so is every scale that would
    be smaller. Because of the floor of ``t``, which keeps scales within float32, a tensor below ``2 ** -100`` loses
    bits: of NVFP4, what is below ``2 ** -123`` becomes zero. Scales beyond the largest of their format are the largest.
    Elements beyond the range saturate, and `cast` gives the largest number of the dtype where theirs is beyond it. A
    last block that is not full counts as filled up with zeros.

    Args:
        name: what it is called.
        element: format of the elements.
        scale: format of the scales.
        size: number of elements in a block.
        rule: how scales are chosen, a `ScaleRule` or its name. Default: "floor".
        micro: format of micro-exponents. Default: None, no such level.
        micro_size: number of elements that share a micro-exponent. Default: 2.
        tensor_scale: whether there is a float32 scale for the whole tensor. Default: False.

    Raises:
        ArgumentTypeError: an argument is of another kind than stated.
        ArgumentError: a size is out of range, `rule` does not fit the scales, or there are three levels of them.

    Source: Open Compute Project, "OCP Microscaling Formats (MX) Specification", version 1.0, sections 5 and 6.3.
        Micro-exponents: Rouhani et al., 2023, https://arxiv.org/abs/2302.08007.
        Tensor scales: NVIDIA, 2025, https://arxiv.org/abs/2509.25149, appendix B.

    Examples:
        >>> from brevq.core.formats.catalogue import E8M0, FP4_E2M1
        >>> mxfp4 = BlockFormat("mxfp4", FP4_E2M1, E8M0, 32)
        >>> mxfp4.cast(torch.tensor([0.3, -7.9, 1.2, 5.1]))
        tensor([ 0.5000, -6.0000,  1.0000,  6.0000])
        >>> scale, element, *_ = mxfp4.encode(torch.tensor([0.3, -7.9]))
        >>> scale, element
        (tensor([127]), tensor([ 1, 15]))
        >>> print(mxfp4, mxfp4.bits_per_element)
        mxfp4 4.25
    """

    name: str = attrs.field(validator=check_name)
    element: NumberFormat = attrs.field(repr=str, validator=_check_element)
    scale: FloatFormat = attrs.field(repr=str, validator=_check_scale)
    size: int = attrs.field(validator=_check_size)
    rule: ScaleRule = attrs.field(
        default=ScaleRule.FLOOR, converter=_rule, validator=_check_rule, repr=lambda rule: rule.value, kw_only=True
    )
    micro: FloatFormat | None = attrs.field(
        default=None, repr=str, kw_only=True, validator=attrs.validators.optional(_check_scale)
    )
    micro_size: int = attrs.field(kw_only=True, validator=_check_micro_size)
    tensor_scale: bool = attrs.field(default=False, kw_only=True, validator=[check_flag, _check_levels])

    @micro_size.default
    def _default_micro_size(self) -> int:
        return self.size if self.micro is None else 2

    @property
    def group_size(self) -> int:
        """Number of elements with a scale of their own, once all levels are multiplied."""
        return self.micro_size

    @property
    def bits_per_element(self) -> float:
        """Bits that an element takes, with its part of the scales of blocks and groups."""
        micro = 0 if self.micro is None else self.micro.bits / self.micro_size
        return self.element.bits + self.scale.bits / self.size + micro

    @property
    def target(self) -> float:
        """The number of the element format on which the largest absolute value of a block falls, before rounding."""
        to_max = self.rule in (ScaleRule.FIT, ScaleRule.NEAREST)
        return self.element.max if to_max else 2.0**self.element.max_exponent

    def with_rule(self, rule: ScaleRule | str) -> BlockFormat:
        """The same elements and scales, chosen by another rule, which becomes part of the name.

        Args:
            rule: a `ScaleRule` or its name.

        Raises:
            ArgumentError: there is no such rule.
        """
        chosen = _rule(rule)
        return attrs.evolve(self, name=f"{self.name}_{chosen.value}", rule=chosen)

    def scale_of(self, amax: Tensor) -> Tensor:
        """The scales that groups of elements get: all levels multiplied.

        The gradient is that of ``amax / target``, within the range of the scales.

        Args:
            amax: largest absolute values of groups of `group_size` elements in a row, ``(..., groups, 1)``.

        Returns:
            Positive float32 scales in the shape of `amax`, or NaN.
        """
        scale, finer, tensor_scale = self._levels(amax)
        scale = scale if tensor_scale is None else scale * tensor_scale
        return scale if finer is None else scale * finer

    def cast(self, x: Tensor) -> Tensor:
        """The nearest numbers to `x`, ``(..., n)``, given the scales that the rule chooses; in the dtype of `x`.

        Raises:
            ArgumentTypeError: `x` is not a floating-point tensor.
            ArgumentError: `x` has no axis.
        """
        groups = self._split(x)
        scale = self.scale_of(groups.abs().amax(-1, keepdim=True))
        end = torch.finfo(x.dtype).max
        return self._join((self.element.cast(groups / scale) * scale).clamp(-end, end), x.shape[-1]).to(x.dtype)

    def encode(self, x: Tensor) -> BlockCodes:
        """The bit patterns of `x`, ``(..., n)``: of the scales, the elements, and what else the format has.

        Raises:
            ArgumentTypeError: `x` is not a floating-point tensor.
            ArgumentError: `x` has no axis, or a block has a NaN or an infinity, and the elements or the scales have
                no code for NaN.
        """
        groups = self._split(x)
        scale, micro, tensor_scale = self._levels(groups.abs().amax(-1, keepdim=True))
        whole = scale if tensor_scale is None else scale * tensor_scale
        element = self.element.encode(groups / (whole if micro is None else whole * micro))
        first_of_block = scale[..., :: self.size // self.micro_size, 0]
        return BlockCodes(
            self.scale.encode(first_of_block),
            self._join(element, x.shape[-1]),
            None if micro is None or self.micro is None else self.micro.encode(micro[..., 0]),
            tensor_scale,
        )

    def decode(
        self, scale: Tensor, element: Tensor, micro: Tensor | None = None, tensor_scale: Tensor | None = None
    ) -> Tensor:
        """The numbers that bit patterns stand for, as float64, in the shape of `element`: the inverse of `encode`.

        Args:
            scale: bit patterns of the scales, ``(..., blocks)``.
            element: bit patterns of the elements, ``(..., n)``.
            micro: bit patterns of the micro-exponents, ``(..., groups)``, where the format has them.
            tensor_scale: scale of the whole tensor, where the format has one.

        Raises:
            ArgumentError: a code is out of range, or a level of scales is missing, or one too many, or there is no
                axis.
        """
        self._check_axis(element)
        for name, given, wanted in (
            ("micro", micro, self.micro is not None),
            ("tensor_scale", tensor_scale, self.tensor_scale),
        ):
            if (given is not None) != wanted:
                raise ArgumentError(f"codes of {self} are decoded {'with' if wanted else 'without'} `{name}`")
        scales = self._each(self.scale.decode(scale), self.size, element.shape[-1])
        if tensor_scale is not None:
            scales = (scales.to(tensor_scale.dtype) * tensor_scale).double()
        if micro is not None and self.micro is not None:
            scales = scales * self._each(self.micro.decode(micro), self.micro_size, element.shape[-1])
        return self.element.decode(element) * scales

    def values(self) -> Tensor:
        """All finite numbers that an element of a block can stand for at scale 1, sorted, each once, as float64.

        With micro-exponents, those at either of them.
        """
        element = self.element.values()
        return element if self.micro is None else torch.unique(torch.outer(self.micro.values(), element))

    def __str__(self) -> str:
        return self.name

    def _levels(self, amax: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """The scales of blocks, one for each group in them, the micro-exponents, and the tensor scale, in float32."""
        # In float64, because in float32 division can round up to the next power of two among the subnormals.
        fine = torch.where(torch.isfinite(amax), amax, torch.nan).double() / self.target
        if self.micro is not None:
            scale = self._rounded(self._of_blocks(fine))
            return scale.float(), cast_ste(self.micro, fine / scale, floor_ste).float(), None
        if self.tensor_scale:
            largest = fine.amax() if fine.numel() else fine.sum()
            tensor_scale = (largest.clamp(TENSOR_FLOOR / self.target, _LARGEST_SCALE) / self.scale.max).float()
            return self._rounded(fine / tensor_scale).float(), None, tensor_scale
        return self._rounded(fine).float(), None, None

    def _rounded(self, scale: Tensor) -> Tensor:
        """Scales as numbers of their format."""
        round_impl = _ROUND.get(self.rule, self._round_even)
        return cast_ste(self.scale, scale, round_impl).clamp(self.scale.smallest, self.scale.max)

    def _round_even(self, mantissa: Tensor) -> Tensor:
        """Mantissas from 1 to 2, those up that the element format would round to 2."""
        return floor_ste(mantissa + 2.0 ** -(self.element.mantissa_bits + 1))

    def _of_blocks(self, fine: Tensor) -> Tensor:
        """The largest of each block's groups, for each of them."""
        count = self.size // self.micro_size
        groups = fine.shape[-2]
        full = F.pad(fine, (0, 0, 0, -groups % count))
        largest = full.reshape(*full.shape[:-2], -(-groups // count), count, 1).amax(-2, keepdim=True)
        return largest.expand(*largest.shape[:-2], count, 1).flatten(-3, -2)[..., :groups, :]

    def _split(self, x: Tensor) -> Tensor:
        """`x` in float32 or float64, in groups, the last one filled up with zeros."""
        if not x.is_floating_point():
            raise ArgumentTypeError(f"{self} takes floating-point tensors, not {x.dtype}")
        self._check_axis(x)
        wide = x if x.dtype == torch.float64 else x.float()
        full = F.pad(wide, (0, -x.shape[-1] % self.group_size))
        return full.reshape(*x.shape[:-1], full.shape[-1] // self.group_size, self.group_size)

    def _check_axis(self, x: Tensor) -> None:
        if x.ndim == 0:
            raise ArgumentError(f"blocks of {self} lie along the last axis, and a tensor of shape () has no axes")

    @staticmethod
    def _join(groups: Tensor, n: int) -> Tensor:
        return groups.flatten(-2)[..., :n]

    @staticmethod
    def _each(scales: Tensor, size: int, n: int) -> Tensor:
        """The scale of each of `n` elements."""
        return scales.repeat_interleave(size, dim=-1)[..., :n]
