"""An index tells of a library what importing it would tell, or nothing."""

import json

import pytest

import injectors
from brevq import recipes
from brevq.recipes import LibraryError
from brevq.recipes.index import read_index


def test_index_of_brevqs_recipes_is_current():
    """The index of `injectors` is what `python docs/generate.py` would write now."""
    stock = recipes.library("injectors")
    assert recipes.index_of(stock) == recipes.place_of(stock).read_text(encoding="utf-8")


def test_index_tells_what_the_library_has():
    """An index gives the same records as the library itself."""
    stock = recipes.library("injectors")
    assert recipes.contents_of(stock) == read_index(stock)
    assert injectors.__all__ == [record.name for record in read_index(stock).records]


def test_library_of_anothers_making(acme):
    """Any library that is a package can have an index, which lies in its folder."""
    place = acme("acme", "corp.quant")
    library = recipes.library("acme")
    assert read_index(library) is None
    assert place / "corp" / "quant" / "index.json" == recipes.write_index(library)
    assert recipes.contents_of(library) == read_index(library)


@pytest.fixture
def indexed(acme):
    """A library with an index, and where it is."""
    place = acme(more={"acme/parts.py": "BITS = 3"})
    recipes.write_index(recipes.library("acme"))
    return place / "acme"


def change_source(folder):
    (folder / "parts.py").write_text("BITS = 4")


def add_source(folder):
    (folder / "more.py").write_text("")


def change_index(folder):
    text = (folder / "index.json").read_text()
    (folder / "index.json").write_text(text.replace('"bits": 3', '"bits": 4'))


def other_version(folder):
    index = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps({**index, "brevq_index": 2}))


@pytest.mark.parametrize("change", [change_source, add_source, change_index, other_version], ids=lambda it: it.__name__)
def test_stale(indexed, change):
    """An index is not read once a source, or the index itself, is another, or of another version."""
    assert read_index(recipes.library("acme")) is not None
    change(indexed)
    assert read_index(recipes.library("acme")) is None
    assert ["Int3Weight", "Int5Weight"] == [record.name for record in recipes.list("acme")]


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "{}", '{"brevq_index": 1}', '{"bases": [], "recipes": 3}', "\ud800"]
)
def test_broken(indexed, text):
    """What is no index is as none."""
    (indexed / "index.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    assert read_index(recipes.library("acme")) is None


def test_ends_of_lines(indexed):
    """A system that writes its ends of lines in another way reads the same index."""
    file = indexed / "__init__.py"
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    assert read_index(recipes.library("acme")) is not None


def test_module(distribution):
    """A library that is a module has no folder for an index."""
    distribution("acme", {"acme": "acme"}, {"acme.py": ""})
    with pytest.raises(LibraryError) as error:
        recipes.write_index(recipes.library("acme"))
    assert "Library acme (acme, of acme 1.0) is a module and no package, so an index has no place beside it" == str(
        error.value
    )


def test_recipes_with_faults(acme):
    """A library in which a recipe has faults gets no index; the faults are told."""
    acme(source="from injectors import Int8WeightPerTensor as I\nclass Bad(I):\n    bitwidth = 4")
    with pytest.raises(LibraryError) as error:
        recipes.write_index(recipes.library("acme"))
    assert "gets no index, because of recipes with faults.\n\nacme:Bad: Can not build Bad.\n\n" in str(error.value)
