"""Libraries of recipes that are installed: what distributions declare, read without importing any of them."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from importlib.metadata import Distribution

#: The group of entry points in which a distribution declares its libraries of recipes: ``name = package or module``.
GROUP = "brevq.injectors"

#: What `load` may import from, whatever is installed.
OURS = ("brevq", "injectors")


@attrs.frozen
class Library:
    """A library of recipes, as a distribution declares it.

    Args:
        name: what the library is called.
        module: import path of the package or module that has its recipes.
        distribution: the distribution that declares it.
        version: of the distribution.

    Examples:
        >>> acme = Library("acme", "acme.recipes", "acme-quant", "1.2")
        >>> print(acme)
        acme (acme.recipes, of acme-quant 1.2)
    """

    name: str
    module: str
    distribution: str
    version: str

    @property
    def is_module(self) -> bool:
        """Whether `module` reads as the import path of a module."""
        return all(word.isidentifier() for word in self.module.split("."))

    def __str__(self) -> str:
        return f"{self.name} ({self.module}, of {self.distribution} {self.version})"


def installed() -> tuple[Library, ...]:
    """The libraries of recipes that the installed distributions declare, by name; none of them is imported.

    Examples:
        >>> [library.module for library in installed() if library.name == "injectors"]
        ['injectors']
    """
    from importlib.metadata import entry_points  # noqa: PLC0415  # it takes longer to import than all of this package

    found = {
        Library(point.name, point.value.strip(), *_name_and_version(point.dist))
        for point in entry_points(group=GROUP)
        if point.dist is not None
    }
    return tuple(sorted(found, key=attrs.astuple))


def _name_and_version(distribution: Distribution) -> tuple[str, str]:
    """Of a distribution, from the head of its metadata; question marks where there is none."""
    text = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
    fields = dict(line.split(": ", 1) for line in text.split("\n\n")[0].splitlines() if ": " in line)
    return fields.get("Name", "?"), fields.get("Version", "?")


def packages() -> tuple[str, ...]:
    """The packages that `load` imports from unless it is told otherwise: our own, and those of installed libraries.

    A library's package is the outermost one that holds its module; of a namespace that several distributions share,
    that is the part below the namespace. To find it, nothing is imported.

    Examples:
        >>> packages()[:2]
        ('brevq', 'injectors')
    """
    return tuple(dict.fromkeys([*OURS, *(package_of(it.module) for it in installed() if it.is_module)]))


def package_of(module: str) -> str:
    """The outermost package that holds `module` and is no namespace; `module` itself where there is none.

    Args:
        module: import path of a module, which is not imported.

    Examples:
        >>> package_of("brevq.core.quant"), package_of("no.such.module")
        ('brevq', 'no.such.module')
    """
    words = module.split(".")
    paths = [".".join(words[:count]) for count in range(1, len(words) + 1)]
    return next((path for path in paths if (spec := locate(path)) and spec.origin), module)


def locate(module: str) -> ModuleSpec | None:
    """Where a module would be imported from; None if nothing finds it. Unlike Python's own, imports no parents.

    Args:
        module: its import path.

    Examples:
        >>> locate("brevq.core.quant").name, locate("brevq.absent")
        ('brevq.core.quant', None)
    """
    places: list[str] | None = None
    words = module.split(".")
    spec = None
    for count in range(1, len(words) + 1):
        spec = _find(".".join(words[:count]), places)
        if spec is None:
            return None
        places = list(spec.submodule_search_locations or ())
    return spec


def _find(path: str, places: list[str] | None) -> ModuleSpec | None:
    """The first answer of Python's finders."""
    for finder in sys.meta_path:
        spec = finder.find_spec(path, places, None) if hasattr(finder, "find_spec") else None
        if spec is not None:
            return spec
    return None
