"""Planning: once for each recipe class, or for what each owner supplies, in time that grows with its parts."""

import inspect
import sys
import traceback
from collections import Counter

import pytest

from brevq.errors import RecipeError
from brevq.inject import Injector, build, check, explain, plan, supplied, value


class Grid:
    def __init__(self, bit_width, signed=True):
        self.bit_width = bit_width


class Wide:
    def __init__(self, bit_width):
        self.bit_width = bit_width


class Narrow:
    def __init__(self, bit_width):
        self.bit_width = bit_width


class Scaled:
    def __init__(self, scale):
        self.scale = scale


class Quant:
    def __init__(self, grid_impl, scaling_impl):
        self.grid_impl = grid_impl
        self.scaling_impl = scaling_impl


@pytest.fixture
def plans(monkeypatch):
    """How often each recipe was planned, by name and root; the class that all recipes inherit from was before."""
    made = Counter()
    plan.plan_of(Injector)

    class Counting(plan.Plan):
        def __init__(self, recipe, root, owner):
            made[recipe.__name__, root] += 1
            super().__init__(recipe, root, owner)

    monkeypatch.setattr(plan, "Plan", Counting)
    return made


@pytest.fixture
def signatures(monkeypatch):
    """The constructors that were asked for their arguments."""
    asked = []
    real = inspect.signature

    def counting(function, *args, **kwargs):
        asked.append(function)
        return real(function, *args, **kwargs)

    monkeypatch.setattr(inspect, "signature", counting)
    return asked


@pytest.fixture
def recipe():
    """A recipe that nobody has planned."""

    class Recipe(Injector):
        tensor_quant = Quant
        grid_impl = Grid
        bit_width = 4

        @value
        def scaling_impl(bit_width):
            return Wide

    return Recipe


def test_fifty_builds(recipe, plans):
    """Fifty builds plan once."""
    for _ in range(50):
        build(recipe)
    assert {("Recipe", "tensor_quant"): 1} == plans


def test_fifty_builds_ask_no_constructor_again(recipe, signatures):
    """After the first build no constructor is asked for its arguments."""
    build(recipe)
    del signatures[:]
    for _ in range(50):
        build(recipe)
    assert [] == signatures


def test_fifty_failures(recipe, plans):
    """Fifty failed builds plan once."""
    broken = recipe.let(bitwidth=3)
    for _ in range(50):
        with pytest.raises(RecipeError):
            build(broken)
    assert {("Recipe.let(bitwidth=3)", "tensor_quant"): 1} == plans


def test_check_and_explain_share_the_plan(recipe, plans):
    """Building, checking and explaining a recipe plan once together."""
    build(recipe)
    check(recipe)
    explain(recipe)
    assert {("Recipe", "tensor_quant"): 1} == plans


def test_owners_share_the_plan(plans):
    """A recipe in which no `@value` waits for the owner is planned once, whatever owners supply."""

    class Owned(Injector):
        tensor_quant = Wide
        bit_width = supplied("number of bits")

    made = [build(Owned, {"bit_width": i}).bit_width for i in range(50)]
    assert (list(range(50)), {("Owned", "tensor_quant"): 1}) == (made, plans)


def chosen_by_shape():
    """A recipe that nobody has planned, in which the owner decides upon a part."""

    class Chosen(Injector):
        tensor_quant = Quant
        grid_impl = Grid
        bit_width = 4
        shape = supplied("shape of the weight")

        @value
        def scaling_impl(shape):
            return Wide if len(shape) > 1 else Narrow

    return Chosen


def test_a_plan_for_what_is_supplied(plans):
    """A recipe in which a `@value` waits for the owner is planned once without, and once for what each supplies."""
    chosen = chosen_by_shape()
    shapes = [(1,), (2,), (2, 3), (1,), (2, 3), (2,)] * 10
    made = [type(build(chosen, {"shape": shape}).scaling_impl) for shape in shapes]
    assert [Narrow, Narrow, Wide, Narrow, Wide, Narrow] * 10 == made
    assert {("Chosen", "tensor_quant"): 1 + 3} == plans


def test_supplied_names_have_no_order(plans):
    """What is supplied is the same in whatever order an owner lists it."""
    chosen = chosen_by_shape()
    build(chosen, {"shape": (1,), "device": "cpu"})
    build(chosen, {"device": "cpu", "shape": (1,)})
    assert {("Chosen", "tensor_quant"): 1 + 1} == plans


def test_plans_that_are_kept(plans):
    """At most 512 plans are kept for a recipe; a build beyond them plans anew, and is as good."""
    chosen = chosen_by_shape()
    for i in range(600):
        assert Narrow is type(build(chosen, {"shape": (i,)}).scaling_impl)
    assert ({("Chosen", "tensor_quant"): 1 + 600}, 512) == (plans, len(chosen.__plans__))
    assert Wide is type(build(chosen, {"shape": (2, 3)}).scaling_impl)
    build(chosen, {"shape": (0,)})
    assert ({("Chosen", "tensor_quant"): 1 + 600 + 1}, 512) == (plans, len(chosen.__plans__))


def test_unhashable_things_supplied(plans):
    """What can not be hashed may be supplied: such a plan is not kept."""
    chosen = chosen_by_shape()
    made = [type(build(chosen, {"shape": shape}).scaling_impl) for shape in ([1], [2, 3], [1])]
    assert ([Narrow, Wide, Narrow], 1) == (made, len(chosen.__plans__))
    assert {("Chosen", "tensor_quant"): 1 + 3} == plans


def test_unhashable_things_supplied_are_read_at_each_build():
    """A list that an owner changes between two builds is seen as it is."""
    chosen, shape = chosen_by_shape(), [1]
    first = type(build(chosen, {"shape": shape}).scaling_impl)
    shape.append(2)
    assert (Narrow, Wide) == (first, type(build(chosen, {"shape": shape}).scaling_impl))


@pytest.mark.parametrize(("first", "second"), [(1, True), (True, 1), (1, 1.0), (0.0, -0.0)], ids=repr)
def test_supplied_things_that_are_equal_but_different(first, second):
    """What is supplied is kept apart by type and sign, as overrides are."""

    class Chosen(Injector):
        tensor_quant = Wide
        given = supplied("a number")

        @value
        def bit_width(given):
            return type(repr(given), (), {})

    made = [type(build(Chosen, {"given": given}).bit_width).__name__ for given in (first, second)]
    assert [repr(first), repr(second)] == made


def test_a_failure_for_one_owner_is_kept_from_others(plans):
    """A fault that one owner's shape brings about is no fault for another's."""
    chosen = chosen_by_shape().let(scaling_impl=value(lambda shape: Wide if len(shape) > 1 else Scaled))
    for _ in range(3):
        with pytest.raises(RecipeError, match="Nothing provides `scale`"):
            build(chosen, {"shape": (1,)})
        assert Wide is type(build(chosen, {"shape": (2, 3)}).scaling_impl)
    assert 1 + 2 == plans[chosen.__name__, "tensor_quant"]


def raising():
    """A recipe that nobody has planned, with a `@value` that raises."""

    class Raising(Injector):
        tensor_quant = Wide

        @value
        def bit_width():
            raise ZeroDivisionError("division by zero")

    return Raising


def failure(recipe):
    """The error of a failed build."""
    with pytest.raises(RecipeError) as caught:
        build(recipe)
    return caught.value


def test_a_plan_with_a_raised_error_is_not_kept(plans):
    """What a `@value` raised holds all that its callers had, so it is raised again rather than kept."""
    recipe = raising()
    first, second = failure(recipe), failure(recipe)
    assert ({("Raising", "tensor_quant"): 2}, 0) == (plans, len(recipe.__plans__))
    assert (str(first), ZeroDivisionError) == (str(second), type(second.__cause__))
    assert first.__cause__ is not second.__cause__


def test_the_traceback_of_a_raised_error_does_not_grow():
    """Each failure has the traceback of its own call, and no frame of the calls before."""
    recipe = raising()
    depths = []
    for _ in range(4):
        frames = traceback.extract_tb(failure(recipe).__cause__.__traceback__)
        depths.append(len(frames))
    assert ("bit_width", 1) == (frames[-1].name, len(set(depths)))


def test_a_value_that_recovers():
    """A recipe whose `@value` raised is built when the reason is gone."""
    reasons = ["not now"]

    class Recovering(Injector):
        tensor_quant = Wide

        @value
        def bit_width():
            if reasons:
                raise ValueError(reasons[0])
            return 4

    assert "@value bit_width raised ValueError: not now" in str(failure(Recovering))
    reasons.clear()
    assert 4 == build(Recovering).bit_width


def test_a_class_behind_an_argument_that_recovers():
    """A class that a `@value` returns is built, though its argument could not be built the first time."""
    reasons = ["not now"]

    class Picky:
        def __init__(self):
            if reasons:
                raise ValueError(reasons[0])

    class Recovering(Injector):
        tensor_quant = Wide
        grid_impl = Picky

        @value
        def bit_width(grid_impl):
            return Picky

    assert "Picky raised ValueError: not now" in str(failure(Recovering))
    reasons.clear()
    assert Picky is type(build(Recovering).bit_width)


class Chosen(Injector):
    """A recipe whose part depends on the number of bits; `extra_bits` is for the one that `bit_width` = 4 gives."""

    tensor_quant = Quant
    grid_impl = Grid
    bit_width = 4
    scale = 2

    @value
    def scaling_impl(bit_width):
        return Scaled if bit_width < 8 else Wide


def test_choice_flipped_by_let():
    """What only the part takes that an override put out of use is no fault: the base declares it for that part."""
    flipped = Chosen.let(bit_width=8)
    check(flipped)
    assert (Scaled, Wide, Wide) == tuple(
        type(build(recipe).scaling_impl) for recipe in (Chosen, flipped, flipped.let(signed=False))
    )
    assert Scaled is type(build(flipped.let(bit_width=3)).scaling_impl)


def test_choice_flipped_by_a_subclass():
    """The same holds for a class statement, with another recipe's names beside it."""

    class Flipped(Injector.let(signed=False), Chosen):
        bit_width = 8

    check(Flipped)
    assert Wide is type(build(Flipped).scaling_impl)


def test_choice_flipped_and_misspelt():
    """A name that no part takes, here or in a base, is a fault even where a choice was flipped."""
    with pytest.raises(RecipeError) as caught:
        build(Chosen.let(bit_width=8, scael=3))
    assert (
        "Can not build Chosen.let(bit_width=8, scael=3).\n\n"
        "Nothing takes `scael`, which Chosen.let(...) declares. Did you mean `scale`?"
    ) == str(caught.value)


def test_choice_flipped_by_let_for_an_owner():
    """The same holds where the choice waits for an owner as well."""

    class Owned(Injector):
        tensor_quant = Quant
        grid_impl = Grid
        bit_width = 4
        scale = 2
        shape = supplied("shape of the weight")

        @value
        def scaling_impl(bit_width, shape):
            return Scaled if bit_width < 8 else Wide

    supplies = {"shape": (2, 3)}
    assert Scaled is type(build(Owned, supplies).scaling_impl)
    assert Wide is type(build(Owned.let(bit_width=8), supplies).scaling_impl)


def test_a_faulty_base_does_not_spoil_what_repairs_it():
    """A base that can not be planned without a fault, or whose `@value` raises, has no say in what repairs it."""
    repaired = raising().let(bit_width=4)
    check(repaired)
    assert 4 == build(repaired).bit_width


def test_many_derivations():
    """A recipe that was derived 400 times, one from the other, is built as any."""
    recipe = Injector.let(tensor_quant=Wide)
    for bits in range(400):
        recipe = recipe.let(bit_width=bits)
    assert 399 == build(recipe).bit_width


def test_diamonds_of_recipes_that_raise(plans):
    """Each base is planned a few times, however many ways lead to it, where a `@value` raises."""
    recipe = raising()
    kind = type(Injector)
    for i in range(8):
        recipe = kind(f"Below{i}", (kind(f"Left{i}", (recipe,), {}), kind(f"Right{i}", (recipe,), {})), {})
    failure(recipe)
    assert sum(plans.values()) <= 2 * 25


def test_same_overrides_share_the_plan(recipe, plans):
    """Overrides that are written again are not planned again."""
    made = [recipe.let(bit_width=3) for _ in range(50)]
    for derived in made:
        build(derived)
    assert {("Recipe.let(bit_width=3)", "tensor_quant"): 1} == plans


def test_derived_recipes_have_plans_of_their_own(recipe, plans):
    """Another class is planned for itself."""

    class Sub(recipe):
        pass

    build(Sub)
    build(recipe.let(bit_width=3))
    assert {"Sub": 1, "Recipe.let(bit_width=3)": 1} == {name: n for (name, _), n in plans.items()}


def test_reading_plans_once_for_each_name(recipe, plans):
    """A component that is read by name is planned from that name down, once; a plain value is not planned."""
    for _ in range(50):
        assert (Grid, 4) == (type(recipe.grid_impl), recipe.bit_width)
    assert {("Recipe", "grid_impl"): 1} == plans


def test_declaring_plans_nothing(recipe, plans):
    """Neither a class statement nor `let` nor looking at a recipe plans anything."""

    class Sub(recipe):
        bit_width = 3

    Sub.let(bit_width=2)
    assert (True, 3, True) == ("grid_impl" in Sub, Sub.bit_width, "grid_impl" in dir(Sub))
    assert {} == plans


def test_each_part_is_built_once():
    """A build calls each constructor once, however many parts ask for it."""
    calls = []
    parts = {"tensor_quant": _rung("root", ["a0", "b0"], calls)}
    for i in range(10):
        below = [f"a{i + 1}", f"b{i + 1}"] if i < 9 else []
        parts |= {f"{side}{i}": _rung(f"{side}{i}", below, calls) for side in "ab"}
    ladder = Injector.let(**parts)
    build(ladder)
    assert sorted([*(name for name in parts if name != "tensor_quant"), "root"]) == sorted(calls)


def _rung(name, below, calls):
    """A component that asks for the names `below`, and notes that it was built."""
    namespace = {"calls": calls}
    exec(f"def __init__(self, {', '.join(below)}): calls.append({name!r})", namespace)
    return type(name, (), {"__init__": namespace["__init__"]})


def _ladder(depth, owned):
    """A recipe with two parts on each rung, both of which need both of the rung below.

    Args:
        depth: number of rungs.
        owned: whether a value that needs the owner decides upon the first part.
    """
    parts = {}
    for i in range(depth):
        below = [f"a{i + 1}", f"b{i + 1}"] if i + 1 < depth else []
        parts |= {f"{side}{i}": _rung(f"{side}{i}", below, []) for side in "ab"}
    root = _rung("Root", ["a0", "b0"], [])
    if not owned:
        return Injector.let(tensor_quant=root, **parts)
    chosen = value(lambda shape: root)
    return Injector.let(
        tensor_quant=_rung("Top", ["chosen", "a0"], []), chosen=chosen, shape=supplied("shape"), **parts
    )


def _steps(depth, owned):
    """How many calls of Python functions a first build takes."""
    steps = 0

    def count(frame, event, argument):
        nonlocal steps
        steps += event == "call"

    ladder = _ladder(depth, owned)
    before = sys.getprofile()
    sys.setprofile(count)
    try:
        build(ladder, {"shape": (1,)})
    finally:
        sys.setprofile(before)
    return steps


@pytest.mark.parametrize("owned", [False, True], ids=["wired", "decided by the owner"])
def test_long_diamond_costs_a_step_for_each_part(owned):
    """Twice the rungs take about twice the steps, though the number of ways down is squared."""
    assert _steps(12, owned) < 3 * _steps(6, owned)
