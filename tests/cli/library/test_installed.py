"""A library made from the template is installed into an environment of its own, tested there, and found.

The environment is fresh but for what the tests run with, which it sees: torch is too large to be installed again.
"""

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from brevq.cli.library import create

SEEN = "import site; site.addsitedir({folder!r})\n"


def run(*command, cwd):
    """Exit status and output of a command that has nothing of this process in its environment."""
    unwanted = ("PYTHON", "PYTEST", "PIP", "VIRTUAL_ENV", "__PYVENV")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(unwanted)}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**environment, "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "200", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """The interpreter of a fresh environment into which two libraries were installed: acme, and acme-chips."""
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder / "venv", symlinks=os.name != "nt")
    inside = folder / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    paths = {"base": str(folder / "venv"), "platbase": str(folder / "venv")}
    packages = Path(sysconfig.get_path("purelib", vars=paths))
    outside = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    seen = "".join(SEEN.format(folder=it) for it in outside)
    (packages / "seen.pth").write_text(seen, encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "--python", inside, "--disable-pip-version-check", "install", "--quiet"]
    for name in ("acme", "acme-chips"):
        library = create(name, folder)
        status, _, error = run(*pip, "--no-index", "--no-deps", "--no-build-isolation", library, cwd=folder)
        assert (0, "") == (status, error)
    return inside


@pytest.fixture
def brevq(python, tmp_path):
    """A function that runs the command line of that environment, far from the sources of the libraries."""
    return lambda *words: run(python, "-m", "brevq", *words, cwd=tmp_path)


@pytest.mark.slow
def test_its_tests_pass(python):
    """The library's own tests, README included, pass on the package that is installed."""
    folder = python.parents[2] / "acme"
    status, printed, error = run(
        python,
        "-P" if sys.version_info >= (3, 11) else "-B",
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        cwd=folder,
    )
    assert (0, "") == (status, error), printed
    assert " passed" in printed.splitlines()[-1]
    place = run(python, "-c", "import acme; print(acme.__file__)", cwd=folder.parent)[1]
    assert place.startswith(str(python.parents[1]))


@pytest.mark.slow
def test_it_is_listed(brevq):
    """Its recipe is listed under the library's name."""
    status, printed, error = brevq("list", "--library", "acme")
    assert (0, "", ["Int3Weight"]) == (status, error, [line.split()[0] for line in printed.splitlines()[1:]])


@pytest.mark.slow
def test_it_is_explained(brevq):
    """Its recipe is found by the names of library and recipe, and drawn from `tensor_quant` down."""
    status, printed, error = brevq("explain", "acme:Int3Weight")
    assert (0, "", "Int3Weight") == (status, error, printed.splitlines()[0])
    assert "bit_width = 3" in printed


@pytest.mark.slow
def test_two_libraries_with_one_name(brevq):
    """A recipe that two libraries have is not found without saying which of them is meant, and found with it."""
    status, printed, error = brevq("show", "Int3Weight")
    assert (2, "") == (status, printed), error
    assert "acme:Int3Weight, acme-chips:Int3Weight" in " ".join(error.split())
    status, _, error = brevq("show", "acme-chips:Int3Weight")
    assert (0, "") == (status, error)


@pytest.mark.slow
def test_its_name_is_taken_there(brevq, tmp_path):
    """Where it is installed, no second library of its name is begun."""
    status, _, error = brevq("new-library", "acme-chips")
    assert (True, True, []) == (status != 0, "library acme-chips" in error, list(tmp_path.iterdir()))
