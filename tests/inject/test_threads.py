"""Recipes are built by several threads at once."""

import sys
import threading
import time

import pytest

from brevq.errors import RecipeError
from brevq.inject import Injector, build, supplied, value

THREADS = 8


class Grid:
    def __init__(self, bit_width):
        self.bit_width = bit_width


class Scaler:
    def __init__(self, grid_impl, shape):
        self.grid_impl = grid_impl
        self.shape = shape


class Quant:
    def __init__(self, grid_impl, scaling_impl, levels):
        self.grid_impl = grid_impl
        self.scaling_impl = scaling_impl
        self.levels = levels


def fresh():
    """A recipe that nobody has planned."""

    class Recipe(Injector):
        tensor_quant = Quant
        bit_width = 4
        shape = supplied("shape of the weight")

        @value
        def grid_impl(bit_width):
            return Grid

        @value
        def scaling_impl(shape):
            return Scaler

        @value
        def levels(grid_impl):
            return 2**grid_impl.bit_width

    return Recipe


@pytest.fixture(autouse=True)
def _eager_switches():
    """Let threads take turns as often as the interpreter can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def together(function):
    """What `function` returns for 0, 1, ..., each in a thread of its own, all started at once."""
    barrier = threading.Barrier(THREADS)
    results = [None] * THREADS

    def work(number):
        barrier.wait()
        try:
            results[number] = function(number)
        except Exception as error:  # noqa: BLE001  # it is the result, and the test looks at it
            results[number] = error

    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@pytest.mark.parametrize("attempt", range(5))
def test_builds(attempt):
    """Threads that build one recipe for the first time each get a whole quantizer for their own owner."""
    recipe = fresh()
    made = together(lambda number: build(recipe, {"shape": (number,)}))
    assert [((i,), 4, 16) for i in range(THREADS)] == [
        (quant.scaling_impl.shape, quant.grid_impl.bit_width, quant.levels) for quant in made
    ]
    assert [True] * THREADS == [quant.grid_impl is quant.scaling_impl.grid_impl for quant in made]
    assert THREADS == len({id(quant.grid_impl) for quant in made})


@pytest.mark.parametrize("attempt", range(5))
def test_failures(attempt):
    """Threads that fail to build one recipe are all told the same."""
    recipe = fresh().let(bitwidth=3, levels=Quant)
    errors = together(lambda number: build(recipe, {"shape": (number,)}))
    assert {RecipeError} == {type(error) for error in errors}
    assert 1 == len({str(error) for error in errors})


@pytest.mark.parametrize("attempt", range(5))
def test_derived_recipes(attempt):
    """Threads that derive recipes of their own from one build their own."""
    recipe = fresh()
    made = together(lambda number: build(recipe.let(bit_width=number), {"shape": (number,)}))
    assert [(i, 2**i) for i in range(THREADS)] == [(quant.grid_impl.bit_width, quant.levels) for quant in made]


@pytest.mark.parametrize("attempt", range(3))
def test_plans_for_owners(attempt):
    """Threads that build one recipe for many owners, whose shapes decide upon its parts, each get the right parts."""

    class Vector(Scaler):
        pass

    recipe = fresh().let(scaling_impl=value(lambda shape: Scaler if len(shape) > 1 else Vector))
    shapes = [(i,) * (1 + i % 2) for i in range(120)]

    def work(number):
        mine = shapes[number:] + shapes[:number]
        return {shape: type(build(recipe, {"shape": shape}).scaling_impl) for shape in mine}

    expected = {shape: Scaler if len(shape) > 1 else Vector for shape in shapes}
    assert [expected] * THREADS == together(work)


def test_same_overrides():
    """Threads that derive with the same overrides get the same class."""

    class Slow:
        """A content during whose printing other threads get their turn."""

        def __repr__(self):
            time.sleep(0.005)
            return "Slow()"

    recipe, content = fresh(), Slow()
    assert 1 == len(set(together(lambda number: recipe.let(bit_width=content))))
