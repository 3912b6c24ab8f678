"""What the views of a recipe have in common."""

from __future__ import annotations

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
        held = "recipe" in getattr(recipe, "__dict__", {})
        hint = f". It is made from one: `{name}.recipe`" if held else ""
        raise ArgumentTypeError(
            f"`{name}` (={_label(recipe)}) must be a recipe: a subclass of brevq.inject.Injector{hint}"
        )


def _label(content: Any) -> str:
    """What something is called in a message: its repr, or its class where that is long."""
    text = repr(content)
    return text if len(text) <= 80 and "\n" not in text else f"a {type(content).__name__}"
