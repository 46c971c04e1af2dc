"""What is known beyond what was trained on: figures are those of a plain loop, and a stop loses nothing."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import tiny
from lorary.adapters.digest import digest_task_adapter
from lorary.adapters.files import init_base_weight
from lorary.adapters.lora import load_adapter
from lorary.answer import heldout, knowledge, learnt
from lorary.answer.score import cut, first_line, holds, score
from lorary.answer.source import Trained
from lorary.base import decoder, fetch
from lorary.core.errors import LoraryError
from lorary.core.files import sha256
from lorary.data import prompts
from lorary.data import rows as dataset

POSITIONS = [(0, 0), (0, 1), (1, 0), (1, 1)]
WRITTEN = [
    {"did": 0, "pid": 1, "kind": "paraphrase", "question": "Which stone ", "answer": ["flint", "a grey flint"]},
    {"did": 1, "pid": 0, "kind": "untrained", "question": "Which metal?", "answer": "iron\tand copper", "type": "toy"},
    {"did": 1, "pid": 0, "kind": "untrained", "question": "Which tree?", "answer": "jasper", "type": "another"},
]
GENERAL = [{"question": "What is ice?", "answer": ["water", "frozen water"]}, {"question": "Who?", "answer": "amber"}]


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A folder with a base model and an adapter for each position, its data, and files of questions."""
    folder = tmp_path_factory.mktemp("heldout")
    source = tiny.make_model(folder / "source", initializer_range=0.3, tie_word_embeddings=True)
    fetch.get_model(str(source), None, str(folder / "model"))
    for i, (did, pid) in enumerate(POSITIONS):
        init_base_weight(str(folder / "model"), 2, 32, tiny.TARGETS, i, None, str(folder / f"{did}{pid}"))
        file = folder / f"{did}{pid}/adapter_model.safetensors"
        torch.manual_seed(i)
        changed = {n: t + 0.05 * torch.randn(t.shape) if "lora_B" in n else t for n, t in load_file(file).items()}
        save_file(changed, file, metadata={"format": "pt"})
    for name, content in (("written", WRITTEN), ("general", GENERAL)):
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    tiny.write_rows(folder / "total.json", tiny.make_rows(2))
    return folder


def source_of(here):
    load = {"load": lambda p: load_adapter(str(here / f"{p[0]}{p[1]}")), "task_adapter": None}
    return SimpleNamespace(digest=lambda p: f"of {p}", **load)


def ask(here, folder, **settings):
    """heldout.tsv of a job that asks everything, and what it was asked with."""
    rows = dataset.load_all([here / "total.json"], -1, "aug")
    how = {
        "output": str(folder / "0-3.00000000.tsv"),
        "finished": str(folder / "0.jsonl"),
        "kind": "toy",
        "rows": rows,
        "others": [[1, 0], [1, 1], [0, 0], None],
        "heldout_pairs": 1,
        "written": str(here / "written.json"),
        "general": (str(here / "general.json"), [[[0, 0], [0, 1]], [[1, 0], [1, 1]]]),
        "prompter": prompts.load_prompter(str(here / "model"), tiny.PROMPTS),
        "source": source_of(here),
        "model": str(here / "model"),
        "precision": "float32",
        "max_new_tokens": 32,
        "threads": 1,
    }
    heldout.test_heldout(**{**how, **settings})
    return heldout.read(how["output"]), rows, how["prompter"]


@pytest.fixture(scope="module")
def asked(here, tmp_path_factory):
    return ask(here, tmp_path_factory.mktemp("asked"))


def test_everything_is_asked_once_and_nothing_else(asked):
    table, rows, _ = asked
    assert list(table) == heldout.COLUMNS
    lines = table[["did", "pid", "kind", "question", "answer"]].to_numpy().tolist()
    kept = [[r["did"], r["pid"], "kept", r["pairs"][2]["question"], r["pairs"][2]["answer"]] for r in rows]
    assert lines == [
        kept[0],
        [0, 1, "paraphrase", "Which stone", "flint | a grey flint"],
        kept[1],
        [1, 0, "untrained", "Which metal?", "iron and copper"],
        kept[2],
        kept[3],
        [0, 0, "general", "What is ice?", "water | frozen water"],
        [0, 1, "general", "What is ice?", "water | frozen water"],
        [1, 0, "general", "Who?", "amber"],
        [1, 1, "general", "Who?", "amber"],
    ]
    assert table.other.fillna("-").tolist() == [
        *[f"toy/data_{d}/passage_{p}" for d, p in ((1, 0), (1, 1), (1, 1), (0, 0), (0, 0))],
        *"-----",
    ]
    assert (table.type == "toy").all()


def test_figures_are_those_of_a_plain_loop(asked, here):
    """In float64, by transformers and PEFT, one question after the other."""
    table, _, prompter = asked
    texts = {"iron and copper": "iron\tand copper"}
    other = {f"toy/data_{d}/passage_{p}": (d, p) for d, p in POSITIONS}
    for line in table.to_dict("records"):
        answers = [texts.get(text, text) for text in line["answer"].split(" | ")]
        ids, begin = prompter.answer_ids(line["question"], answers[0])
        adapters = {"bare": None, "own": (line["did"], line["pid"]), "other": other.get(line["other"])}
        for which, position in adapters.items():
            if which == "other" and position is None:
                assert math.isnan(line["nll_other"])
                continue
            theirs = AutoModelForCausalLM.from_pretrained(here / "model", dtype=torch.float64)
            if position:
                theirs = PeftModel.from_pretrained(theirs, here / f"{position[0]}{position[1]}").double()
            logits = theirs(input_ids=torch.tensor([ids])).logits[0, begin - 1 : -1].detach()
            each = [-torch.log_softmax(at, -1)[i].item() for at, i in zip(logits, ids[begin:], strict=True)]
            assert line[f"nll_{which}"] == pytest.approx(np.mean(each), abs=2e-4)
            assert line[f"exact_{which}"] == (logits.argmax(-1).tolist() == ids[begin:])
            if which == "other":
                continue
            prompt = torch.tensor([ids[:begin]])
            mask, settings = torch.ones_like(prompt), {"do_sample": False, "max_new_tokens": 32, "pad_token_id": 0}
            given = theirs.generate(input_ids=prompt, attention_mask=mask, **settings)
            text = prompter.tokenizer.decode(given[0, begin:], skip_special_tokens=True)
            assert line[f"answer_{which}"] == " ".join(first_line(text, False).split())
            assert line[f"hit_{which}"] == holds(first_line(text, False), answers)
            assert line[f"f1_{which}"] == pytest.approx(score(cut(text, False), answers)["f1"], abs=1e-4)


def test_what_is_finished_is_not_asked_again(asked, here, tmp_path, monkeypatch):
    first, *_ = ask(here, tmp_path)
    pd.testing.assert_frame_equal(first, asked[0])
    journal = (tmp_path / "0.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(journal) == 8 + 10 + 5  # bare once a general question, own, other
    (tmp_path / "0.jsonl").write_text("\n".join(journal[:7]) + "\n", encoding="utf-8")
    measured = []
    measure = heldout._measure
    monkeypatch.setattr(heldout, "_measure", lambda *a: measured.extend(a[-1]) or measure(*a))
    again, *_ = ask(here, tmp_path)
    pd.testing.assert_frame_equal(again, first)
    assert len(measured) == len(journal) - 7

    measured.clear()  # another adapter of a passage: its kept pair, its paraphrase and its general question
    other = source_of(here)
    other.digest = lambda p: f"of {p}" + (" anew" if p == (0, 1) else "")
    ask(here, tmp_path, source=other)
    assert [item.content["adapter"] for item in measured] == [(0, 1)] * 3

    def refuse(*_):
        raise AssertionError("no model is needed")

    monkeypatch.setattr(heldout, "answerer", refuse)
    (tmp_path / "aliases.json").write_text(json.dumps([{**WRITTEN[0], "answer": ["flint", "x"]}]), encoding="utf-8")
    ask(here, tmp_path, written=str(tmp_path / "aliases.json"), general=None, source=other)


def test_a_right_answer_counts_wherever_it_is_in_the_sentence(here, tmp_path, monkeypatch):
    said = "The Eiffel Tower is in Paris, of amber. That is all.\nflint"
    heard = []

    def measure(ready, source, prompter, max_new_tokens, items):
        heard.extend(items)
        return [[1.0, 0, said if item.content["answer"] else None] for item in items]

    monkeypatch.setattr(heldout, "_measure", measure)
    table, *_ = ask(here, tmp_path, heldout_pairs=0)
    assert table[table.answer == "amber"].hit_bare.tolist() == [1, 1]
    assert table[table.kind == "paraphrase"].hit_own.tolist() == [0]  # which is on another line
    assert table[table.answer == "amber"].f1_bare.tolist() == [0, 0]
    assert table.answer_bare.unique().tolist() == [said.partition("\n")[0]]
    asked = [item.content["sequence"] for item in heard if item.content["adapter"] is None]
    assert len(asked) == 2 + 2  # each question once, whosever adapters it is asked with too


def test_a_task_adapter_lies_under_the_adapters_and_not_under_the_bare_model(asked, here, tmp_path):
    """And decides, with each adapter, what is asked again."""
    lines = {}
    for did, pid in POSITIONS:
        files = {"sha256": "adapter_model.safetensors", "config_sha256": "adapter_config.json"}
        digests = {key: sha256(here / f"{did}{pid}" / name) for key, name in files.items()}
        lines[did, pid] = {"path": str(here / f"{did}{pid}"), **digests}
    sources = [Trained(lines)]
    for other in ("11", "01"):
        task = {"path": str(here / other), "sha256": digest_task_adapter(str(here / other))}
        sources.append(Trained(lines, task))
    tables, keys = [], []
    for source in sources:
        tables.append(ask(here, tmp_path, source=source)[0])
        journal = (tmp_path / "0.jsonl").read_text(encoding="utf-8").splitlines()
        keys.append({json.loads(line)["key"] for line in journal})
    pd.testing.assert_frame_equal(tables[0], asked[0])
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert len(keys[i] & keys[j]) == 8  # those of the bare model
    for table in tables[1:]:
        assert (table.nll_bare == tables[0].nll_bare).all()
        assert (table.nll_own != tables[0].nll_own).all()
        there = table.other.notna()
        assert (table.nll_other != tables[0].nll_other)[there].all()
    assert (tables[1].nll_own != tables[2].nll_own).all()


def test_a_question_that_cannot_be_asked_is_named(here, tmp_path):
    prompter = prompts.load_prompter(str(here / "model"), tiny.PROMPTS)
    refusal = "{% if 'stone' in messages[0]['content'] %}{{ raise_exception('no stones') }}{% endif %}"
    prompter.tokenizer.chat_template = refusal + tiny.CHATML
    fault = r"data_0/passage_1, paraphrase question Which stone : it cannot be asked: .*no stones"
    with pytest.raises(LoraryError, match=fault):
        ask(here, tmp_path, prompter=prompter)


def test_what_is_beyond_the_model_is_named_before_a_gpu_fails(here, tmp_path, monkeypatch):
    """Of what was held out with the answer that is to come, and of the trained pairs."""
    lengths = []
    monkeypatch.setattr(decoder, "beyond", lambda _, __, length: lengths.append(length) or "it is beyond")
    with pytest.raises(LoraryError, match=r"data_0/passage_1, paraphrase question Which stone : it is beyond"):
        ask(here, tmp_path, max_new_tokens=200)
    assert max(lengths) > 200 > min(lengths)  # of another passage's adapter only the likelihood is asked for
    with pytest.raises(LoraryError, match=r"data_1/passage_1: it is beyond"):
        knowledge.test_passages(
            output=str(tmp_path / "0-3.00000000.tsv"),
            finished=str(tmp_path / "passages.jsonl"),
            kind="toy",
            rows=dataset.load_all([here / "total.json"], -1, "aug"),
            others=[None] * 4,
            prompter=prompts.load_prompter(str(here / "model"), tiny.PROMPTS),
            source=source_of(here),
            model=str(here / "model"),
            precision="float32",
            threads=1,
        )


def test_what_is_not_asked_any_more_is_withdrawn_and_what_other_calls_asked_stays(tmp_path):
    """A type whose adapters have been trained again, now on what was kept out of them, and nothing is asked of it."""
    table, summary = (str(tmp_path / f"{name}.tsv") for name in ("heldout", "heldout_summary"))
    parts = tmp_path / ".lorary/types"

    def gather(**jobs):
        types = {kind: {"jobs": files, "part": str(parts / f"{kind}.heldout")} for kind, files in jobs.items()}
        heldout.gather(types, str(tmp_path / "adapters"), table, summary)
        return heldout.read(table)["type"].tolist()

    jobs = {}
    for kind in ("a", "b", "c"):
        (tmp_path / "adapters" / kind).mkdir(parents=True)
        line = {"type": kind, "did": 0, "pid": 0, "kind": "kept", "question": "q", "f1_bare": 0, "f1_own": 1}
        jobs[kind] = [str(tmp_path / f"{kind}.tsv")]
        pd.DataFrame([line]).reindex(columns=heldout.COLUMNS).to_csv(jobs[kind][0], sep="\t", index=False)
    assert gather(a=jobs["a"], b=jobs["b"]) == ["a", "b"]
    assert gather(c=jobs["c"]) == ["a", "b", "c"]
    assert gather(a=[], c=jobs["c"]) == ["b", "c"]
    assert gather(b=[]) == ["c"]
    assert gather(c=[]) == []
    assert (tmp_path / "heldout.tsv").read_text(encoding="utf-8").rstrip("\n").split("\t") == heldout.COLUMNS
    assert list(parts.iterdir()) == []
    assert (tmp_path / "heldout_summary.tsv").read_text(encoding="utf-8") == "\t".join(heldout.SUMMARY) + "\n"


def test_what_is_gathered_is_what_the_jobs_wrote(tmp_path):
    """To the letter: a passage that is a number stays as it is written."""
    (tmp_path / "adapters/a").mkdir(parents=True)
    line = {
        **dict.fromkeys(knowledge.COLUMNS, ""),
        "type": "a",
        "did": 0,
        "pid": 0,
        "question": "1.50",
        "passage": "007",
    }
    learnt.write(str(tmp_path / "0-0.00000000.tsv"), knowledge.COLUMNS, [line])
    kind = {"jobs": [str(tmp_path / "0-0.00000000.tsv")], "part": str(tmp_path / ".lorary/types/a.tsv")}
    knowledge.gather({"a": kind}, str(tmp_path / "adapters"), str(tmp_path / "knowledge.tsv"))
    for file in (kind["part"], str(tmp_path / "knowledge.tsv")):
        with open(file, "rb") as gathered, open(kind["jobs"][0], "rb") as job:
            assert gathered.read() == job.read()


def lines(kind, values, questions=1):
    """Of a heldout table: (bare, own) F1 of each question of each passage."""
    return [
        {"type": "t", "did": did, "pid": 0, "kind": kind, "question": f"q{did}.{i}", "f1_bare": bare, "f1_own": own}
        for did, (bare, own) in enumerate(values)
        for i in range(questions)
    ]


def test_the_summary_has_means_and_intervals_over_passages():
    rng = np.random.default_rng(0)
    values = [(0.0, float(own)) for own in rng.random(100) < 0.6]
    table = pd.DataFrame(lines("paraphrase", values, 3) + lines("general", [(0.5, 0.25)] * 4))
    table = table.reindex(columns=heldout.COLUMNS)
    table[["type", "kind", "question"]] = table[["type", "kind", "question"]].astype(str)
    summary = heldout.summarize(table).set_index("kind")
    assert summary.index.tolist() == ["paraphrase", "general"]
    assert summary.loc["paraphrase", ["questions", "passages"]].tolist() == [300, 100]
    assert summary.loc["general", ["f1_gain", "f1_gain_low", "f1_gain_high"]].tolist() == [-0.25] * 3
    share = np.mean([own for _, own in values])
    half = 1.96 * math.sqrt(share * (1 - share) / 100)  # not of 300: those of one passage stand and fall together
    found = summary.loc["paraphrase", ["f1_own", "f1_own_low", "f1_own_high"]].tolist()
    assert found == pytest.approx([share, share - half, share + half], abs=0.02)
    assert summary["nll_other"].isna().all()
    assert ["kind", *summary] == heldout.SUMMARY
