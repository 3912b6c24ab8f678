"""What a contract expects, and the error where it is not so."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from brevq.errors import BrevqError


class ContractError(BrevqError, AssertionError):
    """A component or a recipe breaks a rule of its contract."""


def holds(condition: Any, rule: str) -> None:
    """Require that something is so.

    Args:
        condition: whether it is.
        rule: what is required, as a sentence without its full stop.

    Raises:
        ContractError: it is not.

    Examples:
        >>> holds(1 + 1 == 3, "one and one are three")
        Traceback (most recent call last):
        ...
        brevq.testing.expect.ContractError: It does not hold that one and one are three.
    """
    if not condition:
        raise ContractError(f"It does not hold that {rule}.")


def equal(expected: Any, actual: Any, rule: str) -> None:
    """Require that two things are equal: numbers, texts, tensors, and lists of those; NaN equals NaN.

    Args:
        expected: what is right.
        actual: what there is.
        rule: what is required, as a sentence without its full stop.

    Raises:
        ContractError: they differ.

    Examples:
        >>> equal([1.0, 2.0], torch.tensor([1.0, 3.0]), "a value is twice its place")
        Traceback (most recent call last):
        ...
        brevq.testing.expect.ContractError: It does not hold that a value is twice its place.
        expected: [1.0, 2.0]
        actual:   [1.0, 3.0]
    """
    wanted, found = plain(expected), plain(actual)
    if not _same(wanted, found):
        raise ContractError(f"It does not hold that {rule}.\nexpected: {_short(wanted)}\nactual:   {_short(found)}")


def close(expected: Tensor, actual: Tensor, rule: str, *, relative: float = 0.0, absolute: float = 0.0) -> None:
    """Require that two tensors have one shape, and values that differ by no more than is said.

    Args:
        expected: what is right.
        actual: what there is.
        rule: what is required, as a sentence without its full stop.
        relative: the difference that is allowed, over the expected value. Default: 0.
        absolute: the difference that is allowed. Default: 0.

    Raises:
        ContractError: they differ by more.

    Examples:
        >>> close(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.5]), "it counts", relative=0.1)
        Traceback (most recent call last):
        ...
        brevq.testing.expect.ContractError: It does not hold that it counts.
        The largest error is 0.5, at [1]: expected 2.0, and there is 2.5.
    """
    equal(tuple(expected.shape), tuple(actual.shape), f"{rule}, in its shape")
    expected, actual = (x.detach().to("cpu", torch.float64) for x in (expected, actual))
    error = (actual - expected).abs()
    error[(actual == expected) | (actual.isnan() & expected.isnan())] = 0  # infinities too
    excess = error - (absolute + relative * expected.abs()).nan_to_num(0.0, 0.0, 0.0)
    if error.numel() and not (excess <= 0).all():
        worst = int(excess.nan_to_num(math.inf).argmax())
        place = [int(index) for index in torch.unravel_index(torch.tensor(worst), error.shape)]
        numbers = [float(x.reshape(-1)[worst]) for x in (error, expected, actual)]
        raise ContractError(
            f"It does not hold that {rule}.\n"
            f"The largest error is {numbers[0]:g}, at {place}: expected {numbers[1]}, and there is {numbers[2]}."
        )


def plain(content: Any) -> Any:
    """Tensors and arrays as numbers and lists, wherever they stand in lists, tuples and dictionaries.

    Examples:
        >>> plain((torch.ones(2), {"a": torch.tensor(3)}))
        [[1.0, 1.0], {'a': 3}]
    """
    if isinstance(content, dict):
        return {name: plain(part) for name, part in content.items()}
    if isinstance(content, (list, tuple)):
        return [plain(part) for part in content]
    return content.tolist() if hasattr(content, "tolist") else content


def _same(expected: Any, actual: Any) -> bool:
    if isinstance(expected, dict) and isinstance(actual, dict):
        return expected.keys() == actual.keys() and all(_same(expected[name], actual[name]) for name in expected)
    if _is_list(expected) and _is_list(actual):
        return len(expected) == len(actual) and all(map(_same, expected, actual))
    if isinstance(expected, float) and isinstance(actual, float) and math.isnan(expected):
        return math.isnan(actual)
    return bool(expected == actual)


def _is_list(content: Any) -> bool:
    return isinstance(content, Sequence) and not isinstance(content, (str, bytes))


def _short(content: Any, most: int = 400) -> str:
    text = repr(content)
    return text if len(text) <= most else f"{text[:most]} ... ({len(text)} characters)"
