"""What the tests of the command line share: running it in this process, and what it said."""

import attrs
import pytest

from brevq.cli import main


@attrs.frozen
class Said:
    """The exit status of a command, and what it printed."""

    status: int
    out: str
    err: str


@pytest.fixture
def brevq(capsys, monkeypatch, tmp_path):
    """Runs the command line on words, in a folder of its own; the words are split at blanks unless given apart."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)

    def run(line, *more):
        with pytest.raises(SystemExit) as stop:
            main([*line.split(), *more])
        said, code = capsys.readouterr(), stop.value.code
        told = (
            f"{code}\n" if isinstance(code, str) else ""
        )  # Python prints it, and exits with 1, where nothing catches it
        return Said(1 if told else code, said.out, said.err + told)

    return run
