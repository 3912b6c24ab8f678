"""Building what a recipe declares, by its plan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from brevq.errors import RecipeError
from brevq.inject import faults
from brevq.inject.analyse import analyse
from brevq.inject.faults import Fault
from brevq.inject.plan import ROOT, Node, Plan, make, plan_of, returned_class


def build(recipe: Any, owner: Mapping[str, Any] | None = None, root: str = ROOT) -> Any:
    """What `recipe` declares under `root`, built afresh with everything that it needs.

    Args:
        recipe: a recipe class.
        owner: what a layer supplies, by name.
        root: the name to build. Default: ``tensor_quant``.

    Raises:
        RecipeError: the recipe has faults; all of them are listed.

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
    plan = plan_of(recipe, root)
    if plan.faults:
        raise _error(recipe, _all_faults(plan))
    builder = _Builder(plan, owner or {})
    for node in plan.nodes.values():
        builder.add(node)
    found = builder.faults
    if not found and plan.open and root == ROOT:
        found = plan.unused(builder.taken)
    if found:
        raise _error(recipe, found)
    return builder.built[root]


def check(recipe: Any) -> None:
    """Find all faults of `recipe` without a layer.

    Parts that need nothing from a layer are built, and thrown away, to see whether their constructors take what
    they are given.

    Args:
        recipe: a recipe class.

    Raises:
        RecipeError: the recipe has faults; all of them are listed.

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
        Nothing takes `bitwidth`, which Recipe declares.
    """
    found = _all_faults(plan_of(recipe))
    if found:
        raise _error(recipe, found)


def read(recipe: Any, name: str) -> Any:
    """What `recipe` has under `name`: a plain value as it is, anything else built.

    Args:
        recipe: a recipe class.
        name: one of its names.

    Raises:
        RecipeError: it can not be built.
    """
    spec = analyse(name, recipe.__declared__[name].content)
    if spec.kind == "data" and not spec.complaint:
        return spec.content
    return build(recipe, root=name)


class _Builder:
    """The parts of one build, and what went wrong with them."""

    def __init__(self, plan: Plan, owner: Mapping[str, Any]) -> None:
        self.plan = plan
        self.owner = owner
        self.built: dict[str, Any] = {}
        self.faults: list[Fault] = []
        self.taken: list[str] = []

    def add(self, node: Node) -> None:
        """Build one part; a part whose needs could not be built is left out, its fault being theirs."""
        if node.name in self.built or not all(name in self.built for name in node.below):
            return
        if node.spec.kind == "supplied":
            self._add_supplied(node)
            return
        try:
            result = make(node, self.built)
            if node.spec.kind == "value" and returned_class(node.name, result):
                result = self._build_returned(node, result)
        except RecipeError:
            raise
        except Exception as error:  # noqa: BLE001  # whatever a constructor raises is reported, with its path
            here = (*node.path, (node.name, node.spec.label))
            self.faults.append(faults.raised(here, error, self._origins(node)))
        else:
            self.built[node.name] = result

    def _add_supplied(self, node: Node) -> None:
        if node.name in self.owner:
            self.built[node.name] = self.owner[node.name]
        else:
            what, recipe = node.spec.content.what, self.plan.recipe.__name__
            self.faults.append(faults.not_supplied(node.path, node.name, what, recipe))

    def _build_returned(self, node: Node, content: type) -> Any:
        """A class that a `@value` returned, built; mostly it is the one that the plan knows."""
        if node.returns is not None and node.returns.content is content:
            names = node.returns_arguments
        else:
            fresh, names = self.plan.extend(node.name, content)
            self.taken += analyse(node.name, content).asks
            parts = {**self.plan.nodes, **{part.name: part for part in fresh}}
            for name in names:
                self._add_all(name, parts)
        return content(**{name: self.built[name] for name in names})

    def _add_all(self, name: str, parts: Mapping[str, Node]) -> None:
        """Build the part called `name` and what it needs, ahead of their turn."""
        for key in parts[name].below:
            self._add_all(key, parts)
        self.add(parts[name])

    def _origins(self, node: Node) -> dict[str, str]:
        """The plain values that a part got, and which class declared each."""
        nodes = self.plan.nodes
        plain = [name for name in node.below if name in nodes and nodes[name].spec.kind in ("data", "supplied")]
        return {name: f"{self.built[name]!r}, {_origin(nodes[name])}" for name in plain}


def _origin(node: Node) -> str:
    return "supplied by the layer" if node.spec.kind == "supplied" else f"declared by {faults.label(node.by)}"


def _all_faults(plan: Plan) -> list[Fault]:
    """The faults of the wiring, and those of the constructors that need no layer."""
    builder = _Builder(plan, {})
    for node in plan.nodes.values():
        if not node.needs_owner:
            builder.add(node)
    found = plan.faults + builder.faults
    if found and plan.open and plan.root == ROOT:
        # What a `@value` returns is not known, and may take the name; a near miss is worth telling all the same.
        found += [fault for fault in plan.unused(()) if fault.near]
    return found


def _error(recipe: Any, found: list[Fault]) -> RecipeError:
    error = RecipeError(faults.report(recipe, found))
    error.__cause__ = next((fault.cause for fault in found if fault.cause is not None), None)
    return error
