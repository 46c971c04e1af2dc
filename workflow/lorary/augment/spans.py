"""Places of a passage that a question could ask for: names, dates, numbers and quoted titles, found by rule; and the
sentences that they stand in."""

import re
from collections.abc import Iterator

MOST_WORDS = 8  # of an answer
MONTH = (
    "(?:January|February|March|April|May|June|July|August|September|October|November|December|"
    "Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)"
)
DAY = r"\d{1,2}(?:st|nd|rd|th)?"
DATE = rf"(?:{DAY} {MONTH}\.?,?|{MONTH}\.?(?: {DAY},?)?) \d{{3,4}}"
# From 2000 until 2002: half of it would be half an answer.
RANGE = r"(?:from |between )?\d[\d,.]*(?: (?:to|until|till|and|through) | ?[\u2013-] ?)\d(?:[\d,.]*\d)?"
NUMBER = r"\d[\d,.:]*\d|\d"
# A number with its unit, or with what is counted: letters that follow, but no word of grammar.
COUNTED = rf"(?:{NUMBER})(?:%|°C?|(?: (?:square|cubic|per|million|billion|thousand))* [a-zß-öø-ÿ][^\W\d_]*)?"
CAPITAL = r"[^\W\d_a-zß-öø-ÿ][^\W\d_]*(?:[-'\u2019.][^\W\d_]+)*\.?"
WITHIN = r"(?: (?:of|the|de|la|du|van|von|der|and|&|für|del|di|al|el))?(?: (?:the|la|der))?"
NAME = rf"{CAPITAL}(?:{WITHIN} {CAPITAL})*(?: \d+| [IVX]+\b)?"
QUOTED = r'["“]([^"“”\n]{2,60})["”]'
GRAMMAR = {
    *(
        "a",
        "an",
        "and",
        "are",
        "as",
        "at",
        "be",
        "been",
        "but",
        "by",
        "did",
        "do",
        "does",
        "during",
        "for",
        "from",
        "had",
    ),
    *(
        "has",
        "have",
        "he",
        "her",
        "his",
        "how",
        "in",
        "is",
        "it",
        "its",
        "later",
        "more",
        "most",
        "nor",
        "not",
        "of",
        "on",
    ),
    *(
        "or",
        "over",
        "she",
        "some",
        "than",
        "that",
        "the",
        "their",
        "then",
        "there",
        "they",
        "this",
        "to",
        "under",
        "until",
    ),
    *("up", "was", "were", "what", "when", "where", "which", "while", "who", "whom", "whose", "why", "with", "within"),
}
SENTENCE_END = re.compile(
    r"(?<=[.!?。\uff01\uff1f…])[\"”\u2019)»]?\s+(?=[\"“\u2018(«]?[^\W\d_a-z])|(?<=[。\uff01\uff1f])|\n+"
)


def spans(passage: str) -> list[str]:
    """Answers that could be asked for, each once, the clearest kinds first, spread over the sentences: one of each
    sentence in turn."""
    found: list[list[str]] = []
    seen: set[str] = set()
    for sentence in sentences(passage):
        of_it = []
        for span in _of(sentence):
            if span.lower() not in seen and len(span.split()) <= MOST_WORDS:
                seen.add(span.lower())
                of_it.append(span)
        found.append(of_it)
    in_turn = []
    for turn in range(max(map(len, found), default=0)):
        in_turn += [of_it[turn] for of_it in found if turn < len(of_it)]
    return in_turn


def sentences(passage: str) -> list[str]:
    """Of a passage, in order, stripped."""
    parts, start = [], 0
    for end in SENTENCE_END.finditer(passage):
        parts.append(passage[start : end.end()].strip())
        start = end.end()
    return [part for part in [*parts, passage[start:].strip()] if part]


def sentence_of(passage: str, answer: str) -> str:
    """The first sentence with this answer in it; the whole passage where there is none."""
    return next((sentence for sentence in sentences(passage) if answer.lower() in sentence.lower()), passage.strip())


def _of(sentence: str) -> Iterator[str]:
    taken: list[tuple[int, int]] = []

    def free(begin: int, end: int) -> bool:
        return all(end <= other or begin >= done for other, done in taken)

    for pattern, group in ((QUOTED, 1), (DATE, 0), (RANGE, 0), (COUNTED, 0), (NAME, 0)):
        for match in re.finditer(pattern, sentence):
            begin, end = match.span(group)
            text = match[group]
            if pattern is COUNTED and (word := text.split(" ")[-1]).lower() in GRAMMAR:
                text = text[: -len(word)].rstrip()
                end = begin + len(text)
            if pattern is NAME:
                first = text.split()[0]
                if first.lower() in GRAMMAR or (begin == 0 and len(text.split()) == 1):  # a capital of the sentence's
                    text = text[len(first) :].lstrip()
                    begin = end - len(text)
                    if not text or not text[0].isupper() or text.lower() in GRAMMAR:
                        continue
                text = text.rstrip(".")
            text = text.strip(" ,.;:")
            if text and free(begin, end):
                taken.append((begin, end))
                yield text
