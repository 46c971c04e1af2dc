"""Adapters of a job in one pack: the same as in directories for all that reads them, and trained once."""

import hashlib
import json
import logging
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load
from transformers import AutoModelForCausalLM

import tiny
from lorary.adapters import merge
from lorary.adapters.files import config_bytes, read_adapter, tensors_bytes, trained_config, write_adapter
from lorary.adapters.gguf import write_gguf
from lorary.answer.source import Trained
from lorary.core.errors import LoraryError
from lorary.core.pack import pack_of
from lorary.core.store import Store
from lorary.core.values import CONFIG, TENSORS
from lorary.data import prompts
from lorary.train.encode import train_adapters
from lorary.train.outputs import unpack
from lorary.train.records import read_record
from lorary.upkeep import configs, prune, verify

RECORD = ".lorary/records/total/0-2.01234567.tsv"
PACK = "total/packed/0-2.01234567.safetensors"
PLACES = [f"data_{did}/passage_0" for did in range(3)]
DIRECTORIES, PACKED = ([f"{folder}/{place}" for place in PLACES] for folder in ("total", PACK))


@pytest.fixture
def batch(made, tmp_path, monkeypatch):
    """What a job of three passages is called with; in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    Path(RECORD).parent.mkdir(parents=True)
    files = {"model": "llama", "base_weight": "llama-base", "prompts": "llama.parquet"}
    return {key: str(made / name) for key, name in files.items()}


def train(batch, outputs, record=RECORD, **files):
    """How many passages the job has trained."""
    train_adapters(
        outputs=outputs,
        record=record,
        outcome="outcome.json",
        adapters_per_step="auto",
        threads=1,
        **{"settings": tiny.TRAINING, "store": "store", **batch, **files},
    )
    return json.loads(Path("outcome.json").read_bytes())["trained"]


def tree(folder="total"):
    return {str(path): path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()}


def changed(batch, sequence):
    """Prompt ids as the job's, and those of one passage others."""
    table = pq.read_table(batch["prompts"]).to_pylist()
    rows = [{**row, "input_ids": sequence if row["did"] == 1 else row["input_ids"]} for row in table]
    pq.write_table(prompts.pa.Table.from_pylist(rows, schema=prompts.PROMPT_SCHEMA), "changed.parquet")
    return "changed.parquet"


def flip(path, place=-3):
    Path(path).chmod(0o644)
    content = bytearray(Path(path).read_bytes())
    content[place] ^= 1
    Path(path).write_bytes(content)  # the same file: all its links


def checked(batch):
    """What verify says is damaged; nothing: an empty text."""
    try:
        verify.verify([{**batch, "record": RECORD, "store": "store"}], [], [], [], ["store"])
    except LoraryError as error:
        return str(error)
    return ""


def test_from_directories_to_a_pack_and_back_nothing_is_trained_and_no_byte_changes(batch):
    assert train(batch, DIRECTORIES) == 3
    before, settings = tree(), read_record(RECORD).drop(columns="path")
    Path("total/data_2/passage_0/notes.txt").write_bytes(b"mine")
    assert train(batch, PACKED) == 0
    assert list(tree()) == ["total/data_2/passage_0/notes.txt", PACK]
    assert [path.name for path in Path("store").iterdir() if path.name != "tmp"] == ["packs"]
    assert read_record(RECORD).drop(columns="path").equals(settings)
    assert list(read_record(RECORD)["path"]) == PACKED
    assert checked(batch) == ""
    assert [unpack(adapter) for adapter in PACKED] == [True] * 3
    assert tree() == before | {PACK: Path(PACK).read_bytes()} | {"total/data_2/passage_0/notes.txt": b"mine"}
    assert train(batch, DIRECTORIES) == 0
    assert tree() == before | {"total/data_2/passage_0/notes.txt": b"mine"}
    assert not unpack(DIRECTORIES[0])


def test_all_that_reads_adapters_reads_both(batch):
    train(batch, DIRECTORIES)
    trained = Trained.of_records([RECORD])
    digests, (config, tensors) = [trained.digest((did, 0)) for did in range(3)], read_adapter(DIRECTORIES[1])
    merge.merge_adapters(DIRECTORIES, "merged")
    write_gguf(DIRECTORIES[1], "one.gguf")
    train(batch, PACKED)
    trained = Trained.of_records([RECORD])
    assert [trained.digest((did, 0)) for did in range(3)] == digests
    found, same = read_adapter(PACKED[1])
    assert found == config
    assert all(tensors[name].equal(same[name]) for name in tensors.keys() | same.keys())
    assert trained.load((1, 0)).scale == 16
    write_gguf(PACKED[1], "of-pack.gguf")
    assert Path("of-pack.gguf").read_bytes() == Path("one.gguf").read_bytes()
    merge.merge_adapters(PACKED, "merged-of-pack")
    assert Path("merged-of-pack", TENSORS).read_bytes() == Path("merged", TENSORS).read_bytes()
    Path(PACK).unlink()
    with pytest.raises(LoraryError, match=r"data_1/passage_0/adapter_model.safetensors is missing. `snakemake verify`"):
        trained.digest((1, 0))


def test_adapters_in_bfloat16_are_those_in_float32_rounded(batch):
    """Trained so, or out of a store that has them in float32, in entries or in a pack: the same files."""
    in_bfloat16 = {"settings": {**tiny.TRAINING, "adapter_precision": "bfloat16"}}
    assert train(batch, DIRECTORIES) == 3
    exact, records = tree(), read_record(RECORD)
    assert train(batch, DIRECTORIES, store="other", **in_bfloat16) == 3
    rounded = tree()
    for path, content in exact.items():
        if path.endswith(TENSORS):
            before, after = load(content), load(rounded[path])
            assert before.keys() == after.keys()
            assert all(after[name].equal(before[name].bfloat16()) for name in before)
            assert not any(after[name].float().equal(before[name]) for name in before)
        else:
            assert rounded[path] == content
    assert (read_record(RECORD)["sha256"] != records["sha256"]).all()
    assert train(batch, DIRECTORIES, **in_bfloat16) == 0
    assert tree() == rounded
    for damaged in ("a byte", "the end"):
        key = read_record(RECORD)["digest"][0]
        path = Path("store", key[:2], key, TENSORS)
        content = path.read_bytes()
        path.chmod(0o600)
        path.write_bytes(content[:-1] if damaged == "the end" else bytes([*content[:-1], content[-1] ^ 1]))
        assert train(batch, DIRECTORIES, **in_bfloat16) == 0
        assert tree() == rounded
    for store, trained in (("store", 0), ("packs", 3)):
        assert train(batch, PACKED, store=store) == trained
        assert train(batch, PACKED, store=store, **in_bfloat16) == 0
        assert load(Path(PACK).read_bytes())["adapters"].dtype == torch.bfloat16
        assert [unpack(adapter) for adapter in PACKED] == [True] * 3
        assert tree() == rounded | {PACK: Path(PACK).read_bytes()}
        assert checked(batch) == ""


def test_what_reads_adapters_in_bfloat16_computes_in_float32(batch):
    settings = {**tiny.TRAINING, "adapter_precision": "bfloat16"}
    train(batch, DIRECTORIES, settings=settings)
    config, tensors = read_adapter(DIRECTORIES[1])
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    write_adapter(Path("same"), config_bytes(config), tensors_bytes(tensors))
    assert Path("same", TENSORS).stat().st_size > 1.5 * Path(DIRECTORIES[1], TENSORS).stat().st_size
    merge.merge_adapters(["same", "same"], "merged")
    write_gguf("same", "same.gguf")
    base = AutoModelForCausalLM.from_pretrained(batch["model"], dtype=torch.float32)
    for name, parameter in PeftModel.from_pretrained(base, DIRECTORIES[1]).named_parameters():
        if ".lora_" in name:
            assert parameter.dtype == torch.float32
            assert parameter.equal(tensors[name.replace(".default", "")])
    digest = Trained.of_records([RECORD]).digest((1, 0))
    for adapters in (DIRECTORIES, PACKED):
        train(batch, adapters, settings=settings)
        assert Trained.of_records([RECORD]).digest((1, 0)) == digest
        assert all(tensor.equal(tensors[name]) for name, tensor in read_adapter(adapters[1])[1].items())
        merge.merge_adapters([adapters[1]] * 2, "of-these")
        assert Path("of-these", TENSORS).read_bytes() == Path("merged", TENSORS).read_bytes()
        write_gguf(adapters[1], "of-these.gguf")
        assert Path("of-these.gguf").read_bytes() == Path("same.gguf").read_bytes()


def test_one_passage_that_changes_is_trained_alone_and_one_that_fails_loses_no_other(batch):
    assert train(batch, PACKED) == 3
    before = Path(PACK).read_bytes()
    assert train(batch, PACKED, prompts=changed(batch, [5, 6, 7])) == 1
    assert Path(PACK).read_bytes() != before
    assert train(batch, PACKED) == 0  # what was there before is still in the store
    assert Path(PACK).read_bytes() == before
    with pytest.raises(LoraryError, match=r"1 of 3 passages failed.*(?s:.*)data_1/passage_0: "):
        train(batch, PACKED, prompts=changed(batch, [3, 512, 3]))
    Path(PACK).unlink()  # as Snakemake does
    assert train(batch, PACKED) == 0


def test_other_batches_find_what_is_packed_and_their_packs_replace_the_former(batch):
    record, pack = RECORD.replace("0-2.", "0-1."), PACK.replace("0-2.", "0-1.")
    assert train(batch, [f"{pack}/{place}" for place in PLACES[:2]], record) == 2
    assert list(tree()) == [pack]
    assert train(batch, PACKED) == 1
    assert list(tree()) == [PACK]
    assert not Path(record).exists()
    assert len(list(Path("store/packs").iterdir())) == 1


def test_no_directory_elsewhere_is_taken_for_one_that_is_packed(batch):
    train(batch, DIRECTORIES)
    Path("total/data_0").rename("elsewhere")
    Path("total/data_0").symlink_to(Path("elsewhere").absolute())
    train(batch, PACKED)
    assert Path("elsewhere/passage_0", TENSORS).is_file()
    assert not Path("total/data_1").exists()
    with pytest.raises(LoraryError, match="total/data_0 is a symbolic link"):
        unpack(PACKED[0])


@pytest.mark.parametrize("copied", [False, True])
def test_of_a_damaged_pack_just_what_is_damaged_is_trained_again(batch, monkeypatch, copied):
    if copied:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError("no links")))
    train(batch, PACKED)
    before = tree()
    flip(PACK)  # the last one
    with pytest.raises(LoraryError, match="its sha256 differs"):
        Trained.of_records([RECORD]).digest((2, 0))
    with pytest.raises(LoraryError, match="its sha256 differs"):
        unpack(PACKED[2])
    said = checked(batch)
    assert f"{PACK}: data_2/passage_0: missing, or not what was trained" in said
    assert "data_1" not in said
    assert not Path(PACK).exists()
    assert train(batch, PACKED) == (0 if copied else 1)
    if copied:
        assert tree() == before
    assert checked(batch) == ""


@pytest.mark.parametrize(
    ("place", "lost"),
    [
        (b'"digests":"', 0),
        (rb'"digest\": \"', 1),
        (rb'"place\": \"data', 0),
        (rb'"sequences\\\": ', 1),
        (rb'"seal\": \"', 1),
        (b'"shape":[', 0),
    ],
)
def test_what_a_damaged_index_says_of_others_is_kept(batch, place, lost):
    """A pack and its output are one file: both have the damage."""
    train(batch, PACKED)
    before = tree()
    content = Path(PACK).read_bytes()
    flip(PACK, content.index(place) + len(place))
    assert content != Path(PACK).read_bytes()
    assert "store/packs/" in checked(batch)
    assert not list(Path("store/packs").iterdir())
    assert len(list(Store("store").digests())) == 3 - lost
    assert Path(PACK).exists() == (place in (b'"digests":"', b'"shape":['))
    assert train(batch, PACKED) == lost
    assert len(tree()) == len(before)
    assert checked(batch) == ""


@pytest.mark.parametrize("cut", [0, -1])
def test_a_damaged_pack_of_the_store_comes_back_from_an_output_that_is_a_copy(batch, monkeypatch, cut):
    """Whether its index can be read or not."""
    monkeypatch.setattr(os, "geteuid", lambda: -1)
    train(batch, PACKED)
    (kept,) = Path("store/packs").iterdir()
    before = kept.read_bytes()
    flip(kept) if cut else (kept.chmod(0o644), os.truncate(kept, 100))
    assert "store/packs/" in checked(batch)
    assert kept.read_bytes() == before == Path(PACK).read_bytes()
    assert list(Store("store").digests()) == []
    assert checked(batch) == ""
    Path(PACK).unlink()
    assert train(batch, PACKED) == 0


def wanted(batch):
    """For prune."""
    return [prune.Wanted("store", *batch.values(), tiny.TRAINING, PACKED)]


def test_prune_keeps_packs_of_outputs_and_of_the_config(batch, caplog):
    caplog.set_level(logging.INFO)
    train(batch, PACKED)
    train(batch, PACKED, prompts=changed(batch, [5, 6, 7]))
    for path in Path("store/packs").iterdir():
        os.utime(path, (path.stat().st_mtime - prune.RECENT - 60,) * 2)
    prune.prune(wanted(batch), ask=False)
    assert "store: 2 packs: 0 (0.0 MB) of nobody" in caplog.text  # one has what the config wants, one is linked
    assert train(batch, PACKED) == 0
    Path(PACK).unlink()
    for path in Path("store/packs").iterdir():
        os.utime(path, (path.stat().st_mtime - prune.RECENT - 60,) * 2)
    prune.prune(wanted(batch), ask=False)
    assert "store: 2 packs: 1 (0.0 MB) of nobody" in caplog.text
    assert train(batch, PACKED) == 0
    assert checked(batch) == ""


def test_prune_keeps_a_pack_beside_a_damaged_entry(batch):
    """Of an entry that is cut off, the pack has the one whole copy."""
    train(batch, PACKED)
    (kept,) = Path("store/packs").iterdir()
    store = Store("store")
    for digest in read_record(RECORD)["digest"]:
        store.lay_out(digest)
    Path(PACK).unlink()
    for cut in (True, False):
        file = store.entry(digest) / TENSORS
        if cut:
            file.rename("whole")
            file.write_bytes(b"")
        else:
            Path("whole").replace(file)
        os.utime(kept, (0, 0))
        prune.prune(wanted(batch), ask=False)
        assert kept.exists() == cut


def test_a_pack_gets_the_config_of_today_without_training(batch, monkeypatch):
    old = tiny.first_config("llama")
    with monkeypatch.context() as patched:
        patched.setattr("lorary.adapters.files.trained_config", lambda *_: old)
        train(batch, PACKED)
    tensors, rewrite_config, tried = Trained.of_records([RECORD]).digest((2, 0)), configs.rewrite_config, []
    flip(PACK)
    with monkeypatch.context() as patched:
        patched.setattr(configs, "rewrite_config", lambda *given: tried.append(given) or rewrite_config(*given))
        configs.rewrite([{**batch, "record": RECORD}], [])
    assert len(tried) == 1  # for all in it
    assert read_adapter(PACKED[0])[0] == json.loads(old)
    flip(PACK)
    configs.rewrite([{**batch, "record": RECORD}], [])
    assert Trained.of_records([RECORD]).digest((2, 0)) == tensors
    assert checked(batch) == ""
    unpack(PACKED[0])
    assert Path(DIRECTORIES[0], CONFIG).read_bytes() == trained_config(batch["base_weight"], batch["model"])
    sha256 = hashlib.sha256(Path(DIRECTORIES[0], CONFIG).read_bytes()).hexdigest()
    assert set(read_record(RECORD)["config_sha256"]) == {sha256}
    assert pack_of(PACKED[0]) == Path(PACK)
    assert Store("store").get(read_record(RECORD)["digest"][0]) is not None
