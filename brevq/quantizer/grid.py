"""What a checkpoint says of the grid that it was trained on, so that it is not read into another."""

from __future__ import annotations

from typing import ClassVar

import attrs
import torch
from torch import Tensor

from brevq.errors import ArgumentError


@attrs.frozen
class Grid:
    """A grid in whole numbers, as checkpoints keep it.

    Args:
        bits: number of bits; 0 where they are learned.
        signed: whether there are negative codes.
        narrow: whether the range gives up one code.
        exponent_bits: bits of the exponent; 0 of integers. Default: 0.
        exponent_bias: bias of the exponent. Default: 0.
        values_per_scale: size of a group or block; 0 where there are none. Default: 0.

    Examples:
        >>> print(Grid(4, True, True), "and", Grid(8, True, False, 4, 7, 32))
        signed narrow 4 bits and signed 8-bit floats with 4 exponent bits of bias 7 in groups of 32
        >>> Grid.read(Grid(4, True, True).tensor()) == Grid(4, True, True)
        True
    """

    #: Version of this format, the first number of the tensor.
    version: ClassVar[int] = 1

    bits: int
    signed: bool
    narrow: bool
    exponent_bits: int = 0
    exponent_bias: int = 0
    values_per_scale: int = 0

    def tensor(self) -> Tensor:
        """The version and all numbers, shape `(7,)`, int64."""
        integers = (self.bits, self.signed, self.narrow)
        return torch.tensor([self.version, *integers, self.exponent_bits, self.exponent_bias, self.values_per_scale])

    @classmethod
    def read(cls, tensor: Tensor) -> Grid:
        """The grid that `tensor` returned.

        Args:
            tensor: what a checkpoint has kept.

        Raises:
            ArgumentError: it is of a version that is not known.
        """
        version, *numbers = tensor.tolist()
        if version != cls.version:
            raise ArgumentError(
                f"is of version {version} of the format of checkpoints, and this brevq reads version {cls.version}: "
                "load it with the brevq that wrote it"
            )
        bits, signed, narrow, *rest = numbers
        return cls(bits, bool(signed), bool(narrow), *rest)

    def __str__(self) -> str:
        words = ["signed" if self.signed else "unsigned", "narrow" if self.narrow else ""]
        if self.exponent_bits:
            words.append(f"{self.bits}-bit floats with {self.exponent_bits} exponent bits of bias {self.exponent_bias}")
        else:
            words.append(f"{self.bits or 'learned'} bits")
        if self.values_per_scale:
            words.append(f"in groups of {self.values_per_scale}")
        return " ".join(filter(None, words))
