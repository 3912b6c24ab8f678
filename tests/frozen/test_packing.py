"""Codes of few bits in bytes, held to bits that NumPy lays out."""

import numpy as np
import pytest
import torch

from brevq.frozen.packing import fields, pack, packed_bytes, unpack


def reference(codes, bits):
    """The bytes, bit by bit: of each part of the codes, value i stands in byte i modulo their number."""
    packed, low = [], 0
    for size in fields(bits):
        part = (np.asarray(codes) >> low) & (2**size - 1)
        count = -(-len(part) * size // 8)
        bytes_ = np.zeros(count, dtype=np.int64)
        for i, value in enumerate(part):
            bytes_[i % count] |= value << (size * (i // count))
        packed.append(bytes_)
        low += size
    return np.concatenate(packed)


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 64, 101])
@pytest.mark.parametrize("bits", range(1, 9))
def test_bytes(bits, count):
    """Codes lie in memory as described, in as many bytes as their bits take, and come back."""
    codes = torch.randint(2**bits, (count,))
    packed = pack(codes, bits)
    np.testing.assert_array_equal(reference(codes.numpy(), bits), packed.numpy())
    assert (torch.uint8, packed_bytes(bits, count)) == (packed.dtype, len(packed))
    assert codes.tolist() == unpack(packed, bits, count).tolist()


@pytest.mark.parametrize(
    ("bits", "count", "expected"), [(4, 1000, 500), (3, 1000, 375), (1, 9, 2), (8, 3, 3), (6, 4, 3)]
)
def test_sizes(bits, count, expected):
    """Bits are packed without gaps."""
    assert expected == packed_bytes(bits, count)
