"""Recipes in notebooks: how they show themselves."""

from xml.etree import ElementTree

import pytest

from brevq.errors import RecipeError
from brevq.inject import Injector, explain

SVG = "{http://www.w3.org/2000/svg}"


class Grid:
    def __init__(self, bits, signed=True): ...


class Int8(Injector):
    """Eight bits: ``bits = 8``.

    More of it.
    """

    tensor_quant = Grid
    bits = 8


class Int4(Int8):
    bits = 4


def words(recipe):
    """All texts of a recipe's page."""
    return {text for text in ElementTree.fromstring(recipe._repr_html_()).itertext() if text}


def test_page():
    """A recipe's page has its name, its first sentence, and all lines of its wiring."""
    found = words(Int8)
    assert {"Int8", "Eight bits: bits = 8."} <= found
    assert {part for line in explain(Int8).lines for part in (line.name, line.content, line.origin)} <= found


def test_override():
    """What is overridden is told with what it replaces."""
    assert {"Int4, replaces 8 of Int8"} <= words(Int4)
    assert {"Int8.let(...), replaces 8 of Int8"} <= words(Int8.let(bits=2))


@pytest.mark.parametrize(
    "recipe", [Int8.let(bitwidth=4), type(Injector)("Empty", (Injector,), {"bits": 4})], ids=["unused", "no root"]
)
def test_faults(recipe):
    """A recipe with faults lists them on its page, as its error does."""
    with pytest.raises(RecipeError) as caught:
        explain(recipe)
    assert str(caught.value) in words(recipe)


def test_injector_itself():
    """The base of all recipes has a page, too."""
    assert "Injector" in words(Injector)


def test_no_name_is_gained():
    """How a recipe shows itself is no name of it."""
    assert ["bits", "let", "tensor_quant"] == dir(Int8)
    assert "_repr_html_" not in Int8
    with pytest.raises(RecipeError, match="`_repr_html_`, which is a method of every recipe"):
        Int8.let(_repr_html_=1)


def test_escaped():
    """What a recipe declares is shown, and not interpreted."""
    assert "<script" not in Int8.let(bits="<script>")._repr_html_()


def test_in_ipython():
    """IPython finds the page of a recipe, which is a class."""
    formatters = pytest.importorskip("IPython.core.formatters", reason="the injector works without IPython")
    shown, _ = formatters.DisplayFormatter().format(Int4)
    assert "Int4, replaces 8 of Int8" in shown["text/html"]
