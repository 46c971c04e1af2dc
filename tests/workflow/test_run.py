"""A whole run, as a user calls it, and what it leaves."""

import json
import os
import shutil
import stat
import subprocess
import sys

import pandas as pd
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

import tiny

COLUMNS = ["type", "did", "pid", "question", "path", "digest"]
COLUMNS += [
    "sequences",
    "tokens",
    "first_loss",
    "last_loss",
    "seconds",
    "device",
    "adapters_per_step",
    "sha256",
    "config_sha256",
]
RUN = "tiny/rank=2_alpha=32/toy/lr=0.01_epoch=1_direct/aug_model=aug"


def test_a_run_leaves_one_peft_adapter_a_passage(finished):
    assert list(finished.adapters()) == [
        f"{RUN}/total/data_{did}/passage_{pid}" for did in range(3) for pid in range(2)
    ]
    model = AutoModelForCausalLM.from_pretrained(finished.folder / "tiny-model")
    ids = torch.arange(20)[None]
    bare = model(ids).logits
    seen = []
    for path in finished.adapters():
        directory = finished.folder / "results/adapters" / path
        # .snakemake_timestamp is Snakemake's mark on a directory that it made
        assert {file.name for file in directory.iterdir()} - {".snakemake_timestamp"} == {
            "adapter_config.json",
            "adapter_model.safetensors",
        }
        adapted = PeftModel.from_pretrained(model, directory)
        assert all(p.abs().sum() > 0 for name, p in adapted.named_parameters() if "lora_B" in name)
        seen.append(adapted(ids).logits.detach())
        model = adapted.unload()
    assert not any(torch.equal(logits, bare) for logits in seen)
    assert not any(torch.equal(a, b) for i, a in enumerate(seen) for b in seen[:i])


def test_the_index_has_a_line_an_adapter(finished):
    index = pd.read_csv(finished.folder / f"results/adapters/{RUN}/adapters.tsv", sep="\t")
    assert list(index) == COLUMNS
    assert list(zip(index.did, index.pid, strict=True)) == [(d, p) for d in range(3) for p in range(2)]
    rows = json.loads((finished.folder / "data/toy/aug/total.json").read_text())
    assert list(index.question) == [row["question"] for row in rows for _ in range(2)]
    assert (index.sequences == 5).all()  # 3 pairs: the first two with passage and rewrite, the third without
    assert (index.last_loss < index.first_loss).all()
    for path, digest in zip(index.path, index.digest, strict=True):
        stored = finished.folder / "results/store" / digest[:2] / digest / "adapter_model.safetensors"
        assert stored.read_bytes() == (finished.folder / path / "adapter_model.safetensors").read_bytes()


def test_prompt_ids_and_data_are_tables_that_pandas_reads(finished):
    (prompts,) = (finished.folder / "results/prompts").glob("*/*.parquet")
    ids = pd.read_parquet(prompts)
    assert len(ids) == 6 * 5
    assert ids.length.tolist() == [len(sequence) for sequence in ids.input_ids]
    (data,) = (finished.folder / "results/data").glob("*.parquet")
    assert pd.read_parquet(data).pid.tolist() == [0, 1] * 3


def test_a_second_call_has_nothing_to_do(finished):
    assert "Nothing to be done" in finished.snakemake().stdout


def test_an_adapter_that_was_deleted_comes_back_without_training(finished):
    before = finished.adapters()
    victim = f"{RUN}/total/data_1/passage_0"
    shutil.rmtree(finished.folder / "results/adapters" / victim)
    weights = finished.folder / "resources/models/tiny/model.safetensors"
    weights.unlink()
    weights.symlink_to("/purged/model.safetensors")  # as when the cache that it leads to was cleaned up
    output = finished.snakemake().stdout
    assert finished.adapters() == before
    assert output.count("Training toy total") == 1
    assert "0 trained and 3 linked" in output
    assert "processor" not in output  # no device was taken, no model loaded


def test_after_a_change_to_some_passages_those_are_trained(finished):
    before = finished.adapters()
    rows = json.loads((finished.folder / "data/toy/aug/total.json").read_text())
    tiny.add_to_passage(rows[0], 1, " indeed")
    rows[1]["augment"][0]["aug_rewrite"] += " indeed"
    rows[2]["augment"][1]["aug_qa"][2]["answer"] += " indeed"
    finished.write_rows(rows)
    assert "3 trained and 3 linked" in finished.snakemake().stdout
    changed = {path for path, digest in finished.adapters().items() if digest != before[path]}
    assert changed == {f"{RUN}/total/{name}" for name in ("data_0/passage_1", "data_1/passage_0", "data_2/passage_1")}
    assert finished.trained() == 9


def test_a_hyperparameter_trains_again_what_depends_on_it_and_nothing_else(finished):
    before = finished.adapters()
    # not in the path: the adapters are replaced
    output = finished.snakemake(per_device_train_batch_size=2).stdout
    assert "6 trained and 0 linked" in output
    assert "get_model" not in output
    assert "build_prompts" not in output
    after = finished.adapters()
    assert after.keys() == before.keys()
    assert all(after[path] != before[path] for path in before)
    # and back: the store has them
    assert "0 trained and 6 linked" in finished.snakemake().stdout
    assert finished.adapters() == before
    # in the path: there are more
    finished.snakemake(num_train_epochs=2)
    assert len(finished.adapters()) == 12


def test_adapters_do_not_depend_on_the_batches_of_passages(finished):
    before = finished.adapters()
    shutil.rmtree(finished.folder / "results/store")
    shutil.rmtree(finished.folder / "results/adapters/tiny/rank=2_alpha=32/toy")
    assert "6 trained" in finished.snakemake(passages_per_job=6).stdout
    assert finished.adapters() == before


def test_a_larger_sample_trains_only_what_is_new(finished):
    finished.write_rows(tiny.make_rows(3) + tiny.make_rows(2, seed=9))
    assert "4 trained and 6 linked" in finished.snakemake().stdout
    # the first two questions only: nothing to train
    assert "0 trained and 4 linked" in finished.snakemake(sample=2, adapter_dir="elsewhere").stdout
    assert len(list((finished.folder / "elsewhere").glob("**/data_*/passage_*"))) == 4


CALL = """
import json, os, sys, yaml
sys.path.insert(0, "workflow")
from lorary.plan import parts, whole
files = [yaml.safe_load(open(name, encoding="utf-8")) for name in ("config.yaml", "mine.yaml")]
config = files[0] | files[1]
plan = whole.make(config)
parts.write(plan, config, str)
batch = plan.encoding.batches[0]
print(json.dumps([os.environ[parts.PLANNED], batch.rule, batch.outputs["record"], batch.log]))
"""


def test_a_job_of_a_cluster_does_what_was_planned_or_says_that_it_cannot(finished):
    def run(*arguments, **env):
        env = {**os.environ, "CUDA_VISIBLE_DEVICES": "", **env}
        return subprocess.run(
            [sys.executable, *arguments], cwd=finished.folder, env=env, capture_output=True, text=True
        )

    planned, rule, record, log = json.loads(run("-c", CALL).stdout)  # as `onstart` does
    (finished.folder / record).unlink()
    finished.edit_config(learning_rate=0.5, seed=7, passages_per_job=1)

    def job(rule):
        """As a cluster's scheduler starts it."""
        how = ["--mode", "remote", "--force-use-threads", "--force", "--nolock", "--ignore-incomplete", "--no-hooks"]
        how += ["--cores", "1", "--configfiles", "mine.yaml", "--target-jobs", f"{rule}:", "--allowed-rules", rule]
        return run("-m", "snakemake", *how, LORARY_PLAN=planned)

    done = job(rule)
    assert done.returncode == 0, done.stderr
    assert (finished.folder / record).is_file()
    assert "3 linked from the store" in (finished.folder / log).read_text(encoding="utf-8")
    refused = job("verify")
    assert refused.returncode == 1
    assert "The config (config.yaml, --configfile), or Lorary itself, has changed" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_two_fresh_runs_give_the_same_bytes_and_files_that_the_umask_allows(finished, project):
    mask = os.umask(0o027)
    try:
        project.snakemake(passages_per_job=6)
    finally:
        os.umask(mask)
    for folder in ("results", "resources/models"):
        for path in (project.folder / folder).rglob("*"):
            mode = path.lstat().st_mode
            if not stat.S_ISLNK(mode):
                assert (mode & 0o057) == (0o050 if path.is_dir() else 0o040), path
    assert project.adapters() == finished.adapters()
    base = "results/adapters/tiny/rank=2_alpha=32/base_weight"
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (project.folder / base / name).read_bytes() == (finished.folder / base / name).read_bytes()
