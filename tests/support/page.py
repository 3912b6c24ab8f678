"""Writes ``docs/support.rst``: what works with what, every cell tried.

``python -m tests.support.page`` writes it; a test compares.
"""

import functools
import sys
from pathlib import Path

import torch

from tests.support import bad_input, processes
from tests.support.table import ABILITIES, CASES, FAMILIES, REASONS, together, tried

PAGE = Path(__file__).parents[2] / "docs" / "support.rst"

INTRODUCTION = """\
What works with what
====================

Every cell was tried; a number stands for a reason, below the table.

**Families**: a layer with recipes of one kind in all its places is trained a step, calibrated and evaluated.

**Abilities**, of int8 layers with weights per channel: trained and evaluated in each dtype and under autocast; compiled
(``fullgraph``, training and evaluation), exported and traced by ``torch.fx``, with outputs equal to eager ones; the
state saved and loaded strictly, that of the float twin loaded too; deep copies, pickles and saved models with equal
outputs; made on the meta device and filled; trained in two processes under ``DistributedDataParallel`` and
``fully_shard``, with the numbers of one; and unspoiled by bad input, as :doc:`bad_input` tells.
"""

_NOTHING = "it has no parameters but those of ranges, which are replicated"


def page(found: dict[str, bad_input.Row]) -> str:
    """The page, every cell tried.

    Args:
        found: what became of bad input.
    """
    families = {
        (layer, family): tried(together(case, recipes))
        for layer, case in CASES.items()
        for family, recipes in FAMILIES.items()
    }
    refused = {cell for cell, said in families.items() if said != "yes"}
    if refused != REASONS.keys():
        raise AssertionError(f"cells and reasons differ: {sorted(refused ^ REASONS.keys())}")
    abilities = {
        (layer, name): tried(functools.partial(attempt, case))
        for layer, case in CASES.items()
        for name, attempt in ABILITIES.items()
    }
    together_found = processes.tried()
    sharding = {cell: _NOTHING for cell, said in together_found.items() if said == processes.NOTHING}
    unspoiled = {(layer, "bad input"): _unspoiled(layer, found) for layer in CASES}
    return "\n".join(
        [
            INTRODUCTION,
            _section("Layers and families of recipes", list(FAMILIES), families, REASONS),
            _section(
                "Layers and abilities",
                [*ABILITIES, "DDP", "FSDP2", "bad input"],
                abilities | together_found | unspoiled,
                sharding,
            ),
        ]
    )


def _unspoiled(layer: str, found: dict[str, bad_input.Row]) -> str:
    """Whether bad input was tried on a layer, and none spoiled it."""
    outcomes = [
        outcome
        for row in found.values()
        for of in row.values()
        for subject, outcome in of.items()
        if subject.layer == layer
    ]
    return "yes" if outcomes and not any("spoiled" in outcome for outcome in outcomes) else "spoiled"


def _section(title: str, columns: list[str], said: dict[tuple[str, str], str], why: dict[tuple[str, str], str]) -> str:
    """A table with numbers in place of reasons, and the reasons below."""
    reasons = list(dict.fromkeys(why.values()))
    cells = said | {cell: str(reasons.index(reason) + 1) for cell, reason in why.items()}
    rows = [["layer", *columns], *([layer, *(cells[layer, column] for column in columns)] for layer in CASES)]
    lines = [f"   {'* -' if i == 0 else '  -'} {cell}" for row in rows for i, cell in enumerate(row)]
    head = [title, "-" * len(title), "", ".. list-table::", "   :header-rows: 1", "   :stub-columns: 1", ""]
    notes = [f"{number}. {reason.capitalize()}." for number, reason in enumerate(reasons, start=1)]
    return "\n".join([*head, *lines, "", *notes, ""])


if __name__ == "__main__":
    torch.set_num_threads(1)
    PAGE.write_text(page(bad_input.results()), encoding="utf-8")
    sys.stdout.write(f"{PAGE.name} is written\n")
