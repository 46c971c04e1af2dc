"""One store for several users: writable for the group where its folder is, and copies where there can be no links."""

import errno
import logging
import os
import shutil
import tempfile
import traceback
from pathlib import Path

import pytest

from lorary.core.store import CONFIG, TENSORS, TRAINING, Store

KEY, OTHER = "ab" + 62 * "0", "ab" + 62 * "1"
CONTENT = b"{}\n", b"tensors" * 100
GROUP, ANNE, BEN = 60_000, 60_001, 60_002  # nobody has to know of them


def modes(store):
    return {path: path.stat().st_mode & 0o7777 for path in store.directory.rglob("*")}


@pytest.mark.parametrize("mode", [0o2770, 0o770, 0o2775, 0o755, 0o700])
def test_what_is_new_is_as_open_as_the_stores_folder(tmp_path, mode):
    store = Store(str(tmp_path / "store"))
    store.directory.mkdir()
    store.directory.chmod(mode)
    mask = os.umask(0o077)
    try:
        store.put(KEY, *CONTENT, {})
        store.put(OTHER, *CONTENT, {})
        store.rename(OTHER, "cd" + OTHER[2:])
    finally:
        os.umask(mask)
    for path, found in modes(store).items():
        assert found == (mode if path.is_dir() else mode & 0o444), path


def as_user(user, do):
    """Call `do` as another user of the group, with the umask that users mostly have; in a process of its own."""
    child = os.fork()
    if not child:
        try:
            os.setgroups([GROUP])
            os.setgid(user)
            os.setuid(user)
            os.umask(0o022)
            do()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.fixture
def ours():
    """A folder that every user reaches, unlike pytest's."""
    folder = Path(tempfile.mkdtemp(prefix="lorary-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two users")
def test_a_second_user_adds_replaces_and_gets_adapters(ours):
    store = Store(str(ours / "store"))
    store.directory.mkdir()
    os.chown(store.directory, 0, GROUP)
    store.directory.chmod(0o2770)
    for user in (ANNE, BEN):
        (ours / str(user)).mkdir()
        os.chown(ours / str(user), user, user)
    as_user(ANNE, lambda: store.put(KEY, *CONTENT, {"of": "Anne"}))
    assert store.directory.joinpath("ab").stat().st_gid == GROUP

    def ben():
        assert store.get(KEY)["of"] == "Anne"
        store.put(OTHER, *CONTENT, {"of": "Ben"})
        for key in (KEY, OTHER):
            store.link(key, str(ours / f"{BEN}/{key}"), CONTENT[0])
            assert (ours / f"{BEN}/{key}" / TENSORS).read_bytes() == CONTENT[1]
        (store.entry(KEY) / TRAINING).unlink()  # a damaged entry of hers, as his job finds it
        store.put(KEY, *CONTENT, {"of": "Ben"})

    as_user(BEN, ben)
    assert [store.get(key)["of"] for key in (KEY, OTHER)] == ["Ben", "Ben"]
    as_user(ANNE, lambda: store.link(OTHER, str(ours / f"{ANNE}/{OTHER}"), CONTENT[0]))
    assert {path.stat().st_gid for path in store.directory.rglob("*")} == {GROUP}


@pytest.mark.parametrize(
    ("refusal", "why"),
    [
        (errno.EPERM, "the file system makes no hard links"),
        (errno.EXDEV, "it is on another file system than"),
        (errno.EMLINK, "Too many links"),
    ],
)
def test_copies_are_told_once(tmp_path, monkeypatch, caplog, refusal, why):
    store = Store(str(tmp_path / "store"))
    store.put(KEY, *CONTENT, {})

    def refuse(*_, **__):
        raise OSError(refusal, os.strerror(refusal))

    monkeypatch.setattr(os, "link", refuse)
    caplog.set_level(logging.INFO)
    for did in range(3):
        store.link(KEY, str(tmp_path / f"out/data_{did}/passage_0"), CONTENT[0])
    (line,) = caplog.messages
    assert line.startswith(
        f"adapters are copies of what {store.directory} has, not hard links, and take space of their"
    )
    assert why in line


def test_copies_of_anothers_files_are_told_as_such(tmp_path, monkeypatch, caplog):
    store = Store(str(tmp_path / "store"))
    store.put(KEY, *CONTENT, {})
    monkeypatch.setattr(os, "geteuid", lambda: BEN)

    def refuse(*_, **__):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    caplog.set_level(logging.INFO)
    store.link(KEY, str(tmp_path / "out"), CONTENT[0])
    assert "another user's, and the system forbids links to them (fs.protected_hardlinks)" in caplog.text
    assert (tmp_path / "out" / CONFIG).read_bytes() == CONTENT[0]
