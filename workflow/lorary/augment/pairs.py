"""The talk about one passage: a rewrite that keeps its facts, and question-answer pairs that are right.

Answer first: what is asked for is chosen before the question, and held to words of the passage. Each pair has to stand
the rules (`checks`) and a round trip: the model, shown passage and question, has to give that answer back.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ..core.errors import LoraryError
from ..core.work import Fault
from ..raw.passages import RawPassage
from .checks import SUBJECT, agree, copied, facts, pair_fault, rewrite_fault, same_question, words
from .spans import sentence_of, spans
from .talk import Reply, Request, Talk

MORE = 2  # questions asked beyond those that are needed
NEAR_COPY = 0.8  # of runs of eight words: another rewrite is tried
ASKING = ("answers", "question", "check", "check_without", "rewrite")  # of the wording
QUESTION_TOKENS, ANSWER_TOKENS = 80, 24
ONE_LINE = r"[^\n]{5,280}[?\uff1f؟]"
MOST_LISTED = 12  # answers that one listing is asked for


@dataclass
class Notes:
    """What was asked of the model, and what became of it."""

    tries: int = 0  # rounds of questions
    asked: int = 0  # questions
    stood: int = 0  # of these: pairs that stood all checks, kept or not needed
    requests: int = 0
    prompt_tokens: int = 0
    tokens: int = 0
    known: int = 0  # pairs that are kept and that the model knows without the passage
    faults: Counter = field(default_factory=Counter)
    rejected: list[dict[str, str]] = field(default_factory=list)  # some of them, for the report
    rewrite_faults: list[str] = field(default_factory=list)


REJECTED_KEPT = 5


def augment(passage: RawPassage, wording: dict[str, str], pairs: int, tries: int, seed: int) -> Talk:
    """Ask for a rewrite and `pairs` pairs, at most `tries` times each. Returns a dict with rewrite, rewritten (whether
    it is the model's, and not the passage itself), pairs (fewer, where no more stood the checks) and notes; or a Fault,
    of the first request that had no reply."""
    notes = Notes()
    try:
        rewrite, found = yield from _side_by_side(
            _rewrite(passage, wording, tries, seed, notes), _pairs(passage, wording, pairs, tries, seed, notes)
        )
    except LoraryError as error:
        return Fault(str(error))
    return result(passage, rewrite, found, notes)


def result(passage: RawPassage, rewrite: str | None, pairs: list[dict[str, str]], notes: Notes) -> dict[str, Any]:
    """What is kept of a passage."""
    return {
        "rewrite": passage.text if rewrite is None else rewrite,
        "rewritten": rewrite is not None,
        "pairs": pairs,
        "notes": {**vars(notes), "faults": dict(notes.faults)},
    }


def _rewrite(passage: RawPassage, wording: dict[str, str], tries: int, seed: int, notes: Notes) -> Talk:
    """The first rewrite that keeps the facts and is no copy; the least copied of those that keep them; or None."""
    kept: list[tuple[float, str]] = []
    keep = ", ".join(facts(passage.text))
    ascii_ = sum(map(str.isascii, passage.text))
    # Tokens are seldom shorter than two letters, but a byte where a tokenizer does not know a script.
    most = 64 + 2 * ascii_ // 3 + len(passage.text.encode()) - ascii_
    for attempt in range(tries):
        drawn = draw(seed, "rewrite", passage.text, attempt)
        request = Request(wording["rewrite"], {**_values(passage), "keep": keep}, most, seed=drawn)
        (answer,) = yield [request]
        reply = said(answer, notes)
        text = reply.text.strip().removeprefix(f"{passage.title}\n").strip()
        fault = rewrite_fault(text, passage.text) if reply.finished else "not finished"
        if fault is None:
            share = copied(text, passage.text)
            kept.append((share, text))
            if share <= NEAR_COPY:
                return text
            fault = "nearly a copy"
        notes.rewrite_faults.append(fault)
    return min(kept)[1] if kept else None


def _pairs(passage: RawPassage, wording: dict[str, str], wanted: int, tries: int, seed: int, notes: Notes) -> Talk:
    """Up to `wanted` pairs: question and answer."""
    answers = yield from _answers(passage, wording, wanted, notes)
    found: list[dict[str, str]] = []
    known: list[dict[str, str]] = []  # that it knows without the passage: second choice
    failed: list[tuple[str, int]] = []  # answers whose question failed, and how often
    left = [(answer, 0) for answer in answers]
    for _ in range(tries):
        missing = wanted - len(found)
        if missing <= 0:
            break
        some, left = left[: missing + MORE], left[missing + MORE :]
        if room := missing + MORE - len(some):
            some, failed = some + failed[:room], failed[room:]
        if not some:
            break
        notes.tries += 1
        questions = yield from _questions(passage, wording, some, seed, notes)
        good = _stood_rules(passage, questions, [*found, *known], notes)
        checked = yield from _round_trip(passage, wording, good, notes)
        for pair, fault, knew in checked:
            if fault:
                _reject(notes, fault, pair)
            elif knew:
                known.append(pair)
            else:
                found.append(pair)
        stood = [pair["answer"] for pair in [*found, *known]]
        failed += [(answer, attempt + 1) for answer, attempt in some if not any(answer in other for other in stood)]
    pairs = found[:wanted] + known[: max(wanted - len(found), 0)]
    notes.stood, notes.known = len(found) + len(known), max(len(pairs) - len(found), 0)
    return pairs


def _answers(passage: RawPassage, wording: dict[str, str], wanted: int, notes: Notes) -> Talk:
    """What could be asked for, each once: what the model lists, as far as the passage has it, and what rules find."""
    count = min(wanted + MORE + 1, MOST_LISTED)
    request = Request(wording["answers"], {**_values(passage), "count": str(count)}, 16 * count)
    (reply,) = yield [request]
    listed = [_unmarked(line) for line in said(reply, notes).text.splitlines()]
    listed = [line for line in listed if line and _in(line, passage.text) and len(line.split()) <= 6]
    ruled = spans(passage.text)
    merged = [answer for two in _in_turn(ruled, listed) for answer in two]
    answers: list[str] = []
    subject = set(words(passage.title)) or set(words(" ".join(passage.text.split()[:SUBJECT])))
    for answer in merged:
        own = set(words(answer))
        if own <= subject:  # which a question about it names
            continue
        if not any(own <= its or its <= own for its in (set(words(other)) for other in answers)):
            answers.append(answer)
    return answers


def _questions(
    passage: RawPassage, wording: dict[str, str], answers: list[tuple[str, int]], seed: int, notes: Notes
) -> Talk:
    """A question for each answer, the likeliest; for one that has failed before, another one."""
    requests = [
        Request(
            wording["question"],
            {**_values(passage), "answer": answer, "sentence": sentence_of(passage.text, answer)},
            QUESTION_TOKENS,
            stop="\n",
            pattern=ONE_LINE,
            seed=draw(seed, answer, passage.text, attempt),
        )
        for answer, attempt in answers
    ]
    notes.asked += len(requests)
    replies = yield requests
    return [
        {"question": _unmarked(said(reply, notes).text), "answer": answer}
        for reply, (answer, _) in zip(replies, answers, strict=True)
    ]


def _stood_rules(
    passage: RawPassage, pairs: list[dict[str, str]], others: list[dict[str, str]], notes: Notes
) -> list[dict[str, str]]:
    good: list[dict[str, str]] = []
    for pair in pairs:
        fault = pair_fault(pair["question"], pair["answer"], passage.text, passage.title)
        if fault is None and same_question(pair["question"], (other["question"] for other in [*others, *good])):
            fault = "asked before"
        if fault:
            _reject(notes, fault, pair)
        else:
            good.append(pair)
    return good


def _round_trip(passage: RawPassage, wording: dict[str, str], pairs: list[dict[str, str]], notes: Notes) -> Talk:
    """Each pair with what is wrong with it, and whether the model knows it without the passage."""
    with_it = [
        Request(
            wording["check"],
            {**_values(passage), "question": pair["question"]},
            ANSWER_TOKENS,
            stop="\n",
            words_of=passage.text,
        )
        for pair in pairs
    ]
    without = [
        Request(wording["check_without"], {"question": pair["question"]}, ANSWER_TOKENS, stop="\n") for pair in pairs
    ]
    replies = (yield with_it + without) if pairs else []
    texts = [said(reply, notes).text for reply in replies]
    checked: list[tuple[dict[str, str], str | None, bool]] = []
    for pair, here, bare in zip(pairs, texts[: len(pairs)], texts[len(pairs) :], strict=True):
        given = here.strip().rstrip(".")
        if not agree(given, pair["answer"]):
            checked.append(({**pair, "given": given}, "the passage answers otherwise", False))
            continue
        fuller = {**pair, "answer": given}  # E flat, where E was asked for
        if (
            pair["answer"] in given
            and given[0].isalnum()
            and not pair_fault(pair["question"], given, passage.text, passage.title)
        ):
            pair = fuller
        checked.append((pair, None, agree(bare, pair["answer"])))
    return checked


def said(reply: Reply | Fault, notes: Notes) -> Reply:
    """A reply, noted. Raises LoraryError where there is none."""
    if isinstance(reply, Fault):
        raise LoraryError(reply.reason)
    notes.requests += 1
    notes.prompt_tokens += reply.prompt_tokens
    notes.tokens += reply.tokens
    return reply


def draw(seed: int, *what: Any) -> int | None:
    """The seed of a try: None for the first, which is the likeliest reply."""
    *_, attempt = what
    if attempt == 0:
        return None
    content = "\0".join(map(str, (seed, *what)))
    return int.from_bytes(hashlib.sha256(content.encode()).digest()[:6], "little")


def _side_by_side(*talks: Talk) -> Talk:
    """Some talks at a time: what they ask for is asked together. Returns their results."""
    results: list[Any] = [None] * len(talks)
    asking: dict[int, list[Request]] = {}

    def go_on(i: int, replies: list[Reply | Fault] | None) -> None:
        try:
            asking[i] = talks[i].send(replies)  # type: ignore[arg-type]  # None begins it
        except StopIteration as end:
            results[i] = end.value
            asking.pop(i, None)

    for i in range(len(talks)):
        go_on(i, None)
    while asking:
        order = list(asking)
        replies = yield [request for i in order for request in asking[i]]
        for i in order:
            n = len(asking[i])
            go_on(i, replies[:n])
            replies = replies[n:]
    return results


def _in_turn(one: list[str], other: list[str]) -> Iterator[list[str]]:
    for i in range(max(len(one), len(other))):
        yield [*one[i : i + 1], *other[i : i + 1]]


def _values(passage: RawPassage) -> dict[str, str]:
    return {"title": passage.title, "passage": passage.text.strip()}


def _reject(notes: Notes, fault: str, pair: dict[str, str]) -> None:
    notes.faults[fault] += 1
    if len(notes.rejected) < REJECTED_KEPT:
        notes.rejected.append({**pair, "fault": fault})


def _unmarked(line: str) -> str:
    """Without what lists and chats put around it: numbers, dashes, quotation marks, stars."""
    line = re.sub(r"^\s*(?:[-*•]|\d+[.)])\s+", "", line.strip())
    line = re.sub(r"^(?:quiz )?question:\s*", "", line, flags=re.I)
    return line.strip("*`").removeprefix('"').removesuffix('"').strip()


def _in(text: str, passage: str) -> bool:
    return " ".join(text.lower().split()) in " ".join(passage.lower().split())
