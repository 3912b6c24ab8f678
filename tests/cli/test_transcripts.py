"""What the documentation shows of the command line is what it prints."""

import re
import shlex
import sys
import textwrap
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r"^\.\. code-block:: (\w+)\n((?:   :\w+:.*\n)*)\n((?:(?:   .*)?\n)+)", re.MULTILINE)


def blocks(page):
    """The code blocks of a page: language, options, text."""
    for language, options, text in BLOCK.findall((DOCS / page).read_text(encoding="utf-8") + "\n"):
        yield language, dict(re.findall(r":(\w+): *(.*)", options)), textwrap.dedent(text).strip("\n")


def commands(text):
    """The commands of a console, each with what follows it."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        line, _, printed = part.partition("\n")
        yield line, printed.strip("\n")


def fits(expected, printed):
    """Whether what was printed is what is shown, in which a line of three dots stands for any lines."""
    pattern = "\n".join("(?s:.*)" if line == "..." else re.escape(line) for line in expected.split("\n"))
    return re.fullmatch(pattern, "\n".join(line.rstrip() for line in printed.strip("\n").split("\n"))) is not None


@pytest.mark.parametrize("page", ["command_line.rst"])
def test_transcript(brevq, tmp_path, page):
    """Each command is run, in one folder and in order, and prints what the page shows, to the letter."""
    shown, status = 0, None
    for language, options, text in blocks(page):
        if "caption" in options:
            (tmp_path / options["caption"]).write_text(f"{text}\n", encoding="utf-8")
        if language != "console":
            continue
        for line, expected in commands(text):
            program, *words = shlex.split(line)
            if line == "echo $?":
                printed = f"{status}"
            else:
                assert "brevq" == program
                said = brevq("", *words)
                status, printed = said.status, said.out + said.err
            assert fits(expected, printed), f"$ {line}\n{printed}"
            shown += 1
    assert shown > 10
    sys.modules.pop("mine", None)
