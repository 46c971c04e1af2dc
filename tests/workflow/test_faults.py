"""One bad passage, an interruption, wrong rows: nothing is lost, and the message says what to do."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from safetensors.torch import load_file, save_file

import tiny
from lorary.core.store import Store

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


def wait_until(condition, run):
    deadline = time.monotonic() + 120
    while not condition():
        assert run.poll() is None, run.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def long(with_model):
    """A project whose one training job takes a while."""
    with_model.write_rows(tiny.make_rows(40, passages=1, pairs=40))
    with_model.settings |= {"passages_per_job": 40, "sample": -1}
    return with_model


def test_ctrl_c_keeps_what_is_finished(long):
    run = long.start()
    wait_until(lambda: long.trained() >= 3, run)
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does
    output, _ = run.communicate(timeout=60)
    kept = long.trained()
    assert 3 <= kept < 40
    assert f"Stopped after {kept} of 40 passages: they are in the store, and the same command goes on." in output
    assert "40 are still to do: `snakemake` with the same config goes on" in output
    assert "Traceback" not in output

    output = long.snakemake().stdout
    assert f"{40 - kept} trained and {kept} linked" in output
    assert len(long.adapters()) == 40


def test_a_second_call_beside_the_first_and_one_after_it_was_killed(long):
    run = long.start()
    wait_until(lambda: long.trained() >= 1, run)
    beside = long.snakemake(check=False)
    assert beside.returncode != 0
    assert "Directory cannot be locked" in beside.stdout
    assert run.poll() is None

    jobs = psutil.Process(run.pid).children(recursive=True)
    run.kill()
    run.communicate()
    _, alive = psutil.wait_procs(jobs, timeout=30)
    assert not alive, "the job trains on, though its snakemake is gone"
    assert list(long.folder.glob(".snakemake/locks/*"))
    kept = long.trained()

    output = long.snakemake().stdout
    assert "The last call here was killed: its lock is removed, and this call goes on from there." in output
    assert f"{40 - kept} trained and {kept} linked" in output


def test_two_runs_at_once_on_one_store(with_model, tmp_path_factory):
    project = with_model
    other = project.copy(tmp_path_factory.mktemp("other") / "project")
    shared = str(tmp_path_factory.mktemp("shared") / "store")
    for each in (project, other):
        each.settings |= {"store_dir": shared, "passages_per_job": 3}
    runs = [project.start(), other.start()]
    for run in runs:
        output, _ = run.communicate(timeout=200)
        assert run.returncode == 0, output
        assert "6 of 6 adapters are in place" in output
    assert project.adapters() == other.adapters()
    assert len(project.adapters()) == 6
    store = Store(shared)
    assert len(list(store.digests())) == 6
    assert [store.damage(digest) for digest in store.digests()] == [None] * 6
    assert not list(Path(shared).glob("tmp/*"))
    assert not [path for path in Path(shared).rglob("*") if "lock" in path.name]

    before = project.adapters()
    shutil.rmtree(shared)
    assert project.adapters() == before
    assert "Nothing to be done" in project.snakemake().stdout
    assert "nothing is damaged" in project.snakemake("verify").stdout


def in_a_file_system_of(size: str, then: str) -> tuple[str, ...]:
    """A command in front of snakemake: its store on a small disk of its own, and snakemake twice."""
    mount = "mkdir -p results/store && mount -t tmpfs -o size=%s none results/store"
    script = f'{mount % size}; "$@"; echo FIRST $?; {then}; exec "$@"'
    return "unshare", "-rm", "bash", "-c", script, "bash"


def can_mount() -> bool:
    command = ["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"]
    return not subprocess.run(command, capture_output=True).returncode if shutil.which("unshare") else False


needs_mount = pytest.mark.skipif(not can_mount(), reason="this system lets a user mount nothing (unshare -rm mount)")


@needs_mount
def test_a_full_disk_loses_nothing(with_model):
    with_model.settings["passages_per_job"] = 6
    run = with_model.start(prefix=in_a_file_system_of("64k", "mount -o remount,size=10m results/store"))
    output, _ = run.communicate(timeout=200)
    first, second = output.split("FIRST 1")
    assert (
        "No space left on device. Make room (`snakemake prune`, with the same --configfile, frees what no run" in first
    )
    kept = int(re.search(r"(\d) of 6 passages are in the store", first)[1])
    assert 0 < kept < 6
    assert run.returncode == 0, second
    assert f"{6 - kept} trained and {kept} linked" in second
    assert "Traceback" not in output
    assert len(with_model.adapters()) == 6


@needs_mount
def test_a_disk_that_turned_read_only_loses_nothing(with_model):
    with_model.settings["passages_per_job"] = 6
    prefix = in_a_file_system_of("10m,ro", "mount -o remount,rw results/store")
    output, _ = with_model.start(prefix=prefix).communicate(timeout=200)
    first, second = output.split("FIRST 1")
    assert "Read-only file system. Make that folder writable, or set adapter_dir and store_dir to others" in first
    assert "6 trained and 0 linked" in second
    assert "Traceback" not in output


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
