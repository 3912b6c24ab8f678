"""Identity and signs, as modules."""

from __future__ import annotations

import functools
from typing import TypeVar

from torch import Tensor
from torch.nn import Module

from brevq.function import ops_ste

_M = TypeVar("_M", bound=Module)


@functools.cache
def usual(kind: type[_M]) -> _M:
    """The one instance of a component without state that serves wherever none was given.

    Args:
        kind: a class that is built without arguments.

    Examples:
        >>> usual(Identity) is usual(Identity)
        True
    """
    return kind()


class Identity(Module):
    """What comes in goes out.

    Examples:
        >>> import torch
        >>> Identity()(torch.tensor(3.0))
        tensor(3.)
    """

    stateless = True

    def forward(self, x: Tensor) -> Tensor:
        """`x` itself."""
        return x


class BinarySignSte(Module):
    """The sign as -1 or 1, zero counting as positive, with a straight-through gradient.

    Examples:
        >>> import torch
        >>> BinarySignSte()(torch.tensor([-0.1, 0.0]))
        tensor([-1.,  1.])
    """

    stateless = True

    def forward(self, x: Tensor) -> Tensor:
        """The signs of `x`, of any shape."""
        return ops_ste.binary_sign_ste(x)


class TernarySignSte(Module):
    """The sign as -1, 0 or 1, with a straight-through gradient.

    Examples:
        >>> import torch
        >>> TernarySignSte()(torch.tensor([-0.1, 0.0]))
        tensor([-1.,  0.])
    """

    stateless = True

    def forward(self, x: Tensor) -> Tensor:
        """The signs of `x`, of any shape."""
        return ops_ste.ternary_sign_ste(x)


class AbsBinarySignGrad(Module):
    """The absolute value, with gradient 1 at zero.

    Examples:
        >>> import torch
        >>> AbsBinarySignGrad()(torch.tensor([-2.0, 3.0]))
        tensor([2., 3.])
    """

    stateless = True

    def forward(self, x: Tensor) -> Tensor:
        """The absolute values of `x`, of any shape."""
        return ops_ste.abs_binary_sign_grad(x)
