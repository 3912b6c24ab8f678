"""Recipes of all installed libraries: listed, found by name, described.

A distribution declares its libraries as entry points of the group ``brevq.injectors``, each a name and the package or
module that has the recipes. This module knows nothing of torch; it imports a library when a recipe of it is asked for,
or to list it where the library has no index of its own.

>>> import brevq
>>> brevq.recipes.get("Int8WeightPerTensor").bit_width
8
>>> [record.name for record in brevq.recipes.list(library="injectors", bits=1, role="activation")]
['BinaryActPerTensor']
"""

from brevq.inject.installed import GROUP, Library
from brevq.recipes.contents import Contents, LibraryError, Problem, contents_of, recipes_of, recipes_of_library
from brevq.recipes.index import index_of, place_of, write_index
from brevq.recipes.lookup import (
    ROLES,
    Listing,
    RecipeLookupError,
    get,
    indexed,
    libraries,
    library,
    list,  # noqa: A004  # read as `recipes.list`
    record,
)
from brevq.recipes.records import Record, describe

__all__ = [
    "GROUP",
    "ROLES",
    "Contents",
    "Library",
    "LibraryError",
    "Listing",
    "Problem",
    "RecipeLookupError",
    "Record",
    "contents_of",
    "describe",
    "get",
    "index_of",
    "indexed",
    "libraries",
    "library",
    "list",
    "place_of",
    "recipes_of",
    "recipes_of_library",
    "record",
    "write_index",
]
