"""Text as it lies in files: its encoding, its lines, and how many words it has."""

import re
from itertools import pairwise

from ..core.errors import LoraryError
from .words import HAN, KANA, SOUTHEAST, UNBROKEN

# In scripts without blanks, a word is one letter of Chinese and Japanese, or up to four of the others. Elsewhere it is
# what stands between blanks; where that has no end, 40 letters of it.
ONE = HAN + KANA
WORD = re.compile(rf"[{ONE}]|[{SOUTHEAST}]{{1,4}}|[^\s{UNBROKEN}]{{1,40}}")
WITHOUT_BLANKS = re.compile(rf"[{ONE}\u3000-\u303f\uff00-\uffef]")

WRAPPED = 40  # letters: a line of so many goes on in the next, and a shorter one (of a poem, an address) ends
MARK = r"[-*+•\u2013]|\(?(\d{1,3}[.)]|[a-zA-Z]\))"  # of an item in a list
NEW_LINE = re.compile(rf"\s*(({MARK}|#+)\s|[>|]|```|~~~)")
BULLET = re.compile(rf"\s*(({MARK})\s+)?")
SECOND_OF_TWO = re.compile(r"(and|or|to|und|oder|bis|et|ou|y|e|o)\b")
FENCE = re.compile(r" {0,3}(```|~~~)")


def words(text: str) -> int:
    return len(WORD.findall(text))


def decoded(content: bytes) -> str:
    """UTF-8 as text, its lines ended by \\n. Raises LoraryError that names the line of what is no text."""
    refuse_utf16(content)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise not_utf8(content.count(b"\n", 0, error.start) + 1, content[error.start]) from None
    if "\0" in text:
        raise no_bytes(text.count("\n", 0, text.index("\0")) + 1)
    return re.sub(r"\r\n?|[\x85\u2028]", "\n", re.sub(r"[\f\u2029]", "\n\n", text))


def without_halves(text: str) -> str:
    """With a mark in place of each half of a letter (a lone surrogate), which UTF-8 cannot write."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def refuse_utf16(content: bytes) -> None:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise LoraryError("the text is UTF-16, not UTF-8. Convert it: iconv -f UTF-16 -t UTF-8 old > new")


def not_utf8(line: int, byte: int) -> LoraryError:
    return LoraryError(
        f"line {line} is not UTF-8 (byte 0x{byte:02x}). Convert the file from the encoding that it has, maybe so:"
        " iconv -f WINDOWS-1252 -t UTF-8 old > new"
    )


def no_bytes(line: int) -> LoraryError:
    return LoraryError(f"line {line} has bytes that are no text. Is this another kind of file? Give it its own ending.")


def unwrapped(text: str) -> str:
    """Each paragraph in one line, where it was wrapped: a line end in mid-sentence is none of the text's. Lists, tables
    and blocks of code keep their lines."""
    lines = text.split("\n")
    joined, fence = [lines[0]], _fence(lines[0], "")
    for line, following in pairwise(lines):
        inside, fence = bool(fence), _fence(following, fence)
        if inside or fence or not _goes_on(line, following):
            joined.append(following)
            continue
        above, below = joined[-1].rstrip(), following.strip()
        joined[-1] = above + ("" if _one_word(above, below) else " ") + below
    return "\n".join(joined)


def _goes_on(line: str, following: str) -> bool:
    if len(line) + len(WITHOUT_BLANKS.findall(line)) < WRAPPED or not following.strip() or NEW_LINE.match(following):
        return False
    if line.endswith(("  ", "\\")):  # Markdown's way to end a line
        return False
    indented = len(following) - len(following.lstrip())
    return indented < 2 or indented <= len(BULLET.match(line)[0])  # type: ignore[index]  # it matches anything


def _one_word(above: str, below: str) -> bool:
    if re.search(r"\w-$", above):  # black-\nfaced, but not two-\nand three-wheeled
        return below[0].isalnum() and not SECOND_OF_TWO.match(below)
    return bool(WITHOUT_BLANKS.match(above[-1]) and WITHOUT_BLANKS.match(below))


def _fence(line: str, fence: str) -> str:
    """How the block of code is fenced that a line is in, or begins; `fence`: that of the line before."""
    if not fence:
        found = FENCE.match(line)
        return found[1] if found else ""
    return "" if line.strip().startswith(fence) else fence
