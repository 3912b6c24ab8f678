"""The index of a library: its records in a file beside its sources, so that it can be listed without an import."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import attrs

from brevq.inject.installed import Library, locate, package_of
from brevq.recipes.contents import Contents, LibraryError, contents_of
from brevq.recipes.records import Record

#: The name of the file, in the folder of the package that has the recipes.
FILE = "index.json"
#: Version of the schema of indexes.
VERSION = 1

_FIELDS = [field.name for field in attrs.fields(Record) if field.name not in ("library", "path")]


def index_of(library: Library) -> str:
    """The text of the index of a library, which is imported.

    It holds the records of the recipes, the names of the bases, and a hash over both and the sources of the library's
    package: an index is read only as long as it fits them.

    Args:
        library: what a distribution declares.

    Returns:
        JSON.

    Raises:
        LibraryError: the library is no package, can not be imported, or a recipe of it has faults.
    """
    if place_of(library) is None:
        raise LibraryError(f"Library {library} is a module and no package, so an index has no place beside it")
    contents = contents_of(library)
    if contents.problems:
        told = "\n\n".join(map(str, contents.problems))
        raise LibraryError(f"Library {library} gets no index, because of recipes with faults.\n\n{told}")
    recipes = [{name: getattr(record, name) for name in _FIELDS} for record in contents.records]
    content = {"bases": [*contents.bases], "recipes": recipes}
    index = {"brevq_index": VERSION, "hash": _hash(library, content), **content}
    return json.dumps(index, indent=1, allow_nan=False) + "\n"


def write_index(library: Library) -> Path | None:
    """Write the index of a library into the folder of its package, from where it is to be distributed with it.

    Args:
        library: what a distribution declares.

    Returns:
        Where it was written.

    Raises:
        LibraryError: the library is no package, can not be imported, or a recipe of it has faults.
    """
    text, file = index_of(library), place_of(library)
    if file is not None:
        file.write_text(text, encoding="utf-8", newline="\n")
    return file


def read_index(library: Library) -> Contents | None:
    """What a library has, as its index says; None if it has none that fits its sources.

    Args:
        library: what a distribution declares; it is not imported.

    Examples:
        >>> from brevq.inject.installed import installed
        >>> read_index(Library("acme", "no_such_module", "acme-quant", "1.2")) is None
        True
    """
    file = place_of(library)
    try:
        index = json.loads(file.read_text(encoding="utf-8")) if file else {}
        content = {name: index[name] for name in ("bases", "recipes")}
        if index["brevq_index"] != VERSION or index["hash"] != _hash(library, content):
            return None
        records = tuple(_record(library, fields) for fields in content["recipes"])
        return Contents(records, tuple(content["bases"]))
    except (OSError, ValueError, TypeError, KeyError, RecursionError):  # importing the library tells the truth
        return None


def place_of(library: Library) -> Path | None:
    """Where the index of a library stands; None if the library is no package on disk.

    Args:
        library: what a distribution declares; it is not imported.
    """
    folder = _folder(library.module) if library.is_module else None
    return None if folder is None else folder / FILE


def _record(library: Library, fields: dict[str, Any]) -> Record:
    path = f"{library.module}:{fields['name']}"
    return Record(library=library.name, path=path, **fields)


def _folder(package: str) -> Path | None:
    """The folder of a package; None if it is none, or not on disk."""
    spec = locate(package)
    places = list(spec.submodule_search_locations or ()) if spec else []
    return Path(places[0]) if places and Path(places[0]).is_dir() else None


def _hash(library: Library, content: dict[str, Any]) -> str:
    """A hash over what an index says and the sources of the library's package, with any system's ends of lines."""
    folder = _folder(package_of(library.module)) or Path()
    files = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*.py")}
    total = hashlib.sha256(json.dumps(content, sort_keys=True).encode("ascii"))
    for name in sorted(files):
        source = files[name].read_bytes().replace(b"\r\n", b"\n")
        total.update(f"\n{name} {len(source)}\n".encode())
        total.update(source)
    return f"sha256:{total.hexdigest()}"
