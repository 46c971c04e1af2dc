"""From raw text to answers, as a user calls it: documents, tables and questions, with a server that speaks."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pandas as pd
import psutil
import pytest

import fake_server
import faults
import speaker
import tiny
from fake_server import FakeServer
from project import Project, wait_until

QUESTIONS = [
    {"question": "What is the tower of Ambera Light built of?", "answer": "granite"},
    {"question": "Who built the tower of Coppera Light?", "answer": "Ildra Penhosk"},
]
DOCUMENTS = 4


def settings(server):
    return {
        "augment_with": "server",
        "augment_base_url": server.url,
        "augment_server_model": "fake",
        "augment_model": "aug",
        "pairs": 2,
        "passages_per_job": 64,
        "inference_methods": ["prag"],
        "max_new_tokens": 5,
    }


def make(project, server, **more):
    """Documents and a table of the same passages in a project; `more`: of the config."""
    for key in ("data_dir", "dataset"):
        del project.settings[key]
    tiny.write_documents(project.folder / "docs", DOCUMENTS)
    tiny.write_rows(project.folder / "questions.json", QUESTIONS)
    towers = map(tiny.tower, range(DOCUMENTS))
    lines = [json.dumps({"title": title, "text": text, "pid": f"w{i}"}) for i, (title, text) in enumerate(towers)]
    (project.folder / "table.jsonl").write_text("\n".join(lines), encoding="utf-8")
    project.settings |= settings(server) | more
    return project


@pytest.fixture
def server():
    with FakeServer(fake_server.steady, speaker.speak) as server:
        yield server


def at(project, server):
    project.settings["augment_base_url"] = server.url
    return project


@pytest.fixture
def answered(copy_of, with_base, server):
    """The project of documents and questions after a whole run; the server is another one now."""

    def run(folder):
        with FakeServer(fake_server.steady, speaker.speak) as server:
            project = make(with_base(folder), server, source="documents", documents="docs", questions="questions.json")
            project.snakemake()
            return project, len(server.asked)

    return copy_of("documents-and-questions", run)


def augmented(project):
    """The augmented data, by type."""
    files = sorted((project.folder / "results/augmented").glob("*/aug/*.json"))
    return {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in files}


def titles(asked):
    """Of the passages that a server was asked about."""
    texts = [entry["body"]["messages"][-1]["content"] for entry in asked]
    return {name for name in (tiny.tower(i)[0].split()[0] for i in range(50)) if any(name in text for text in texts)}


# One command.


def test_documents_and_questions_to_answers_in_one_command(answered):
    project, asked = answered
    data = augmented(project)
    assert {kind: len(rows) for kind, rows in data.items()} == {"documents": DOCUMENTS, "questions": len(QUESTIONS)}
    assert all(row["question"] is None for row in data["documents"])
    assert [row["question"] for row in data["questions"]] == [row["question"] for row in QUESTIONS]
    assert [row["augment"][0]["title"] for row in data["questions"]] == [
        "Ambera Light",
        "Coppera Light",
    ]  # what is found first
    assert all(len(passage["aug_qa"]) == 2 for rows in data.values() for row in rows for passage in row["augment"])

    # what is found for questions is the documents' own: asked about once, trained once
    assert asked == DOCUMENTS * 14
    assert len(project.adapters()) == DOCUMENTS + 3 * len(QUESTIONS)
    assert project.trained() == DOCUMENTS == len(set(project.adapters().values()))

    scores = pd.read_csv(project.folder / "results/scores.tsv", sep="\t")
    assert list(scores["type"]) == ["questions"]
    (knowledge,) = (project.folder / "results/predictions").rglob("knowledge.tsv")
    assert set(pd.read_csv(knowledge, sep="\t")["type"]) == {"documents", "questions"}
    page = (project.folder / "results/report.html").read_text(encoding="utf-8")
    assert "Augmentation" in page
    assert "41 of 63 pairs stand them" in page  # of data that others have published


def test_then_there_is_nothing_to_do_and_a_passage_can_be_asked(answered):
    project, _ = answered
    assert "Nothing to be done" in project.snakemake().stdout
    command = [sys.executable, "-m", "lorary", "ask", QUESTIONS[1]["question"]]
    env = {**os.environ, "PYTHONPATH": str(tiny.ROOT / "workflow")}
    said = subprocess.run(command, cwd=project.folder, env=env, capture_output=True, text=True, timeout=120)
    assert said.returncode == 0, said.stderr
    assert "data_2/passage_0" in said.stdout


def test_augmented_data_can_be_read_where_they_lie(answered):
    """Though a job of this run has made them, which a run of augmented data has not."""
    project, _ = answered
    (folder,) = (project.folder / "results/augmented").iterdir()
    given = {"source": "augmented", "data_dir": "results/augmented", "dataset": folder.name, "documents": None}
    given |= {"questions": None, "augment_with": "local", "augment_base_url": None, "pairs": 3}
    said = project.snakemake("-n", "data", check=False, **given).stdout
    assert "Traceback" not in said
    assert "load_data" in said, said


def test_where_nobody_asks_there_are_adapters_and_a_report_and_no_scores(answered, server):
    project, _ = answered
    for path in ("scores.tsv", "report.html", "report", "predictions", "predict"):
        target = project.folder / "results" / path
        shutil.rmtree(target) if target.is_dir() else target.unlink()
    said = at(project, server).snakemake(questions=None).stdout
    assert f"{DOCUMENTS} of {DOCUMENTS} adapters are in place: 0 trained and {DOCUMENTS} linked" in said
    assert server.asked == []
    assert not (project.folder / "results/scores.tsv").exists()
    assert (project.folder / "results/report.html").is_file()
    assert list((project.folder / "results/predictions").rglob("knowledge.tsv"))
    assert not list((project.folder / "results/predictions").rglob("predict.json"))
    assert "Nothing to be done" in project.snakemake(questions=None).stdout


# What is asked again.


@pytest.mark.all  # tests/unit/augment has it of a job, and tests/unit/plan of the names
def test_only_what_is_new_is_asked(tmp_path, tiny_llama, server):
    project = make(Project(tmp_path / "project", tiny_llama), server, source="documents", documents="docs")
    each = 14  # requests of a passage
    project.snakemake("augmented", sample=2)
    assert len(server.asked) == 2 * each
    before = augmented(project)["total"]

    project.snakemake("augmented", sample=3)
    assert titles(server.asked[2 * each :]) == {"Coppera"}

    changed = project.folder / "docs/Basalta_Light.txt"
    changed.write_text(changed.read_text().replace("metres", "yards"))
    os.utime(changed, ns=(10**18, 10**18))  # as from an archive
    project.snakemake("augmented", sample=3)
    assert titles(server.asked[3 * each :]) == {"Basalta"}
    assert len(server.asked) == 4 * each

    (now,) = (rows for rows in all_augmented(project) if len(rows) == 3)
    assert now[0] == before[0]
    assert "yards" in now[1]["passages"][0]
    assert "Nothing to be done" in project.snakemake("augmented", sample=3).stdout

    # where the server is, and how it is asked, is no reason to make anything again
    other = {
        "augment_base_url": "http://localhost:9/v1",
        "augment_at_once": 2,
        "augment_prices": [1, 2],
        "store_dir": "s",
    }
    assert "Nothing to be done" in project.snakemake("-n", "augmented", sample=3, **other).stdout


def all_augmented(project):
    files = (project.folder / "results/augmented").glob("*/aug/*.json")
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]


def test_a_server_that_cannot_be_there_is_no_matter_for_a_dry_run(tmp_path, tiny_llama):
    with FakeServer() as server:
        project = make(Project(tmp_path / "project", tiny_llama), server, source="documents", documents="docs")
    said = project.snakemake("-n", augment_base_url="http://nobody.invalid:1/v1").stdout
    assert "augmented_data" in said


@pytest.mark.all
def test_questions_can_come_later_to_a_table_that_nobody_asked_about(tmp_path, tiny_llama, server):
    project = make(Project(tmp_path / "project", tiny_llama), server, source="passages", corpus="table.jsonl")
    said = project.snakemake().stdout
    assert f"{DOCUMENTS} of {DOCUMENTS} adapters are in place" in said
    assert len(project.adapters()) == project.trained() == DOCUMENTS
    passage = augmented(project)["total"][3]["augment"][0]
    assert (passage["pid"], passage["pid_"]) == (0, "w3")
    assert "Nothing to be done" in project.snakemake().stdout

    asked, before = len(server.asked), project.trained()
    project.snakemake(questions="questions.json")
    assert (len(server.asked), project.trained()) == (asked, before)
    assert (project.folder / "results/scores.tsv").is_file()


@pytest.mark.all
def test_questions_find_their_passages_in_a_table(tmp_path, tiny_llama, server):
    project = make(Project(tmp_path / "project", tiny_llama), server, source="questions", corpus="table.jsonl")
    given = {"questions": "questions.json", "retrieve_top_k": 2}
    project.snakemake(**given)
    rows = augmented(project)["total"]
    assert [row["question"] for row in rows] == [row["question"] for row in QUESTIONS]
    assert [row["augment"][0]["title"] for row in rows] == ["Ambera Light", "Coppera Light"]
    assert all(len(row["passages"]) == 2 for row in rows)
    assert rows[0]["augment"][0]["score"] > rows[0]["augment"][1]["score"]
    assert len(pd.read_csv(project.folder / "results/scores.tsv", sep="\t")) == 1

    asked = len(server.asked)
    tiny.write_rows(project.folder / "questions.json", QUESTIONS[::-1])
    project.snakemake("augmented", **given)
    assert len(server.asked) == asked  # the same passages, for other questions
    assert "Nothing to be done" in project.snakemake("augmented", **given).stdout


@pytest.mark.all
def test_the_augmented_data_give_the_same_adapters_by_themselves(answered, tmp_path, tiny_llama):
    project, _ = answered
    (folder,) = (project.folder / "results/augmented").iterdir()
    other = Project(tmp_path / "other", tiny_llama)
    shutil.copytree(folder, other.folder / "data/docs")
    other.snakemake(dataset="docs", passages_per_job=64)
    assert other.adapters() == project.adapters()
    assert other.trained() == DOCUMENTS


# What fails, and what is struck.


@pytest.mark.all
def test_a_passage_that_a_server_refuses_is_named_and_alone_asked_about_again(tmp_path, tiny_llama):
    def temper(number, body):
        too_long = "This model's maximum context length is 9 tokens"
        return (400, {}, fake_server.error(too_long)) if "Basalta" in str(body) else "answer"

    with FakeServer(temper, speaker.speak) as server:
        project = make(Project(tmp_path / "project", tiny_llama), server, source="documents", documents="docs")
        process = project.snakemake(check=False, inference_methods=[])
        said = process.stdout
        assert process.returncode != 0
        assert "Traceback" not in said
        assert "data_1/passage_0" in said
        assert "maximum context length is 9 tokens" in said
        assert "snakemake --forcerun augment" in said
        assert project.trained() == DOCUMENTS - 1
    with FakeServer(fake_server.steady, speaker.speak) as server:
        at(project, server).snakemake("--forcerun", "augment", inference_methods=[])
        assert titles(server.asked) == {"Basalta"}
    assert project.trained() == len(project.adapters()) == DOCUMENTS


COUNT, AT_ONCE = 16, 4
STRUCK = {
    "SIGKILL of snakemake": lambda run, jobs: run.kill(),
    "SIGKILL of the job": lambda run, jobs: [job.kill() for job in jobs],
    "SIGTERM to all": lambda run, jobs: os.killpg(run.pid, signal.SIGTERM),
}


@pytest.mark.all
def test_augmentation_that_is_struck_goes_on_and_asks_nothing_twice(tmp_path, tiny_llama, server):
    first = make(Project(tmp_path / "project", tiny_llama), server, source="documents", documents="docs")
    tiny.write_documents(first.folder / "docs", COUNT)
    first.settings |= {"augment_at_once": AT_ONCE}
    undisturbed = first.copy(tmp_path / "undisturbed")
    undisturbed.snakemake("augmented")
    requests = len(server.asked)

    def slow(number, body):
        time.sleep(0.05)
        return "answer"

    for kind, strike in STRUCK.items():
        project = first.copy(tmp_path / kind.replace(" ", "_"))
        with FakeServer(slow, speaker.speak) as other:
            at(project, other)
            run = project.start("augmented")
            there = project.folder / "results/store/augmented"
            wait_until(lambda: len(list(there.glob("*/*.json"))) >= 3, run)  # noqa: B023 (called at once)
            jobs = psutil.Process(run.pid).children(recursive=True)
            strike(run, jobs)
            _, alive = psutil.wait_procs(jobs, timeout=30)
            assert not alive, f"{kind}: the job asks on"
            output = faults.finish(run)
            assert run.returncode != 0, kind
            assert "this is a bug" not in output
            kept = len(list(there.glob("*/*.json")))
            assert 3 <= kept < COUNT, f"{kind} came too late"
            before = len(other.asked)
            project.snakemake("augmented")
            again = sum(other.answered().values()) - requests
            assert len(other.asked) - before == requests * (COUNT - kept) / COUNT
            assert again <= AT_ONCE * requests / COUNT if "KILL of the job" in kind else again == 0
        assert augmented(project) == augmented(undisturbed)
