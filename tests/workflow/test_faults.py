"""One bad passage, an interruption, wrong rows: nothing is lost, and the message says what to do."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from safetensors.torch import load_file, save_file

import tiny

PATH = "results/adapters/tiny/rank=2_alpha=32/toy/lr=0.01_epoch=1_direct/aug_model=aug/total"


def spoil(project, text: str) -> dict:
    """Put `text` into one passage (data_1/passage_1). Returns its augmentation as it was."""
    rows = tiny.make_rows(3)
    good = dict(rows[1]["augment"][1])
    rows[1]["augment"][1]["passage"] += f" {text}"
    project.write_rows(rows)
    return good


def poison_the_model(project):
    """Make the loss of every sequence with a § not a number."""
    from transformers import AutoTokenizer

    folder = project.folder / "tiny-model"
    (token,) = AutoTokenizer.from_pretrained(folder).encode("§", add_special_tokens=False)[-1:]
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    tensors["model.embed_tokens.weight"][token] = float("nan")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))


def refuse_in_the_chat_template(project):
    """Make the ids of every prompt with a § impossible."""
    template = project.folder / "tiny-model/chat_template.jinja"
    refusal = "{% if '§' in messages[0]['content'] %}{{ raise_exception('§ is not allowed') }}{% endif %}"
    template.write_text(refusal + tiny.CHATML)


@pytest.mark.parametrize(
    ("break_it", "reason"),
    [
        (poison_the_model, "the loss of step 1 is nan"),
        (refuse_in_the_chat_template, "§ is not allowed"),
    ],
)
def test_a_passage_that_fails_is_named_and_alone_is_trained_again(project, break_it, reason):
    break_it(project)
    good = spoil(project, "§")
    process = project.snakemake("--keep-going", check=False, passages_per_job=6)
    assert process.returncode != 0
    assert f"FAILED {PATH}/data_1/passage_1" in process.stdout
    assert reason in process.stdout
    assert "Traceback" not in process.stdout
    assert project.trained() == 5  # the others of its job are kept
    assert project.adapters() == {}  # though Snakemake has no output of a job that failed

    rows = tiny.make_rows(3)
    assert rows[1]["augment"][1] == good
    project.write_rows(rows)
    assert "1 trained and 5 linked" in project.snakemake(passages_per_job=6).stdout
    assert len(project.adapters()) == 6


def test_ctrl_c_keeps_what_is_finished(project):
    project.write_rows(tiny.make_rows(200, pairs=5))
    (project.folder / "mine.yaml").write_text(json.dumps({**project.settings, "passages_per_job": 400, "sample": -1}))
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--resources", "gpu=1", "--configfile", "mine.yaml"]
    run = subprocess.Popen(
        command, cwd=project.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while project.trained() < 3:
        assert run.poll() is None, run.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does
    output, _ = run.communicate(timeout=60)
    kept = project.trained()
    assert 3 <= kept < 400
    assert f"Stopped after {kept} of 400 passages" in output
    assert "Traceback" not in output

    output = project.snakemake(passages_per_job=400, sample=-1).stdout
    assert f"{400 - kept} trained and {kept} linked" in output
    assert len(project.adapters()) == 400


def test_wrong_rows_are_reported_together_and_leave_nothing(project):
    rows = tiny.make_rows(3)
    rows[0]["augment"][1]["aug_qa"][2]["answer"] = 7
    del rows[2]["augment"][0]["aug_rewrite"]
    project.write_rows(rows)
    process = project.snakemake("data", check=False)
    assert process.returncode != 0
    assert "total.json, question 0, passage 1, aug_qa 2, answer: expected a string, found 7" in process.stdout
    assert "total.json, question 2, passage 0, aug_rewrite: missing" in process.stdout
    assert "Traceback" not in process.stdout
    assert not list(project.folder.glob("results/data/*"))
