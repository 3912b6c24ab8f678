"""Elements of SVG and HTML as text, escaped."""

from __future__ import annotations

import html
import re

# What XML can not hold, escaped or not.
_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def escape(text: object) -> str:
    """What `text` looks like as text of a page, whatever characters it has.

    Args:
        text: anything; its `str` is taken. Characters that no page can hold become a replacement character.

    Examples:
        >>> escape("a < b & 'c'")
        'a &lt; b &amp; &#x27;c&#x27;'
    """
    return html.escape(_FORBIDDEN.sub("\ufffd", str(text)), quote=True)


def element(tag: str, *children: str, **attributes: object) -> str:
    """An element of a page.

    Args:
        tag: its name.
        *children: what stands in it: other elements, or text that is escaped already.
        **attributes: its attributes, with underscores for hyphens; None leaves one out. They are escaped here.

    Examples:
        >>> element("text", escape("<"), x=1.50, font_size=12, fill=None)
        '<text x="1.5" font-size="12">&lt;</text>'
        >>> element("br")
        '<br/>'
    """
    words = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(_plain(content))}"'
        for name, content in attributes.items()
        if content is not None
    )
    return f"<{tag}{words}>{''.join(children)}</{tag}>" if children else f"<{tag}{words}/>"


def _plain(content: object) -> object:
    """A coordinate with two digits after the point at most; anything else as it is."""
    return f"{content:.2f}".rstrip("0").rstrip(".") if isinstance(content, float) else content


def short_number(number: float) -> str:
    """A number as people read it: whole ones as they are, others in four digits.

    Args:
        number: any number, infinities and NaN among them.

    Examples:
        >>> short_number(-128.0), short_number(0.0019531), short_number(65504), short_number(3.4e38)
        ('-128', '0.001953', '65504', '3.4e+38')
        >>> short_number(2**32), short_number(float("nan"))
        ('4294967296', 'nan')
    """
    whole = abs(number) < 2**40 and number == int(number)
    return str(int(number)) if whole else f"{number:.4g}"


def first_sentence(docstring: str | None) -> str:
    r"""The first paragraph of a docstring, in one line and without marks.

    Args:
        docstring: the docstring, or None.

    Examples:
        >>> first_sentence("Weights:\n    ``scale = 1``.\n\n    More.")
        'Weights: scale = 1.'
    """
    first = (docstring or "").strip().partition("\n\n")[0]
    return " ".join(first.replace("`", "").split())
