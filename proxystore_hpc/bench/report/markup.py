"""HTML and SVG as strings; whatever is put into them is escaped."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

__all__ = ["Markup", "element", "join", "table"]


class Markup(str):
    """Text that is escaped already."""

    __slots__ = ()


def element(tag: str, *children: str | None, **attributes: object) -> Markup:
    """An element; `class_` stands for class, and `stroke_width` for stroke-width.

    Children that are no `Markup` are escaped, None is left out, as are attributes of None.
    """
    written = "".join(
        f' {_name(name)}="{escape(_value(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    if not children:
        return Markup(f"<{tag}{written}></{tag}>")
    return Markup(f"<{tag}{written}>{join(children)}</{tag}>")


def join(parts: Iterable[str | None]) -> Markup:
    """Parts one after the other, escaped if need be."""
    return Markup(
        "".join(
            part if isinstance(part, Markup) else escape(part) for part in parts if part is not None
        )
    )


def table(head: Iterable[str], rows: Iterable[Iterable[str]], class_: str | None = None) -> Markup:
    """A table that scrolls by itself where the page is narrow."""
    return element(
        "div",
        element(
            "table",
            element("thead", element("tr", *(element("th", cell) for cell in head))),
            element(
                "tbody",
                *(element("tr", *(element("td", cell) for cell in row)) for row in rows),
            ),
            class_=class_,
        ),
        class_="scroll",
    )


def _name(name: str) -> str:
    return name.rstrip("_").replace("_", "-") if name != "viewBox" else name


def _value(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
