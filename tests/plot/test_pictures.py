"""The pictures of the documentation."""

import importlib.util
import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_pictures(tmp_path, monkeypatch):
    """The page on plots shows what `docs/plots.py` draws, and all of it is there."""
    spec = importlib.util.spec_from_file_location("plots", DOCS / "plots.py")
    plots = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(plots)
    monkeypatch.setattr(plots, "IMAGES", tmp_path)
    plots.main()
    drawn = sorted(path.name for path in tmp_path.iterdir())
    shown = re.findall(r"image:: images/(\S+)", (DOCS / "plots.rst").read_text(encoding="utf8"))
    assert sorted(shown) == drawn
    assert [] == [name for name in drawn if not (DOCS / "images" / name).is_file()]
