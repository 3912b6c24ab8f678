"""A tensor that knows its grid: its values together with scale, zero-point and bit width."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeAlias

import attrs
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from brevq.core.formats import IntFormat, NumberFormat
from brevq.core.function_wrapper import Granularity
from brevq.errors import ArgumentError, ArgumentTypeError
from brevq.quant_tensor.operators import Operators
from brevq.quant_tensor.producer import derived

# What may be off a whole code before a value counts as off the grid: rounding of value / scale in float32, and of
# values that are kept in half precision.
_TOLERANCE = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}
_TOLERANCE_FLOAT32 = 2.0**-20
# Sums in float32 are off by some millionths of the largest sum that there can be; a quarter of a code is still told.
_TOLERANCE_SUM, _MOST = 2.0**-26, 0.25

_PARTS = ("value", "scale", "zero_point", "bit_width")
_KIND = ("signed", "float_format", "granularity", "narrow", "zero", "producer")

# What torch calls the first argument of a function, where it is given by name.
_FIRST = ("input", "tensors")
_OUT = (
    "`out` of `{function}` is a QuantTensor, whose values would leave its grid: "
    "use what the function returns, or write into its values with out=x.value"
)


class Zero(enum.Enum):
    """Where zero lies on a grid of integers."""

    AT_ZERO = "code 0 stands for zero, whatever the data"
    SHIFTED = "the zero-point is a code, and stands for zero"
    BETWEEN = "the zero-point is not rounded: zero lies between two codes"
    NO_CODE = "the codes are -1 and 1"


Rule: TypeAlias = Callable[[Callable[..., Any], tuple[Any, ...], Mapping[str, Any]], Any]

#: What functions of torch, by name, make of quantized tensors where that is exact; `NotImplemented` where it is not.
RULES: dict[str, Rule] = {}


def exact(names: str) -> Callable[[Rule], Rule]:
    """Register the decorated rule.

    Args:
        names: the functions that it is for, separated by spaces.
    """

    def register(rule: Rule) -> Rule:
        RULES.update(dict.fromkeys(names.split(), rule))
        return rule

    return register


@attrs.define(eq=False, repr=False)
class QuantTensor(Operators):
    """A quantized tensor: ``value = (codes - zero_point) * scale``.

    Torch functions, methods and arithmetic accept it as they accept a tensor. Those that are exact on the codes (moving
    values, pooling by maximum, sums and products of integers) return a `QuantTensor` again, with the scale and the
    bit width of the result; all others work on its value, and return a plain tensor. Attributes that it lacks are
    those of its value.

    It never changes in place and leaves its grid: `x += y` makes a new tensor, functions with ``inplace=True`` return
    one and leave `x` as it is, and methods such as `add_` are refused. It is no `torch.Tensor` to `isinstance`.

    Args:
        value: the dequantized values, of any shape.
        scale: the step, in the unit of the values; broadcasts to them.
        zero_point: the code of zero; broadcasts to the values.
        bit_width: number of bits, shape `()`.
        signed: whether the grid has negative codes.
        float_format: the format of the codes, where they are bit patterns of one. Default: None, integers.
        granularity: which values share a scale, where the scale does not broadcast to them as it is. Default: None.
        narrow: whether the range gives up one code. Default: False.
        zero: where zero lies. Default: on the code that the zero-point says.
        producer: the quantizer or layer that it comes from, for messages; not kept in copies. Default: None.

    Examples:
        >>> scale, zero_point, bit_width = torch.tensor(0.5), torch.tensor(0.0), torch.tensor(4.0)
        >>> x = QuantTensor(torch.tensor([1.5, -2.0]), scale, zero_point, bit_width, signed=True)
        >>> x.int()
        tensor([ 3, -4], dtype=torch.int8)
        >>> (x + x).int(), (x + x).bit_width
        (tensor([ 6, -8], dtype=torch.int8), tensor(5.))
        >>> x.exp()
        tensor([4.4817, 0.1353])
    """

    value: Tensor
    scale: Tensor
    zero_point: Tensor
    bit_width: Tensor
    signed: bool
    float_format: NumberFormat | None = None
    granularity: Granularity | None = None
    narrow: bool = attrs.field(default=False, kw_only=True)
    zero: Zero = attrs.field(default=Zero.SHIFTED, kw_only=True)
    producer: Any = attrs.field(default=None, kw_only=True)

    @property
    def format(self) -> NumberFormat:
        """The format of the codes: `IntFormat` or `FloatFormat`.

        Raises:
            ArgumentError: they are integers of more than 32 bits, as accumulators may be.
        """
        return self.float_format or IntFormat(int(self.bit_width), signed=self.signed, narrow=self.narrow)

    def int(self) -> Tensor:
        """The codes, in the smallest torch dtype that holds the grid; of a floating-point format the bit patterns.

        They are read off the values, and as exact as those: float32 counts to 2**24, float16 to 2**11 and bfloat16 to
        2**8. Beyond, as in long sums, a code is the one nearest to what torch computed.

        Returns:
            A tensor of the shape of the values: int8, int16, int32 or int64 when signed, else uint8, int16, int32
            or int64. Bit patterns of floating-point formats are uint8 up to 8 bits, else int32.

        Raises:
            ArgumentError: the values do not lie on the grid.
        """
        codes = self._codes()
        if self.float_format is not None:
            patterns = self._join(self.float_format.encode(codes.contiguous()))
            return patterns.to(torch.uint8 if self.float_format.bits <= 8 else torch.int32)
        if not self.is_valid:
            raise ArgumentError(
                f"the values of this QuantTensor do not lie on its grid of {int(self.bit_width)} bits "
                f"with the given scale, so they have no codes: quantize them first{self._hint()}"
            )
        return self._join(codes).clamp(*self._limits()).to(self._code_dtype())

    def _hint(self) -> str:
        """What else may be wrong with values off the grid."""
        whole = round(1 - math.log2(torch.finfo(self.value.dtype).eps))
        if self.bit_width <= whole:
            return ""
        return f", or compute such sums in float64, as {self.value.dtype} holds integers of {whole} bits at most"

    @property
    def is_valid(self) -> bool:
        """Whether all values lie on the grid: whole codes, within the range that the bit width allows."""
        exact, codes = self._exact(), self._codes()
        slack = _TOLERANCE.get(self.value.dtype, _TOLERANCE_FLOAT32) * (codes - self.zero_point).abs()
        low, high = self._limits()
        sums = 0.0 if self.float_format else min(_TOLERANCE_SUM * (high - low), _MOST)
        least = self.float_format.step(codes) if self.float_format else torch.ones_like(codes)
        on_grid = (exact - codes).abs() <= torch.maximum(slack, _TOLERANCE_FLOAT32 * least + sums)
        # Beyond 24 bits, float32 rounds the outermost codes away from zero.
        # What fills a last group up is no value.
        within = (codes >= low - slack) & (codes <= high + slack) & (codes.abs() >= int(self.zero is Zero.NO_CODE))
        return bool(self._join(on_grid & within).all())

    @property
    def uniform(self) -> bool:
        """Whether all values share one scale and one zero-point."""
        return self.scale.numel() == 1 and self.zero_point.numel() == 1

    def spread(self) -> tuple[Tensor, Tensor]:
        """Scale and zero-point as they broadcast to the values: of groups and blocks, one for each value."""
        if self.uniform:
            # Not `reshape` where there is nothing to do: two tensors of one grid have the very same scale.
            return _scalar(self.scale), _scalar(self.zero_point)
        granularity = self.granularity
        if granularity is None or not granularity.regroups:
            return self.scale, self.zero_point
        laid_out, shape = granularity.split(self.value).shape, self.value.shape
        return (
            granularity.join(self.scale.expand(laid_out), shape),
            granularity.join(self.zero_point.expand(laid_out), shape),
        )

    def keep(self, value: Tensor) -> QuantTensor:
        """Other values on the same grid.

        Args:
            value: the values, of the same shape or one that it broadcasts to.
        """
        if value.shape != self.value.shape:
            return self.regrid(value, *self.spread())
        return self._rebuilt(value, self.scale, self.zero_point, self.granularity, self.producer)

    def regrid(self, value: Tensor, scale: Tensor, zero_point: Tensor, function: str | None = None) -> QuantTensor:
        """Other values with the same codes to choose from, and a grid that broadcasts to them.

        Args:
            value: the values, of any shape.
            scale: the scale.
            zero_point: the zero-point.
            function: name of the function that made another grid of this one. Default: it is the same grid.
        """
        producer = self.producer if function is None else derived(function, self.producer)
        return self._rebuilt(value, scale, zero_point, None, producer)

    def _rebuilt(
        self, value: Tensor, scale: Tensor, zero_point: Tensor, granularity: Granularity | None, producer: Any
    ) -> QuantTensor:
        return QuantTensor(
            value,
            scale,
            zero_point,
            self.bit_width,
            self.signed,
            self.float_format,
            granularity,
            narrow=self.narrow,
            zero=self.zero,
            producer=producer,
        )

    def moved(self, value: Tensor) -> QuantTensor:
        """The same with its value on another device or of another dtype; the grid follows and keeps its dtype.

        Args:
            value: the value there.
        """
        moved = [getattr(self, name).to(value.device) for name in _PARTS[1:]]
        return attrs.evolve(self, value=value, **dict(zip(_PARTS[1:], moved, strict=True)))

    def detach(self) -> QuantTensor:
        """The same without gradients."""
        return self._map(Tensor.detach)

    def clone(self) -> QuantTensor:
        """A copy, with gradients."""
        return self._map(Tensor.clone)

    def _map(self, function: Callable[[Tensor], Tensor]) -> QuantTensor:
        parts: dict[str, Any] = {name: function(getattr(self, name)) for name in _PARTS}
        return attrs.evolve(self, **parts)

    def _exact(self) -> Tensor:
        """The values in codes, before rounding, laid out so that scales broadcast to them."""
        value = self.value.detach().double()
        laid_out = value if self.granularity is None else self.granularity.split(value)
        return laid_out / self.scale.detach().double() + self.zero_point.detach().double()

    def _join(self, codes: Tensor) -> Tensor:
        """Codes in the shape of the values."""
        return codes if self.granularity is None else self.granularity.join(codes, self.value.shape)

    def _codes(self) -> Tensor:
        exact = self._exact()
        return torch.round(exact) if self.float_format is None else self.float_format.cast(exact)

    def _limits(self) -> tuple[float, float]:
        if self.float_format is not None:
            return self.float_format.min, self.float_format.max
        bits = int(self.bit_width)
        if bits == 1 and self.signed:
            return -1, 1
        low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if self.signed else (0, 2**bits - 1)
        return (low + (self.narrow and self.signed), high - (self.narrow and not self.signed))

    def _code_dtype(self) -> torch.dtype:
        low, high = self._limits()
        smallest = (torch.int8 if self.signed else torch.uint8, torch.int16, torch.int32)
        for dtype in smallest:
            if torch.iinfo(dtype).min <= low and high <= torch.iinfo(dtype).max:
                return dtype
        return torch.int64

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Functions with a rule keep the grid where the rule can; all others work on the values.

        Raises:
            ArgumentTypeError: the function would write its result into a quantized tensor.
        """
        keywords = dict(kwargs or {})
        if "inplace" in keywords:
            keywords["inplace"] = False
        for name in _FIRST:
            if not args and name in keywords:
                args = (keywords.pop(name),)
        if isinstance(keywords.get("out"), QuantTensor):
            raise ArgumentTypeError(_OUT.format(function=func.__name__))
        rule = RULES.get(getattr(func, "__name__", ""))
        if rule is not None and "out" not in keywords:
            result = rule(func, args, keywords)
            if result is not NotImplemented:
                return result
        return func(*plain_all(args), **plain_all(keywords))

    def call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """What a method of tensors makes of this one.

        Args:
            name: name of the method.
            *args: what it takes.
            **kwargs: likewise.
        """
        return QuantTensor.__torch_function__(getattr(Tensor, name), (), (self, *args), kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in _PARTS:
            raise AttributeError(name)
        if callable(getattr(Tensor, name, None)):
            return partial(self.call, name)
        if not hasattr(self.value, name):
            raise AttributeError(f"neither QuantTensor nor its value has an attribute {name!r}")
        return getattr(self.value, name)

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in (*_PARTS, *_KIND[:-1])}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, part in state.items():
            setattr(self, name, part)
        self.producer = None

    def __repr__(self) -> str:
        sign = "signed" if self.signed else "unsigned"
        bits = "?" if self.bit_width.is_meta or self.bit_width.dim() else int(self.bit_width)
        grid = str(self.float_format) if self.float_format else f"{sign}, {bits} bits"
        return f"QuantTensor({self.value!r}, {grid}, scale={self.scale!r}, zero_point={self.zero_point!r})"

    def _repr_html_(self) -> str:
        from brevq.quant_tensor.page import page_of  # noqa: PLC0415  # it imports this module's users

        return page_of(self)


def _scalar(part: Tensor) -> Tensor:
    return part if part.dim() == 0 else part.reshape(())


def plain(x: Any) -> Any:
    """The value of a `QuantTensor`; anything else as it is.

    Args:
        x: anything.

    Examples:
        >>> plain(3)
        3
    """
    return x.value if isinstance(x, QuantTensor) else x


def plain_all(tree: Any) -> Any:
    """The values of all quantized tensors in a tuple, list or dictionary of anything.

    Args:
        tree: arguments of a function.

    Examples:
        >>> plain_all((3, [None]))
        (3, [None])
    """
    return pytree.tree_map(plain, tree, is_leaf=lambda leaf: isinstance(leaf, QuantTensor))


def _flatten(x: QuantTensor) -> tuple[list[Any], tuple[Any, ...]]:
    return [getattr(x, name) for name in _PARTS], tuple(getattr(x, name) for name in _KIND)


def _unflatten(parts: Any, kind: tuple[Any, ...]) -> QuantTensor:
    value, scale, zero_point, bit_width = parts
    signed, float_format, granularity, narrow, zero, producer = kind
    return QuantTensor(
        value,
        scale,
        zero_point,
        bit_width,
        signed,
        float_format,
        granularity,
        narrow=narrow,
        zero=zero,
        producer=producer,
    )


pytree.register_pytree_node(QuantTensor, _flatten, _unflatten, serialized_type_name="brevq.quant_tensor.QuantTensor")
