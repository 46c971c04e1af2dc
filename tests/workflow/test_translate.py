"""Adapters from translators of two kinds in one call, as a user calls it."""

import json
import re
from pathlib import Path

import pandas as pd
from peft import PeftModel
from transformers import AutoModelForCausalLM


def test_translators_are_trained_and_make_adapters_that_answer_and_nothing_is_made_twice(finished):
    """The pairs are those of the run's own passages, whose adapters the store has."""
    folder, before = finished.folder, finished.adapters()
    how = {"projector_data_dir": "data", "sample": -1, "passages_per_job": 6}
    memory = {"translator": "memory", "inference_methods": ["prag"]}
    reference = {"translator": "reference", "translator_pairs": 5, "translator_learning_rate": 0.01}
    output = finished.snakemake(runs=[memory, reference], **how).stdout
    assert "18 of 18 adapters are in place: 12 trained and 6 linked from the store" in output
    made = {path: sha256 for path, sha256 in finished.adapters().items() if "_translator=" in path}
    assert len(set(made.values())) == len(made) == 12
    assert {path: finished.adapters()[path] for path in before} == before

    model = AutoModelForCausalLM.from_pretrained(folder / "tiny-model")
    (shared,) = folder.glob("results/translators/*_memory_*/shared")
    for path in (*(folder / "results/adapters" / path for path in made), shared):
        adapted = PeftModel.from_pretrained(model, path)
        assert all(p.abs().sum() > 0 for name, p in adapted.named_parameters() if "lora_B" in name)
        model = adapted.unload()
    for kind in ("memory", "reference"):
        (translator,) = folder.glob(f"results/translators/*_{kind}_*/translator.safetensors")
        (run,) = folder.glob(f"results/adapters/*/*/toy/*_translator={kind}*/*/run.json")
        about = json.loads(run.read_bytes())
        assert Path(about["translator"]["path"]) == translator.relative_to(folder)
        assert len(about["translator"]["sha256"]) == 64
        assert ("task_adapter" in about) == (kind == "memory")
        index = pd.read_csv(run.with_name("adapters.tsv"), sep="\t", keep_default_na=False)
        assert [f"results/adapters/{path}" for path in made if f"translator={kind}" in path] == index["path"].tolist()
        assert set(index["first_loss"]) == {""}
    (answers,) = folder.glob("results/predictions/*/*/toy/*/*/prag/total/predict.json")
    assert len(json.loads(answers.read_bytes())) == 3
    assert "their adapters were not trained on" in (folder / "results/report.html").read_text(encoding="utf-8")

    assert "Nothing to be done" in finished.snakemake("-n", runs=[memory, reference], **how).stdout
    reference["translator_epochs"] = 2
    told = finished.snakemake("-n", runs=[memory, reference], **how).stdout
    jobs = {re.sub(r"_(toy_.*|\d+)$", "", job) for job in re.findall(r"^(\w+) +\d+$", told, re.MULTILINE)}
    told_anew = {"index_adapters", "scores", "report", "all", "total"}  # of a run with another name
    assert jobs == {"train_translator", "translate_adapters"} | told_anew
