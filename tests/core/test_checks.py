"""Rules for constructor arguments: what passes, and the full text of each refusal."""

import math

import pytest
import torch

from brevq.core.checks import at_least_one, between, called, count, positive, restriction, statistic, whole_bits
from brevq.core.function_wrapper import FloorSte, Identity, RoundSte, TensorClamp
from brevq.core.restrict_val import FloatRestrictValue, IntRestrictValue, PowerOfTwoRestrictValue
from brevq.core.stats import AbsMax
from brevq.errors import ArgumentError, ArgumentTypeError
from brevq.nn import QuantLinear

PASSES = [
    (whole_bits, ("bit_width", 4), 4),
    (whole_bits, ("bit_width", 4.0), 4),
    (whole_bits, ("bit_width", 1), 1),
    (whole_bits, ("bit_width", 32, True), 32),
    (whole_bits, ("bit_width", 2, True), 2),
    (positive, ("sigma", 1), 1.0),
    (positive, ("sigma", 5e-324), 5e-324),
    (between, ("momentum", 0, 0, 1), 0.0),
    (between, ("momentum", 1, 0, 1), 1.0),
    (count, ("steps", 0), 0),
    (count, ("steps", 300), 300),
    (at_least_one, ("bins", 1), 1),
    (at_least_one, ("bins", 2048), 2048),
]
BITS = "must be a whole number of bits from 1 to 32"
SIGNED_BITS = "must be a whole number of signed bits from 2 to 32"
POSITIVE = "must be a finite number above 0"
BETWEEN = "must be a number from 0 to 0.5"
ONE = "must be a whole number, 1 or more"
COUNT = "must be a whole number of steps, 0 or more"
REFUSALS = [
    (whole_bits, ("b", 0), ArgumentError, f"`b` (=0) {BITS}"),
    (whole_bits, ("b", -1), ArgumentError, f"`b` (=-1) {BITS}"),
    (whole_bits, ("b", 33), ArgumentError, f"`b` (=33) {BITS}"),
    (whole_bits, ("b", 4.5), ArgumentError, f"`b` (=4.5) {BITS}"),
    (whole_bits, ("b", math.inf), ArgumentError, f"`b` (=inf) {BITS}"),
    (whole_bits, ("b", math.nan), ArgumentError, f"`b` (=nan) {BITS}"),
    (whole_bits, ("b", 1, True), ArgumentError, f"`b` (=1) {SIGNED_BITS}"),
    (whole_bits, ("b", "4"), ArgumentTypeError, f"`b` (='4') {BITS}, not str"),
    (whole_bits, ("b", True), ArgumentTypeError, f"`b` (=True) {BITS}, not bool"),
    (whole_bits, ("b", None, True), ArgumentTypeError, f"`b` (=None) {SIGNED_BITS}, not NoneType"),
    (positive, ("s", 0), ArgumentError, f"`s` (=0) {POSITIVE}"),
    (positive, ("s", -0.5), ArgumentError, f"`s` (=-0.5) {POSITIVE}"),
    (positive, ("s", math.inf), ArgumentError, f"`s` (=inf) {POSITIVE}"),
    (positive, ("s", math.nan), ArgumentError, f"`s` (=nan) {POSITIVE}"),
    (positive, ("s", "1"), ArgumentTypeError, f"`s` (='1') {POSITIVE}, not str"),
    (positive, ("s", True), ArgumentTypeError, f"`s` (=True) {POSITIVE}, not bool"),
    (between, ("m", -0.1, 0, 0.5), ArgumentError, f"`m` (=-0.1) {BETWEEN}"),
    (between, ("m", 0.6, 0, 0.5), ArgumentError, f"`m` (=0.6) {BETWEEN}"),
    (between, ("m", math.nan, 0, 0.5), ArgumentError, f"`m` (=nan) {BETWEEN}"),
    (between, ("m", None, 0, 0.5), ArgumentTypeError, f"`m` (=None) {BETWEEN}, not NoneType"),
    (count, ("n", -1), ArgumentError, f"`n` (=-1) {COUNT}"),
    (count, ("n", 1.0), ArgumentTypeError, f"`n` (=1.0) {COUNT}, not float"),
    (count, ("n", True), ArgumentTypeError, f"`n` (=True) {COUNT}, not bool"),
    (at_least_one, ("n", 0), ArgumentError, f"`n` (=0) {ONE}"),
    (at_least_one, ("n", -3), ArgumentError, f"`n` (=-3) {ONE}"),
    (at_least_one, ("n", 1.0), ArgumentTypeError, f"`n` (=1.0) {ONE}, not float"),
    (at_least_one, ("n", True), ArgumentTypeError, f"`n` (=True) {ONE}, not bool"),
]


@pytest.mark.parametrize(("check", "arguments", "expected"), PASSES)
def test_what_passes_is_converted(check, arguments, expected):
    """A good value comes back in the one type that the rule names."""
    actual = check(*arguments)
    assert (expected, type(expected)) == (actual, type(actual))


@pytest.mark.parametrize(("check", "arguments", "kind", "message"), REFUSALS)
def test_what_is_refused_hears_the_rule(check, arguments, kind, message):
    """A bad value is refused with its name, itself and the rule."""
    with pytest.raises(kind) as error:
        check(*arguments)
    assert message == str(error.value)


class Optional(torch.nn.Module):
    """A component that takes one argument or two."""

    def forward(self, x, y=None):
        """The first."""
        return x


COMPONENTS = [
    (called, (RoundSte(), "x")),
    (called, (TensorClamp(), "x", "low", "high")),
    (called, (Optional(), "x")),
    (called, (Optional(), "x", "y")),
    (called, (lambda x: x, "x")),
    (called, (torch.round, "x")),
    (called, (None, "x")),
    (statistic, (AbsMax(),)),
    (restriction, (FloatRestrictValue(),)),
]


@pytest.mark.parametrize(("check", "arguments"), COMPONENTS)
def test_components_that_fit(check, arguments):
    """A component whose signature takes what it is called with comes back; so does one that does not tell."""
    assert arguments[0] is check("part", *arguments)


OUT = "hand in a component that takes ({}), or hand this one to a component that calls it with ({})"
NO_COMPONENT = "must be a component, which can be called: make an instance"
MISFITS = [
    (
        called,
        (RoundSte(), "x", "low"),
        "`p` (=RoundSte()) is called with (x, low), and takes (x): " + OUT.format("x, low", "x"),
    ),
    (
        called,
        (TensorClamp(),),
        "`p` (=TensorClamp()) is called with (), and takes (x, min_val, max_val): "
        + OUT.format("", "x, min_val, max_val"),
    ),
    (
        called,
        (Optional(), "a", "b", "c"),
        "`p` (=Optional()) is called with (a, b, c), and takes (x, y): " + OUT.format("a, b, c", "x, y"),
    ),
    (called, (3, "x"), f"`p` (=3) {NO_COMPONENT}"),
    (called, (Optional, "x"), f"`p` (={Optional!r}) {NO_COMPONENT}"),
    (
        statistic,
        (Identity(),),
        "`p` (=Identity()) has no `granularity_impl`, which a statistic has: hand in one, such as `AbsMax`",
    ),
    (
        restriction,
        (RoundSte(),),
        "`p` (=RoundSte()) has no `encode`, which a restriction has: hand in one, such as `FloatRestrictValue`",
    ),
]


@pytest.mark.parametrize(("check", "arguments", "message"), MISFITS)
def test_components_that_do_not_fit(check, arguments, message):
    """A component that takes something else is refused with what it takes, what it would be given, and a way out."""
    with pytest.raises(ArgumentTypeError) as error:
        check("p", *arguments)
    assert message == str(error.value)


@pytest.mark.parametrize(("kind", "builtin"), [(ArgumentError, ValueError), (ArgumentTypeError, TypeError)])
def test_errors_are_builtin_ones_too(kind, builtin):
    """Whoever catches the built-in error catches ours."""
    assert issubclass(kind, builtin)


@pytest.mark.parametrize(
    ("create", "name"),
    [
        (lambda: QuantLinear(4, 4).weight_quant.tensor_quant.int_quant, "float_to_int_impl"),
        (lambda: QuantLinear(4, 4).weight_quant.tensor_quant.int_quant, "tensor_clamp_impl"),
        (PowerOfTwoRestrictValue, "float_to_int_impl"),
        (IntRestrictValue, "float_to_int_impl"),
    ],
)
def test_parts_are_not_exchanged(create, name):
    """Another part, where a quantizer was made for the first, is refused; what all share stays as it is."""
    before = QuantLinear(4, 4).weight_quant.tensor_quant.int_quant.float_to_int_impl
    with pytest.raises(ArgumentError, match=rf"`{name}` of \w+ can not be exchanged: .*\.let\({name}=\.\.\.\)"):
        setattr(create(), name, FloorSte())
    assert before is QuantLinear(4, 4).weight_quant.tensor_quant.int_quant.float_to_int_impl
