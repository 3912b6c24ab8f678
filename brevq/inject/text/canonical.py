"""The fingerprint of a recipe: a hash over what it builds."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs

from brevq.inject.analyse import ROOT, Spec
from brevq.inject.declare import supplied
from brevq.inject.pages import check_recipe
from brevq.inject.plan import READ_BY_LAYERS, Node, make, plan_of
from brevq.inject.text.faulty import Faulty, each, report
from brevq.inject.text.paths import is_recipe, path_of
from brevq.inject.text.values import inside, write

#: Version of the schema of texts, and of what is hashed.
VERSION = 1


def fingerprint(recipe: Any) -> str:
    """A hash over what `recipe` builds: alike for recipes that build the same quantizer, whatever they are called.

    Hashed are the names that the build uses, each with what it is: a class by its import path, data by its value, a
    name that a layer supplies as such; and `role` and `signed`, which layers read. What does not count: docstrings,
    names that no part takes, and arguments that equal their constructor's default. A `@value` or a reference counts as
    what it comes to; where that is no data, a `@value` counts as its import path and the names that it takes. If what
    it returns is only known with a layer, all names of the recipe count. The code of classes and functions does not
    count: they are known by name.

    Args:
        recipe: a recipe class.

    Returns:
        ``sha256:`` and 64 hexadecimal digits.

    Raises:
        RecipeError: the recipe can not be built, or it uses something that has no import path and is no data; all
            faults are listed.
        ArgumentTypeError: `recipe` is not a recipe.

    Examples:
        >>> from brevq.inject import Injector
        >>> class Int8(Injector):
        ...     tensor_quant = dict
        >>> class Same(Int8):
        ...     '''Called something else.'''
        >>> fingerprint(Int8) == fingerprint(Same), fingerprint(Int8) == fingerprint(Int8.let(tensor_quant=list))
        (True, False)
    """
    check_recipe("recipe", recipe)
    try:
        return hash_of(recipe)
    except Faulty as faulty:
        raise report(f"Can not take the fingerprint of {recipe.__name__}", faulty) from faulty.cause


def hash_of(recipe: Any) -> str:
    """As `fingerprint`, for those who gather faults.

    Args:
        recipe: a recipe class.

    Raises:
        Faulty: as `fingerprint` raises RecipeError.

    Examples:
        >>> from brevq.inject import Injector
        >>> hash_of(Injector.let(tensor_quant=dict))[:20]
        'sha256:31dac1b1a4f26'
    """
    found = plan_of(recipe).faults
    if found:
        cause = next((fault.cause for fault in found if fault.cause is not None), None)
        raise Faulty(*(fault.text for fault in found), cause=cause)
    content = {"brevq_recipe": VERSION, "names": _names(recipe)}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return f"sha256:{hashlib.sha256(text.encode('ascii')).hexdigest()}"


@attrs.frozen
class _Part:
    """What is known of a name.

    `form` is what it is, as JSON; `plain` says that it is passed as that data; `below` are the names that it is built
    with, and `asks` is what asks for them, with its defaults.
    """

    form: Any
    plain: bool = False
    below: tuple[str, ...] = ()
    asks: Spec | None = None


def _names(recipe: Any, place: str = "") -> dict[str, Any]:
    """The names that a build uses, each with its form; all names, where it is not known which it uses.

    `place` is what a recipe is called in messages that another one holds.
    """
    roots = [root for root in (ROOT, *sorted(READ_BY_LAYERS)) if root in recipe.__declared__]
    plans = [plan_of(recipe, root) for root in roots]
    if ROOT not in roots or any(plan.open or plan.faults for plan in plans):
        return each(lambda name, _: _declared(recipe, place, name), recipe.__declared__.items())
    nodes = {name: node for plan in plans for name, node in plan.nodes.items()}
    return _Used(recipe, place, nodes).names(roots)


class _Used:
    """The names that are reached from the roots of a recipe, where an argument that equals its default is not given."""

    def __init__(self, recipe: Any, place: str, nodes: Mapping[str, Node]) -> None:
        self.recipe = recipe
        self.place = place
        self.nodes = nodes
        self.parts: dict[str, _Part] = {}
        self.made: dict[str, Any] = {}

    def names(self, roots: Iterable[str]) -> dict[str, Any]:
        """The names with their forms.

        Raises:
            Faulty: a name has no form; all that have none are named.
        """
        waiting, seen = list(roots), set()
        texts: list[str] = []
        while waiting:
            name = waiting.pop()
            if name in seen:
                continue
            seen.add(name)
            try:
                part = self._part(name)
            except Faulty as faulty:
                texts += faulty.texts
            else:
                waiting += [key for key in part.below if not self._is_default(part.asks, key)]
        if texts:
            raise Faulty(*sorted(texts))
        return {name: self.parts[name].form for name in seen}

    def _part(self, name: str) -> _Part:
        if name not in self.parts:
            node = self.nodes[name]
            self.parts[name] = _KINDS[node.spec.kind](self, node)
        return self.parts[name]

    def _is_default(self, asks: Spec | None, key: str) -> bool:
        """Whether what is declared under `key` is what a constructor takes by default."""
        if asks is None or key not in asks.optional:
            return False
        default = inspect.signature(asks.content).parameters[key].default
        try:
            part = self._part(key)
            # As text, because 1 == True == 1.0.
            return part.plain and json.dumps(part.form) == json.dumps(_form(f"`{key}`", default))
        except Faulty:
            return False

    def supplied(self, node: Node) -> _Part:
        """A name that a layer supplies."""
        return _Part(_SUPPLIED)

    def data(self, node: Node) -> _Part:
        """Data, passed as it is."""
        return _Part(_declared(self.recipe, self.place, node.name), plain=True)

    def component(self, node: Node) -> _Part:
        """A class that is built."""
        return _Part(_declared(self.recipe, self.place, node.name), below=node.arguments, asks=node.spec)

    def computed(self, node: Node) -> _Part:
        """A `@value` or a reference: what it comes to, where that is known and can be written."""
        with contextlib.suppress(Faulty):
            if node.returns is not None:
                return _Part(_form("", node.returns.content), below=node.returns_arguments, asks=node.returns)
            if not node.waits:
                return _Part(_form("", self._result(node.name)), plain=True)
        return _Part(_declared(self.recipe, self.place, node.name), below=node.below)

    def _result(self, name: str) -> Any:
        """What a name comes to, built for a trial."""
        if name not in self.made:
            node = self.nodes[name]
            arguments = {key: self._result(key) for key in node.below}
            try:
                self.made[name] = make(node, arguments, {})
            except Exception as error:  # noqa: BLE001  # whoever builds the recipe reports it
                raise Faulty(str(error)) from None
        return self.made[name]


_KINDS: dict[str, Callable[[_Used, Node], _Part]] = {
    "supplied": _Used.supplied,
    "data": _Used.data,
    "class": _Used.component,
    "value": _Used.computed,
    "this": _Used.computed,
}
_SUPPLIED = {"supplied": True}


def _declared(recipe: Any, place: str, name: str) -> Any:
    """The form of what a recipe declares; if it has none, that of its place in a recipe that can be imported."""
    declared = recipe.__declared__[name]
    if isinstance(declared.content, supplied):
        return _SUPPLIED
    try:
        return _form(inside(place, name), declared.content)
    except Faulty:
        path = path_of(declared.by)
        if path is None:
            raise
        return {"declared": path, "name": name}


def _form(place: str, content: Any) -> Any:
    """What something is, as JSON: of a recipe, what it builds."""
    return {"recipe": _names(content, place)} if is_recipe(content) else write(place, content)
