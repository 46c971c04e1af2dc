"""What the store keeps of augmentation, translators and tables are verified as adapters are."""

import hashlib
import json

import pyarrow.parquet as pq
import pytest

import tiny
from lorary.adapters.digest import digest_task_adapter
from lorary.adapters.files import write_adapter
from lorary.augment.kept import Results
from lorary.core.errors import LoraryError
from lorary.data import rows
from lorary.upkeep.verify import verify


def test_a_damaged_result_is_named_and_removed(tmp_path):
    store = str(tmp_path / "store")
    results = Results(store)
    good, bad = "a" * 64, "b" * 64
    results.put([(key, {"pairs": [], "complete": True, "tries_allowed": 4}) for key in (good, bad)])
    verify([], [], [], [], [store])
    path = results.path(bad)
    path.write_text(path.read_text(encoding="utf-8").replace("true", "false"), encoding="utf-8")
    with pytest.raises(LoraryError, match=f"{bad}.json: is not what was written"):
        verify([], [], [], [], [store])
    assert list(results.keys()) == [good]
    verify([], [], [], [], [store])


def test_a_damaged_translator_is_named_and_removed(tmp_path):
    files = {"translator": str(tmp_path / "translator.safetensors"), "about": str(tmp_path / "translator.json")}
    (tmp_path / "translator.json").write_text(json.dumps({"sha256": hashlib.sha256(b"weights").hexdigest()}))
    verify([], [], [], [], [], translators=[files])  # it is not there yet
    (tmp_path / "translator.safetensors").write_bytes(b"weights")
    verify([], [], [], [], [], translators=[files])
    (tmp_path / "translator.safetensors").write_bytes(b"weighty")
    with pytest.raises(LoraryError, match=r"translator\.safetensors: is not what was trained"):
        verify([], [], [], [], [], translators=[files])
    assert [path.name for path in tmp_path.iterdir()] == ["translator.json"]
    (tmp_path / "translator.safetensors").write_bytes(b"weights")
    (tmp_path / "translator.json").write_bytes(b"[")
    with pytest.raises(LoraryError, match=r"translator\.json: cannot be read"):
        verify([], [], [], [], [], translators=[files])


def test_the_part_of_a_translator_that_all_share_is_looked_at(tmp_path):
    files = {"translator": str(tmp_path / "translator.safetensors"), "about": str(tmp_path / "translator.json")}
    (tmp_path / "translator.safetensors").write_bytes(b"weights")
    shared, sha256 = tmp_path / "shared", hashlib.sha256(b"weights").hexdigest()
    write_adapter(shared, b'{"r": 2, "lora_alpha": 4}', b"tensors")
    about = {"sha256": sha256, "shared": digest_task_adapter(str(shared))}
    (tmp_path / "translator.json").write_text(json.dumps(about), encoding="utf-8")
    verify([], [], [], [], [], translators=[files])
    (shared / "adapter_model.safetensors").write_bytes(b"tensorz")
    with pytest.raises(LoraryError, match=r"shared/adapter_model\.safetensors: is not of the translator beside it"):
        verify([], [], [], [], [], translators=[files])
    assert [path.name for path in shared.iterdir()] == ["adapter_config.json"]


@pytest.mark.parametrize("group", range(3))
def test_a_table_is_read_to_its_end(tmp_path, monkeypatch, group):
    monkeypatch.setattr(rows, "GROUP", 4)
    path = tmp_path / "table.parquet"
    rows.save(rows.load_all([tiny.write_rows(tmp_path / "total.json", tiny.make_rows(5))], -1, "aug"), str(path))
    verify([], [], [str(path)], [], [])
    content = bytearray(path.read_bytes())
    content[pq.read_metadata(path).row_group(group).column(5).dictionary_page_offset + 60] ^= 1
    path.write_bytes(content)
    with pytest.raises(LoraryError, match=r"table.parquet: is no whole table"):
        verify([], [], [str(path)], [], [])
    assert not path.exists()
