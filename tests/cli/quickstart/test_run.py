"""The quickstart from beginning to end, with one epoch; its files, and what it prints."""

import json
import subprocess
import sys

import pytest
import torch

from brevq.cli.quickstart import checkpoint
from brevq.cli.quickstart.data import load_digits
from brevq.cli.quickstart.network import quantized_network
from brevq.cli.quickstart.training import accuracy, calibrate
from brevq.inject import diff, explain
from injectors import Int4WeightPerChannel, TernaryWeightPerChannel

NAMES = ["W8A8", "W4A8", "W3A8", "W2A8", "ternary", "binary"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One run of the command in a process of its own, where warnings are errors, and its folder."""
    out = tmp_path_factory.mktemp("run") / "new" / "out"
    command = [
        sys.executable,
        "-W",
        "error",
        "-X",
        "utf8",
        "-m",
        "brevq",
        "quickstart",
        "--epochs",
        "1",
        "--out",
        str(out),
    ]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=300, check=False)
    assert (0, "") == (done.returncode, done.stderr)
    return done.stdout, out


@pytest.fixture
def results(finished):
    """What the run wrote to results.json."""
    return json.loads((finished[1] / "results.json").read_text(encoding="utf-8"))


def test_it_leaves_three_files(finished):
    """The folder, made with its parents, holds the picture, the checkpoint and the results; nothing else."""
    assert ["accuracy.png", "checkpoint.pt", "results.json"] == sorted(path.name for path in finished[1].iterdir())


def test_the_picture_is_an_image(finished):
    """A PNG of 1200 by 720 pixels."""
    head = (finished[1] / "accuracy.png").read_bytes()[:24]
    assert (b"\x89PNG", 1200, 720) == (head[:4], int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:], "big"))


def test_every_network_has_a_row(finished, results):
    """The table, printed and saved, has the float network and six quantized ones."""
    assert NAMES == [row["name"] for row in results["rows"]]
    for row in (results["baseline"], *results["rows"]):
        cells = [row["name"], str(row["weight_bits"]), f"{row['rounded']:.3f}", f"{row['trained']:.3f}"]
        lines = [line for line in finished[0].splitlines() if line.startswith(f"│ {row['name']}")]
        assert 1 == len(lines)
        assert all(cell in lines[0] for cell in cells)


def test_bytes_are_those_computed_by_hand(results):
    """33,680 weights at their bits, and 122 scales of four bytes."""
    assert [134_720] == [results["baseline"]["weight_bytes"]]
    assert [34_168, 17_328, 13_118, 8_908, 8_908, 4_698] == [row["weight_bytes"] for row in results["rows"]]


def test_accuracies_are_what_bits_allow(results):
    """8 bits are within a hundredth of float as rounded, and training brings one bit to within a tenth."""
    rows = {row["name"]: row for row in results["rows"]}
    assert results["baseline"]["rounded"] > 0.85
    assert rows["W8A8"]["rounded"] == pytest.approx(results["baseline"]["rounded"], abs=0.01)
    assert rows["binary"]["rounded"] < rows["W8A8"]["rounded"] - 0.05
    assert all(row["trained"] > results["baseline"]["trained"] - 0.1 for row in rows.values())


def test_it_shows_the_wiring_and_a_difference(finished):
    """The wiring of a recipe for the first layer is printed in full, and so is its difference to another."""
    layer = quantized_network(Int4WeightPerChannel)[0]
    assert f"{explain(Int4WeightPerChannel, layer)}\n" in finished[0]
    assert f"{diff(Int4WeightPerChannel, TernaryWeightPerChannel)}\n" in finished[0]


def test_a_log_has_no_progress_bars(finished):
    """Where standard output is no terminal there are lines, without carriage returns and colours."""
    assert set() == {"\r", "\x1b"} & set(finished[0])


def test_the_checkpoint_gives_the_accuracy_of_the_table(finished, results):
    """A fresh network with the saved state has exactly the accuracy that the run measured."""
    network = checkpoint.load(Int4WeightPerChannel, finished[1] / "checkpoint.pt")
    expected = next(row["trained"] for row in results["rows"] if row["name"] == "W4A8")
    assert expected == pytest.approx(accuracy(network, load_digits()), abs=0.0011)  # one image of 1000


def test_a_checkpoint_that_differs_is_refused(tmp_path):
    """A network that computes anything else than the saved one is an error, even where the accuracies agree."""
    digits, network = load_digits(), quantized_network(Int4WeightPerChannel)
    calibrate(network, digits)
    checkpoint.save(network, tmp_path / "checkpoint.pt")
    loaded = checkpoint.load(Int4WeightPerChannel, tmp_path / "checkpoint.pt")
    checkpoint.check_same(network, loaded, digits)
    with torch.no_grad():
        loaded[-1].bias += 1e-3
    now = accuracy(network, digits)
    with pytest.raises(checkpoint.CheckpointError) as error:
        checkpoint.check_same(network, loaded, digits)
    expected = (
        f"the network that was loaded again has an accuracy of {now:.3f}, not exactly that of the one saved, "
        f"{now:.3f}: its checkpoint does not hold all that it computes with"
    )
    assert expected == str(error.value)
