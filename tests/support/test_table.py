"""What layers and recipes do together, and the page that says so."""

import brevq.nn as qnn
from brevq.nn.module import QuantModule
from tests.support.page import PAGE, page
from tests.support.table import CASES

BASES = {"QuantActivation", "QuantLayer", "QuantModule", "QuantOperation", "QuantRecurrent"}


def test_every_layer_is_in_the_table():
    """A layer that `brevq.nn` offers is tried."""
    kinds = {name for name in qnn.__all__ if isinstance(getattr(qnn, name), type)}
    assert CASES.keys() == {name for name in kinds if issubclass(getattr(qnn, name), QuantModule)} - BASES


def test_page_says_what_was_tried(bad_inputs):
    """The page has, cell by cell, what comes out when every cell is tried; refusals have reasons, and no others."""
    assert page(bad_inputs) == PAGE.read_text(encoding="utf-8")
