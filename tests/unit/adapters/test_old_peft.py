"""Adapters load in the oldest PEFT that is promised, with its own classes, and mean the same to today's."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from peft import LoraConfig

import tiny
from lorary.adapters.files import CONFIG, TENSORS, init_base_weight
from lorary.adapters.merge import merge_adapters
from lorary.answer.source import Trained
from lorary.core.store import Store
from lorary.train.encode import train_adapters

OLD = "peft==0.13.2"  # DyPRAG's


@pytest.fixture(scope="session")
def old_peft(pytestconfig, tmp_path_factory):
    """The folder in which that PEFT lies; fetched once, and kept in pytest's cache."""
    kept = pytestconfig.cache.mkdir("old-peft") / OLD
    if not kept.is_dir():
        new = tmp_path_factory.mktemp("old-peft") / OLD
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(new), OLD]
        pip = subprocess.run(command, capture_output=True, text=True)
        if pip.returncode:
            pytest.skip(f"pip cannot fetch {OLD} here: {(pip.stderr.strip() or 'it says nothing').splitlines()[-1]}")
        subprocess.run(["cp", "-a", new, f"{kept}.{os.getpid()}"], check=True)
        if kept.is_dir():  # another worker's, meanwhile
            shutil.rmtree(f"{kept}.{os.getpid()}")
        else:
            os.rename(f"{kept}.{os.getpid()}", kept)
    return kept


def read_with(old_peft, *folders):
    """The configs of adapters as that PEFT reads them."""
    program = (
        "import json, sys, peft; assert '/old-peft/' in peft.__file__, peft.__file__\n"
        "read = [peft.PeftConfig.from_pretrained(folder) for folder in sys.argv[1:]]\n"
        "assert all(type(config) is peft.LoraConfig for config in read)\n"
        "print(json.dumps([config.to_dict() for config in read], default=sorted))"
    )
    process = subprocess.run(
        [sys.executable, "-c", program, *map(str, folders)],
        env={**os.environ, "PYTHONPATH": str(old_peft)},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr.strip().splitlines()[-1]
    return json.loads(process.stdout)


def train(made, folder, base_weight):
    train_adapters(
        outputs=[f"{folder}/out/data_{did}/passage_0" for did in range(2)],
        record=f"{folder}/record.tsv",
        outcome=f"{folder}/outcome.json",
        model=str(made / "llama"),
        base_weight=str(base_weight),
        prompts=str(made / "llama.parquet"),
        settings=tiny.TRAINING,
        adapters_per_step="auto",
        store=f"{folder}/store",
        threads=1,
    )
    return [str(folder / f"out/data_{did}/passage_0") for did in range(2)]


def test_the_oldest_peft_reads_trained_and_merged_adapters(made, tmp_path, old_peft):
    adapters = train(made, tmp_path, made / "llama-base")
    merge_adapters(adapters, str(tmp_path / "merged"))
    base_weight, trained, merged = read_with(old_peft, made / "llama-base", adapters[0], tmp_path / "merged")
    for config, rank in ((base_weight, 2), (trained, 2), (merged, 4)):
        assert (config["r"], config["lora_alpha"], config["lora_dropout"], config["bias"]) == (
            rank,
            16 * rank,
            0,
            "none",
        )
        assert (config["target_modules"], config["task_type"]) == (tiny.TARGETS, "CAUSAL_LM")
        assert (config["inference_mode"], config["peft_type"], config["bias"]) == (True, "LORA", "none")


def test_what_differs_from_its_defaults_is_kept(made, tmp_path, old_peft):
    base_weight = tmp_path / "base"
    init_base_weight(str(made / "llama"), 8, 8, ["q_proj"], 0, None, str(base_weight))  # rank and alpha as PEFT's own
    config = json.loads((base_weight / CONFIG).read_text())
    config |= {"lora_dropout": 0.1, "init_lora_weights": "gaussian"}
    (base_weight / CONFIG).write_text(json.dumps(config))
    adapter, _ = train(made, tmp_path, base_weight)
    (old,) = read_with(old_peft, adapter)
    assert (old["r"], old["lora_alpha"], old["lora_dropout"]) == (8, 8, 0.1)
    assert (old["target_modules"], old["init_lora_weights"]) == (["q_proj"], "gaussian")


def test_todays_peft_reads_the_same_as_of_its_own_file(made, tmp_path):
    adapter, _ = train(made, tmp_path, made / "llama-base")
    own = LoraConfig(
        task_type="CAUSAL_LM", r=2, lora_alpha=32, lora_dropout=0.0, target_modules=tiny.TARGETS, inference_mode=True
    )
    own.save_pretrained(tmp_path / "own")
    ours, own = (LoraConfig.from_pretrained(folder).to_dict() for folder in (adapter, tmp_path / "own"))
    for config in (ours, own):
        del config["base_model_name_or_path"], config["peft_version"]
    assert ours == own


def test_what_an_earlier_version_stored_is_linked_with_a_config_of_today(made, tmp_path):
    adapters = [Path(adapter) for adapter in train(made, tmp_path, made / "llama-base")]
    todays, tensors = ((adapters[0] / name).read_bytes() for name in (CONFIG, TENSORS))
    (entry,) = (path for path in (tmp_path / "store").glob("??/*") if (path / TENSORS).samefile(adapters[0] / TENSORS))
    shutil.rmtree(entry)
    Store(str(tmp_path / "store")).put(entry.name, tiny.first_config("llama"), tensors, {"losses": [1]})
    shutil.rmtree(tmp_path / "out")
    train(made, tmp_path, made / "llama-base")
    assert [(adapter / CONFIG).read_bytes() for adapter in adapters] == [todays] * 2
    assert (adapters[0] / TENSORS).samefile(entry / TENSORS)
    Trained.of_records([str(tmp_path / "record.tsv")]).digest((0, 0))  # is what the record says
