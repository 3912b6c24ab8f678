"""The one place that imports the package `dependencies`, and quiets what it says on import."""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    # Its author's notice, at every import, that points to another library.
    warnings.filterwarnings("ignore", message="Do not use dependencies package", category=DeprecationWarning)
    import dependencies

PackageInjector = dependencies.Injector
PackageValue = dependencies.value
PackageThis = type(dependencies.this)

__all__ = ["PackageInjector", "PackageThis", "PackageValue"]
