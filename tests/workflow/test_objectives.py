"""Objectives in one call, beside the reference that an earlier call made."""

import json


def test_objectives_lie_beside_the_reference_which_is_not_made_again(finished):
    folder = finished.folder
    before = finished.adapters()
    tables = {path: path.stat().st_mtime_ns for path in folder.glob("results/prompts/*/*.parquet")}
    runs = [{}, {"objective": "mixed", "contexts": "passage"}, {"objective": "distill"}]
    output = finished.snakemake(runs=runs, passages_per_job=6).stdout
    after = finished.adapters()
    assert {path: after[path] for path in before} == before
    assert {path: path.stat().st_mtime_ns for path in tables} == tables
    assert {path.split("/")[3] for path in after} == {
        "lr=0.01_epoch=1_direct",
        "lr=0.01_epoch=1_direct_objective=mixed_contexts=passage",
        "lr=0.01_epoch=1_direct_objective=distill",
    }
    assert len(set(after.values())) == len(after) == 18
    assert "18 of 18 adapters are in place" in output
    assert len(list(folder.glob("results/store/teacher/*/*.safetensors"))) == 6
    (about,) = folder.glob("results/adapters/*/*/toy/*objective=distill/*/run.json")
    assert json.loads(about.read_text())["config"][0]["objective"] == "distill"
    assert "Nothing to be done" in finished.snakemake("-n", runs=runs, passages_per_job=6).stdout
