"""What counts as a word when passages are searched, in any script."""

import re
import unicodedata
from itertools import pairwise

# A word is letters, digits and the signs on them (accents, the vowels of Indic scripts), as \w is in Rust.
WORD = r"\w+"
# The letters of scripts that put no blanks between words: of Chinese and Japanese, and of Thai, Lao, Burmese and Khmer.
HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
KANA = "\u3040-\u30ff"
SOUTHEAST = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
UNBROKEN = HAN + KANA + SOUTHEAST
WITHOUT_BLANKS = re.compile(f"[{UNBROKEN}\u3005-\u3007]+")  # with signs that stand for a character
# Lucene's of English, and what an apostrophe leaves.
STOP_WORDS = frozenset(
    re.findall(
        WORD,
        "a an and are as at be but by for if in into is it no not of on or such that the their then there these they"
        " this to was will with s t",
    )
)


def spaced(text: str) -> str:
    """The text, so that its words are its runs of letters: wide and joined letters written plainly (NFKC), and where a
    script puts no blanks, each two letters that follow each other, and each Chinese character."""
    if text.isascii():
        return text
    return WITHOUT_BLANKS.sub(_pairs, unicodedata.normalize("NFKC", text))


def asked(words: list[str]) -> list[str]:
    """Those of a question's words that count: stop words only where there is nothing else."""
    return [word for word in words if word not in STOP_WORDS] or words


def _pairs(found: re.Match[str]) -> str:
    run = found[0]
    pairs = [first + second for first, second in pairwise(run)] or [run]
    return f" {' '.join(pairs + re.findall(f'[{HAN}]', run) if len(run) > 1 else pairs)} "
