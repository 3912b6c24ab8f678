"""A recipe: what its body may hold, how it is read, and that nothing writes to it."""

import copy
import inspect
import pydoc
from inspect import cleandoc
from typing import Any

import pytest

from brevq.errors import ArgumentTypeError, BrevqError, RecipeAttributeError, RecipeError
from brevq.inject import Injector, build, supplied, this, value


class Grid:
    def __init__(self, bit_width, signed=True):
        self.bit_width = bit_width
        self.signed = signed


class Scaler:
    def __init__(self, grid_impl, scaling_min_val=1e-10):
        self.grid_impl = grid_impl
        self.scaling_min_val = scaling_min_val


class Quant:
    def __init__(self, grid_impl, scaling_impl):
        self.grid_impl = grid_impl
        self.scaling_impl = scaling_impl


class Recipe(Injector):
    """Four bits."""

    tensor_quant = Quant
    grid_impl = Grid
    scaling_impl = Scaler
    bit_width = 4


def test_is_a_dependencies_injector():
    """A recipe is an injector of the package `dependencies`."""
    import dependencies  # noqa: PLC0415  # it gives its notice unless brevq imported it before

    assert (True, True) == (issubclass(Injector, dependencies.Injector), issubclass(Recipe, dependencies.Injector))


def test_build_follows_constructors():
    """A class is built with the names that its constructor asks for."""
    quant = build(Recipe)
    assert (Quant, Grid, Scaler) == (type(quant), type(quant.grid_impl), type(quant.scaling_impl))
    assert (4, True, 1e-10) == (quant.grid_impl.bit_width, quant.grid_impl.signed, quant.scaling_impl.scaling_min_val)


def test_optional_argument_is_taken_where_declared():
    """A name that is declared is passed to an argument with a default."""
    assert (False, 1e-3) == (
        build(Recipe.let(signed=False)).grid_impl.signed,
        build(Recipe.let(scaling_min_val=1e-3)).scaling_impl.scaling_min_val,
    )


def test_parts_are_shared_within_a_build():
    """Two parts that ask for the same name get the same object."""
    quant = build(Recipe)
    assert quant.grid_impl is quant.scaling_impl.grid_impl


def test_parts_are_not_shared_between_builds():
    """Each build makes parts of its own."""
    first, second = build(Recipe), build(Recipe)
    assert (False, False) == (first is second, first.grid_impl is second.grid_impl)


class Argless:
    pass


class Greedy:
    def __init__(self, bit_width, *args, signed=True, **kwargs):
        self.got = (bit_width, args, signed, kwargs)


class KeywordOnly:
    def __init__(self, *, bit_width):
        self.got = bit_width


class ByNew:
    def __new__(cls, bit_width):
        made = super().__new__(cls)
        made.got = bit_width
        return made


class Inherits(KeywordOnly):
    pass


@pytest.mark.parametrize(
    ("part", "got"),
    [(Greedy, (4, (), True, {})), (KeywordOnly, 4), (ByNew, 4), (Inherits, 4)],
    ids=lambda content: getattr(content, "__name__", ""),
)
def test_constructors(part, got):
    """``*args`` and ``**kwargs`` are ignored, and every way to write a constructor is understood."""

    class Made(Injector):
        tensor_quant = part
        bit_width = 4

    assert got == build(Made).got


def test_bare_arguments_are_ignored():
    """A component that takes only ``*args`` and ``**kwargs`` is built without any."""

    class Bare:
        def __init__(self, *args, **kwargs):
            self.got = args, kwargs

    class Made(Injector):
        tensor_quant = Bare

    assert ((), {}) == build(Made).got


def test_component_without_constructor():
    """A class without a constructor of its own asks for nothing."""

    class Made(Injector):
        tensor_quant = Argless

    assert Argless is type(build(Made))


def test_class_names_are_passed_as_they_are():
    """What is declared under a name that ends in `_class` is passed, not built."""

    class Holder:
        def __init__(self, grid_class):
            self.grid_class = grid_class

    class Made(Injector):
        tensor_quant = Holder
        grid_class = Grid

    assert Grid is build(Made).grid_class


def test_recipe_as_content_is_passed_as_it_is():
    """A recipe that is declared in a recipe is passed, not built."""

    class Holder:
        def __init__(self, inner):
            self.inner = inner

    class Made(Injector):
        tensor_quant = Holder
        inner = Recipe

    assert Recipe is build(Made).inner


def test_empty_subclass():
    """A subclass with nothing in it is its base under another name."""

    class Empty(Recipe): ...

    class Passing(Empty):
        pass

    assert (4, 4) == (build(Empty).grid_impl.bit_width, build(Passing).grid_impl.bit_width)


def test_docstring_only():
    """A subclass may hold a docstring and nothing else."""

    class Documented(Recipe):
        """Still four bits."""

    assert ("Still four bits.", 4) == (Documented.__doc__, Documented.bit_width)


def test_docstring_is_no_part():
    """A docstring declares nothing."""
    assert ("Four bits.", False) == (Recipe.__doc__, "__doc__" in Recipe)


def test_annotated_names():
    """Names may be annotated; an annotation without a content declares nothing."""

    class Annotated(Recipe):
        bit_width: int = 8
        grid_impl: Any = Grid
        signed: bool

    assert (8, False) == (build(Annotated).grid_impl.bit_width, "signed" in Annotated)


@pytest.mark.parametrize("name", ["bit_width", "grid_impl", "tensor_quant", "scaling_impl"])
def test_contains(name):
    """`in` tells whether a recipe or one of its bases declares a name."""

    class Derived(Recipe):
        pass

    assert (True, True) == (name in Recipe, name in Derived)


def test_contains_not():
    """What nothing declares is not in a recipe, whatever the classes have."""
    assert [False] * 5 == [name in Recipe for name in ("bits", "let", "__doc__", "mro", 3)]


@pytest.mark.parametrize(
    "content",
    [4, 0, "text", None, (1, 2), [1, 2], {"a": 1}, 2.5, True, len, Ellipsis],
    ids=repr,
)
def test_plain_values_are_read_as_they_are(content):
    """A plain value is read as the object that was declared."""
    assert Recipe.let(plain=content).plain is content


def test_component_is_built_when_read():
    """Reading a name that stands for a component builds it, afresh each time."""
    first, second = Recipe.scaling_impl, Recipe.scaling_impl
    assert (Scaler, 4, False) == (type(first), first.grid_impl.bit_width, first is second)


def test_hasattr():
    """`hasattr` is true of what is declared and false of what is not."""
    assert (True, True, False, False) == (
        hasattr(Recipe, "bit_width"),
        hasattr(Recipe, "tensor_quant"),
        hasattr(Recipe, "bits"),
        hasattr(Recipe, "__wrapped_by__"),
    )


def test_getattr_with_default():
    """`getattr` gives its default for what is not declared."""
    assert (4, 7) == (getattr(Recipe, "bit_width", 7), getattr(Recipe, "bits", 7))


class Broken(Recipe):
    """Five of its names can not be built, each for another reason."""

    grid_impl = supplied("the grid")
    other = Scaler
    missing = this.nothing
    circular = this.circular

    @value
    def raising():
        return 1 / 0


@pytest.mark.parametrize("name", ["grid_impl", "other", "missing", "circular", "raising"])
def test_read_what_can_not_be_built(name):
    """Reading a declared name that can not be built fails as building it does; to Python there is no such attribute."""
    with pytest.raises(RecipeError) as built:
        build(Broken, root=name)
    with pytest.raises(RecipeAttributeError) as read:
        getattr(Broken, name)
    assert (str(built.value), type(built.value.__cause__)) == (str(read.value), type(read.value.__cause__))
    assert (False, 7, True) == (hasattr(Broken, name), getattr(Broken, name, 7), name in Broken)


def test_read_what_can_not_be_built_has_a_cause():
    """What a `@value` raised is the cause of the error of reading it."""
    with pytest.raises(RecipeAttributeError) as caught:
        Broken.raising  # noqa: B018  # reading builds
    expected = """
        Can not build Broken.

        @value raising raised ZeroDivisionError: division by zero

          raising: @value raising
        """
    assert (cleandoc(expected), ZeroDivisionError) == (str(caught.value), type(caught.value.__cause__))


def test_inspection_of_what_can_not_be_built():
    """Python's own tools list a recipe whose parts can not be built."""
    found = dict(inspect.getmembers(Broken))
    assert (4, False) == (found["bit_width"], "raising" in found)
    assert "Five of its names can not be built" in pydoc.render_doc(Broken)


def test_dir():
    """`dir` lists the declared names, sorted, and `let`."""
    assert ["bit_width", "grid_impl", "let", "scaling_impl", "tensor_quant"] == dir(Recipe)


def test_repr():
    """A recipe prints as the name under which it can be imported, a derived one with its overrides."""
    assert f"<recipe {__name__}.Recipe>" == repr(Recipe)
    assert f"<recipe {__name__}.Recipe.let(bit_width=8)>" == repr(Recipe.let(bit_width=8))


def test_help():
    """`help` shows a recipe's docstring, whether or not the recipe can be built without a layer."""

    class Shaped(Recipe):
        """Needs a shape."""

        grid_impl = supplied("the grid")

    assert ("Four bits." in pydoc.render_doc(Recipe), "Needs a shape." in pydoc.render_doc(Shaped)) == (True, True)


def test_calling_is_let():
    """Calling a recipe with keywords derives another, as the package does."""
    assert Recipe(bit_width=8) is Recipe.let(bit_width=8)


@pytest.mark.parametrize("arguments", [(3,), (None,), (1, 2)], ids=repr)
def test_calling_with_a_position(arguments):
    """A recipe has no instances: calling it with something that has no name is refused."""
    with pytest.raises(ArgumentTypeError) as caught:
        Recipe(*arguments, bit_width=3)
    assert "Recipe is never instantiated; derive from it: Recipe.let(name=...)" == str(caught.value)


def test_order_of_bases_hides_the_package():
    """The order of a recipe's bases is that of brevq's classes, for tools which read all of them."""
    assert (Recipe, Injector, object) == Recipe.__mro__ == inspect.getmro(Recipe)
    assert (Injector, object) == Injector.__mro__


def test_copies_are_the_recipe():
    """A recipe is copied as classes are: not at all."""
    derived = Recipe.let(bit_width=[1])
    assert (True, True, True) == (
        copy.copy(Recipe) is Recipe,
        copy.deepcopy(Recipe) is Recipe,
        copy.deepcopy({"recipe": derived})["recipe"] is derived,
    )


@pytest.mark.parametrize("name", ["bit_width", "tensor_quant", "other", "__doc__", "__name__"])
def test_set(name):
    """A name can not be set."""
    with pytest.raises(RecipeError) as caught:
        setattr(Recipe, name, 8)
    expected = f"""
        Recipe is read-only: `{name}` can not be set.

        Derive a recipe with what you want instead: Recipe.let({name}=...), or a subclass.
        """
    assert (cleandoc(expected), 4) == (str(caught.value), Recipe.bit_width)


def test_delete():
    """A name can not be deleted."""
    with pytest.raises(RecipeError) as caught:
        del Recipe.bit_width
    expected = """
        Recipe is read-only: `bit_width` can not be deleted.

        Derive a recipe with what you want instead: Recipe.let(bit_width=...), or a subclass.
        """
    assert (cleandoc(expected), 4) == (str(caught.value), Recipe.bit_width)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bitwidth", "Recipe does not declare `bitwidth`. Did you mean `bit_width`?"),
        ("Grid_Impl", "Recipe does not declare `Grid_Impl`. Did you mean `grid_impl`?"),
        ("colour", "Recipe does not declare `colour`."),
    ],
)
def test_read_missing(name, expected):
    """Reading what is not declared is an AttributeError that offers what was probably meant."""
    with pytest.raises(RecipeAttributeError) as caught:
        getattr(Recipe, name)
    assert expected == str(caught.value)


def test_missing_is_an_attribute_error():
    """The error of a missing name is Python's, brevq's and that of recipes."""
    assert (True, True, True) == tuple(
        issubclass(RecipeAttributeError, kind) for kind in (AttributeError, BrevqError, RecipeError)
    )


def test_dunder_in_body():
    """A method of Python's in a body is refused."""
    with pytest.raises(RecipeError) as caught:

        class Broken(Injector):
            def __init__(self):
                pass

    expected = """
        Broken declares `__init__`.

        A recipe declares parts, not methods: names with two underscores around them have no meaning in it.
        """
    assert cleandoc(expected) == str(caught.value)


def test_dunder_in_let():
    """`let` refuses the names that a body refuses."""
    with pytest.raises(RecipeError) as caught:
        Recipe.let(__call__=3)
    expected = """
        Recipe.let(__call__=3) declares `__call__`.

        A recipe declares parts, not methods: names with two underscores around them have no meaning in it.
        """
    assert cleandoc(expected) == str(caught.value)


@pytest.mark.parametrize("name", [name for name in dir(type(Injector)) if not name.startswith("__")])
def test_names_of_methods(name):
    """A name that recipes have a method of is refused: it would be read as the method."""
    with pytest.raises(RecipeError) as caught:
        Recipe.let(**{name: 3})
    expected = f"Recipe.let({name}=3) declares `{name}`, which is a method of every recipe: choose another name"
    assert expected == str(caught.value)


@pytest.mark.parametrize("word", ["super().bit_width", "__class__"])
def test_super_in_body(word):
    """`super()` and `__class__` in a body are refused when the class is made."""
    code = f"class Broken(Recipe):\n    @value\n    def levels():\n        return {word}\n"
    with pytest.raises(RecipeError) as caught:
        exec(code, {"Recipe": Recipe, "value": value, "__name__": __name__})
    expected = """
        Broken uses `super()` or `__class__` in its body.

        A recipe is never instantiated, so there is nothing for them to refer to. \
In a `@value`, ask for names as arguments.
        """
    assert cleandoc(expected) == str(caught.value)


def test_foreign_base():
    """A recipe that inherits from a class which is none is refused."""
    with pytest.raises(RecipeError) as caught:

        class Broken(Recipe, Grid):
            pass

    expected = """
        Broken inherits from Grid, which is not a recipe.

        All bases of a recipe are recipes: subclasses of brevq.inject.Injector.
        """
    assert cleandoc(expected) == str(caught.value)


def test_with_statement():
    """A recipe is no context."""
    with pytest.raises(RecipeError) as caught, Recipe:
        pass
    assert "`with Recipe` has no meaning: read its names, or build it for a layer" == str(caught.value)


def test_this_has_no_parent():
    """The package's `this << 1` is refused."""
    with pytest.raises(RecipeError) as caught:
        this << 1
    assert "`this << n` has no meaning in a recipe: a recipe has no parent. Write `this.name`" == str(caught.value)
