"""Write the pages that list what there is: the parts in `brevq.core`, and the recipes in `injectors`.

Run ``python docs/generate.py`` after adding one; a test compares the pages with what this writes.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import injectors
from brevq.quantizer import Quantizer

HERE = Path(__file__).parent

#: What the modules hold, in the order of the page.
MODULES = {
    "brevq.core.quant": "Quantizers: `tensor_quant`, `int_quant`, `decoupled_int_quant`",
    "brevq.core.scaling": "Scales and thresholds: `scaling_impl`, `int_scaling_impl`, `float_scaling_impl`, ...",
    "brevq.core.stats": "Statistics: `scaling_stats_impl`, `zero_point_stats_impl`, `running_impl`",
    "brevq.core.restrict_val": "Which values a scale may take: `restrict_scaling_impl`",
    "brevq.core.zero_point": "Zero-points: `zero_point_impl`",
    "brevq.core.bit_width": "Bit widths: `bit_width_impl`",
    "brevq.core.function_wrapper": "Granularity, rounding, clamping: `granularity_impl`, `float_to_int_impl`, ...",
}

PARTS = """\
Parts
=====

What recipes are assembled from. Each is a class to be imported from the module that heads its table, and named in a
recipe; the names of its arguments are names of the recipe, and those with a default may be left out. ``help(Part)``
gives formula, shapes, errors and source.
"""

_COLUMNS = ["name", "what it is", "bits", "per", "scale", "source"]

LIBRARY = """\
The recipes
===========

All are in ``injectors``. The names say format, role and granularity; ``explain(recipe)`` shows the parts.
"""


def parts() -> str:
    """The page that lists the components."""
    return PARTS + "".join(f"\n{_section(name, title)}" for name, title in MODULES.items())


def library() -> str:
    """The page that lists the recipes."""
    recipes = [getattr(injectors, name) for name in injectors.__all__]
    roles = {role: [recipe for recipe in recipes if recipe.role == role] for role in ("weight", "activation", "bias")}
    return LIBRARY + "".join(
        f"\n{_heading(f'For the role: {role}')}\n{_table(_COLUMNS, map(_recipe_row, found))}"
        for role, found in roles.items()
    )


def pages() -> dict[str, str]:
    """The generated pages by file name."""
    return {"parts.rst": parts(), "library.rst": library()}


def _section(name: str, title: str) -> str:
    module = importlib.import_module(name)
    rows = [_part_row(part) for part in _public(module)]
    return f"{_heading(name)}\n{title}.\n\n{_table(['part', 'arguments', 'what it is'], rows)}"


def _heading(text: str) -> str:
    return f"{text}\n{'-' * len(text)}\n"


def _public(module: Any) -> Iterator[type]:
    """The components of a module: its classes, without protocols and bases."""
    names = getattr(module, "__all__", None) or sorted(vars(module))
    for name in names:
        part = getattr(module, name)
        own = inspect.isclass(part) and part.__module__.startswith(module.__name__)
        if own and hasattr(part, "forward") and not inspect.isabstract(part):
            yield part


def _part_row(part: type) -> list[str]:
    arguments = [p for p in inspect.signature(part).parameters.values() if p.kind in (p.POSITIONAL_OR_KEYWORD,)]
    words = [f"``{p.name}``" if p.default is p.empty else f"``{p.name}={p.default!r}``" for p in arguments]
    return [f"``{part.__name__}``", ", ".join(words) or "none", _first_sentence(part)]


def _recipe_row(recipe: Any) -> list[str]:
    """What a recipe is, and what it builds for a weight of 64 by 64."""
    quantizer = Quantizer(recipe, {"tensor_shape": (64, 64), "channel_axis": 0})
    parts = list(quantizer.tensor_quant.modules())
    granularity = (
        type(quantizer.granularity).__name__.removeprefix("Per").lower() if quantizer.granularity else "tensor"
    )
    scaling = [part for part in parts if type(part).__name__.endswith("Scaling") and hasattr(part, "forward")]
    kinds = [
        type(part).__name__ for part in scaling if not type(part).__name__.endswith(("IntScaling", "FloatScaling"))
    ]
    scale = f"``{kinds[0]}``" if kinds else "given by the layer"
    powers = ", power of two" if any(getattr(part, "power_of_two", False) for part in parts) else ""
    bits = quantizer.grid[0].item() or "learned"
    return [f"``{recipe.__name__}``", _first_sentence(recipe), str(bits), granularity, scale + powers, _source(recipe)]


def _source(recipe: Any) -> str:
    """Where a recipe comes from, as its documentation says."""
    text = " ".join((inspect.getdoc(recipe) or "").split())
    return text.partition("Source: ")[2].rstrip(".")


def _first_sentence(documented: Any) -> str:
    return " ".join((inspect.getdoc(documented) or "").split("\n\n")[0].split())


def _table(head: list[str], rows: Any) -> str:
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in [head, *rows]:
        lines += [f"   {'* -' if i == 0 else '  -'} {cell}" for i, cell in enumerate(row)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    for file, text in pages().items():
        (HERE / file).write_text(text, encoding="utf8")
