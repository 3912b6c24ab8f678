"""Reads are pure: neither a build nor a failure leaves anything behind."""

import gc
import weakref

import pytest

from brevq.errors import RecipeError
from brevq.inject import Injector, build, check, diff, explain, supplied, value


class Part:
    pass


class Grid:
    def __init__(self, bit_width, signed=True):
        self.bit_width = bit_width


class Tolerant(Grid):
    def __init__(self, bit_width, bitwidth=0, colour=0):
        super().__init__(bit_width)


class Picky:
    """A component that refuses to be built while `allowed` is false."""

    allowed = True

    def __init__(self, bit_width):
        if not Picky.allowed:
            raise ValueError("not now")
        self.bit_width = bit_width


class Base(Injector):
    tensor_quant = Picky
    bit_width = 4


class Recipe(Base):
    bit_width = 8


@pytest.fixture
def _refusing(monkeypatch):
    monkeypatch.setattr(Picky, "allowed", False)


def declarations(recipe):
    """All that a recipe declares, and who does."""
    return [(row.name, row.left, row.left_by) for row in diff(recipe, Injector)], dir(recipe), dict(recipe.__own__)


def text(function, *arguments):
    with pytest.raises(RecipeError) as caught:
        function(*arguments)
    return str(caught.value)


@pytest.mark.usefixtures("_refusing")
def test_declarations_after_a_failure():
    """A failed build changes nothing of what a recipe and its base declare."""
    before = declarations(Recipe), declarations(Base), sorted(vars(Recipe))
    text(build, Recipe)
    text(check, Recipe)
    text(explain, Recipe)
    assert before == (declarations(Recipe), declarations(Base), sorted(vars(Recipe)))


def test_build_after_a_failure(monkeypatch):
    """A recipe whose build failed is built when the reason is gone, as is one derived from it."""
    monkeypatch.setattr(Picky, "allowed", False)
    text(build, Recipe)
    text(build, Recipe.let(bit_width=3))
    monkeypatch.setattr(Picky, "allowed", True)
    assert (8, 3, 4) == tuple(build(recipe).bit_width for recipe in (Recipe, Recipe.let(bit_width=3), Base))


def test_failure_after_a_build(monkeypatch):
    """A recipe that was built fails when there is a reason."""
    build(Recipe)
    monkeypatch.setattr(Picky, "allowed", False)
    assert "Picky raised ValueError: not now" in text(build, Recipe)


FAULTY = {
    "missing": {"tensor_quant": Grid, "bitwidth": 3},
    "unused": {"tensor_quant": Part, "colour": 3},
    "raising": {"tensor_quant": value(lambda: 1 / 0)},
    "instance": {"tensor_quant": Grid, "bit_width": property(len)},
    "owner": {"tensor_quant": Grid, "bit_width": supplied("number of bits")},
}


@pytest.mark.parametrize("names", FAULTY.values(), ids=FAULTY)
def test_same_text_every_time(names):
    """A faulty recipe has the same faults every time, however it is asked."""
    recipe = Injector.let(**names)
    first = text(build, recipe)
    assert [first] * 3 == [text(build, recipe), text(getattr, recipe, "tensor_quant"), text(build, recipe)]


@pytest.mark.parametrize("names", FAULTY.values(), ids=FAULTY)
def test_a_subclass_repairs(names):
    """A subclass of a faulty recipe that failed can repair it."""
    broken = Injector.let(**names)
    text(build, broken)
    repaired = broken.let(tensor_quant=Tolerant, bit_width=4)
    assert 4 == build(repaired).bit_width


def test_owner_leaves_no_trace():
    """What one owner supplied is not seen by the next build."""
    owned = Recipe.let(bit_width=supplied("number of bits"))
    assert 3 == build(owned, {"bit_width": 3}).bit_width
    assert "nothing supplies it here" in text(build, owned)
    assert 5 == build(owned, {"bit_width": 5}).bit_width


def test_owner_is_not_changed():
    """A build changes nothing of the mapping that the owner gave."""
    supplies = {"bit_width": 3, "device": "cpu"}
    build(Recipe.let(bit_width=supplied("number of bits")), supplies)
    assert {"bit_width": 3, "device": "cpu"} == supplies


def test_reading_is_not_building_all():
    """Reading a name builds what it needs and nothing else."""
    built = []

    class Counted:
        def __init__(self):
            built.append("counted")

    class Both(Recipe):
        other = Counted
        grid = Grid

    assert (8, 8) == (Both.grid.bit_width, Both.bit_width)
    assert [] == built


def test_reading_a_plain_value_builds_nothing():
    """A plain value of a recipe full of faults can be read."""
    broken = Recipe.let(tensor_quant=Grid(3), colour=Part, grid_impl=3)
    assert (8, True, Part) == (broken.bit_width, "colour" in broken, type(broken.colour))


def test_parts_are_freed():
    """A recipe keeps none of the parts that it built, for a trial or for good."""

    class Trial(Injector):
        part_impl = Part

        @value
        def tensor_quant(part_impl):
            return Holder

    class Holder:
        def __init__(self, part_impl):
            self.part_impl = part_impl

    def count():
        gc.collect()
        return sum(type(thing) is Part for thing in gc.get_objects())

    before = count()
    check(Trial)
    build(Trial)
    explain(Trial)
    assert before == count()


@pytest.mark.parametrize("names", FAULTY.values(), ids=FAULTY)
def test_a_failure_holds_nothing_of_its_caller(names):
    """What a caller had at hand when its build failed is freed when the caller is done with it."""
    recipe = Injector.let(**names)

    def calling():
        mine = Part()
        with pytest.raises(RecipeError):
            build(recipe)
        return weakref.ref(mine)

    reference = calling()
    gc.collect()
    assert None is reference()


def owned_thing(recipe):
    """A reference to something that an owner supplied to a build that is over."""
    mine = Part()
    build(recipe, {"bit_width": mine})
    return weakref.ref(mine)


def test_owners_things_are_freed():
    """A recipe in which no `@value` waits for the owner keeps nothing that an owner supplied."""
    reference = owned_thing(Recipe.let(bit_width=supplied("number of bits"), tensor_quant=Picky))
    gc.collect()
    assert None is reference()


def test_owners_things_are_freed_with_the_recipe():
    """What an owner supplied to a `@value` is part of a plan, which is freed with its recipe."""
    chosen = Recipe.let(bit_width=supplied("number of bits"), tensor_quant=value(lambda bit_width: Part))
    reference, recipe = owned_thing(chosen), weakref.ref(chosen)
    del chosen
    gc.collect()
    assert (None, None) == (reference(), recipe())


def test_base_is_planned_without_a_trace():
    """Planning a recipe plans its bases, and keeps none of the recipes that inherit from them."""
    base = Recipe.let(signed=True, tensor_quant=Grid)
    derived = base.let(bit_width=5)
    build(derived)
    reference = weakref.ref(derived)
    del derived
    gc.collect()
    assert None is reference()
    assert 8 == build(base).bit_width
