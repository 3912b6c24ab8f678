"""The libraries of another environment, as subjects that are measured in its process."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from benchmarks.libraries import PEERS, NotOfferedError

ROOT = Path(__file__).parents[1]
#: Where ``make bench-peers`` puts the environment, and what names another.
PYTHON = ROOT / "build" / "peers" / "bin" / "python"
VARIABLE = "BREVQ_PEERS"


class PeerError(Exception):
    """What a library raised in the other process."""


class Remote:
    """A `timing.Work` in the other process."""

    def __init__(self, peers: Peers, number: int) -> None:
        self.peers, self.number = peers, number

    def seconds(self, calls: int) -> float:
        return float(self.peers.ask(measure=[self.number, "seconds", [calls]]))

    def saved(self) -> tuple[int, int, int]:
        fresh, everything, size = self.peers.ask(measure=[self.number, "saved", []])
        return fresh, everything, size

    def modules(self) -> int:
        return int(self.peers.ask(measure=[self.number, "modules", []]))

    def drop(self) -> None:
        """Free what it holds."""
        self.peers.ask(drop=[self.number])


class Peers:
    """The other process, started in a ``with`` statement.

    Args:
        python: the interpreter of its environment.
        threads: of torch in it.
    """

    def __init__(self, python: Path, threads: int) -> None:
        self.command = [str(python), "-m", "benchmarks.peer", str(threads)]
        self.numbers = itertools.count()

    def __enter__(self) -> Peers:
        environment = os.environ | {"OMP_NUM_THREADS": self.command[-1]}
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        # Apart from the terminal: an interrupt from the keyboard is for this process.
        own: dict[str, Any] = {"cwd": ROOT, "env": environment, "start_new_session": True}
        self.process = subprocess.Popen(self.command, **pipes, **own, text=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.process.communicate()

    def ask(self, **request: Any) -> Any:
        """Send a request, and wait for its result.

        Raises:
            NotOfferedError: the library has nothing of the kind.
            PeerError: the library raised something, or the process ended.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps(request), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            raise PeerError(f"the process of the peers ended with {self.process.wait()}")
        answer = json.loads(line)
        if "not offered" in answer:
            raise NotOfferedError
        if "error" in answer:
            raise PeerError(answer["error"])
        return answer["result"]

    def make(self, library: str, work: str, arguments: Mapping[str, Any]) -> Remote:
        """A subject that does `work` with a library, on the same arrays."""
        number = next(self.numbers)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "arguments.pt"
            torch.save(dict(arguments), path)
            self.ask(make=[number, library, work, str(path)])
        return Remote(self, number)

    def versions(self) -> dict[str, str]:
        """Versions of the libraries that are there."""
        found: dict[str, str] = self.ask(versions=list(PEERS))
        return found


def interpreter() -> Path | None:
    """The Python of the peers' environment; None if there is none yet."""
    python = Path(os.environ.get(VARIABLE) or PYTHON)
    return python if python.exists() else None
