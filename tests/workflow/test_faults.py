"""One bad passage, an interruption, wrong rows: nothing is lost, and the message says what to do."""

import json
import random
import re
import shutil
import subprocess

import psutil
import pytest
from safetensors.torch import load_file, save_file

import faults
import tiny
from lorary.core.store import Store
from project import wait_until

PATH = "results/adapters/tiny/rank=2_alpha=32/toy/lr=0.01_epoch=1_direct/aug_model=aug/total"


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
    """Make the ids of every prompt with a ¤ impossible."""
    template = project.folder / "tiny-model/chat_template.jinja"
    refusal = "{% if '¤' in messages[0]['content'] %}{{ raise_exception('¤ is not allowed') }}{% endif %}"
    template.write_text(refusal + tiny.CHATML)


def test_passages_that_fail_are_named_and_alone_are_trained_again(project):
    poison_the_model(project)
    refuse_in_the_chat_template(project)
    rows = tiny.make_rows(3)
    tiny.add_to_passage(rows[1], 1, " §")
    tiny.add_to_passage(rows[2], 0, " ¤")
    project.write_rows(rows)
    process = project.snakemake("--keep-going", check=False, passages_per_job=6)
    assert process.returncode != 0
    for passage, reason in (
        ("data_1/passage_1", "the loss of step 1 is nan"),
        ("data_2/passage_0", "¤ is not allowed"),
    ):
        assert re.search(rf"FAILED {PATH}/{passage}: .*{reason}", process.stdout), process.stdout
    assert "Traceback" not in process.stdout
    assert project.trained() == 4  # the others of their job are kept
    assert project.adapters() == {}  # though Snakemake has no output of a job that failed

    project.write_rows(tiny.make_rows(3))
    assert "2 trained and 4 linked" in project.snakemake(passages_per_job=6).stdout
    assert len(project.adapters()) == 6


COUNT = 40  # passages of one job
# Each kind of the campaign; first and last those whose messages are looked at.
KILLED = "SIGKILL of snakemake alone"
KINDS = ["Ctrl-C", *sorted(faults.FAULTS.keys() - {"Ctrl-C", KILLED}), KILLED]


def test_a_run_that_is_struck_in_each_way_goes_on_from_there(ready, tmp_path):
    """And ends with the adapters of an undisturbed run; a second call beside it is refused meanwhile."""
    ready.write_rows(tiny.make_rows(COUNT, passages=1, pairs=30))
    ready.settings |= {"passages_per_job": COUNT}
    undisturbed = ready.copy(tmp_path / "undisturbed")
    undisturbed.snakemake()
    expected, digests = faults.tree(undisturbed), list(faults.store(undisturbed).digests())

    store, figures, begun = faults.store(ready), faults.Figures(), 0
    for kind in KINDS:
        before = ready.trained()
        run = ready.start()
        wait_until(lambda before=before: ready.trained() > before, run)
        if kind == "Ctrl-C":
            beside = ready.snakemake(check=False)
            assert beside.returncode != 0
            assert "Directory cannot be locked" in beside.stdout
        jobs = psutil.Process(run.pid).children(recursive=True)
        assert faults.strikes(kind, run, 0, ready, random.Random(kind), digests, figures), kind
        _, alive = psutil.wait_procs(jobs, timeout=30)
        assert not alive, f"{kind}: the job trains on"
        output = faults.finish(run)
        assert run.returncode != 0, kind
        assert "this is a bug" not in output
        kept = sum(store.get(digest) is not None for digest in digests)
        assert kept < COUNT, f"{kind} came too late"
        if kind == "Ctrl-C":
            assert f"Stopped after {kept} of {COUNT} passages: they are in the store, and the same command" in output
            assert f"{COUNT} are still to do: `snakemake` with the same config goes on" in output
            assert "Traceback" not in output
        begun += faults.count_begun(ready)

    assert list(ready.folder.glob(".snakemake/locks/*"))
    output = ready.snakemake().stdout
    assert "The last call here was killed: its lock is removed, and this call goes on from there." in output
    assert f"{COUNT - kept} trained and {kept} linked" in output
    assert faults.tree(ready) == expected
    assert begun + faults.count_begun(ready) <= COUNT + len(KINDS)  # one a fault
    assert figures.longest_stop < 30
    assert not list(ready.folder.glob(".snakemake/locks/*"))


def test_two_runs_at_once_on_one_store(ready, tmp_path):
    other = ready.copy(tmp_path / "other")
    shared = tmp_path / "shared/store"
    for each in (ready, other):
        each.settings["store_dir"] = str(shared)
    runs = [ready.start(), other.start()]
    for run in runs:
        output, _ = run.communicate(timeout=200)
        assert run.returncode == 0, output
        assert "6 of 6 adapters are in place" in output
    assert ready.adapters() == other.adapters()
    assert len(ready.adapters()) == 6
    store = Store(str(shared))
    assert len(list(store.digests())) == 6
    assert [store.damage(digest) for digest in store.digests()] == [None] * 6
    assert not list(shared.glob("tmp/*"))
    assert not [path for path in shared.rglob("*") if "lock" in path.name]

    before = ready.adapters()
    shutil.rmtree(shared)
    assert ready.adapters() == before
    assert "Nothing to be done" in ready.snakemake().stdout
    assert "nothing is damaged" in ready.snakemake("verify").stdout


def in_a_small_file_system(*then: str) -> tuple[str, ...]:
    """A command in front of snakemake: its store on a full disk of its own, and snakemake again after each of these."""
    first = "mkdir -p results/store && mount -t tmpfs -o size=64k none results/store"
    again = [f'"$@"; echo END $?; mount -o remount,{options} results/store' for options in then]
    return "unshare", "-rm", "bash", "-c", "; ".join([first, *again, 'exec "$@"']), "bash"


def can_mount() -> bool:
    command = ["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"]
    return not subprocess.run(command, capture_output=True).returncode if shutil.which("unshare") else False


@pytest.mark.skipif(not can_mount(), reason="this system lets a user mount nothing (unshare -rm mount)")
def test_a_full_disk_and_one_that_turned_read_only_lose_nothing(ready):
    ready.settings["passages_per_job"] = 6
    run = ready.start(prefix=in_a_small_file_system("size=10m,ro", "rw"))
    output, _ = run.communicate(timeout=200)
    full, read_only, good = output.split("END 1")
    assert (
        "No space left on device. Make room (`snakemake prune`, with the same --configfile, frees what no run" in full
    )
    kept = int(re.search(r"(\d) of 6 passages are in the store", full)[1])
    assert 0 < kept < 6
    assert "Read-only file system. Make that folder writable, or set adapter_dir and store_dir to others" in read_only
    assert run.returncode == 0, good
    assert f"{6 - kept} trained and {kept} linked" in good
    assert "Traceback" not in output
    assert len(ready.adapters()) == 6


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
