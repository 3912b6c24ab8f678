"""A recipe as a page for notebooks: its wiring, and what parts of the library that know more can say of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from brevq.drawing import attempt, element, escape, first_sentence, page, paragraph
from brevq.errors import BrevqError
from brevq.inject.wiring import explain

View = Callable[[Any], str]
_V = TypeVar("_V", bound=View)

# What is shown below the wiring. Wiring knows no tensors, so parts that do add themselves when they are imported.
_VIEWS: list[View] = []
_MORE = "Import brevq.draw to see its grid here, too."


def view(function: _V) -> _V:
    """Register the decorated function: what it returns, HTML, is shown below the wiring of a recipe.

    Args:
        function: takes a recipe class. Errors that it raises are told in its place.
    """
    _VIEWS.append(function)
    return function


def page_of(recipe: Any) -> str:
    """A recipe as a page for notebooks; it never raises.

    Args:
        recipe: a recipe class. Its faults are listed, if it has any.

    Examples:
        >>> from brevq.inject import Injector
        >>> class Recipe(Injector):
        ...     tensor_quant = dict
        >>> "tensor_quant" in page_of(Recipe)
        True
    """
    about = first_sentence(recipe.__doc__)
    head = paragraph(about) if about else ""
    if not recipe.__declared__:
        return page(recipe.__name__, head)
    try:
        wiring = explain(recipe).drawn().svg()
    except BrevqError as error:
        return page(recipe.__name__, head, element("pre", escape(error)))
    views = [attempt(lambda function=function: function(recipe), "not shown") for function in _VIEWS]  # type: ignore[misc]
    return page(recipe.__name__, head, wiring, *views or [paragraph(_MORE)])
