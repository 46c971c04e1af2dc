"""The benchmark of knowledge: its questions, each with its passage among others, its runs, and its tables."""

import json
import os
import subprocess

import pytest

import tiny
from benchmarks import knowledge
from lorary.core.errors import LoraryError
from lorary.core.store import Store
from lorary.data.objectives import SEQUENCES
from lorary.plan.config import resolve
from lorary.plan.layout import run_folder
from lorary.plan.methods import variant
from lorary.plan.recipes import RECIPES


def passage(did, pid, text):
    pairs = [{"question": f"{text}?", "answer": text, "full_answer": text}]
    return {"did": did, "pid": pid, "passage": text, "rewrite": text, "pairs": pairs, "question": "q", "answers": ["a"]}


def test_a_question_has_its_passage_in_each_place_in_turn_and_first_those_that_stand_with_it():
    texts = ["a", "b", "c", "d"]
    passages = [passage(did, 0, text) for did, text in enumerate(texts)]
    passages += [passage(4, 0, "a"), passage(4, 1, "d")]  # a question with two passages
    asked = [
        {"did": did, "pid": 0, "kind": kind, "question": f"which {did}?", "answers": [texts[did]]}
        for did in range(4)
        for kind in ("paraphrase", "untrained")
    ]
    rows = knowledge._among(passages, asked, 3)
    assert [row["question"] for row in rows] == [f"which {did}?" for did in range(4)]
    assert [row["passages"].index(texts[did]) for did, row in enumerate(rows)] == [0, 1, 2, 0]
    assert [row["passages"] for row in rows] == [["a", "d", "b"], ["c", "b", "d"], ["d", "a", "c"], ["d", "a", "b"]]
    assert all(
        row["augment"][i]["known_qa"][0]["answer"] == text for row in rows for i, text in enumerate(row["passages"])
    )
    assert knowledge._among(passages, [{**asked[0], "did": 9}], 3) == []  # beyond the sample


# The complete config of a run, with keys that only some of the benchmark's runs read.
CONFIG = {
    **resolve({"combine_adapters": "routed", "routed_top": 2, "heldout_pairs": 1})[0].flat(),
    "heldout_questions": "h.json",
}


def with_pairs(n):
    return {**passage(0, 0, "a"), "pairs": passage(0, 0, "a")["pairs"] * n}


def test_recipes_take_as_many_steps_as_the_reference():
    recipes = {name: knowledge._recipe(name, CONFIG, [with_pairs(3)]) for name in knowledge.NAMES}
    epochs = {name: recipe["num_train_epochs"] for name, recipe in recipes.items()}
    know = RECIPES["know"]["num_train_epochs"]
    assert epochs == {"reference": 3, "answers": 5, "mixed": 3, "distill": 5, "know": know}
    assert [recipes[name]["objective"] for name in SEQUENCES] == list(SEQUENCES)
    bare = knowledge._recipe("answers", {**CONFIG, "contexts": "none"}, [with_pairs(3)])
    assert bare["num_train_epochs"] == 3  # the reference's have no passages either then
    longer = {**CONFIG, **RECIPES["know"], "num_train_epochs": 6}
    assert knowledge._recipe("answers", longer, [with_pairs(3)])["num_train_epochs"] == 10
    assert knowledge._recipe("know", longer, [with_pairs(3)]) == recipes["know"]  # as it is


def test_a_recipe_in_the_config_leaves_nothing_in_the_rows_of_others(monkeypatch):
    monkeypatch.setitem(RECIPES, "know", {**RECIPES["know"], "general_adapters": 2})
    config = {**CONFIG, **RECIPES["know"]}
    recipes = {name: knowledge._recipe(name, config, [with_pairs(3)]) for name in knowledge.NAMES}
    found = {name: recipe["general_adapters"] for name, recipe in recipes.items()}
    assert found == {**dict.fromkeys(SEQUENCES, 1), "know": 2}
    assert not any("combine_adapters" in recipe for recipe in recipes.values())


def test_the_runs_are_allowed_and_lie_apart():
    """All in one call, which refuses two that would write one folder."""
    cut = {n: [with_pairs(n)] for n in (3, 10)}
    chosen = {name: knowledge._recipe(name, CONFIG, cut[3]) for name in ("reference", "answers", "know")}
    for pairs in ({}, cut):
        overrides = list(knowledge._runs(chosen, CONFIG, [1, 2], pairs))
        runs = resolve({**knowledge._settings(CONFIG), "runs": overrides})
        assert len({run_folder(run).path for run in runs}) == len(runs) == 2 * 3 * (3 + len(pairs) * 1.5)
        assert {run.jobs.adapter_dir for run in runs} == {
            f"results/seed_{seed}{know}" for seed in (1, 2) for know in ("", "_know")
        }
        assert all(run.training.seed == int(run.jobs.adapter_dir.split("_")[1]) for run in runs)
    alone = [run for run in runs if run.data.dataset in ("knowledge_pairs3", "knowledge_pairs10")]
    assert {(*run.answers.combine_adapters, run.answers.routed_top) for run in alone} == {("sum", 1)}
    assert all(run.answers.heldout_questions and not run.prompts.heldout_pairs for run in alone)


def test_fewer_pairs_are_asked_at_equal_epochs_and_at_equal_steps():
    cut = {n: [with_pairs(n)] for n in (3, 10, 20)}

    def epochs_of(name, config=CONFIG):
        return list(knowledge._epochs_of_pairs(knowledge._recipe(name, config, cut[3]), config, cut))

    assert epochs_of("answers") == [(3, 5), (10, 5), (10, 1), (20, 5), (20, 1)]
    assert epochs_of("reference", {**CONFIG, "num_train_epochs": 8}) == [(3, 8), (10, 8), (10, 2), (20, 8), (20, 1)]
    one = {3: [with_pairs(3)], 4: [with_pairs(3)]}  # there are no more
    assert list(knowledge._epochs_of_pairs(knowledge._recipe("know", CONFIG, one[3]), CONFIG, one)) == [(3, 5), (4, 5)]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({"recipes": ["answers", "best"]}, "RECIPES: there is no best; there is reference, answers, mixed"),
        ({"seeds": ["4", "-1"]}, "SEEDS: -1 is no whole number from 0"),
        ({"pairs": ["3,10"]}, "PAIRS: 3,10 is no whole number from 1"),
        ({"pairs": ["0"]}, "PAIRS: 0 is no whole number"),
        ({"config": {**CONFIG, "heldout_questions": None}}, "heldout_questions: name a file of questions"),
    ],
)
def test_what_cannot_be_measured_is_told(words, told, tmp_path):
    usual = {"config": CONFIG, "files": [], "recipes": ["know"], "seeds": ["42"], "pairs": [], "cores": 1}
    with pytest.raises(LoraryError, match=told):
        knowledge.bench_knowledge(**{**usual, **words, "folder": str(tmp_path)})
    assert not list(tmp_path.iterdir())


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """The benchmark of one passage, as a function, where the call finds what it makes: the own adapter knows as many
    hundredths as its run has epochs and seed, of others active a tenth."""
    calls = []

    def call(command, **_):
        calls.append(command)
        home = tmp_path / "bench"
        for run in resolve(json.loads((home / "bench.yaml").read_text(encoding="utf-8"))):
            folder, f1 = run_folder(run), (run.training.num_train_epochs + run.training.seed) / 100
            (home / folder.index).parent.mkdir(parents=True)
            digest = ("f" if run.training.keep_sequences else "e") * 64
            (home / folder.index).write_text(f"tokens\tdigest\n100\t{digest}\n", encoding="utf-8")
            if run.training.keep_sequences:
                Store(str(home / "results/store")).put(digest, b"", b"", {"kept_tokens": 7})
            for way in run.answers.combine_adapters:
                file = home / folder.predictions(variant("prag", way), "total") / "predict.json"
                file.parent.mkdir(parents=True)
                file.write_text(json.dumps([{"f1": str(f1 / 10)}]), encoding="utf-8")
            if run.answers.heldout_questions:
                columns = ["did", "pid", "question", "kind", "f1_bare", "f1_own", "hit_bare", "hit_own"]
                lines = [["0", "0", "q", kind, "0", str(f1), "1", str(f1)] for kind in knowledge.OWN]
                table = "".join("\t".join(line) + "\n" for line in [columns, *lines])
                (home / folder.learnt("heldout")).write_text(table, encoding="utf-8")
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr("benchmarks.calls.subprocess.run", call)
    monkeypatch.chdir(tmp_path)
    row = knowledge._row("q", ["a"], [{**with_pairs(4), "passage": "p"}])
    tiny.write_rows(tmp_path / "total.json", [row])
    asked = {"did": 0, "pid": 0, "kind": "paraphrase", "question": "which?", "answer": "a"}
    tiny.write_rows(tmp_path / "h.json", [asked])
    config = {**CONFIG, "augment_model": "known"}
    return lambda **words: knowledge.bench_knowledge(
        **{"config": config, "files": ["total.json"], "folder": "bench", "cores": 1, **words}
    )


def test_the_tables_say_of_each_row_what_its_own_runs_know(measured):
    told = measured(recipes=["reference", "know"], seeds=["1", "3"], pairs=["2", "9"])
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in told.splitlines() if line[:1] == "|"]
    first = ["", "---", "bare model", "reference", "know"]
    assert [line[0] for line in lines] == [*first, "", "---", *["reference"] * 3, *["know"] * 3]
    assert {len(line) for line in lines[:5]} == {2 + 3 + 2 * 4}
    assert lines[2][1:5] == ["", "0 (0 to 0)", "0 (0 to 0)", "100 (100 to 100)"]
    assert lines[3][1:3] == ["300", "5 (5 to 5)"]  # 3 epochs, and the mean of the seeds
    assert lines[4][1:3] == ["507", "7 (7 to 7)"]
    assert lines[4][5:] == ["1 (1 to 1)"] * 8
    assert [line[:4] for line in lines[7:]] == [
        ["reference", "2", "3", "300"], ["reference", "3", "3", "300"], ["reference", "3", "1", "100"],
        ["know", "2", "5", "507"], ["know", "3", "5", "507"], ["know", "3", "3", "307"],
    ]  # fmt: skip
    assert [line[4] for line in lines[7:]] == [f"{n} ({n} to {n})" for n in (5, 5, 3, 7, 7, 5)]


def test_pairs_are_only_asked_about_where_somebody_wants_it_and_what_is_there_is_not_written_anew(measured, tmp_path):
    assert "pairs" not in measured(recipes=["answers"], seeds=["1"], pairs=[])
    files = [*sorted((tmp_path / "bench").rglob("data/**/*.json")), tmp_path / "bench/heldout.json"]
    assert [file.parts[-3] for file in files[:-1]] == ["knowledge", "knowledge_10", "knowledge_3"]
    for file in files:
        os.utime(file, (1, 1))
    (tmp_path / "bench/results").rename(tmp_path / "before")
    measured(recipes=["answers"], seeds=["1"], pairs=["2"])
    assert {file.stat().st_mtime for file in files} == {1}
    (row,) = json.loads((tmp_path / "bench/data/knowledge_pairs2/known/total.json").read_text(encoding="utf-8"))
    assert len(row["augment"][0]["known_qa"]) == 2
