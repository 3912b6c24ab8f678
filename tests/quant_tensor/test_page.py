"""The table of exact functions in the documentation."""

import re
from pathlib import Path

from brevq.quant_tensor.tensor import RULES

PAGE = (Path(__file__).parents[2] / "docs" / "quant_tensor.rst").read_text(encoding="utf8")
TABLE = PAGE.split(".. list-table::")[1]


def listed():
    """The functions of each row of the table."""
    first_cells = (re.split(r"\n     - ", row)[0] for row in TABLE.split("   * - ")[2:])
    return [re.findall(r"``(\w+)``", cell) for cell in first_cells]


def exact():
    """The functions that have a rule, by rule; what changes in place is refused for all but those that stay."""
    rules = {}
    for name, rule in RULES.items():
        rules.setdefault(rule.__qualname__ + rule.__doc__, set()).add(name)
    return [names for names in rules.values() if "add_" not in names]


def test_the_table_has_every_exact_function_once():
    """A rule that is new, or gone, is to be found in the table too, or gone from it."""
    names = [name for row in listed() for name in row]
    assert sorted(name for rule in exact() for name in rule) == sorted(names)


def test_each_row_is_of_one_rule():
    """Functions share a row where they share a rule."""
    assert sorted(map(sorted, exact())) == sorted(map(sorted, listed()))
