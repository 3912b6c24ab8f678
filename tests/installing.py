"""Distributions that are installed for a test: folders on the path, with what pip would write beside their files."""

import importlib
import sys
import textwrap
from functools import partial

import pytest


def installing(folder):
    """Yields a function that installs distributions below a folder; afterwards they are gone, and what was imported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "dont_write_bytecode", True)
        yield partial(install, folder, patch)
    for name, module in [*sys.modules.items()]:
        if str(getattr(module, "__file__", None) or "").startswith(str(folder)):
            del sys.modules[name]
    importlib.invalidate_caches()


def install(folder, patch, name, libraries, files, version="1.0"):
    """Install a distribution: files by their path, and the libraries that it declares, each a name and a module."""
    points = "".join(f"{library} = {module}\n" for library, module in libraries.items())
    about = {
        "METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        "entry_points.txt": f"[brevq.injectors]\n{points}",
    }
    described = {f"{name.replace('-', '_')}-{version}.dist-info/{file}": text for file, text in about.items()}
    for path, text in {**described, **files}.items():
        (folder / name / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / name / path).write_text(textwrap.dedent(text), encoding="utf-8")
    patch.syspath_prepend(folder / name)
    return folder / name
