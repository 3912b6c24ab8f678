"""The error of checkpoints."""

from __future__ import annotations

from collections.abc import Iterable

from brevq.errors import BrevqError


class CheckpointError(BrevqError, ValueError):
    """A checkpoint can not be written, or does not fit the model; the message lists all that is wrong."""


def listed(head: str, faults: Iterable[str]) -> CheckpointError:
    r"""The error that lists what is wrong, each under a dash.

    Args:
        head: what could not be done.
        faults: one text each.

    Examples:
        >>> print(listed("It can not be read:", ["One thing.", "Another,\nin two lines."]))
        It can not be read:
        - One thing.
        - Another,
          in two lines.
    """
    return CheckpointError("\n".join([head, *("- " + fault.replace("\n", "\n  ") for fault in faults)]))
