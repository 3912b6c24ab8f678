"""The plan of a recipe: in which order its parts are built, and everything that is wrong with it.

A plan is made once for a recipe class and kept. It is found by walking from the root down the names that
constructors ask for, depth first, so a part comes after all that it needs, and a cycle is met before anything is
built.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from brevq.errors import RecipeError
from brevq.inject import faults
from brevq.inject.analyse import Spec, analyse
from brevq.inject.declare import supplied
from brevq.inject.faults import Fault, Path

#: The part that a layer asks for.
ROOT = "tensor_quant"
#: Names that layers read from a recipe, whether or not a part asks for them.
READ_BY_LAYERS = frozenset({"role", "signed"})


@attrs.define
class Node:
    """One part of a plan: its name, what it is, who declared it, and the names that it is built with.

    `returns` is the class that a `@value` returned when it was tried; `needs_owner` says that something below is
    supplied by a layer.
    """

    name: str
    spec: Spec
    by: type
    path: Path
    arguments: tuple[str, ...] = ()
    returns: Spec | None = None
    returns_arguments: tuple[str, ...] = ()
    needs_owner: bool = False

    @property
    def below(self) -> tuple[str, ...]:
        """The names that are passed to it or to what it returns, each once, in order."""
        return tuple(dict.fromkeys(self.arguments + self.returns_arguments))


class Plan:
    """How a recipe is built from `root` down.

    Args:
        recipe: the recipe class.
        root: the name to build.

    Attributes:
        nodes: the parts by name, each after those that it needs.
        faults: what is wrong with the recipe's wiring.
        open: whether a `@value` could not be tried without a layer, so that what it returns is not known.
    """

    def __init__(self, recipe: Any, root: str) -> None:
        self.recipe = recipe
        self.root = root
        walk = Walk(recipe, {})
        walk.visit(root, (), None)
        self.nodes = walk.nodes
        self.open = walk.open
        self.missing = walk.missing
        self.faults = [*self._gaps(self.missing), *walk.faults]
        if root == ROOT and not self.open:
            self.faults += self.unused(())

    @functools.cached_property
    def known(self) -> frozenset[str]:
        """All names that may be overridden: those that are declared, and those that some part takes."""
        return self._taken | set(self.recipe.__declared__)

    def unused(self, also_taken: Iterable[str]) -> list[Fault]:
        """A fault for each declared name that nothing takes, now or in a recipe that this one inherits from.

        Args:
            also_taken: names that a build took beyond what is planned.
        """
        taken = self._taken | set(also_taken)
        named = {self._near(gap) for gap in self.missing}
        return [
            faults.unused(name, declared.by, taken)
            for name, declared in self.recipe.__declared__.items()
            if name not in taken and name not in named and not isinstance(declared.content, supplied)
        ]

    def extend(self, name: str, content: type) -> tuple[list[Node], tuple[str, ...]]:
        """What has to be built for a class that the `@value` called `name` returned, beyond what is planned.

        Args:
            name: name of the value.
            content: the class that it returned.

        Returns:
            The parts to build, in order, and the names that the class is built with.

        Raises:
            RecipeError: something that the class asks for is missing, or leads back to `name`.
        """
        above = frozenset(key for key in self.nodes if self._needs(key, name))
        walk = Walk(self.recipe, {key: node for key, node in self.nodes.items() if key not in above})
        spec = analyse(name, content)
        arguments = walk.arguments(spec, (*self.nodes[name].path, (name, spec.label)), above)
        found = [*self._gaps(walk.missing), *walk.faults]
        if found:
            raise RecipeError(faults.report(self.recipe, found))
        return [node for key, node in walk.nodes.items() if key not in self.nodes], arguments

    def _needs(self, name: str, needed: str) -> bool:
        return name == needed or any(self._needs(key, needed) for key in self.nodes[name].below)

    def _gaps(self, missing: Iterable[faults.Missing]) -> list[Fault]:
        return [gap.fault(self._near(gap), self.recipe) for gap in missing]

    def _near(self, gap: faults.Missing) -> str | None:
        return gap.near(name for name in self.recipe.__declared__ if name not in self._taken)

    @functools.cached_property
    def _taken(self) -> frozenset[str]:
        taken = {*READ_BY_LAYERS, self.root}
        for base in self.recipe.__mro__:
            for name, content in vars(base).get("__own__", {}).items():
                taken.update(analyse(name, content).asks)
        for node in self.nodes.values():
            taken.update(node.returns.asks if node.returns else ())
        return frozenset(taken)


class Walk:
    """One walk over the names of a recipe, depth first: the parts that it met, and what was wrong with them.

    Args:
        recipe: the recipe class.
        nodes: parts that are planned already.
    """

    def __init__(self, recipe: Any, nodes: dict[str, Node]) -> None:
        self.recipe = recipe
        self.nodes = nodes
        self.faults: list[Fault] = []
        self.missing: list[faults.Missing] = []
        self.open = False
        self._broken: set[str] = set()
        self._tried: dict[str, Any] = {}

    def visit(self, name: str, path: Path, asked_by: Spec | None, above: frozenset[str] = frozenset()) -> None:
        """Plan the part called `name`, after everything that it needs.

        Args:
            name: a name, declared or not.
            path: how it was reached.
            asked_by: whose constructor asks for it; None for the root.
            above: the names that wait for it, which it must not need.
        """
        if name in self.nodes or name in self._broken:
            return
        declared = self.recipe.__declared__.get(name)
        if name in above:
            self.faults.append(faults.cycle(path, name))
        elif declared is None:
            self._broken.add(name)
            self.missing.append(faults.Missing(name, path, asked_by))
        else:
            self._plan(Node(name, analyse(name, declared.content), declared.by, path), above | {name})

    def arguments(self, spec: Spec, path: Path, above: frozenset[str]) -> tuple[str, ...]:
        """The names that `spec` is built with, all of them visited: what it requires, and what is declared.

        Args:
            spec: what is built.
            path: how it was reached, itself included.
            above: the names that wait for it, itself included.
        """
        names = (*spec.required, *(key for key in spec.optional if key in self.recipe.__declared__))
        for key in names:
            self.visit(key, path, spec, above)
        return names

    def _plan(self, node: Node, above: frozenset[str]) -> None:
        if node.spec.complaint:
            self._broken.add(node.name)
            self.faults.append(faults.wrong_kind(node.path, node.name, node.by, node.spec.complaint))
            return
        here = (*node.path, (node.name, node.spec.label))
        node.arguments = self.arguments(node.spec, here, above)
        self._refuse_none(node, here)
        if node.spec.kind == "value" and self._whole(node.arguments):
            self._try(node, here, above)
        if node.name in self._broken or not self._whole(node.below):
            self._broken.add(node.name)
            return
        node.needs_owner = node.spec.kind == "supplied" or any(self.nodes[key].needs_owner for key in node.below)
        self.nodes[node.name] = node

    def _whole(self, names: Iterable[str]) -> bool:
        return all(name in self.nodes for name in names)

    def _refuse_none(self, node: Node, path: Path) -> None:
        """A component that is None, where a constructor has no default for it, is missing rather than given."""
        for key in node.spec.required:
            below = self.nodes.get(key)
            if below and key.endswith("_impl") and below.spec.kind == "data" and below.spec.content is None:
                self._broken.add(node.name)
                self.faults.append(faults.none_component(path, key, below.by, node.spec))

    def _try(self, node: Node, path: Path, above: frozenset[str]) -> None:
        """Compute a `@value` that needs no layer, to learn whether it returns a class and what that asks for."""
        self.open = self.open or any(self.nodes[key].needs_owner for key in node.arguments)
        if self.open:
            return
        try:
            arguments = {key: self._build(key) for key in node.arguments}
        except Exception:  # noqa: BLE001  # whoever builds the argument reports it
            self.open = True
            return
        try:
            result = make(node, arguments)
        except Exception as error:  # noqa: BLE001  # whatever it raises is reported, with its path
            self._broken.add(node.name)
            self.faults.append(faults.raised(path, error, {}))
            return
        if returned_class(node.name, result):
            node.returns = analyse(node.name, result)
            node.returns_arguments = self.arguments(node.returns, (*path[:-1], (node.name, result.__name__)), above)

    def _build(self, name: str) -> Any:
        """The part called `name`, built for a trial; all that it needs is planned and needs no layer."""
        if name not in self._tried:
            node = self.nodes[name]
            below = {key: self._build(key) for key in node.below}
            result = make(node, below)
            if node.returns is not None:
                result = result(**{key: below[key] for key in node.returns_arguments})
            self._tried[name] = result
        return self._tried[name]


def plan_of(recipe: Any, root: str = ROOT) -> Plan:
    """The plan of `recipe` from `root` down, made once for each recipe class.

    Args:
        recipe: a recipe class.
        root: the name to build.

    Examples:
        >>> from brevq.inject import Injector
        >>> class Recipe(Injector):
        ...     tensor_quant = dict
        >>> plan_of(Recipe) is plan_of(Recipe)
        True
    """
    plan: Plan | None = recipe.__plans__.get(root)
    if plan is None:
        plan = recipe.__plans__[root] = Plan(recipe, root)
    return plan


def make(node: Node, built: Mapping[str, Any]) -> Any:
    """What `node` stands for, given the parts that it needs; of a `@value`, what its function returns.

    Args:
        node: the part.
        built: all names that it is built with, and what they stand for.
    """
    spec = node.spec
    if spec.kind == "data":
        return spec.content
    arguments = {key: built[key] for key in node.arguments}
    if spec.kind == "class":
        return spec.content(**arguments)
    if spec.kind == "this":
        return _follow(spec.content.__expression__, arguments)
    return spec.content.function(**arguments)


def returned_class(name: str, result: Any) -> bool:
    """Whether what a `@value` returned is a class that is to be built.

    Args:
        name: name of the value.
        result: what it returned.
    """
    return isinstance(result, type) and analyse(name, result).kind == "class"


def _follow(steps: Iterable[tuple[str, Any]], arguments: Mapping[str, Any]) -> Any:
    """Where an expression on `this` leads, from the name that it begins with."""
    (result,) = arguments.values()
    for kind, key in tuple(steps)[1:]:
        result = getattr(result, key) if kind == "." else result[key]
    return result
