"""A document as it is read, whatever its form: sections of text under headings."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Section:
    text: str
    headings: tuple[str, ...] = ()  # that it is under, without the document's title
    pages: list[int] = field(default_factory=list)  # where each begins in the text, if it has pages


@dataclass(frozen=True)
class Document:
    title: str
    sections: list[Section]  # none is empty


def by_headings(blocks: list[tuple[int, str, str]], own_title: str, name: str) -> Document:
    """A document out of blocks (level of the heading from 1, heading, text below it). Its title is its only heading of
    level 1, else its own from elsewhere, else its file's name."""
    tops = [heading for level, heading, _ in blocks if level == 1]
    top = tops[0] if len(tops) == 1 else ""
    above: list[tuple[int, str]] = []
    sections = []
    for level, heading, text in blocks:
        above = [*(upper for upper in above if upper[0] < level), (level, heading)]
        if text.strip():
            headings = tuple(heading for level, heading in above if heading and not (top and level == 1))
            sections.append(Section(text.strip("\n").rstrip(), headings))
    return Document(top or own_title or name, sections)
