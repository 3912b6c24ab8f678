"""Building what a recipe declares, by its plan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from brevq.errors import RecipeAttributeError, RecipeError
from brevq.inject import faults
from brevq.inject.analyse import COMPONENTS, ROOT, analyse
from brevq.inject.faults import Fault
from brevq.inject.pages import check_recipe
from brevq.inject.plan import Node, Plan, make, origins, plan_of


def build(recipe: Any, owner: Mapping[str, Any] | None = None, root: str = ROOT) -> Any:
    """What `recipe` declares under `root`, built afresh with everything that it needs.

    Args:
        recipe: a recipe class.
        owner: what a layer supplies, by name. Default: nothing.
        root: the name to build. Default: ``tensor_quant``.

    Raises:
        RecipeError: the recipe has faults; all of them are listed.
        ArgumentTypeError: `recipe` is not a recipe.

    Examples:
        >>> from brevq.inject import Injector
        >>> class Part:
        ...     def __init__(self, bits):
        ...         self.bits = bits
        >>> class Recipe(Injector):
        ...     tensor_quant = Part
        ...     bits = 4
        >>> build(Recipe).bits
        4
    """
    check_recipe("recipe", recipe)
    plan = plan_of(recipe, root, owner)
    if plan.faults:
        raise _error(recipe, _all_faults(plan, owner or {}))
    builder = _Builder(plan, owner or {})
    for node in plan.to_build:
        builder.add(node)
    if builder.faults or builder.lacking:
        raise _error(recipe, builder.faults + builder.lacking)
    return builder.built[root]


def check(recipe: Any) -> None:
    """Find all faults of `recipe` without a layer.

    Parts that need nothing from a layer are built, and thrown away, to see whether their constructors take what
    they are given.

    Args:
        recipe: a recipe class.

    Raises:
        RecipeError: the recipe has faults; all of them are listed.
        ArgumentTypeError: `recipe` is not a recipe.

    Examples:
        >>> from brevq.inject import Injector
        >>> class Recipe(Injector):
        ...     tensor_quant = dict
        ...     bitwidth = 4
        >>> check(Recipe)
        Traceback (most recent call last):
        ...
        brevq.errors.RecipeError: Can not build Recipe.
        <BLANKLINE>
        Nothing takes `bitwidth`, which Recipe declares. Remove it, or declare a part that takes it.
    """
    check_recipe("recipe", recipe)
    check_for(recipe, {})


def check_for(recipe: Any, owner: Mapping[str, Any]) -> None:
    """Find all faults of `recipe` that show with what a layer supplies.

    Args:
        recipe: a recipe class.
        owner: what a layer supplies, by name; what it lacks is no fault here.

    Raises:
        RecipeError: the recipe has faults; all of them are listed.
    """
    found = _all_faults(plan_of(recipe, ROOT, owner), owner)
    if found:
        raise _error(recipe, found)


def read(recipe: Any, name: str) -> Any:
    """What `recipe` has under `name`: a plain value as it is, anything else built.

    Args:
        recipe: a recipe class.
        name: one of its names.

    Raises:
        RecipeAttributeError: it can not be built, which to Python means that there is no such attribute.
    """
    content = recipe.__declared__[name].content
    if isinstance(content, (bool, int, float, str)) and not name.endswith(COMPONENTS):  # most are, and that is quick
        return content
    spec = analyse(name, content)
    if spec.kind == "data" and not spec.complaint:
        return spec.content
    try:
        return build(recipe, root=name)
    except RecipeError as error:
        raise RecipeAttributeError(str(error)) from error.__cause__


class _Builder:
    """The parts of one build, what went wrong with them, and what no layer supplied to them."""

    def __init__(self, plan: Plan, owner: Mapping[str, Any]) -> None:
        self.plan = plan
        self.owner = owner
        self.built: dict[str, Any] = dict(plan.kept)
        self.faults: list[Fault] = []
        self.lacking: list[Fault] = []

    def add(self, node: Node) -> None:
        """Build one part; a part whose needs could not be built is left out, its fault being theirs."""
        if not all(name in self.built for name in node.below):
            return
        if node.spec.kind == "supplied" and node.name not in self.owner:
            self.lacking.append(faults.not_supplied(node.path, node.name, node.spec.label, self.plan.recipe))
            return
        try:
            self.built[node.name] = self.plan.keep(node, make(node, self.built, self.owner))
        except Exception as error:  # noqa: BLE001  # whatever a constructor raises is reported, with its path
            here = (*node.path, (node.name, node.built.label))
            self.faults.append(faults.raised(here, error, origins(node, self.plan.nodes, self.built)))


def _all_faults(plan: Plan, owner: Mapping[str, Any]) -> list[Fault]:
    """The faults of the wiring, and those of the constructors that have all that they need."""
    builder = _Builder(plan, owner)
    for node in plan.to_build:
        builder.add(node)
    found = plan.faults + builder.faults
    if found and plan.open and plan.root == ROOT:
        # What a `@value` returns is not known, and may take the name; a near miss is worth telling all the same.
        found += [fault for fault in plan.unused() if fault.near]
    return found


def _error(recipe: Any, found: list[Fault]) -> RecipeError:
    error = RecipeError(faults.report(recipe, found))
    error.__cause__ = next((fault.cause for fault in found if fault.cause is not None), None)
    return error
