"""Pictures: shapes, their size, and what they show in words."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from brevq.drawing.markup import element, escape

#: Colours that stand out from light and from dark.
BLUE, ORANGE = "#2f81d6", "#c76a10"
#: Width of a letter of `MONO` over its size, and of `SANS` on average.
MONO_WIDTH, SANS_WIDTH = 0.602, 0.6
MONO = "ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace"
SANS = "system-ui, 'DejaVu Sans', 'Segoe UI', Helvetica, Arial, sans-serif"

_INK, _PAPER = "#1f2328", "#ffffff"
# A file has no text around it, so it brings its colours; viewers that know no style sheets show the light ones.
_DARK = (
    ".brevq-file{color:#1f2328}.brevq-paper{fill:#ffffff}"
    "@media (prefers-color-scheme: dark){.brevq-file{color:#e6edf3}.brevq-paper{fill:#0d1117}}"
)


@attrs.frozen
class Drawing:
    """A picture.

    Args:
        width: its width, in pixels.
        height: its height, in pixels.
        shapes: its elements, as text.
        title: what it is, in a few words.
        description: what it shows, in words, for those who can not see it. Default: nothing more than the title.

    Examples:
        >>> drawing = Drawing(20, 10, (rect(0, 0, 20, 10),), "a box")
        >>> print(drawing.svg()[:60])
        <svg xmlns="http://www.w3.org/2000/svg" role="img" aria-labe
    """

    width: float
    height: float
    shapes: tuple[str, ...]
    title: str
    description: str = ""

    def svg(self) -> str:
        """The picture for a page, in the colours of the text around it."""
        return self._svg((), style="max-width:100%;height:auto;color:inherit")

    def file(self) -> str:
        """The picture as a file of its own: dark on light, or light on dark for those who ask for that."""
        paper = element("rect", class_="brevq-paper", width="100%", height="100%", fill=_PAPER)
        return self._svg((element("style", _DARK), paper), class_="brevq-file", color=_INK) + "\n"

    def _svg(self, before: Sequence[str], **attributes: object) -> str:
        width, height = round(self.width), round(self.height)
        words = (element("title", escape(self.title)), element("desc", escape(self.description or self.title)))
        return element(
            "svg",
            *words,
            *before,
            *self.shapes,
            xmlns="http://www.w3.org/2000/svg",
            role="img",
            aria_label=self.title,
            viewBox=f"0 0 {width} {height}",
            width=width,
            height=height,
            font_family=SANS,
            font_size=12,
            fill="currentColor",
            **attributes,
        )


def stack(title: str, drawings: Sequence[Drawing], gap: float = 16, margin: float = 0) -> Drawing:
    """Pictures below each other, as one.

    Args:
        title: what the whole is.
        drawings: the pictures, from top to bottom.
        gap: distance between them, in pixels. Default: 16.
        margin: distance from the edges, in pixels. Default: 0.

    Examples:
        >>> box = Drawing(20, 10, (rect(0, 0, 20, 10),), "a box")
        >>> two = stack("boxes", [box, box], gap=5)
        >>> two.width, two.height
        (20, 25)
    """
    top, shapes = margin, []
    for drawing in drawings:
        moved = f"translate({margin:g} {top:g})"
        shapes.append(element("g", *drawing.shapes, transform=moved))
        top += drawing.height + gap
    width = max((drawing.width for drawing in drawings), default=0) + 2 * margin
    words = "\n\n".join(f"{drawing.title}\n{drawing.description}".strip() for drawing in drawings)
    return Drawing(width, top - gap * bool(drawings) + margin, tuple(shapes), title, words)


def text(x: float, y: float, content: object, mono: bool = False, **attributes: object) -> str:
    """A line of text that begins at `x` and stands on `y`.

    Args:
        x: where it begins, or ends or is centred with a `text_anchor`.
        y: where it stands.
        content: what it says; it is escaped here.
        mono: whether all letters are of one width. Default: False.
        **attributes: others, such as `font_size`.

    Examples:
        >>> text(1, 2, "a<b")
        '<text x="1" y="2">a&lt;b</text>'
    """
    family = MONO if mono else None
    space = "preserve" if mono else None
    return element("text", escape(content), x=x, y=y, font_family=family, **{"xml:space": space}, **attributes)


def rect(x: float, y: float, width: float, height: float, **attributes: object) -> str:
    """A rectangle.

    Args:
        x: its left edge.
        y: its upper edge.
        width: its width.
        height: its height.
        **attributes: others, such as `fill`.

    Examples:
        >>> rect(0, 0, 2, 1, rx=3)
        '<rect x="0" y="0" width="2" height="1" rx="3"/>'
    """
    return element("rect", x=x, y=y, width=width, height=height, **attributes)


def strokes(path: str, **attributes: object) -> str:
    """Lines, as a path that is drawn and not filled.

    Args:
        path: the path.
        **attributes: others, such as `stroke`.

    Examples:
        >>> strokes("M0 0h5")
        '<path d="M0 0h5" fill="none" stroke="currentColor"/>'
    """
    return element("path", d=path, fill="none", **{"stroke": "currentColor", **attributes})


def width_of(content: object, size: float = 12, mono: bool = False) -> float:
    """About how wide a text is, in pixels.

    Args:
        content: the text.
        size: size of its letters. Default: 12.
        mono: whether all letters are of one width. Default: False.

    Examples:
        >>> width_of("four", 10, mono=True)
        24.08
    """
    return len(str(content)) * size * (MONO_WIDTH if mono else SANS_WIDTH)


def cut(content: str, letters: int) -> str:
    """A text, or its beginning where it is longer than that.

    Args:
        content: the text.
        letters: how many letters it may have.

    Examples:
        >>> cut("abcdef", 4), cut("abcd", 4)
        ('abc…', 'abcd')
    """
    return content if len(content) <= letters else content[: letters - 1] + "…"


def wrapped(content: str, letters: int) -> list[str]:
    """A text in lines of that many letters at most, broken between words where there are any.

    Args:
        content: the text.
        letters: how many letters a line may have.

    Examples:
        >>> wrapped("to be or not", 5)
        ['to be', 'or', 'not']
    """
    lines = [""]
    for word in content.split():
        longer = f"{lines[-1]} {word}".strip()
        if len(longer) <= letters or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return [cut(line, letters) for line in lines]
