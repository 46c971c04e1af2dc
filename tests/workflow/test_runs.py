"""Several types, several runs, chain of thought, a given base weight, precision; and what the dry run shows."""

import json
import shutil

import pandas as pd
import pytest
import yaml

import tiny

PUBLISHED = {  # (model, dataset): (epochs, chain of thought, new tokens), Su et al., SIGIR 2025
    (model, dataset): (
        2 if dataset == "popqa" or (model, dataset) == ("qwen2.5-1.5b-instruct", "hotpotqa") else 1,
        cot,
        new,
    )
    for model in ("llama3-8b-instruct", "llama3.2-1b-instruct", "qwen2.5-1.5b-instruct")
    for dataset, cot, new in (
        ("2wikimultihopqa", True, 128),
        ("hotpotqa", True, 128),
        ("popqa", False, 20),
        ("complexwebquestions", False, 20),
    )
}


def test_types_and_runs_in_one_call(ready):
    project = ready
    bridge, comparison = tiny.make_rows(2, seed=1), tiny.make_rows(1, seed=2)
    project.write_rows(bridge, "bridge")
    project.write_rows(comparison, "comparison")
    order = [(comparison[0], "comparison"), (bridge[0], "bridge"), (bridge[1], "bridge")]
    project.write_rows([{"question": row["question"], "type": kind} for row, kind in order], "total")
    fewshot = project.folder / "fewshot.json"
    fewshot.write_text(json.dumps([{"question": "why", "answer": "so"}]))
    output = project.snakemake(
        cores=2,
        passages_per_job=4,
        runs=[
            {},  # both types
            {"data_type": "total"},
            {"lora_rank": 1, "lora_alpha": 8, "with_cot": True, "fewshot": "fewshot.json", "data_type": "comparison"},
        ],
    ).stdout
    run = "tiny/rank=2_alpha=32/toy/lr=0.01_epoch=1_direct/aug_model=aug"
    cot = "tiny/rank=1_alpha=8/toy/lr=0.01_epoch=1_cot/aug_model=aug"
    adapters = project.adapters()
    total = [adapters[f"{run}/total/data_{d}/passage_{p}"] for d in range(3) for p in range(2)]
    types = [("comparison", 0), ("bridge", 0), ("bridge", 1)]
    assert total == [adapters[f"{run}/{kind}/data_{d}/passage_{p}"] for kind, d in types for p in range(2)]
    assert set(adapters) == {
        *(
            f"{run}/{kind}/data_{d}/passage_{p}"
            for kind, d in [*types, *(("total", i) for i in range(3))]
            for p in (0, 1)
        ),
        *(f"{cot}/comparison/data_0/passage_{p}" for p in (0, 1)),
    }
    assert project.trained() == 8  # the merged type holds no passage that its parts do not
    assert "14 of 14 adapters are in place" in output
    index = pd.read_csv(project.folder / f"results/adapters/{run}/adapters.tsv", sep="\t")
    assert index.groupby("type").size().to_dict() == {"bridge": 4, "comparison": 2, "total": 6}


def test_the_projector_data_have_their_own_folder(ready):
    tiny.write_rows(ready.folder / "data_projector/toy/aug/total.json", tiny.make_rows(1, seed=5))
    ready.snakemake(projector=True, passages_per_job=2)
    assert {path.split("/")[4] for path in ready.adapters()} == {"aug_model=aug_projector"}
    assert len(ready.adapters()) == 2


def test_a_given_base_weight_and_bfloat16(finished):
    base = "results/adapters/tiny/rank=2_alpha=32/base_weight"
    shutil.copytree(finished.folder / base, finished.folder / "warm")
    before = finished.adapters()
    output = finished.snakemake(base_weight="warm", seed=7, adapter_dir="warmed").stdout
    assert "0 trained and 6 linked" in output  # the same base weight, so the same adapters
    assert "6 trained" in finished.snakemake(precision="bfloat16").stdout
    after = finished.adapters()
    assert after.keys() == before.keys()
    assert all(after[path] != before[path] for path in before)


def test_another_model_under_the_same_name_is_fetched(finished, tiny_qwen):
    before = finished.adapters()
    shutil.copytree(tiny_qwen, finished.folder / "another")
    said = finished.snakemake(model_path="another", sample=1).stdout
    assert "2 trained and 0 linked" in said
    about = json.loads((finished.folder / "resources/models/tiny/fingerprint.json").read_text())
    assert about["source"] == "another"
    after = finished.adapters()
    assert [path for path in before if after[path] != before[path]] == list(before)[:2]


def test_prompt_ids_are_made_with_no_model_of_another_version(with_model):
    file = with_model.folder / "resources/models/tiny/fingerprint.json"
    file.write_text(json.dumps({key: value for key, value in json.loads(file.read_text()).items() if key != "version"}))
    process = with_model.snakemake("prompts", check=False)
    assert process.returncode != 0
    assert "resources/models/tiny was made by another version of Lorary" in process.stdout


@pytest.mark.all  # of the bad input, one case with another rank is refused too
def test_a_base_weight_of_another_rank_is_refused(finished):
    shutil.copytree(finished.folder / "results/adapters/tiny/rank=2_alpha=32/base_weight", finished.folder / "warm")
    process = finished.snakemake(check=False, base_weight="warm", lora_rank=4)
    assert process.returncode != 0
    assert "r: expected 4, found 2" in process.stdout
    assert "Traceback" not in process.stdout


def test_the_papers_settings(project):
    config = yaml.safe_load((tiny.ROOT / "configs/paper.yaml").read_text())
    assert len(config["runs"]) == 12
    found = {
        (r["model_name"], r["dataset"]): (r["num_train_epochs"], r["with_cot"], r["max_new_tokens"])
        for r in config["runs"]
    }
    assert found == PUBLISHED
    rest = {"sample": 300, "per_device_train_batch_size": 1, "learning_rate": 0.0003, "lora_rank": 2, "lora_alpha": 32}
    assert rest.items() <= config.items()

    data = project.folder / "data_aug"
    for run in config["runs"]:
        rows = tiny.make_rows(2, model=run["model_name"])
        tiny.write_rows(data / run["dataset"] / run["model_name"] / "total.json", rows)
        if run["with_cot"]:
            shutil.copy(tiny.ROOT / "resources/demo/fewshot.json", project.folder / run["fewshot"])
    shutil.copy(tiny.ROOT / "resources/prompt_templates.yaml", data)
    project.settings = config
    output = project.snakemake("-n").stdout
    assert output.count("Training") == 12 * 2 * 2
    assert "lr=0.0003_epoch=2_cot/aug_model=qwen2.5-1.5b-instruct" in output
