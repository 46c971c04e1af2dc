"""Prune asks at a terminal, keeps everything without a yes, and what an output of any run is a link to or a copy of."""

import builtins
import errno
import os
import shutil

import pandas as pd
import pytest

import tiny
from lorary.core.store import Store
from lorary.train.records import COLUMNS
from lorary.upkeep.prune import Wanted, prune

KEY = "ab" + 62 * "0"


def wanted(made, store):
    """A batch that has nothing to do with KEY."""
    files = (str(made / name) for name in ("llama", "llama-base", "llama.parquet"))
    return Wanted(str(store.directory), *files, tiny.TRAINING, ["data_0/passage_0"])


@pytest.mark.parametrize(("answer", "kept"), [("", True), ("n", True), ("y", False), ("YES ", False)])
def test_nothing_goes_without_a_yes(made, tmp_path, monkeypatch, answer, kept):
    store = Store(str(tmp_path / "store"))
    store.put(KEY, b"{}", b"tensors", {})
    os.utime(store.entry(KEY), (0, 0))
    asked = []
    monkeypatch.setattr(builtins, "input", lambda question: asked.append(question) or answer)
    prune([wanted(made, store)], ask=True)
    assert asked == ["Remove these 1, 0.0 MB? [y/N] "]
    assert (store.get(KEY) is not None) == kept


def test_of_adapters_that_were_translated_those_in_their_record_stay(tmp_path):
    """Whose run may have nothing that is trained."""
    store, record = Store(str(tmp_path / "store")), tmp_path / "0-0.01234567.tsv"
    other = KEY.replace("b", "c")
    for key in (KEY, other):
        store.put(key, b"{}", b"tensors", {})
        os.utime(store.entry(key), (0, 0))
    pd.DataFrame([{**dict.fromkeys(COLUMNS, 0), "digest": KEY}]).to_csv(record, sep="\t", index=False)
    batches = [Wanted(str(store.directory), record=str(path)) for path in (record, tmp_path / "of no call yet.tsv")]
    prune(batches, ask=False)
    assert store.get(KEY) is not None
    assert store.get(other) is None
    record.unlink()
    prune(batches, ask=False)
    assert store.get(KEY) is None


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """A store with an old entry, and the folder of a run of somebody's whose output is a copy of it."""
    store, theirs = Store(str(tmp_path / "store")), tmp_path / "theirs"
    store.put(KEY, b"{}", b"tensors", {})

    def refuse(*_, **__):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    records = theirs / "results/adapters/run/.lorary/records"
    (records / "total").mkdir(parents=True)
    with monkeypatch.context() as patched:
        patched.chdir(theirs)
        patched.setattr(os, "link", refuse)
        Store(str(store.directory), str(records)).link(KEY, "results/adapters/data_0/passage_0", b"{}")
    line = {**dict.fromkeys(COLUMNS, 0), "path": "results/adapters/data_0/passage_0", "digest": KEY}
    pd.DataFrame([line]).to_csv(records / "total/0-0.01234567.tsv", sep="\t", index=False)
    os.utime(store.entry(KEY), (0, 0))
    (tmp_path / "ours").mkdir()
    monkeypatch.chdir(tmp_path / "ours")
    return store, theirs


def test_what_an_output_anywhere_is_a_copy_of_stays(made, copied):
    store, theirs = copied
    prune([wanted(made, store)], ask=False)
    assert store.get(KEY) is not None
    shutil.rmtree(theirs / "results/adapters/data_0")
    prune([wanted(made, store)], ask=False)
    assert store.get(KEY) is None


def test_copies_of_this_folder_stay_without_a_note(made, copied, monkeypatch):
    """As the first release left them."""
    store, theirs = copied
    shutil.rmtree(store.directory / "copies")
    (theirs / "results/train").mkdir()
    (theirs / "results/adapters/run/.lorary/records/total").rename(theirs / "results/train/name")
    monkeypatch.chdir(theirs)
    prune([wanted(made, store)], ask=False)
    assert store.get(KEY) is not None


def test_where_records_cannot_be_read_nothing_of_others_goes(made, copied, caplog):
    store, theirs = copied
    record = theirs / "results/adapters/run/.lorary/records/total/0-0.01234567.tsv"
    record.write_text("torn")
    prune([wanted(made, store)], ask=False)
    assert f"what is of nobody there is not known, and stays: {record}" in caplog.text
    assert store.get(KEY) is not None
    shutil.rmtree(theirs)  # nobody has anything any more
    prune([wanted(made, store)], ask=False)
    assert store.get(KEY) is None
