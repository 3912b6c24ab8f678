"""Near misses: the name that was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The one of `names` that is most like `name`, or None if none is.

    Underscores and capitals count little: ``bitwidth`` is near ``bit_width``.

    Args:
        name: what was written.
        names: what could have been meant.

    Examples:
        >>> nearest("bitwidth", ["bit_width", "scale"])
        'bit_width'
    """
    plain = {_plain(candidate): candidate for candidate in sorted(names)}
    close = difflib.get_close_matches(_plain(name), plain, n=1, cutoff=0.75)
    return plain[close[0]] if close else None


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """The sentence that offers the nearest of `names`, with a space before it; empty where none is near.

    Args:
        name: what was written.
        names: what could have been meant.

    Examples:
        >>> did_you_mean("bitwidth", ["bit_width"])
        ' Did you mean `bit_width`?'
    """
    near = nearest(name, names)
    return f" Did you mean `{near}`?" if near else ""


def _plain(name: str) -> str:
    return name.replace("_", "").lower()
