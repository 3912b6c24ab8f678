"""Gathering everything that is wrong with a text, or with what should become one, into one error."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from brevq.errors import RecipeError

_Key = TypeVar("_Key")
_From = TypeVar("_From")
_To = TypeVar("_To")


class Faulty(Exception):  # noqa: N818  # never reaches the user: `report` makes a RecipeError of it
    """What is wrong so far.

    Args:
        *texts: one text a fault.
        cause: the error that it came from, if one was raised.

    Examples:
        >>> Faulty("`bits` is no number.").texts
        ('`bits` is no number.',)
    """

    def __init__(self, *texts: str, cause: BaseException | None = None) -> None:
        super().__init__(*texts)
        self.texts = texts
        self.cause = cause


def each(do: Callable[[_Key, _From], _To], items: Iterable[tuple[_Key, _From]]) -> dict[_Key, _To]:
    """What `do` makes of each item, by its key; the faults of all items are raised together.

    Args:
        do: takes a key and an item; raises Faulty.
        items: keys and items.

    Raises:
        Faulty: `do` raised for one item, or for several.

    Examples:
        >>> each(lambda name, bits: 2**bits, [("weight", 4), ("bias", 8)])
        {'weight': 16, 'bias': 256}
    """
    done, found = {}, []
    for key, item in items:
        try:
            done[key] = do(key, item)
        except Faulty as faulty:
            found.append(faulty)
    if found:
        cause = next((faulty.cause for faulty in found if faulty.cause is not None), None)
        raise Faulty(*(text for faulty in found for text in faulty.texts), cause=cause)
    return done


def apart(names: Iterable[str], wanted: Sequence[str]) -> tuple[list[str], list[str]]:
    """Of the `wanted` names those that are missing, and of the `names` those that are not wanted.

    Args:
        names: what there is.
        wanted: what there should be.

    Examples:
        >>> apart(["base", "colour"], ["base", "overrides"])
        (['overrides'], ['colour'])
    """
    there = list(names)
    return [name for name in wanted if name not in there], [name for name in there if name not in wanted]


def exactly(place: str, fields: Mapping[str, object], wanted: Sequence[str]) -> None:
    """Refuse a JSON object that lacks a field, or has one too many.

    Args:
        place: what the object is called in messages.
        fields: its fields.
        wanted: those that it should have.

    Raises:
        Faulty: there are others; each is named.

    Examples:
        >>> exactly("the text", {"base": ""}, ["base"])
    """
    missing, unknown = apart(fields, wanted)
    texts = [f"{place} lacks the field `{name}`." for name in missing]
    texts += [f"{place} has a field `{name}`, which means nothing there." for name in unknown]
    if texts:
        raise Faulty(*texts)


def report(head: str, faulty: Faulty) -> RecipeError:
    """The error that lists all faults, each once.

    Args:
        head: what could not be done.
        faulty: the faults.

    Examples:
        >>> print(report("Can not write Int8", Faulty("`bits` is an object.", "`signed` is a function.")))
        Can not write Int8: 2 faults.
        <BLANKLINE>
        1. `bits` is an object.
        <BLANKLINE>
        2. `signed` is a function.
    """
    texts = tuple(dict.fromkeys(faulty.texts))
    if len(texts) == 1:
        return RecipeError(f"{head}.\n\n{texts[0]}")
    blocks = [f"{number}. " + _hang(text) for number, text in enumerate(texts, start=1)]
    return RecipeError(f"{head}: {len(blocks)} faults.\n\n" + "\n\n".join(blocks))


def _hang(text: str) -> str:
    first, *rest = text.split("\n")
    return "\n".join([first, *("   " + line if line else line for line in rest)])
