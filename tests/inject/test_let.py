"""`let`: deriving a recipe by overriding names."""

import gc
import weakref
from inspect import cleandoc

import pytest

from brevq.errors import RecipeError
from brevq.inject import Injector, build


class Grid:
    def __init__(self, bit_width, signed=True):
        self.bit_width = bit_width
        self.signed = signed


class OtherGrid(Grid):
    pass


class Recipe(Injector):
    """A grid."""

    tensor_quant = Grid
    bit_width = 4


class Plain(Injector):
    x = "own"


def test_overrides():
    """`let` derives a recipe with other contents, and leaves the recipe itself as it is."""
    derived = Recipe.let(bit_width=8, tensor_quant=OtherGrid)
    assert (OtherGrid, 8) == (type(build(derived)), build(derived).bit_width)
    assert (Grid, 4) == (type(build(Recipe)), build(Recipe).bit_width)


def test_is_a_subclass():
    """What `let` derives is a subclass, with the module and docstring of the recipe."""
    derived = Recipe.let(bit_width=8)
    assert ((Recipe,), __name__, "A grid.") == (derived.__bases__, derived.__module__, derived.__doc__)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"bit_width": 8}, "Recipe.let(bit_width=8)"),
        ({"tensor_quant": OtherGrid}, "Recipe.let(tensor_quant=OtherGrid)"),
        ({"bit_width": 8, "signed": False}, "Recipe.let(bit_width=8, signed=False)"),
        ({"x": "a" * 60}, f"Recipe.let(x='{'a' * 36}...)"),
    ],
    ids=["value", "class", "two", "long"],
)
def test_name(overrides, expected):
    """A derived recipe is called by its overrides, long ones cut short."""
    assert expected == Recipe.let(**overrides).__name__


def test_nothing_to_override():
    """`let()` is the recipe itself."""
    assert Recipe.let() is Recipe


def test_same_overrides_give_the_same_class():
    """The same overrides give the same class, in whatever order they are written."""
    assert Recipe.let(bit_width=8) is Recipe.let(bit_width=8)
    assert Recipe.let(bit_width=8, signed=False) is Recipe.let(signed=False, bit_width=8)


def test_other_overrides_give_other_classes():
    """Other overrides, or the same ones of another recipe, give another class."""

    class Twin(Recipe):
        pass

    classes = {Recipe.let(bit_width=8), Recipe.let(bit_width=3), Recipe.let(signed=8), Twin.let(bit_width=8)}
    assert 4 == len(classes)


EQUAL_BUT_DIFFERENT = [
    (True, 1),
    (1, 1.0),
    (1.0, True),
    (False, 0),
    (0.0, -0.0),
    (0, -0.0),
    ((1,), (True,)),
    ((0.0,), (-0.0,)),
    (frozenset({1}), frozenset({True})),
    (1 + 0j, 1),
]


@pytest.mark.parametrize(("first", "second"), EQUAL_BUT_DIFFERENT, ids=repr)
def test_equal_but_different(first, second):
    """Contents that are equal and yet of another type or sign are kept apart."""
    derived = Plain.let(x=first), Plain.let(x=second)
    assert (repr(first), repr(second)) == (repr(derived[0].x), repr(derived[1].x))
    assert (type(first), type(second)) == (type(derived[0].x), type(derived[1].x))


@pytest.mark.parametrize("content", [[1, 2], {"a": 1}, {1, 2}, bytearray(b"ab")], ids=repr)
def test_unhashable(content):
    """A content without a hash is kept as it is, and gives a class of its own each time."""
    first, second = Plain.let(x=content), Plain.let(x=content)
    assert (True, True, False) == (first.x is content, second.x is content, first is second)


def test_not_a_number():
    """A content that is not equal to itself is kept as it is."""
    nan = float("nan")
    assert Plain.let(x=nan).x is nan


def test_content_that_does_not_compare():
    """A content whose comparison raises can be declared."""

    class Array:
        def __eq__(self, other):
            raise ValueError("the truth value of an array is ambiguous")

        __hash__ = object.__hash__

    array, other = Array(), Array()
    assert (True, True) == (Plain.let(x=array).x is array, Plain.let(x=other).x is other)


def test_chain():
    """Overrides of overrides are resolved one after the other; the last counts."""
    derived = Recipe.let(bit_width=8).let(signed=False).let(bit_width=3)
    assert (3, False) == (build(derived).bit_width, build(derived).signed)
    assert "Recipe.let(bit_width=8).let(signed=False).let(bit_width=3)" == derived.__name__


def test_subclass_of_derived():
    """A derived recipe can be subclassed by a class statement."""

    class Sub(Recipe.let(bit_width=8)):
        signed = False

    assert (8, False) == (build(Sub).bit_width, build(Sub).signed)


def test_new_names():
    """`let` may declare a name that the recipe has not yet."""
    assert (True, False) == ("signed" in Recipe.let(signed=True), "signed" in Recipe)


def test_misspelt():
    """A misspelt override is an error of the build, not of `let`."""
    derived = Recipe.let(bitwidth=3)
    with pytest.raises(RecipeError) as caught:
        build(derived)
    expected = """
        Can not build Recipe.let(bitwidth=3).

        Nothing takes `bitwidth`, which Recipe.let(...) declares. Did you mean `bit_width`?
        """
    assert cleandoc(expected) == str(caught.value)


def test_derived_classes_are_collected():
    """Derived recipes that nobody holds are freed, planned, built and failed ones too."""

    def derive():
        made = [Recipe.let(bit_width=100 + i) for i in range(20)]
        made += [recipe.let(signed=[i]) for i, recipe in enumerate(list(made))]
        for recipe in made:
            build(recipe)
        broken = Recipe.let(bitwidth=100)
        with pytest.raises(RecipeError):
            build(broken)
        return [weakref.ref(recipe) for recipe in [*made, broken]]

    derived = derive()
    gc.collect()
    assert [] == [reference for reference in derived if reference() is not None]


def test_contents_are_freed():
    """A content that was declared by `let` is freed with the class."""

    class Content:
        pass

    reference = weakref.ref(Plain.let(x=Content()).x)
    gc.collect()
    assert None is reference()
