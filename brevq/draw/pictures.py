"""Recipes as files of SVG."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from brevq.drawing import Drawing, Levels, first_sentence, levels_axis, stack
from brevq.drawing.picture import text, width_of
from brevq.errors import ArgumentTypeError, BrevqError
from brevq.inject import explain
from brevq.inject.pages import check_recipe
from brevq.quantizer.page import example, levels

_MARGIN = 20.0


def svg(recipe: Any, owner: Any = None, **overrides: Any) -> str:
    """A recipe as a picture: its wiring, and below it the numbers that it can give.

    Overridden names stand in a box with what they replace, names that the layer supplies have an orange dot, and
    defaults of constructors are pale. Numbers are those at scale 1; where they depend on a layer and
    none is given, that is said.

    Args:
        recipe: a recipe class.
        owner: the layer that it is for, whose shapes, dtype and device are then shown. Default: none.
        **overrides: names of the recipe to override first, as with `let`.

    Returns:
        A text in SVG that stands alone: written to a file, it opens in any browser, in light and in dark.

    Raises:
        RecipeError: the recipe has faults; all of them are listed.
        ArgumentTypeError: `recipe` is not a recipe, or `owner` not a layer.

    Examples:
        >>> from injectors import Int8WeightPerTensor
        >>> picture = svg(Int8WeightPerTensor, bit_width=4)
        >>> "replaces 8 of Int8WeightPerTensor" in picture, "int4 narrow: 15 values from -7 to 7" in picture
        (True, True)
    """
    chosen = _chosen(recipe, overrides)
    tree = explain(chosen, owner).drawn()
    try:
        numbers = levels_axis(_levels(chosen, owner))
    except BrevqError as error:
        lines = str(error).strip().splitlines()
        numbers = levels_axis(Levels.unknown("The numbers that it can give are not known here", *lines[:8]))
    return stack(chosen.__name__, [_heading(chosen), tree, numbers], gap=18, margin=_MARGIN).file()


def wiring(recipe: Any, owner: Any = None, **overrides: Any) -> str:
    """The wiring of a recipe as a picture: what `brevq.inject.explain` prints.

    Args:
        recipe: a recipe class.
        owner: the layer that it is for, whose shapes, dtype and device are then shown. Default: none.
        **overrides: names of the recipe to override first, as with `let`.

    Raises:
        RecipeError: the recipe has faults; all of them are listed.
        ArgumentTypeError: `recipe` is not a recipe, or `owner` not a layer.

    Examples:
        >>> from injectors import Int8WeightPerTensor
        >>> "restrict_scaling_impl" in wiring(Int8WeightPerTensor)
        True
    """
    chosen = _chosen(recipe, overrides)
    tree = explain(chosen, owner).drawn()
    return stack(chosen.__name__, [_heading(chosen), tree], gap=18, margin=_MARGIN).file()


def grid(recipe: Any, owner: Any = None, **overrides: Any) -> str:
    """The numbers that a recipe can give, at scale 1, as a picture.

    Args:
        recipe: a recipe class.
        owner: the layer that it is for. Default: some small one.
        **overrides: names of the recipe to override first, as with `let`.

    Raises:
        RecipeError: the recipe has faults, or fits no small layer.
        ArgumentTypeError: `recipe` is not a recipe, or `owner` not a layer.
        ArgumentError: it can be built, and not be used.

    Examples:
        >>> from injectors import MXFp4Weight
        >>> "fp4_e2m1: 15 values from -6 to 6" in grid(MXFp4Weight)
        True
    """
    chosen = _chosen(recipe, overrides)
    numbers = levels_axis(_levels(chosen, owner))
    return stack(f"{chosen.__name__}: {numbers.title}", [numbers], margin=_MARGIN).file()


def _chosen(recipe: Any, overrides: Mapping[str, Any]) -> Any:
    check_recipe("recipe", recipe)
    return recipe.let(**overrides)


def _levels(recipe: Any, owner: Any) -> Levels:
    if owner is None:
        return levels(example(recipe))
    if not hasattr(owner, "supplies"):
        raise ArgumentTypeError(f"`owner` (={owner!r}) must be a layer that recipes can be given to")
    return levels(example(recipe, owner.supplies(recipe)))


def _heading(recipe: Any) -> Drawing:
    """What the recipe is called, and the first sentence of what it says of itself."""
    about = first_sentence(recipe.__doc__)
    shapes = [text(0, 15, recipe.__name__, font_size=17, font_weight="bold")]
    if about:
        shapes.append(text(0, 36, about, fill_opacity=0.85))
    width = max(width_of(recipe.__name__, 18), width_of(about))
    return Drawing(width, 42.0 if about else 20.0, tuple(shapes), recipe.__name__, about)
