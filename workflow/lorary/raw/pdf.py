"""PDF: its pages' text put together again, which is only drawn there line by line."""

import io
import logging
import re
import unicodedata
from collections import Counter
from itertools import accumulate

from ..core.errors import LoraryError
from .sections import Document, Section
from .text import SECOND_OF_TWO, unwrapped, without_halves

log = logging.getLogger(__name__)

NO_TITLE = re.compile(r"(?i)untitled.*|microsoft word - .*|.*\.(docx?|odt|tex|dvi|indd|qxd|pdf|rtf)|\W*")
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u00ad]")  # and the hyphen that is not seen
LIGATURE = re.compile("[\ufb00-\ufb06]")
PAGE = "\0"  # stands where a page begins, while they are put together
HYPHEN = re.compile(rf"(\w+)[-\u2010]\n({PAGE}?)(\w+)")
SENTENCE_END = re.compile(r"[.!?:\u3002\uff01\uff1f][\"'\u201d\u2019\u00bb)\]]*$")


def read_pdf(content: bytes, name: str) -> Document:
    """One section of all pages. Raises LoraryError."""
    pages, title = _extracted(content)
    blank = sum(not page for page in pages)
    if blank == len(pages):
        raise LoraryError("has no text: a scan? Have its letters recognised (ocrmypdf old.pdf new.pdf).")
    if blank:
        log.warning("%s.pdf: %d of %d pages have no text; are they scanned?", name, blank, len(pages))
    text = ""
    for page in _without_running_heads(pages):
        if page and text:  # a sentence may go on over the end of a page
            text += "\n\n" if SENTENCE_END.search(text.rstrip(PAGE)) else "\n"
        text += PAGE + page
    before, *parts = unwrapped(_hyphens_joined(text)).split(PAGE)
    starts = list(accumulate(map(len, parts[:-1]), initial=len(before)))
    return Document(title or name, [Section("".join([before, *parts]), pages=starts)])


def _extracted(content: bytes) -> tuple[list[str], str]:
    """The text of each page as it is drawn, and the title that the file has, if any."""
    from pypdf import PdfReader
    from pypdf.errors import DependencyError, FileNotDecryptedError

    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # of what it mends there is nothing to do
    try:
        reader = PdfReader(io.BytesIO(content))
        pages = [_clean(page.extract_text()) for page in reader.pages]
        title = _clean(str(reader.metadata.title or "")) if reader.metadata else ""
    except (DependencyError, FileNotDecryptedError):
        raise LoraryError(
            "is encrypted. Have a copy without its password here (qpdf --decrypt --password=... old.pdf new.pdf)."
        ) from None
    except Exception as error:  # of many kinds, where a file is damaged
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise LoraryError(
            f"cannot be read as PDF ({reason}). If a viewer can, print it to a new PDF from there; else get it anew."
        ) from None
    return pages, "" if NO_TITLE.fullmatch(title) else " ".join(title.split())


def _clean(text: str) -> str:
    """Without what fonts leave in it: halves of letters, control characters, fi as one letter."""
    letters = CONTROL.sub("", without_halves(text))
    letters = LIGATURE.sub(lambda found: unicodedata.normalize("NFKC", found[0]), letters)
    return "\n".join(line.rstrip() for line in letters.split("\n")).strip()


def _without_running_heads(pages: list[str]) -> list[str]:
    """Without the first or last line of a page, where most pages have it but for a number."""
    lines = [page.split("\n") for page in pages]
    for edge in (0, -1):
        heads = [re.sub(r"\d+", "0", page[edge].strip()) for page in lines]
        often, times = Counter(filter(None, heads)).most_common(1)[0] if any(heads) else ("", 0)
        if times >= 3 and times > len(pages) / 2:
            for page, head in zip(lines, heads, strict=True):
                if head == often:
                    page[edge] = ""
    return ["\n".join(page).strip() for page in lines]


def _hyphens_joined(text: str) -> str:
    """Words that are divided at a line's end, in one; with their hyphen where the text has it elsewhere too."""

    def join(found: re.Match[str]) -> str:
        first, page, second = found.groups()
        if SECOND_OF_TWO.match(second):
            return found[0]
        divided = first[-1].isalpha() and second[0].islower() and f"{first}-{second}" not in text
        return f"{first}{'' if divided else '-'}{second}{page}"

    return HYPHEN.sub(join, text)
