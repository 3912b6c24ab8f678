"""What a body declares beside classes and plain values: `value`, `this` and `supplied`."""

import copy
import enum
import pickle
from inspect import cleandoc

import pytest

from brevq.errors import ArgumentTypeError, RecipeError
from brevq.inject import Injector, build, check, supplied, this, value


class Grid:
    def __init__(self, bit_width, signed=True):
        self.bit_width = bit_width
        self.signed = signed


class Wide:
    def __init__(self, bit_width, extra_bits):
        self.bit_width = bit_width + extra_bits


class Tall:
    def __init__(self, bit_width, extra_bits):
        self.bit_width = bit_width * extra_bits


class Holder:
    def __init__(self, content):
        self.content = content


class Recipe(Injector):
    tensor_quant = Holder
    bit_width = 4


def test_value_computes():
    """A `@value` is what its function returns for the names that are its arguments."""

    class Computed(Recipe):
        @value
        def content(bit_width):
            return 2**bit_width

    assert (16, 16, 8) == (Computed.content, build(Computed).content, Computed.let(bit_width=3).content)


def test_value_of_values():
    """A `@value` may ask for another, and for a component."""

    class Computed(Recipe):
        grid_impl = Grid

        @value
        def levels(grid_impl):
            return 2**grid_impl.bit_width

        @value
        def content(levels, bit_width):
            return levels, bit_width

    assert (16, 4) == build(Computed).content


def test_value_with_default():
    """An argument of a `@value` with a default is filled where the recipe declares it."""

    class Computed(Recipe):
        @value
        def content(bit_width, offset=1):
            return bit_width + offset

    assert (5, 14) == (build(Computed).content, build(Computed.let(offset=10)).content)


@pytest.mark.parametrize("content", [None, 0, "text", [], {}])
def test_value_may_be_empty(content):
    """What a `@value` returns is passed even if it is nothing."""

    class Computed(Recipe):
        tensor_quant = Holder
        bit_width = 4

        @value
        def content(bit_width):
            return NotImplemented

    derived = Computed.let(content=value(lambda bit_width: content))
    assert content == build(derived).content


def test_value_returns_a_class():
    """A class that a `@value` returns is built, with further names of the recipe."""

    class Chosen(Recipe):
        extra_bits = 2

        @value
        def content(bit_width):
            return Wide if bit_width < 8 else Tall

    narrow, wide = build(Chosen).content, build(Chosen.let(bit_width=8)).content
    assert ((Wide, 6), (Tall, 16)) == ((type(narrow), narrow.bit_width), (type(wide), wide.bit_width))


def test_value_under_a_class_name():
    """A class that a `@value` returns under a name that ends in `_class` is passed as it is."""

    class Holds:
        def __init__(self, part_class):
            self.part_class = part_class

    class Chosen(Injector):
        tensor_quant = Holds

        @value
        def part_class():
            return Grid

    assert Grid is build(Chosen).part_class


def test_value_returns_an_enum_class():
    """An Enum class that a `@value` returns is a value, since it stands for no part."""

    class Round(enum.Enum):
        UP = "up"

    assert Round is build(Recipe.let(content=value(lambda bit_width: Round))).content


def test_value_that_returned_a_class_is_called_once():
    """A `@value` that returned a class is not called again: what it chose is part of the plan."""
    calls = []

    def choose(bit_width):
        calls.append(bit_width)
        return Wide

    chosen = Recipe.let(content=value(choose), extra_bits=1)
    assert [(Wide, 5)] * 3 == [(type(part), part.bit_width) for part in (build(chosen).content for _ in range(3))]
    check(chosen)
    assert [4] == calls


def test_value_that_returned_no_class_is_called_for_each_build():
    """A `@value` that returns a value is called for each build, so that builds share nothing by accident."""
    calls = []

    def table(bit_width):
        calls.append(bit_width)
        return []

    tabled = Recipe.let(content=value(table))
    check(tabled)
    del calls[:]
    first, second = build(tabled).content, build(tabled).content
    assert ([4, 4], False) == (calls, first is second)


def test_value_of_supplied_names():
    """A `@value` may ask for what the owner supplies."""

    class Shaped(Recipe):
        shape = supplied("shape of the weight")

        @value
        def content(shape, bit_width):
            return shape[0] * bit_width

    assert (8, 40) == (build(Shaped, {"shape": (2, 3)}).content, build(Shaped, {"shape": (10,)}).content)


def test_value_of_supplied_names_returns_a_class():
    """What is built may depend on what the owner supplies, each time anew."""

    class Shaped(Recipe):
        shape = supplied("shape of the weight")
        extra_bits = 2

        @value
        def content(shape):
            return Wide if len(shape) > 1 else Tall

    made = [build(Shaped, {"shape": shape}).content for shape in ((2,), (2, 3), (2,))]
    assert [(Tall, 8), (Wide, 6), (Tall, 8)] == [(type(part), part.bit_width) for part in made]


class Asks:
    def __init__(self, inner):
        self.inner = inner


class Deep:
    def __init__(self, depth=0):
        self.depth = depth


def test_value_behind_a_supplied_value():
    """A class from a `@value` that only the owner decides may need a `@value` that returns a class."""

    class Nested(Injector):
        shape = supplied("shape of the weight")
        depth = 3

        @value
        def tensor_quant(shape):
            return Asks

        @value
        def inner():
            return Deep

    assert 3 == build(Nested, {"shape": (2,)}).inner.depth


def test_supplied_value_behind_a_supplied_value():
    """A class from a `@value` that only the owner decides may need another such `@value`."""

    class Nested(Injector):
        shape = supplied("shape of the weight")
        depth = 3

        @value
        def tensor_quant(shape):
            return Asks

        @value
        def inner(shape):
            return Deep

    assert 3 == build(Nested, {"shape": (2,)}).inner.depth


def test_value_in_let():
    """`let` takes a `@value`."""
    assert 5 == build(Recipe.let(content=value(lambda bit_width: bit_width + 1))).content


def test_value_is_inherited_and_overridden():
    """A `@value` is a name like any other: a subclass may declare a plain value or a class instead."""

    class Computed(Recipe):
        @value
        def content(bit_width):
            return bit_width

    class Plain(Computed):
        content = 7

    class Part(Computed):
        content = Grid

    assert (4, 7, Grid) == (build(Computed).content, build(Plain).content, type(build(Part).content))


@pytest.mark.parametrize(
    "wrong", [Grid, 3, None, "text", len], ids=lambda wrong: getattr(wrong, "__name__", repr(wrong))
)
def test_value_decorates_functions(wrong):
    """`@value` refuses what is not a function written in Python."""
    with pytest.raises(ArgumentTypeError) as caught:
        value(wrong)
    assert f"`@value` decorates a function, not {wrong!r}" == str(caught.value)


def test_value_refuses_generators():
    """`@value` refuses a function that yields."""

    def levels():
        yield 1

    with pytest.raises(ArgumentTypeError) as caught:
        value(levels)
    assert "`levels` is a generator; `@value` decorates a function that returns its value" == str(caught.value)


def test_value_repr():
    """A `@value` prints as the name of its function."""
    assert "@value int" == repr(value(_int))


def _int():
    return 3


_int.__name__ = "int"


class Table:
    def __init__(self, entries=(("a", 1), ("b", 2))):
        self.entries = dict(entries)
        self.first = Grid(3)

    def __getitem__(self, key):
        return self.entries[key]


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        (this.bit_width, 4),
        (this.table.first.bit_width, 3),
        (this.table.entries["b"], 2),
        (this.table["a"], 1),
        (this.rows[1][0], 3),
        (this.rows[-1], (3, 4)),
        (this.rows[0:1], ((1, 2),)),
    ],
    ids=repr,
)
def test_this(reference, expected):
    """`this` follows a name, then attributes and items."""

    class Referring(Recipe):
        table = Table
        rows = ((1, 2), (3, 4))
        content = reference

    assert expected == Referring.content


def test_this_follows_overrides():
    """`this.name` is what the recipe at hand declares under the name, not what the declaring class does."""

    class Referring(Recipe):
        content = this.bit_width

    assert (4, 8) == (build(Referring).content, build(Referring.let(bit_width=8)).content)


def test_this_shares_parts():
    """`this.part` is the part that the same build made, not another one."""

    class Pair:
        def __init__(self, first, second):
            self.same = first is second

    class Referring(Injector):
        tensor_quant = Pair
        first = Table
        second = this.first

    assert build(Referring).same


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("reference", [this, this.x, this.x.y, this.x["a"][0].z], ids=repr)
def test_this_pickles(reference, protocol):
    """A reference survives pickling."""
    assert repr(reference) == repr(pickle.loads(pickle.dumps(reference, protocol)))


def test_this_deepcopies():
    """A reference survives copying."""
    assert ("this.x['a']", "this.x['a']") == (repr(copy.copy(this.x["a"])), repr(copy.deepcopy(this.x["a"])))


def test_this_is_equal_to_itself_written_again():
    """Two references to the same name are equal, so `let` gives the same recipe for them."""
    assert (True, False) == (this.x["a"] == this.x["a"], this.x == this.y)
    assert Recipe.let(content=this.bit_width) is Recipe.let(content=this.bit_width)


def test_this_says_nothing(recwarn):
    """Using `this` gives no notice of the package's."""
    assert (4, []) == (Recipe.let(content=this.bit_width).content, list(recwarn))


@pytest.mark.parametrize("reference", [this, this["a"]], ids=repr)
def test_this_without_a_name(reference):
    """`this` that begins with no name is refused."""

    class Referring(Injector):
        tensor_quant = Holder
        content = reference

    with pytest.raises(RecipeError) as caught:
        build(Referring)
    expected = f"""
        Can not build Referring.

        `content` is {reference!r}, which refers to no name.
        Name what it stands for: `this.name`.

          tensor_quant: Holder
            content: declared by Referring
        """
    assert cleandoc(expected) == str(caught.value)


def test_this_that_leads_nowhere():
    """`this` that asks for an attribute which is not there fails with its path."""
    with pytest.raises(RecipeError) as caught:
        build(Recipe.let(content=this.bit_width.colour))
    expected = """
        Can not build Recipe.let(content=this.bit_width.colour).

        this.bit_width.colour raised AttributeError: 'int' object has no attribute 'colour'

          tensor_quant: Holder
            content: this.bit_width.colour
              bit_width = 4, declared by Recipe
        """
    assert cleandoc(expected) == str(caught.value)


class Shaped(Injector):
    tensor_quant = Holder
    content = supplied("shape of the weight")


def test_supplied_prints_as_what_it_is():
    """A supplied name prints as what it is."""
    assert ("<shape of the weight>", "<shape of the weight>") == (
        repr(Shaped.__own__["content"]),
        str(supplied("shape of the weight")),
    )


def test_supplied_by_the_owner():
    """A supplied name is what the owner gives."""
    assert ((2, 3), None) == (build(Shaped, {"content": (2, 3)}).content, build(Shaped, {"content": None}).content)


def test_supplied_is_overridden():
    """A recipe that declares a supplied name needs no owner for it, and its own declaration counts."""
    own = Shaped.let(content=(1,))
    assert ((1,), (1,)) == (build(own).content, build(own, {"content": (2, 3)}).content)


def test_owner_supplies_more():
    """What the owner supplies and the recipe does not declare as supplied is left alone."""
    computed = Recipe.let(content=value(lambda bit_width, colour=0: (bit_width, colour)))
    assert (4, 0) == build(computed, {"bit_width": 2, "colour": 3}).content


def test_unused_supplied_names():
    """A supplied name that no part takes is no fault: bases declare all that layers have."""
    check(Recipe.let(content=this.bit_width, device=supplied("device of the weight")))


def test_supplied_without_owner():
    """A supplied name without an owner is told with what it is, where it is needed, and what to do."""
    with pytest.raises(RecipeError) as caught:
        build(Shaped)
    expected = """
        Can not build Shaped.

        `content` (shape of the weight) is supplied by the layer that a recipe is given to, \
and nothing supplies it here.
        Give the recipe to a layer, or declare the name: Shaped.let(content=...).

          tensor_quant: Holder
            content: supplied by a layer
        """
    assert cleandoc(expected) == str(caught.value)


def test_supplied_is_read():
    """Reading a component that needs an owner fails as building it does."""
    with pytest.raises(RecipeError) as built:
        build(Shaped)
    with pytest.raises(RecipeError) as read:
        Shaped.tensor_quant  # noqa: B018  # reading builds
    assert str(built.value) == str(read.value)


def test_check_needs_no_owner():
    """`check` finds no fault in a recipe that waits for an owner."""
    check(Shaped)
