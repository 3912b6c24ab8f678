"""Processes for the tests of this folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

#: Seconds after which processes that still run wait for each other, and are ended.
LIMIT = 240


@pytest.fixture(scope="session")
def environment():
    """The environment of processes that meet on this machine, one thread each, and import what these tests import."""
    paths = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
        "PYTHONPATH": os.pathsep.join(paths),
    }


def _run(processes, folder, environment):
    script = str(Path(__file__).with_name("scenes.py"))
    commands = [[sys.executable, script, str(rank), str(processes), str(folder)] for rank in range(processes)]
    with (folder / f"log{processes}").open("w") as log:
        running = [subprocess.Popen(command, env=environment, stdout=log, stderr=log) for command in commands]
        try:
            for process in running:
                process.wait(timeout=LIMIT)
        finally:
            for process in running:
                process.kill()
    saved = [folder / f"{processes}-{rank}" for rank in range(processes)]
    assert [] == [path.name for path in saved if not path.exists()], (folder / f"log{processes}").read_text()
    return [torch.load(path) for path in saved]


@pytest.fixture(scope="session")
def seen(tmp_path_factory, environment):
    """What each process saw in every scene: for 1, 2 and 4 processes, a list of dictionaries."""
    folder = tmp_path_factory.mktemp("scenes")
    return {processes: _run(processes, folder, environment) for processes in (1, 2, 4)}
