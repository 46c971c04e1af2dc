"""Objectives in one call, beside the reference that an earlier call made."""

import json

from lorary.plan.recipes import RECIPES


def test_objectives_lie_beside_the_reference_which_is_not_made_again(finished):
    folder = finished.folder
    before = finished.adapters()
    tables = {path: path.stat().st_mtime_ns for path in folder.glob("results/prompts/*/*.parquet")}
    runs = [{}, {"objective": "mixed", "contexts": "passage"}, {"objective": "distill"}]
    runs.append({"objective": "answers", "keep_directions": 0.5, "keep_sequences": 3})
    output = finished.snakemake(runs=runs, passages_per_job=6).stdout
    after = finished.adapters()
    assert {path: after[path] for path in before} == before
    assert {path: path.stat().st_mtime_ns for path in tables} == tables
    assert {path.split("/")[3] for path in after} == {
        "lr=0.01_epoch=1_direct",
        "lr=0.01_epoch=1_direct_objective=mixed_contexts=passage",
        "lr=0.01_epoch=1_direct_objective=distill",
        "lr=0.01_epoch=1_direct_objective=answers_keep_directions=0.5_keep_sequences=3",
    }
    assert len(set(after.values())) == len(after) == 24
    assert "24 of 24 adapters are in place" in output
    assert len(list(folder.glob("results/store/teacher/*/*.safetensors"))) == 6
    (about,) = folder.glob("results/adapters/*/*/toy/*objective=distill/*/run.json")
    assert json.loads(about.read_text())["config"][0]["objective"] == "distill"
    assert len(list(folder.glob("results/kept/*.safetensors"))) == 1
    spared = "\n".join(text.read_text(encoding="utf-8") for text in folder.glob("logs/keep/*.log"))
    assert "121 of 121 questions have an answer" in spared
    assert "Nothing to be done" in finished.snakemake("-n", runs=runs, passages_per_job=6).stdout


def test_a_recipe_on_the_command_line_stands_over_config_yaml_and_under_other_keys(project):
    """Snakemake reads config.yaml, which must not have what the recipe sets."""
    output = project.snakemake("-n", "--config", "recipe=know", "num_train_epochs=3", inference_methods=["prag"]).stdout
    bundle = {key: value for key, value in RECIPES["know"].items() if key != "num_train_epochs"}
    sets = "recipe: know sets " + ", ".join(f"{key}: {value}" for key, value in bundle.items())
    sets += "; the config itself sets num_train_epochs"
    assert output.splitlines().count(sets) == 1
    assert "/lr=0.01_epoch=3_direct_objective=answers_keep_directions=0.9_keep_sequences=18/" in output
    assert "/prag_routed/" in output
