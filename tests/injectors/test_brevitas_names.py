"""The table from Brevitas' names to ours: complete, built, and the same on the page as in the data."""

import importlib.metadata
import inspect
import itertools
import json
import pkgutil
from pathlib import Path

import pytest
import torch

import injectors
from brevq.core import function_wrapper, quant, restrict_val, scaling, stats, zero_point
from brevq.core.formats import catalogue
from brevq.graph import calibrating
from brevq.inject import check
from brevq.nn import QuantConv2d
from brevq.quant_tensor import QuantTensor, Zero
from brevq.quantizer import Quantizer

DOCS = Path(__file__).parents[2] / "docs"
DATA = json.loads((DOCS / "brevitas_names.json").read_text(encoding="utf8"))
NAMES = {name: entry for module in DATA["recipes"].values() for name, entry in module.items()}
FOUND = {name: entry["ours"] for name, entry in NAMES.items() if entry["ours"] is not None}
PARTS = {
    name: part
    for module in (function_wrapper, quant, restrict_val, scaling, stats, zero_point, catalogue, injectors)
    for name, part in vars(module).items()
}

#: How many recipes Brevitas exports, and how many of them have no counterpart: lower it when one gets its own.
RECIPES, WITHOUT = 142, 1


def counterpart(text):
    """The recipe, or None for float, that an entry of the table spells."""
    return eval(text, dict(PARTS))  # the table is ours


def in_place(recipe):
    """A layer of 64 channels with the recipe in its place."""
    role = recipe.role.replace("activation", "input")
    needs_input = role == "bias" or "A2Q" in recipe.__name__
    given = {"input_quant": injectors.Int8ActPerTensor} if needs_input else {}
    return QuantConv2d(64, 4, 3, **given, **{f"{role}_quant": recipe})


def truncated(recipe):
    """Codes of 12 bits, truncated."""
    grid = torch.tensor(0.25), torch.tensor(0.0), torch.tensor(12.0)
    codes = torch.randint(-2048, 2048, (100,)).float()
    quantizer = Quantizer(recipe, {})
    quantizer.truncate(QuantTensor(codes * 0.25, *grid, signed=True, zero=Zero.AT_ZERO))  # observes, where it does
    return quantizer.eval().truncate(QuantTensor(codes * 0.25, *grid, signed=True, zero=Zero.AT_ZERO))


def rows():
    """The rows of the tables of the page, by their first cell."""
    cells = [line.strip() for line in (DOCS / "brevitas.rst").read_text(encoding="utf8").splitlines()]
    starts = [i for i, line in enumerate(cells) if line.startswith("* - ``")]
    return {cells[i][4:].strip("`"): tuple(cell[1:].strip() for cell in cells[i + 1 : i + 3]) for i in starts}


def test_number_of_names():
    """All recipes are in the table, and no more than are known have no counterpart."""
    assert (RECIPES, WITHOUT) == (len(NAMES), len(NAMES) - len(FOUND))


def test_names_are_those_of_brevitas():
    """The table and the list of infrastructure have each class that Brevitas exports, and no other."""
    theirs = pytest.importorskip("brevitas.quant")
    if DATA["version"] != importlib.metadata.version("brevitas"):
        pytest.skip("another version")
    modules = [importlib.import_module(m.name) for m in pkgutil.walk_packages(theirs.__path__, "brevitas.quant.")]
    members = itertools.chain.from_iterable(vars(module).items() for module in modules)
    classes = {
        n for n, o in members if inspect.isclass(o) and o.__module__.startswith("brevitas.quant") and n[0] != "_"
    }
    assert classes == {*NAMES, *itertools.chain.from_iterable(DATA["infrastructure"].values())}


@pytest.mark.parametrize("name", [name for name in NAMES if name not in FOUND])
def test_a_missing_name_has_a_reason(name):
    """What has no counterpart says why."""
    assert len(NAMES[name]["note"].split()) >= 5


@pytest.mark.parametrize("name", [name for name, ours in FOUND.items() if ours != "None"])
def test_counterpart_quantizes(name):
    """A counterpart has no faults, and what it quantizes lies on its grid."""
    recipe = counterpart(FOUND[name])
    check(recipe)
    if recipe.role == "truncation":
        assert truncated(recipe).is_valid
        return
    layer, x = in_place(recipe).eval(), torch.randn(2, 64, 5, 5)
    with calibrating(layer):
        layer(x)
    assert layer(x).isfinite().all()
    quantized = {
        "weight": layer.quant_weight,
        "bias": layer.quant_bias,
        "activation": lambda: layer.input_quant(x),
    }[recipe.role]()
    assert quantized.is_valid


@pytest.mark.parametrize("name", [name for name, ours in FOUND.items() if ours != "None"])
def test_counterpart_has_the_same_sign_and_role(name):
    """A counterpart is for the same role, and unsigned where the name says so."""
    recipe = counterpart(FOUND[name])
    roles = {"Weight": "weight", "Act": "activation", "Bias": "bias", "To8bit": "truncation"}
    role = next(role for word, role in roles.items() if word in name)
    assert role == recipe.role
    assert ("signed" in recipe and not recipe.signed) == ("Uint" in name or "UInt" in name)


def test_page_is_the_data():
    """The page has each name, its counterpart and its note, as the data has."""
    expected = {n: (f"``{e['ours']}``" if e["ours"] else "none", e["note"]) for n, e in NAMES.items()}
    assert expected == rows()
    assert f"Of {len(NAMES)} names {len(FOUND)} have a counterpart." in (DOCS / "brevitas.rst").read_text()
