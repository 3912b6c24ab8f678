"""Pages: tables, sections, and what can not be shown."""

from xml.etree import ElementTree

from brevq.drawing import attempt, facts, fold, page, paragraph, section, table

NASTY = "</td><script>"


def cells(text):
    """The rows of a table."""
    return [["".join(cell.itertext()) for cell in row] for row in ElementTree.fromstring(text).iter("tr")]


def test_table():
    """A table has its titles and its cells, whatever they say."""
    assert [["a", NASTY], ["1", "None"]] == cells(table(["a", NASTY], [[1, None]]))


def test_table_without_titles():
    """A table without titles has its cells alone."""
    assert [["1", "2"]] == cells(table([], [[1, 2]]))


def test_facts():
    """What is not known is left out, and zero is known."""
    assert [["bits", "0"]] == cells(facts([("bits", 0), ("phase", None), ("role", "")]))
    assert "" == facts([("phase", None)])


def test_page():
    """A page is one element with all that is given, and its title is escaped."""
    root = ElementTree.fromstring(page(NASTY, section("one", paragraph(NASTY)), fold("two", paragraph("three"))))
    assert [NASTY, "one", NASTY, "two", "three"] == [text for text in root.itertext() if text]


def test_attempt():
    """What raises an error is told in a line, and does not take the page with it."""

    def fail():
        raise ValueError("first <line>\nsecond")

    assert "fine" == attempt(lambda: "fine", "it")
    assert "it: first <line>" == "".join(ElementTree.fromstring(attempt(fail, "it")).itertext())
