"""Documents as files: plain text, Markdown, HTML and PDF, each read into sections."""

import re
from pathlib import Path

import yaml

from ..core.errors import LoraryError
from .pdf import read_pdf
from .sections import Document, by_headings
from .text import FENCE, decoded, unwrapped, without_halves
from .webpages import read_html

ENDINGS = (".txt", ".md", ".html", ".htm", ".pdf")

HEADING = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*?))??(?:[ \t]+#+)?[ \t]*")
UNDERLINE = re.compile(r" {0,3}(=+|--+)[ \t]*")
NO_PARAGRAPH = re.compile(r"\s*([-*+>|]\s|\d+[.)]\s)|\s*$")
LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
MARKUP = re.compile(r"[*`]|(?<!\w)_+|_+(?!\w)|\s*\{[#.][^}]*\}\s*$")


def read(path: Path) -> Document:
    """A document by its ending, one of `ENDINGS`. Raises LoraryError that says what is wrong with it, without its name,
    and OSError."""
    content, name = path.read_bytes(), path.stem.replace("_", " ").strip()
    if not content.strip():
        raise LoraryError("is empty. Fill it, or take it out of the folder.")
    reader = {".txt": _read_text, ".md": _read_markdown, ".pdf": read_pdf}.get(path.suffix.lower(), read_html)
    document = reader(content, name)
    if not document.sections:
        raise LoraryError("has no text below its headings. Fill it, or take it out of the folder.")
    return document


def _read_text(content: bytes, name: str) -> Document:
    return by_headings([(0, "", unwrapped(decoded(content)))], "", name)


def _read_markdown(content: bytes, name: str) -> Document:
    title, text = _front_matter(decoded(content))
    blocks: list[tuple[int, str, list[str]]] = [(0, "", [])]
    fence = ""
    for line in text.split("\n"):
        lines = blocks[-1][2]
        if fence:
            fence = "" if line.strip().startswith(fence) else fence
        elif found := FENCE.match(line):
            fence = found[1]
        elif found := HEADING.fullmatch(line):
            blocks.append((len(found[1]), _plain(found[2] or ""), []))
            continue
        elif (found := UNDERLINE.fullmatch(line)) and _is_title(lines):
            blocks.append((1 if found[1][0] == "=" else 2, _plain(lines.pop()), []))
            continue
        lines.append(line)
    return by_headings([(level, head, unwrapped("\n".join(lines))) for level, head, lines in blocks], title, name)


def _is_title(lines: list[str]) -> bool:
    """Whether the last of these lines is one that a line of dashes below makes a heading: a paragraph of one line."""
    return bool(lines) and not NO_PARAGRAPH.match(lines[-1]) and (len(lines) == 1 or not lines[-2].strip())


def _front_matter(text: str) -> tuple[str, str]:
    """The title in the YAML that a page may begin with, and the text after it."""
    found = re.match(r"---[ \t]*\n(.*?)\n(---|\.\.\.)[ \t]*(\n|$)", text, re.DOTALL)
    try:
        fields = yaml.safe_load(found[1]) if found else None
    except (yaml.YAMLError, ValueError, RecursionError):
        fields = None
    if not found or not isinstance(fields, dict):
        return "", text
    title = fields.get("title")
    return " ".join(without_halves(title).split()) if isinstance(title, str) else "", text[found.end() :]


def _plain(heading: str) -> str:
    return " ".join(MARKUP.sub("", LINK.sub(r"\1", heading)).split())
