"""What the body of a recipe may declare beside classes and plain values: `value`, `this` and `supplied`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import attrs

from brevq.errors import ArgumentTypeError, RecipeError
from brevq.inject._package import PackageThis, PackageValue


class value(PackageValue):  # type: ignore[misc]  # noqa: N801  # untyped package; the name reads as a decorator
    """A name that is computed from other names, as a decorator.

    The function's arguments are names of the recipe. What it returns is the value; a class that it returns is built
    like a declared one. It should depend on its arguments alone: which class it returns is found once.

    Args:
        function: a plain function; not a class, and not a generator.

    Raises:
        ArgumentTypeError: something else was decorated.

    Examples:
        >>> from brevq.inject import Injector
        >>> class Recipe(Injector):
        ...     bit_width = 4
        ...
        ...     @value
        ...     def levels(bit_width):
        ...         return 2**bit_width
        >>> Recipe.levels, Recipe.let(bit_width=3).levels
        (16, 8)
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        if not inspect.isfunction(function):
            raise ArgumentTypeError(f"`@value` decorates a function, not {function!r}")
        if inspect.isgeneratorfunction(function):
            raise ArgumentTypeError(
                f"`{function.__name__}` is a generator; `@value` decorates a function that returns its value"
            )
        kinds = [parameter.kind for parameter in inspect.signature(function).parameters.values()]
        if inspect.Parameter.POSITIONAL_ONLY in kinds:
            raise ArgumentTypeError(
                f"`{function.__name__}` takes an argument by position only, and a `@value` is given names"
            )
        self.function = function
        super().__init__(function)

    def __repr__(self) -> str:
        return f"@value {self.function.__name__}"


class This(PackageThis):  # type: ignore[misc]  # the package is untyped
    """A reference to another name of the same recipe, to attributes and items of it. Use it through `this`."""

    def __getattr__(self, name: str) -> This:
        if name.startswith("__"):
            raise AttributeError(name)
        return This((*self.__expression__, (".", name)))

    def __getitem__(self, item: object) -> This:
        return This((*self.__expression__, ("[]", item)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, This) and bool(self.__expression__ == other.__expression__)

    def __hash__(self) -> int:
        return hash(self.__expression__)

    def __lshift__(self, levels: object) -> This:
        raise RecipeError("`this << n` has no meaning in a recipe: a recipe has no parent. Write `this.name`")

    def __reduce__(self) -> tuple[type[This], tuple[Any, ...]]:
        return This, (self.__expression__,)

    def __repr__(self) -> str:
        steps = (f".{name}" if kind == "." else f"[{name!r}]" for kind, name in self.__expression__)
        return "this" + "".join(steps)


#: A reference to another name of the same recipe: ``output_bits = this.bit_width``.
this = This(())


@attrs.frozen(repr=False)
class supplied:  # noqa: N801  # reads as a word in a recipe's body
    """A name that the owner of the quantizer supplies, a layer say, when the recipe is built for it.

    Args:
        what: what it is, in a few words, for `explain` and for messages.

    Examples:
        >>> from brevq.inject import Injector
        >>> class WeightRecipe(Injector):
        ...     tensor_shape = supplied("shape of the weight")
    """

    what: str

    def __str__(self) -> str:
        return f"<{self.what}>"

    __repr__ = __str__
