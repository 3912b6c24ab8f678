"""Generated pages of the documentation."""

import importlib.util
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"


def generated():
    """What `docs/generate.py` would write now."""
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.pages()


@pytest.mark.parametrize("page", ["parts.rst", "library.rst"])
def test_generated_pages_are_current(page):
    """The pages list what there is; `python docs/generate.py` writes them anew."""
    assert generated()[page] == (DOCS / page).read_text(encoding="utf8")
