"""What the views of a recipe have in common."""

from __future__ import annotations

import html
from typing import Any

from brevq.errors import ArgumentTypeError


def check_recipe(name: str, recipe: Any) -> None:
    """Refuse what is not a recipe.

    Args:
        name: what the argument is called, for the message.
        recipe: what was given.

    Raises:
        ArgumentTypeError: it is not a recipe class.

    Examples:
        >>> from brevq.inject import Injector
        >>> check_recipe("recipe", Injector)
    """
    if not (isinstance(recipe, type) and "__declared__" in vars(recipe)):
        raise ArgumentTypeError(f"`{name}` (={recipe!r}) must be a recipe: a subclass of brevq.inject.Injector")


def escape(text: str) -> str:
    """`text` as it is written in HTML.

    Args:
        text: any text.

    Examples:
        >>> escape("<class>")
        '&lt;class&gt;'
    """
    return html.escape(text, quote=True)
