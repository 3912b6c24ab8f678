"""The class that recipes subclass: names declared as attributes, merged as Python merges them."""

from __future__ import annotations

import copyreg
import sys
import threading
import weakref
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import attrs

from brevq.errors import ArgumentTypeError, RecipeAttributeError, RecipeError
from brevq.inject import resolve
from brevq.inject._package import PackageInjector
from brevq.inject.analyse import short
from brevq.inject.near import did_you_mean

# What Python itself puts into the body of a class, in one version or another, and what says nothing about parts.
_PYTHONS_OWN = frozenset(
    {
        "__annotate__",
        "__annotate_func__",
        "__annotations__",
        "__classdictcell__",
        "__conditional_annotations__",
        "__firstlineno__",
        "__static_attributes__",
    }
)
_ABOUT = ("__module__", "__qualname__", "__doc__")
_LOCK = threading.RLock()

_DUNDER = """
{recipe} declares `{name}`.

A recipe declares parts, not methods: names with two underscores around them have no meaning in it.
""".strip()

_SUPER = """
{recipe} uses `super()` or `__class__` in its body.

A recipe is never instantiated, so there is nothing for them to refer to. In a `@value`, ask for names as arguments.
""".strip()

_READ_ONLY = """
{recipe} is read-only: `{name}` can not be {done}.

Derive a recipe with what you want instead: {recipe}.let({name}=...), or a subclass.
""".strip()

_FOREIGN = """
{recipe} inherits from {base}, which is not a recipe.

All bases of a recipe are recipes: subclasses of brevq.inject.Injector.
""".strip()


@attrs.frozen
class Declared:
    """What a recipe has under a name: the object, and the class whose body declares it."""

    content: Any
    by: type


def _own_names(meta: type, recipe: str, namespace: Mapping[str, Any]) -> dict[str, Any]:
    """The parts that a class body declares, without what Python put there."""
    if "__classcell__" in namespace:
        raise RecipeError(_SUPER.format(recipe=recipe))
    own = {}
    for name, content in namespace.items():
        if name in _PYTHONS_OWN or name in _ABOUT:
            continue
        if name.startswith("__") and name.endswith("__"):
            raise RecipeError(_DUNDER.format(recipe=recipe, name=name))
        if hasattr(meta, name):
            raise RecipeError(f"{recipe} declares `{name}`, which is a method of every recipe: choose another name")
        own[name] = content
    return own


class _NoGraph:
    """What the package would wire a recipe by. brevq does that, so to the package a recipe has no names at all."""

    def get(self, name: str) -> None:
        """Refuse each name."""
        raise AttributeError(name)

    def has(self, name: str) -> bool:
        """Whether there is a name: there is none."""
        return False


_NO_GRAPH = _NoGraph()


class InjectorMeta(type(PackageInjector)):  # type: ignore[misc]  # the package is untyped
    """The class of recipes: reading a name resolves it, and nothing can be written."""

    def __new__(mcls, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> InjectorMeta:
        """A recipe class, from a class statement; its body is checked here, its wiring when it is used."""
        own = _own_names(mcls, name, namespace)
        for base in bases:
            if base is not PackageInjector and not isinstance(base, InjectorMeta):
                raise RecipeError(_FOREIGN.format(recipe=name, base=base.__name__))
        about = {key: namespace[key] for key in _ABOUT if key in namespace}
        # The package refuses an empty body; one entry satisfies it.
        cls = super().__new__(mcls, name, bases, {**about, "brevq": True})
        type.__setattr__(cls, "__dependencies__", _NO_GRAPH)
        type.__setattr__(cls, "__own__", MappingProxyType(own))
        merged: dict[str, Declared] = {}
        for base in reversed(cls.__mro__):
            if isinstance(base, InjectorMeta):
                merged.update({key: Declared(content, base) for key, content in base.__own__.items()})
        type.__setattr__(cls, "__declared__", MappingProxyType(merged))
        type.__setattr__(cls, "__derived__", weakref.WeakValueDictionary())
        type.__setattr__(cls, "__plans__", {})
        return cls  # type: ignore[no-any-return]  # the package is untyped

    def let(cls, /, **overrides: Any) -> Any:
        """A recipe derived from this one, with some names overridden.

        The same overrides give the same class again, so layers that share them share their planning.

        Args:
            **overrides: names and what to declare under them: a class, a value, a `@value`.

        Returns:
            A recipe that is a subclass of this one.

        Examples:
            >>> from brevq.inject import Injector
            >>> class Recipe(Injector):
            ...     bit_width = 8
            >>> Recipe.let(bit_width=4).bit_width, Recipe.bit_width
            (4, 8)
        """
        if not overrides:
            return cls
        try:
            key = tuple(sorted((name, type(content), repr(content), content) for name, content in overrides.items()))
            hash(key)
        except TypeError:  # a content that can not be hashed
            return cls._derive(overrides)
        with _LOCK:
            derived = cls.__derived__.get(key)
            if derived is None:
                derived = cls.__derived__[key] = cls._derive(overrides)
        return derived

    def _derive(cls, overrides: Mapping[str, Any]) -> InjectorMeta:
        name = cls.derived_name(overrides)
        about = {"__module__": cls.__module__, "__qualname__": name, "__doc__": cls.__doc__}
        return InjectorMeta(name, (cls,), {**about, **overrides})

    def derived_name(cls, overrides: Mapping[str, Any]) -> str:
        """What `let` calls the recipe with these overrides.

        Args:
            overrides: names and what to declare under them.
        """
        words = ", ".join(f"{name}={short(content)}" for name, content in overrides.items())
        return f"{cls.__name__}.let({words})"

    def __call__(cls, /, *arguments: Any, **overrides: Any) -> Any:
        """As `let`: the package's own way to derive."""
        if arguments:
            raise ArgumentTypeError(
                f"{cls.__name__} is never instantiated; derive from it: {cls.__name__}.let(name=...)"
            )
        return cls.let(**overrides)

    @property
    def __mro__(cls) -> tuple[type, ...]:
        # The package's own class raises an error of its own when it is asked for a name that it lacks, which stops
        # `help` and `inspect`. They have nothing to find there.
        return tuple(base for base in type.__dict__["__mro__"].__get__(cls) if base is not PackageInjector)

    def __getattr__(cls, name: str) -> Any:
        """What the recipe has under `name`: a plain value as it is, a component built."""
        if name.startswith("__"):
            raise AttributeError(f"{cls.__name__} has no attribute {name!r}")
        if name not in cls.__declared__:
            near = did_you_mean(name, cls.__declared__)
            raise RecipeAttributeError(f"{cls.__name__} does not declare `{name}`.{near}")
        return resolve.read(cls, name)

    def __setattr__(cls, name: str, content: object) -> None:
        raise RecipeError(_READ_ONLY.format(recipe=cls.__name__, name=name, done="set"))

    def __delattr__(cls, name: str) -> None:
        raise RecipeError(_READ_ONLY.format(recipe=cls.__name__, name=name, done="deleted"))

    def __contains__(cls, name: object) -> bool:
        return name in cls.__declared__

    def __dir__(cls) -> list[str]:
        return sorted({*cls.__declared__, "let"})

    def __repr__(cls) -> str:
        return f"<recipe {cls.__module__}.{cls.__qualname__}>"

    def _repr_html_(cls) -> str:
        from brevq.inject.show import page_of  # noqa: PLC0415  # pictures load when there is one to draw

        return page_of(cls)

    def __enter__(cls) -> Any:
        raise RecipeError(f"`with {cls.__name__}` has no meaning: read its names, or build it for a layer")


class Injector(PackageInjector, metaclass=InjectorMeta):  # type: ignore[misc]  # the package is untyped
    """A recipe: the parts of a quantizer, declared as attributes of a class.

    Each name is an argument of some part's constructor. A class is built with the names that its constructor asks
    for; a name that ends in ``_class`` is passed as it is; `value` computes from other names. Names are inherited
    and overridden along Python's own method resolution order. A recipe can not be changed; `let` derives another.

    Examples:
        >>> class Engine:
        ...     def __init__(self, cylinders):
        ...         self.cylinders = cylinders
        >>> class Car(Injector):
        ...     engine = Engine
        ...     cylinders = 4
        >>> Car.engine.cylinders, Car.cylinders, "wheels" in Car
        (4, 4, False)
        >>> Car.let(cylinders=6).engine.cylinders
        6
    """


def _reduce(recipe: InjectorMeta) -> str | tuple[Any, ...]:
    """How a recipe pickles: by its name where it can be imported, else as its bases and its own names."""
    found: Any = sys.modules.get(recipe.__module__)
    for part in recipe.__qualname__.split("."):
        found = getattr(found, part, None)
    if found is recipe:
        return str(recipe.__qualname__)
    about = {key: getattr(recipe, key) for key in _ABOUT}
    return _rebuild, (recipe.__name__, recipe.__bases__, {**about, **recipe.__own__})


def _rebuild(name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> InjectorMeta:
    """A recipe again, from what `_reduce` wrote; one that `let` derived is the one that `let` gives here."""
    overrides = {key: content for key, content in namespace.items() if key not in _ABOUT}
    base = bases[0]
    if len(bases) == 1 and isinstance(base, InjectorMeta) and name == base.derived_name(overrides):
        derived: InjectorMeta = base.let(**overrides)
        return derived
    return InjectorMeta(name, bases, namespace)


copyreg.pickle(InjectorMeta, _reduce)
