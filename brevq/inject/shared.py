"""Parts that hold no state: built once for equal arguments, and shared by all that need one."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

#: What a component's class declares, True or a method, to say that an instance holds nothing of its own, so that one
#: does for all. Subclasses, which may hold something, declare it themselves.
STATELESS = "stateless"

_SHARED: weakref.WeakValueDictionary[Any, Any] = weakref.WeakValueDictionary()


def is_stateless(part: Any) -> bool:
    """Whether a part says that it holds no state.

    Args:
        part: what a component built.

    Examples:
        >>> class Rounding:
        ...     stateless = True
        >>> is_stateless(Rounding()), is_stateless(4)
        (True, False)
    """
    declared = vars(type(part)).get(STATELESS, False)
    return declared is True or (callable(declared) and declared(part) is True)


def shared(part: Any, arguments: Mapping[str, Any]) -> Any:
    """The part that stands for all that are built like `part`: itself, if it is the first.

    Args:
        part: what a component built; it holds no state.
        arguments: what it was built with: plain values, and parts that are shared themselves.

    Examples:
        >>> class Rounding:
        ...     stateless = True
        >>> first = shared(Rounding(), {})
        >>> shared(Rounding(), {}) is first
        True
    """
    # 1, 1.0 and True are equal, and so are 0.0 and -0.0.
    told = tuple((name, type(content), repr(content), content) for name, content in sorted(arguments.items()))
    try:
        return _SHARED.setdefault((type(part), told), part)
    except TypeError:  # an argument that can not be hashed
        return part
