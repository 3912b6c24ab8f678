"""What can be wrong with a recipe, and the full text in which it is told."""

import enum
import functools
from inspect import cleandoc

import pytest

from brevq.errors import ArgumentTypeError, BrevqError, RecipeError
from brevq.inject import Injector, build, check, explain, supplied, this, value


class Grid:
    def __init__(self, bit_width, signed=True):
        self.bit_width = bit_width
        self.signed = signed


class Restrict:
    pass


class Scaler:
    def __init__(self, stats_impl, scaling_min_val=None, restrict_impl=Restrict):
        self.stats_impl = stats_impl
        self.restrict_impl = restrict_impl


class Stats:
    def __init__(self, percentile):
        self.percentile = percentile


class Quant:
    def __init__(self, grid_impl, scaling_impl, zero_point=0):
        self.grid_impl = grid_impl
        self.scaling_impl = scaling_impl


class Holder:
    def __init__(self, part_impl):
        self.part_impl = part_impl


class Refusing:
    def __init__(self, bit_width, note="none"):
        raise ValueError(f"`bit_width` (={bit_width}) must be at least 2")


class Round(enum.Enum):
    UP = "up"


class Recipe(Injector):
    """A recipe without a fault."""

    tensor_quant = Quant
    grid_impl = Grid
    bit_width = 4
    scaling_impl = Scaler
    stats_impl = Stats
    percentile = 99.9


class Parts(Injector):
    """A parts list, which leaves three names to be declared."""

    tensor_quant = Quant
    grid_impl = Grid
    scaling_impl = Scaler
    stats_impl = Stats


def message(recipe, owner=None):
    """The text of the error of building a recipe."""
    with pytest.raises(RecipeError) as caught:
        build(recipe, owner)
    return str(caught.value)


def check_message(recipe):
    """The text of the error of checking a recipe."""
    with pytest.raises(RecipeError) as caught:
        check(recipe)
    return str(caught.value)


def test_no_fault():
    """A recipe without a fault passes."""
    assert None is check(Recipe)


def test_is_a_value_error():
    """The error of a faulty recipe is brevq's, and a ValueError."""
    assert (True, True) == (issubclass(RecipeError, BrevqError), issubclass(RecipeError, ValueError))


def test_one_missing():
    """A name that nothing provides is told with its path and with the constructor that asks for it."""
    expected = """
        Can not build Left.

        Nothing provides `percentile`.

          tensor_quant: Quant
            scaling_impl: Scaler
              stats_impl: Stats
                percentile: ?

        Stats(percentile) asks for it.
        Declare it: `percentile = ...` in Left, or Left.let(percentile=...).
        """

    class Left(Parts):
        bit_width = 4

    assert cleandoc(expected) == message(Left)


def test_missing_behind_a_reference():
    """A name that `this` refers to and that nothing provides is told as one that a constructor asks for."""
    expected = """
        Can not build Referring.

        Nothing provides `statistics`.

          tensor_quant: Quant
            scaling_impl: Scaler
              stats_impl: this.statistics
                statistics: ?

        this.statistics asks for it.
        Declare it: `statistics = ...` in Referring, or Referring.let(statistics=...).
        """

    class Referring(Recipe):
        stats_impl = this.statistics

    assert cleandoc(expected) == message(Referring)


def test_three_missing():
    """All names that nothing provides are told at once, each with its path."""

    class Bare(Injector):
        tensor_quant = Quant
        grid_impl = Grid

        @value
        def scaling_impl(low, high):
            return Scaler

    expected = """
        Can not build Bare: 3 faults.

        1. Nothing provides `bit_width`.

             tensor_quant: Quant
               grid_impl: Grid
                 bit_width: ?

           Grid(bit_width, signed=True) asks for it.
           Declare it: `bit_width = ...` in Bare, or Bare.let(bit_width=...).

        2. Nothing provides `low`.

             tensor_quant: Quant
               scaling_impl: @value scaling_impl
                 low: ?

           @value scaling_impl(low, high) asks for it.
           Declare it: `low = ...` in Bare, or Bare.let(low=...).

        3. Nothing provides `high`.

             tensor_quant: Quant
               scaling_impl: @value scaling_impl
                 high: ?

           @value scaling_impl(low, high) asks for it.
           Declare it: `high = ...` in Bare, or Bare.let(high=...).
        """
    assert cleandoc(expected) == message(Bare)


def test_missing_root():
    """A recipe without the part that layers ask for says so, and what it declares is not blamed for that."""
    expected = """
        Can not build Empty.

        Nothing provides `tensor_quant`.
        It is the part that layers ask for: a core quantizer, such as brevq.core.quant.RescalingIntQuant.
        Declare it: `tensor_quant = ...` in Empty, or Empty.let(tensor_quant=...).
        """

    class Empty(Injector):
        role = "weight"

    assert cleandoc(expected) == message(Empty)


def test_misspelt_root():
    """A misspelt `tensor_quant` is recognised."""
    expected = """
        Can not build Misspelt.

        Nothing provides `tensor_quant`.
        It is the part that layers ask for: a core quantizer, such as brevq.core.quant.RescalingIntQuant.
        Misspelt declares `tensorquant`, which nothing takes. Did you mean `tensor_quant`?
        """

    class Misspelt(Injector):
        tensorquant = Grid
        bit_width = 4

    assert cleandoc(expected) == message(Misspelt)


def test_misspelt_optional():
    """A misspelt name that a constructor has a default for is not dropped in silence."""
    expected = """
        Can not build Misspelt.

        Nothing takes `singed`, which Misspelt declares. Did you mean `signed`?
        """

    class Misspelt(Recipe):
        singed = False

    assert cleandoc(expected) == message(Misspelt)


def test_misspelt_required():
    """Of a misspelt name that a constructor needs, both the gap and the near miss are told, as one fault."""
    expected = """
        Can not build Misspelt.

        Nothing provides `bit_width`.

          tensor_quant: Quant
            grid_impl: Grid
              bit_width: ?

        Grid(bit_width, signed=True) asks for it.
        Misspelt declares `bitwidth`, which nothing takes. Did you mean `bit_width`?
        """

    class Misspelt(Parts):
        bitwidth = 4
        percentile = 99.9

    assert cleandoc(expected) == message(Misspelt)


def test_misspelt_in_a_base():
    """A misspelt name is blamed on the class that declares it, not on the one that is built."""
    expected = """
        Can not build Last.

        Nothing takes `zeropoint`, which Base declares. Did you mean `zero_point`?
        """

    class Base(Recipe):
        zeropoint = 3

    class Last(Base):
        bit_width = 3

    assert cleandoc(expected) == message(Last)


def test_misspelt_override():
    """A misspelt override is blamed on `let`."""
    expected = """
        Can not build Recipe.let(bit_width=3, percentil=99.0).

        Nothing takes `percentil`, which Recipe.let(...) declares. Did you mean `percentile`?
        """
    assert cleandoc(expected) == message(Recipe.let(bit_width=3, percentil=99.0))


def test_unused():
    """A name that is like no other is told without a guess."""
    expected = """
        Can not build Recipe.let(colour='red').

        Nothing takes `colour`, which Recipe.let(...) declares. Remove it, or declare a part that takes it.
        """
    assert cleandoc(expected) == message(Recipe.let(colour="red"))


def test_taken_by_a_replaced_part():
    """A name that a replaced part of a base took is no fault: the base declares it for that part."""

    class Fixed(Recipe):
        stats_impl = Restrict

    assert Restrict is type(build(Fixed).scaling_impl.stats_impl)


def test_cycle_of_one():
    """A name that refers to itself is a cycle."""
    expected = """
        Can not build Circular.

        `percentile` needs itself.

          percentile: this.percentile, declared by Circular
            percentile: again

        Override one of them with a part that does not ask for the next.
        """

    class Circular(Recipe):
        percentile = this.percentile

    assert cleandoc(expected) == message(Circular)


class NeedsB:
    def __init__(self, b):
        pass


class NeedsC:
    def __init__(self, c):
        pass


class NeedsA:
    def __init__(self, a):
        pass


def test_cycle_of_two():
    """Two parts that need each other are told as a path, before anything is built."""
    expected = """
        Can not build Circular.

        `a` needs itself.

          a: NeedsB, declared by Circular
            b: NeedsA, declared by Circular
              a: again

        Override one of them with a part that does not ask for the next.
        """

    class Circular(Injector):
        tensor_quant = NeedsA
        a = NeedsB
        b = NeedsA

    assert cleandoc(expected) == message(Circular)


def test_cycle_of_three():
    """A cycle is told from where it begins, without the way that leads to it."""
    expected = """
        Can not build Circular.

        `a` needs itself.

          a: NeedsB, declared by Circular
            b: NeedsC, declared by Circular
              c: NeedsA, declared by Circular
                a: again

        Override one of them with a part that does not ask for the next.
        """

    class Circular(Recipe):
        grid_impl = NeedsA
        a = NeedsB
        b = NeedsC
        c = NeedsA

    assert cleandoc(expected) == message(Circular)


def test_cycle_through_the_root():
    """A part that needs the root is a cycle."""
    expected = """
        Can not build Circular.

        `tensor_quant` needs itself.

          tensor_quant: NeedsA, declared by Circular
            a: @value a, declared by Circular
              tensor_quant: again

        Override one of them with a part that does not ask for the next.
        """

    class Circular(Injector):
        tensor_quant = NeedsA

        @value
        def a(tensor_quant):
            return tensor_quant

    assert cleandoc(expected) == message(Circular)


def test_cycle_through_a_value():
    """A `@value` can be part of a cycle, and is not called."""
    expected = """
        Can not build Circular.

        `b` needs itself.

          b: @value b, declared by Circular
            c: @value c, declared by Circular
              b: again

        Override one of them with a part that does not ask for the next.
        """
    called = []

    class Circular(Injector):
        tensor_quant = NeedsB

        @value
        def b(c):
            called.append("b")

        @value
        def c(b):
            called.append("c")

    assert (cleandoc(expected), []) == (message(Circular), called)


def test_cycle_through_a_returned_class():
    """A class that a `@value` returns can lead back to it."""
    expected = """
        Can not build Circular.

        `b` needs itself.

          b: NeedsC, declared by Circular
            c: NeedsB, declared by Circular
              b: again

        Override one of them with a part that does not ask for the next.
        """

    class Circular(Injector):
        tensor_quant = NeedsB
        c = NeedsB

        @value
        def b():
            return NeedsC

    assert cleandoc(expected) == message(Circular)


def test_cycle_through_a_class_that_the_owner_decides():
    """A cycle that is closed by what the owner supplies is found when it is known."""
    expected = """
        Can not build Circular.

        `b` needs itself.

          b: NeedsC, declared by Circular
            c: NeedsB, declared by Circular
              b: again

        Override one of them with a part that does not ask for the next.
        """

    class Circular(Injector):
        tensor_quant = NeedsB
        c = NeedsB
        shape = supplied("shape of the weight")

        @value
        def b(shape):
            return NeedsC

    assert None is check(Circular)
    assert cleandoc(expected) == message(Circular, {"shape": (1,)})


def test_constructor_that_raises():
    """A constructor's error is told with its path, the plain values that it got, and who declared them."""
    expected = """
        Can not build Low.

        Refusing raised ValueError: `bit_width` (=1) must be at least 2

          tensor_quant: Holder
            part_impl: Refusing
              bit_width = 1, declared by Base
              note = 'mine', declared by Low
        """

    class Base(Injector):
        tensor_quant = Holder
        part_impl = Refusing
        bit_width = 1

    class Low(Base):
        note = "mine"

    assert (cleandoc(expected), cleandoc(expected)) == (message(Low), check_message(Low))


def test_constructor_that_raises_is_the_cause():
    """The error that a constructor raised is the cause of the one that is told."""
    with pytest.raises(RecipeError) as caught:
        build(Recipe.let(grid_impl=Refusing))
    assert (ValueError, "`bit_width` (=4) must be at least 2") == (
        type(caught.value.__cause__),
        str(caught.value.__cause__),
    )


def test_constructor_that_raises_for_an_owner():
    """Of the values that a constructor got, those that the owner supplied are told as such."""
    expected = """
        Can not build Low.

        Refusing raised ValueError: `bit_width` (=1) must be at least 2

          tensor_quant: Refusing
            bit_width = 1, supplied by the layer
        """

    class Low(Injector):
        tensor_quant = Refusing
        bit_width = supplied("number of bits")

    assert cleandoc(expected) == message(Low, {"bit_width": 1})


def test_two_constructors_that_raise():
    """Every constructor that raises is told, where neither waits for the other."""
    expected = """
        Can not build Low: 2 faults.

        1. Refusing raised ValueError: `bit_width` (=1) must be at least 2

             tensor_quant: Quant
               grid_impl: Refusing
                 bit_width = 1, declared by Low

        2. Refusing raised ValueError: `bit_width` (=1) must be at least 2

             tensor_quant: Quant
               scaling_impl: Refusing
                 bit_width = 1, declared by Low
        """

    class Low(Injector):
        tensor_quant = Quant
        grid_impl = Refusing
        scaling_impl = Refusing
        bit_width = 1

    assert cleandoc(expected) == message(Low)


def test_constructor_that_builds_another_recipe():
    """A recipe that fails inside a constructor is told with the path of that constructor."""

    class Nesting:
        def __init__(self):
            build(Parts)

    class Outer(Injector):
        tensor_quant = Holder
        part_impl = Nesting

    lines = message(Outer).splitlines()
    assert ["Can not build Outer.", "", "Nesting raised RecipeError: Can not build Parts: 2 faults."] == lines[:3]
    assert ["  tensor_quant: Holder", "    part_impl: Nesting"] == lines[-2:]


def test_value_that_raises():
    """A `@value` that raises is told as a constructor is."""
    expected = """
        Can not build Dividing.

        @value percentile raised ZeroDivisionError: division by zero

          tensor_quant: Quant
            scaling_impl: Scaler
              stats_impl: Stats
                percentile: @value percentile
        """

    class Dividing(Recipe):
        @value
        def percentile():
            return 1 / 0

    assert cleandoc(expected) == message(Dividing)


def test_value_that_raises_has_arguments():
    """The plain values that a failing `@value` got are told, whether or not it needs an owner."""
    expected = """
        Can not build Dividing.

        @value percentile raised ZeroDivisionError: division by zero

          tensor_quant: Quant
            scaling_impl: Scaler
              stats_impl: Stats
                percentile: @value percentile
                  bit_width = 0, {origin}
        """

    class Dividing(Recipe):
        bit_width = 0

        @value
        def percentile(bit_width):
            return 1 / bit_width

    class Owned(Dividing):
        bit_width = supplied("number of bits")

    by_owner = cleandoc(expected).format(origin="supplied by the layer")
    assert by_owner.replace("Dividing.", "Owned.") == message(Owned, {"bit_width": 0})
    assert cleandoc(expected).format(origin="declared by Dividing") == message(Dividing)


def test_instance():
    """An instance where a class is meant would be shared by all quantizers, and is refused."""
    expected = """
        Can not build Sharing.

        `grid_impl` is an instance of Grid: every quantizer built from the recipe would share it.
        Declare the class, `grid_impl = Grid`, and its arguments as names of the recipe.
        To share one on purpose, return it from a `@value`.

          tensor_quant: Quant
            grid_impl: declared by Sharing
        """

    class Sharing(Recipe):
        grid_impl = Grid(3)

    assert cleandoc(expected) == message(Sharing)


def test_instance_and_its_arguments():
    """The arguments of an instance's class, which the way out needs, are not told as unused."""
    expected = """
        Can not build Sharing.

        `part_impl` is an instance of Grid: every quantizer built from the recipe would share it.
        Declare the class, `part_impl = Grid`, and its arguments as names of the recipe.
        To share one on purpose, return it from a `@value`.

          tensor_quant: Holder
            part_impl: declared by Sharing
        """

    class Sharing(Injector):
        tensor_quant = Holder
        part_impl = Grid(3)
        bit_width = 3

    assert cleandoc(expected) == message(Sharing)


def test_shared_on_purpose():
    """An instance that a `@value` returns is shared by all builds."""
    shared = Grid(3)
    sharing = Recipe.let(grid_impl=value(lambda bit_width: shared))
    assert (True, True) == (build(sharing).grid_impl is shared, build(sharing).grid_impl is shared)


@pytest.mark.parametrize(
    ("content", "label"),
    [(3, "3"), ("Grid", "'Grid'"), (2.5, "2.5"), (True, "True"), (len, "len"), (Round.UP, repr(Round.UP))],
    ids=str,
)
def test_no_component(content, label):
    """A plain value where a component is meant is refused."""
    expected = f"""
        Can not build Plain.

        `grid_impl` (={label}) is no component: a component is a class, which is built for each quantizer.
        Declare the class, or a `@value` that returns it.

          tensor_quant: Quant
            grid_impl: declared by Plain
        """

    class Plain(Recipe):
        grid_impl = content

    assert cleandoc(expected) == message(Plain)


def test_enum_class():
    """An Enum class stands for no part, and would be called with a name of the recipe."""
    expected = """
        Can not build Rounding.

        `grid_impl` is the Enum class Round, which stands for no part.
        Declare the component that its member stands for, or pass the class on under a name that ends in `_class`.

          tensor_quant: Quant
            grid_impl: declared by Rounding
        """

    class Rounding(Recipe):
        grid_impl = Round

    assert cleandoc(expected) == message(Rounding)


def test_enum_class_under_a_class_name():
    """An Enum class is passed as it is under a name that ends in `_class`."""

    class Holds:
        def __init__(self, round_class):
            self.round_class = round_class

    class Rounding(Injector):
        tensor_quant = Holds
        round_class = Round

    assert Round is build(Rounding).round_class


def test_enum_member():
    """A member of an Enum is a plain value."""
    assert Round.UP is build(Recipe.let(percentile=Round.UP)).scaling_impl.stats_impl.percentile


@pytest.mark.parametrize("kind", [property, staticmethod, classmethod, functools.cached_property])
def test_descriptor(kind):
    """A property, or another descriptor, is no way to compute a name."""
    expected = f"""
        Can not build Computing.

        `percentile` is a {kind.__name__}, which a recipe has no use for.
        Use `@value` to compute a name from others.

          tensor_quant: Quant
            scaling_impl: Scaler
              stats_impl: Stats
                percentile: declared by Computing
        """

    class Computing(Recipe):
        @kind
        def percentile(self):
            return 3

    assert cleandoc(expected) == message(Computing)


def test_forgotten_value():
    """A function without `@value` is not passed on as if it were a value."""
    expected = """
        Can not build Computing.

        `percentile` is a plain function, which nothing calls.
        Write `@value` above it, so that what it returns is the value of `percentile`.

          tensor_quant: Quant
            scaling_impl: Scaler
              stats_impl: Stats
                percentile: declared by Computing
        """

    class Computing(Recipe):
        def percentile(bit_width):
            return 100 - bit_width

    assert cleandoc(expected) == message(Computing)


def test_forgotten_value_and_its_arguments():
    """The arguments of a function without `@value`, which the way out needs, are not told as unused."""
    expected = """
        Can not build Computing.

        `part_impl` is a plain function, which nothing calls.
        Write `@value` above it, so that what it returns is the value of `part_impl`.

          tensor_quant: Holder
            part_impl: declared by Computing
        """

    class Computing(Injector):
        tensor_quant = Holder
        percentage = 3

        def part_impl(percentage):
            return percentage / 100

    assert cleandoc(expected) == message(Computing)


def test_function_as_content():
    """A function of another name, or a lambda, is a plain value."""
    assert len is build(Recipe.let(percentile=len)).scaling_impl.stats_impl.percentile


class Wide:
    def __init__(self, bit_width, extra_bits):
        pass


def test_gap_of_a_returned_class():
    """What a class that a `@value` returned takes is not told as unused where the class lacks something else."""
    expected = """
        Can not build Chosen.

        Nothing provides `bit_width`.

          tensor_quant: Wide
            bit_width: ?

        Wide(bit_width, extra_bits) asks for it.
        Declare it: `bit_width = ...` in Chosen, or Chosen.let(bit_width=...).
        """

    class Chosen(Injector):
        extra_bits = 2

        @value
        def tensor_quant():
            return Wide

    assert cleandoc(expected) == message(Chosen)


def test_none_component():
    """None for a component that a constructor has no default for is a gap."""
    expected = """
        Can not build Without.

        `grid_impl` is None, declared by Without, and Quant(grid_impl, scaling_impl, zero_point=0) needs a component.

          tensor_quant: Quant
            grid_impl: None
        """

    class Without(Recipe):
        grid_impl = None

    assert cleandoc(expected) == message(Without)


def test_none_for_an_optional_component():
    """None for a component that a constructor has a default for is what is passed."""
    assert None is build(Recipe.let(restrict_impl=None)).scaling_impl.restrict_impl


def test_none_component_of_a_returned_class():
    """None for a component is a gap for a class that a `@value` returned, too."""

    class Without(Injector):
        part_impl = None

        @value
        def tensor_quant():
            return Holder

    expected = """
        Can not build Without.

        `part_impl` is None, declared by Without, and Holder(part_impl) needs a component.

          tensor_quant: Holder
            part_impl: None
        """
    assert cleandoc(expected) == message(Without)


@pytest.mark.parametrize(
    ("content", "label"),
    [(None, "None"), (3, "3"), ("Quant", "'Quant'"), (len, "len"), (Round.UP, repr(Round.UP))],
    ids=str,
)
def test_root_that_is_no_component(content, label):
    """The part that layers ask for is a component: a plain value, None or a member of an Enum is refused."""
    expected = f"""
        Can not build Plain.

        `tensor_quant` (={label}) is no component: a component is a class, which is built for each quantizer.
        Declare the class, or a `@value` that returns it.

          tensor_quant: declared by Plain
        """

    class Plain(Recipe):
        tensor_quant = content

    assert cleandoc(expected) == message(Plain)


class Nameless:
    def __init__(self, bit_width, /, signed=True):
        self.bit_width = bit_width


def test_positional_only():
    """A constructor that takes an argument by position only is refused, and what it takes is not told as unused."""
    expected = """
        Can not build Positional.

        The constructor of Nameless takes an argument by position only, and parts are injected by name.
        Wrap it in a class that takes it by name.

          tensor_quant: Holder
            part_impl: declared by Positional
        """

    class Positional(Injector):
        tensor_quant = Holder
        part_impl = Nameless
        bit_width = 4
        signed = False

    assert cleandoc(expected) == message(Positional)


def test_positional_only_under_a_class_name():
    """Such a class is passed as it is under a name that ends in `_class`."""

    class Holds:
        def __init__(self, part_class):
            self.part_class = part_class

    class Positional(Injector):
        tensor_quant = Holds
        part_class = Nameless

    assert Nameless is build(Positional).part_class


def test_positional_only_class_that_a_value_returns():
    """A `@value` that returns such a class is refused as its declaration is: it is not passed as it is."""
    expected = """
        The constructor of Nameless takes an argument by position only, and parts are injected by name.
        Wrap it in a class that takes it by name.
        """

    class Positional(Injector):
        tensor_quant = Holder
        bit_width = 4

        @value
        def part_impl(bit_width):
            return Nameless

    assert cleandoc(expected) in message(Positional)


def test_long_defaults():
    """The signature of a constructor that asks for something has its defaults cut short, and classes by name."""
    expected = """
        Can not build Lacking.

        Nothing provides `bit_width`.

          tensor_quant: Wordy
            bit_width: ?

        Wordy(bit_width, part=Restrict, levels=(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11...) asks for it.
        Declare it: `bit_width = ...` in Lacking, or Lacking.let(bit_width=...).
        """

    class Wordy:
        def __init__(self, bit_width, part=Restrict, levels=tuple(range(100)), *args, **kwargs):
            pass

    class Lacking(Injector):
        tensor_quant = Wordy

    assert cleandoc(expected) == message(Lacking)


@pytest.mark.parametrize("kind", [staticmethod, property, functools.cached_property])
def test_descriptor_and_its_arguments(kind):
    """The arguments of a decorated function, which the way out needs, are not told as unused."""
    expected = f"""
        Can not build Computing.

        `part_impl` is a {kind.__name__}, which a recipe has no use for.
        Use `@value` to compute a name from others.

          tensor_quant: Holder
            part_impl: declared by Computing
        """

    class Computing(Injector):
        tensor_quant = Holder
        percentage = 3

        @kind
        def part_impl(percentage):
            return percentage / 100

    assert cleandoc(expected) == message(Computing)


def test_supplied_without_owner():
    """Names that a layer supplies are told one by one where there is no layer, and what else is wrong with them."""
    expected = """
        Can not build Owned: 2 faults.

        1. `bit_width` (number of bits) is supplied by the layer that a recipe is given to, \
and nothing supplies it here.
           Give the recipe to a layer, or declare the name: Owned.let(bit_width=...).

             tensor_quant: Quant
               grid_impl: Grid
                 bit_width: supplied by a layer

        2. `percentile` (percentile of the layer) is supplied by the layer that a recipe is given to, \
and nothing supplies it here.
           Give the recipe to a layer, or declare the name: Owned.let(percentile=...).

             tensor_quant: Quant
               scaling_impl: Scaler
                 stats_impl: Stats
                   percentile: supplied by a layer
        """

    class Owned(Recipe):
        bit_width = supplied("number of bits")
        percentile = supplied("percentile of the layer")

    assert cleandoc(expected) == message(Owned)


def test_several_kinds():
    """Faults of different kinds are told together: gaps first, then what is wrong, then what is unused."""
    expected = """
        Can not build Broken: 6 faults.

        1. Nothing provides `percentile`.

             tensor_quant: Quant
               scaling_impl: Scaler
                 stats_impl: Stats
                   percentile: ?

           Stats(percentile) asks for it.
           Broken declares `percentil`, which nothing takes. Did you mean `percentile`?

        2. `a` needs itself.

             a: NeedsB, declared by Broken
               b: NeedsA, declared by Broken
                 a: again

           Override one of them with a part that does not ask for the next.

        3. `zero_point` is a property, which a recipe has no use for.
           Use `@value` to compute a name from others.

             tensor_quant: Quant
               zero_point: declared by Broken

        4. Nothing takes `singed`, which Parts.let(...) declares. Did you mean `signed`?

        5. Nothing takes `colour`, which Broken declares. Remove it, or declare a part that takes it.

        6. Refusing raised ValueError: `bit_width` (=1) must be at least 2

             tensor_quant: Quant
               scaling_impl: Scaler
                 restrict_impl: Refusing
                   bit_width = 1, declared by Broken
        """

    class Broken(Parts.let(singed=True)):
        grid_impl = NeedsA
        a = NeedsB
        b = NeedsA
        bit_width = 1
        restrict_impl = Refusing
        percentil = 99
        colour = "red"

        @property
        def zero_point(self):
            return 3

    assert (cleandoc(expected), cleandoc(expected)) == (message(Broken), check_message(Broken))


def test_explain_of_a_faulty_recipe():
    """`explain` tells the faults of a recipe as `check` does."""
    with pytest.raises(RecipeError) as caught:
        explain(Parts)
    assert check_message(Parts) == str(caught.value)


def test_long_message_of_a_constructor():
    """A message of several lines stays below its number."""
    expected = """
        Can not build Two: 2 faults.

        1. Nothing takes `colour`, which Two declares. Remove it, or declare a part that takes it.

        2. Wordy raised ValueError: first line
           second line

             tensor_quant: Wordy
        """

    class Wordy:
        def __init__(self):
            raise ValueError("first line\nsecond line")

    class Two(Injector):
        tensor_quant = Wordy
        colour = "red"

    assert cleandoc(expected) == message(Two)


class Asks:
    def __init__(self, inner):
        self.inner = inner


class AsksDeeper:
    def __init__(self, innermost):
        pass


class Pair:
    def __init__(self, first, second):
        pass


class Decided(Injector):
    """A recipe whose first part is decided by the owner."""

    tensor_quant = Pair
    shape = supplied("shape of the weight")

    @value
    def first(shape):
        return Asks


def test_missing_of_a_class_that_the_owner_decides():
    """A gap that shows only with an owner is told then, with its path."""
    expected = """
        Can not build Decided.let(second=2).

        Nothing provides `inner`.

          tensor_quant: Pair
            first: Asks
              inner: ?

        Asks(inner) asks for it.
        Declare it: Decided.let(...).let(inner=...).
        """
    assert cleandoc(expected) == message(Decided.let(second=2), {"shape": (1,)})


def test_two_gaps_of_classes_that_the_owner_decides():
    """All gaps that show only with an owner are told at once."""
    expected = """
        Can not build Both: 2 faults.

        1. Nothing provides `inner`.

             tensor_quant: Pair
               first: Asks
                 inner: ?

           Asks(inner) asks for it.
           Declare it: `inner = ...` in Both, or Both.let(inner=...).

        2. Nothing provides `innermost`.

             tensor_quant: Pair
               second: AsksDeeper
                 innermost: ?

           AsksDeeper(innermost) asks for it.
           Declare it: `innermost = ...` in Both, or Both.let(innermost=...).
        """

    class Both(Decided):
        @value
        def second(shape):
            return AsksDeeper

    assert cleandoc(expected) == message(Both, {"shape": (1,)})


def test_failure_below_a_class_that_the_owner_decides():
    """A constructor that fails below a class which the owner decided is the one fault that is told."""
    expected = """
        Can not build Failing.

        Refusing raised ValueError: `bit_width` (=1) must be at least 2

          tensor_quant: Pair
            first: Asks
              inner: Refusing
                bit_width = 1, declared by Failing
        """

    class Failing(Decided):
        second = 2
        inner = Refusing
        bit_width = 1

    assert cleandoc(expected) == message(Failing, {"shape": (1,)})


@pytest.mark.parametrize("order", [("first", "second"), ("second", "first")], ids=" ".join)
def test_check_beside_a_value_that_the_owner_decides(order):
    """`check` tries every `@value` that needs no owner, wherever in the order another waits for one."""
    waiting, ready = order
    recipe = Injector.let(
        **{
            "tensor_quant": Pair,
            "shape": supplied("shape of the weight"),
            waiting: value(lambda shape: shape),
            ready: value(lambda: AsksDeeper),
        }
    )
    with pytest.raises(RecipeError, match="Nothing provides `innermost`"):
        check(recipe)


def test_misspelt_optional_that_the_owner_decides():
    """A name that nothing took in the end is told when a build has shown it."""
    expected = """
        Can not build Misspelt.

        Nothing takes `colour`, which Misspelt declares. Remove it, or declare a part that takes it.
        """

    class Misspelt(Decided):
        second = 2
        inner = 3
        colour = "red"

    assert cleandoc(expected) == message(Misspelt, {"shape": (1,)})


@pytest.mark.parametrize("content", [3, None, Grid, Recipe.let], ids=["3", "None", "class", "method"])
@pytest.mark.parametrize("function", [build, check, explain], ids=lambda function: function.__name__)
def test_not_a_recipe(function, content):
    """What is not a recipe is refused by name."""
    with pytest.raises(ArgumentTypeError) as caught:
        function(content)
    expected = f"`recipe` (={content!r}) must be a recipe: a subclass of brevq.inject.Injector"
    assert expected == str(caught.value)


@pytest.mark.parametrize("function", [build, check, explain], ids=lambda function: function.__name__)
def test_injector_of_the_package(function):
    """An injector of `dependencies` that is not brevq's is no recipe."""
    (package,) = Injector.__bases__
    with pytest.raises(ArgumentTypeError) as caught:
        function(package)
    expected = f"`recipe` (={package!r}) must be a recipe: a subclass of brevq.inject.Injector"
    assert expected == str(caught.value)


def _layer(name, below):
    """A class whose constructor asks for the names `below`."""
    code = f"def __init__(self, {', '.join(below)}): pass"
    namespace = {}
    exec(code, namespace)
    return type(name, (), {"__init__": namespace["__init__"]})


def test_long_chain():
    """A chain of 150 parts is built, and a gap at its end is told with the whole path."""
    parts = {f"c{i}": _layer(f"C{i}", [f"c{i + 1}"]) for i in range(150)}
    recipe = Injector.let(tensor_quant=_layer("Root", ["c0"]), **parts)
    assert "Root" == type(build(recipe.let(c150=1))).__name__
    lines = message(recipe).splitlines()
    assert "  tensor_quant: Root" == lines[4]
    assert [f"{'  ' * (i + 2)}c{i}: C{i}" for i in range(150)] == lines[5:155]
    declare = "Declare it: Injector.let(...).let(c150=...)."
    assert [f"{'  ' * 152}c150: ?", "", "C149(c150) asks for it.", declare] == lines[155:]


def test_gap_below_a_diamond():
    """A gap that two ways lead to is told once, with the first."""
    expected = """
        Can not build Diamond.

        Nothing provides `bit_width`.

          tensor_quant: Quant
            grid_impl: Grid
              bit_width: ?

        Grid(bit_width, signed=True) asks for it.
        Declare it: `bit_width = ...` in Diamond, or Diamond.let(bit_width=...).
        """

    class Other:
        def __init__(self, grid_impl, bit_width):
            pass

    class Diamond(Injector):
        tensor_quant = Quant
        grid_impl = Grid
        scaling_impl = Other

    assert cleandoc(expected) == message(Diamond)
