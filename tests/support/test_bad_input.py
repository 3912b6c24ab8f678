"""Bad input, over all layers and all families of recipes."""

from tests.support import bad_input


def test_the_page_is_current(bad_inputs):
    """The page says what happens; `python tests/support/bad_input.py` writes it anew."""
    assert bad_input.page(bad_inputs) == bad_input.PAGE.read_text(encoding="utf-8")


def test_every_exception_has_a_reason(bad_inputs):
    """What is not as usual is so for a reason that is stated, and no stated reason is without a case."""
    told = [part for kind, row in bad_inputs.items() for part in bad_input.exceptions(kind, row)]
    assert [(outcome, those) for outcome, _, those, why in told if why is None] == []
    assert {why for *_, why in bad_input.REASONS} == {why for *_, why in told}


def test_nothing_spoils_a_layer(bad_inputs):
    """After any input a layer's state is finite, unless that of the float layer is not."""
    outcomes = {outcome for row in bad_inputs.values() for of in row.values() for outcome in of.values()}
    assert not any("spoiled" in outcome or outcome in ("different", "NaN is lost") for outcome in outcomes)
    assert not any("wrong gradients" in outcome or "another shape" in outcome for outcome in outcomes)
