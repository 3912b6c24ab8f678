"""Parts without state: built once for equal arguments, and shared."""

import gc
import weakref

from brevq.inject import Injector, build, value
from brevq.inject.shared import is_stateless, shared


class Rounding:
    """A part without state."""

    stateless = True

    def __init__(self, digits=0):
        self.digits = digits


class Counting(Rounding):
    """A part with state, which inherits from one without."""

    def __init__(self):
        super().__init__()
        self.count = 0


class Sometimes:
    """A part that has a state where it is told so."""

    def __init__(self, rounding_impl, counts):
        self.rounding_impl = rounding_impl
        self.counts = counts

    def stateless(self):
        """Whether it has none."""
        return not self.counts


class Whole:
    """A part with state, made of others."""

    def __init__(self, rounding_impl, other_impl):
        self.parts = rounding_impl, other_impl


class Recipe(Injector):
    """A whole, of a rounding and of what holds it."""

    tensor_quant = Whole
    rounding_impl = Rounding
    other_impl = Sometimes
    counts = False


def parts(recipe):
    """The parts of a fresh build."""
    return build(recipe).parts


def test_stateless_parts_are_shared():
    """Two builds of a recipe have the same parts, where these hold nothing, and wholes of their own."""
    assert parts(Recipe) == parts(Recipe)
    assert build(Recipe) is not build(Recipe)


def test_recipes_share_with_each_other():
    """So have two recipes that build a part with equal arguments."""
    assert parts(Recipe.let(digits=3)) == parts(Recipe.let(digits=3, other_impl=Sometimes))


def test_arguments_tell_parts_apart():
    """Parts that are built with other arguments are others: 1 is not True, and 0.0 is not -0.0."""
    found = {id(build(Recipe.let(digits=digits)).parts[0]): digits for digits in (0, 1, True, 0.0, -0.0, 1.0)}
    kept = [build(Recipe.let(digits=digits)).parts[0] for digits in (0, 1, True, 0.0, -0.0, 1.0)]
    assert 6 == len({id(part) for part in kept})
    assert 6 >= len(found)


def test_state_is_not_shared():
    """A part that counts is built each time, and so is what holds it."""
    first, second = parts(Recipe.let(counts=True)), parts(Recipe.let(counts=True))
    assert (True, False) == (first[0] is second[0], first[1] is second[1])
    first, second = parts(Recipe.let(rounding_impl=Counting)), parts(Recipe.let(rounding_impl=Counting))
    assert (False, False) == (first[0] is second[0], first[1] is second[1])


def test_subclasses_say_it_themselves():
    """That a class holds nothing says nothing of its subclasses."""
    assert (True, False) == (is_stateless(Rounding()), is_stateless(Counting()))


def test_computed_parts_are_computed_each_time():
    """What a `@value` returns is its own affair, even if it holds nothing."""

    class Computed(Recipe):
        """A rounding that a value makes."""

        @value
        def rounding_impl():
            """A rounding."""
            return Rounding()

    first, second = parts(Computed), parts(Computed)
    assert first[0] is not second[0]


def test_arguments_without_a_hash():
    """A part with an argument that has no hash is kept by its recipe alone."""
    recipe, other = Recipe.let(digits=[1]), Recipe.let(digits=[1])
    assert parts(recipe)[0] is parts(recipe)[0]
    assert [1] == parts(other)[0].digits


def test_nothing_is_kept_for_ever():
    """A part that no recipe and no quantizer has any more is gone."""
    part = shared(Rounding(12), {"digits": 12})
    assert shared(Rounding(12), {"digits": 12}) is part
    reference = weakref.ref(part)
    del part
    gc.collect()
    assert reference() is None
