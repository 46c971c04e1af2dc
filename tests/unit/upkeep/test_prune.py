"""Prune asks at a terminal, and keeps everything without a yes."""

import builtins
import os

import pytest

import tiny
from lorary.core.store import Store
from lorary.upkeep.prune import Wanted, prune

KEY = "ab" + 62 * "0"


@pytest.mark.parametrize(("answer", "kept"), [("", True), ("n", True), ("y", False), ("YES ", False)])
def test_nothing_goes_without_a_yes(made, tmp_path, monkeypatch, answer, kept):
    store = Store(str(tmp_path / "store"))
    store.put(KEY, b"{}", b"tensors", {})
    os.utime(store.entry(KEY), (0, 0))
    asked = []
    monkeypatch.setattr(builtins, "input", lambda question: asked.append(question) or answer)
    prompts = str(made / "llama.parquet")
    wanted = Wanted(
        str(store.directory),
        str(made / "llama"),
        str(made / "llama-base"),
        prompts,
        tiny.TRAINING,
        ["data_0/passage_0"],
    )
    prune([wanted], ask=True)
    assert asked == ["Remove these 1, 0.0 MB? [y/N] "]
    assert (store.get(KEY) is not None) == kept
