"""Bad input, over all layers and all families of recipes."""

import pytest

from tests.support import bad_input


@pytest.fixture(scope="module")
def found():
    """What happens, tried once."""
    return bad_input.results()


@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")  # torch's, for integers in RMSNorm
def test_the_page_is_current(found):
    """The page says what happens; `python tests/support/bad_input.py` writes it anew."""
    assert bad_input.page(found) == bad_input.PAGE.read_text(encoding="utf-8")


def test_every_exception_has_a_reason(found):
    """What is not as usual is so for a reason that is stated, and no stated reason is without a case."""
    told = [part for kind, row in found.items() for part in bad_input.exceptions(kind, row)]
    assert [(outcome, those) for outcome, _, those, why in told if why is None] == []
    assert {why for *_, why in bad_input.REASONS} == {why for *_, why in told}


def test_nothing_spoils_a_layer(found):
    """After any input a layer's state is finite, unless that of the float layer is not."""
    outcomes = {outcome for row in found.values() for of in row.values() for outcome in of.values()}
    assert not any("spoiled" in outcome or outcome in ("different", "NaN is lost") for outcome in outcomes)
    assert not any("wrong gradients" in outcome or "another shape" in outcome for outcome in outcomes)
