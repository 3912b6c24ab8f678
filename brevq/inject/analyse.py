"""What kind of thing a recipe has under a name, and which other names it asks for."""

from __future__ import annotations

import enum
import functools
import inspect
import weakref
from collections.abc import Callable
from typing import Any

import attrs

from brevq.inject._package import PackageInjector, PackageThis, PackageValue
from brevq.inject.declare import supplied

#: The part that a layer asks for.
ROOT = "tensor_quant"
#: How the names of components end.
COMPONENTS = ("_impl", "_quant")

_ENUM = (
    "`{name}` is the Enum class {label}, which stands for no part.\n"
    "Declare the component that its member stands for, or pass the class on under a name that ends in `_class`."
)
_INSTANCE = (
    "`{name}` is an instance of {label}: every quantizer built from the recipe would share it.\n"
    "Declare the class, `{name} = {label}`, and its arguments as names of the recipe.\n"
    "To share one on purpose, return it from a `@value`."
)
_FUNCTION = (
    "`{name}` is a plain function, which nothing calls.\n"
    "Write `@value` above it, so that what it returns is the value of `{name}`."
)
_POSITIONAL = (
    "The constructor of {label} takes an argument by position only, and parts are injected by name.\n"
    "Wrap it in a class that takes it by name."
)
_DESCRIPTOR = "`{name}` is a {label}, which a recipe has no use for.\nUse `@value` to compute a name from others."
_NO_COMPONENT = (
    "`{name}` (={label}) is no component: a component is a class, which is built for each quantizer.\n"
    "Declare the class, or a `@value` that returns it."
)


@attrs.frozen
class Spec:
    """What a name stands for.

    `kind` is one of *class*, *value*, *this*, *supplied* and *data*; `label` is what it is called in messages;
    `required` and `optional` are the names that it asks for; `complaint` says what is wrong with it, if anything is.
    """

    kind: str
    content: Any
    label: str
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    complaint: str | None = None

    @property
    def asks(self) -> tuple[str, ...]:
        """All names that it asks for."""
        return self.required + self.optional


def analyse(name: str, content: Any) -> Spec:
    """The spec of `content`, declared under `name`: the first line of the table that fits.

    Args:
        name: name in the recipe.
        content: what is declared.

    Examples:
        >>> class Part:
        ...     def __init__(self, bit_width, signed=True): ...
        >>> spec = analyse("part_impl", Part)
        >>> spec.kind, spec.required, spec.optional
        ('class', ('bit_width',), ('signed',))
        >>> analyse("part_class", Part).kind, analyse("bit_width", 4).kind
        ('data', 'data')
    """
    for fits, spec in _KINDS:
        if fits(name, content):
            return spec(name, content)
    return _data(name, content)


def parameters(function: Callable[..., Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The required and the optional names that a class or function asks for; ``*args`` and ``**kwargs`` ask for none.

    Args:
        function: a class, whose constructor counts, or a function.

    Examples:
        >>> parameters(lambda bit_width, signed=True, *args, **kwargs: None)
        (('bit_width',), ('signed',))
    """
    return _parameters(function)[:2]


def signature(spec: Spec) -> str:
    """How `spec` is called, with the defaults of its arguments, for messages.

    Args:
        spec: of kind *class*, *value* or *this*.

    Examples:
        >>> class Part:
        ...     def __init__(self, bit_width, signed=True): ...
        >>> signature(analyse("part_impl", Part))
        'Part(bit_width, signed=True)'
    """
    if spec.kind == "this":
        return spec.label
    function = spec.content.function if spec.kind == "value" else spec.content
    words = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name in spec.asks:
            default = "" if parameter.default is parameter.empty else f"={short(parameter.default)}"
            words.append(parameter.name + default)
    return f"{spec.label}({', '.join(words)})"


def short(content: Any) -> str:
    """`content` in a few words: classes and functions by name, anything else by at most 40 characters of its repr.

    Args:
        content: anything.

    Examples:
        >>> short(int), short(4)
        ('int', '4')
    """
    named = isinstance(content, type) or inspect.isroutine(content)
    text = content.__name__ if named else repr(content)
    return text if len(text) <= 40 else text[:37] + "..."


_Names = tuple[str, ...]
_PARAMETERS: weakref.WeakKeyDictionary[Any, tuple[_Names, _Names, _Names]] = weakref.WeakKeyDictionary()


def _parameters(function: Callable[..., Any]) -> tuple[_Names, _Names, _Names]:
    """The required and the optional names, and those of the former that can not be given by name; read once."""
    known = _PARAMETERS.get(function)
    if known is None:
        known = _PARAMETERS[function] = _read_parameters(function)
    return known


def _read_parameters(function: Callable[..., Any]) -> tuple[_Names, _Names, _Names]:
    try:
        found = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # written in C, without a signature
        return (), (), ()
    named = [p for p in found if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    required = [p for p in named if p.default is p.empty]
    optional = tuple(p.name for p in named if p.default is not p.empty and p.kind is not p.POSITIONAL_ONLY)
    nameless = tuple(p.name for p in required if p.kind is p.POSITIONAL_ONLY)
    return tuple(p.name for p in required), optional, nameless


def _class(name: str, content: type) -> Spec:
    required, optional, nameless = _parameters(content)
    label = content.__name__
    return Spec("class", content, label, required, optional, _POSITIONAL.format(label=label) if nameless else None)


def _value(name: str, content: Any) -> Spec:
    return Spec("value", content, f"@value {content.function.__name__}", *parameters(content.function))


def _this(name: str, content: Any) -> Spec:
    steps = content.__expression__
    asked = steps[0][1] if steps and steps[0][0] == "." else None
    if asked is None:
        complaint = f"`{name}` is {content!r}, which refers to no name.\nName what it stands for: `this.name`."
        return Spec("this", content, repr(content), complaint=complaint)
    return Spec("this", content, repr(content), (asked,))


def _supplied(name: str, content: supplied) -> Spec:
    return Spec("supplied", content, content.what)


def _data(name: str, content: Any) -> Spec:
    return Spec("data", content, repr(content))


def _wrong(text: str) -> Callable[[str, Any], Spec]:
    def spec(name: str, content: Any) -> Spec:
        kind = content if isinstance(content, type) else type(content)
        label = short(content) if text is _NO_COMPONENT else kind.__name__
        # The names that it would take, once it is mended, are no mistakes of their own.
        asks = parameters(_function_of(content) or kind)
        return Spec("data", content, label, (), (*asks[0], *asks[1]), text.format(name=name, label=label))

    return spec


def _function_of(content: Any) -> Any:
    """The function that a descriptor wraps, or that a plain one is; None for anything else."""
    for name in ("fget", "func", "__func__"):
        content = getattr(content, name, content)
    return content if inspect.isfunction(content) else None


def _is_recipe(name: str, content: Any) -> bool:
    return isinstance(content, type) and issubclass(content, PackageInjector)


def _is_forgotten_value(name: str, content: Any) -> bool:
    return inspect.isfunction(content) and content.__name__ == name


def _is_descriptor(name: str, content: Any) -> bool:
    return isinstance(content, (property, staticmethod, classmethod, functools.cached_property))


def _is_no_component(name: str, content: Any) -> bool:
    if name == ROOT and content is None:
        return True
    known = content is None or isinstance(content, type)
    plain = type(content).__module__ == "builtins" or isinstance(content, enum.Enum)
    return name.endswith(COMPONENTS) and not known and plain


def _is_instance(name: str, content: Any) -> bool:
    known = content is None or isinstance(content, type)
    return not known and (name.endswith(COMPONENTS) or hasattr(type(content), "forward"))


# One line a kind; the first that fits counts.
_KINDS: tuple[tuple[Callable[[str, Any], bool], Callable[[str, Any], Spec]], ...] = (
    (lambda name, content: isinstance(content, PackageThis), _this),
    (lambda name, content: isinstance(content, PackageValue), _value),
    (lambda name, content: isinstance(content, supplied), _supplied),
    (_is_descriptor, _wrong(_DESCRIPTOR)),
    (_is_forgotten_value, _wrong(_FUNCTION)),
    (_is_no_component, _wrong(_NO_COMPONENT)),
    (_is_instance, _wrong(_INSTANCE)),
    (lambda name, content: name.endswith("_class"), _data),
    (_is_recipe, _data),
    (lambda name, content: isinstance(content, type) and issubclass(content, enum.Enum), _wrong(_ENUM)),
    (lambda name, content: isinstance(content, type), _class),
)
