"""What Python's operators and built-in functions make of a quantized tensor: what torch's functions make of it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, NoReturn

import torch
from torch import Tensor

from brevq.errors import ArgumentTypeError

_NO_ASSIGNMENT = (
    "x[...] = y would change a QuantTensor in place, and leave it with values off its grid: "
    "make a new one with torch.where or torch.cat, or change the values alone with x.value[...] = y"
)


class Operators:
    """Operators, in terms of a value and of the methods of tensors."""

    __slots__ = ()

    value: Tensor

    @abstractmethod
    def call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """What a method of tensors makes of this one.

        Args:
            name: name of the method.
            *args: what it takes.
            **kwargs: likewise.
        """

    @property
    def T(self) -> Any:  # noqa: N802  # as tensors have it
        """The transpose."""
        return self.call("permute", *reversed(range(self.value.dim())))

    @property
    def mT(self) -> Any:  # noqa: N802  # as tensors have it
        """The transpose of the last two dimensions."""
        return self.call("transpose", -2, -1)

    @property
    def requires_grad(self) -> bool:
        """Whether the values have gradients."""
        return self.value.requires_grad

    @requires_grad.setter
    def requires_grad(self, requires_grad: bool) -> None:
        """Let the values have gradients, or not."""
        self.value.requires_grad = requires_grad

    def to(self, *args: Any, **kwargs: Any) -> Any:
        """The same with its value converted as by `Tensor.to`; the grid moves to its device and keeps its dtype.

        Args:
            *args: a dtype, a device or a tensor.
            **kwargs: likewise.

        Returns:
            A `QuantTensor`, or a plain tensor if the dtype is none of floating-point numbers.
        """
        return self.call("to", *args, **kwargs)

    def cpu(self) -> Any:
        """The same on the CPU, grid and all."""
        return self.call("to", "cpu")

    def __len__(self) -> int:
        return len(self.value)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.call("unbind", 0))

    def __contains__(self, element: Any) -> bool:
        return bool((self == element).any())

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        array = self.value.numpy()
        converted = array if dtype is None else array.astype(dtype, copy=False)
        return converted.copy() if copy and converted is array else converted

    def __bool__(self) -> bool:
        return bool(self.value)

    def __float__(self) -> float:
        return float(self.value)

    def __int__(self) -> int:
        return int(self.value)

    def __format__(self, spec: str) -> str:
        return format(self.value, spec) if spec else str(self)

    def __getitem__(self, index: Any) -> Any:
        return self.call("__getitem__", index)

    def __setitem__(self, index: Any, value: Any) -> NoReturn:
        raise ArgumentTypeError(_NO_ASSIGNMENT)

    def __neg__(self) -> Any:
        return self.call("neg")

    def __pos__(self) -> Any:
        return self

    def __abs__(self) -> Any:
        return self.call("abs")

    def __add__(self, other: Any) -> Any:
        return self.call("add", other)

    def __radd__(self, other: Any) -> Any:
        return self.call("add", other)

    def __sub__(self, other: Any) -> Any:
        return self.call("sub", other)

    def __rsub__(self, other: Any) -> Any:
        return torch.rsub(self.value, other)

    def __mul__(self, other: Any) -> Any:
        return self.call("mul", other)

    def __rmul__(self, other: Any) -> Any:
        return self.call("mul", other)

    def __truediv__(self, other: Any) -> Any:
        return self.call("div", other)

    def __rtruediv__(self, other: Any) -> Any:
        return other / self.value

    def __floordiv__(self, other: Any) -> Any:
        return self.call("floor_divide", other)

    def __mod__(self, other: Any) -> Any:
        return self.call("remainder", other)

    def __pow__(self, other: Any) -> Any:
        return self.call("pow", other)

    def __rpow__(self, other: Any) -> Any:
        return torch.pow(other, self.value)

    def __matmul__(self, other: Any) -> Any:
        return self.call("matmul", other)

    def __eq__(self, other: object) -> Any:  # element by element, as tensors do
        return self.value == _plain(other)

    def __ne__(self, other: object) -> Any:  # as above
        return self.value != _plain(other)

    def __lt__(self, other: Any) -> Any:
        return self.value < _plain(other)

    def __le__(self, other: Any) -> Any:
        return self.value <= _plain(other)

    def __gt__(self, other: Any) -> Any:
        return self.value > _plain(other)

    def __ge__(self, other: Any) -> Any:
        return self.value >= _plain(other)

    def __hash__(self) -> int:
        return id(self)


def _plain(x: Any) -> Any:
    """The value of a quantized tensor; anything else as it is."""
    return x.value if isinstance(x, Operators) else x
