"""A case, as data, and its measurement."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch

from benchmarks.libraries import PEERS, NotOfferedError, library
from benchmarks.peers import Peers, Remote
from benchmarks.timing import Subject, in_turn, ratio, slope
from benchmarks.work import WORK


@dataclass(frozen=True)
class Case:
    """One line of the benchmark: what several libraries do with the same arguments.

    Args:
        name: unique, and what ``--only`` looks in.
        work: a name of `WORK`.
        arguments: a function, as arrays are made when they are needed.
        libraries: names of those that are measured.
        against: the name of the one that they are compared with.
        measure: *time*, in turn; *modules*, a number; *saved*, bytes for the backward pass per byte of the input,
            without what exists anyway, or *all saved*, with it; *memory*, saved bytes without what exists anyway, over
            those of `against`.
        long: takes seconds, and is repeated less in a quick run.
        extended: left out of a quick run.
    """

    name: str
    work: str
    arguments: Callable[[], dict[str, Any]]
    libraries: tuple[str, ...]
    against: str
    measure: str = "time"
    long: bool = False
    extended: bool = False


@dataclass(frozen=True)
class Growth:
    """How the time of a case grows with a size: the exponent of its power law.

    Args:
        name: unique.
        work: a name of `WORK`.
        sizes: what is varied.
        arguments: from a size to the arguments of the work.
        libraries: names of those that are measured.
    """

    name: str
    work: str
    sizes: tuple[int, ...]
    arguments: Callable[[int], dict[str, Any]]
    libraries: tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """A result: a ratio with its spread, or what went wrong."""

    case: str
    library: str
    against: str
    measure: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    repetitions: int = 1
    error: str | None = None

    def data(self) -> dict[str, Any]:
        """What is written to a file."""
        return {name: value for name, value in asdict(self).items() if value is not None}


class Bench:
    """Measures cases.

    Args:
        peers: the process of the libraries of another environment; None leaves them out.
        repetitions: of short cases, and of long ones.
    """

    def __init__(self, peers: Peers | None, repetitions: int = 20, long_repetitions: int = 20) -> None:
        self.peers, self.repetitions, self.long_repetitions = peers, repetitions, long_repetitions

    def make(self, name: str, work: str, arguments: Mapping[str, Any]) -> Subject:
        """A library at work, here or in the process of the peers; called once, as that is when compilers run.

        Raises:
            NotOfferedError: the library, or its environment, is not there.
        """
        if name not in PEERS:
            own = {key: value.clone() if isinstance(value, torch.Tensor) else value for key, value in arguments.items()}
            return WORK[work](library(name), **own)
        if self.peers is None:
            raise NotOfferedError
        return self.peers.make(name, work, arguments)

    @contextlib.contextmanager
    def subjects(self, case: Case) -> Iterator[tuple[dict[str, Subject], dict[str, str]]]:
        """All libraries of a case that work, by name, the baseline first, and the errors of those that do not."""
        arguments, subjects, errors = case.arguments(), {}, {}
        for name in dict.fromkeys((case.against, *case.libraries)):
            try:
                subject = self.make(name, case.work, arguments)
                subject.seconds(1)
            except NotOfferedError:
                continue
            except Exception as error:  # noqa: BLE001  # that a library fails is a result
                errors[name] = str(error) if name in PEERS else f"{type(error).__name__}: {error}"[:300]
            else:
                subjects[name] = subject
        try:
            yield subjects, errors
        finally:
            for subject in subjects.values():
                if isinstance(subject, Remote):
                    subject.drop()
            torch.compiler.reset()

    def rows(self, case: Case) -> list[Row]:
        """The results of a case, one for each library that is not the baseline."""
        with self.subjects(case) as (subjects, errors):
            failed = [Row(case.name, name, case.against, case.measure, error=text) for name, text in errors.items()]
            if case.against not in subjects:
                return failed
            found = MEASURES[case.measure](self, case, subjects)
            return [row for row in found if row.library in case.libraries] + failed

    def times(self, case: Case, subjects: dict[str, Subject]) -> list[Row]:
        repetitions = self.long_repetitions if case.long else self.repetitions
        times = dict(zip(subjects, in_turn(list(subjects.values()), repetitions), strict=True))
        return [
            Row(case.name, name, case.against, case.measure, *ratio(found, times[case.against]), repetitions)
            for name, found in times.items()
        ]

    def modules(self, case: Case, subjects: dict[str, Subject]) -> list[Row]:
        return self._exact(case, {name: subject.modules() for name, subject in subjects.items()})

    def saved(self, case: Case, subjects: dict[str, Subject]) -> list[Row]:
        found = {name: subject.saved() for name, subject in subjects.items()}
        return self._exact(case, {name: fresh / size for name, (fresh, _, size) in found.items()})

    def all_saved(self, case: Case, subjects: dict[str, Subject]) -> list[Row]:
        found = {name: subject.saved() for name, subject in subjects.items()}
        return self._exact(case, {name: everything / size for name, (_, everything, size) in found.items()})

    def memory(self, case: Case, subjects: dict[str, Subject]) -> list[Row]:
        found = {name: subject.saved()[0] for name, subject in subjects.items()}
        return self._exact(case, {name: bytes_ / found[case.against] for name, bytes_ in found.items()})

    @staticmethod
    def _exact(case: Case, values: dict[str, float]) -> list[Row]:
        return [Row(case.name, name, case.against, case.measure, value) for name, value in values.items()]

    def slopes(self, growth: Growth) -> list[Row]:
        """The exponents of growth of each library."""
        times: dict[str, list[float]] = {name: [] for name in growth.libraries}
        for size in growth.sizes:
            arguments = partial(growth.arguments, size)
            case = Case(growth.name, growth.work, arguments, growth.libraries, against=growth.libraries[0])
            with self.subjects(case) as (subjects, _):
                found = in_turn(list(subjects.values()), max(1, self.repetitions // 4))
                for name, seconds in zip(subjects, found, strict=True):
                    times[name].append(sorted(seconds)[len(seconds) // 2])
        return [
            Row(growth.name, name, f"{growth.sizes[0]} to {growth.sizes[-1]}", "exponent", slope(growth.sizes, found))
            for name, found in times.items()
            if len(found) == len(growth.sizes)
        ]


MEASURES: dict[str, Callable[[Bench, Case, dict[str, Subject]], list[Row]]] = {
    "time": Bench.times,
    "modules": Bench.modules,
    "saved": Bench.saved,
    "all saved": Bench.all_saved,
    "memory": Bench.memory,
}
