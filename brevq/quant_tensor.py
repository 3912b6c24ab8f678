"""A tensor that knows its grid: its values together with scale, zero-point and bit width."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from brevq.core.formats import NumberFormat
from brevq.core.function_wrapper import Granularity
from brevq.errors import ArgumentError

# What may be off a whole code before a value counts as off the grid: rounding of value / scale in float32, and of
# values that are kept in half precision.
_TOLERANCE = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}
_TOLERANCE_FLOAT32 = 2.0**-20


@attrs.define(eq=False, repr=False)
class QuantTensor:
    """A quantized tensor: ``value = (codes - zero_point) * scale``.

    Torch functions and arithmetic accept it as they accept a tensor, and work on its value: what comes back is a
    plain tensor. Attributes that it lacks are those of its value.

    Args:
        value: the dequantized values, of any shape.
        scale: the step, in the unit of the values; broadcasts to them.
        zero_point: the code of zero; broadcasts to the values.
        bit_width: number of bits, shape `()`.
        signed: whether the grid has negative codes.
        float_format: the format of the codes, where they are bit patterns of one. Default: None, integers.
        granularity: which values share a scale, where the scale does not broadcast to them as it is. Default: None.

    Examples:
        >>> scale, zero_point, bit_width = torch.tensor(0.5), torch.tensor(0.0), torch.tensor(4.0)
        >>> x = QuantTensor(torch.tensor([1.5, -2.0]), scale, zero_point, bit_width, signed=True)
        >>> x.int()
        tensor([ 3, -4], dtype=torch.int8)
        >>> torch.relu(x) + x
        tensor([ 3., -2.])
    """

    value: Tensor
    scale: Tensor
    zero_point: Tensor
    bit_width: Tensor
    signed: bool
    float_format: NumberFormat | None = None
    granularity: Granularity | None = None

    def int(self) -> Tensor:
        """The codes, in the smallest torch dtype that holds the grid; of a floating-point format the bit patterns.

        Returns:
            A tensor of the shape of the values: int8, int16, int32 or int64 when signed, else uint8, int16, int32
            or int64. Bit patterns of floating-point formats are uint8 up to 8 bits, else int32.

        Raises:
            ArgumentError: the values do not lie on the grid.
        """
        codes = self._codes()
        if self.float_format is not None:
            patterns = self._join(self.float_format.encode(codes))
            return patterns.to(torch.uint8 if self.float_format.bits <= 8 else torch.int32)
        if not self.is_valid:
            raise ArgumentError(
                f"the values of this QuantTensor do not lie on its grid of {int(self.bit_width)} bits "
                "with the given scale, so they have no codes: quantize them first"
            )
        return self._join(codes).clamp(*self._limits()).to(self._code_dtype())

    @property
    def is_valid(self) -> bool:
        """Whether all values lie on the grid: whole codes, within the range that the bit width allows."""
        exact, codes = self._exact(), self._codes()
        slack = _TOLERANCE.get(self.value.dtype, _TOLERANCE_FLOAT32) * (codes - self.zero_point).abs()
        least = self.float_format.step(codes) if self.float_format else torch.ones_like(codes)
        low, high = self._limits()
        on_grid = (exact - codes).abs() <= torch.maximum(slack, _TOLERANCE_FLOAT32 * least)
        # Of 32 bits, float32 rounds the last code up.
        # What fills a last group up is no value.
        return bool(self._join(on_grid & (codes >= low) & (codes <= high + slack)).all())

    def detach(self) -> QuantTensor:
        """The same without gradients."""
        return self._map(torch.Tensor.detach)

    def to(self, *args: Any, **kwargs: Any) -> QuantTensor:
        """The same with its value converted as by `Tensor.to`; the grid moves to its device and keeps its dtype."""
        value = self.value.to(*args, **kwargs)
        return attrs.evolve(self._map(lambda part: part.to(value.device)), value=value)

    def cpu(self) -> QuantTensor:
        """The same on the CPU."""
        return self._map(torch.Tensor.cpu)

    def clone(self) -> QuantTensor:
        """A copy, with gradients."""
        return self._map(torch.Tensor.clone)

    def contiguous(self) -> QuantTensor:
        """The same with its value in contiguous memory."""
        return attrs.evolve(self, value=self.value.contiguous())

    def _map(self, function: Callable[[Tensor], Tensor]) -> QuantTensor:
        grid: dict[str, Any] = {
            name: function(getattr(self, name)) for name in ("value", "scale", "zero_point", "bit_width")
        }
        return attrs.evolve(self, **grid)

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
        return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if self.signed else (0, 2**bits - 1)

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
        """Any torch function works on the values."""
        args, kwargs = pytree.tree_map_only(cls, lambda x: x.value, (args, dict(kwargs or {})))
        return func(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "value":
            raise AttributeError(name)
        if not hasattr(self.value, name):
            raise AttributeError(f"neither QuantTensor nor its value has an attribute {name!r}")
        return getattr(self.value, name)

    def __repr__(self) -> str:
        sign = "signed" if self.signed else "unsigned"
        bits = "?" if self.bit_width.is_meta else int(self.bit_width)
        return f"QuantTensor({self.value!r}, {sign}, {bits} bits, scale={self.scale!r}, zero_point={self.zero_point!r})"

    def __len__(self) -> int:  # type: ignore[valid-type]  # `int` is a method of this class
        return len(self.value)

    def __bool__(self) -> bool:
        return bool(self.value)

    def __float__(self) -> float:
        return float(self.value)

    def __getitem__(self, index: Any) -> Tensor:
        return self.value[index]

    def __neg__(self) -> Tensor:
        return -self.value

    def __add__(self, other: Any) -> Tensor:
        return torch.add(self.value, plain(other))

    def __sub__(self, other: Any) -> Tensor:
        return torch.sub(self.value, plain(other))

    def __mul__(self, other: Any) -> Tensor:
        return torch.mul(self.value, plain(other))

    def __truediv__(self, other: Any) -> Tensor:
        return torch.div(self.value, plain(other))

    def __matmul__(self, other: Any) -> Tensor:
        return torch.matmul(self.value, plain(other))

    def __pow__(self, other: Any) -> Tensor:
        return torch.pow(self.value, plain(other))

    def __mod__(self, other: Any) -> Tensor:
        return torch.remainder(self.value, plain(other))

    def __abs__(self) -> Tensor:
        return self.value.abs()

    def __eq__(self, other: object) -> Tensor:  # type: ignore[override]  # element by element, as tensors do
        return torch.eq(self.value, plain(other))

    def __ne__(self, other: object) -> Tensor:  # type: ignore[override]  # as above
        return torch.ne(self.value, plain(other))

    def __lt__(self, other: Any) -> Tensor:
        return torch.lt(self.value, plain(other))

    def __le__(self, other: Any) -> Tensor:
        return torch.le(self.value, plain(other))

    def __gt__(self, other: Any) -> Tensor:
        return torch.gt(self.value, plain(other))

    def __ge__(self, other: Any) -> Tensor:
        return torch.ge(self.value, plain(other))

    def __hash__(self) -> int:  # type: ignore[valid-type]  # `int` is a method of this class
        return id(self)

    def __rpow__(self, other: Any) -> Tensor:
        return torch.pow(other, self.value)

    def __radd__(self, other: Any) -> Tensor:
        return torch.add(self.value, other)

    def __rsub__(self, other: Any) -> Tensor:
        return torch.rsub(self.value, other)

    def __rmul__(self, other: Any) -> Tensor:
        return torch.mul(self.value, other)

    def __rtruediv__(self, other: Any) -> Tensor:
        result: Tensor = other / self.value
        return result


def plain(x: Any) -> Any:
    """The value of a `QuantTensor`; anything else as it is.

    Args:
        x: anything.

    Examples:
        >>> plain(3)
        3
    """
    return x.value if isinstance(x, QuantTensor) else x
