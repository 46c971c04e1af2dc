"""Adapters in packs: the same bytes, and nothing is lost at whatever moment a job ends."""

import errno
import os
import shutil

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save

from lorary.core import pack, packing
from lorary.core.errors import LoraryError
from lorary.core.files import sha256
from lorary.core.store import PACKS, Store
from lorary.core.values import CONFIG, TENSORS

CONTENT = b'{"r": 2}\n'
KEYS = [f"{number:02x}" + 62 * "0" for number in range(4)]
PLACES = {f"data_{number}/passage_0": key for number, key in enumerate(KEYS)}


def tensors(number):
    """Of an adapter's file; numbers that tell it apart."""
    return {name: np.full((2, 3), number + part, np.float32) for part, name in enumerate(("a.lora_A", "a.lora_B"))}


def file(number):
    return save(tensors(number), metadata={"format": "pt"})


@pytest.fixture
def store(tmp_path):
    made = Store(str(tmp_path / "store"))
    for number, key in enumerate(KEYS):
        made.put(key, CONTENT, file(number), {"note": number})
    return made


def link(store, places=PLACES, config=CONTENT):
    """Returns the output."""
    output = store.directory.parent / "out/packed/0-3.01234567.safetensors"
    packing.link_pack(store, places, config, str(output))
    return output


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def damage(path, row=1):
    """Another number in a row, for this name and all its links."""
    path.chmod(0o644)
    with path.open("r+b") as opened:
        found = pack.Pack(path)
        opened.seek(found.start + row * found.size)
        opened.write(b"\x01\x02")


def test_a_pack_gives_back_each_file_and_is_one_tensor(store):
    output = link(store)
    for number, place in enumerate(PLACES):
        adapter = pack.within(str(output), place)
        assert pack.contents(adapter) == {CONFIG: CONTENT, TENSORS: file(number)}
        assert pack.is_there(adapter)
    with safe_open(output, "numpy") as opened:
        assert list(opened.keys()) == [pack.ROWS]
        whole = opened.get_tensor(pack.ROWS)
    assert whole.dtype == np.float32
    assert [list(row) for row in whole] == [[n] * 6 + [n + 1] * 6 for n in range(4)]
    assert pack.digests_of(output) == KEYS


def test_the_store_has_what_is_packed_in_one_file(store):
    before = {key: store.get(key) for key in KEYS}
    output = link(store)
    (kept,) = files(store.directory)
    assert kept.parent.name == PACKS
    assert output.samefile(kept)
    assert not kept.stat().st_mode & 0o222
    assert {key: store.get(key) for key in KEYS} == before
    assert not any(map(store.fault, KEYS))
    assert store.get("ff" * 32) is None
    assert list(store.digests()) == []


def test_an_adapter_in_a_pack_is_linked_as_any(store, tmp_path):
    link(store)
    out = tmp_path / "data_0" / "passage_0"
    store.link(KEYS[2], str(out), b"other config")
    assert ((out / CONFIG).read_bytes(), (out / TENSORS).read_bytes()) == (b"other config", file(2))
    assert (out / TENSORS).samefile(store.entry(KEYS[2]) / TENSORS)
    assert sha256(store.entry(KEYS[2]) / CONFIG) == store.get(KEYS[2])["sha256"][CONFIG]


@pytest.mark.parametrize("moment", range(14))
def test_killed_at_any_moment_nothing_is_lost_and_it_goes_on_to_the_same_file(store, moment, monkeypatch):
    """At each change of the file system, in turn."""
    expected = link(Store(shutil.copytree(store.directory, store.directory.with_name("undisturbed") / "store")))
    calls = []

    def killed_at(function):
        def called(*arguments, **keywords):
            calls.append(function)
            if len(calls) == moment + 1:
                raise KeyboardInterrupt
            return function(*arguments, **keywords)

        return called

    with monkeypatch.context() as patched:
        for name in ("fsync", "replace", "rename", "link", "rmdir", "unlink"):
            patched.setattr(os, name, killed_at(getattr(os, name)))
        with pytest.raises(KeyboardInterrupt):
            link(store)
    again = Store(str(store.directory))
    assert [again.get(key)["note"] for key in KEYS] == [0, 1, 2, 3]
    assert not any(map(again.fault, KEYS))
    assert link(again).read_bytes() == expected.read_bytes()
    assert [
        path for path in files(store.directory) if not path.is_relative_to(store.directory / "tmp")
    ] == again.packs.files()


def test_a_damaged_row_is_found_and_another_adapter_takes_its_place(store):
    kept = link(store)
    damage(kept)
    assert "its sha256 differs" in store.fault(KEYS[1])
    assert [store.fault(key) for key in KEYS if key != KEYS[1]] == [None, None, None]
    with pytest.raises(LoraryError, match=r"has lost adapters while this job ran .* the same command goes on"):
        link(store)
    store.put(KEYS[1], CONTENT, file(1), {"note": 1})  # trained again
    assert store.fault(KEYS[1]) is None
    output = link(store)
    assert pack.contents(pack.within(str(output), "data_1/passage_0"))[TENSORS] == file(1)
    assert len(files(store.directory)) == 1


def test_what_is_whole_in_a_damaged_pack_is_rescued(store):
    kept = link(store)
    damage(kept)
    packing.rescue(store, *store.packs.files())
    assert list(store.digests()) == [KEYS[0], *KEYS[2:]]
    assert [store.get(key)["note"] for key in (KEYS[0], *KEYS[2:])] == [0, 2, 3]


@pytest.mark.parametrize("cut", [0, 20, 100, 3000])
def test_what_is_no_whole_pack_is_not_there(store, cut):
    """Nor does it stop anything."""
    link(store)
    (kept,) = files(store.directory)
    kept.chmod(0o644)
    os.truncate(kept, cut)
    assert [Store(str(store.directory)).get(key) for key in KEYS] == [None] * 4


def test_an_index_that_is_not_what_was_written_is_not_believed(store):
    link(store)
    (kept,) = files(store.directory)
    kept.chmod(0o644)
    content = kept.read_bytes()
    kept.write_bytes(content.replace(rb"note\\\": 1", rb"note\\\": 9"))
    assert kept.read_bytes() != content
    found = pack.Pack(kept)
    assert "says of data_1/passage_0 is not what was written" in found.damage(found.rows[1])
    assert [found.damage(row) for row in found.rows if row.number != 1] == [None] * 3
    assert [Store(str(store.directory)).get(key) for key in KEYS] == [None] * 4


def test_records_of_training_are_read_only_when_they_are_asked_for(store, monkeypatch):
    adapter, read = pack.within(str(link(store)), "data_1/passage_0"), []
    monkeypatch.setattr(pack, "seal", lambda *_: read.append(1) or "")
    assert pack.contents(adapter)[TENSORS] == file(1)
    assert read == []


def test_of_two_packs_the_later_counts_and_one_that_holds_another_replaces_it(store):
    three, others = dict(list(PLACES.items())[:3]), {"data_9/passage_0": KEYS[2], "data_9/passage_1": KEYS[3]}
    link(store, three)
    (first,) = store.packs.files()
    os.utime(first, (0, 0))
    link(store, others)
    second, _ = store.packs.files()
    assert store.packs.find(KEYS[2])[0].path == second
    assert store.packs.find(KEYS[0])[0].path == first
    link(store, PLACES)
    assert len(store.packs.files()) == 1


def test_what_is_damaged_in_a_pack_gets_no_entry(store, tmp_path):
    """Whose sha256 would be that of the damaged file."""
    damage(link(store))
    with pytest.raises(FileNotFoundError):
        store.link(KEYS[1], str(tmp_path / "data_1/passage_0"), CONTENT)
    store.rename(KEYS[1], "ff" * 32)
    assert list(store.digests()) == []


def test_a_pack_is_written_to_no_place_but_its_own(store, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/packed").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LoraryError, match="out/packed is a symbolic link"):
        link(store)
    assert len(list(store.digests())) == 4


def test_another_users_pack_is_copied(store, monkeypatch):
    """Snakemake could not set its time."""
    monkeypatch.setattr(os, "geteuid", lambda: -1)
    output = link(store)
    (kept,) = store.packs.files()
    assert output.read_bytes() == kept.read_bytes()
    assert not output.samefile(kept)


def test_what_may_not_be_taken_away_stays(store, monkeypatch):
    """As another user's entry may be, in a store of several."""

    def refuse(*_):
        raise PermissionError

    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", refuse)
        output = link(store)
    assert list(store.digests()) == KEYS
    assert link(store).read_bytes() == output.read_bytes()
    assert list(store.digests()) == []


@pytest.mark.parametrize("killed", [False, True])
def test_a_copy_on_a_full_disk_leaves_nothing_behind(store, monkeypatch, killed):
    """Nor does one that was killed long ago."""
    output = link(store)
    before = output.read_bytes()
    left = output.with_name(f".{output.name}.1.part")
    left.write_bytes(b"half")
    if killed:
        os.utime(left, (0, 0))

    def full(_, target):
        target.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="No space left"):
        patched.setattr(os, "geteuid", lambda: -1)
        patched.setattr(shutil, "copyfile", full)
        link(store)
    assert output.read_bytes() == before
    assert files(output.parent) == ([] if killed else [left]) + [output]  # it may be just ending


def test_a_pack_that_cannot_be_read_hides_no_other(store, monkeypatch):
    """And a look that ended early counts for none."""
    link(store, dict(list(PLACES.items())[:2]))
    link(store, dict(list(PLACES.items())[2:]))
    digests_of, refused = pack.digests_of, []

    def refuse(path):
        if not refused:
            refused.append(path)
            raise PermissionError
        return digests_of(path)

    monkeypatch.setattr(pack, "digests_of", refuse)
    assert [store.get(key) is not None for key in KEYS] == [True, True, False, False]
    monkeypatch.setattr(pack, "digests_of", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
    again = Store(str(store.directory))
    with pytest.raises(KeyboardInterrupt):
        again.get(KEYS[0])
    monkeypatch.setattr(pack, "digests_of", digests_of)
    assert all(again.get(key) for key in KEYS)


def test_a_pack_that_goes_while_it_is_looked_for_is_found_under_its_new_name(store, monkeypatch):
    """Even where the folder has the time that it had before."""
    link(store, dict(list(PLACES.items())[:2]))
    assert store.get(KEYS[0])
    folder = store.directory / PACKS
    seen = folder.stat().st_mtime_ns
    link(Store(str(store.directory)))
    os.utime(folder, ns=(seen, seen))
    assert store.get(KEYS[0])
    assert len(store.packs.files()) == 1


def test_a_pack_is_looked_at_once_however_many_come_beside_it(store, monkeypatch):
    digests_of, looked_at = pack.digests_of, []
    monkeypatch.setattr(pack, "digests_of", lambda path: looked_at.append(path) or digests_of(path))
    for start in range(3):
        link(Store(str(store.directory)), dict(list(PLACES.items())[start : start + 1]))
        looked_at.clear()
        assert [store.packs.find(key) is not None for key in KEYS] == [i <= start for i in range(4)]
        assert len(looked_at) == 1


def test_packs_with_none_of_the_same_adapters_are_not_read_when_another_is_made(store, monkeypatch):
    for place, key in list(PLACES.items())[:3]:
        link(Store(str(store.directory)), {place: key})
    last = Store(str(store.directory), wanted={KEYS[2], KEYS[3]})
    assert last.packs.find(KEYS[2])
    digests_of, looked_at = pack.digests_of, []
    monkeypatch.setattr(pack, "digests_of", lambda path: looked_at.append(path) or digests_of(path))
    (former,) = (path for path in last.packs.files() if KEYS[2] in digests_of(path))
    link(last, dict(list(PLACES.items())[2:]))
    assert former in looked_at
    assert all(path == former or path in last.packs.files() for path in looked_at)
    assert len(set(looked_at)) <= 2  # the former one, which goes, and the new one
    assert len(last.packs.files()) == 3


def test_a_pack_whose_index_is_written_otherwise_is_found_after_it_was_put_back(store, tmp_path):
    content = link(store).read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + size] + 8 * b" "  # as another release may have written it
    (tmp_path / "pack.safetensors").write_bytes(pack.own_file(header, content[8 + size :]))
    for path in store.packs.files():
        path.unlink()
    packing.put_back(store, tmp_path / "pack.safetensors")
    assert all(store.get(key) for key in KEYS)


def test_only_what_is_wanted_is_looked_for(store):
    link(store)
    other = Store(str(store.directory), wanted={KEYS[1]})
    assert [other.get(key) is not None for key in KEYS] == [False, True, False, False]


def test_an_adapter_in_a_pack_gets_the_digest_of_a_later_release(store):
    link(store)
    store.rename(KEYS[0], "ff" * 32)
    assert store.get("ff" * 32)["note"] == 0
    assert store.fault("ff" * 32) is None


def test_adapters_of_other_shapes_make_no_pack(store):
    for key, other in (("ff", np.zeros(5, np.float32)), ("ee", np.zeros(24, np.float16))):
        store.put(key * 32, CONTENT, save({"a": other}), {})
        with pytest.raises(LoraryError, match="are no tensor together"):
            link(store, PLACES | {"data_9/passage_0": key * 32})
    assert len(list(store.digests())) == 6
