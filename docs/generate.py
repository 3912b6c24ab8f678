"""Write the pages that list what there is: parts, formats, recipes, layers, Brevitas' names; and the index of recipes.

Run ``python docs/generate.py`` after adding one; a test compares the pages with what this writes.
"""

from __future__ import annotations

import importlib
import inspect
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import nn

import brevq.nn
import injectors
from brevq import draw
from brevq.core.formats import BlockFormat, FloatFormat, Special, catalogue
from brevq.nn.module import QuantModule, twin_of
from brevq.recipes import describe, library, write_index
from brevq.recipes.records import levels

HERE = Path(__file__).parent

#: What the modules hold, in the order of the page.
MODULES = {
    "brevq.core.quant": "Quantizers: `tensor_quant`, `int_quant`, `decoupled_int_quant`.",
    "brevq.core.scaling": "Scales and thresholds: `scaling_impl`, `int_scaling_impl`, `float_scaling_impl` and others.",
    "brevq.core.stats": "Statistics: `scaling_stats_impl`, `zero_point_stats_impl`, `running_impl`.",
    "brevq.core.restrict_val": "Which values a scale may take: `restrict_scaling_impl`.",
    "brevq.core.zero_point": "Zero-points: `zero_point_impl`.",
    "brevq.core.bit_width": "Bit widths: `bit_width_impl`.",
    "brevq.core.function_wrapper": "Granularity, rounding and clamping: `granularity_impl`, `float_to_int_impl`, "
    "`tensor_clamp_impl`.",
}

PARTS = """\
Parts
=====

What recipes are assembled from. Each is a class to be imported from the module that heads its table, and named in a
recipe; the names of its arguments are names of the recipe, and those with a default may be left out. ``help(Part)``
gives formula, shapes, errors and source.
"""

FORMATS = """\
Formats
=======

Number formats are values, in ``brevq.core.formats.catalogue``. They cast, encode and decode tensors by themselves:

>>> import torch
>>> from brevq.core.formats.catalogue import FP4_E2M1, MXFP4
>>> FP4_E2M1.cast(torch.tensor([0.3, 2.6, 100.0]))
tensor([0.5000, 3.0000, 6.0000])
>>> MXFP4.cast(torch.tensor([0.3, 2.6, 100.0]))
tensor([ 0., 0., 96.])

Recipes take them as ``float_format`` or ``block_format``. A format of one's own is a line; ``help(FloatFormat)`` and
``help(BlockFormat)`` tell more, and ``help(ScaleRule)`` how the scales of blocks are chosen:

>>> from brevq.core.formats import BlockFormat, FloatFormat, IntFormat
>>> from brevq.core.formats.catalogue import E8M0
>>> from brevq.nn import QuantLinear
>>> from injectors import Fp8e4m3OCPWeightPerChannel, MXFp4Weight
>>> e3m4 = Fp8e4m3OCPWeightPerChannel.let(float_format=FloatFormat("e3m4", 3, 4))
>>> mxint4 = BlockFormat("mxint4", IntFormat(4, fraction_bits=2), E8M0, 32)
>>> layer = QuantLinear(64, 4, weight_quant=e3m4)
>>> layer = QuantLinear(64, 4, weight_quant=MXFp4Weight, weight_block_format=mxint4)
>>> layer.quant_weight().bit_width
tensor(4.)
"""

RECIPES = """\
Recipes
=======

All are in ``injectors``, ready to be given to layers, or to be subclassed: :doc:`own_recipe`. The names say format,
role and granularity, then what is special about the scale; ``explain(recipe)`` shows the parts.

The columns: *bits* are those of a value; block formats also say how many it takes with its part of the scales.
*Granularity* is what shares a scale. *Scale* names the part that gives it and the statistic that it starts from, or for
block formats how the scales of each level are held; :doc:`parts` tells what parts do. In short: ``StatsScaling``
computes the scale from each tensor anew, ``RuntimeStatsScaling`` from batches that it observes, before it is fixed or
learned, and ``LearnedStatsScaling`` learns it from the first step on.
"""

BREVITAS = """\
From Brevitas' names to ours
============================

Every recipe that Brevitas {version} exports from ``brevitas.quant``, by its module, and its counterpart in
``injectors``. What ``let`` names is in ``brevq.core``. Mixins and solvers are left out: parts take their place, see
:doc:`parts`. How values differ where they do, on purpose, is told in :doc:`differences`.

Of {names} names {found} have a counterpart.
"""

#: What the codes of a format stand for that stand for no number.
_SPECIAL = {
    Special.NONE: "none",
    Special.IEEE: "infinities, NaN",
    Special.LAST: "NaN",
    Special.NEGATIVE_ZERO: "NaN, for minus zero",
}


def parts() -> str:
    """The page that lists the components."""
    return PARTS + "".join(f"\n{_section(name, title)}" for name, title in MODULES.items())


def formats() -> str:
    """The page that lists the number formats."""
    number = ["name", "bits", "fields", "bias", "largest", "smallest above zero", "overflow gives", "other codes"]
    block = ["name", "elements", "bits with scales", "granularity", "scales, and their rule"]
    names = {id(format_): name for name, format_ in vars(catalogue).items()}
    tables = {
        "Numbers": _table(number, [_number_row(names[id(it)], it) for it in catalogue.FORMATS.values()]),
        "Blocks": _table(block, [_block_row(names[id(it)], it) for it in catalogue.BLOCK_FORMATS.values()]),
    }
    return FORMATS + "".join(f"\n{_heading(title)}\n{table}" for title, table in tables.items())


def recipes() -> str:
    """The page that lists the recipes, by role, the role with the most of them first."""
    listed = [getattr(injectors, name) for name in injectors.__all__]
    head = ["name", "what it is", "bits", "granularity", "scale", "source"]
    tables = {
        role: _table(head, [_recipe_row(recipe) for recipe in listed if recipe.role == role])
        for role, _ in Counter(recipe.role for recipe in listed).most_common()
    }
    return RECIPES + "".join(f"\n{_heading(role.capitalize())}\n{table}" for role, table in tables.items())


def brevitas() -> str:
    """The page that goes from Brevitas' names to ours."""
    data = json.loads((HERE / "brevitas_names.json").read_text(encoding="utf8"))
    entries = [entry for module in data["recipes"].values() for entry in module.values()]
    found = sum(entry["ours"] is not None for entry in entries)
    head = ["Brevitas", "brevq", "note"]
    return BREVITAS.format(version=data["version"], names=len(entries), found=found) + "".join(
        f"\n{_heading(f'brevitas.quant.{module}')}\n{_table(head, [_brevitas_row(*item) for item in names.items()])}"
        for module, names in data["recipes"].items()
    )


LAYERS = """\
Layers
======

All are in ``brevq.nn``; ``help(Layer)`` gives shapes, errors and an example. Each is a subclass of its twin in
``torch.nn`` where there is one, and takes the twin's arguments first. The quantizers are arguments too: a recipe, a
quantizer or None, shown with their defaults. Layers of one's own: :doc:`own_layer`.
"""


def layers() -> str:
    """The page that lists the layers."""
    kinds = [getattr(brevq.nn, name) for name in brevq.nn.__all__]
    rows = [_layer_row(kind) for kind in kinds if inspect.isclass(kind)]
    functions = [[f"``{kind.__name__}``", _first_sentence(kind)] for kind in kinds if not inspect.isclass(kind)]
    return (
        LAYERS
        + f"\n{_table(['layer', 'twin', 'quantizers', 'what it is'], rows)}"
        + f"\n{_heading('Batch normalization, folded')}\n{_table(['function', 'what it does'], functions)}"
    )


def _layer_row(kind: Any) -> list[str]:
    twin = twin_of(kind) if kind is not QuantModule else nn.Module
    name = next((base.__name__ for base in twin.__mro__ if base.__module__.startswith("torch.nn")), "")
    quants = [f"``{argument}={getattr(given, '__name__', given)}``" for argument, given in kind.quants.items()]
    return [f"``{kind.__name__}``", "" if name == "Module" else f"``{name}``", ", ".join(quants), _first_sentence(kind)]


def pages() -> dict[str, str]:
    """The generated pages by file name."""
    return {
        "parts.rst": parts(),
        "formats.rst": formats(),
        "recipes.rst": recipes(),
        "layers.rst": layers(),
        "brevitas.rst": brevitas(),
    }


def pictures() -> dict[str, str]:
    """The pictures of recipes by file name."""
    return {
        "images/int4_weight.svg": draw.svg(injectors.Int8WeightPerChannel, bit_width=4),
        "images/fp8_grid.svg": draw.grid(injectors.Fp8e4m3OCPWeightPerChannel),
    }


def _section(name: str, title: str) -> str:
    module = importlib.import_module(name)
    rows = [_part_row(part) for part in _public(module)]
    return f"{_heading(name)}\n{title}\n\n{_table(['part', 'arguments', 'what it is'], rows)}"


def _heading(text: str) -> str:
    return f"{text}\n{'-' * len(text)}\n"


def _is_called(part: type) -> bool:
    """Whether instances of a class are called, as modules and granularities are."""
    return hasattr(part, "forward") or any("__call__" in vars(base) for base in part.__mro__)


def _public(module: Any) -> Iterator[type]:
    """The components of a module: its classes, without protocols and bases."""
    names = getattr(module, "__all__", None) or sorted(vars(module))
    for name in names:
        part = getattr(module, name)
        own = inspect.isclass(part) and part.__module__.startswith(module.__name__)
        if own and not inspect.isabstract(part) and not getattr(part, "_is_protocol", False) and _is_called(part):
            yield part


def _part_row(part: type) -> list[str]:
    arguments = [p for p in inspect.signature(part).parameters.values() if p.kind in (p.POSITIONAL_OR_KEYWORD,)]
    words = [f"``{p.name}``" if p.default is p.empty else f"``{p.name}={p.default!r}``" for p in arguments]
    return [f"``{part.__name__}``", ", ".join(words) or "none", _first_sentence(part)]


def _number_row(name: str, it: FloatFormat) -> list[str]:
    fields = f"{'sign, ' if it.signed else ''}{it.exponent_bits} exponent, {it.mantissa_bits} mantissa"
    smallest = f"2 ** {math.frexp(it.smallest)[1] - 1}"
    overflow = "the largest" if it.saturating else "infinity"
    return [f"``{name}``", str(it.bits), fields, str(it.bias), f"{it.max:g}", smallest, overflow, _SPECIAL[it.special]]


def _block_row(name: str, it: BlockFormat) -> list[str]:
    scales = levels(it)
    bits = f"{it.bits_per_element:g}"
    return [f"``{name}``", str(it.element), bits, ", ".join(scales), ", ".join(scales.values())]


def _recipe_row(recipe: Any) -> list[str]:
    record = describe(recipe)
    bits = f"learned, from {record.bits}" if record.learned_bits else str(record.bits)
    if record.bits_with_scales is not None:
        bits += f", with scales {record.bits_with_scales:g}"
    scale = re.sub(r"\b([A-Z]\w+|\d+\.\d+)", r"``\1``", record.scale)  # parts, and constants
    return [f"``{record.name}``", record.summary, bits, record.granularity, scale, record.source]


def _first_sentence(documented: Any) -> str:
    return " ".join((inspect.getdoc(documented) or "").split("\n\n")[0].split())


def _brevitas_row(name: str, entry: Mapping[str, str | None]) -> list[str]:
    ours = f"``{entry['ours']}``" if entry["ours"] else "none"
    return [f"``{name}``", ours, entry["note"] or ""]


def _table(head: list[str], rows: Iterable[list[str]]) -> str:
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in [head, *rows]:
        lines += [f"   {'* -' if i == 0 else '  -'} {cell}".rstrip() for i, cell in enumerate(row)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    for file, text in {**pages(), **pictures()}.items():
        (HERE / file).write_text(text, encoding="utf8")
    write_index(library("injectors"))
