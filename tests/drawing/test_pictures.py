"""Pictures: well-formed, told in words, with the data that they show."""

import itertools
import math
import re
from xml.etree import ElementTree

import pytest

from brevq.drawing import Drawing, Levels, Row, histogram, levels_axis, scales_chart, stack, wiring_tree

SVG = "{http://www.w3.org/2000/svg}"
NASTY = "</text><script>alert('&')</script>"


def parsed(drawing):
    """The picture as a tree of elements."""
    return ElementTree.fromstring(drawing.svg())


def texts(root):
    """All lines of text of a picture."""
    return [found.text for found in root.iter(f"{SVG}text")]


def places(root, kind):
    """Where the ticks of a kind are."""
    paths = [found.get("d") for found in root.iter(f"{SVG}path") if found.get("class") == kind]
    return [float(x) for path in paths for x in re.findall(r"M(\S+) ", path)]


def carried(root, kind, name="data-values"):
    """The numbers that elements of a kind carry."""
    found = [shape.get(name) for shape in root.iter() if shape.get("class") == kind]
    return [float(number) for numbers in found for number in numbers.split()]


FLOATS = Levels(
    "tiny",
    (-3.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 3.0),
    -3.0,
    3.0,
    9,
    uniform=False,
    marks=((3.0, "largest"),),
    smallest_normal=1.0,
    notes=("NaN: none",),
)
DRAWINGS = {
    "int4": lambda: levels_axis(Levels.integers("int4", -8, 7)),
    "int8": lambda: levels_axis(Levels.integers("int8", -128, 127)),
    "int16": lambda: levels_axis(Levels.integers("int16", -(2**15), 2**15 - 1)),
    "int32": lambda: levels_axis(Levels.integers("int32", -(2**31), 2**31 - 1)),
    "one": lambda: levels_axis(Levels.integers("one", 0, 0)),
    "unknown": lambda: levels_axis(Levels.unknown("unknown", "a note")),
    "floats": lambda: levels_axis(FLOATS),
    "histogram": lambda: histogram(FLOATS, {-3.0: 2, 0.5: 7}),
    "nothing": lambda: histogram(Levels.integers("int4", -8, 7), {}),
    "scales": lambda: scales_chart([0.5, 0.25, 0.125]),
    "no scales": lambda: scales_chart([]),
    "strange scales": lambda: scales_chart([math.nan, math.inf, 1.0, 0.0]),
    "tree": lambda: wiring_tree(NASTY, [Row(0, NASTY, NASTY, NASTY, "declared", NASTY)], [NASTY]),
    "empty tree": lambda: wiring_tree("nothing", []),
    "stack": lambda: stack("both", [levels_axis(FLOATS), scales_chart([1.0, 2.0])], margin=5),
    "empty stack": lambda: stack("none", []),
}


@pytest.mark.parametrize("make", DRAWINGS.values(), ids=DRAWINGS)
def test_well_formed_and_told_in_words(make):
    """A picture can be parsed, on a page and in a file, and has a role, a title and a description."""
    drawing = make()
    for text in (drawing.svg(), drawing.file()):
        root = ElementTree.fromstring(text)
        assert ("img", drawing.title) == (root.get("role"), root.get("aria-label"))
        assert [f"{SVG}title", f"{SVG}desc"] == [child.tag for child in root][:2]
        assert root[0].text == drawing.title
        assert root[1].text


@pytest.mark.parametrize("make", DRAWINGS.values(), ids=DRAWINGS)
def test_nothing_runs_and_nothing_is_fetched(make):
    """A picture has no scripts, no handlers, no links and no fonts of its own."""
    for found in ElementTree.fromstring(make().file()).iter():
        assert found.tag not in {f"{SVG}script", f"{SVG}a", f"{SVG}image", f"{SVG}use", f"{SVG}foreignObject"}
        assert [] == [name for name in found.attrib if name.startswith("on") or name.endswith("href")]
        assert "url(" not in (found.text or "")


@pytest.mark.parametrize("make", DRAWINGS.values(), ids=DRAWINGS)
def test_no_colour_that_hides(make):
    """On a page letters take the colour of the text around them: nothing is drawn in black or white."""
    colours = {found.get(name) for found in parsed(make()).iter() for name in ("fill", "stroke")}
    assert colours <= {None, "none", "currentColor", "#2f81d6", "#c76a10"}


def test_file_brings_its_colours():
    """A file has paper and ink, for light and for dark, that a page does not get."""
    drawing = DRAWINGS["int4"]()
    assert "prefers-color-scheme: dark" in drawing.file()
    assert "<style" not in drawing.svg()


@pytest.mark.parametrize(("low", "high"), [(-8, 7), (-7, 7), (0, 1), (-128, 127), (0, 510)])
def test_integers_on_the_axis(low, high):
    """Each integer has a tick, evenly from end to end, and the ends are labelled."""
    root = parsed(levels_axis(Levels.integers("int", low, high)))
    expected = list(range(low, high + 1))
    assert expected == carried(root, "linear")
    ticks = places(root, "linear")
    step = (696 - 24) / (high - low)
    assert [round((24 + step * i) * 4) / 4 for i in range(len(expected))] == ticks
    assert {str(low), str(high)} <= set(texts(root))


def test_wide_integers():
    """65536 codes stand side by side, 2**32 codes are a band; the ends are labelled and the number is told."""
    for bits, count in ((16, "65536"), (32, "2^32")):
        low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
        drawing = levels_axis(Levels.integers(f"int{bits}", low, high))
        assert f"int{bits}: {count} values from {low} to {high}" == drawing.title
        assert {str(low), str(high), "0"} <= set(texts(parsed(drawing)))
        assert len(drawing.svg()) < 40_000


def test_floats_by_powers_of_two():
    """Numbers above zero stand on a second axis, evenly by their logarithm, subnormals apart."""
    root = parsed(levels_axis(FLOATS))
    assert list(FLOATS.values) == carried(root, "linear")
    assert [0.0, 1.0, math.log2(3)] == carried(root, "logarithmic")
    assert [-1.0] == carried(root, "subnormal")
    assert [24 + 672 / 3] == places(root, "logarithmic")[:1]
    assert {"2^-1", "2^0", "2^1", "2^2"} <= set(texts(root))
    assert "NaN: none" in texts(root)


@pytest.mark.parametrize("levels", [Levels.integers("int8", -128, 127), Levels.integers("int20", 0, 2**20), FLOATS])
def test_labels_do_not_overlap(levels):
    """Labels of an axis have room beside each other."""
    group = next(found for found in parsed(levels_axis(levels)).iter(f"{SVG}g") if found.get("class") == "labels")
    spans = sorted((float(label.get("x")), len(label.text) * 11 * 0.6) for label in group)
    assert all(a + wide / 2 < b - wider / 2 for (a, wide), (b, wider) in itertools.pairwise(spans))


def test_every_name_of_a_tree():
    """Names, contents and origins stand in the picture; what is overridden and what is supplied is marked."""
    rows = [
        Row(0, "tensor_quant", "IntQuant", "Int8", "declared"),
        Row(1, "bits", "4", "Int4", "declared", "8 of Int8"),
        Row(1, "shape", "(2, 3)", "supplied by Linear", "supplied"),
        Row(1, "signed", "True", "default of IntQuant", "default"),
    ]
    drawing = wiring_tree("Int4", rows, ["Linear supplies shape = (2, 3)"])
    root = parsed(drawing)
    assert {
        *("tensor_quant", "IntQuant", "Int8", "bits", "4", "Int4, replaces 8 of Int8", "shape", "(2, 3)"),
        *("supplied by Linear", "signed", "True", "default of IntQuant", "Linear supplies shape = (2, 3)"),
        "overrides what a base recipe declares",
    } <= set(texts(root))
    marked = [found.get("class") for found in root.iter(f"{SVG}g") if found.get("class")]
    assert ["row declared", "row declared overridden", "row supplied", "row default"] == marked
    assert "  bits = 4  (Int4, replaces 8 of Int8)" in drawing.description


def test_long_contents_are_cut():
    """A long content is shown by its beginning; all of it is a hint, and in the description."""
    drawing = wiring_tree("Int4", [Row(0, "format", "x" * 300, "Int4", "declared")])
    assert "x" * 57 + "…" in texts(parsed(drawing))
    assert "x" * 300 in drawing.description
    assert drawing.width < 1000


def test_histogram_bars():
    """A bar stands for each number that occurs, as high as it is frequent; the ends of the grid stand out."""
    root = parsed(histogram(Levels.integers("int4", -8, 7), {-8.0: 5, 0.0: 20, 3.0: 10}))
    bars = list(root.iter(f"{SVG}rect"))
    assert [-8.0, 0.0, 3.0] == carried(root, "bars")
    assert [5, 20, 10] == carried(root, "bars", "data-counts")
    assert [27.5, 110.0, 55.0] == [float(bar.get("height")) for bar in bars]
    assert ["#c76a10", "#2f81d6", "#2f81d6"] == [bar.get("fill") for bar in bars]


def test_histogram_of_a_wide_grid_looks_at_what_is_on_it():
    """Where few of very many codes occur, the axis ends at those."""
    root = parsed(histogram(Levels.integers("int32", -(2**31), 2**31 - 1), {-3.0: 1, 100.0: 2}))
    bars = [float(found.get("x")) for found in root.iter(f"{SVG}rect")]
    assert [True, True] == [bars[0] < 30, bars[1] > 680]


def test_histogram_bins():
    """Of more than 256 integers, as many stand together as leave 256 bars; nothing is lost."""
    root = parsed(histogram(Levels.integers("int16", -(2**15), 2**15 - 1), {float(i): 1 for i in range(-20000, 20000)}))
    counts = carried(root, "bars", "data-counts")
    assert (40000, True) == (sum(counts), len(counts) <= 257)


def test_scales():
    """A bar stands for each scale, as high as it is large."""
    root = parsed(scales_chart([0.5, 0.25, 0.125]))
    assert [0.5, 0.25, 0.125] == carried(root, "scales")
    assert [70.0, 35.0, 17.5] == [float(bar.get("height")) for bar in root.iter(f"{SVG}rect")]


def test_scales_by_powers_of_two():
    """Scales of very different sizes are drawn by their logarithm."""
    root = parsed(scales_chart([1.0, 2.0**10, 2.0**20]))
    assert [8.0, 39.0, 70.0] == [float(bar.get("height")) for bar in root.iter(f"{SVG}rect")]
    assert any("by powers of two" in line for line in texts(root))


def test_many_scales():
    """Thousands of scales stand together in bins."""
    drawing = scales_chart([1.0 + i / 5000 for i in range(5000)])
    assert "5000 scales from 1 to 2" == drawing.description
    assert len(drawing.svg()) < 120_000


def test_stack():
    """Pictures below each other are as wide as the widest, and say what each says."""
    one, two = Drawing(10, 20, (), "one", "first"), Drawing(30, 5, (), "two")
    drawing = stack("both", [one, two], gap=4, margin=1)
    assert (32, 31) == (drawing.width, drawing.height)
    assert "one\nfirst\n\ntwo" == drawing.description
