"""Pages for notebooks, from headings, tables, lines and pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from brevq.drawing.markup import element, escape

_CELL = "text-align:left;vertical-align:top;padding:0.15em 0.8em 0.15em 0.2em"


def page(title: str, *body: str) -> str:
    """A page: its title, and what stands below.

    Args:
        title: the title.
        *body: elements, as text.

    Examples:
        >>> page("Int4", paragraph("one line"))
        '<div class="brevq"><strong>Int4</strong><p style="margin:0.2em 0">one line</p></div>'
    """
    return element("div", element("strong", escape(title)), *body, class_="brevq")


def section(title: str, *body: str) -> str:
    """A part of a page, with a heading; nothing where nothing stands below it.

    Args:
        title: the heading.
        *body: elements, as text.

    Examples:
        >>> section("empty", "")
        ''
    """
    if not any(body):
        return ""
    heading = element("div", element("strong", escape(title)), style="margin-top:0.8em")
    return element("div", heading, *body)


def fold(title: str, *body: str) -> str:
    """A part of a page that opens when its title is clicked.

    Args:
        title: the title.
        *body: elements, as text.

    Examples:
        >>> fold("more", "text")
        '<details style="margin-top:0.5em"><summary>more</summary>text</details>'
    """
    return element("details", element("summary", escape(title)), *body, style="margin-top:0.5em")


def paragraph(content: object) -> str:
    """A line of text.

    Args:
        content: what it says.

    Examples:
        >>> paragraph("a<b")
        '<p style="margin:0.2em 0">a&lt;b</p>'
    """
    return element("p", escape(content), style="margin:0.2em 0")


def table(head: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """A table of texts.

    Args:
        head: the titles of the columns; none leaves them out.
        rows: the cells of each row.

    Examples:
        >>> "<th" in table(["a"], [[1]]), "<th" in table([], [[1]])
        (True, False)
    """
    cells = [[element("td", escape(cell), style=_CELL) for cell in row] for row in rows]
    body = element("tbody", *(element("tr", *row) for row in cells))
    titles = [element("th", escape(title), scope="col", style=_CELL) for title in head]
    top = element("thead", element("tr", *titles)) if titles else ""
    return element("table", top, body)


def facts(pairs: Iterable[tuple[str, object]]) -> str:
    """A table of two columns, what and how much; what is None or empty is left out.

    Args:
        pairs: names and contents.

    Examples:
        >>> "bits" in facts([("bits", 4), ("phase", None)]), "phase" in facts([("bits", 4), ("phase", None)])
        (True, False)
    """
    known = [(name, content) for name, content in pairs if content is not None and content != ""]
    return table([], known) if known else ""


def attempt(make: Callable[[], str], what: str) -> str:
    """What `make` returns, or a line that says why there is nothing: a page is shown, whatever state things are in.

    Args:
        make: returns elements, as text.
        what: what they are, for the line.

    Examples:
        >>> attempt(lambda: str(1 // 0), "the quotient")
        '<p style="margin:0.2em 0">the quotient: integer division or modulo by zero</p>'
    """
    try:
        return make()
    except Exception as error:  # noqa: BLE001  # whatever is wrong, what is known is still shown
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return paragraph(f"{what}: {lines[0]}")
