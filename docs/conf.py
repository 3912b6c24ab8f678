"""How the documentation is built."""

import importlib

import brevq

project = "brevq"
copyright = "2026, the brevq developers"
version = release = brevq.__version__
extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
default_role = "code"

html_theme = "alabaster"
html_theme_options = {
    "description": "Quantizers for PyTorch, assembled by dependency injection",
    "page_width": "1100px",
}

autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # docstrings say in words what arguments are, with shapes and units
napoleon_numpy_docstring = False
napoleon_use_rtype = False  # likewise

# Every reference has to lead somewhere, but for those into libraries whose inventories are not read here.
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(abc|attr|collections|enum|numpy|torch|typing)\b.*"), ("py:exc", r"[A-Z]\w+")]

# `make linkcheck`, for those who are online.
linkcheck_retries = 2
linkcheck_timeout = 30


def keep_first_line(app, what, name, content, options, lines):
    """Keep napoleon from taking what stands before a colon in a property's docstring for a type."""
    if what in ("attribute", "data", "property"):
        lines[:0] = ["..", ""]


def public_bases(app, name, content, options, bases):
    """Name only the bases that a reader can look up."""
    bases[:] = [base for base in bases if is_public(base)] or [object]


def is_public(kind):
    """Whether a class is of another library, or offered by one of ours."""
    top, *rest = kind.__module__.split(".")
    if top not in ("brevq", "injectors", "_dependencies"):
        return True
    packages = [importlib.import_module(".".join([top, *rest[:depth]])) for depth in range(1, len(rest) + 1)]
    return any(kind.__name__ in getattr(package, "__all__", ()) for package in packages)


def setup(app):
    """What the documentation needs beyond Sphinx's own settings."""
    app.connect("autodoc-process-docstring", keep_first_line, priority=100)
    app.connect("autodoc-process-bases", public_bases)
