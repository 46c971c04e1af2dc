"""The parts of a plan: what a job reads is what was planned, whatever has changed since; and when the whole is made."""

import os
from pathlib import Path

import pytest

import tiny
from lorary.core.errors import LoraryError
from lorary.plan import parts, whole

SERVER = {"augment_with": "server", "augment_base_url": "http://localhost:8000/v1"}


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(parts.PLANNED, "")  # is put back after the test
    monkeypatch.setattr(parts, "_written", [])
    tiny.write_rows(Path("data/toy/aug/total.json"), tiny.make_rows(3))
    tiny.write_rows(
        Path("general.json"), [{"question": "Who?", "answer": "They"}, {"question": "Why?", "answer": "So"}]
    )
    tiny.write_documents(Path("docs"), 3)


def config(**settings):
    keys = {"data_dir": "data", "dataset": "toy", "augment_model": "aug", "passages_per_job": 2, **settings}
    return {key: value for key, value in keys.items() if value is not None}


def write(known_as=str, **settings):
    plan = whole.make(config(**settings))
    parts.write(plan, config(**settings), known_as)
    return plan


def file():
    (path,) = parts.FOLDER.iterdir()
    return path


@pytest.mark.parametrize(
    "settings",
    [
        {
            "combine_adapters": ["sum", "routed"],
            "export": ["total/data_0"],
            "chat_template_kwargs": {"deep": None},
        },
        {"heldout_pairs": 1, "general_questions": "general.json", "pack": True, "keep_sequences": 1},
        {"data_dir": None, "source": "documents", "documents": "docs", **SERVER},
        {"runs": [{"seed": 1, "adapter_dir": "one"}, {"adapter_dir": "two", "learning_rate": 0.1}]},
    ],
)
def test_every_job_is_read_as_it_was_planned(settings):
    plan, seen = write(**settings), 0
    for stage, jobs in plan.jobs.items():
        for name, job in jobs.items():
            part = parts.read([job.rule], config(**settings))
            # repr tells a tuple from a list, as Snakemake does, which would run again what was made of the other
            assert repr(part.jobs[stage][name]) == repr(job)
            assert {one.rule for of_stage in part.jobs.values() for one in of_stage.values()} == {job.rule}
            seen += 1
    assert seen > 8


def test_a_job_is_what_it_was_planned_to_be_whatever_the_config_says_now():
    batch = write(learning_rate=0.1).encoding.batches[1]
    for changed in ({"learning_rate": 0.2}, {"seed": 7}, {"passages_per_job": 1}, {"no_such_key": 1}):
        assert parts.read([batch.rule], config(**changed)).jobs == {"train_adapters": {batch.rule: batch}}
    write(learning_rate=0.1, seed=7)  # a later call: its jobs have the same names
    os.environ[parts.PLANNED] = os.environ[parts.PLANNED].split()[0]
    assert parts.read([batch.rule], config(seed=7)).jobs["train_adapters"][batch.rule] == batch


def test_without_its_part_a_job_is_made_of_the_whole_plan_or_not_at_all(monkeypatch):
    batch = write().encoding.batches[0]
    assert parts.read(["verify"], config()) is None
    assert parts.read([], config()) is None
    assert parts.read([batch.rule, "verify"], config()) is None  # a group
    with pytest.raises(LoraryError, match="has changed since this call of Snakemake began"):
        parts.read(["verify"], config(seed=7))
    whole_file = file().read_bytes()
    for damaged in (b"", whole_file[:100], whole_file[: len(whole_file) // 2], whole_file.replace(b"x", b"y")):
        file().write_bytes(damaged)
        assert parts.read([batch.rule], config()) is None
    file().unlink()  # or on another file system
    assert parts.read([batch.rule], config()) is None
    with pytest.raises(LoraryError, match="Call Snakemake again"):
        parts.read([batch.rule], config(seed=7))
    for started_by_none in ("", "../../of/another", "0" * 16):
        monkeypatch.setenv(parts.PLANNED, started_by_none)
        assert parts.read([batch.rule], config(seed=7)) is None


def test_another_lorary_does_not_take_the_jobs_of_the_one_before(monkeypatch):
    batch = write().encoding.batches[0]
    monkeypatch.setattr(parts, "SOURCES", ("rules/train.smk",))
    with pytest.raises(LoraryError, match="or Lorary itself, has changed"):
        parts.read([batch.rule], config())


def test_as_a_module_twice_its_rules_have_the_names_that_it_gives_them():
    one = write("one_{}".format).encoding.batches[0]
    two = write("two_{}".format, seed=7).encoding.batches[0]
    assert parts.read([f"one_{one.rule}"], config()).jobs["train_adapters"] == {one.rule: one}
    assert parts.read([f"two_{one.rule}"], config(seed=7)).jobs["train_adapters"] == {two.rule: two}
    assert one != two
    assert parts.read(["theirs"], config()) is None
    assert parts.read(["theirs"], config(seed=7)) is None


def test_files_of_former_calls_do_not_pile_up(monkeypatch):
    monkeypatch.setattr(parts, "KEPT", 3)
    for seed in (1, 2, 3, 4, 1, 5):  # the first one comes again
        write(seed=seed)
        last = parts.FOLDER / os.environ[parts.PLANNED].split()[-1]
        os.utime(last, (seed, seed) if seed < 5 else None)
    assert len(list(parts.FOLDER.iterdir())) == 3
    assert last.is_file()
    assert parts.read(["get_model"], config(seed=5)).jobs["get_model"]


def test_files_of_another_user_end_no_call(monkeypatch):
    def refused(*_):
        raise PermissionError

    write()
    batch = write(seed=7).encoding.batches[0]
    monkeypatch.setattr(parts, "KEPT", 1)
    monkeypatch.setattr(os, "utime", refused)
    monkeypatch.setattr(Path, "unlink", refused)
    write()
    assert parts.read([batch.rule], config(seed=7))
