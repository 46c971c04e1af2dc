"""python -m lorary ask says what it waits for, and what it needs."""

import fcntl
import os
import sys
import threading

import pytest

from lorary import __main__
from lorary.answer import ask
from lorary.core import device
from lorary.core.errors import LoraryError


def test_waiting_for_a_gpu_is_told(tmp_path, monkeypatch, capsys):
    held = os.open(tmp_path / "lorary-gpu.lock", os.O_RDONLY | os.O_CREAT)
    fcntl.flock(held, fcntl.LOCK_EX)

    def ask_on_a_gpu(*_):
        threading.Timer(0.2, os.close, [held]).start()
        with device.take_one(["gpu"], folder=str(tmp_path), wait=0.01):
            return "an answer"

    monkeypatch.setattr(ask, "ask", ask_on_a_gpu)
    monkeypatch.setattr(sys, "argv", ["lorary", "ask", "Who?"])
    assert __main__.main() == 0
    told = capsys.readouterr()
    assert told.out == "an answer\n"
    assert told.err == "waiting for a free GPU (1 there, all taken)\n"


def test_types_of_other_settings_are_not_asked_together():
    config = {"with_cot": False, "precision": "float32", "lora_target_modules": ["up_proj"]}
    assert ask._one_config([config, {**config, "seed": 43}]) == config
    with pytest.raises(LoraryError, match="encoded with different with_cot, lora_target_modules, and cannot"):
        ask._one_config([config, {**config, "with_cot": True, "lora_target_modules": ["down_proj"]}])


def test_a_table_of_another_call_is_found_where_it_was_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    about = {"tables": {"a": "results/data/a.parquet"}, "called_in": str(tmp_path / "theirs")}
    assert ask._table("a", about) is None
    (tmp_path / "theirs/results/data").mkdir(parents=True)
    (tmp_path / "theirs/results/data/a.parquet").touch()
    assert ask._table("a", about) == str(tmp_path / "theirs/results/data/a.parquet")
