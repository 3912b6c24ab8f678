"""What the tests of the injector share: another Python process, which knows nothing of pytest."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import brevq
from tests.installing import installing


@pytest.fixture
def python(tmp_path):
    """Run code in a fresh interpreter that can import brevq and what lies in `tmp_path`."""
    root = Path(brevq.__file__).parents[1]
    unwanted = ("PYTHONWARNINGS", "PYTHONSTARTUP", "PYTHONPATH")
    environment = {key: value for key, value in os.environ.items() if key not in unwanted}
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), str(root)])
    environment["PYTHONDONTWRITEBYTECODE"] = "1"

    def run(code, *options):
        return subprocess.run(
            [sys.executable, *options, "-c", code],
            capture_output=True,
            text=True,
            env=environment,
            cwd=tmp_path,
            check=False,
            timeout=60,
        )

    return run


@pytest.fixture
def distribution(tmp_path):
    """Installs distributions that declare libraries of recipes, until the test ends: see `tests.installing`."""
    yield from installing(tmp_path / "installed")
