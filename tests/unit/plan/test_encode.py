"""The plan: the adapter tree, the batches of passages, and what several runs share or may not share."""

import json
import os
from pathlib import Path

import pytest

import tiny
from lorary.core.errors import LoraryError
from lorary.data import heldout
from lorary.data.keep import read_questions, refuse_asked
from lorary.plan import encode, keep, layout, model, part, training
from lorary.plan.config import load_schema, resolve
from lorary.plan.run import LATER


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    """A folder with data of two types, each of 2 questions of 2 passages, for the projector of one."""
    monkeypatch.chdir(tmp_path)
    tiny.write_rows(Path("data/toy/aug/total.json"), [{"question": "q", "type": "b"}])
    tiny.write_rows(Path("data/toy/aug/b.json"), tiny.make_rows(2))
    tiny.write_rows(Path("data/toy/aug/c.json"), tiny.make_rows(2))
    tiny.write_rows(Path("data_projector/toy/aug/total.json"), tiny.make_rows(1, passages=3))
    tiny.write_rows(Path("fewshot.json"), [{"question": "q", "answer": "a"}])
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        tiny.write_rows(Path("start", name), [])
    os.mkdir("other-model")
    for name in ("task", "other-task"):
        tiny.write_rows(Path(name, "adapter_config.json"), {"r": 4, "lora_alpha": 8})
        tiny.write_rows(Path(name, "adapter_model.safetensors"), [])


def make(**settings):
    settings = {"data_dir": "data", "dataset": "toy", "augment_model": "aug", "data_type": "b", **settings}
    return encode.make(resolve(settings))


def write_counts(counts, name="many"):
    """A dataset of questions with so many passages each."""
    (row,) = tiny.make_rows(1, passages=1)
    rows = [{**row, "augment": row["augment"] * n, "passages": row["passages"] * n} for n in counts]
    tiny.write_rows(Path(f"data/{name}/aug/total.json"), rows)
    return {"dataset": name, "data_type": None}


def adapters(made):
    return [adapter for batch in made.batches for adapter in batch.outputs["adapters"]]


def refusal(*runs, **settings):
    with pytest.raises(LoraryError) as caught:
        make(runs=list(runs), **settings)
    return str(caught.value)


def test_the_adapter_tree_is_that_of_prag_to_the_letter():
    made = make(model_name="m", num_train_epochs=1, learning_rate=3e-4, adapter_dir="out/")
    folder = "out/m/rank=2_alpha=32/toy/lr=0.0003_epoch=1_direct/aug_model=aug/b"
    assert adapters(made) == [f"{folder}/data_{did}/passage_{pid}" for did in (0, 1) for pid in (0, 1)]
    (base_weight,) = made.base_weights
    assert {layout.folder_of(file) for file in base_weight.outputs.values()} == {"out/m/rank=2_alpha=32/base_weight"}


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"with_cot": True, "fewshot": "fewshot.json"}, "/lr=0.0015_epoch=3_cot/aug_model=aug/b/"),
        ({"projector": True, "data_type": None}, "/lr=0.0015_epoch=3_direct/aug_model=aug_projector/total/"),
        ({"learning_rate": 1e-5, "num_train_epochs": 3}, "/lr=1e-05_epoch=3_direct/"),
        ({"learning_rate": "3e-4"}, "/lr=0.0003_"),
        ({"learning_rate": 0.0001}, "/lr=0.0001_"),
        ({"learning_rate": 1}, "/lr=1.0_"),
        ({"lora_rank": 8, "lora_alpha": 16}, "/rank=8_alpha=16/toy/"),
        ({"data_type": "c"}, "/c/data_0/passage_0"),
        ({"objective": "answers"}, "/lr=0.0015_epoch=3_direct_objective=answers/"),
        ({"objective": "mixed", "contexts": "both"}, "/lr=0.0015_epoch=3_direct_objective=mixed_contexts=both/"),
        ({"contexts": "none"}, "/lr=0.0015_epoch=3_direct_contexts=none/"),
        ({"objective": "distill"}, "/lr=0.0015_epoch=3_direct_objective=distill/"),
        (
            {"objective": "distill", "distill_temperature": 2},
            "/lr=0.0015_epoch=3_direct_objective=distill_distill_temperature=2.0/",
        ),
        ({"objective": "reference", "contexts": "both"}, "/lr=0.0015_epoch=3_direct/"),
        ({"data_type": "total"}, "/total/data_0/passage_0"),
    ],
)
def test_settings_in_paths(settings, part):
    if settings.get("data_type") == "total":
        tiny.write_rows(Path("data/toy/aug/total.json"), [{**tiny.make_rows(1)[0], "type": "b"}])
    assert part in adapters(make(**settings))[0] + "/"


def test_every_type_is_solved_without_a_data_type():
    made = make(data_type=None)
    assert {Path(adapter).parts[-3] for adapter in adapters(made)} == {"b", "c"}
    assert len(adapters(made)) == 8
    assert len(made.indexes) == 1  # one above the types


def test_a_type_is_a_folder_name_too():
    """Snakemake would take braces for a wildcard."""
    tiny.write_rows(Path("data/toy/aug/a{b}.json"), tiny.make_rows(1))
    with pytest.raises(LoraryError, match=r"a\{b\}\.json"):
        make(data_type=None)


def test_projector_reads_the_other_folder():
    made = make(projector=True, data_type=None)
    (table,) = made.tables.values()
    assert table.inputs["files"] == ["data_projector/toy/aug/total.json"]
    assert len(adapters(made)) == 3
    with pytest.raises(LoraryError, match="elsewhere/toy/aug: no such data folder"):
        make(projector=True, projector_data_dir="elsewhere")


@pytest.mark.parametrize(
    ("passages", "per_job", "sizes"),
    [
        (1, "auto", [1]),
        (100, "auto", [1] * 100),
        (101, "auto", [2] * 50 + [1]),
        (1000, "auto", [10] * 100),
        (10_000, "auto", [64] * 156 + [16]),
        (10, 3, [3, 3, 3, 1]),
        (10, 500, [10]),
        (300, 200, [200, 100]),
    ],
)
def test_passages_per_job(passages, per_job, sizes):
    made = make(
        **write_counts([passages - passages // 2, passages // 2] if passages > 1 else [1]), passages_per_job=per_job
    )
    assert [len(batch.outputs["adapters"]) for batch in made.batches] == sizes


def test_in_packs_a_job_has_one_file_and_its_adapters_are_in_it():
    made, former = make(pack=True, passages_per_job=4), make(passages_per_job=4)
    first, before = made.batches[0], former.batches[0]
    assert first.outputs["record"] != before.outputs["record"]  # so that a call without packs makes directories
    pack = f"{made.types[0].folder.path}/packed/{Path(first.outputs['record']).stem}.safetensors"
    assert first.declared == [first.outputs["pack"]] == [pack]
    assert first.outputs["adapters"][3] == f"{pack}/data_1/passage_1"
    assert list(map(layout.position_of, first.outputs["adapters"])) == [
        layout.position_of(adapter) for adapter in before.declared
    ]
    assert first.params == {**before.params, "adapters": first.outputs["adapters"]}
    assert "with different pack. " in refusal({}, {"pack": True})


def test_in_packs_auto_makes_few_files():
    made = make(**write_counts([500, 100]), pack=True)
    assert [len(batch.outputs["adapters"]) for batch in made.batches] == [256, 256, 88]


def test_auto_counts_the_passages_of_all_types_of_a_run():
    for kind in "bc":
        tiny.write_rows(Path(f"data/toy/aug/{kind}.json"), tiny.make_rows(75, pairs=1))
    assert {len(batch.outputs["adapters"]) for batch in make(data_type=None).batches} == {3}


@pytest.mark.parametrize("per_job", [1, 7, 64, 100, 150])
def test_batches_take_each_passage_once_in_order_and_their_prompt_file_holds_them(per_job):
    counts = [3, 100, 1, 60, 7]
    made = make(**write_counts(counts), passages_per_job=per_job)
    expected = [f"data_{did}/passage_{pid}" for did, count in enumerate(counts) for pid in range(count)]
    assert ["/".join(Path(adapter).parts[-2:]) for adapter in adapters(made)] == expected
    assert len({(batch.rule, batch.outputs["record"]) for batch in made.batches}) == len(made.batches)
    files = {}
    start = 0
    for batch in made.batches:
        folder, _, name = batch.inputs["prompts"].removesuffix(".parquet").rpartition("/")
        assert folder in [job.outputs["folder"] for job in made.prompts.values()]
        first, last = map(int, name.split("-"))
        stop = start + len(batch.outputs["adapters"])
        assert first <= start < stop <= last + 1 <= len(expected)
        files[first] = last
        start = stop
    starts = sorted(files)
    assert starts == [0, *(files[first] + 1 for first in starts[:-1])]  # and the files hold each passage once
    assert all(files[first] - first + 1 >= part.PASSAGES_PER_FILE for first in starts[:-1])


def test_runs_that_differ_in_the_training_share_all_before_it():
    made = make(runs=[{"num_train_epochs": 1}, {"num_train_epochs": 2}, {"num_train_epochs": 3}])
    assert [len(x) for x in (made.models, made.tables, made.prompts, made.base_weights, made.indexes)] == [
        1,
        1,
        1,
        1,
        3,
    ]
    assert len(set(adapters(made))) == len(adapters(made)) == 12
    assert len({batch.rule for batch in made.batches}) == len(made.batches)
    assert len({batch.inputs["prompts"] for batch in made.batches}) == 1


def test_what_prompt_ids_depend_on_separates_them():
    made = make(
        runs=[
            {"adapter_dir": str(i), **run} for i, run in enumerate([{}, {"max_length": 9}, {"chat_date": "1 Jan 2025"}])
        ]
    )
    assert len(made.prompts) == len({batch.inputs["prompts"] for batch in made.batches}) == 3


def test_what_came_later_changes_nothing_where_it_is_not_set():
    """Neither names, which Snakemake would make anew, nor params, for which it would run again."""
    settings = {"data_type": "b", "prompt_templates": "t.yaml", "model_name": "m"}
    Path("t.yaml").touch()
    for later in ({}, LATER):
        made = make(**settings, **later)
        assert list(made.prompts) == ["m_toy_b_direct_adefe5f7"]
        assert list(made.tables) == ["toy_b_fe21f8f0"]
        (run,) = made.indexes.values()
        for job in (*made.prompts.values(), *made.tables.values(), run):
            assert not [key for key in LATER if key in json.dumps(job.params)]
    assert {key: load_schema()["properties"][key]["default"] for key in LATER} == LATER


@pytest.mark.parametrize(
    ("key", "value"),
    [("chat_template_kwargs", {"enable_thinking": False}), ("split_special_tokens", True), ("heldout_pairs", 2)],
)
def test_what_came_later_is_said_and_told_apart_where_it_is_set(key, value):
    made = make(runs=[{"adapter_dir": "a"}, {"adapter_dir": "b", key: value}])
    first, second = made.prompts.values()
    assert first.label != second.label
    assert second.params == {**first.params, key: value}
    assert [key in job.params["runs"][0] for job in made.indexes.values()] == [False, True]
    assert f"with different {key}. " in refusal({}, {key: value})


def test_the_precision_in_which_adapters_are_kept_decides_them():
    plain, rounded = (make(adapter_precision=precision).batches[0] for precision in ("float32", "bfloat16"))
    assert plain.params == make().batches[0].params
    assert rounded.params["settings"] == {**plain.params["settings"], "adapter_precision": "bfloat16"}
    assert rounded.outputs["adapters"] == plain.outputs["adapters"]
    assert rounded.outputs["record"] != plain.outputs["record"] == make().batches[0].outputs["record"]
    assert "with different adapter_precision. " in refusal({}, {"adapter_precision": "bfloat16"})


def test_where_all_pairs_would_be_kept_out_it_is_told_before_anything_runs():
    rows = tiny.make_rows(2)
    del rows[1]["augment"][0]["aug_qa"][1:]
    tiny.write_rows(Path("data/toy/aug/b.json"), rows)
    make(sample=1, heldout_pairs=2)
    told = refusal(heldout_pairs=1)
    assert told.startswith("heldout_pairs: 1 of each passage's pairs leave some none to train on:")
    assert "b.json, question 1, passage 0, aug_qa: 1 pairs; lower heldout_pairs to 0, or bring more" in told
    rows[1]["augment"][0] |= {"aug_qa": [], "error": "it was too long"}  # which has none anyway
    tiny.write_rows(Path("data/toy/aug/b.json"), rows)
    make(heldout_pairs=1)


def test_what_is_kept_of_the_base_model_is_asked_once_for_all_that_spare_it(monkeypatch):
    tiny.write_rows(Path("mine.json"), ["What is ice?", "Who wrote Hamlet?"])
    tiny.write_rows(Path("asked.json"), [{"question": "what is  ice", "answer": "water"}])
    assert make().kept == {}
    how = {"keep_directions": 0.9, "keep_sequences": 1}
    made = make(runs=[{}, how, {**how, "seed": 1, "adapter_dir": "other"}, {"keep_sequences": 2}], lora_rank=4)
    assert len(made.kept) == 2  # with directions, and without
    assert make(**how, lora_rank=2, lora_alpha=1, adapter_dir="third").kept.keys() <= made.kept.keys()
    for job in made.kept.values():
        assert not [path for path in job.inputs.values() if "rank" in str(path)]  # one file, whoever asks for it first
    bare, first, second, third = (kind.batches[0] for kind in made.types)
    assert bare.inputs["kept"] == []
    assert first.inputs["kept"] == second.inputs["kept"] != third.inputs["kept"]
    assert "keep_directions=0.9_keep_sequences=1" in made.types[1].folder.path
    assert {"keep_directions": 0.9, "keep_sequences": 1}.items() <= first.params["settings"].items()
    others = [
        {"keep_questions": "mine.json"}, {"chat_date": "27 Jul 2024"}, {"lora_target_modules": ["up_proj"]},
        {"task_adapter": "task"}, {"precision": "bfloat16"},
    ]  # fmt: skip
    for other in others:
        assert make(**how, **other).kept.keys().isdisjoint(made.kept)
    assert make(**how, num_train_epochs=7, objective="answers").kept.keys() <= made.kept.keys()
    monkeypatch.setattr(keep, "KEEP", 99)  # a release that finds other directions
    assert make(**how).kept.keys().isdisjoint(made.kept)
    assert "asked.json" not in refusal(**how, keep_questions="none.json")
    told = refusal(**how, keep_questions="mine.json", general_questions="asked.json")
    assert "general_questions asks what keep_questions has adapters trained on" in told
    assert "What is ice?" in told


def test_no_question_of_the_project_is_kept_and_asked():
    kept = read_questions(str(layout.KEEP_QUESTIONS))
    assert len(kept) == len(set(kept)) > 100
    refuse_asked(kept, [entry["question"] for entry in heldout.read_general(str(layout.GENERAL))])


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "cannot be read as JSON"),
        ('{"a": 1}', "is not a list of questions"),
        ("[]", "at least one entry"),
        ('["What?", 3, " "]', "entry 1, expected text, found 3"),
    ],
)
def test_questions_to_keep_are_checked_before_anything_runs(content, told):
    Path("mine.json").write_text(content, encoding="utf-8")
    assert told in refusal(keep_sequences=1, keep_questions="mine.json")


def test_objectives_lie_side_by_side_with_prompt_ids_and_digests_of_their_own(monkeypatch):
    made = make(runs=[{}, {"objective": "answers"}, {"objective": "mixed"}, {"objective": "mixed", "contexts": "both"}])
    assert len(made.prompts) == len(made.indexes) == 4
    assert len({folder.title for folder in made.indexes}) == 4
    first, second, *_ = made.prompts.values()
    assert second.params == {**first.params, "objective": "answers"}
    taught = make(objective="distill").batches[0].params["settings"]
    assert taught | {"objective": "distill", "distill_top_k": 64, "distill_temperature": 1.0} == taught
    assert not [key for key in taught if key in ("distill_answers", "own_tokens", "max_length")]
    own = make(objective="distill", distill_answers="own")
    assert own.batches[0].params["settings"] == taught | {
        "distill_answers": "own",
        "own_tokens": training.OWN_TOKENS,
        "max_length": 3000,
    }
    assert next(iter(own.indexes)).title.count("_distill_answers=own") == 1
    monkeypatch.setattr(training, "TEACHER", 99)  # a release whose teacher says something else
    assert make(objective="distill").batches[0].params["settings"] != taught
    settings = [kind.batches[0].params["settings"] for kind in made.types]
    assert ["objective" in setting for setting in settings] == [False, True, True, True]
    assert [job.params["runs"][0].get("objective") for job in made.indexes.values()] == [
        None,
        "answers",
        "mixed",
        "mixed",
    ]


def test_answers_that_are_no_text_make_another_table_where_they_are_read():
    rows = tiny.make_rows(2)
    rows[1]["augment"][0]["aug_qa"][0]["answer"] = 3.5
    tiny.write_rows(Path("data/toy/aug/c.json"), rows)
    assert "c.json, question 1, passage 0, aug_qa 0, answer: expected a string, found 3.5" in refusal(data_type="c")
    made = make(runs=[{}, {"data_type": "c"}], lenient_answers=True)
    assert [job.params["lenient_answers"] for job in made.tables.values()] == [True, True]
    assert not make().tables.keys() & made.tables.keys()
    assert make(lenient_answers=True).indexes.popitem()[1].params["runs"][0]["lenient_answers"] is True


def test_examples_count_only_with_chain_of_thought():
    assert len(make(runs=[{}, {"num_train_epochs": 2, "fewshot": "fewshot.json"}]).prompts) == 1


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("per_device_train_batch_size", 2),
        ("seed", 1),
        ("precision", "bfloat16"),
        ("max_length", 100),
        ("chat_date", "1 Jan 2025"),
        ("lora_target_modules", ["q_proj"]),
        ("base_weight", "start"),
        ("model_path", "other-model"),
        ("task_adapter", "task"),
    ],
)
def test_one_path_with_different_settings_is_refused(key, value):
    told = refusal({"num_train_epochs": 9}, {}, {key: value})
    assert "runs[1] and runs[2] would both write " in told
    assert "/lr=0.0015_epoch=3_direct/aug_model=aug/b, " in told
    assert f"with different {key}. " in told


def test_all_keys_that_differ_are_named():
    assert "with different seed, precision." in refusal({}, {"seed": 1, "precision": "bfloat16"})


@pytest.mark.parametrize(
    ("settings", "key", "path"),
    [
        ({"adapter_dir": "b", "model_path": "other-model"}, "model_path", "resources/models/m"),
        ({"adapter_dir": "b", "model_revision": "v2"}, "model_revision", "resources/models/m"),
        ({"num_train_epochs": 2, "base_weight": "start"}, "base_weight", "rank=2_alpha=32/base_weight"),
        ({"num_train_epochs": 2, "seed": 7}, "seed", "rank=2_alpha=32/base_weight"),
    ],
)
def test_what_runs_share_has_to_agree(settings, key, path):
    told = refusal({}, settings, model_name="m")
    assert "runs[0] and runs[1] would both write " in told
    assert f"{path}, with different {key}. " in told


@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1)])
def test_runs_with_other_samples_and_types_are_one(order):
    made = make(runs=[{"sample": 1}, {"sample": -1, "data_type": None}, {"sample": 300, "passages_per_job": 2}][order])
    assert len(adapters(made)) == len(set(adapters(made))) == 8
    assert len(made.indexes) == 1
    assert {kind.passages for kind in made.types} == {4}


@pytest.mark.parametrize("absolute", [False, True])
def test_one_adapter_dir_may_be_written_in_two_ways(tmp_path, absolute):
    other = {"adapter_dir": str(tmp_path / "out") if absolute else "./out/"}
    assert len(adapters(make(runs=[{"adapter_dir": "out"}, other]))) == 4
    assert "with different seed" in refusal({"adapter_dir": "out"}, {**other, "seed": 1})


def test_the_jobs_of_all_stages_have_one_shape():
    made = make(with_cot=True, fewshot="fewshot.json")
    stages = made.models, made.tables, made.prompts, made.indexes
    jobs = [*(job for stage in stages for job in stage.values()), *made.base_weights, *made.batches]
    for job in jobs:
        assert job.rule
        assert job.label
        assert job.outputs
        json.dumps([job.inputs, job.outputs, job.params])  # what a rule and a script can take
    assert all(job.log == f"logs/{job.name or job.rule}.log" for job in jobs)


def test_every_rule_that_is_made_in_a_loop_has_a_name_of_its_own():
    made = make(runs=[{"lora_rank": 1}, {"lora_rank": 2}, {"lora_rank": 4, "num_train_epochs": 2}, {"model_name": "m"}])
    rules = [job.rule for job in [*made.base_weights, *made.batches, *made.indexes.values()]]
    assert len(made.base_weights) == 4
    assert len(set(rules)) == len(rules)


def test_no_wildcard_is_left_in_a_path():
    made = make()
    assert made.models["smollm2-135m-instruct"].outputs["model"] == layout.MODEL.format(model="smollm2-135m-instruct")
    assert not [path for batch in made.batches for path in batch.inputs.values() if "{" in path]


@pytest.mark.parametrize("key", ["prompt_templates", "fewshot", "base_weight", "task_adapter"])
def test_a_file_that_is_missing_is_told_at_once(key):
    with pytest.raises(LoraryError, match=f"{key}: there is no missing.file"):
        make(**{key: "missing.file", "with_cot": key == "fewshot"})


def test_a_fault_of_the_data_is_told_at_once():
    tiny.write_rows(Path("data/toy/aug/b.json"), [{"question": "q"}])
    with pytest.raises(LoraryError, match=r"b\.json, question 0, augment: missing"):
        make()


def test_a_setting_that_decides_adapters_is_in_the_name_of_their_record(tmp_path):
    """So that another one is noticed without Snakemake's records of what it has made."""
    records = {make().batches[0].outputs["record"]}
    given = {"base_weight": "start"}
    others = [
        {"seed": 43},
        {"precision": "bfloat16"},
        {"lora_target_modules": ["up_proj"]},
        {"chat_date": "1 Jan 2025"},
    ]
    others += [{"per_device_train_batch_size": 2}, {"max_length": 20}, {"model_revision": "main"}, given]
    others += [{"task_adapter": "task"}]
    for settings in others:
        records.add(make(**settings).batches[0].outputs["record"])
    assert len(records) == 1 + len(others)
    free = {"adapters_per_step": 2, "store_dir": "elsewhere", "inference_methods": [], "max_new_tokens": 9}
    free |= {"combine_adapters": "routed", "routed_top": 2}
    assert make(**free).batches[0].outputs["record"] in records


def test_what_jobs_of_other_settings_or_batches_have_said_is_found(tmp_path):
    names = ["0-3.01234567.tsv", "4-7.01234567.tsv", "2-5.01234567.tsv", "4-7.89abcdef.tsv", "8-9.89abcdef.tsv"]
    for name in [*names, "4-7.01234567.json", "4.jsonl", "notes.tsv"]:
        (tmp_path / name).touch()
    found = layout.superseded(str(tmp_path / "4-7.89abcdef.tsv"))
    assert sorted(path.name for path in found) == ["2-5.01234567.tsv", "4-7.01234567.tsv"]
    assert layout.superseded(str(tmp_path / "notes.tsv")) == []


def test_a_model_is_the_files_that_it_consists_of():
    """Of a clone too, whose .git changes with every `git status`."""
    clone = Path("clone")
    clone.mkdir()
    parts = ["chat_template.jinja", "config.json", "merges.txt", "model-1-of-1.safetensors", "modeling_own.py"]
    parts += ["model.safetensors.index.json", "tokenizer.json", "tokenizer.model"]
    for name in (*parts, ".config.json.swp", ".gitattributes", "README.md", "config.json~", "image.png"):
        (clone / name).touch()
    for name in (".git", ".cache", ".ipynb_checkpoints.json", "figures.json"):
        (clone / name).mkdir()
    (clone / "lost.json").symlink_to("nowhere.json")
    assert model.model_files(str(clone)) == [str(clone / name) for name in sorted(parts)]


def test_a_model_may_be_a_gguf_file():
    with pytest.raises(LoraryError, match=r"model_path: there is no \./tiny.gguf"):
        make(model_path="./tiny.gguf")
    Path("tiny.gguf").touch()
    (job,) = make(model_path="./tiny.gguf").models.values()
    assert model.model_files(job.params["model_path"]) == ["tiny.gguf"]


def test_a_given_base_weight_is_its_two_files():
    Path("start/.git").mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors", "README.md"):
        Path("start", name).touch()
    (job,) = make(base_weight="start").base_weights
    assert job.inputs["given"] == ["start/adapter_config.json", "start/adapter_model.safetensors"]


def test_a_task_adapter_is_its_content():
    """It is in the digest of each adapter, and where it lies is not."""

    def settings(name="task"):
        (job,) = make(task_adapter=name, passages_per_job=4).batches
        assert job.inputs["task_adapter"] == [f"{name}/adapter_config.json", f"{name}/adapter_model.safetensors"]
        assert job.params["task_adapter"] == {"path": name, "sha256": job.params["settings"]["task_adapter"]}
        return job.params["settings"]

    first = settings()
    assert settings("other-task") == first
    for file, content in (("config.json", {"r": 4, "lora_alpha": 16}), ("model.safetensors", [1])):
        tiny.write_rows(Path(f"task/adapter_{file}"), content)
        assert settings() not in (first, settings("other-task"))
        first = settings()
    tiny.write_rows(Path("task/adapter_config.json"), {"r": 4, "lora_alpha": 16, "base_model_name_or_path": "label"})
    assert settings() == first
    tiny.write_rows(Path("task/adapter_config.json"), {"lora_alpha": 16})
    with pytest.raises(LoraryError, match="task_adapter: task: no adapter in PEFT's format: KeyError: 'r'"):
        settings()


def test_types_of_one_folder_lie_over_one_task_adapter():
    """run.json says which, and an export holds it."""
    told = refusal({}, {"data_type": "c", "task_adapter": "task"})
    assert "aug_model=aug, with different task_adapter. Leave one out, or give one another adapter_dir." in told
    make(runs=[{"task_adapter": "task"}, {"data_type": "c", "task_adapter": "task"}])
