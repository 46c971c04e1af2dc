"""Routing: which of a question's passages go best with it, and what it is to answer with their adapters alone."""

import csv
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny
from lorary.adapters.digest import digest_task_adapter
from lorary.adapters.files import init_base_weight
from lorary.adapters.lora import load_adapter
from lorary.answer import generate, route
from lorary.answer.predict import NUMERICS, predict
from lorary.base import fetch
from lorary.core import work
from lorary.data import rows
from lorary.data.prompts import load_prompter
from lorary.plan.methods import METHODS, Method
from lorary.raw.index import Index, make
from lorary.raw.passages import RawPassage

FERRY, BONE, SHIP = "The river Onnet is crossed by a ferry.", "Its keys are of bone.", "A ship, or a boat."


@pytest.fixture
def table(tmp_path):
    """`table((question, [passages], ...), ...)`: of questions, each with what else its row has; a passage may be
    (title, text)."""

    def table(*questions):
        lines = []
        for did, (question, passages, *extra) in enumerate(questions):
            pairs = [("", passage) if passage is None or isinstance(passage, str) else passage for passage in passages]
            for pid, (title, text) in enumerate(pairs):
                about = {"question": extra[0] if extra else {}, "passage": {"title": title} if title else {}}
                line = {"did": did, "pid": pid, "question": question, "answers": ["a"], "extra": json.dumps(about)}
                texts = [text for _, text in pairs]
                lines.append({**line, "passages": texts, "passage": text, "rewrite": None, "pairs": [], "error": None})
        rows.save(lines, str(tmp_path / "table.parquet"))
        return str(tmp_path / "table.parquet")

    return table


def routed(table, by="bm25"):
    output = table.replace("table.parquet", "routes.tsv")
    route.route(table, by, output)
    return output


def lines_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def test_the_passage_that_goes_best_comes_first_and_the_rest_as_given(table):
    path = routed(
        table(
            ("Which ferries cross the Onnet?", [BONE, FERRY, SHIP]),
            ("What are the keys of?", [FERRY, SHIP, BONE]),
            ("Is that zzz?", [SHIP, BONE]),  # shares no word with any
            ("A ferry?", [None, SHIP, FERRY]),  # no text; the same text as above
            ("A boat?", [None, None]),
            ("What is played?", [BONE, ("What is played", BONE)]),  # only the title does
            ("A ship?", [SHIP, SHIP]),
        )
    )
    ranked = {0: [1, 0, 2], 1: [2, 0, 1], 2: [0, 1], 3: [2, 0, 1], 4: [0, 1], 5: [1, 0], 6: [0, 1]}
    assert route.read(path) == ranked
    assert [line["rank"] for line in lines_of(path)[:3]] == ["1", "2", "3"]
    assert [bool(line["score"]) for line in lines_of(path)[:3]] == [True, False, False]
    assert not any(line["right"] for line in lines_of(path))


def test_given_ranks_are_kept(table):
    path = routed(table(("Which ferry?", [BONE, FERRY]), ("What bone?", [FERRY, BONE])), by="rank")
    assert route.read(path) == {0: [0, 1], 1: [0, 1]}


def test_scores_are_those_of_a_search_among_all_passages(table, tmp_path):
    generated = [(row["question"], row["passages"]) for row in tiny.make_rows(12, passages=3)]
    path = routed(table(*generated))
    texts = [text for _, passages in generated for text in passages]
    make((RawPassage(text) for text in texts), str(tmp_path / "index"))
    index = Index(str(tmp_path / "index"))
    scores = {(int(line["did"]), int(line["pid"])): line["score"] for line in lines_of(path)}
    for did, (question, _) in enumerate(generated):
        found = dict(index.search(question, len(texts)))
        wanted = {pid: found.get(3 * did + pid, 0.0) for pid in range(3)}
        assert {pid: float(scores[did, pid] or 0) for pid in range(3)} == pytest.approx(wanted, abs=2e-4)
        assert route.read(path)[did] == sorted(wanted, key=lambda pid: -wanted[pid])


def test_what_is_right_is_known_by_golden_passages(table):
    path = routed(
        table(
            ("Which ferry?", [BONE, FERRY], {"golden_passages": ["the  RIVER Onnet is crossed by a ferry. And more."]}),
            ("Which keys?", [FERRY, BONE, SHIP], {"golden_passages": [SHIP]}),
            ("Which ship?", [FERRY, SHIP], {"golden_passages": ["of another corpus"]}),
            ("Which ship?", [FERRY, SHIP], {"golden_passages": "none"}),
            ("Which ship?", [SHIP], {"golden_passages": [SHIP]}),
        )
    )
    assert route.right(path, 1, 5) == (1, 2)
    assert route.right(path, 1, 1) == (1, 1)
    assert route.right(path, 2, 5) == (0, 1)  # two of three are active, and the ship is the last


def test_an_exported_table_has_the_best_adapter_first(table, tmp_path):
    made = table(("Which\tferry?", [BONE, FERRY]), ("Which keys?", [FERRY, BONE, SHIP]))
    files = {"total": {"table": made, "routes": routed(made)}}
    names = [f"total/data_{did}/passage_{pid}" for did, pid in ((0, 0), (0, 1), (1, 2), (1, 1))]
    route.export(files, names, "adapters/m", str(tmp_path / "export.tsv"))
    assert [list(line.values()) for line in lines_of(tmp_path / "export.tsv")] == [
        ["total", "0", "Which\tferry?", "1", "adapters/m/total/data_0/passage_1"],
        ["total", "0", "Which\tferry?", "2", "adapters/m/total/data_0/passage_0"],
        ["total", "1", "Which keys?", "1", "adapters/m/total/data_1/passage_1"],
        ["total", "1", "Which keys?", "2", "adapters/m/total/data_1/passage_2"],
    ]


class Adapters:
    """A source of adapters in folders, by (did, pid)."""

    def __init__(self, folders, task_adapter=None):
        self.folders, self.task_adapter = folders, task_adapter

    def digest(self, position):
        return str(self.folders[position])

    def load(self, position):
        return load_adapter(str(self.folders[position]))


@pytest.fixture
def answer(tmp_path, tiny_llama):
    """`answer(method, table, routed)`: the texts, and the keys in the journal. Each passage of two questions has an
    adapter that changes every answer."""
    model = tmp_path / "model"
    fetch.get_model(str(tiny_llama), None, str(model))
    folders = {}
    for i, position in enumerate((did, pid) for did in range(2) for pid in range(3)):
        folders[position] = tmp_path / f"adapter{i}"
        init_base_weight(str(model), 2, 32, tiny.TARGETS, i, None, str(folders[position]))
        file = folders[position] / "adapter_model.safetensors"
        torch.manual_seed(i)
        changed = {n: t + 0.2 * torch.randn(t.shape) if "lora_B" in n else t for n, t in load_file(file).items()}
        save_file(changed, file, metadata={"format": "pt"})

    def answer(method, table, routed=None):
        prompter = load_prompter(str(model), tiny.PROMPTS)
        output, journal = (str(tmp_path / f"{method}.{ending}") for ending in ("json", "jsonl"))
        read = rows.read(table, 0, None)
        how = {"model": str(model), "precision": "float32", "max_new_tokens": 6, "threads": 1}
        predict(output, journal, read, method, prompter, Adapters(folders, answer.task), **how, routed=routed)
        with open(output, encoding="utf-8") as file, open(journal, encoding="utf-8") as kept:
            return [line["text"] for line in json.load(file)], [json.loads(line)["key"] for line in kept]

    answer.model, answer.folders, answer.task = str(model), folders, None
    return answer


def test_a_routed_answer_is_that_of_its_adapter_alone(table, answer):
    questions = [("Which ferry?", [BONE, SHIP, FERRY]), ("What are the keys of?", [SHIP, BONE, FERRY])]
    path = table(*questions)
    best = {did: pids[:1] for did, pids in route.read(routed(path)).items()}
    assert best == {0: [2], 1: [1]}
    summed, keys = answer("prag", path)
    texts, alone = answer("prag_routed", path, best)
    assert texts != summed
    for did, (question, passages) in enumerate(questions):  # the same adapter as the only one of its question
        (pid,) = best[did]
        other = [("none?", [BONE])] * did + [(question, [passages[pid]])]
        answer.folders[did, 0], first = answer.folders[did, pid], answer.folders[did, 0]
        assert answer("prag", table(*other))[0][did] == texts[did]
        answer.folders[did, 0] = first
    # what decides an answer: for a sum as ever, and nothing else for what is routed
    about = fetch.fingerprint(answer.model)
    settings = [NUMERICS, about["weights"], about["tokenizer"], sorted(fetch.end_tokens(answer.model)), "float32", 6]
    prompter = load_prompter(answer.model, tiny.PROMPTS)
    for did, (question, _) in enumerate(questions):
        ids = prompter.prompt_ids(question, [])
        assert keys[did] == work.key(settings, (ids, [str(answer.folders[did, pid]) for pid in range(3)]))
        assert alone[did] == work.key(settings, (ids, [str(answer.folders[did, pid]) for pid in best[did]]))


def test_a_mean_and_a_mixture_are_other_answers_than_a_sum(table, answer):
    path = table(("Which ferry?", [BONE, SHIP, FERRY]), ("What are the keys of?", [SHIP, BONE, FERRY]))
    found = {method: answer(method, path) for method in ("prag", "prag_mean", "prag_mixture", "combine_mixture")}
    assert len({key for _, keys in found.values() for key in keys}) == 8
    assert len({tuple(texts) for texts, _ in found.values()}) == 4


def test_a_new_way_never_finds_the_answers_of_a_sum(table, answer, monkeypatch):
    path = table(("Which ferry?", [BONE, SHIP, FERRY]), ("What are the keys of?", [SHIP, BONE, FERRY]))
    monkeypatch.setitem(METHODS, "prag_new", Method("", "", passages=False, adapters=True, together="new"))
    monkeypatch.setattr(generate, "together", lambda adapters, way: [adapters])
    (_, summed), (_, new) = answer("prag", path), answer("prag_new", path)
    assert not {*summed} & {*new}


def test_the_task_adapter_alone_answers_as_the_only_adapter(table, answer):
    answer.folders[1, 0] = answer.folders[0, 0]
    wanted, _ = answer("prag", table(("Which ferry?", [SHIP]), ("Which?", [SHIP])))
    of_three = table(("Which ferry?", [BONE, SHIP, FERRY]), ("Which?", [SHIP]))
    bare, _ = answer("vanilla", of_three)
    asked = set()
    for folder in (answer.folders[0, 1], answer.folders[0, 0]):
        answer.task = {"path": str(folder), "sha256": digest_task_adapter(str(folder))}
        texts, keys = answer("task", of_three)
        asked.update(keys)
    assert texts == wanted
    assert texts != bare
    assert len(asked) == 4  # with another one, anew
