"""Nothing is written outside of a run's folders, and no file appears before it is whole."""

import os

import pytest

from lorary.core.errors import LoraryError
from lorary.core.files import check_folder, refuse_detours, written_whole


def test_a_link_below_the_root_may_not_lead_out(tmp_path):
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "model").mkdir(parents=True)
    outside.mkdir()
    refuse_detours(str(root / "model/toy/total"), str(root))
    (root / "model/within").symlink_to(root / "model")
    refuse_detours(str(root / "model/within/total"), str(root))
    (root / "model/toy").symlink_to(outside)
    with pytest.raises(LoraryError, match=r"model/toy is a symbolic link that leads out of .*root"):
        refuse_detours(str(root / "model/toy/total"), str(root))


def test_the_root_itself_may_be_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "root").symlink_to(tmp_path / "disk")
    refuse_detours(str(tmp_path / "root/model/toy"), str(tmp_path / "root"))


def test_a_folder_is_none_where_a_file_or_a_dead_link_lies(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "dead").symlink_to("gone")
    check_folder("adapter_dir", str(tmp_path / "new/folder"))
    with pytest.raises(LoraryError, match=r"adapter_dir: .*file is a file"):
        check_folder("adapter_dir", str(tmp_path / "file/below"))
    with pytest.raises(LoraryError, match=r"store_dir: .*dead is a symbolic link that leads nowhere"):
        check_folder("store_dir", str(tmp_path / "dead"))


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "table"
    target.write_text("old")
    dead, ending = tmp_path / ".table.98.part", tmp_path / ".table.99.part"
    for path in (dead, ending):
        path.write_text("half")
    os.utime(dead, (0, 0))

    class Killed(BaseException):
        pass

    with pytest.raises(Killed), written_whole(str(target)) as temporary:
        temporary.write_text("half")
        raise Killed
    assert target.read_text() == "old"
    with written_whole(str(target)) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert sorted(tmp_path.iterdir()) == [ending, target]
    assert target.read_text() == "new"
