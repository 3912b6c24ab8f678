"""What all contracts are: classes of tests that a class of one's own inherits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


class Contract:
    """Tests that a class inherits, and runs with pytest under any name that begins with ``Test``.

    `parameters` says what the arguments of the tests stand for; a test that takes one runs once for each value of it.
    Torch's random numbers are the same before each test.

    Examples:
        >>> class Counting(Contract):
        ...     def parameters(self):
        ...         return {"number": {"one": 1, "two": 2}}
        ...     def test_number(self, number): ...
        >>> class TestCounting(Counting): ...  # test_number[one], test_number[two]
    """

    def parameters(self) -> Mapping[str, Mapping[str, Any]]:
        """For each argument of the tests its values, by the name under which pytest reports them."""
        return {}

    def setup_method(self) -> None:
        """Seed torch."""
        torch.manual_seed(0)

    def pytest_generate_tests(self, metafunc: Any) -> None:
        """Tell pytest how often each test runs."""
        for name, values in self.parameters().items():
            if name in metafunc.fixturenames:
                metafunc.parametrize(name, list(values.values()), ids=list(values))


def dtypes(*names: str) -> dict[str, torch.dtype]:
    """Dtypes of torch by name.

    Examples:
        >>> dtypes("float16")
        {'float16': torch.float16}
    """
    return {name: getattr(torch, name) for name in names}


def devices() -> dict[str, torch.device]:
    """The devices that torch has here, by name: the processor always."""
    found = {"cpu": torch.device("cpu")}
    if torch.cuda.is_available():
        found["cuda"] = torch.device("cuda")
    return found
