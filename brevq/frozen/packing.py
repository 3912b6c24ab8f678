"""Codes of few bits, packed into bytes."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F


def fields(bits: int) -> list[int]:
    """The parts that codes are cut into, from the lowest bits up: powers of two, of which whole numbers fill a byte.

    Args:
        bits: number of bits of a code, 1 to 8.

    Examples:
        >>> fields(4), fields(3), fields(8)
        ([4], [2, 1], [8])
    """
    return [size for size in (8, 4, 2, 1) if bits & size]


def packed_bytes(bits: int, count: int) -> int:
    """How many bytes `count` codes take.

    Args:
        bits: number of bits of a code, 1 to 8.
        count: number of codes.

    Examples:
        >>> packed_bytes(4, 7), packed_bytes(3, 8), packed_bytes(8, 5)
        (4, 3, 5)
    """
    return sum(_bytes(size, count) for size in fields(bits))


def pack(codes: Tensor, bits: int) -> Tensor:
    """Codes in as few bytes as their bits take.

    Of 4 bits, the first half of the codes lies in the lower halves of the bytes, in order, and the second half in the
    upper ones; of 2 bits likewise in quarters, and of 1 bit in eighths. Codes of 3, 5, 6 and 7 bits are cut into parts
    of such sizes, low bits in the largest, and the packed parts follow one another: of 3 bits, first the lower two of
    all codes, then the highest one of all.

    Args:
        codes: whole numbers from 0 to ``2 ** bits - 1``, of any shape.
        bits: number of bits, 1 to 8.

    Returns:
        uint8, ``(packed_bytes(bits, codes.numel()),)``.

    Examples:
        >>> [f"{byte:08b}" for byte in pack(torch.tensor([1, 2, 15]), 4)]
        ['11110001', '00000010']
        >>> [f"{byte:08b}" for byte in pack(torch.tensor([0b101, 0b011]), 3)]
        ['00001101', '00000001']
    """
    flat = codes.reshape(-1).to(torch.uint8)
    return torch.cat([_pack((flat >> low) & (2**size - 1), size) for low, size in _places(bits)])


def unpack(packed: Tensor, bits: int, count: int) -> Tensor:
    """The codes that `pack` was given.

    Args:
        packed: the bytes.
        bits: number of bits of a code, 1 to 8.
        count: number of codes.

    Returns:
        uint8, ``(count,)``.

    Examples:
        >>> unpack(torch.tensor([0b1111_0001, 0b0000_0010], dtype=torch.uint8), 4, 3)
        tensor([ 1,  2, 15], dtype=torch.uint8)
    """
    parts = torch.split(packed, [_bytes(size, count) for size in fields(bits)])
    unpacked = [_unpack(part, size, count) << low for part, (low, size) in zip(parts, _places(bits), strict=True)]
    codes = unpacked[0]
    for part in unpacked[1:]:
        codes = codes | part
    return codes


def _places(bits: int) -> Iterator[tuple[int, int]]:
    """The lowest bit of each part, and its size."""
    low = 0
    for size in fields(bits):
        yield low, size
        low += size


def _bytes(size: int, count: int) -> int:
    return -(-count * size // 8)


def _pack(codes: Tensor, size: int) -> Tensor:
    """Codes of 1, 2, 4 or 8 bits."""
    if size == 8:
        return codes
    rows = F.pad(codes, (0, -len(codes) % (8 // size))).reshape(8 // size, -1)
    packed = rows[0].clone()
    for place in range(1, 8 // size):
        packed |= rows[place] << (size * place)
    return packed


def _unpack(packed: Tensor, size: int, count: int) -> Tensor:
    if size == 8:
        return packed
    parts = [(packed >> (size * place)) & (2**size - 1) for place in range(8 // size)]
    return torch.cat(parts)[:count]
