"""The benchmark runs: its cases, its measures, the process of the peers, its table and its page."""

import json
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from benchmarks.__main__ import arguments
from benchmarks.case import Bench, Case, Growth, Row
from benchmarks.libraries import LIBRARIES, PEERS, NotOfferedError
from benchmarks.peers import PeerError, Peers
from benchmarks.registry import CASES, GROWTHS, recurrent_training, values, weight
from benchmarks.report import line, lines, one_row, page
from benchmarks.targets import TARGETS, same
from benchmarks.timing import Work, in_turn, ratio, slope
from benchmarks.work import WORK

ROOT = Path(__file__).parents[2]
BENCH = Bench(peers=None, repetitions=2, long_repetitions=1)


@pytest.fixture(scope="module")
def peers():
    """This environment, as that of the peers."""
    with Peers(Path(sys.executable), threads=1) as process:
        yield process


def named(name):
    """A case of the registry."""
    return next(case for case in CASES if case.name == name)


def measured(case):
    """Which libraries gave a ratio, and of what measure."""
    rows = BENCH.rows(case)
    assert all(row.value > 0 and row.error is None for row in rows)
    return {(row.library, row.measure) for row in rows}


def test_names_are_unique():
    """A name tells one case."""
    names = [case.name for case in [*CASES, *GROWTHS]]
    assert len(set(names)) == len(names)


def test_cases_name_what_there_is():
    """Work and libraries of all cases exist."""
    assert {case.work for case in [*CASES, *GROWTHS]} == set(WORK)
    assert {name for case in CASES for name in (case.against, *case.libraries)} == set(LIBRARIES)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.label)
def test_targets_are_measured(target):
    """Each line of the table consists of cases, in a quick run too, and has a limit for each of them."""
    assert [False] * len(target.cases) == [named(name).extended for name in target.cases]
    assert len(target.cases) == len(target.must) == len(target.aim)


@pytest.mark.parametrize(
    "name",
    [
        "construct a layer: all",
        "derive, plan and build a recipe",
        "weight int8 per group, 1e3, forward and backward",
        "weight fp8e4m3 per channel, 1e3, forward",
        "activation int8 fixed, 1e3, evaluation",
        "activation int8 learned, 1e3, forward and backward",
        "activation uint8 statistics, 1e3, forward and backward",
        "activation int8 per token dynamic, 1e3, forward and backward",
    ],
)
def test_times(name):
    """What is timed gives a ratio for brevq."""
    assert ("brevq", "time") in measured(named(name))


@pytest.mark.parametrize("cell", ["LSTM", "RNN"])
def test_steps_of_training(cell):
    """A step of a network is timed, and its memory measured, against float."""
    arguments = partial(recurrent_training, 3, 2, 4, 4, cell, "all")
    for measure in ("time", "memory"):
        assert {("brevq", measure)} == measured(Case("step", "trained", arguments, ("brevq",), "float", measure))


def test_modules_are_counted():
    """A float layer is one module."""
    case = named("modules of a layer: all")
    (row,) = BENCH.rows(Case("float", case.work, case.arguments, ("float",), "float", "modules"))
    assert 1 == row.value


def test_saved_bytes():
    """A product saves its factors once, though both are the same; the input alone is not new."""
    x = torch.ones(10, requires_grad=True)
    assert (0, 40, 40) == Work(lambda: x * x, [x], 40).saved()
    assert (40, 80, 40) == Work(lambda: x * (x + 1), [x], 40).saved()


def test_a_clone_saves_nothing():
    """The limit of memory keeps nothing for its backward pass."""
    arguments = partial(weight, (2, 32), "int8 per tensor", True)
    assert 0 == BENCH.rows(Case("saved", "weight", arguments, ("clone",), "clone", "saved"))[0].value


def test_subjects_take_turns():
    """Each repetition asks all subjects, in an order that turns."""
    order = []

    class Subject:
        def __init__(self, name):
            self.name = name

        def seconds(self, calls):
            order.append(self.name)
            return float(calls)

    assert [[1.0] * 3] * 2 == in_turn([Subject("a"), Subject("b")], 3)
    assert list("aabb" + "ab" + "ba" + "ab") == order


def test_ratio_and_spread():
    """Ratios are those of each repetition; the spread leaves out a tenth at either end."""
    ours, theirs = [float(n) for n in range(1, 21)], [2.0] * 20
    assert (5.25, 1.5, 9.0) == ratio(ours, theirs)


def test_exponent_of_growth():
    """A time that grows with the square of the size has the exponent 2."""
    assert pytest.approx(2.0, rel=1e-12) == slope([1, 10, 100], [3.0, 300.0, 30000.0])


def test_growth_is_fitted():
    """Each library gets an exponent over the sizes."""
    growth = Growth("layers", "construct", (1, 4), lambda n: {"network": "layers", "number": n}, ("float", "brevq"))
    rows = BENCH.slopes(growth)
    assert [("float", "1 to 4"), ("brevq", "1 to 4")] == [(row.library, row.against) for row in rows]


def test_without_peers():
    """Libraries of another environment are left out where there is none."""
    for name in PEERS:
        with pytest.raises(NotOfferedError):
            BENCH.make(name, "linear", {"quantized": "weights"})


def test_what_fails_is_a_row():
    """An error of a library is its result."""
    (row,) = BENCH.rows(Case("bad", "weight", partial(weight, (2, 2), "no such", False), ("brevq",), "clone"))
    assert ("brevq", "KeyError: 'no such'", None) == (row.library, row.error, row.value)
    assert "refused: KeyError: 'no such'" in one_row(row.data())


def test_peers_measure_the_same(peers):
    """In the other process work takes its arrays from a file, and is timed, counted and freed by number."""
    remote = peers.make("clone", "weight", weight((2, 32), "int8 per tensor", True))
    assert remote.seconds(3) > 0
    assert (0, 0, 256) == remote.saved()
    remote.drop()
    with pytest.raises(PeerError, match="KeyError"):
        remote.seconds(1)
    assert 1 == peers.make("float", "linear", {"quantized": "weights"}).modules()


def test_peers_say_what_they_do_not_offer(peers):
    """What a library has not is told apart from what fails."""
    with pytest.raises(NotOfferedError):
        peers.make("torch", "weight", weight((2, 32), "fp8e4m3 per tensor", True))
    with pytest.raises(PeerError, match="KeyError: 'no such'"):
        peers.make("no such", "linear", {"quantized": "weights"})


def test_line_of_the_table():
    """A line has ours with marks, the limits, and the other library's; what is missing is a dash."""
    target = same("weights", ["one", "two", "three"], 3, 2)
    rows = [
        Row("one", "brevq", "clone", "time", 2.5).data(),
        Row("two", "brevq", "clone", "time", 25.4).data(),
        Row("one", "Brevitas", "clone", "time", 7.04).data(),
        Row("two", "Brevitas", "clone", "time", error="it can not").data(),
    ]
    assert ("weights", "2.50; 25!; —", "3", "2", "7.0; refused; —") == line(target, rows)


def test_lines_without_results_are_left_out():
    """The table has the lines that something was measured for."""
    assert [] == lines([])


def test_page_is_that_of_its_results():
    """The page of the documentation is written from the results beside it."""
    result = json.loads((ROOT / "docs/performance.json").read_text(encoding="utf-8"))
    assert (ROOT / "docs/performance.rst").read_text(encoding="utf-8") == page(result)


@pytest.mark.parametrize(
    ("given", "said"), [(["--only", "typo"], "no case has 'typo'"), (["--repetitions", "0"], "at least 1, not 0")]
)
def test_arguments_that_measure_nothing(given, said, capsys, monkeypatch):
    """They are refused, and say why."""
    monkeypatch.setattr(sys, "argv", ["benchmarks", *given])
    with pytest.raises(SystemExit):
        arguments()
    assert said in capsys.readouterr().err


def test_arrays_are_the_same_in_each_run():
    """Two runs measure the same numbers."""
    assert torch.equal(values((4, 4)), values((4, 4)))
