"""`diff`: the names in which two recipes differ, as text and as HTML."""

from html.parser import HTMLParser
from inspect import cleandoc

import pytest

from brevq.errors import ArgumentTypeError
from brevq.inject import Injector, diff, supplied, this, value


class Grid:
    pass


class OtherGrid:
    pass


class Holder:
    def __init__(self, content):
        self.content = content


class Int8(Injector):
    tensor_quant = Grid
    bit_width = 8
    signed = True
    shape = supplied("shape of the weight")

    @value
    def levels(bit_width):
        return 2**bit_width


class Int4(Int8):
    bit_width = 4


class Other(Int4):
    tensor_quant = OtherGrid
    scaling_min_val = 1e-10
    signed = False
    shape = (2, 3)
    levels = 16


def test_one_name():
    """A name that differs is shown with its content and its declaring class on both sides."""
    expected = """
        :          Int8      Int4
        bit_width  8 (Int8)  4 (Int4)
        """
    assert cleandoc(expected).replace(":", " ") == str(diff(Int8, Int4))


def test_many_names():
    """All names that differ are shown, sorted; one that a side does not declare is a dash."""
    expected = """
        :                Int8                          Other
        bit_width        8 (Int8)                      4 (Int4)
        levels           @value levels (Int8)          16 (Other)
        scaling_min_val  -                             1e-10 (Other)
        shape            <shape of the weight> (Int8)  (2, 3) (Other)
        signed           True (Int8)                   False (Other)
        tensor_quant     Grid (Int8)                   OtherGrid (Other)
        """
    assert cleandoc(expected).replace(":", " ") == str(diff(Int8, Other))


def test_rows():
    """A difference can be iterated over."""
    found = [
        (row.name, row.left, row.left_by, row.right, row.right_by) for row in diff(Int4, Int4.let(signed=False, x=1))
    ]
    assert [("signed", "True", "Int8", "False", "Int4.let(...)"), ("x", "-", "", "1", "Int4.let(...)")] == found


def test_directions():
    """The other way round, the sides change places."""
    there, back = diff(Int8, Other), diff(Other, Int8)
    assert [(row.name, row.left, row.right) for row in there] == [(row.name, row.right, row.left) for row in back]


@pytest.mark.parametrize("recipe", [Injector, Int8, Int4, Other, Int8.let(bit_width=3)], ids=lambda it: it.__name__)
def test_nothing(recipe):
    """A recipe does not differ from itself."""
    assert (0, f"{recipe.__name__} and {recipe.__name__} declare the same.") == (
        len(diff(recipe, recipe)),
        str(diff(recipe, recipe)),
    )


def test_equal_contents():
    """Contents count, not who declares them."""

    class Again(Int8):
        bit_width = 8
        shape = supplied("shape of the weight")

    assert "Int8 and Again declare the same." == str(diff(Int8, Again))


def test_equal_references():
    """The same reference, written twice, is no difference."""
    assert 0 == len(diff(Int8.let(signed=this.bit_width), Int4.let(signed=this.bit_width, bit_width=8)))


@pytest.mark.parametrize(("left", "right"), [(1, True), (1, 1.0), (0.0, -0.0), (True, "True")], ids=repr)
def test_equal_but_different(left, right):
    """Contents that are equal and yet of another type or sign differ, as they do for `let`."""
    rows = [(row.left, row.right) for row in diff(Int8.let(signed=left), Int8.let(signed=right))]
    assert [(repr(left), repr(right))] == rows


def test_contents_that_do_not_compare():
    """Contents whose comparison is no truth value count as different, unless they are the same object."""

    class Array:
        def __eq__(self, other):
            return self

        def __bool__(self):
            raise ValueError("ambiguous")

        def __repr__(self):
            return "array"

        __hash__ = object.__hash__

    one = Array()
    assert (1, 0) == (
        len(diff(Int8.let(signed=one), Int8.let(signed=Array()))),
        len(diff(Int8.let(signed=one), Int8.let(signed=one, bit_width=8))),
    )


def test_faulty_recipes():
    """Recipes with faults can be compared: that is how one is found."""
    assert ["bitwidth"] == [row.name for row in diff(Int8, Int8.let(bitwidth=3))]


def test_repr_is_the_text():
    """At a prompt the table shows itself."""
    assert str(diff(Int8, Int4)) == repr(diff(Int8, Int4))


@pytest.mark.parametrize("content", [3, None, Grid, Injector.__bases__[0]], ids=["3", "None", "class", "package"])
def test_not_a_recipe(content):
    """`diff` refuses what is not a recipe, and says on which side."""
    with pytest.raises(ArgumentTypeError) as left:
        diff(content, Int8)
    with pytest.raises(ArgumentTypeError) as right:
        diff(Int8, content)
    assert f"`left` (={content!r}) must be a recipe: a subclass of brevq.inject.Injector" == str(left.value)
    assert f"`right` (={content!r}) must be a recipe: a subclass of brevq.inject.Injector" == str(right.value)


class Page(HTMLParser):
    """The cells of a table, all of whose elements must be closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.rows = [], []
        self.feed(text)
        self.close()
        assert [] == self.open

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.rows[-1][-1] += data


def test_html():
    """The HTML is a well-formed table of the same cells."""
    page = Page(diff(Int8, Int4.let(note=3))._repr_html_())
    assert [
        ["", "Int8", "Int4.let(note=3)"],
        ["bit_width", "8 (Int8)", "4 (Int4)"],
        ["note", "-", "3 (Int4.let(...))"],
    ] == page.rows


def test_html_is_escaped():
    """Contents are shown, and not interpreted."""
    nasty = "</table><b>&amp;"
    text = diff(Int8, Int8.let(signed=nasty))._repr_html_()
    assert "<b>" not in text
    assert [["signed", "True (Int8)", f"{nasty!r} (Int8.let(...))"]] == Page(text).rows[1:]


def test_html_of_nothing():
    """Without a difference the HTML is the sentence."""
    assert "Int8 and Int8 declare the same." == diff(Int8, Int8)._repr_html_()


def test_value_that_returns_another_class():
    """A `@value` that both recipes share counts as the class that it returns for each."""

    class Small:
        pass

    class Large:
        pass

    class Choosing(Injector):
        tensor_quant = Holder
        bits = 4

        @value
        def content(bits):
            return Small if bits < 8 else Large

    rows = [(row.name, row.left, row.left_by, row.right) for row in diff(Choosing, Choosing.let(bits=9))]
    assert [("bits", "4", "Choosing", "9"), ("content", "Small", "Choosing, @value", "Large")] == rows
