"""What is served is what the jobs predict, alone and many at once; and what cannot be answered is refused alone."""

import contextlib
import json
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

import tiny
from lorary.adapters.files import read_adapter
from lorary.adapters.lora import Adapter
from lorary.answer import route
from lorary.answer.ask import Opened, Setting
from lorary.answer.generate import Answerer
from lorary.answer.predict import predict
from lorary.core.errors import LoraryError
from lorary.data import prompts
from lorary.data import rows as dataset
from lorary.plan.layout import passage_name
from lorary.plan.methods import METHODS, ROUTED
from lorary.serve import library as serving
from lorary.serve.chat import Answered, Asked, Refused
from lorary.serve.library import Library, alike, methods

QUESTIONS, TOKENS = 4, 6


class Source:
    """Random adapters, by name and by position."""

    task_adapter = None

    def __init__(self, adapters):
        self.adapters, self.damaged = adapters, ""

    def digest(self, position):
        if position == self.damaged:
            raise LoraryError(f"{position} is not what was trained.")
        return str(position)

    def load(self, position):
        return self.adapters[position]


@pytest.fixture
def library(made, tmp_path, monkeypatch):
    """Over four questions of two passages each, whose `rows` it has too."""
    monkeypatch.chdir(tmp_path)
    rows = dataset.load_all([tiny.write_rows(tmp_path / "total.json", tiny.make_rows(QUESTIONS))], -1, "aug")
    _, tensors = read_adapter(made / "llama-base")
    adapters, lines = {}, []
    for row in rows:
        torch.manual_seed(len(lines))
        changed = {n: t + 0.1 * torch.randn(t.shape) if "lora_B" in n else t for n, t in tensors.items()}
        name = passage_name("total", row["did"], row["pid"])
        adapters[row["did"], row["pid"]] = adapters[name] = Adapter(changed, 2, 16.0)
        lines.append({"name": name, "type": "total", "passage": row["passage"], "title": ""})
    prompter = prompts.load_prompter(str(made / "llama"), tiny.PROMPTS)
    setting = Setting(str(made / "llama"), "float32", 32, prompter, Source(adapters))
    ready = Answerer(setting.model, "float32", torch.device("cpu"), list(tensors))
    with contextlib.closing(Opened(Path("run"), {}, pd.DataFrame(lines))) as opened:
        library = Library(opened, setting, ready, top=3)
        library.rows = rows
        yield library


def asked(question, method="prag", passages=()):
    return Asked(question, method, TOKENS, list(passages), False, False)


def predicted(library, method):
    """The texts that a prediction job writes."""
    setting = library.setting
    dataset.save(library.rows, "table.parquet")
    route.route("table.parquet", "bm25", "routes.tsv")
    best = {did: pids[:1] for did, pids in route.read("routes.tsv").items()}
    routed = best if METHODS[method].together == ROUTED else None
    about = setting.model, setting.precision, TOKENS, 1, routed
    predict("out.json", f"{method}.jsonl", library.rows, method, setting.prompter, setting.source, *about)
    return [answer["text"] for answer in json.loads(Path("out.json").read_text(encoding="utf-8"))]


def test_served_texts_are_those_of_the_jobs_in_any_company(library):
    """In one batch of all questions and methods that may go together; and each alone."""
    served = list(methods(library.setting))
    assert served == [name for name in METHODS if name != "task"]
    questions = {row["did"]: row["question"] for row in library.rows}
    batches = {}
    for method in served:
        for (did, question), text in zip(questions.items(), predicted(library, method), strict=True):
            one = asked(question, method, [f"total/data_{did}"])
            batches.setdefault(alike(one), []).append((one, text))
    assert sorted(map(len, batches.values())) == [2 * QUESTIONS, 8 * QUESTIONS]
    texts = set()
    for batch in batches.values():
        replies = library.answer([one for one, _ in batch])
        assert [reply.text for reply in replies] == [text for _, text in batch]
        assert replies[0].together == len(batch)
        for one, text in batch:
            (reply,) = library.answer([one])
            assert (reply.text, reply.together) == (text, 1)
            texts.add(text)
    assert len(texts) > 3 * QUESTIONS  # methods do make a difference


def test_passages_are_found_and_named_in_the_reply(library):
    row = library.rows[3]
    (prag, icl, vanilla, routed) = library.answer(
        [asked(row["passage"], method) for method in ("prag", "icl", "vanilla", "prag_routed")]
    )
    assert prag.found[0].name == "total/data_1/passage_1"
    assert 1 < len(prag.found) <= 3
    assert prag.active == prag.found == icl.found == routed.found
    assert routed.active == prag.found[:1]
    assert (vanilla.found, vanilla.active, icl.active) == ([], [], [])
    assert icl.prompt_tokens > prag.prompt_tokens == vanilla.prompt_tokens


def test_what_cannot_be_answered_is_refused_alone(library, monkeypatch):
    library.setting.source.damaged = "total/data_1/passage_0"
    turn = library.setting.prompter.turn

    def no_section(user):
        if "§" in user:
            raise ValueError("§ is not allowed")
        return turn(user)

    def at_most(ids, ready, length):  # as a model of transformers has
        if length > 900:
            raise LoraryError(f"{length} tokens are beyond the positions of the model")

    monkeypatch.setattr(library.setting.prompter, "turn", no_section)
    monkeypatch.setattr(serving, "check_ids", at_most)
    monkeypatch.setattr(serving, "MOST_PASSAGES", 3)
    question = library.rows[0]["question"]
    some = [
        asked("qqq zzz?"),
        asked(question, passages=["total/data_9"]),
        asked(question, passages=["total"]),
        asked(question, passages=["total/data_0", "total/data_2"]),
        asked(question, passages=["total/data_1"]),
        asked(1000 * "amber "),
        asked("amber §"),
        asked(question, passages=["total/data_0"]),
        asked("qqq zzz?", "vanilla"),
        asked(question, "icl", passages=["total/data_1"]),
    ]
    replies = library.answer(some)
    refused = [(reply.status, reply.code, reply.param) for reply in replies[:7]]
    assert refused == [
        (400, "no_passage", "messages"),
        (400, None, "lorary.passages"),
        (400, None, "lorary.passages"),
        (400, None, "lorary.passages"),
        (500, None, None),
        (400, "context_length_exceeded", "messages"),
        (400, None, "messages"),
    ]
    assert "has no total/data_9" in str(replies[1])
    assert "these are 4, and 3 are the most" in str(replies[3])
    assert "is not what was trained" in str(replies[4])
    assert "§ is not allowed" in str(replies[6])
    assert [type(reply) for reply in replies[7:]] == [Answered] * 3
    assert [reply.together for reply in replies[7:]] == [3] * 3


def test_what_does_not_fit_into_memory_together_is_answered_by_halves(library, monkeypatch):
    generate, sizes = library.ready.generate_mixed, []

    def little_memory(prompts, *others):
        sizes.append(len(prompts))
        if len(prompts) > 2 or any("Ā" in library.setting.prompter.tokenizer.decode(ids) for ids in prompts):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return generate(prompts, *others)

    monkeypatch.setattr(library.ready, "generate_mixed", little_memory)
    some = [asked(question, "vanilla") for question in ("one", "two", "three", "Ā")]
    *good, bad = library.answer(some)
    assert sizes == [4, 2, 2, 1, 1]
    assert [reply.together for reply in good] == [2, 2, 1]
    assert isinstance(bad, Refused)
    assert (bad.status, "does not fit into memory" in str(bad)) == (500, True)


def test_answers_that_nobody_wants_end_early(library):
    question, left = asked("Who?", "vanilla"), [True, True, False]
    (whole,), (cut,) = library.answer([question]), library.answer([question], lambda: left.pop(0))
    assert (whole.tokens, cut.tokens) == (TOKENS, 3)


def test_the_task_adapter_alone_is_served_where_there_is_one():
    assert "task" in methods(SimpleNamespace(source=SimpleNamespace(task_adapter={"path": "a"})))
