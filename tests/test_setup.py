"""What is installed with brevq: the files that are no modules, and the packages of extras."""

import ast
import configparser
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("brevq", "injectors")
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "brevq").rglob("*.py"))}


@pytest.fixture(scope="module")
def setup():
    """What setup.cfg says."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def extra(setup, name):
    """The packages of an extra, with those of the extras that it has."""
    required = setup["options.extras_require"][name].split()
    others = [other for line in required if line.startswith("brevq[") for other in re.findall(r"\w+", line)[1:]]
    packages = {re.match(r"\w+", line).group() for line in required} - {"brevq"}
    return packages.union(*(extra(setup, other) for other in others))


@pytest.mark.parametrize("package", PACKAGES)
def test_files_that_are_no_modules(setup, package):
    """Each is installed with its package: there is a pattern for it, and no pattern without a file."""
    folder = ROOT / package
    found = {pattern: {*folder.glob(pattern)} for pattern in setup["options.package_data"][package].split()}
    files = {path for path in folder.rglob("*") if path.is_file() and path.suffix not in {".py", ".pyc"}}
    assert (files, []) == (set().union(*found.values()), [pattern for pattern, paths in found.items() if not paths])


def test_extras_that_errors_name(setup):
    """What an error says to install brings the packages that were missing."""
    calls = [node for tree in TREES.values() for node in ast.walk(tree) if isinstance(node, ast.Call)]
    named = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "require"]
    asked = [[word.value for word in call.args if isinstance(word, ast.Constant)] for call in named]
    assert {"cli", "demo", "plot"} == {name for name, *_ in asked}
    lacking = {name: {*packages} - extra(setup, name) for name, *packages in asked}
    assert [] == [name for name, packages in lacking.items() if packages]


@pytest.mark.parametrize("name", ["cli", "demo", "plot", "safetensors"])
def test_extras_of_users_are_tested(setup, name):
    """What the tests are installed with has the packages of each extra that a user may install."""
    assert set() == extra(setup, name) - extra(setup, "test")
