"""What the source promises about itself: who imports whom, what is never written, and what importing brevq costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted([*ROOT.glob("brevq/**/*.py"), *ROOT.glob("injectors/**/*.py")])
TREES = {path.relative_to(ROOT): ast.parse(path.read_text(encoding="utf-8")) for path in FILES}

#: From left to right; a part imports itself and what stands to its left.
ORDER = [
    *("function", "core", "quant_tensor", "quantizer", "nn", "loss", "checkpoint", "graph", "frozen", "debug"),
    *("overview", "draw", "plot", "testing", "export", "cli"),
]
#: Parts that stand beside that order.
BESIDE = {
    "": set(),
    "errors": set(),
    "drawing": {"errors"},
    "inject": {"drawing", "errors"},
    "recipes": {"errors", "inject"},
    "injectors": {"core", "errors", "inject"},
    "config": {"core", "errors", "inject", "injectors"},
    "__main__": {"cli"},
}
#: What the parts of that order may import besides: the injector, its library, the configuration.
BESIDES = {
    "function": set(),
    "core": set(),
    "quant_tensor": {"drawing"},
    "quantizer": {"drawing", "inject"},
    "nn": {"drawing", "inject", "injectors"},
    "loss": set(),
    "checkpoint": {"inject"},
    "graph": {"inject", "config"},
    "frozen": {"inject"},
    "debug": set(),
    "overview": {"drawing", "inject"},
    "draw": {"drawing", "inject"},
    "plot": {"inject"},
    "testing": {"inject", "injectors"},
    "export": {"inject", "config"},
    "cli": {"inject", "injectors", "config", "recipes", "", "__version__"},
}
ALLOWED = BESIDE | {part: {"errors", *ORDER[:place], *BESIDES[part]} for place, part in enumerate(ORDER)}


def part_of(path):
    """The part of the library that a file belongs to."""
    first, *rest = path.with_suffix("").parts
    if first == "injectors":
        return first
    return "" if rest[0] == "__init__" else rest[0]


def modules(path, tree):
    """The modules that a file imports, wherever in it, each with its line."""
    package = path.parts[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = list(package[: len(package) - node.level + 1]) if node.level else []
            origin = ".".join([*above, *filter(None, [node.module])])
            yield from ((node.lineno, f"{origin}.{alias.name}") for alias in node.names)


def imported_part(module):
    """The part that a module belongs to; None if it is not one of ours."""
    first, *rest = module.split(".")
    if first == "injectors":
        return first
    if first != "brevq":
        return None
    return rest[0] if rest else ""


def wrong_imports(part):
    """The imports of a part that its place does not allow, as places in the source."""
    return [
        f"{path}:{line} imports {module}"
        for path, tree in TREES.items()
        if part_of(path) == part
        for line, module in modules(path, tree)
        if imported_part(module) not in {None, part, *ALLOWED[part]}
    ]


@pytest.mark.parametrize("part", sorted(ALLOWED), ids=lambda part: part or "brevq itself")
def test_layers(part):
    """A part of the library imports itself and what stands to its left, and nothing else of the library."""
    assert [] == wrong_imports(part)


def test_every_part_has_a_place():
    """Each folder and module of the library is in the order, or beside it."""
    assert set() == {part_of(path) for path in TREES} - set(ALLOWED)


@pytest.mark.parametrize(
    "part",
    ["", "errors", "drawing", "inject", "recipes"],
    ids=["brevq itself", "errors", "drawing", "inject", "recipes"],
)
def test_parts_without_torch(part):
    """The injector, the errors and the package itself do not import torch."""
    files = {path: tree for path, tree in TREES.items() if part_of(path) == part}
    heavy = [f"{path}:{line}" for path, tree in files.items() for line, name in modules(path, tree) if _is_heavy(name)]
    assert [] == heavy


def _is_heavy(module):
    return module.split(".")[0] in ("torch", "numpy")


def test_one_file_imports_dependencies():
    """One file imports the package `dependencies`."""
    files = [str(path) for path, tree in TREES.items() for _, name in modules(path, tree) if name == "dependencies"]
    assert ["brevq/inject/_package.py"] == files


def places(fits):
    """The places in the source of all nodes of the syntax trees that fit."""
    return [f"{path}:{node.lineno}" for path, tree in TREES.items() for node in ast.walk(tree) if fits(node)]


def test_no_star_imports():
    """Every imported name is written out."""
    stars = places(lambda node: isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names))
    assert [] == stars


def test_no_bare_except():
    """Every `except` says what it catches."""
    assert [] == places(lambda node: isinstance(node, ast.ExceptHandler) and node.type is None)


def test_no_assert():
    """A user's mistake is never an `assert`."""
    assert [] == places(lambda node: isinstance(node, ast.Assert))


def test_no_anonymous_errors():
    """What is raised is an error of our own or one of Python's that fits, never a mere Exception or RuntimeError."""

    def raises_anonymously(node):
        if not isinstance(node, ast.Raise) or node.exc is None:
            return False
        kind = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
        return isinstance(kind, ast.Name) and kind.id in (
            "AssertionError",
            "BaseException",
            "Exception",
            "RuntimeError",
        )

    assert [] == places(raises_anonymously)


def public(tree):
    """A module's public classes and functions, and the public methods of these classes."""
    for node in tree.body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from public(node)


def test_docstrings():
    """Every module that says anything, every public class, function and method has a docstring."""
    undocumented = [str(path) for path, tree in TREES.items() if tree.body and not ast.get_docstring(tree)]
    undocumented += [
        f"{path}:{node.lineno} {node.name}"
        for path, tree in TREES.items()
        for node in public(tree)
        if not ast.get_docstring(node)
    ]
    assert [] == undocumented


def python(code, *options):
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, *options, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    return done.returncode, done.stdout, done.stderr


def test_import_is_silent_and_cheap():
    """`import brevq` prints nothing, warns of nothing, and loads neither torch nor a part of the library."""
    code = "import sys, brevq; assert not [m for m in sys.modules if m.startswith(('brevq.', 'injectors', 'torch'))]"
    assert (0, "", "") == python(code, "-W", "error")


def test_parts_load_on_first_access():
    """A part of the library is loaded when it is first asked for."""
    code = """
import sys, brevq
print("brevq.nn" in sys.modules, "nn" in dir(brevq))
print(brevq.nn.QuantLinear.__name__, "brevq.nn" in sys.modules, "torch" in sys.modules)
"""
    assert (0, "False True\nQuantLinear True True\n", "") == python(code)


def test_unknown_part():
    """A part that does not exist is an AttributeError, so `hasattr` and `from` imports behave."""
    code = "import brevq; print(hasattr(brevq, 'colour'))\nfrom brevq import colour"
    status, printed, error = python(code)
    assert (1, "False\n") == (status, printed)
    assert error.splitlines()[-1].startswith("ImportError: cannot import name 'colour' from 'brevq'")


def test_every_part_is_offered():
    """Every part that exists can be reached from the package by plain attribute access."""
    parts = sorted({part_of(path) for path in TREES} - {"", "__main__", "injectors"})
    assert (0, f"{[(part, True) for part in parts]}\n", "") == python(
        f"import brevq; print([(part, hasattr(brevq, part)) for part in {parts}])"
    )
