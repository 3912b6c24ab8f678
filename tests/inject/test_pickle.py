"""Recipes pickle, in one process and from one to another."""

import copy
import pickle
import textwrap

import pytest

from brevq.inject import Injector, build, diff, supplied, this, value

PROTOCOLS = range(2, pickle.HIGHEST_PROTOCOL + 1)


class Grid:
    def __init__(self, bit_width, levels, signed=True, reference=None):
        self.bit_width = bit_width
        self.levels = levels
        self.signed = signed
        self.reference = reference


def doubled(bit_width):
    return 2 * bit_width


class Recipe(Injector):
    """Four bits."""

    tensor_quant = Grid
    bit_width = 4

    @value
    def levels(bit_width):
        return 2**bit_width


class Outer(Injector):
    class Inner(Injector):
        x = 1


Derived = Recipe.let(signed=False)


class OfDerived(Recipe.let(bit_width=3)):
    signed = False


class Left(Injector):
    x = 1


class Right(Injector):
    x = 2
    y = 2


def again(content, protocol):
    return pickle.loads(pickle.dumps(content, protocol))


def local():
    """A recipe without a name in its module."""

    class Local(Recipe):
        """Two bits."""

        bit_width = 2
        reference = this.bit_width
        shape = supplied("shape of the weight")

    return Local


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "recipe",
    [
        Injector,
        Recipe,
        Outer.Inner,
        Derived,
        OfDerived,
        Recipe.let(bit_width=8),
        Recipe.let(bit_width=8).let(signed=False),
        OfDerived.let(signed=True, bit_width=2.5),
        Recipe.let(tensor_quant=dict),
        Recipe.let(note="a.b(c, d=[1, 2])"),
    ],
    ids=lambda content: content.__name__ if isinstance(content, type) else str(content),
)
def test_same_class(recipe, protocol):
    """A recipe with a name in its module, or derived by `let` from one, comes back as itself."""
    assert again(recipe, protocol) is recipe


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "overrides",
    [
        {"bit_width": [8]},
        {"levels": value(doubled)},
        {"levels": this.bit_width},
        {"shape": supplied("shape of the weight")},
        {"bit_width": float("nan")},
    ],
    ids=["unhashable", "value", "this", "supplied", "nan"],
)
def test_derived(overrides, protocol):
    """A derived recipe comes back with its name, its bases and its contents."""
    derived = Recipe.let(**overrides)
    back = again(derived, protocol)
    assert (derived.__name__, derived.__bases__, derived.__module__) == (back.__name__, back.__bases__, back.__module__)
    (name,) = overrides
    assert dir(derived) == dir(back)
    assert _declared(derived, name) == _declared(back, name)


def _declared(recipe, name):
    return next((row.left, row.left_by) for row in diff(recipe, Recipe) if row.name == name)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_local_class(protocol):
    """A recipe whose class statement stands in a function comes back as an equal one."""
    original = local()
    back = again(original, protocol)
    assert ("Local", "Two bits.", (Recipe,), 2, 2, 4) == (
        back.__name__,
        back.__doc__,
        back.__bases__,
        back.bit_width,
        back.reference,
        back.levels,
    )
    assert (original.__qualname__, original.__module__) == (back.__qualname__, back.__module__)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_derived_of_local_class(protocol):
    """A recipe derived from one without a module-level name comes back whole."""
    back = again(local().let(bit_width=7), protocol)
    assert ("Local.let(bit_width=7)", 7, 128) == (back.__name__, back.bit_width, back.levels)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_local_class_with_two_bases(protocol):
    """A recipe without a module-level name keeps the order of its bases."""

    class Both(Right, Left):
        z = 3

    back = again(Both, protocol)
    assert (2, 2, 3, (Right, Left)) == (back.x, back.y, back.z, back.__bases__)


def test_shared_in_one_pickle():
    """A local recipe that is pickled twice in one go comes back as one class."""
    original = local()
    first, second = pickle.loads(pickle.dumps((original, original)))
    assert first is second


def test_equal_contents_come_back():
    """Contents that are equal and different come back as what they were."""
    contents = [True, 1, 1.0, 0.0, -0.0]
    assert list(map(repr, contents)) == [repr(pickle.loads(pickle.dumps(Left.let(x=x))).x) for x in contents]


class Holder:
    """Something that holds recipes, as a model does."""

    def __init__(self, *recipes):
        self.recipes = recipes


def test_holder():
    """What holds recipes can be pickled and copied."""
    holder = Holder(Recipe, Recipe.let(bit_width=8), local())
    pickled, copied = pickle.loads(pickle.dumps(holder)), copy.deepcopy(holder)
    assert [4, 8, 2] == [recipe.bit_width for recipe in pickled.recipes]
    assert holder.recipes == copied.recipes
    assert (Recipe, Recipe.let(bit_width=8)) == pickled.recipes[:2]


def test_a_pickled_recipe_builds():
    """A recipe that comes back is planned and built as the original is."""
    original = local().let(signed=False)
    back = again(original, 4)
    assert (2, 4, False, 2) == tuple(vars(build(back)).values())


MODULE = '''
from brevq.inject import Injector, build, this, value

class Grid:
    def __init__(self, bit_width, levels, signed=True, bits=None):
        self.bit_width = bit_width
        self.levels = levels
        self.signed = signed

class Base(Injector):
    """The base."""
    tensor_quant = Grid
    bit_width = 4

    @value
    def levels(bit_width):
        return 2 ** bit_width

def local():
    class Local(Base.let(bit_width=6)):
        signed = False
    return Local
'''

WRITE = """
import pickle, carpool
recipes = [
    carpool.Base,
    carpool.Base.let(bit_width=8, signed=-0.0),
    carpool.Base.let(bit_width=carpool.this.bits[0], bits=[3]),
    carpool.local(),
    carpool.local().let(bit_width=2),
]
with open("recipes.pickle", "wb") as file:
    pickle.dump(recipes, file, {protocol})
"""

READ = """
import pickle
with open("recipes.pickle", "rb") as file:
    recipes = pickle.load(file)
import carpool
for recipe in recipes:
    grid = recipe.tensor_quant
    print(recipe.__name__, grid.bit_width, grid.signed, grid.levels)
print(recipes[0] is carpool.Base, recipes[1] is carpool.Base.let(bit_width=8, signed=-0.0))
"""


@pytest.mark.parametrize("protocol", [2, pickle.HIGHEST_PROTOCOL])
def test_across_processes(python, tmp_path, protocol):
    """A pickle of recipes that one process writes is read by another."""
    (tmp_path / "carpool.py").write_text(MODULE)
    written = python(WRITE.format(protocol=protocol))
    assert (0, "", "") == (written.returncode, written.stdout, written.stderr)
    read = python(READ)
    expected = """
        Base 4 True 16
        Base.let(bit_width=8, signed=-0.0) 8 -0.0 256
        Base.let(bit_width=this.bits[0], bits=[3]) 3 True 8
        Local 6 False 64
        Local.let(bit_width=2) 2 False 4
        True True
        """
    assert (textwrap.dedent(expected).lstrip(), "") == (read.stdout, read.stderr)
