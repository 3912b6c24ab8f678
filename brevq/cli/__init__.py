"""The command line: `brevq`, or `python -m brevq`.

Nothing heavy is imported here, so that ``--help`` answers at once and a missing extra is named in one line.
"""

from __future__ import annotations

import importlib.util
import io
import sys
from collections.abc import Sequence
from typing import NoReturn

from brevq.errors import BrevqError

__all__ = ["MissingExtraError", "main", "require"]


class MissingExtraError(BrevqError, ImportError):
    """A package that an optional part of brevq needs is not installed."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line, and exit: 0 for done, 1 for something went wrong, 2 for wrong usage.

    Args:
        arguments: what follows the name of the command. Default: those of the process.

    Raises:
        SystemExit: always, with the exit status.
    """
    _survive_narrow_encodings()
    try:
        require("cli", "click", "rich")
        from brevq.cli.commands import brevq  # noqa: PLC0415  # it needs click, which is an extra

        brevq.main(arguments, prog_name="brevq")
    except (BrevqError, OSError) as error:
        sys.exit(f"Error: {_line(error)}")
    sys.exit(0)


def require(extra: str, *packages: str) -> None:
    """Refuse to go on without the packages of an extra.

    Args:
        extra: name of the extra of brevq that brings them.
        *packages: their import names.

    Raises:
        MissingExtraError: one or more are not installed.

    Examples:
        >>> require("cli", "clik")
        Traceback (most recent call last):
        ...
        brevq.cli.MissingExtraError: clik is not installed: pip install 'brevq[cli]'
    """
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise MissingExtraError(f"{', '.join(missing)} {verb} not installed: pip install 'brevq[{extra}]'")


def _line(error: BaseException) -> str:
    """What went wrong, in one line; the operating system's errors without their numbers."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror + (f": {error.filename}" if error.filename else "")
    return " ".join(str(error).split()) or type(error).__name__


def _survive_narrow_encodings() -> None:
    """Print a question mark for what the terminal's encoding lacks, such as the branches of a wiring tree."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
