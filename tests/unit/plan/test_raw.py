"""The plan of raw text: which types and passages there are, which jobs make them, and what their names say."""

import json
import os
import shutil
from pathlib import Path

import pytest

import tiny
from lorary.core.errors import LoraryError
from lorary.plan import encode, layout, whole
from lorary.plan.config import resolve
from lorary.plan.run import LATER

HOTPOT = [
    {"question": f"Q{i}?", "answer": "a", "type": kind, "supporting_facts": [["T", 0]], "context": [["T", ["One."]]]}
    for i, kind in enumerate(["bridge", "comparison", "bridge"])
]


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    """Three documents (of 1, 2 and 1 passages), a table of 4, and questions with and without types."""
    monkeypatch.chdir(tmp_path)
    tiny.write_documents(Path("docs"), 3)
    Path("docs/Basalta_Light.txt").write_text(f"{tiny.tower(1)[1]} " * 4, encoding="utf-8")
    write_table("table.jsonl", 4)
    tiny.write_rows(Path("questions.json"), [{"question": f"Q{i}?", "answer": "a"} for i in range(5)])
    tiny.write_rows(Path("hotpot.json"), HOTPOT)


def write_table(name, count):
    rows = [
        {"id": str(i), "title": title, "text": text} for i, (title, text) in enumerate(map(tiny.tower, range(count)))
    ]
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


BASE = {
    "model_name": "m", "model_path": "m/model", "dataset": "toy", "augment_model": "aug",
    "augment_model_path": "m/augment", "passage_words": 60, "sample": -1,
}  # fmt: skip
DOCUMENTS = {"source": "documents", "documents": "docs"}
PASSAGES = {"source": "passages", "corpus": "table.jsonl"}
QUESTIONS = {"source": "questions", "corpus": "table.jsonl", "questions": "questions.json"}
SERVER = {"augment_with": "server", "augment_base_url": "http://localhost:8000/v1", "augment_model_path": None}


def make(*runs, **settings):
    return encode.make(resolve({**BASE, **settings, "runs": list(runs)}))


def types(**settings):
    """The passages of each document or question, by type."""
    return {kind.folder.kind: kind.counts for kind in make(**settings).types}


def refusal(*runs, **settings):
    with pytest.raises(LoraryError) as caught:
        make(*runs, **settings)
    return str(caught.value)


def names(made, rule="augment"):
    return sorted(made.raw[rule])


# Types and counts.


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (DOCUMENTS, {"total": [1, 2, 1]}),
        (PASSAGES, {"total": [1] * 4}),
        (QUESTIONS, {"total": [3] * 5}),
        ({**QUESTIONS, "questions": "hotpot.json"}, {"bridge": [3, 3], "comparison": [3]}),
        ({**DOCUMENTS, "questions": "questions.json"}, {"documents": [1, 2, 1], "questions": [3] * 5}),
        ({**PASSAGES, "questions": "questions.json"}, {"passages": [1] * 4, "questions": [3] * 5}),
        (
            {**DOCUMENTS, "questions": "hotpot.json", "retrieve_top_k": 2},
            {"documents": [1, 2, 1], "bridge": [2, 2], "comparison": [2]},
        ),
        ({**DOCUMENTS, "sample": 2}, {"total": [1, 2]}),
        ({**PASSAGES, "sample": 3}, {"total": [1] * 3}),
        ({**PASSAGES, "sample": 300}, {"total": [1] * 4}),
        ({**QUESTIONS, "sample": 2}, {"total": [3, 3]}),
        ({**QUESTIONS, "questions": "hotpot.json", "sample": 1}, {"bridge": [3], "comparison": [3]}),
        ({**DOCUMENTS, "questions": "questions.json", "sample": 2}, {"documents": [1, 2], "questions": [3, 3]}),
        ({**DOCUMENTS, "questions": "questions.json", "data_type": "questions"}, {"questions": [3] * 5}),
        ({**DOCUMENTS, "questions": "questions.json", "data_type": "documents"}, {"documents": [1, 2, 1]}),
        ({**QUESTIONS, "data_type": "total"}, {"total": [3] * 5}),
    ],
    ids=str,
)
def test_types_and_how_many_passages_each_has(settings, expected):
    assert types(**settings) == expected


@pytest.mark.parametrize(("settings", "asked"), [(DOCUMENTS, False), (PASSAGES, False), (QUESTIONS, True)])
def test_whether_there_are_questions_to_answer(settings, asked):
    (kind,) = make(**settings).types
    assert kind.questions is asked
    plan = whole.make({**BASE, **settings})
    assert bool(plan.predictions) is asked
    assert (layout.SCORES in plan.everything) is asked
    assert [Path(file).name for file in plan.scores if file.endswith("knowledge.tsv")] == ["knowledge.tsv"]
    assert layout.REPORT in plan.everything


def test_with_documents_and_questions_only_the_questions_are_answered():
    plan = whole.make({**BASE, **DOCUMENTS, "questions": "questions.json"})
    assert len(plan.predictions) == 4
    assert all("/questions/" in path for path in plan.predictions)


# Jobs.


def test_each_source_has_its_jobs():
    def jobs(**settings):
        return {rule: len(some) for rule, some in make(**settings).raw.items() if some}

    both = {"augment": 1, "augmented_data": 1}
    assert jobs(**DOCUMENTS) == jobs(**PASSAGES) == {"read_passages": 1, **both}
    assert jobs(**QUESTIONS) == {"index_corpus": 1, "retrieve": 1, **both}
    two = {"augment": 2, "augmented_data": 2}
    assert jobs(**DOCUMENTS, questions="questions.json") == {
        "read_passages": 1, "index_corpus": 1, "retrieve": 1, **two,
    }  # fmt: skip
    tiny.write_rows(Path("data/toy/aug/total.json"), tiny.make_rows(1))
    assert jobs(data_dir="data", augment_model_path=None, passage_words=100) == {}


def test_parts_take_each_passage_once_and_are_what_the_data_are_made_of():
    write_table("table.jsonl", 150)
    for per_job, spans in [("auto", ["0-63", "64-127", "128-149"]), (100, ["0-99", "100-149"]), (500, ["0-149"])]:
        made = make(**PASSAGES, passages_per_augment_job=per_job)
        (gather,) = made.raw["augmented_data"].values()
        assert [Path(part).stem for part in gather.inputs["parts"]] == spans
        (augment,) = made.raw["augment"].values()
        assert {os.path.dirname(part) for part in gather.inputs["parts"]} == {augment.outputs["folder"]}
        (table,) = made.tables.values()
        assert table.inputs["files"] == [gather.outputs["data"]]


def test_a_call_for_one_type_has_the_same_jobs_as_one_for_all():
    every = make(**DOCUMENTS, questions="questions.json").raw["augment"]
    (one,) = make(**DOCUMENTS, questions="questions.json", data_type="questions").raw["augment"].values()
    assert every[one.label] == one


def test_two_runs_that_share_a_job_name_the_same_store():
    runs = [{}, {"store_dir": "elsewhere", "adapter_dir": "results/b"}]
    with pytest.raises(LoraryError, match="with different store"):
        make(*runs, **DOCUMENTS)


def test_the_model_that_augments_is_fetched_once_and_takes_a_gpu_only_here():
    made = make(**DOCUMENTS, questions="questions.json")
    assert sorted(made.models) == ["aug", "m"]
    assert {job.inputs["model"] for job in made.raw["augment"].values()} == {"resources/models/aug"}
    same = make(**DOCUMENTS, augment_model_path=None, augment_model=None)
    assert sorted(same.models) == ["m"]
    served = make(**DOCUMENTS, **SERVER)
    assert sorted(served.models) == ["m"]
    (job,) = served.raw["augment"].values()
    assert (job.inputs["model"], job.params["others"]["base_url"]) == ([], "http://localhost:8000/v1")


def test_augmented_data_lie_as_in_a_data_dir():
    made = make(**DOCUMENTS, questions="questions.json")
    files = [job.outputs["data"] for job in made.raw["augmented_data"].values()]
    (folder,) = {os.path.dirname(file) for file in files}
    assert Path(folder).name == "aug"
    assert Path(folder).parent.name.startswith("toy_")
    assert sorted(map(os.path.basename, files)) == ["documents.json", "questions.json"]


# Names.


def key_and_value(settings):
    return " ".join(f"{key}={value}" for key, value in settings.items())


OTHERS = [
    {"pairs": 2}, {"augment_style": "reference"}, {"seed": 1}, {"augment_tries": 5}, {"passage_words": 30},
    {"sample": 2}, {"augment_precision": "bfloat16"}, {"augment_prompts": "mine.yaml"}, {"split_special_tokens": True},
    {"augment_model_revision": "v2"}, {"augment_model_path": "another"}, {"documents": "docs2"},
]  # fmt: skip
SAME = [
    {"passages_per_augment_job": 7}, {"passages_per_job": 9}, {"num_train_epochs": 9}, {"learning_rate": 1},
    {"max_new_tokens": 9}, {"inference_methods": []}, {"store_dir": "elsewhere"}, {"adapter_dir": "out"},
    {"lora_rank": 8}, {"max_length": 99}, {"lenient_answers": True}, {"fewshot": "none.json"},
]  # fmt: skip


@pytest.mark.parametrize("settings", OTHERS, ids=key_and_value)
def test_what_decides_is_in_the_names(settings):
    shutil.copytree("docs", "docs2")
    Path("mine.yaml").touch()
    before, after = make(**DOCUMENTS), make(**{**DOCUMENTS, **settings})
    for rule in ("augment", "augmented_data"):
        assert names(before, rule) != names(after, rule)


@pytest.mark.parametrize("settings", SAME, ids=key_and_value)
def test_what_does_not_decide_is_not(settings):
    before, after = make(**DOCUMENTS), make(**DOCUMENTS, **settings)
    for rule in before.raw:
        assert names(before, rule) == names(after, rule)


@pytest.mark.parametrize(
    "settings",
    [
        {"augment_at_once": 3}, {"augment_base_url": "http://elsewhere/v1"}, {"augment_prices": [1, 2]},
        {"augment_server_model": "aug"}, {"precision": "bfloat16"},
    ],
    ids=key_and_value,
)  # fmt: skip
def test_how_a_server_is_asked_is_not(settings):
    before, after = make(**DOCUMENTS, **SERVER), make(**DOCUMENTS, **{**SERVER, **settings})
    assert names(before) == names(after)
    assert names(make(**DOCUMENTS, **SERVER, augment_server_model="other")) != names(before)


def test_a_project_that_is_moved_keeps_its_names(tmp_path, monkeypatch):
    """The project's own wording lies in another folder then."""
    monkeypatch.setattr(layout, "AUGMENT_PROMPTS", tmp_path / "wording.yaml")
    Path("wording.yaml").touch()
    before = make(**DOCUMENTS)
    (job,) = before.raw["augment"].values()
    assert job.inputs["wording"] == "wording.yaml"
    shutil.copytree(tmp_path, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    monkeypatch.setattr(layout, "AUGMENT_PROMPTS", tmp_path / "copy/wording.yaml")
    after = make(**DOCUMENTS)
    for rule in before.raw:
        assert names(before, rule) == names(after, rule)


def test_questions_beside_documents_change_nothing_about_these():
    alone, both = make(**DOCUMENTS), make(**DOCUMENTS, questions="questions.json")
    assert names(alone, "read_passages") == names(both, "read_passages")


def test_a_data_type_leaves_the_names_of_the_others():
    every = make(**DOCUMENTS, questions="questions.json")
    for kind in ("documents", "questions"):
        one = make(**DOCUMENTS, questions="questions.json", data_type=kind)
        assert set(names(one, "augmented_data")) < set(names(every, "augmented_data"))
        assert set(names(one)) < set(names(every))
        assert one.types[0].of_data == ["documents", "questions"]


# What is brought changes.


def reading(rule, **settings):
    (job,) = make(**settings).raw[rule].values()
    return job


@pytest.mark.parametrize(
    ("rule", "settings", "file"),
    [
        ("read_passages", DOCUMENTS, "docs/Basalta_Light.txt"),
        ("read_passages", PASSAGES, "table.jsonl"),
        ("index_corpus", QUESTIONS, "table.jsonl"),
        ("retrieve", QUESTIONS, "questions.json"),
    ],
)
def test_a_file_that_takes_anothers_place_is_read_again_however_old_it_is(rule, settings, file):
    """As from an archive, which brings its files' times: to Snakemake, what is older than the output is no news."""
    before = reading(rule, **settings)
    os.utime(file, ns=(10**18, 10**18))
    after = reading(rule, **settings)
    assert before.params != after.params
    assert before.label == after.label
    assert reading(rule, **settings).params == after.params


# What is wrong.


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({**DOCUMENTS, "documents": "gone"}, "documents: there is no gone"),
        ({**PASSAGES, "corpus": "gone.tsv"}, "corpus: there is no gone.tsv"),
        ({**QUESTIONS, "questions": "gone.json"}, "questions: there is no gone.json"),
        ({**QUESTIONS, "corpus": "gone.tsv"}, "corpus: there is no gone.tsv"),
        ({**DOCUMENTS, "augment_prompts": "gone.yaml"}, "augment_prompts: there is no gone.yaml"),
        ({**DOCUMENTS, "augment_model_path": "./gone"}, "augment_model_path: there is no directory ./gone"),
        ({**DOCUMENTS, "data_type": "questions"}, "data_type: there is no questions; there is total"),
        ({**QUESTIONS, "retrieve_top_k": 5}, "retrieve_top_k: 5 passages are to be found for each question, and there"),
        (
            {**DOCUMENTS, "questions": "questions.json", "retrieve_top_k": 3, "sample": 1},
            "3 passages are to be found for each question, and there are 1",
        ),
        ({**DOCUMENTS, "questions": "hotpot.json", "data_type": "total"}, "there is documents, bridge, comparison"),
    ],
    ids=str,
)
def test_what_cannot_be_is_told_in_words(settings, words):
    assert words in refusal(**settings)


def test_a_type_of_questions_named_as_the_documents_is_refused():
    tiny.write_rows(Path("hotpot.json"), [HOTPOT[0], {**HOTPOT[1], "type": "documents"}])
    assert "hotpot.json has questions of a type documents" in refusal(**DOCUMENTS, questions="hotpot.json")
    assert types(**PASSAGES, questions="hotpot.json").keys() == {"passages", "bridge", "documents"}


def test_a_type_of_questions_named_as_all_of_them_is_refused():
    tiny.write_rows(Path("hotpot.json"), [HOTPOT[0], {**HOTPOT[1], "type": "total"}])
    assert "hotpot.json has questions of a type total" in refusal(**DOCUMENTS, questions="hotpot.json")


# Two runs.


def test_runs_that_differ_in_training_share_what_is_augmented():
    made = make({"num_train_epochs": 1}, {"num_train_epochs": 2}, **DOCUMENTS)
    assert {rule: len(jobs) for rule, jobs in made.raw.items() if jobs} == {
        "read_passages": 1, "augment": 1, "augmented_data": 1,
    }  # fmt: skip
    assert len(made.types) == 2


@pytest.mark.parametrize(
    "settings", [{"pairs": 2}, {"augment_tries": 9}, {"augment_style": "reference"}, {"passage_words": 30}], ids=str
)
def test_runs_that_would_write_other_adapters_at_one_place_are_refused(settings):
    assert f"with different {next(iter(settings))}." in refusal({}, settings, **DOCUMENTS)


def test_runs_that_would_write_the_same_are_not():
    make({}, {"passages_per_augment_job": 3}, **DOCUMENTS)
    make({}, {"augment_at_once": 3}, {"augment_prices": [1, 2]}, **DOCUMENTS, **SERVER)
    make({}, {"sample": 1}, **DOCUMENTS)


# Augmented data as before.


def test_nothing_of_raw_text_is_in_the_jobs_of_augmented_data():
    tiny.write_rows(Path("data/toy/aug/total.json"), tiny.make_rows(2))
    keys = [key for key in LATER if key not in ("chat_template_kwargs", "split_special_tokens", "lenient_answers")]
    given = {**BASE, "augment_model_path": None, "data_dir": "data", "passage_words": 100}
    plain, said = encode.make(resolve(given)), encode.make(resolve({**given, **LATER}))
    for made in (plain, said):
        assert not any(made.raw.values())
        stages = (made.models, made.tables, made.prompts, made.indexes)
        jobs = [job for stage in stages for job in stage.values()] + made.base_weights + made.batches
        assert not [key for key in keys if f'"{key}"' in json.dumps([job.params for job in jobs])]
    assert [batch.outputs for batch in plain.batches] == [batch.outputs for batch in said.batches]
    assert all("results/raw" not in str(job.inputs) for job in plain.tables.values())
    assert layout.digest(plain.batches[0].params) == layout.digest(said.batches[0].params)
