"""How good a predicted text is: exact match, F1, precision and recall, as the papers' reference counts them."""

import re
import string
from collections import Counter

ANSWER_MARK = "the answer is"
STOPS = ".,"
# Half of such an answer is not half right.
ALL_OR_NOTHING = {"yes", "no", "noanswer"}
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def cut(text: str, with_cot: bool) -> str:
    """The part of a generated text that is scored: of its `first_line` what comes before a full stop or comma."""
    return re.split(f"[{STOPS}]", first_line(text, with_cot), maxsplit=1)[0].strip()


def first_line(text: str, with_cot: bool) -> str:
    """A generated text up to the first newline; with chain of thought only what follows "the answer is", where that is
    said."""
    if with_cot and ANSWER_MARK in text:
        text = text.partition(ANSWER_MARK)[2]
    return text.strip().partition("\n")[0].strip()


def ended(text: str, with_cot: bool) -> bool:
    """Whether what follows a text changes nothing of its `first_line`."""
    if with_cot:
        text = text.partition(ANSWER_MARK)[2]
    return "\n" in text.lstrip()


def score(prediction: str, answers: list[str]) -> dict[str, float]:
    """em, f1, prec and recall of a prediction, from 0 to 1: each the best over the answer's aliases."""
    of_each = [_score_one(normalise(prediction), normalise(answer)) for answer in answers]
    return {measure: max(scores[measure] for scores in of_each) for measure in of_each[0]}


def holds(prediction: str, answers: list[str]) -> bool:
    """Whether a prediction has the answer, or one of its aliases, in it, word for word: however many words it takes."""
    return any(f" {normalise(answer)} " in f" {normalise(prediction)} " for answer in answers)


def normalise(answer: str) -> str:
    """Lower case, without punctuation and the articles a, an, the, with single spaces."""
    plain = answer.lower().translate(_PUNCTUATION)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", plain).split())


def _score_one(prediction: str, answer: str) -> dict[str, float]:
    em = float(prediction == answer)
    words, wanted = prediction.split(), answer.split()
    shared = sum((Counter(words) & Counter(wanted)).values())
    if not shared or (not em and ALL_OR_NOTHING & {prediction, answer}):
        return {"em": em, "f1": 0.0, "prec": 0.0, "recall": 0.0}
    precision, recall = shared / len(words), shared / len(wanted)
    return {"em": em, "f1": 2 * precision * recall / (precision + recall), "prec": precision, "recall": recall}
