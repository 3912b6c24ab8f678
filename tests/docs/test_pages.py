"""What holds for all pages: that their examples run, that their links are good, and that every page is reached."""

import ast
import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from brevq.quant_tensor.moves import _refuse
from brevq.quant_tensor.tensor import RULES
from tests.test_house import ORDER, TREES, part_of

ROOT = Path(__file__).parents[2]
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in sorted([*ROOT.glob("*.rst"), *ROOT.glob("docs/**/*.rst")])
    if "_build" not in path.parts
}
FILES = [*ROOT.glob("brevq/**/*.py"), *ROOT.glob("injectors/**/*.py")]

#: The modules that the pages of the API document.
DOCUMENTED = [name for text in PAGES.values() for name in re.findall(r"(?m)^\.\. automodule:: (\S+)", text)]

#: Where links may lead: papers, specifications, and projects whose formats or words are used.
HOSTS = {"arxiv.org", "doi.org", "github.com", "mobiusml.github.io", "packaging.python.org", "quark.docs.amd.com"}

#: Files that another test runs as programs, and the heading comment by which it finds them on their page.
PROGRAMS = {"docs/processes.rst": ["# train_ddp.py", "# train_fsdp.py"]}


def links():
    """All links of the pages, the docstrings and comments of the source, each with its file."""
    texts = PAGES | {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in FILES}
    found = re.compile(r"\bhttps?://[^\s<>`\"'\\{}]+")
    named = [(name, link.rstrip(".,;:)")) for name, text in texts.items() for link in found.findall(text)]
    return [(name, link) for name, link in named if link != "http://www.w3.org/2000/svg"]  # the name of a language


def test_links_are_secure_and_lead_to_known_hosts():
    """Each link is https and leads to one of the few hosts that are listed here; a new host is a decision."""
    split = [(name, link, urlsplit(link)) for name, link in links()]
    assert [] == [(name, link) for name, link, parts in split if parts.scheme != "https" or parts.netloc not in HOSTS]


def test_every_host_is_linked():
    """No host is listed that nothing links to."""
    assert set() == HOSTS - {urlsplit(link).netloc for _, link in links()}


def test_links_to_papers_are_well_formed():
    """A paper on arXiv is linked by its abstract's number, without a version."""
    papers = [(name, link) for name, link in links() if urlsplit(link).netloc == "arxiv.org"]
    assert [] == [item for item in papers if not re.fullmatch(r"https://arxiv\.org/abs/\d{4}\.\d{4,5}", item[1])]


@pytest.mark.parametrize("page", PAGES)
def test_python_on_a_page_runs(page):
    """Python stands on a page as examples, which are tests, or as a program, which a test runs."""
    blocks = re.findall(r"\.\. code-block:: (?:python|pycon)\n\n +(.*)\n", PAGES[page])
    assert PROGRAMS.get(page, []) == blocks


@pytest.mark.parametrize("page", PAGES)
def test_examples_are_not_skipped(page):
    """No example is left out, or compared by its beginning only."""
    assert [] == re.findall(r"doctest: *\+(?:SKIP|ELLIPSIS)", PAGES[page])


def test_every_page_is_in_a_table_of_contents():
    """Each page is listed in one index, once."""
    for index in ("docs/index.rst", "docs/api/index.rst"):
        folder = Path(index).parent.as_posix()
        listed = re.findall(r"(?m)^   ([a-z][\w/]*)$", PAGES[index])
        here = [page for page in PAGES if Path(page).parent.as_posix() == folder]
        nested = ["api/index"] if folder == "docs" else []
        there = [page.removeprefix(f"{folder}/").removesuffix(".rst") for page in here]
        assert sorted([*there, *nested]) == sorted([*listed, "index"])


def test_files_that_are_named_exist():
    """Each file that the first pages name is there."""
    first = "".join(PAGES[page] for page in ("README.rst", "CONTRIBUTING.rst", "docs/house.rst"))
    named = re.findall(r"``((?:docs|notebooks|tests|brevq|benchmarks)/[\w/]+(?:\.\w+)?|[A-Z]+\.rst)``", first)
    assert [] == sorted(name for name in set(named) if not (ROOT / name).exists())


def test_readme_fits_two_screens():
    """The first page is short: about a hundred lines, none longer than the lines of the source."""
    lines = PAGES["README.rst"].splitlines()
    assert len(lines) <= 105
    assert [] == [line for line in lines if len(line) > 120 and "Error: " not in line]


def test_house_draws_the_order():
    """The page on the house has the parts in the order that is enforced, and each in its table."""
    parts = {part_of(path) for path in TREES} - {"", "__main__"}
    drawn = re.search(r"(?s)to its right:\n\n\.\. code-block:: text\n\n(.*?)\n\n", PAGES["docs/house.rst"])[1]
    assert [part for part in ORDER if part in parts] == re.findall(r"\w+", drawn)
    assert [] == sorted(part for part in parts if f"``{part}``" not in PAGES["docs/house.rst"])


def test_api_has_every_part():
    """Each public part of the library has its page in the API, but for the command line, which has one of its own."""
    parts = {f"brevq.{part_of(path)}" for path in TREES} - {"brevq.", "brevq.__main__", "brevq.injectors", "brevq.cli"}
    assert [] == sorted(part for part in parts if not any(f"{name}.".startswith(f"{part}.") for name in DOCUMENTED))


def test_api_lists_what_is_offered():
    """What a documented package offers is written out in its `__all__`, or the module itself is documented."""
    packages = [ROOT / name.replace(".", "/") / "__init__.py" for name in DOCUMENTED]
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in packages if path.exists()}
    without = [
        path.relative_to(ROOT).as_posix()
        for path, tree in trees.items()
        if not any(isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__" for node in tree.body)
    ]
    assert [] == without


def test_exact_functions_are_listed():
    """The table on quantized tensors has each torch function that has a rule, once, but for those that are refused."""
    table = PAGES["docs/quant_tensor.rst"].partition("   * - functions\n")[2].partition("\n*Zero has a code*")[0]
    cells = re.findall(r"(?ms)^   \* - (.*?)^     - ", table)
    exact = [name for name, rule in RULES.items() if rule is not _refuse]
    assert sorted(exact) == sorted(name for cell in cells for name in re.findall(r"``(\w+)``", cell))
