"""The plan of a recipe: in which order its parts are built, and everything that is wrong with it.

A plan is made once for a recipe class and kept. It is found by walking from the root down the names that
constructors ask for, depth first, so a part comes after all that it needs, and a cycle is met before anything is
built. A `@value` is computed while planning, to see whether it returns a class and what that asks for; one that waits
for what a layer supplies leaves the plan open, and the recipe is planned again for what the layer supplies.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from brevq.inject import faults
from brevq.inject.analyse import COMPONENTS, ROOT, Spec, analyse, short
from brevq.inject.declare import supplied
from brevq.inject.faults import Fault, Path
from brevq.inject.shared import is_stateless, shared

#: Names that layers read from a recipe, whether or not a part asks for them.
READ_BY_LAYERS = frozenset({"role", "signed"})
# How much is kept for one recipe: a plan, and the names asked for, for each shape of layer.
_KEPT = 512


@attrs.define
class Node:
    """One part of a plan: its name, what it is, who declared it, and the names that it is built with.

    `returns` is the class that a `@value` returned when it was computed; `waits` says that the part, or one below,
    needs something that a layer supplies and that is not known.
    """

    name: str
    spec: Spec
    by: type
    path: Path
    arguments: tuple[str, ...] = ()
    returns: Spec | None = None
    returns_arguments: tuple[str, ...] = ()
    waits: bool = False

    @property
    def below(self) -> tuple[str, ...]:
        """The names that are passed to it or to what it returns, each once, in order."""
        return tuple(dict.fromkeys(self.arguments + self.returns_arguments))

    @property
    def built(self) -> Spec:
        """What is built under the name: the class that a `@value` returned, or what is declared."""
        return self.returns or self.spec


class Plan:
    """How a recipe is built from `root` down.

    Args:
        recipe: the recipe class.
        root: the name to build.
        owner: what a layer supplies, by name.

    Attributes:
        nodes: the parts by name, each after those that it needs.
        faults: what is wrong with the recipe's wiring.
        open: whether a `@value` waits for what a layer supplies, so that what it returns is not known.
        lasts: whether the plan would come out the same again: nothing raised an error on the way.
        taken: the names that some part asks for, here or in a recipe that this one inherits from.
        kept: what is the same in every build, by name: plain values, and parts without state that are made of such.
    """

    def __init__(self, recipe: Any, root: str, owner: Mapping[str, Any]) -> None:
        self.recipe = recipe
        self.root = root
        walk = Walk(recipe, owner)
        walk.visit(root, (), None)
        self.nodes = walk.nodes
        self.open = walk.open
        self.missing = walk.missing
        self.lasts = walk.lasts
        self.taken = frozenset({*READ_BY_LAYERS, root, *walk.asked, *_asked_by_bases(recipe, root, owner)})
        self.faults = [*self._gaps(), *walk.faults]
        if root == ROOT and not self.open:
            self.faults += self.unused()
        self.kept: dict[str, Any] = {
            name: node.spec.content for name, node in self.nodes.items() if node.spec.kind == "data"
        }
        self._to_build: tuple[Node, ...] | None = None

    @functools.cached_property
    def known(self) -> frozenset[str]:
        """All names that may be overridden: those that are declared, and those that some part takes."""
        return self.taken | set(self.recipe.__declared__)

    @property
    def to_build(self) -> tuple[Node, ...]:
        """The parts that each build makes anew, each after those that it needs."""
        if self._to_build is None:
            self._to_build = tuple(node for name, node in self.nodes.items() if name not in self.kept)
        return self._to_build

    def keep(self, node: Node, part: Any) -> Any:
        """Have a part without state, made of what is the same in every build, serve every build; which one that is.

        Args:
            node: the part.
            part: what was built of it.
        """
        if node.built.kind != "class" or not is_stateless(part) or any(name not in self.kept for name in node.below):
            return part
        self.kept[node.name] = shared(part, {name: self.kept[name] for name in node.below})
        self._to_build = None
        return self.kept[node.name]

    def unused(self) -> list[Fault]:
        """A fault for each declared name that nothing takes, unless it is told already as somebody's near miss."""
        named = {self._near(gap) for gap in self.missing}
        return [
            faults.unused(name, declared.by, self.taken)
            for name, declared in self.recipe.__declared__.items()
            if name not in self.taken and name not in named and not isinstance(declared.content, supplied)
        ]

    def _gaps(self) -> list[Fault]:
        return [gap.fault(self._near(gap), self.recipe) for gap in self.missing]

    def _near(self, gap: faults.Missing) -> str | None:
        return gap.near(name for name in self.recipe.__declared__ if name not in self.taken)


class Walk:
    """One walk over the names of a recipe, depth first: the parts that it met, and what was wrong with them.

    Args:
        recipe: the recipe class.
        owner: what a layer supplies, by name.

    Attributes:
        nodes: the parts by name, each after those that it needs.
        missing: the names that are asked for and not declared.
        faults: what else is wrong.
        asked: all names that something asks for.
        open: whether a `@value` waits for what a layer supplies.
        lasts: whether another walk would find the same: nothing raised an error on the way.
    """

    def __init__(self, recipe: Any, owner: Mapping[str, Any]) -> None:
        self.recipe = recipe
        self.owner = owner
        self.nodes: dict[str, Node] = {}
        self.missing: list[faults.Missing] = []
        self.faults: list[Fault] = []
        self.asked: set[str] = set()
        self.open = False
        self.lasts = True
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
            self.faults.append(faults.cycle(path, name, self.recipe))
        elif declared is None:
            self._broken.add(name)
            self.missing.append(faults.Missing(name, path, asked_by))
        else:
            self._plan(Node(name, analyse(name, declared.content), declared.by, path), above | {name})

    def _plan(self, node: Node, above: frozenset[str]) -> None:
        if node.spec.complaint:
            self._broken.add(node.name)
            self.faults.append(faults.wrong_kind(node.path, node.name, node.by, node.spec.complaint))
            return
        here = (*node.path, (node.name, node.spec.label))
        node.arguments = self._arguments(node, node.spec, here, above)
        if node.spec.kind == "value" and self._whole(node.arguments):
            self._compute(node, here, above)
        if node.name in self._broken or not self._whole(node.below):
            self._broken.add(node.name)
            return
        node.waits = self._waits(node)
        self.nodes[node.name] = node

    def _waits(self, node: Node) -> bool:
        missing = node.spec.kind == "supplied" and node.name not in self.owner
        return missing or any(self.nodes[key].waits for key in node.below)

    def _arguments(self, node: Node, spec: Spec, path: Path, above: frozenset[str]) -> tuple[str, ...]:
        """The names that `spec` is built with, all of them visited: what it requires, and what is declared."""
        self.asked.update(spec.asks)
        names = (*spec.required, *(key for key in spec.optional if key in self.recipe.__declared__))
        for key in names:
            self.visit(key, path, spec, above)
        for key in spec.required:
            self._refuse_none(node, spec, key, path)
        return names

    def _whole(self, names: Iterable[str]) -> bool:
        return all(name in self.nodes for name in names)

    def _refuse_none(self, node: Node, spec: Spec, key: str, path: Path) -> None:
        """A component that is None, where a constructor has no default for it, is missing rather than given."""
        below = self.nodes.get(key)
        if below and key.endswith(COMPONENTS) and below.spec.kind == "data" and below.spec.content is None:
            self._broken.add(node.name)
            self.faults.append(faults.none_component(path, key, below.by, spec))

    def _compute(self, node: Node, path: Path, above: frozenset[str]) -> None:
        """Learn whether a `@value` returns a class, and what that asks for."""
        if any(self.nodes[key].waits for key in node.arguments):
            self.open = True
            return
        try:
            arguments = {key: self._build(key) for key in node.arguments}
        except Exception:  # noqa: BLE001  # whoever builds the argument reports it
            self.open, self.lasts = True, False
            return
        try:
            result = node.spec.content.function(**arguments)
        except Exception as error:  # noqa: BLE001  # whatever it raises is reported, with its path
            self.lasts = False
            self._broken.add(node.name)
            self.faults.append(faults.raised(path, error, origins(node, self.nodes, arguments)))
            return
        if isinstance(result, type):
            self._adopt(node, analyse(node.name, result), path, above)

    def _adopt(self, node: Node, spec: Spec, path: Path, above: frozenset[str]) -> None:
        """Build what a `@value` returned, a class, in its place."""
        if spec.kind != "class":  # passed as it is
            return
        if spec.complaint:
            self._broken.add(node.name)
            self.faults.append(faults.wrong_kind(node.path, node.name, node.by, spec.complaint))
        else:
            node.returns = spec
            node.returns_arguments = self._arguments(node, spec, (*path[:-1], (node.name, spec.label)), above)

    def _build(self, name: str) -> Any:
        """The part called `name`, built for a trial; all that it needs is planned and known."""
        if name not in self._tried:
            node = self.nodes[name]
            self._tried[name] = make(node, {key: self._build(key) for key in node.below}, self.owner)
        return self._tried[name]


def plan_of(recipe: Any, root: str = ROOT, owner: Mapping[str, Any] | None = None) -> Plan:
    """The plan of `recipe` from `root` down, made once for each recipe class.

    A recipe in which a `@value` waits for what a layer supplies is planned once for each set of things supplied.

    Args:
        recipe: a recipe class.
        root: the name to build.
        owner: what a layer supplies, by name.

    Examples:
        >>> from brevq.inject import Injector
        >>> class Recipe(Injector):
        ...     tensor_quant = dict
        >>> plan_of(Recipe) is plan_of(Recipe)
        True
    """
    plan = _kept(recipe, root, {})
    if not plan.open or not owner:
        return plan
    return _kept(recipe, root, _wanted(recipe, owner))


def _wanted(recipe: Any, owner: Mapping[str, Any]) -> dict[str, Any]:
    """Of what is supplied, the names that the recipe declares as such: on nothing else a plan depends."""
    declared = recipe.__declared__
    return {key: owner[key] for key in owner if key in declared and isinstance(declared[key].content, supplied)}


def _kept(recipe: Any, root: str, owner: Mapping[str, Any]) -> Plan:
    """A plan that was made before for the same things supplied, or a new one, which is kept if it lasts."""
    key = ("plan", root, _key(owner))
    plan: Plan | None = _find(recipe, key)
    if plan is None:
        plan = Plan(recipe, root, owner)
        _keep(recipe, key, plan, plan.lasts)
    return plan


def _find(recipe: Any, key: tuple[Any, ...]) -> Any:
    """What is kept for a recipe under a key; None if nothing is, or if the key holds what can not be hashed."""
    try:
        return recipe.__plans__.get(key)
    except TypeError:
        return None


def _keep(recipe: Any, key: tuple[Any, ...], content: Any, lasts: bool) -> None:
    """Keep something for a recipe under a key, if it lasts, there is room, and the key can be hashed."""
    if lasts and len(recipe.__plans__) < _KEPT:
        with contextlib.suppress(TypeError):
            recipe.__plans__[key] = content


def _key(owner: Mapping[str, Any]) -> tuple[Any, ...]:
    """What is supplied, as a key that tells 1 from True, and 0.0 from -0.0."""
    return tuple((name, type(owner[name]), repr(owner[name]), owner[name]) for name in sorted(owner))


def _asked_by_bases(recipe: Any, root: str, owner: Mapping[str, Any]) -> set[str]:
    """The names that parts ask for in the recipes that this one inherits from, overridden parts among them."""
    asked: set[str] = set()
    for base in recipe.__mro__:
        for name, content in vars(base).get("__own__", {}).items():
            asked.update(analyse(name, content).asks)
        if base is not recipe and "__own__" in vars(base):
            asked.update(_asked(base, root, _wanted(base, owner)))
    return asked


def _asked(recipe: Any, root: str, owner: Mapping[str, Any]) -> frozenset[str]:
    """The names that the parts of a recipe ask for; found once for the same things supplied."""
    key = ("asked", root, _key(owner))
    asked: frozenset[str] | None = _find(recipe, key)
    if asked is None:
        walk = Walk(recipe, owner)
        walk.visit(root, (), None)
        asked = frozenset(walk.asked)
        _keep(recipe, key, asked, walk.lasts)
    return asked


def make(node: Node, built: Mapping[str, Any], owner: Mapping[str, Any]) -> Any:
    """What `node` stands for, given the parts that it needs.

    Args:
        node: the part.
        built: all names that it is built with, and what they stand for.
        owner: what a layer supplies, by name.
    """
    spec = node.spec
    if spec.kind == "data":
        return spec.content
    if spec.kind == "supplied":
        return owner[node.name]
    if node.returns is not None:
        return node.returns.content(**{key: built[key] for key in node.returns_arguments})
    arguments = {key: built[key] for key in node.arguments}
    if spec.kind == "class":
        return spec.content(**arguments)
    if spec.kind == "this":
        return _follow(spec.content.__expression__, arguments)
    return spec.content.function(**arguments)


def origins(node: Node, nodes: Mapping[str, Node], built: Mapping[str, Any]) -> dict[str, str]:
    """The plain values that a part is built with, and where each comes from, for messages.

    Args:
        node: the part.
        nodes: all parts.
        built: what their names stand for.
    """
    plain = [name for name in node.below if nodes[name].spec.kind in ("data", "supplied")]
    return {name: f"{short(built[name])}, {_origin(nodes[name])}" for name in plain}


def _origin(node: Node) -> str:
    return "supplied by the layer" if node.spec.kind == "supplied" else f"declared by {faults.label(node.by)}"


def _follow(steps: Iterable[tuple[str, Any]], arguments: Mapping[str, Any]) -> Any:
    """Where an expression on `this` leads, from the name that it begins with."""
    (result,) = arguments.values()
    for kind, key in tuple(steps)[1:]:
        result = getattr(result, key) if kind == "." else result[key]
    return result
