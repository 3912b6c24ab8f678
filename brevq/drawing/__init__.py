"""Pictures and pages from text alone: SVG and HTML, without scripts, fonts or programs of the system; no torch.

A `Drawing` is a picture that knows its size and says in words what it shows. `wiring_tree`, `levels_axis`, `histogram`
and `scales_chart` draw what quantization consists of; `table`, `section` and `page` lay pages out. Lines and letters
take the colour of the text around them, so all of it can be read on light and on dark.
"""

from brevq.drawing.axis import levels_axis
from brevq.drawing.charts import histogram, scales_chart
from brevq.drawing.html import attempt, facts, fold, page, paragraph, section, table
from brevq.drawing.levels import Levels
from brevq.drawing.markup import element, escape, first_sentence, short_number
from brevq.drawing.picture import Drawing, stack
from brevq.drawing.tree import Row, wiring_tree

__all__ = [
    "Drawing",
    "Levels",
    "Row",
    "attempt",
    "element",
    "escape",
    "facts",
    "first_sentence",
    "fold",
    "histogram",
    "levels_axis",
    "page",
    "paragraph",
    "scales_chart",
    "section",
    "short_number",
    "stack",
    "table",
    "wiring_tree",
]
