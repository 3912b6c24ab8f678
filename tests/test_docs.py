"""Generated pages of the documentation."""

import importlib.util
import re
from pathlib import Path

import pytest

import injectors
from brevq.core.bit_width import BitWidthConst
from brevq.core.function_wrapper import FloorSte
from brevq.core.quant import TruncIntQuant
from brevq.core.scaling import TruncMsbScaling
from brevq.inject import Injector

DOCS = Path(__file__).parents[1] / "docs"


def generator():
    """The module `docs/generate.py`, loaded anew."""
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rows(page):
    """The rows of all tables of a page, as lists of cells, by their first cell."""
    tables = [re.split(r"\n     -", row) for row in page.split("   * - ")[1:]]
    return {cells[0].strip("` "): [cell.split("\n\n")[0].strip() for cell in cells[1:]] for cells in tables}


@pytest.fixture(scope="module")
def generated():
    """What `docs/generate.py` would write now."""
    return generator().pages()


@pytest.mark.parametrize("page", ["brevitas.rst", "formats.rst", "layers.rst", "parts.rst", "recipes.rst"])
def test_generated_pages_are_current(generated, page):
    """The pages list what there is; `python docs/generate.py` writes them anew."""
    assert generated[page] == (DOCS / page).read_text(encoding="utf8")


def test_every_generated_page_is_compared(generated):
    """No page is generated that the test above does not compare."""
    assert {"brevitas.rst", "formats.rst", "layers.rst", "parts.rst", "recipes.rst"} == set(generated)


def test_every_recipe_fills_every_column(generated):
    """The page of recipes has each of them, with bits, granularity, scale and source."""
    found = rows(generated["recipes.rst"])
    assert {*injectors.__all__, "name"} == set(found)
    assert [] == [name for name, cells in found.items() if len(cells) != 5 or "" in cells]


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("Int8WeightPerChannelPoT", ["8", "channel", "``StatsScaling`` of ``AbsMax``, power of two"]),
        ("Fp8e4m3OCPWeightPerBlock", ["8", "block of 128 by 128", "``StatsScaling`` of ``AbsMax``"]),
        ("ShiftedUint4WeightPerGroup", ["4", "group of 128", "``StatsScaling`` of ``AbsMinMax``"]),
        ("Int8ActPerTokenDynamic", ["8", "token", "``StatsScaling`` of ``AbsMax``"]),
        ("Int8ActPerTensorLearnedBits", ["learned, from 8", "tensor", "``RuntimeStatsScaling`` of ``AbsPercentile``"]),
        ("Bf16Act", ["16", "tensor", "``ConstScaling`` of ``1.0``"]),
        ("Int32Bias", ["32", "given by the layer", "given by the layer"]),
        ("MXFp4Weight", ["4, with scales 4.25", "block of 32", "``BlockScaling``: e8m0 (floor)"]),
        ("MX9Act", ["8, with scales 9", "block of 16, group of 2", "``BlockScaling``: e8m0 (floor), e1m0"]),
        ("NVFP4Act", ["4, with scales 4.5", "tensor, block of 16", "``BlockScaling``: float32, fp8_e4m3 (nearest)"]),
    ],
)
def test_columns_of_a_recipe(generated, name, columns):
    """Bits, granularity and scale are those that the recipe's own documentation states."""
    assert columns == rows(generated["recipes.rst"])[name][1:4]


class CutTo8Bits(Injector):
    """Integers cut to their 8 most significant bits.

    Source: none.
    """

    role = "cutting"
    tensor_quant = TruncIntQuant
    float_to_int_impl = FloorSte
    trunc_scaling_impl = TruncMsbScaling
    bit_width_impl = BitWidthConst
    bit_width = 8


def test_roles_are_those_of_the_recipes(monkeypatch):
    """A recipe of a role that no other has gets a table of its own, after those of the roles that have more."""
    monkeypatch.setattr(injectors, "CutTo8Bits", CutTo8Bits, raising=False)
    monkeypatch.setattr(injectors, "__all__", ["CutTo8Bits", "Int8WeightPerTensor", "Int4WeightPerTensor"])
    page = generator().recipes()
    assert ["Weight", "Cutting"] == re.findall(r"\n(\w+)\n-+\n", page)
    scale = "given by the layer, times ``TruncMsbScaling``"
    assert ["8", "given by the layer", scale, "none"] == rows(page)["CutTo8Bits"][1:]
