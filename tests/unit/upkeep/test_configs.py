"""Configs of adapters as earlier versions wrote them are named, and written anew: nothing is trained or lost."""

import hashlib
import json
import logging
import os

import pandas as pd
import pytest

import tiny
from lorary.adapters.files import CONFIG, TENSORS, trained_config
from lorary.answer.source import Trained
from lorary.core.store import Store
from lorary.train.encode import train_adapters
from lorary.upkeep import configs
from lorary.upkeep.verify import verify

LONG_AGO = 10**9  # in ns


@pytest.fixture
def earlier(made, tmp_path, monkeypatch):
    """What an earlier version left: three adapters, which share their configs with the store, a record and an index."""
    monkeypatch.chdir(tmp_path)
    old = tiny.first_config("llama")
    with monkeypatch.context() as patched:
        patched.setattr("lorary.adapters.files.trained_config", lambda base_weight, model: old)
        train_adapters(
            outputs=[f"out/data_{did}/passage_0" for did in range(3)],
            record="record.tsv",
            outcome="outcome.json",
            model=str(made / "llama"),
            base_weight=str(made / "llama-base"),
            prompts=str(made / "llama.parquet"),
            settings=tiny.TRAINING,
            adapters_per_step="auto",
            store="store",
            threads=1,
        )
    index = pd.read_csv("record.tsv", sep="\t").assign(question='"one",\ntwo').drop(columns=["losses", "did", "pid"])
    index.to_csv("adapters.tsv", sep="\t", index=False)
    for name in ("record.tsv", "adapters.tsv"):
        os.utime(name, ns=(LONG_AGO, LONG_AGO))
    batch = {"record": "record.tsv", "base_weight": str(made / "llama-base"), "model": str(made / "llama")}
    return {**batch, "store": "store"}


def named(caplog, earlier):
    """What verify says of configs; nothing is damaged."""
    caplog.clear()
    caplog.set_level(logging.INFO)
    verify([earlier], [], [], [], ["store"])
    assert caplog.messages[-1] == "nothing is damaged"
    return [line for message in caplog.messages for line in message.splitlines() if "config" in line]


def without_config(table):
    return pd.read_csv(table, sep="\t").drop(columns="config_sha256")


def test_they_are_named_and_written_anew(earlier, tmp_path, caplog):
    title, *lines = named(caplog, earlier)
    assert "`snakemake rewrite_configs` writes their configs anew, and trains nothing" in title
    assert lines == [
        f"  out/data_{did}/passage_0: PEFT 0.13.2 cannot read its config, which has 17 keys of a newer one"
        for did in range(3)
    ]
    before = [without_config(table) for table in ("record.tsv", "adapters.tsv")]
    configs.rewrite([earlier], ["adapters.tsv", "another.tsv"])
    assert "3 configs are written anew" in caplog.text
    assert named(caplog, earlier) == []
    todays = trained_config(earlier["base_weight"], earlier["model"])
    for did in range(3):
        assert (tmp_path / f"out/data_{did}/passage_0/{CONFIG}").read_bytes() == todays
    for table, lines in zip(("record.tsv", "adapters.tsv"), before, strict=True):
        assert set(pd.read_csv(table, sep="\t")["config_sha256"]) == {hashlib.sha256(todays).hexdigest()}
        assert without_config(table).equals(lines)
        assert os.stat(table).st_mtime_ns == LONG_AGO  # or Snakemake would make all that follows anew
    store = Store("store")
    assert [store.damage(digest) for digest in store.digests()] == [None] * 3
    configs.rewrite([earlier], ["adapters.tsv"])
    assert "0 configs are written anew" in caplog.text


@pytest.mark.parametrize("survive", [0, 1, 2, 3])
def test_a_kill_in_the_middle_leaves_each_adapter_whole(earlier, caplog, monkeypatch, survive):
    """After so many of its files are written; the next call goes on."""
    replace, written = configs.written_whole, []

    def struck(path):
        if len(written) == survive:
            raise KeyboardInterrupt
        written.append(path)
        return replace(path)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(configs, "written_whole", struck)
        configs.rewrite([earlier], ["adapters.tsv"])
    assert len(named(caplog, earlier)) == 1 + 3  # no one is damaged
    configs.rewrite([earlier], ["adapters.tsv"])
    assert named(caplog, earlier) == []
    source = Trained.of_records(["record.tsv"])
    assert all(source.digest((did, 0)) for did in range(3))


def test_a_base_model_elsewhere_is_named(earlier, caplog):
    configs.rewrite([earlier], ["adapters.tsv"])
    config = json.loads(trained_config(earlier["base_weight"], earlier["model"]))
    config["base_model_name_or_path"] = "elsewhere"
    content = json.dumps(config).encode()
    table = pd.read_csv("record.tsv", sep="\t")
    table.loc[0, "config_sha256"] = hashlib.sha256(content).hexdigest()
    table.to_csv("record.tsv", sep="\t", index=False)
    with open(f"out/data_0/passage_0/{CONFIG}", "wb") as file:
        file.write(content)
    _, line = named(caplog, earlier)
    assert line.startswith("  out/data_0/passage_0: its config names elsewhere as the base model, which is ")


def test_what_means_something_else_is_left_alone(earlier, tmp_path, caplog):
    """A config of another rank, one that is not what was trained, and one that is not there."""
    first, second, third = (tmp_path / f"out/data_{did}/passage_0/{CONFIG}" for did in range(3))
    other = first.read_bytes().replace(b'"r": 2', b'"r": 4')
    first.unlink()
    first.write_bytes(other)
    table = pd.read_csv("record.tsv", sep="\t")
    table.loc[0, "config_sha256"] = hashlib.sha256(other).hexdigest()
    table.to_csv("record.tsv", sep="\t", index=False)
    content = second.read_bytes() + b" "
    second.unlink()
    second.write_bytes(content)
    third.unlink()
    caplog.set_level(logging.INFO)
    configs.rewrite([earlier], ["adapters.tsv"])
    assert "0 configs are written anew; 3 are not what their record says, or say something else" in caplog.text
    assert (first.read_bytes(), second.read_bytes(), third.exists()) == (other, content, False)
    assert (tmp_path / f"out/data_0/passage_0/{TENSORS}").exists()
