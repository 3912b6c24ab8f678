"""The process that the libraries of another environment run in: it makes and measures what it is told to, line by line.

A request is a line of JSON on standard input, an answer one on what was standard output; `peers` is the other end. What
libraries print goes to standard error.

- ``{"make": [number, library, work, path]}``, the arguments of the work being in a file of `torch.save`;
- ``{"measure": [number, name, arguments]}``, where `name` is a method of `timing.Work`;
- ``{"drop": [number]}``;
- ``{"versions": names}``.

The answer is ``{"result": ...}``, ``{"not offered": true}`` or ``{"error": text}``.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from importlib.metadata import distributions, version
from typing import Any, TextIO

import torch

from benchmarks.libraries import NotOfferedError, library
from benchmarks.timing import Work
from benchmarks.work import WORK


class Peer:
    """What was made, by number."""

    def __init__(self) -> None:
        self.made: dict[int, Work] = {}

    def make(self, number: int, name: str, work: str, path: str) -> None:
        self.made[number] = WORK[work](library(name), **torch.load(path, weights_only=True))

    def measure(self, number: int, name: str, arguments: list[Any]) -> Any:
        return getattr(self.made[number], name)(*arguments)

    def drop(self, number: int) -> None:
        self.made.pop(number, None)
        torch.compiler.reset()

    def versions(self, *names: str) -> dict[str, str]:
        there = {distribution.name.lower() for distribution in distributions()}
        return {name: version(name) for name in names if name.lower() in there}

    def answer(self, request: dict[str, list[Any]]) -> dict[str, Any]:
        """What a request leads to."""
        ((verb, arguments),) = request.items()
        try:
            return {"result": getattr(self, verb)(*arguments)}
        except NotOfferedError:
            return {"not offered": True}
        except Exception as error:  # noqa: BLE001  # whatever another library raises is part of the result
            return {"error": f"{type(error).__name__}: {error}"[:300]}


def serve(requests: TextIO, answers: TextIO) -> None:
    """Answer until there are no more requests."""
    peer = Peer()
    for line in requests:
        print(json.dumps(peer.answer(json.loads(line))), file=answers, flush=True)


def main(threads: int) -> None:
    """Serve standard input."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(threads)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    serve(sys.stdin, answers)


if __name__ == "__main__":
    main(int(sys.argv[1]))
