"""Writing the template of a library under a name of one's own."""

from __future__ import annotations

import keyword
import re
import sys
import tempfile
from importlib.resources import files
from pathlib import Path
from string import Template

import brevq
from brevq.errors import ArgumentError
from brevq.inject.installed import installed, locate

# What the template has in the folder of that name, and where it goes; `{package}` is the import name.
_FILES = {
    "gitignore.tmpl": ".gitignore",
    "README.rst.tmpl": "README.rst",
    "pyproject.toml.tmpl": "pyproject.toml",
    "setup.cfg.tmpl": "setup.cfg",
    "init.py.tmpl": "{package}/__init__.py",
    "weight.py.tmpl": "{package}/weight.py",
    "test_recipes.py.tmpl": "tests/test_recipes.py",
}
# Names of distributions, by https://packaging.python.org/en/latest/specifications/name-normalization/
_DISTRIBUTION = re.compile(r"[A-Z0-9]|[A-Z0-9][A-Z0-9._-]*[A-Z0-9]", re.ASCII | re.IGNORECASE)
_RULE = "`name` (={name!r}) of a library must be "
_NO_DISTRIBUTION = _RULE + "letters, digits, `.`, `-` and `_`, with a letter or digit at either end, such as acme-quant"
_NO_PACKAGE = (
    _RULE + "such that its package can be imported, and `{package}` is {why}: begin with a letter, say acme-quant"
)
_TAKEN = _RULE + "new, and Python would find `{package}` in two places: {where}. Choose another"
_EXISTS = "{folder} exists already: choose another name or folder, or move it away"


def create(name: str, folder: Path) -> Path:
    """Write a library of recipes: a package with a recipe, its tests, and what it takes to install and publish it.

    Its files are all there afterwards, or none.

    Args:
        name: what the distribution and the library are called; the package is imported by the same name in lower case,
            with ``_`` for ``-`` and ``.``.
        folder: where the library gets a folder of its own.

    Returns:
        That folder.

    Raises:
        ArgumentError: the name is no name of a distribution, or that of another module or library, or the folder
            exists.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     library = create("acme-quant", Path(folder))
        ...     sorted(file.name for file in library.iterdir())
        ['.gitignore', 'README.rst', 'acme_quant', 'pyproject.toml', 'setup.cfg', 'tests']
        >>> create("acme quant", Path())
        Traceback (most recent call last):
        ...
        brevq.errors.ArgumentError: `name` (='acme quant') of a library must be letters, digits, `.`, `-` and `_`,
        with a letter or digit at either end, such as acme-quant
    """
    package = _package(name)
    library = folder / name
    if library.exists() or library.is_symlink():
        raise ArgumentError(_EXISTS.format(folder=library))
    if not folder.is_dir():
        raise ArgumentError(f"`folder` (={str(folder)!r}) must be a folder that exists: make it, or choose another")
    words = {"name": name, "package": package, "version": brevq.__version__, "underline": "=" * len(name)}
    with tempfile.TemporaryDirectory(prefix=".new-library-", dir=folder) as beside:
        written = Path(beside) / name
        for source, target in _FILES.items():
            _write(written / target.format(package=package), source, words)
        written.rename(library)
    return library


def _package(name: str) -> str:
    """The import name of the library's package, if the library may have that name."""
    if not isinstance(name, str) or not _DISTRIBUTION.fullmatch(name):
        raise ArgumentError(_NO_DISTRIBUTION.format(name=name))
    package = re.sub(r"[-.]+", "_", name).lower()
    if not package.isidentifier() or keyword.iskeyword(package):
        why = "a keyword of Python" if keyword.iskeyword(package) else "no name of Python"
        raise ArgumentError(_NO_PACKAGE.format(name=name, package=package, why=why))
    where = _elsewhere(name, package)
    if where:
        raise ArgumentError(_TAKEN.format(name=name, package=package, where=where))
    return package


def _elsewhere(name: str, package: str) -> str | None:
    """What has that name already; None if nothing has."""
    if package in sys.stdlib_module_names:
        return "it is a module of Python's own"
    if package in ("brevq", "injectors"):
        return "it is a package of brevq"
    if package == "tests":
        return "it is the folder of the library's tests"
    named = [library for library in installed() if library.name == name]
    if named:
        return f"library {named[0]} is installed"
    spec = locate(package)
    return "a module of that name is installed" if spec is not None and spec.origin else None


def _write(file: Path, source: str, words: dict[str, str]) -> None:
    template = Template((files(__package__) / "template" / source).read_text(encoding="utf-8"))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(template.substitute(words), encoding="utf-8", newline="\n")
