"""What a model is made of: its layers, their quantizers, and the bytes that they take."""

from brevq.overview.records import Record
from brevq.overview.summary import Summary, summary
from brevq.overview.undisturbed import undisturbed

__all__ = ["Record", "Summary", "summary", "undisturbed"]
