"""Progress of the quickstart's trainings, on a terminal and in a log."""

import io

import pytest
import torch
from rich.console import Console

from brevq.cli.quickstart.bench import Bench
from brevq.cli.quickstart.network import float_network, quantized_network
from brevq.cli.quickstart.results import Row, Settings
from injectors import BinaryWeightPerChannel


@pytest.fixture
def bench(easy_digits):
    """Makes a bench that prints to a terminal or to a log."""

    def make(terminal):
        console = Console(file=io.StringIO(), force_terminal=terminal, width=100)
        return Bench(Settings(epochs=12), easy_digits(100), console)

    return make


def test_a_terminal_sees_a_bar(bench):
    """While a network is trained on a terminal, its name and loss stand beside a bar."""
    bench = bench(terminal=True)
    bench.train("W1A8", quantized_network(BinaryWeightPerChannel), 1e-3)
    assert "W1A8, loss " in bench.console.file.getvalue()


def test_a_log_sees_nothing(bench):
    """Where there is no terminal, a training prints nothing."""
    bench = bench(terminal=False)
    bench.train("W1A8", quantized_network(BinaryWeightPerChannel), 1e-3)
    assert "" == bench.console.file.getvalue()


def test_a_row_is_one_line_and_what_was_measured(bench):
    """A network is measured as it comes and after its training, in one line of the log."""
    bench = bench(terminal=False)
    row = bench.row("float", None, float_network().eval(), 1e-3)
    assert Row("float", None, 32, 134_720, 0.5, 1.0) == row
    assert "  float    0.500, after training 1.000\n" == bench.console.file.getvalue()


def test_trainings_do_not_depend_on_their_order(bench):
    """The same network trains to the same weights, whatever was drawn from the random numbers before."""
    bench, weights = bench(terminal=False), []
    for draws in (0, 1):
        torch.manual_seed(0)
        network, _ = float_network(), torch.rand(draws)
        bench.train("float", network, 1e-3)
        weights.append(network[0].weight)
    assert torch.equal(*weights)
