"""Recipes as text: written as JSON, read back without running what it carries, and told apart by what they build.

From the bottom up: `faulty` gathers what is wrong, `paths` goes between things and their import paths, `values` between
what a recipe declares and JSON, `canonical` takes the fingerprint, and `document` writes and reads whole recipes.
"""

from brevq.inject.text.canonical import fingerprint
from brevq.inject.text.document import dump, load

__all__ = ["dump", "fingerprint", "load"]
