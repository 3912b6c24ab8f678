"""Beginning a library of recipes: a package that can be installed, tested and published."""

from brevq.cli.library.create import create

__all__ = ["create"]
