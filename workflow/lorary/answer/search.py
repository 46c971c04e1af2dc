"""Which texts go with a question: BM25 (Robertson & Zaragoza, 2009; in Lucene's form) over words of any script."""

import re
import unicodedata
from itertools import pairwise

# Signs that belong to a word and that Python's \w leaves out: accents, and the vowels of Indic scripts, Arabic, Hebrew.
SIGNS = "\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0900-\u0963\u0966-\u0dff\u0f71-\u0fbc"
HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
# Scripts that put no blanks between words: Thai, Lao, Burmese, Khmer, and those of Chinese and Japanese.
WITHOUT_BLANKS = f"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3041-\u30ff{HAN}"
RUN = re.compile(f"([{WITHOUT_BLANKS}]+)|((?:(?![{WITHOUT_BLANKS}])[\\w{SIGNS}])+)")


def best(texts: list[str], question: str, top: int) -> list[tuple[int, float]]:
    """The positions of the `top` texts that go best with the question, and their scores; none where they share no word.

    Stop words and single letters count only where the question has nothing else.
    """
    import bm25s

    asked = words(question)
    read = words if asked else every_word
    corpus, asked = [read(text) for text in texts], asked or every_word(question)
    known = set().union(*corpus)
    if not known.intersection(asked):
        return []
    engine = bm25s.BM25()
    engine.index(_numbered(corpus), show_progress=False)
    query = [[word for word in asked if word in known]]
    numbers, scores = engine.retrieve(query, k=min(top, len(texts)), show_progress=False)
    found = zip(numbers[0].tolist(), scores[0].tolist(), strict=True)
    return [(number, score) for number, score in found if score > 0]


def words(text: str) -> list[str]:
    """The words of a text but single letters and English stop words; of scripts without blanks each two letters that
    follow each other, and each Chinese character."""
    from bm25s.stopwords import STOPWORDS_EN

    return [
        word for word in every_word(text) if (len(word) > 1 or re.match(f"[{HAN}]", word)) and word not in STOPWORDS_EN
    ]


def every_word(text: str) -> list[str]:
    """The same with single letters and stop words."""
    found = []
    for run, word in RUN.findall(unicodedata.normalize("NFKC", text).lower()):
        if word or len(run) == 1:
            found.append(word or run)
        else:
            found += [first + second for first, second in pairwise(run)]
            found += re.findall(f"[{HAN}]", run)
    return found


def _numbered(corpus: list[list[str]]) -> tuple[list[list[int]], dict[str, int]]:
    """Words as bm25s wants them: by their numbers, and which these are."""
    numbers: dict[str, int] = {}
    return [[numbers.setdefault(word, len(numbers)) for word in text] for text in corpus], numbers
