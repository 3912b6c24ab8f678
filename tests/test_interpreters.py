"""The injector's tests pass under every supported Python, without torch.

Each interpreter that is found gets an environment of its own, made once and kept in ``.venv-inject/3.X``.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
VERSIONS = [f"3.{minor}" for minor in range(10, 15)]
REQUIREMENTS = ["attrs", "dependencies>=7.7,<8", "pytest"]
# What an interpreter must be able to do to count as found.
PROBE = "import ensurepip, sys, venv; print(sys.implementation.name, '%d.%d' % sys.version_info[:2])"


def _pyenv():
    """Where pyenv keeps its interpreters, whether or not it is on the path."""
    if "PYENV_ROOT" in os.environ:
        return Path(os.environ["PYENV_ROOT"])
    pyenv = shutil.which("pyenv")
    if pyenv:
        return Path(subprocess.run([pyenv, "root"], capture_output=True, text=True, check=False).stdout.strip())
    return Path.home() / ".pyenv"


def _candidates(version):
    """Where an interpreter of this version may be."""
    yield from sorted(_pyenv().glob(f"versions/{version}.*/bin/python{version}"), reverse=True)
    folders = os.environ.get("PATH", "").split(os.pathsep)
    yield from filter(None, (shutil.which(f"python{version}", path=folder) for folder in folders))


def _works(python, version):
    """Whether it runs, is the CPython that it is called, and can make an environment."""
    try:
        done = subprocess.run([python, "-c", PROBE], capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return f"cpython {version}" == done.stdout.strip()


def _found():
    running = f"{sys.version_info.major}.{sys.version_info.minor}"
    for version in VERSIONS:
        python = next(
            (str(path) for path in _candidates(version) if version != running and _works(path, version)), None
        )
        if python is not None:
            yield pytest.param(version, python, id=version)


INTERPRETERS = list(_found()) or [
    pytest.param(None, None, id="none", marks=pytest.mark.skip(reason="no other CPython 3.10 to 3.14 was found"))
]


def _run(command, **environment):
    """Run a command from the root of the repository; if it fails, so does the test, with the command's output."""
    unwanted = ("PYTHON", "PYTEST", "PIP", "VIRTUAL_ENV", "__PYVENV")
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(unwanted) or "INDEX" in key}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=ROOT,
        env=inherited | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        pytest.fail(f"{' '.join(map(str, command))}\n\n{done.stdout}", pytrace=False)
    return done.stdout


def _environment(version, python):
    """The interpreter of an environment that has what the injector's tests need; made if it is not there yet."""
    folder = ROOT / ".venv-inject" / version
    inside = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    made_from = folder / "made-from.txt"
    wanted = "\n".join([python, *REQUIREMENTS, (ROOT / "constraints.txt").read_text()])
    if not (made_from.exists() and made_from.read_text() == wanted and _works(inside, version)):
        _run([python, "-m", "venv", "--clear", folder])
        options = ["--quiet", "--disable-pip-version-check", "-c", ROOT / "constraints.txt"]
        _run([inside, "-m", "pip", "install", *options, *REQUIREMENTS])
        made_from.write_text(wanted)
    return inside


@pytest.mark.slow
@pytest.mark.parametrize(("version", "python"), INTERPRETERS)
def test_injector(version, python):
    """The injector's tests pass under this Python, with nothing installed but what the injector needs."""
    inside = _environment(version, python)
    options = ["-c", os.devnull, "--rootdir", ROOT, "--confcutdir", ROOT / "tests" / "inject"]
    options += ["--import-mode=importlib", "-p", "no:cacheprovider", "-W", "error", "-q", "--color=no"]
    printed = _run(
        [inside, "-m", "pytest", *options, "tests/inject"], PYTHONPATH=str(ROOT), PYTHONDONTWRITEBYTECODE="1"
    )
    assert " passed" in printed.splitlines()[-1]
