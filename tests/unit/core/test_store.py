"""The store holds an adapter whole or not at all, and gives out links to what it holds."""

import json
import multiprocessing
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from lorary.adapters.files import CONFIG, TENSORS
from lorary.core.store import TRAINING, Store, digest

KEY = "ab" + 62 * "0"
CONTENT = b"{}\n", b"tensors" * 100
FILES = [CONFIG, TENSORS, TRAINING]


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "results" / "store"))


def put(store, note=1, content=CONTENT, key=KEY):
    store.put(key, *content, {"note": note})


def names(folder):
    return sorted(path.name for path in Path(folder).iterdir())


def no_link(*_, **__):
    raise OSError("Invalid cross-device link")


def assert_nothing_temporary(store):
    assert sorted(path for path in store.directory.rglob("*") if path.is_file()) == sorted(
        store.entry(KEY) / name for name in FILES
    )


def test_what_is_put_is_got_and_linked(store, tmp_path):
    assert store.get(KEY) is None
    put(store)
    assert store.get(KEY)["note"] == 1
    assert store.get(KEY)["sizes"]["adapter_model.safetensors"] == len(CONTENT[1])
    assert names(store.entry(KEY)) == FILES
    assert_nothing_temporary(store)
    out = tmp_path / "a" / "passage_0"
    store.link(KEY, str(out), CONTENT[0])
    assert names(out) == [CONFIG, TENSORS]
    assert ((out / CONFIG).read_bytes(), (out / TENSORS).read_bytes()) == CONTENT
    assert all((out / name).samefile(store.entry(KEY) / name) for name in (CONFIG, TENSORS))


def test_copies_where_there_can_be_no_links(store, tmp_path, monkeypatch):
    put(store)
    monkeypatch.setattr(os, "link", no_link)
    store.link(KEY, str(tmp_path / "out"), CONTENT[0])
    assert (tmp_path / "out" / TENSORS).read_bytes() == CONTENT[1]
    assert not (tmp_path / "out" / TENSORS).samefile(store.entry(KEY) / TENSORS)


def test_link_replaces_what_lies_there_without_writing_through_it(store, tmp_path):
    put(store)
    out, foreign = tmp_path / "out", tmp_path / "foreign"
    out.mkdir()
    foreign.write_text("of another run")
    os.link(foreign, out / TENSORS)
    (out / CONFIG).symlink_to(foreign)
    store.link(KEY, str(out), CONTENT[0])
    assert (out / TENSORS).samefile(store.entry(KEY) / TENSORS)
    assert not (out / CONFIG).is_symlink()
    assert foreign.read_text() == "of another run"


def test_outputs_outlive_the_store(store, tmp_path):
    put(store)
    store.link(KEY, str(tmp_path / "out"), CONTENT[0])
    shutil.rmtree(store.directory)
    assert (tmp_path / "out" / TENSORS).read_bytes() == CONTENT[1]
    assert store.get(KEY) is None
    put(store, note=2)
    assert store.get(KEY)["note"] == 2


def test_whole_entry_is_kept(store):
    put(store, note=1)
    inode = (store.entry(KEY) / TENSORS).stat().st_ino
    put(store, note=2)
    assert store.get(KEY)["note"] == 1
    assert (store.entry(KEY) / TENSORS).stat().st_ino == inode
    assert_nothing_temporary(store)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("content", [None, b"", b"{", b"{}", b"[]", b"null", b"\xff"])
def test_damaged_entry_is_none_and_is_replaced(store, name, content):
    """Missing, empty, cut short, or something else."""
    put(store, note=1)
    path = store.entry(KEY) / name
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    assert store.get(KEY) is None
    put(store, note=2)
    assert store.get(KEY)["note"] == 2
    assert names(store.entry(KEY)) == FILES
    assert_nothing_temporary(store)


def test_empty_folder_in_the_place_of_an_entry_is_replaced(store):
    store.entry(KEY).mkdir(parents=True)
    put(store)
    assert store.get(KEY)["note"] == 1


def test_put_that_fails_leaves_nothing(store, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        put(store)
    assert store.get(KEY) is None
    assert not [path for path in store.directory.rglob("*") if path.is_file()]


def _put_at_once(directory, barrier, rounds):
    store = Store(directory)
    for i in range(rounds):
        barrier.wait(timeout=10)
        store.put(f"{i:064x}", *CONTENT, {"note": os.getpid()})


@pytest.mark.parametrize("damaged", [False, True])
def test_two_processes_putting_the_same_at_once(store, damaged):
    rounds = 20
    if damaged:
        for i in range(rounds):
            put(store, key=f"{i:064x}")
            (store.entry(f"{i:064x}") / TRAINING).unlink()
    context = multiprocessing.get_context("spawn")
    arguments = str(store.directory), context.Barrier(2), rounds
    processes = [context.Process(target=_put_at_once, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=60)
    assert [process.exitcode for process in processes] == [0, 0]
    for i in range(rounds):
        assert store.get(f"{i:064x}")["note"] in [process.pid for process in processes]
        assert names(store.entry(f"{i:064x}")) == FILES
    assert len([path for path in store.directory.rglob("*") if path.is_file()]) == rounds * len(FILES)


@pytest.mark.parametrize("already_back", [False, True])
def test_damaged_entry_that_another_process_is_replacing(store, monkeypatch, already_back):
    """Between the look at a damaged entry and its removal, the other one has moved it away, or put a whole one, which
    stays: outputs may be links to it already."""
    put(store)
    (store.entry(KEY) / TRAINING).unlink()
    damage, looks = store.damage, []

    def look_meanwhile(key):
        looks.append(damage(key))
        if len(looks) == 1:
            shutil.rmtree(store.entry(KEY))
            if already_back:
                put(Store(str(store.directory)), note=2)
        return looks[-1]

    monkeypatch.setattr(store, "damage", look_meanwhile)
    put(store, note=3)
    assert looks == ["a file is missing, cut off or of another size", None][: 1 + already_back]
    assert store.get(KEY)["note"] == (2 if already_back else 3)
    assert_nothing_temporary(store)


def test_files_are_as_open_as_the_umask_lets_them(store, tmp_path, monkeypatch):
    mask = os.umask(0o027)
    try:
        put(store)
        store.link(KEY, str(tmp_path / "linked"), CONTENT[0])
        monkeypatch.setattr(os, "link", no_link)
        store.link(KEY, str(tmp_path / "copied"), CONTENT[0])
    finally:
        os.umask(mask)
    folders = [store.entry(KEY), tmp_path / "linked", tmp_path / "copied"]
    assert {folder.stat().st_mode & 0o777 for folder in folders} == {0o750}
    modes = {path: path.stat().st_mode & 0o777 for folder in folders for path in folder.iterdir()}
    # what outputs share with the store is for reading; a copy is the user's own
    assert {mode for path, mode in modes.items() if path.parent != folders[2]} == {0o440}
    assert {mode for path, mode in modes.items() if path.parent == folders[2]} == {0o640}


def arrays(*sequences):
    return [(np.array(ids, dtype=np.int32), None) for ids in sequences]


SETTINGS = {"model": "m", "base_weight": "b", "learning_rate": 3e-4, "num_train_epochs": 1}
SEQUENCES = [1, 2, 3], [4]


def test_digest_of_the_same_is_the_same():
    expected = digest(SETTINGS, arrays(*SEQUENCES))
    # as every store has it: another digest would train everything anew
    assert expected == "e0d2b8e9c058eedf8dd4e8beaecc3f006d8a775c070ed48e91907a63d4c859e3"
    assert digest(dict(reversed(SETTINGS.items())), iter(arrays(*SEQUENCES))) == expected
    assert (
        digest(json.loads(json.dumps(SETTINGS)), [(ids.astype(">i4"), None) for ids, _ in arrays(*SEQUENCES)])
        == expected
    )


def test_digest_changes_with_every_setting_and_every_id():
    variants = [digest(SETTINGS, arrays(*SEQUENCES))]
    changes = {"model": "n", "base_weight": "c", "learning_rate": 1e-4, "num_train_epochs": 2, "precision": "bfloat16"}
    variants += [digest({**SETTINGS, key: value}, arrays(*SEQUENCES)) for key, value in changes.items()]
    others = (
        [[1, 2, 5], [4]],
        [[1, 2], [3, 4]],
        [[1, 2, 3, 4]],
        [[4], [1, 2, 3]],
        [[1, 2, 3], [4], []],
        [[3, 2, 1], [4]],
    )
    variants += [digest(SETTINGS, arrays(*sequences)) for sequences in (*others, [])]
    spans = [(1, 2), (0, 2), (2, 3)]
    variants += [digest(SETTINGS, [(ids, span) for ids, _ in arrays(*SEQUENCES)]) for span in spans]
    assert len(set(variants)) == len(variants)
