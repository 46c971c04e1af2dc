"""Pages of HTML: what is to be read on them, and under which headings."""

import re
from typing import TYPE_CHECKING

from ..core.errors import LoraryError
from .sections import Document, by_headings
from .text import decoded

if TYPE_CHECKING:
    from bs4 import BeautifulSoup
    from bs4.element import Tag

HEADINGS = {f"h{level}": level for level in range(1, 7)}
NOT_READ = re.compile("head|title|script|style|nav|template|noscript|iframe|svg|button|select|textarea")
AROUND = ("header", "footer")  # of the page, unless they are an article's
PARAGRAPHS = re.compile(
    "address|article|aside|blockquote|body|caption|center|dd|details|dialog|div|dl|dt|fieldset|figcaption|figure|footer|"
    "form|header|hr|html|main|menu|ol|p|section|summary|table|tbody|tfoot|thead|ul"
)


def read_html(content: bytes, name: str) -> Document:
    """Raises LoraryError."""
    from bs4 import BeautifulSoup

    soup = BeautifulSoup(_text(content), "html.parser")
    title = soup.title.get_text() if soup.title else ""
    for tag in soup.find_all(_left_out):
        tag.decompose()
    document = by_headings([(level, head, _tidy(bits)) for level, head, bits in _blocks(soup)], _line(title), name)
    if not document.sections:
        raise LoraryError(
            "has no text to read. Where a script makes it in the browser, save the page from there, complete or as PDF."
        )
    return document


def _text(content: bytes) -> str:
    """In UTF-8, or in the encoding that the page says it has."""
    from bs4.dammit import EncodingDetector

    try:
        return decoded(content)
    except LoraryError:
        declared = EncodingDetector.find_declared_encoding(content, is_html=True)
        try:
            return decoded(content.decode(declared or "utf-8").encode())
        except (LookupError, ValueError):
            pass
        raise


def _blocks(soup: "BeautifulSoup") -> list[tuple[int, str, list[str]]]:
    """Level, heading and the bits of text below it. Without recursion: pages can be nested deep."""
    from bs4.element import CData, NavigableString, Tag

    blocks: list[tuple[int, str, list[str]]] = [(0, "", [])]
    stack: list[object] = [soup]
    while stack:
        node, bits = stack.pop(), blocks[-1][2]
        if type(node) is str:  # what comes after a tag
            bits.append(node)
        elif isinstance(node, NavigableString):
            if type(node) in (NavigableString, CData):  # and no comment
                _add(bits, re.sub(r"\s+", " ", node))
        elif isinstance(node, Tag):
            if node.name in HEADINGS:
                blocks.append((HEADINGS[node.name], _line(node.get_text()), []))
            elif node.name == "pre":
                bits.append(f"\n\n{node.get_text()}\n\n")
            else:
                before, after = _around(node)
                bits.append(before)
                stack += [after, *reversed(node.contents)]
    return blocks


def _left_out(tag: "Tag") -> bool:
    if tag.name in AROUND:
        return tag.find_parent(("article", "main")) is None
    return bool(NOT_READ.fullmatch(tag.name)) or tag.has_attr("hidden")


def _around(tag: "Tag") -> tuple[str, str]:
    """What stands before and after a tag's text."""
    if PARAGRAPHS.fullmatch(tag.name):
        return "\n\n", "\n\n"
    if tag.name in ("li", "tr"):
        return "\n- " if tag.name == "li" and any(map(str.strip, tag.strings)) else "\n", "\n"
    if tag.name == "br":
        return "\n", ""
    if tag.name in ("td", "th"):
        return " | " if tag.find_previous_sibling(("td", "th")) else "", ""
    return "", ""


def _add(bits: list[str], text: str) -> None:
    before = next((bit for bit in reversed(bits) if bit), "\n")
    bits.append(text.removeprefix(" ") if before[-1].isspace() else text)


def _tidy(bits: list[str]) -> str:
    text = re.sub(r"[ \t]+\n", "\n", "".join(bits))
    text = re.sub(r"(?m)^- *\n+(?=.)", "- ", text)  # a paragraph in an item
    text = re.sub(r"(?m)^(- )+", "- ", text)  # or nothing but another item
    return re.sub(r"\n{3,}", "\n\n", text)


def _line(text: str) -> str:
    return " ".join(text.split())
