"""Runs with a parameter translator: what it learns from, whose adapters it makes, and what of that is shared."""

from pathlib import Path

import pytest

import tiny
from lorary.core.errors import LoraryError
from lorary.plan import answer, encode, layout, part, whole
from lorary.plan.config import resolve
from lorary.plan.run import TRANSLATOR

DATA = {"model_name": "m", "data_dir": "data", "dataset": "toy", "augment_model": "aug"}


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    """Data of 4 passages; projector data of 2 and 2 (two types) of the same dataset, and of 90 of another."""
    monkeypatch.chdir(tmp_path)
    tiny.write_rows(Path("data/toy/aug/total.json"), tiny.make_rows(2))
    tiny.write_rows(Path("data_projector/toy/aug/total.json"), [{"question": "q", "type": "b"}])
    for seed, kind in enumerate("bc"):
        tiny.write_rows(Path(f"data_projector/toy/aug/{kind}.json"), tiny.make_rows(1, seed=seed + 1))
    tiny.write_rows(Path("data_projector/many/aug/total.json"), tiny.make_rows(45, pairs=1, seed=3))


def make(*runs, **settings):
    return encode.make(resolve({**DATA, **settings, "runs": list(runs)}))


def records(job):
    return [record for entry in job.params["pairs"] for record in entry["records"]]


def trained(made):
    return [adapter for kind in made.trained for batch in kind.batches for adapter in batch.outputs["adapters"]]


def test_the_adapters_of_a_run_with_a_translator_are_translated_into_the_same_tree():
    made = make(translator="memory")
    (kind,) = made.types
    (batch,) = kind.batches
    (translator,) = made.translators
    assert kind.translator == translator
    assert [batch.rule.rpartition("_toy")[0], batch.name.partition("/")[0]] == ["translate_adapters"] * 2
    folder = "results/adapters/m/rank=2_alpha=32/toy/lr=0.0015_epoch=3_direct_translator=memory/aug_model=aug/total"
    assert batch.outputs["adapters"] == [f"{folder}/data_{did}/passage_{pid}" for did in (0, 1) for pid in (0, 1)]
    assert batch.inputs["translator"] == translator.outputs["translator"]
    plan = whole.Plan(made, answer.make(made))
    assert plan.records == [batch.outputs["record"]]
    assert plan.wanted() == [{"store": "results/store", "record": batch.outputs["record"]}]
    assert plan.prompts == sorted(translator.inputs["prompts"])
    (index,) = made.indexes.values()
    assert [kind["translator"] for kind in index.params["types"]] == [translator.outputs["translator"]]
    (run,) = index.params["runs"]
    assert {key: run[key] for key in TRANSLATOR if key in run} == {"translator": "memory"}


def test_a_memory_learns_from_prompts_and_has_a_part_that_lies_under_its_adapters():
    made = make(translator="memory", inference_methods=["task", "prag", "vanilla"])
    (translator,) = made.translators
    assert not made.trained
    assert records(translator) == []
    task = {"path": f"results/translators/{translator.label}/shared"}
    assert made.types[0].task == task
    assert translator.outputs["shared_tensors"] == f"{task['path']}/adapter_model.safetensors"
    asked = {
        gathered.result.params["settings"]["inference_method"]: gathered for gathered in answer.make(made).predictions
    }
    for method, gathered in asked.items():
        (job,) = gathered.jobs
        under = method != "vanilla"
        assert job.params.get("task_adapter") == (task if under else None)
        assert job.inputs["task_adapter"] == (layout.adapter_files(task["path"]) if under else [])


def test_a_memory_may_be_taught_to_spare_what_the_base_model_knows():
    made = make({}, {"keep_sequences": 9}, {"keep_directions": 0.9, "keep_sequences": 9}, translator="memory")
    plain, sequences, both = made.translators
    assert len({job.label for job in made.translators}) == 3
    assert plain.inputs["kept"] == []
    assert "kept" not in plain.params["settings"]
    for job, (label, kept) in zip((sequences, both), made.kept.items(), strict=True):
        assert job.inputs["kept"] == job.params["settings"]["kept"] == kept.outputs["kept"]
        assert label in job.inputs["kept"]
    assert both.params["settings"]["settings"].items() >= {"keep_directions": 0.9, "keep_sequences": 9}.items()


def test_reference_learns_from_adapters_that_are_trained_first():
    made = make(translator="reference")
    (translator,) = made.translators
    b, c, translated = made.types
    assert "shared_config" not in translator.outputs
    assert translated.task is None
    assert {kind.folder.run.augment for kind in (b, c)} == {"aug_model=aug_projector"}
    assert "translator" not in b.folder.path
    assert records(translator) == [batch.outputs["record"] for kind in (b, c) for batch in kind.batches]
    assert translator.inputs["records"] == records(translator)
    as_named = make({"projector": True, "sample": -1, "inference_methods": []}, {"translator": "reference"})
    assert as_named.batches == made.batches
    assert as_named.translators == made.translators
    assert len(made.indexes) == 2


def test_one_entry_of_pairs_is_of_the_same_passages_everywhere():
    made = make(translator="reference", translator_datasets=["toy", "many"], passages_per_job=3)
    (translator,) = made.translators
    spans = []
    for entry in translator.params["pairs"]:
        span = Path(entry["prompts"]).stem
        assert Path(entry["embeddings"]).stem == span
        first, last = map(int, span.split("-"))
        of_batches = [Path(record).name.split(".")[0].split("-") for record in entry["records"]]
        assert (int(of_batches[0][0]), int(of_batches[-1][1])) == (first, last)
        spans.append(span)
    assert spans == ["0-1", "0-1", "0-65", "66-89"]
    assert translator.params["settings"]["pairs"] == 94


@pytest.mark.parametrize(
    ("pairs", "files", "trainings"),
    [(1, ["0-1"], 1), (2, ["0-1"], 2), (3, ["0-1", "0-1"], 3), (4, ["0-1"] * 2, 4), (6, ["0-1", "0-1", "0-63"], 6)],
)
def test_only_so_many_pairs_are_made_as_are_learnt_from(pairs, files, trainings):
    how = {"translator": "reference", "translator_datasets": ["toy", "many"], "translator_pairs": pairs}
    made = make(**how)
    (translator,) = made.translators
    assert [Path(file).stem for file in translator.inputs["prompts"]] == files
    assert len(trained(made)) == len(records(translator)) == trainings
    assert translator.params["settings"]["pairs"] == pairs
    assert sum(kind.passages for kind in made.trained) == trainings
    assert make(**{**how, "translator_pairs": 1000}).translators[0].params["settings"]["pairs"] == 94


def test_another_number_of_pairs_makes_none_of_those_again():
    """Neither prompt ids nor embeddings nor adapters: their files are among the others'."""
    how = {"translator": "reference", "translator_datasets": ["many"]}
    few, more = (make(**how, translator_pairs=pairs) for pairs in (5, 70))
    assert few.translators[0].label != more.translators[0].label
    for key in ("prompts", "embeddings", "records"):
        assert set(few.translators[0].inputs[key]) < set(more.translators[0].inputs[key])
    both = make({"translator_pairs": 5}, {"translator_pairs": 70}, **how)
    assert {job.label for job in both.translators} == {few.translators[0].label, more.translators[0].label}
    assert len(trained(both)) == len(trained(more)) == 70


def test_embeddings_are_shared_and_are_of_a_kind_of_states():
    made = make({"translator": "memory"}, {"translator": "memory", "translator_epochs": 2}, {"translator": "reference"})
    assert len(made.embeddings) == 2 * 3  # of two kinds of states: own passages, and the two types of projector data
    assert len(made.translators) == 3
    one, other, reference = (kind.batches[0].inputs["embeddings"] for kind in made.translated)
    assert one == other != reference
    assert {job.params["states"] for job in made.embeddings.values()} == {"last", "tokens"}
    same = make(translator="memory", num_train_epochs=7, learning_rate=1, objective="answers", seed=3)
    assert same.embeddings.keys() < made.embeddings.keys()
    for other in ({"precision": "bfloat16"}, {"max_length": 99}, {"split_special_tokens": True}):
        assert make(translator="memory", **other).embeddings.keys().isdisjoint(made.embeddings)


MEMORY = {"translator": "memory"}


ANOTHER = [
    {"translator_epochs": 2},
    {"translator_pairs": 3},
    {"translator_hidden": 7},
    {"translator_batch": 7},
    {"translator_learning_rate": 1},
    {"translator_datasets": ["many"]},
    {"translator_control": "shuffled"},
    {"objective": "answers"},
    {"seed": 1},
    {"lora_rank": 4},
    {"precision": "bfloat16"},
]
THE_SAME = [
    {"translator_control": "shared"},
    {"num_train_epochs": 9},  # of a training that there is none of
    {"learning_rate": 9},
    {"heldout_pairs": 1},  # of the run's own passages
    {"passages_per_job": 2},
]


def test_what_decides_a_translator_is_in_its_name():
    runs = [{"adapter_dir": str(i), **run} for i, run in enumerate([{}, *ANOTHER, *THE_SAME])]
    usual, *labels = (kind.translator.label for kind in make(*runs, **MEMORY).types)
    others, same = labels[: len(ANOTHER)], labels[len(ANOTHER) :]
    assert len({usual, *others}) == 1 + len(ANOTHER)
    assert same == [usual] * len(THE_SAME)


def test_what_decides_adapters_is_in_the_name_of_their_record():
    some = [{}, {"translator_epochs": 2}, {"translator_control": "shared"}, {"max_length": 99}]
    records = [make(**MEMORY, **run).batches[0].outputs["record"] for run in some]
    assert len({Path(record).name for record in records}) == len(some)


def test_the_training_decides_a_translator_that_learns_from_it():
    labels = {make(translator="reference", num_train_epochs=n).translators[0].label for n in (1, 2)}
    assert len(labels) == 2


def test_a_control_is_told_to_who_translates_and_who_trains():
    shared, shuffled = make({"translator_control": "shared"}, {"translator_control": "shuffled"}, **MEMORY).translated
    assert [kind.batches[0].params["control"] for kind in (shared, shuffled)] == ["shared", "shuffled"]
    assert [kind.translator.params["settings"]["control"] for kind in (shared, shuffled)] == [None, "shuffled"]
    assert "_translator=memory_translator_control=shared/" in shared.folder.path


def test_values_of_its_kind_stand_where_none_are_given():
    settings = make(**MEMORY, translator_batch=3).translators[0].params["settings"]
    assert {key: settings[key] for key in ("hidden", "batch", "learning_rate")} == {
        "hidden": 128,
        "batch": 3,
        "learning_rate": 1e-3,
    }


def test_names_of_datasets_are_one_word_in_paths():
    (kind,) = make(**MEMORY, translator_datasets=["toy", "many"]).types
    assert "_translator=memory_translator_datasets=toy+many/" in kind.folder.path


def test_a_name_that_no_folder_can_have_is_told():
    names = [letter * 64 for letter in "abcd"]
    with pytest.raises(LoraryError, match=r"make that 3\d\d letters long, and file systems take 255"):
        make(**MEMORY, translator_datasets=names)


def test_a_translators_job_takes_many_passages():
    made = make(translator="memory", dataset="many", data_dir="data_projector", projector_data_dir="data_projector")
    assert [len(batch.outputs["adapters"]) for batch in made.batches] == [90]
    many = 3 * part.MANY_PASSAGES_PER_JOB
    tiny.write_rows(Path("data/toy/aug/total.json"), tiny.make_rows(many // 2, pairs=1))
    assert [len(batch.outputs["adapters"]) for batch in make(**MEMORY, sample=-1).batches] == [many // 3] * 3


def test_in_packs_there_is_one_file_a_job():
    (batch,) = make(**MEMORY, pack=True).batches
    assert batch.declared == [batch.outputs["pack"]]
    assert batch.params["adapters"] == batch.outputs["adapters"]


def test_raw_text_is_translated_by_what_learnt_from_augmented_data():
    Path("corpus.tsv").write_text("id\ttext\n1\tA tower of amber.\n", encoding="utf-8")
    raw = {"source": "passages", "corpus": "corpus.tsv", "augment_model": None, "data_dir": None}
    tiny.write_rows(Path("pairs/toy/m/total.json"), tiny.make_rows(1, model="m"))
    made = make(translator="reference", projector_data_dir="pairs", **raw)
    assert [kind.passages for kind in made.types] == [2, 1]
    assert made.types[0].run.raw.source == "augmented"


def test_it_is_told_where_there_is_nothing_to_learn_from():
    with pytest.raises(LoraryError) as caught:
        make(**MEMORY, translator_datasets=["none"])
    assert str(caught.value).startswith("translator: memory: there is no data_projector/none/aug (seen from ")
    assert "set projector_data_dir and translator_datasets." in str(caught.value)


def test_a_translated_run_and_a_trained_one_lie_side_by_side():
    made = make({}, MEMORY)
    assert [kind.translator is None for kind in made.types] == [True, False]
    assert len({batch.rule for batch in made.batches}) == len(made.batches)
    assert make({}).types[0] == made.types[0]  # which is made as ever
    with pytest.raises(LoraryError, match="with different seed"):
        make(MEMORY, {**MEMORY, "seed": 2})
