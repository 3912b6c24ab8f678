"""How the documentation is built."""

import brevq

project = "brevq"
copyright = "2026, the brevq developers"
version = release = brevq.__version__
extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "alabaster"
autodoc_typehints = "none"
default_role = "code"
nitpicky = False
exclude_patterns = ["_build"]
