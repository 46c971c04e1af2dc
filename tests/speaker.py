"""What an able language model would say to what augmentation asks, without one: for the fake server and for talks."""

import re

from lorary.augment.wording import load_wording
from lorary.plan import layout

WORDING = load_wording(str(layout.AUGMENT_PROMPTS))


def speak(body: dict) -> str:
    """The reply to the last message."""
    return say(body["messages"][-1]["content"])


def say(text: str) -> str:
    kind, values = _heard(text)
    if kind in ("rewrite", "reference.rewrite"):
        return " ".join(reversed(values["passage"].split()))
    if kind == "answers":
        return "\n".join(values["passage"].split()[::5])
    if kind == "question":
        subject = (values["title"] or values["passage"]).split()[-1 if values["title"] else 0]
        return f"What of {subject} is {_code(values['answer'])}?"
    if kind == "check":
        code = values["question"].removesuffix("?").split()[-1]
        runs = _runs(values["passage"].split())
        return next((run for run in runs if _code(run) == code), "nothing")
    return "I do not know."


def _heard(text: str) -> tuple[str, dict[str, str]]:
    """Which of the templates a text was made of, and with what."""
    for kind, template in WORDING.items():
        seen: set[str] = set()

        def group(match: re.Match, seen=seen) -> str:
            again, _ = match[1] in seen, seen.add(match[1])
            return f"(?P={match[1]})" if again else f"(?P<{match[1]}>.*?)"

        pattern = re.sub(r"\\\{(\w+)\\\}", group, re.escape(template))
        if kind not in ("full_answer", "rule") and (match := re.fullmatch(pattern, text, re.DOTALL)):
            return kind, match.groupdict()
    raise ValueError(f"never heard of that: {text}")


def _code(answer: str) -> str:
    """A word that stands for an answer and gives none of it away."""
    return "x" + "".join(chr(ord("a") + ord(letter) % 26) for letter in answer.strip(" .,;:\"'()").lower())


def _runs(words: list[str]):
    for length in range(1, 9):
        for start in range(len(words) - length + 1):
            yield " ".join(words[start : start + length]).strip(" .,;:\"'()")
