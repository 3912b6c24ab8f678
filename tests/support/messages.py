"""The messages of all errors that the source raises, read off its syntax trees.

A message is a text in which `…` stands for what varies. Where a function puts it together, it is followed to where its
parts are written: through names, constants, `.format`, conditions, and functions of the same module.
"""

import ast
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import attrs

ROOT = Path(__file__).parents[2]
#: Where errors are gathered: what these are called with is a message, as what is raised is.
GATHER = ("Fault", "Faulty")
#: Modules whose functions list faults, for another function to raise all of them together.
LISTING = ("brevq/config/rules.py", "brevq/config/spec.py", "brevq/checkpoint/state.py", "brevq/checkpoint/recipes.py")
VARIES = "…"
#: How many names are followed, one from another.
DEPTH = 6

Follow = Callable[..., list[str]]


@attrs.frozen
class Message:
    """A message, and the place that raises it."""

    text: str
    place: str


def messages() -> list[Message]:
    """All messages, each with its first place, in the order of the files."""
    found: dict[str, Message] = {}
    for path in sorted([*ROOT.glob("brevq/**/*.py"), *ROOT.glob("injectors/**/*.py")]):
        name = path.relative_to(ROOT).as_posix()
        module = Module(ast.parse(path.read_text(encoding="utf-8")), listing=name in LISTING)
        for line, text in module.messages():
            found.setdefault(text, Message(text, f"{name}:{line}"))
    return list(found.values())


class Module:
    """A module, in which names are followed to the texts that they stand for."""

    def __init__(self, tree: ast.Module, listing: bool) -> None:
        self.tree = tree
        self.listing = listing
        self.functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
        self.assigned = list(_assignments(tree))

    def messages(self) -> Iterator[tuple[int, str]]:
        """All messages, and their lines."""
        for function in [self.tree, *self.functions]:
            for node in _own(function):
                for said in self._said(node):
                    for text in self.texts(said, function):
                        cleaned = _clean(text)
                        if re.search(r"\w\w+ \S*\w", cleaned):
                            yield node.lineno, cleaned

    def _said(self, node: ast.AST) -> Iterator[ast.expr]:
        """What a node hands on as a message."""
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            yield from node.exc.args
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in GATHER:
            yield from node.args
        elif isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id == "complaints":
            yield from (content for name, content in self.assigned if name == "complaints[]")
        elif self.listing and isinstance(node, ast.Yield) and node.value is not None:
            yield node.value
        elif self.listing and isinstance(node, ast.Call) and _attribute(node.func) == "append":
            yield from node.args

    def texts(self, node: ast.expr, function: ast.AST, depth: int = 0) -> list[str]:
        """The texts that an expression may come to, with `…` for what varies; none if nobody can tell."""
        if depth > DEPTH:
            return []

        def follow(other: ast.expr, within: ast.AST = function) -> list[str]:
            return self.texts(other, within, depth + 1)

        return FOLLOWED.get(type(node), Module._nothing)(self, node, function, follow)

    def _nothing(self, node: ast.expr, function: ast.AST, follow: Follow) -> list[str]:
        return []

    def _constant(self, node: ast.Constant, function: ast.AST, follow: Follow) -> list[str]:
        return [node.value] if isinstance(node.value, str) else []

    def _filled_in(self, node: ast.JoinedStr, function: ast.AST, follow: Follow) -> list[str]:
        return ["".join(part.value if isinstance(part, ast.Constant) else VARIES for part in node.values)]

    def _either(self, node: ast.IfExp, function: ast.AST, follow: Follow) -> list[str]:
        return [*follow(node.body), *follow(node.orelse)]

    def _both(self, node: ast.BinOp, function: ast.AST, follow: Follow) -> list[str]:
        return [one + other for one in follow(node.left) or [VARIES] for other in follow(node.right) or [VARIES]]

    def _all(self, node: ast.List | ast.Tuple, function: ast.AST, follow: Follow) -> list[str]:
        return [text for element in node.elts for text in follow(element)]

    def _starred(self, node: ast.Starred, function: ast.AST, follow: Follow) -> list[str]:
        return follow(node.value)

    def _each(self, node: ast.GeneratorExp | ast.ListComp, function: ast.AST, follow: Follow) -> list[str]:
        return follow(node.elt)

    def _called(self, node: ast.Call, function: ast.AST, follow: Follow) -> list[str]:
        """What a call comes to: a text that is filled in or stripped, or what a function of the module returns."""
        name = _attribute(node.func)
        if name == "format":
            return [_filled(text) for text in follow(node.func.value)]
        if name == "strip":
            return [text.strip() for text in follow(node.func.value)]
        if name == "join":
            return [text for argument in node.args for text in follow(argument)]
        return [
            text
            for called in self.functions
            if called.name == name
            for inner in _own(called)
            if isinstance(inner, (ast.Return, ast.Yield)) and inner.value is not None
            for text in follow(inner.value, called)
        ]

    def _named(self, node: ast.Name | ast.Attribute, function: ast.AST, follow: Follow) -> list[str]:
        """What a name stands for: in the function, or else in the module."""
        name = _attribute(node)
        here = [content for given, content in _assignments(function) if given == name]
        found = here or [content for given, content in self.assigned if given == name]
        return [text for content in found for text in follow(content)]


#: How an expression of each kind is followed; of others nobody can tell.
FOLLOWED: dict[type, Callable[..., list[str]]] = {
    ast.Attribute: Module._named,
    ast.BinOp: Module._both,
    ast.Call: Module._called,
    ast.Constant: Module._constant,
    ast.GeneratorExp: Module._each,
    ast.IfExp: Module._either,
    ast.JoinedStr: Module._filled_in,
    ast.List: Module._all,
    ast.ListComp: Module._each,
    ast.Name: Module._named,
    ast.Starred: Module._starred,
    ast.Tuple: Module._all,
}


def _attribute(node: ast.AST) -> str | None:
    """The last part of a name."""
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else None


def _assignments(tree: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """Names, and what is assigned to them; what a mapping gets, under its name with brackets."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            target = node.targets[0]
            if isinstance(target, ast.Subscript):
                yield f"{_attribute(target.value)}[]", node.value
            elif _attribute(target):
                yield _attribute(target), node.value
        elif isinstance(node, (ast.AnnAssign, ast.AugAssign)) and node.value is not None and _attribute(node.target):
            yield _attribute(node.target), node.value


def _own(function: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a function or module that are not those of a function within it."""
    todo: list[ast.AST] = list(ast.iter_child_nodes(function))
    while todo:
        node = todo.pop(0)
        yield node
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            todo[:0] = ast.iter_child_nodes(node)


def _filled(text: str) -> str:
    """What `format` makes of a text, with `…` in its places."""
    return re.sub(r"(?<!\{)\{[^{}]*\}(?!\})", VARIES, text).replace("{{", "{").replace("}}", "}")


def _clean(text: str) -> str:
    """A text in one line, neighbouring places that vary drawn together."""
    return re.sub(f"{VARIES}+", VARIES, " ".join(text.split()))


def unexplained(found: Iterable[Message], entries: Iterable[str]) -> list[str]:
    """The messages that begin with none of the entries, each with its place."""
    known = tuple(map(_clean, entries))
    return [f"{message.place}: {message.text}" for message in found if not message.text.startswith(known)]


def outdated(found: Iterable[Message], entries: Iterable[str]) -> list[str]:
    """The entries that no message begins with."""
    texts = [message.text for message in found]
    return [entry for entry in entries if not any(text.startswith(_clean(entry)) for text in texts)]
