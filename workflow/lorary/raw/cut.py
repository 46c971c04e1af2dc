"""Documents into passages, at the ends of paragraphs and sentences."""

import re
from bisect import bisect_right

from .passages import RawPassage
from .sections import Document, Section
from .text import words

TINY = 1 / 4  # of `passage_words`: for the sake of no piece that is smaller, another may be larger by so much

# A full stop that ends no sentence, which the splitter takes for one.
ABBREVIATION = re.compile(
    r"\b([A-Z]|Mr|Mrs|Ms|Dr|Prof|St|Mt|No|Nos|Vol|Fig|Figs|Eq|Sec|Ch|vs|cf|ca|approx|e\.g|i\.e|al|Gen|Col|Capt|Lt|Sgt|Rev"
    r"|Hon|Jr|Sr|Inc|Ltd|Co|Nr|Abb|Bd|bzw|z\.B|d\.h)\.(?=\s)"
)


def cut(document: Document, file: str, passage_words: int) -> list[RawPassage]:
    """Passages of about `passage_words` words, none across a heading. Their titles are the document's and the headings
    above; extra has its file, its place there and the document's title."""
    passages = []
    for section in document.sections:
        spans = _spans(section.text, passage_words)
        for number, (start, end) in enumerate(spans, start=1):
            extra = {
                "file": file,
                "place": _place(section, start, end, number if len(spans) > 1 or not section.headings else 0),
                "document": document.title,
            }
            passages.append(RawPassage(section.text[start:end], ": ".join([document.title, *section.headings]), extra))
    return passages


def _spans(text: str, passage_words: int) -> list[tuple[int, int]]:
    """Where each piece of a text begins and ends."""
    from semantic_text_splitter import TextSplitter

    masked = ABBREVIATION.sub(lambda found: f"{found[1]}_", text)
    spans: list[tuple[int, int]] = []
    for start, piece in TextSplitter.from_callback(words, passage_words).chunk_indices(masked):
        end = start + len(piece)
        if spans:
            before, last = spans[-1]
            smaller = min(words(text[before:last]), words(text[start:end]))
            together = words(text[before:end])
            most = (1 + TINY) * passage_words if smaller < TINY * passage_words else passage_words
            if together <= most:  # which the splitter leaves apart where a paragraph is next to a list, say
                spans[-1] = (before, end)
                continue
        spans.append((start, end))
    return spans


def _place(section: Section, start: int, end: int, number: int) -> str:
    if section.pages:
        first, last = bisect_right(section.pages, start), bisect_right(section.pages, end - 1)
        return f"page {first}" if first == last else f"pages {first}-{last}"
    return ", ".join([*section.headings[-1:], *([f"piece {number}"] if number else [])])
