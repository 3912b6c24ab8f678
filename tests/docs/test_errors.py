"""The page of errors has every class and every message, and none that there is no more."""

import ast
import re
from pathlib import Path

import pytest

from tests.support.messages import ROOT, Message, Module, messages, outdated, unexplained

PAGE = (ROOT / "docs" / "errors.rst").read_text(encoding="utf-8")
ENTRIES = re.findall(r"(?m)^``(.+)``$", PAGE)

#: Entries whose texts are put together in a way that the syntax alone does not tell, and words of their source.
COMPOSED = {
    "`…` (=…) must be a number from … to …": ("brevq/core/checks.py", "must be a number from {low:g} to {high:g}"),
    "… got `…`, and nothing in … takes `…`.": (
        "brevq/nn/arguments.py",
        "and nothing in {given.__name__} takes `{name}`.",
    ),
}


@pytest.fixture(scope="module")
def found():
    """All messages of the source."""
    return messages()


def test_every_message_is_explained(found):
    """Each message that the source raises has an entry; what is listed here is to be added to docs/errors.rst."""
    assert [] == unexplained(found, ENTRIES)


def test_every_entry_is_a_message(found):
    """Each entry begins a message; what is listed here is to be taken from docs/errors.rst, or corrected."""
    assert [] == [entry for entry in outdated(found, ENTRIES) if entry not in COMPOSED]


@pytest.mark.parametrize("entry", COMPOSED)
def test_composed_messages(entry):
    """Messages that are put together still have their words in the source, and their entry on the page."""
    file, words = COMPOSED[entry]
    assert entry in ENTRIES
    assert words in (ROOT / file).read_text(encoding="utf-8")


def test_every_entry_is_explained():
    """Below each entry stands what it means."""
    assert [] == re.findall(r"(?m)^``(.+)``\n(?!    \S)", PAGE)


def test_every_entry_stands_once():
    """No message is explained twice."""
    assert [] == sorted({entry for entry in ENTRIES if ENTRIES.count(entry) > 1})


def test_every_class_is_listed():
    """Each class of errors of ours is in the table of classes."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in Path(ROOT, "brevq").rglob("*.py")]
    classes = {node.name: node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    ours = {"BrevqError"}
    while more := {
        name
        for name, node in classes.items()
        if name not in ours and any(isinstance(base, ast.Name) and base.id in ours for base in node.bases)
    }:
        ours |= more
    assert [] == sorted(name for name in ours if f"``{name}``" not in PAGE)


SOURCE = '''
_LONG = """
{what} is wrong.

Do {this}.
""".strip()


def check(name):
    rule = f"`{name}` must be a number"
    if name:
        raise ArgumentError(_LONG.format(what=name, this="that"))
    raise ArgumentTypeError(f"{rule}, not {type(name)}" if name is None else rule)


class Part:
    off = "this is {layer}, off"

    def forward(self, x):
        raise ArgumentError(self.off.format(layer=x))

    def other(self):
        raise ArgumentError(_told())


def _told():
    return "what a function " + "returns"
'''


def test_messages_are_followed_to_where_they_are_written():
    """Names, constants, `format`, conditions, attributes and functions are followed; what varies becomes `…`."""
    expected = [
        "… is wrong. Do ….",
        "`…` must be a number",
        "this is …, off",
        "what a function returns",
    ]
    assert expected == [text for _, text in Module(ast.parse(SOURCE), listing=False).messages()]


def test_a_message_without_an_entry_is_named():
    """What is missing is told with its place, and what is left over as it stands on the page."""
    some = [Message("`x` is wrong: do that", "file.py:3"), Message("another thing", "file.py:4")]
    assert ["file.py:4: another thing"] == unexplained(some, ["`x` is wrong"])
    assert ["gone"] == outdated(some, ["`x` is wrong", "another", "gone"])
