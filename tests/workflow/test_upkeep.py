"""snakemake verify and snakemake prune."""

import hashlib
import json
import os
import re
import shutil
import subprocess

import tiny
from lorary.core.files import ABANDONED
from lorary.upkeep.prune import RECENT

RUN = "results/adapters/tiny/rank=2_alpha=32/toy/lr=0.01_epoch=1_direct/aug_model=aug"
TENSORS = "adapter_model.safetensors"


def digests(project):
    """The store's entries by the path of their adapter."""
    lines = (project.folder / RUN / "adapters.tsv").read_text().splitlines()
    columns = lines[0].split("\t")
    rows = [dict(zip(columns, line.split("\t"), strict=True)) for line in lines[1:]]
    return {row["path"]: project.folder / "results/store" / row["digest"][:2] / row["digest"] for row in rows}


def rewrite(file, change):
    """Other content under the same name, for this name alone."""
    content = change(file.read_bytes())
    file.unlink()
    file.write_bytes(content)


def flip(content):
    return content[:-5] + bytes([content[-5] ^ 1]) + content[-4:]


def test_what_is_damaged_is_named_and_made_again(finished):
    said = finished.snakemake("verify").stdout
    assert "checked 6 store entries, 2 records, 6 adapters, 1 base weights, 2 tables, 1 base models" in said
    assert "nothing is damaged" in said

    before = finished.adapters()
    entries = digests(finished)
    adapter = {path: finished.folder / path for path in entries}
    a, b, c, d, e, _ = entries
    # a: one bit, in the file that output and store share, as a disk may lose it
    shared = adapter[a] / TENSORS
    shared.chmod(0o644)
    with shared.open("r+b") as file:
        file.seek(-5, os.SEEK_END)
        byte = file.read(1)[0]
        file.seek(-5, os.SEEK_END)
        file.write(bytes([byte ^ 1]))
    rewrite(adapter[b] / TENSORS, lambda content: content[:100])  # cut off, in the output alone
    shutil.copy(adapter[a] / TENSORS, adapter[c] / "foreign")
    os.replace(adapter[c] / "foreign", adapter[c] / TENSORS)  # another's, whole
    rewrite(adapter[d] / "adapter_config.json", lambda content: content.replace(b'"r": 2', b'"r": 4'))
    rewrite(entries[e] / TENSORS, flip)  # in the store alone
    (adapter[e] / "notes.txt").write_text("mine")

    process = finished.snakemake("verify", check=False)
    said = process.stdout
    assert process.returncode != 0
    assert "6 damaged, and removed; the next call makes just these again:" in said
    assert f"{entries[a].relative_to(finished.folder)}: {TENSORS} is not what was written" in said
    for path in (a, b, c):
        assert f"{path}: {TENSORS}: missing, or not what was trained" in said
    assert f"{d}: adapter_config.json: missing, or not what was trained" in said
    assert f"{entries[e].relative_to(finished.folder)}: {TENSORS} is not what was written" in said
    assert f"{e}/notes.txt: no file of Lorary's; left alone" in said
    assert "Traceback" not in said
    assert (adapter[e] / "notes.txt").exists()

    said = finished.snakemake().stdout
    assert "trained and" in said
    assert finished.adapters() == before
    assert "nothing is damaged" in finished.snakemake("verify").stdout


def test_a_damaged_entry_is_not_linked(finished):
    before = finished.adapters()
    entries = digests(finished)
    path, entry = next(iter(entries.items()))
    rewrite(entry / TENSORS, flip)
    shutil.rmtree(finished.folder / path)
    said = finished.snakemake().stdout
    assert f"{TENSORS} is not what was written (its sha256 differs); training it again" in said
    assert "1 trained and 2 linked" in said
    assert finished.adapters() == before


def test_damaged_tables_base_weights_and_models(finished):
    (prompts,) = (finished.folder / "results/prompts").glob("*/*.parquet")
    rewrite(prompts, lambda content: content[:50])
    base_weight = finished.folder / "results/adapters/tiny/rank=2_alpha=32/base_weight"
    rewrite(base_weight / TENSORS, flip)
    before = finished.adapters()
    said = finished.snakemake("verify", check=False).stdout
    assert "2 damaged, and removed" in said
    assert f"{prompts.relative_to(finished.folder)}: is no whole table" in said
    assert "not the base weight of" in said
    assert "0 trained and 6 linked" in finished.snakemake().stdout  # the same again, so the same digests
    assert finished.adapters() == before

    shutil.rmtree(base_weight)  # the adapters do not depend on it any more
    rewrite(finished.folder / "resources/models/tiny/model.safetensors", flip)
    mine, damaged = (finished.folder / path for path in list(digests(finished))[:2])
    (mine / "notes.txt").write_text("mine")
    rewrite(mine / TENSORS, flip)
    rewrite(damaged / TENSORS, flip)
    said = finished.snakemake("verify", check=False).stdout
    assert "1 damaged, and removed; 2 more for you to mend" in said
    assert "Move your own files away (notes.txt)" in said
    assert (mine / "notes.txt").exists()
    assert not damaged.exists()
    assert len(finished.adapters()) == 5
    assert "resources/models/tiny: the weights differ from its fingerprint" in said
    assert (finished.folder / "resources/models/tiny").exists()


def test_prune_removes_what_no_run_and_no_output_refers_to(finished):
    other = {"num_train_epochs": 2, "sample": 1}
    finished.snakemake(**other)
    store = finished.folder / "results/store"
    assert finished.trained() == 8
    dead, young, foreign = (
        store / "tmp" / name for name in (f"{'0' * 64}.9.01234567", f"{'1' * 64}.9.01234567", "mine")
    )
    for folder in (dead, young, foreign):
        folder.mkdir()
        (folder / TENSORS).write_bytes(b"x" * 1000)
    for folder in (dead, foreign):
        os.utime(folder, (0, folder.stat().st_mtime - ABANDONED - 60))

    said = finished.snakemake("prune").stdout
    assert "8 entries: 6 of this config's runs, 2 that others' outputs share or that are younger than 3 days" in said
    assert "and 0 (0.0 MB) of nobody; 1 half written (0.0 MB)" in said
    assert finished.trained() == 8
    assert not dead.exists()
    assert young.exists()
    assert foreign.exists()

    shutil.rmtree(finished.folder / "results/adapters/tiny/rank=2_alpha=32/toy/lr=0.01_epoch=2_direct")
    assert "nothing to remove" in finished.snakemake("prune").stdout  # they may be of a run that was stopped
    for entry in store.glob("??/*"):
        os.utime(entry, (0, entry.stat().st_mtime - RECENT - 60))
    said = finished.snakemake("prune").stdout
    assert "and 2 (0.0 MB) of nobody" in said
    assert said.index("of nobody") < said.index("removed 2, 0.0 MB")
    assert finished.trained() == 6
    assert "Nothing to be done" in finished.snakemake().stdout
    assert "nothing is damaged" in finished.snakemake("verify").stdout


def test_the_index_comes_back(finished):
    (finished.folder / RUN / "adapters.tsv").unlink()
    (finished.folder / RUN / "run.json").unlink()
    finished.snakemake()
    assert len(digests(finished)) == 6
    assert json.loads((finished.folder / RUN / "run.json").read_text())


def test_run_json_holds_what_it_takes_to_make_the_adapters_again(finished):
    about = json.loads((finished.folder / RUN / "run.json").read_text())
    (config,) = about["config"]
    assert (config["learning_rate"], config["seed"], config["dataset"]) == (0.01, 42, "toy")
    assert not {"inference_methods", "max_new_tokens", "runs"} & config.keys()
    assert about["versions"].keys() >= {"python", "torch", "transformers", "peft", "snakemake"}
    assert {len(about["model"][key]) for key in ("weights", "tokenizer")} == {64}
    assert len(about["base_weight"]["sha256"]) == 64
    assert {"data/toy/aug/total.json", "resources/prompt_templates.yaml"} == about["files"].keys()
    # of the checkout that the tests are in, where it has its history
    has = not subprocess.run(["git", "-C", tiny.ROOT, "rev-parse", "HEAD"], capture_output=True).returncode
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?" if has else "None", str(about["git"]))


def test_configs_are_written_anew_without_training(finished):
    """As they are after an update from a version that wrote a newer PEFT's keys."""
    newer = tiny.first_config("tiny")
    sha256 = hashlib.sha256(newer).hexdigest()
    before = finished.adapters()
    for path in digests(finished):
        rewrite(finished.folder / path / "adapter_config.json", lambda _: newer)
    records = list((finished.folder / RUN / ".lorary/records").rglob("*.tsv"))
    assert len(records) == 2
    for table in (finished.folder / RUN / "adapters.tsv", *records):
        header, *lines = table.read_text().splitlines()
        place = header.split("\t").index("config_sha256")
        rows = [[*row[:place], sha256, *row[place + 1 :]] for row in (line.split("\t") for line in lines)]
        times = table.stat()
        table.write_text("\n".join([header, *map("\t".join, rows)]) + "\n")
        os.utime(table, ns=(times.st_atime_ns, times.st_mtime_ns))
    said = finished.snakemake("verify").stdout
    assert (
        "6 adapters that not every PEFT reads, or finds the base model of: `snakemake rewrite_configs` writes" in said
    )
    assert "6 configs are written anew" in finished.snakemake("rewrite_configs").stdout
    said = finished.snakemake("verify").stdout
    assert "nothing is damaged" in said
    assert "rewrite_configs" not in said
    assert "Nothing to be done" in finished.snakemake().stdout
    assert finished.adapters() == before
    for path in digests(finished):
        config = json.loads((finished.folder / path / "adapter_config.json").read_text())
        assert (config["base_model_name_or_path"], "peft_version" in config) == ("resources/models/tiny", False)
