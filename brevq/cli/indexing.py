"""Writing the index of a library, or seeing whether it is current."""

from __future__ import annotations

from brevq import recipes
from brevq.errors import BrevqError


class StaleIndexError(BrevqError, ValueError):
    """The index of a library does not tell what the library has."""


def update(name: str, only_check: bool = False) -> str:
    """Write the index of a library, or see whether it is current.

    Args:
        name: of the library.
        only_check: whether nothing is written. Default: False.

    Returns:
        What was done, in words.

    Raises:
        RecipeLookupError: no library of that name is installed.
        LibraryError: it can get no index.
        StaleIndexError: it is only checked, and its index is not current.

    Examples:
        >>> update("injectors", only_check=True)
        'The index of injectors is current.'
    """
    library = recipes.library(name)
    if not only_check:
        return f"Wrote {recipes.write_index(library)}"
    file = recipes.place_of(library)
    if file is None or not file.is_file() or file.read_text(encoding="utf-8") != recipes.index_of(library):
        raise StaleIndexError(f"The index of {name} is not current: write it anew, brevq index {name}")
    return f"The index of {name} is current."
