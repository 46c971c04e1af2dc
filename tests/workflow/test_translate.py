"""Adapters from translators of two kinds in one call, as a user calls it."""

import json
import re
import shutil
from pathlib import Path

import pandas as pd
from peft import PeftModel
from transformers import AutoModelForCausalLM


def test_translators_are_trained_and_make_adapters_that_answer_and_nothing_is_made_twice(finished):
    """The pairs are those of the run's own passages, whose adapters the store has."""
    folder, before = finished.folder, finished.adapters()
    how = {"projector_data_dir": "data", "sample": -1, "passages_per_job": 6}
    (folder / "keep.json").write_text(json.dumps(["What is the capital of France?", "Who wrote Hamlet?"]))
    spares = {"keep_directions": 0.5, "keep_sequences": 2, "keep_questions": "keep.json"}
    memory = {"translator": "memory", "inference_methods": ["prag"], **spares}
    reference = {"translator": "reference", "translator_pairs": 5, "translator_learning_rate": 0.01}
    trained = "lr=0.01_epoch=1_direct_keep_directions=0.5_keep_sequences=2_translator=memory"
    run = f"tiny/rank=2_alpha=32/toy/{trained}/aug_model=aug"
    wanted = ["adapters", f"results/adapters/{run}/run.json", f"results/predictions/{run}/prag/total/predict.json"]
    output = finished.snakemake(*wanted, runs=[memory, reference], **how).stdout
    assert "18 of 18 adapters are in place: 0 trained, 12 translated and 6 linked from the store" in output
    made = {path: sha256 for path, sha256 in finished.adapters().items() if "_translator=" in path}
    assert len(set(made.values())) == len(made) == 12
    assert {path: finished.adapters()[path] for path in before} == before

    model = AutoModelForCausalLM.from_pretrained(folder / "tiny-model")
    (shared,) = folder.glob("results/translators/*_memory_*/shared")
    for path in (*(folder / "results/adapters" / path for path in made), shared):
        adapted = PeftModel.from_pretrained(model, path)
        assert all(p.abs().sum() > 0 for name, p in adapted.named_parameters() if "lora_B" in name)
        model = adapted.unload()
    about = json.loads((folder / wanted[1]).read_bytes())
    assert folder / about["translator"]["path"] == shared.with_name("translator.safetensors")
    assert folder / about["task_adapter"]["path"] == shared
    assert all(len(about[key]["sha256"]) == 64 for key in ("translator", "task_adapter"))
    assert about["translator"]["learnt_from"]["total"]["passages"] == 6  # all
    index = pd.read_csv(Path(folder, wanted[1]).with_name("adapters.tsv"), sep="\t", keep_default_na=False)
    assert index["path"].tolist() == [f"results/adapters/{path}" for path in made if path.startswith(run)]
    assert set(index["first_loss"]) == {""}
    assert len(json.loads((folder / wanted[2]).read_bytes())) == 3

    shutil.copy(folder / "results/adapters" / next(iter(made)) / "adapter_model.safetensors", shared)
    reference["translator_epochs"] = 2
    told = finished.snakemake("-n", *wanted, runs=[memory, reference], **how).stdout
    jobs = dict(re.findall(r"^(\w+?)(?:_toy_\w+|_\d+)? +(\d+)$", told, re.MULTILINE))
    again = {"predict_prag": "1", "score_prag": "1"}  # of what lies under the adapters
    assert jobs == {"train_translator": "1", "translate_adapters": "1", "adapters": "1", **again, "total": "5"}
