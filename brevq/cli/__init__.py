"""The command line: `brevq`, or `python -m brevq`.

Nothing heavy is imported here, so that ``--help`` answers at once and a missing extra is named in one line.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from typing import NoReturn

from brevq.errors import BrevqError, MissingExtraError, require

__all__ = ["MissingExtraError", "main", "require"]


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
        sys.exit(f"Error: {_told(error)}")
    sys.exit(0)


def _told(error: BaseException) -> str:
    """What went wrong; the operating system's errors in one line, without their numbers."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror + (f": {error.filename}" if error.filename else "")
    return str(error).strip() or type(error).__name__


def _survive_narrow_encodings() -> None:
    """Print a question mark for what the terminal's encoding lacks, such as the branches of a wiring tree."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
