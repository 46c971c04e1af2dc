"""The augmentation job: a batch of passages into rewrites and pairs, through the store."""

import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import date
from typing import Any

from ..base.fetch import fingerprint
from ..core.device import limited_memory, take_device
from ..core.errors import LoraryError
from ..core.files import written_whole
from ..core.work import Done, Fault, Item, Work, finish, key
from ..data.prompts import load_chat, load_tokenizer
from ..data.templates import fill
from ..plan import layout
from ..raw import table
from ..raw.passages import RawPassage
from . import pairs, reference
from .checks import names
from .kept import Results
from .spans import sentence_of, sentences
from .talk import Talk
from .wording import load_wording

log = logging.getLogger(__name__)

# Talks that go side by side on a model here.
TALKS = {"cpu": 16, "cuda": 64}
# A model of whose questions fewer stand the checks and the round trip is too weak for this: it would fill the adapters
# with nonsense. Seen from so many questions on.
TOO_WEAK, SEEN_FROM = 0.1, 40

Converse = Callable[[Iterable[tuple[Item, Talk]]], Iterator[Done]]


def augment_passages(
    output: str, raw: str, rows: tuple[int, int], wording: str, model: str, settings: dict[str, Any], threads: int
) -> None:
    """Write what was made of the passages `rows` (from, up to) of the table `raw` to `output`, a line (JSON) a passage:
    did, pid, rewrite, pairs, made_by (model, passage or rule, of each of the two), error, and notes.

    `wording`: the YAML of what is asked; `model`: a directory, or "" for a server; `settings`: see plan/raw.py. What
    the store has is taken; each result is put there as soon as it is made. Raises LoraryError.
    """
    passages = list(table.read(raw, *rows))
    words = load_wording(wording)
    decided = decides(settings, words, model)
    items = []
    for row in passages:
        passage = row["passage"]
        place = layout.place(row["did"], row["pid"]) + (f" ({passage.title[:60]})" if passage.title else "")
        items.append(Item(key_of(passage, decided), place, passage))
    kept, failed = Results(settings["store"], settings["tries"]), dict[str, str]()

    @contextmanager
    def begin() -> Iterator[Work]:
        _refuse_weak(kept, settings)  # before it is loaded
        with _here(model, settings, threads) if model else _at_server(settings) as (converse, about):
            yield lambda some: _watched(converse, some, words, settings, about, kept)

    finish(items, kept, failed, begin, ("passage", "passages"), _describe)
    _refuse_weak(kept, settings)
    lines = []
    for row, item in zip(passages, items, strict=True):
        line = {"did": row["did"], "pid": row["pid"]}
        if item.key in failed:
            why = f"it could not be augmented: {failed[item.key]} `snakemake --forcerun augment` asks again."
            lines.append({**line, "error": why})
        else:
            lines.append({**line, **_usable(row["passage"], kept.found[item.key], words)})
    _tell(lines)
    with written_whole(output) as temporary:
        temporary.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")


def key_of(passage: RawPassage, decided: dict[str, Any]) -> str:
    """The digest that a passage's result is kept under; `decided`: see `decides`."""
    return key(decided, passage.title, passage.text)


def decides(settings: dict[str, Any], wording: dict[str, str], model: str) -> dict[str, Any]:
    """Everything but the passage that decides what is made of it. (The number of tries decides only whether what is
    incomplete is made again.)"""
    asking = reference.ASKING if settings["style"] == "reference" else pairs.ASKING
    settled = ("version", "style", "pairs", "seed", *(["chat"] if model else []))
    decided = {name: settings[name] for name in settled} | {"wording": {name: wording[name] for name in asking}}
    if model:
        about = fingerprint(model)
        return decided | {part: about[part] for part in ("weights", "tokenizer")} | {"precision": settings["precision"]}
    return decided | {"server_model": settings["server_model"]}


@contextmanager
def _here(model: str, settings: dict[str, Any], threads: int) -> Iterator[tuple[Converse, dict[str, Any]]]:
    with take_device(threads) as (device, name):
        from .local import Local

        ready = Local(model, settings["precision"], device, load_chat(model, _of_its_chat(model, settings["chat"])))
        log.info("%s on %s", model, name)
        size = TALKS.get(device.type, TALKS["cuda"])
        with limited_memory(device.type):
            yield lambda items: ready.converse(items, size), {"model": model, "device": name}


def _of_its_chat(model: str, chat: dict[str, Any]) -> dict[str, Any]:
    """Without the variables that only the base model's chat template reads."""
    if not chat.get("chat_template_kwargs"):
        return chat
    template = load_tokenizer(model).get_chat_template()
    variables = {name: value for name, value in chat["chat_template_kwargs"].items() if name in template}
    return {**chat, "chat_template_kwargs": variables}


@contextmanager
def _at_server(settings: dict[str, Any]) -> Iterator[tuple[Converse, dict[str, Any]]]:
    from .server import Server

    server = Server(settings["base_url"], settings["server_model"], settings["at_once"], prices=settings["prices"])
    yield server.converse, {"model": settings["server_model"], "device": "server"}


def _watched(
    converse: Converse,
    items: Iterable[Item],
    wording: dict[str, str],
    settings: dict[str, Any],
    about: dict[str, Any],
    kept: Results,
) -> Iterator[Done]:
    """What the talks give, with what is to be kept beside it. Raises LoraryError where the model is too weak."""
    began = time.monotonic()
    for done in converse((item, _talk(item, wording, settings, kept)) for item in items):
        seconds = (time.monotonic() - began) / max(len(done), 1)
        results: Done = []
        for item, result in done:
            if not isinstance(result, Fault) and "made" not in result:
                result = {
                    **result,
                    "complete": len(result["pairs"]) >= settings["pairs"] and result["rewritten"],
                    "tries_allowed": settings["tries"],
                    "of": {"title": item.content.title, "text": item.content.text},  # for people
                    "made": {**about, "seconds": round(seconds, 2), "date": date.today().isoformat()},
                }
            results.append((item, result))
        yield results
        began = time.monotonic()
        _refuse_weak(kept, settings)


def _refuse_weak(kept: Results, settings: dict[str, Any]) -> None:
    """Raises LoraryError where the job's results, those from the store too, show that who made them cannot do it: else
    the next call would go on, a few passages each time, until all are nonsense."""
    results = kept.found.values()
    asked, stood = (sum(result["notes"][name] for result in results) for name in ("asked", "stood"))
    without = sum(not result["pairs"] for result in results)
    few = stood < TOO_WEAK * asked and 2 * without > len(results)
    if settings["style"] != "reference" and asked >= SEEN_FROM and few:
        who = next(iter(results))["made"]["model"]
        raise LoraryError(
            f"{who} is too weak to augment: of {asked} questions that it asked, {stood} stood the checks and were"
            f" answered by the passage; most others: {_commonest(results)}. Name an able one (from about 1.5 billion"
            " parameters on) in augment_model_path with its label in augment_model, or ask a server (augment_with:"
            " server); what is finished is kept."
        )


def _commonest(results: Iterable[dict[str, Any]]) -> str:
    faults = sum((Counter(result["notes"]["faults"]) for result in results), Counter[str]())
    return ", ".join(fault for fault, _ in faults.most_common(3)) or "no question at all"


def _talk(item: Item, wording: dict[str, str], settings: dict[str, Any], kept: Results) -> Talk:
    if item.key in kept:  # another job has asked meanwhile
        return _nothing_to_say(kept.found[item.key])
    passage = item.content
    if settings["style"] == "reference":
        return reference.augment(passage, wording, settings["tries"], settings["seed"])
    return pairs.augment(passage, wording, settings["pairs"], settings["tries"], settings["seed"])


def _nothing_to_say(result: dict[str, Any]) -> Talk:
    return result
    yield


def _usable(passage: RawPassage, result: dict[str, Any], wording: dict[str, str]) -> dict[str, Any]:
    """A result with what stands in for what could not be made: a passage has a pair, and something as its rewrite."""
    by_rule = not result["pairs"]
    found = [_by_rule(passage, wording)] if by_rule else [_whole(passage, pair, wording) for pair in result["pairs"]]
    made_by = {"rewrite": "model" if result["rewritten"] else "passage", "pairs": "rule" if by_rule else "model"}
    return {**result, "pairs": found, "made_by": made_by}


def _whole(passage: RawPassage, pair: dict[str, str], wording: dict[str, str]) -> dict[str, str]:
    """With a full answer, which answer_first does not ask for."""
    full_answer = fill(
        wording["full_answer"], sentence=sentence_of(passage.text, pair["answer"]), answer=pair["answer"]
    )
    return {"full_answer": full_answer, **pair}


def _by_rule(passage: RawPassage, wording: dict[str, str]) -> dict[str, str]:
    subject = passage.title or next(iter(names("x " + passage.text)), " ".join(passage.text.split()[:6]))
    first = sentences(passage.text)[0]
    return {"question": fill(wording["rule"], subject=subject), "answer": first, "full_answer": first}


def _tell(lines: list[dict[str, Any]]) -> None:
    good = [line for line in lines if "error" not in line]
    asked, requests = (sum(line["notes"][name] for line in good) for name in ("asked", "requests"))
    log.info("%d passages: %d questions were asked, %d requests in all", len(lines), asked, requests)
    for what, number in (
        ("keep the passage itself as their rewrite", sum(line["made_by"]["rewrite"] == "passage" for line in good)),
        (
            "have one pair made by rule, since none stood the checks",
            sum(line["made_by"]["pairs"] == "rule" for line in good),
        ),
        ("could not be augmented", len(lines) - len(good)),
    ):
        if number:
            log.warning("%d of %d passages %s", number, len(lines), what)


def _describe(item: Item, result: Any) -> str:
    return f": {len(result['pairs'])} pairs"
