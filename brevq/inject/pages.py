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
        where = _recipe_of(recipe)
        hint = "" if where is None else f". It is made from one: `{name}{where}`"
        raise ArgumentTypeError(
            f"`{name}` (={_label(recipe)}) must be a recipe: a subclass of brevq.inject.Injector{hint}"
        )


def _recipe_of(content: Any) -> str | None:
    """Where a quantizer, or the first one of a layer, has its recipe; None where that is not known."""
    attributes = getattr(content, "__dict__", {})
    if "recipe" in attributes:
        return ".recipe"
    parts = attributes.get("_modules", {}).items()
    return next((f".{name}.recipe" for name, part in parts if "recipe" in getattr(part, "__dict__", {})), None)


def _label(content: Any) -> str:
    """What something is called in a message: its repr, or its class where that is long."""
    text = repr(content)
    return text if len(text) <= 80 and "\n" not in text else f"a {type(content).__name__}"
