"""Beginning a library of recipes: which names it may have, and what is written."""

import ast
import sys

import pytest

import brevq
from brevq.cli.library import create
from brevq.errors import ArgumentError

LETTERS = "letters, digits, `.`, `-` and `_`, with a letter or digit at either end, such as acme-quant"
BEGIN = "begin with a letter, say acme-quant"
REFUSALS = {
    "acme quant": LETTERS,
    "": LETTERS,
    "-acme": LETTERS,
    "acme.": LETTERS,
    "äcme": LETTERS,
    "../acme": LETTERS,
    "acme\n": LETTERS,
    "3bits": f"such that its package can be imported, and `3bits` is no name of Python: {BEGIN}",
    "Class": f"such that its package can be imported, and `class` is a keyword of Python: {BEGIN}",
    "json": "new, and Python would find `json` in two places: it is a module of Python's own. Choose another",
    "brevq": "new, and Python would find `brevq` in two places: it is a package of brevq. Choose another",
    "Injectors": "new, and Python would find `injectors` in two places: it is a package of brevq. Choose another",
    "tests": "new, and Python would find `tests` in two places: it is the folder of the library's tests. "
    "Choose another",
    "torch": "new, and Python would find `torch` in two places: a module of that name is installed. Choose another",
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refused_names(name, tmp_path):
    """A name that pip or Python would trip over is refused with its rule, and nothing is written."""
    with pytest.raises(ArgumentError) as error:
        create(name, tmp_path)
    assert (f"`name` (={name!r}) of a library must be {REFUSALS[name]}", []) == (
        str(error.value),
        list(tmp_path.iterdir()),
    )


@pytest.mark.parametrize(
    ("name", "package"), [("acme", "acme"), ("Acme-Quant", "acme_quant"), ("acme.chips_2", "acme_chips_2")]
)
def test_names(name, package, tmp_path):
    """The distribution and the library have the name, and the package that of it which Python can import."""
    library = create(name, tmp_path)
    settings = (library / "setup.cfg").read_text(encoding="utf-8")
    assert (tmp_path / name, True) == (library, (library / package / "__init__.py").is_file())
    assert f"name = {name}\n" in settings
    assert f"brevq.injectors =\n    {name} = {package}\n" in settings
    assert f"brevq>={brevq.__version__}\n" in settings


def test_files(tmp_path):
    """A package, its tests, what installs it, and a page that says what to do; all words are filled in."""
    library = create("acme", tmp_path)
    files = {str(path.relative_to(library)): path for path in library.rglob("*") if path.is_file()}
    assert {
        ".gitignore",
        "README.rst",
        "acme/__init__.py",
        "acme/weight.py",
        "pyproject.toml",
        "setup.cfg",
        "tests/test_recipes.py",
    } == {name.replace("\\", "/") for name in files}
    assert [] == [name for name, path in files.items() if "$" in path.read_text(encoding="utf-8")]
    assert [library] == list(tmp_path.iterdir())
    for name, path in files.items():
        if name.endswith(".py"):
            ast.parse(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_what_exists_is_left_alone(kind, tmp_path):
    """Whatever has the name already is not written over."""
    place = tmp_path / "acme"
    {"folder": place.mkdir, "file": place.touch, "link": lambda: place.symlink_to(tmp_path / "nowhere")}[kind]()
    with pytest.raises(ArgumentError) as error:
        create("acme", tmp_path)
    assert f"{place} exists already: choose another name or folder, or move it away" == str(error.value)
    assert [place] == list(tmp_path.iterdir())


def test_the_folder_must_exist(tmp_path):
    """A folder that is not there is not made: it may be a typing error."""
    nowhere = tmp_path / "nowhere"
    with pytest.raises(ArgumentError) as error:
        create("acme", nowhere)
    expected = f"`folder` (={str(nowhere)!r}) must be a folder that exists: make it, or choose another"
    assert (expected, []) == (str(error.value), list(tmp_path.iterdir()))


def test_nothing_is_left_half_written(tmp_path, monkeypatch):
    """If writing a file fails, the files before it are gone too."""
    module = sys.modules["brevq.cli.library.create"]
    write = module._write

    def full(file, source, words):
        if source == "setup.cfg.tmpl":
            raise OSError("No space left on device")
        write(file, source, words)

    monkeypatch.setattr(module, "_write", full)
    with pytest.raises(OSError, match="No space left"):
        create("acme", tmp_path)
    assert [] == list(tmp_path.iterdir())
