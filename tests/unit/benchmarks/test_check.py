"""`make gpu-check` says what holds and what does not, and that a processor is no GPU."""

import json

import pytest
import torch

from benchmarks import check
from benchmarks.train import WAYS
from lorary.core.errors import LoraryError


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """Checks what the benchmarks found (changed by `found`), of another model than the demo's: no run is made."""
    model = tmp_path / "model"
    model.mkdir()
    (model / "fingerprint.json").write_text(json.dumps({"name": "m", "weights": "w", "tokenizer": "t"}))

    def measured(gpus=0, shown=0, same=32, **found):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(check, "machine", lambda threads: "H100" if gpus else "EPYC")
        monkeypatch.setattr(check, "count_gpus", lambda: shown)
        near = dict.fromkeys(("cosine", "cosine_to_ours"), 1.0) | dict.fromkeys(("distance", "distance_to_ours"), 1e-4)
        ways = {label: {**near, "seconds_a_passage": 2.0} for label in WAYS}
        ways[check.STACKED] |= found
        (tmp_path / "bench.json").write_text(json.dumps({"ways": ways}))
        answers = {"same_answers": same, "questions": 32, "speedup": 8.0}
        (tmp_path / "answers.json").write_text(json.dumps(answers))
        files = (str(tmp_path / name) for name in ("bench.json", "answers.json"))
        figures, table = tmp_path / "check.json", tmp_path / "check.md"
        try:
            told = check.check(str(model), *files, 1, str(figures), str(table))
        except LoraryError as error:
            told = str(error)
        return told, json.loads(figures.read_text()), table.read_text()

    return measured


def test_what_holds_is_said_to(measured):
    told, figures, table = measured()
    assert told.startswith("On EPYC, the processor: this says nothing of GPUs:")
    assert told == table
    assert figures["gpus"] == 0
    assert [found["passed"] for found in figures["checks"] if found["passed"] is not None] == 4 * [True]


@pytest.mark.parametrize(
    ("found", "what"),
    [
        ({"cosine": 0.99}, "side by side against PEFT's loop, float32"),
        ({"distance_to_ours": 2e-3}, "side by side against one by one, float32"),
        ({"same": 31}, "answers against PEFT's"),
    ],
)
def test_what_does_not_hold_fails_and_stays_written(measured, found, what):
    told, figures, table = measured(**found)
    assert told.endswith(f"FAILED: {what}")
    assert [each["what"] for each in figures["checks"] if each["passed"] is False] == [what]
    assert f"| {what} | " in table


def test_on_gpus_the_cosine_is_the_bound(measured):
    told, figures, _ = measured(gpus=2, shown=2, distance=5e-3)
    assert told.startswith("On 2 x H100:")
    assert figures["gpus"] == 2
    assert "FAILED" not in told
    assert "FAILED: side by side against PEFT's loop" in measured(gpus=2, shown=2, cosine=0.99)[0]


def test_gpus_that_torch_does_not_see_are_said(measured):
    """As with a driver that is too old: everything ran on the processor then."""
    told, figures, _ = measured(gpus=0, shown=2)
    assert told.endswith("FAILED: GPUs that torch sees")
    assert figures["gpus"] == 0


@pytest.mark.all  # three runs; `make gpu-check` itself does the same
def test_a_run_is_stopped_and_resumed(tiny_llama):
    stop, all_at_once = check._stopped_and_resumed(str(tiny_llama), 0)
    assert stop.passed, stop.found
    assert all_at_once.passed, all_at_once.found
