"""What a pair and a rewrite have to stand, by rule: the round trip, in `pairs`, catches the rest."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable

from ..raw.words import UNBROKEN
from .spans import CAPITAL, GRAMMAR, NAME, sentences, spans

MOST_ANSWER_WORDS = 12
QUESTION_LENGTH = 10, 300  # characters
SUBJECT = 3  # words that a passage begins with
SMALL = ["two", "three", "four", "five", "six", "seven", "eight", "nine"]
TEENS = ["ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
VALUES = {"one": 1} | {word: i for i, word in enumerate([*SMALL, *TEENS], start=2)}
VALUES |= {word: 10 * i for i, word in enumerate(TENS, start=2)}
SPELLED = rf"\b(?:(?:{'|'.join(TENS)})(?:[ -](?:one|{'|'.join(SMALL)}))?|{'|'.join([*SMALL, *TEENS])})\b"
ASKING = {"how", "what", "when", "where", "which", "who", "whom", "whose", "why"}
TURNED = set("¿¡")  # of Spanish
SAME = 0.8  # of the words of two questions: they ask the same
OF_THE_TEXT = re.compile(
    r"\b(?:passage|paragraph|article|text|sentence|excerpt|according to the (?:above|story)|mentioned above)\b", re.I
)
PREAMBLE = re.compile(
    r"^\W*(?:here(?:'s| is| are)|sure|certainly|of course|okay|ok|rewritten|in other words|question|answer)\b"
    r"[^\n]{0,80}[:,!]|"
    r"\b(?:rewritten|revised) (?:text|passage|version)\b",
    re.I,
)
PERSON = re.compile(r"^(?:who|whose|whom)\b", re.I)
TIME = re.compile(
    r"^(?:when|(?:in|on|since|until|by|during) (?:which|what) (?:year|date|month|century))\b|^(?:which|what) year\b",
    re.I,
)
COUNT = re.compile(r"^how (?:many|much|tall|long|high|wide|deep|old|far|big|large|heavy)\b", re.I)
WHERE = re.compile(r"^where\b", re.I)
NUMBER_WORD = re.compile(
    r"\b(?:zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|\w+teen|twenty|thirty|forty|fifty|sixty|"
    r"seventy|eighty|ninety|hundred|thousand|million|billion|dozen|half|no|none|once|twice|several|few|many|all|every|"
    r"single|pair)\b",
    re.I,
)
DAY_OR_TIME = re.compile(
    r"\b(?:january|february|march|april|may|june|july|august|september|october|november|december|monday|tuesday|"
    r"wednesday|thursday|friday|saturday|sunday|spring|summer|autumn|winter|century|after|before|during|since|until|day|"
    r"night|year|years|war|\w+days|\w+s ago)\b",
    re.I,
)


def pair_fault(question: str, answer: str, passage: str, title: str = "") -> str | None:
    """Why a pair is none to learn from, in a word or two; None where nothing speaks against it."""
    question, answer = question.strip(), answer.strip()
    if not answer or not question:
        return "empty"
    if not _found(answer, passage):
        return "not in the passage"
    if len(answer.split()) > MOST_ANSWER_WORDS:
        return "answer too long"
    if not QUESTION_LENGTH[0] <= len(question) <= QUESTION_LENGTH[1] or "\n" in question:
        return "question too short or too long"
    if not question.endswith(("?", "\uff1f", "؟")) or PREAMBLE.search(question):
        return "no question"
    if OF_THE_TEXT.search(question) and not OF_THE_TEXT.search(passage):
        return "speaks of the text"
    asked, said = set(words(question)), [word for word in words(answer) if word not in GRAMMAR]
    if said and sum(word in asked for word in said) * 2 > len(said):
        return "answer in the question"
    if _wrong_kind(question, answer):
        return "wrong kind of answer"
    if not _names_something(question, passage, title):
        return "does not say what it is about"
    if other_language(question, passage):
        return "another language"
    return None


def same_question(question: str, others: Iterable[str]) -> bool:
    """Whether a question asks what one of the others asks."""
    own = set(words(question)) - (GRAMMAR - ASKING)
    for other in others:
        its = set(words(other)) - (GRAMMAR - ASKING)
        if own == its or len(own & its) >= SAME * max(len(own | its), 1):
            return True
    return False


def agree(answer: str, expected: str) -> bool:
    """Whether two answers say the same: equal but for case, signs and articles; or one within the other, with most of
    its words."""
    own, its = ([w for w in words(text) if w not in GRAMMAR] or words(text) for text in (answer, expected))
    common = sum((Counter(own) & Counter(its)).values())
    if not common:
        return False
    if counted := set(numbers(expected)):  # of which the unit may be spelled otherwise
        if set(numbers(answer)) != counted:
            return False
        if max(len(own), len(its)) <= 3:
            return True
    shorter, longer = sorted((own, its), key=len)
    inside = common == len(shorter)
    return own == its or (inside and 2 * common >= len(longer) - 1) or 2 * common / (len(own) + len(its)) >= 0.75


def rewrite_fault(rewrite: str, passage: str) -> str | None:
    """Why a rewrite does not stand for its passage; None where it does."""
    if not rewrite.strip():
        return "empty"
    if PREAMBLE.search(rewrite[:120]) or "```" in rewrite:
        return "speaks of itself"
    if not 0.5 <= len(rewrite) / max(len(passage), 1) <= 1.7:
        return "too short or too long"
    lost, invented = facts_changed(rewrite, passage)
    if lost:
        return f"loses {lost[0]}"
    if invented:
        return f"invents {invented[0]}"
    return "another language" if other_language(rewrite, passage) else None


def facts_changed(rewrite: str, passage: str) -> tuple[list[str], list[str]]:
    """The numbers and names of a passage that its rewrite has lost, and those that it has and the passage has not."""
    before, after = set(numbers(passage)), set(numbers(rewrite))
    there, here = _letters(passage), _letters(rewrite)
    lost = [number for number in numbers(passage) if number not in after]
    lost += [name for name in names(passage) if _letters(name) not in here]
    invented = [number for number in numbers(rewrite) if number not in before]
    invented += [name for name in names(rewrite) if _letters(name) not in there]
    return list(dict.fromkeys(lost)), list(dict.fromkeys(invented))


def facts(passage: str) -> list[str]:
    """The names and numbers that a rewrite has to keep, whole as they stand in the passage."""
    spelled = re.findall(SPELLED, passage, re.I)
    wanted = set(names(passage)) | set(numbers(passage))
    found = [span for span in spans(passage) if set(names(f"x {span}")) & wanted or set(numbers(span)) & wanted]
    return found + [word for word in spelled if word not in " ".join(found)]


def copied(rewrite: str, passage: str, n: int = 8) -> float:
    """The share of runs of `n` words of a rewrite that the passage has too."""
    own, its = words(rewrite), words(passage)
    runs = {tuple(its[i : i + n]) for i in range(len(its) - n + 1)}
    mine = [tuple(own[i : i + n]) for i in range(len(own) - n + 1)]
    return sum(run in runs for run in mine) / len(mine) if mine else float(own == its)


def numbers(text: str) -> list[str]:
    """The numbers in a text, in order, without the commas of thousands; English number words from two to ninety-nine as
    digits."""
    text = unicodedata.normalize("NFKC", text)
    found = re.findall(rf"\d+(?:[.,:]\d+)*|{SPELLED}", text, re.I)
    return [re.sub(r",(?=\d{3}\b)", "", number) if number[0].isdigit() else _value(number) for number in found]


def _value(spelled: str) -> str:
    tens, _, ones = re.sub(r"[\s-]+", "-", spelled.lower()).partition("-")
    return str(VALUES[tens] + VALUES.get(ones, 0))


def names(text: str) -> list[str]:
    """The words with a capital that are no first word of a sentence, in order; scripts without capitals have none."""
    found = []
    for sentence in sentences(text):
        first = True
        for match in re.finditer(r"[^\W\d_][\w'\u2019.-]*", sentence):
            word = match[0].strip(".'\u2019")
            if not first and re.fullmatch(CAPITAL, word) and word.lower() not in GRAMMAR:
                found.append(re.sub(r"['\u2019]s?$", "", word))
            first = sentence[match.end() : match.end() + 1] in ('"', "“", ":")
    return list(dict.fromkeys(found))


def words(text: str) -> list[str]:
    """In lower case, without signs; of scripts without blanks each character."""
    return re.findall(
        rf"[{UNBROKEN}]|[^\W_]+(?:[.,]\d+)*",
        unicodedata.normalize("NFKC", text).lower(),
    )


def other_language(text: str, passage: str) -> bool:
    """Whether a text is in another script than its passage, or has none of its short words: cheap, and right about what
    small models do, which is to fall back into English or Chinese, or into the language of the names."""
    ours, theirs = _script(text), _script(passage)
    if ours and theirs and ours != theirs:
        return True
    short = {word for word in words(text) if len(word) <= 3 and word.isalpha()}
    known = {word for word in words(passage) if len(word) <= 3}
    plain = set(words(re.sub(NAME, " ", passage)))
    if "the" in plain:  # English, whose names say nothing of it: the "de" in Guzmán de Ribera
        known = plain | GRAMMAR
        if TURNED & (set(text) - set(passage)):
            return True
    return ours == "LATIN" and len(words(passage)) >= 40 and len(short) >= 3 and not short & known


def _script(text: str) -> str:
    """That of most letters."""
    counts: Counter[str] = Counter(
        unicodedata.name(letter, "?").split(" ")[0].split("-")[0] for letter in text if letter.isalpha()
    )
    kin = {"HIRAGANA": "CJK", "KATAKANA": "CJK"}
    return kin.get(most := counts.most_common(1)[0][0], most) if counts else ""


def _wrong_kind(question: str, answer: str) -> bool:
    """A question for a person, a time or a number, and an answer that is none."""
    digits = bool(re.search(r"\d", answer))
    bare = re.sub(r"[\d\s.,%-]", "", answer) == ""
    if PERSON.match(question):
        return digits and not re.search(r"[^\W\d_a-z]", answer)
    if TIME.match(question):
        return not digits and not DAY_OR_TIME.search(answer) and not NUMBER_WORD.search(answer)
    if COUNT.match(question):
        return (not digits and not NUMBER_WORD.search(answer)) or bool(
            re.match(r"^how many", question, re.I)
            and DAY_OR_TIME.search(answer)
            and not re.search(r"day|night|year", answer, re.I)
        )
    return bool(WHERE.match(question)) and (bare or bool(re.fullmatch(r"\d[\d.,]* \w+", answer)))


def _names_something(question: str, passage: str, title: str) -> bool:
    """Whether a question says what it is about, to those who do not see the passage: by a name, or by a word of the
    title or of what the passage begins with; in scripts without capitals by two words of the passage."""
    known = set(words(f"{passage} {title}"))
    if any(set(words(name)) & known for name in names(question) if len(name) > 1):
        return True
    asked, subject = set(words(question)) - GRAMMAR, [*words(title), *words(passage)[:SUBJECT]]
    if asked & {word for word in subject if len(word) > 3}:
        return True
    return len([word for word in asked & known if not word.isascii()]) >= 2


def _found(answer: str, passage: str) -> bool:
    return _plain(answer) in _plain(passage)


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).lower().split())


def _letters(text: str) -> str:
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", text).lower())
