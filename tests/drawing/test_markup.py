"""Elements of pages: escaping, coordinates, numbers."""

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brevq.drawing import element, escape, first_sentence, short_number


def readable(letter):
    """What comes back of a letter, by the production `Char` of XML 1.0; line ends become newlines."""
    code = ord(letter)
    is_char = code in (0x9, 0xA, 0xD) or 0x20 <= code <= 0xD7FF or 0xE000 <= code <= 0xFFFD or code >= 0x10000
    return {"\r": "\n"}.get(letter, letter) if is_char else "\ufffd"


@given(st.text(st.characters(codec=None)))
def test_any_text_is_well_formed(content):
    """Whatever characters a text has, an element with it can be parsed, and says what XML can say of it."""
    found = ElementTree.fromstring(element("p", escape(content), title=content)).text or ""
    assert "".join(map(readable, content.replace("\r\n", "\n"))) == found


def test_escaping():
    """What means something in a page is shown, and does not mean it."""
    assert "&lt;script&gt;&amp;&quot;&#x27;" == escape("<script>&\"'")


def test_forbidden_characters():
    """Characters that no page can hold are replaced."""
    assert "a\ufffd\ufffdb" == escape("a\x00\ud800b")


def test_attributes():
    """Names have hyphens, coordinates two digits, and None is left out."""
    assert '<rect class="a" stroke-width="0.33" x="-2"/>' == element(
        "rect", class_="a", stroke_width=1 / 3, x=-2.0, y=None
    )


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0.0, "0"),
        (-7.0, "-7"),
        (0.25, "0.25"),
        (2.0**-9, "0.001953"),
        (65504.0, "65504"),
        (3.3895313892515355e38, "3.39e+38"),
        (float("inf"), "inf"),
        (float("-inf"), "-inf"),
        (float("nan"), "nan"),
    ],
)
def test_short_number(number, words):
    """Whole numbers are written out, others in four digits, and what is no number is told."""
    assert words == short_number(number)


def test_first_sentence():
    """The first paragraph, in one line and without backticks; nothing of nothing."""
    assert "One line: a = b." == first_sentence("One\n    line: ``a = b``.\n\n    Another.")
    assert "" == first_sentence(None)
