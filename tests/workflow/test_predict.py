"""Answers with the adapters, scores, what was learnt, the report, ask and export: as a user calls them."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import psutil
import pytest

import browser
import tiny
from project import wait_until

RUN = "tiny/rank=2_alpha=32/toy/lr=0.01_epoch=1_direct/aug_model=aug"
METHODS = ["vanilla", "icl", "prag", "combine"]
ROWS = 34  # two batches of questions
CODE = "<script>alert(1)</script> & <b>who?"  # the first question
ALONE = 20  # the question whose pairs are learnt without a passage
HELDOUT = [{"did": 3, "pid": 0, "kind": "paraphrase", "question": "Which?", "answer": ["amber", "an ember"]}]


@pytest.fixture
def answered(copy_of, with_base):
    """34 questions of one passage each (one has none), trained and answered, with two methods first and then with all,
    for a test to spoil; `first` and `second` are what the two calls said."""

    def make(folder):
        made = with_base(folder)
        made.settings |= {"passages_per_job": ROWS, "inference_methods": ["vanilla", "prag"], "max_new_tokens": 6}
        made.settings["heldout_pairs"] = 1
        rows = tiny.make_rows(ROWS, passages=1, pairs=4)
        rows[0]["question"] = CODE
        rows[ALONE]["passages"] = [None]
        rows[ALONE]["augment"] = [{"passage": None, "aug_qa": rows[ALONE]["augment"][0]["aug_qa"]}]
        made.write_rows(rows)
        first = made.snakemake().stdout
        made.settings |= {
            "inference_methods": METHODS,
            "heldout_questions": "mine.json",
            "general_questions": "default",
        }
        (folder / "mine.json").write_text(json.dumps(HELDOUT))
        return made, first, made.snakemake().stdout

    project, project.first, project.second = copy_of("answered", make)
    return project


def predictions(project):
    folder = project.folder / "results/predictions" / RUN
    return {m: json.loads((folder / m / "total/predict.json").read_text()) for m in METHODS}


def test_each_method_leaves_the_references_files_and_its_scores(answered):
    rows = json.loads((answered.folder / "data/toy/aug/total.json").read_text())
    found = predictions(answered)
    for method, answers in found.items():
        folder = answered.folder / "results/predictions" / RUN / method / "total"
        assert [answer["question"] for answer in answers] == [row["question"] for row in rows]
        assert json.loads((folder / "config.json").read_text())["inference_method"] == method
        assert (folder / "result.txt").read_text().startswith("em\t")
    for a, b in (("vanilla", "prag"), ("icl", "combine"), ("vanilla", "icl")):
        assert sum(x["text"] != y["text"] for x, y in zip(found[a], found[b], strict=True)) > ROWS / 2
    for a, b in (("vanilla", "icl"), ("prag", "combine")):
        assert found[a][ALONE]["text"] == found[b][ALONE]["text"]
    scores = pd.read_csv(answered.folder / "results/scores.tsv", sep="\t")
    assert scores.method.tolist() == METHODS
    for line in scores.to_dict("records"):
        mean = sum(float(answer["f1"]) for answer in found[line["method"]]) / ROWS
        assert line["f1"] == pytest.approx(mean, abs=1e-4)
        assert line["f1_low"] <= line["f1"] <= line["f1_high"]
    assert re.search(r"Scores \(results/scores.tsv; .*\n +toy total +vanilla +F1 ", answered.second)


def test_knowledge_says_what_each_adapter_taught(answered):
    found = pd.read_csv(answered.folder / "results/predictions" / RUN / "knowledge.tsv", sep="\t")
    assert list(found) == [
        "type",
        "did",
        "pid",
        "question",
        "passage",
        "pairs",
        "nll_bare",
        "nll_own",
        "nll_other",
        "recall_bare",
        "recall_own",
        "recall_other",
        "other",
    ]
    assert found.did.tolist() == list(range(ROWS))
    assert (found.nll_own < found.nll_bare).all()
    assert (found.nll_own < found.nll_other).mean() > 0.6
    assert found.other.tolist() == [f"total/data_{(did + 1) % ROWS}/passage_0" for did in range(ROWS)]


def test_what_was_kept_out_of_training_is_asked_too(answered):
    folder = answered.folder / "results/predictions" / RUN
    asked = pd.read_csv(folder / "heldout.tsv", sep="\t")
    summary = pd.read_csv(folder / "heldout_summary.tsv", sep="\t").set_index("kind")
    assert summary.questions.to_dict() == {"paraphrase": 1, "kept": ROWS, "general": 60}
    assert summary.passages.to_dict() == {"paraphrase": 1, "kept": ROWS, "general": ROWS}
    assert (summary.nll_own_low <= summary.nll_own).all()
    rows = json.loads((answered.folder / "data/toy/aug/total.json").read_text())
    kept = asked[asked.kind == "kept"].set_index("did")
    assert kept.answer.to_dict() == {did: row["augment"][0]["aug_qa"][3]["answer"] for did, row in enumerate(rows)}
    knowledge = pd.read_csv(folder / "knowledge.tsv", sep="\t")
    assert (knowledge.pairs == 3).all()
    trained = pd.concat(map(pd.read_parquet, answered.folder.glob("results/prompts/*/*.parquet")))
    assert trained.groupby("did").size().to_dict() == {did: 3 if did == ALONE else 5 for did in range(ROWS)}
    said = "Held out, from the bare model to the own adapter: "
    assert said + "kept F1 " in answered.first
    assert said + "paraphrase F1 " in answered.second
    # what the first call asked is not asked again
    assert "held out, passages 0-33 of 34] 123 questions; the others are done" in answered.second


def test_a_new_method_predicts_that_method_only_and_the_same_call_again_does_nothing(answered):
    asked = {
        name: re.findall(r"Answering: (\w+)", said)
        for name, said in vars(answered).items()
        if name in ("first", "second")
    }
    assert sorted(asked["first"]) == ["prag", "vanilla"]
    assert sorted(asked["second"]) == ["combine", "icl"]
    assert "Training" not in answered.second
    assert "Asking without context" not in answered.second
    assert "Nothing to be done" in answered.snakemake().stdout


@pytest.mark.all  # tests/unit/answer has of what an answer's key consists
def test_a_retrained_adapter_repeats_only_the_batches_that_use_it(answered):
    before = predictions(answered)
    rows = json.loads((answered.folder / "data/toy/aug/total.json").read_text())
    rows[33]["augment"][0]["aug_qa"][2]["answer"] += " indeed"  # of no prompt of a question, but of the training
    answered.write_rows(rows)
    output = answered.snakemake().stdout
    assert "1 trained and 33 linked" in output
    for method in ("prag", "combine"):
        assert f"[{method}, toy total, questions 0-33 of 34] 1 question; the others are done" in output
        assert f"[{method}, toy total, questions 0-33 of 34] resources/models/tiny on processor" in output
    for method in ("vanilla", "icl"):
        assert f"[{method}, toy total, questions 0-33 of 34] resources/models/tiny on" not in output
        assert f"[{method}, toy total, questions 0-33 of 34] 1 question" not in output
    # 32 and 33: the one whose adapter it is, and the one that it was tried on
    assert "[toy total, passages 0-33 of 34] 2 passages; the others are done" in output
    after = predictions(answered)
    for method in METHODS:
        assert [a["text"] for a in after[method][:33]] == [b["text"] for b in before[method][:33]]


@pytest.mark.all  # tests/unit/core and answer have it
def test_prediction_jobs_that_are_stopped_and_killed_go_on_from_the_last_batch(answered):
    answered.settings |= {"inference_methods": ["prag"], "max_new_tokens": 200}
    for folder in ("results/predict", "logs/predict"):
        shutil.rmtree(answered.folder / folder)
    run = answered.start()
    (log,) = wait_for(lambda: list(answered.folder.glob("logs/predict/*/predict_prag/0-33.log")), run)
    wait_for(lambda: "tiny on processor" in log.read_text(), run)
    time.sleep(0.2)  # so that the first batch is in hand
    os.killpg(run.pid, signal.SIGINT)
    output, _ = run.communicate(timeout=60)
    assert "Traceback" not in output
    assert "Stopped after 32 of 34 questions: they are kept, and the same command goes on." in output
    (journal,) = answered.folder.glob("results/predict/*/predict_prag/0.jsonl")
    assert first_batch(journal.read_text())

    journal.unlink()
    run = answered.start()
    kept = wait_for(lambda: journal.exists() and first_batch(journal.read_text()), run)
    for process in [*psutil.Process(run.pid).children(recursive=True), psutil.Process(run.pid)]:
        process.kill()
    run.communicate()
    assert "[prag, toy total, questions 0-33 of 34] 2 questions; the others are done" in answered.snakemake().stdout
    assert journal.read_text().startswith(kept)


def first_batch(journal: str) -> str | None:
    return journal if journal.count("\n") == 32 else None


def wait_for(condition, run, seconds=60):
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert run.poll() is None, run.communicate()[0]
        assert time.monotonic() < until
        time.sleep(0.005)
    return found


@pytest.mark.skipif(not browser.CHROMIUM, reason="there is no chromium on this machine")
def test_the_report_is_a_page_that_a_browser_shows(answered, tmp_path):
    document, colours = browser.open_page(answered.folder / "results/report.html", tmp_path)
    assert "with the passage's own adapter" in document
    assert document.count("<img") == 4
    rows = json.loads((answered.folder / "data/toy/aug/total.json").read_text())
    assert rows[1]["question"] in document
    assert re.search(r"<td>toy total</td><td>prag</td>", document)
    assert "http://" not in re.sub(r"http://www.w3.org/\S+", "", document)  # it needs no network
    assert "https://" not in document
    # what is seen: the grey of the bare model and the blue of the own adapter, as bars and dots
    assert colours[(255, 255, 255)] > sum(colours.values()) / 2
    assert colours[(0x25, 0x63, 0xEB)] > 300  # this model answers nothing, so its bars are short
    assert colours[(0x8A, 0x8F, 0x98)] > 10


@pytest.mark.skipif(not browser.CHROMIUM, reason="there is no chromium on this machine")
def test_snakemakes_own_report_has_it_by_category(answered, tmp_path):
    answered.snakemake("--report", "report.html")
    document, colours = browser.open_page(answered.folder / "report.html", tmp_path)
    for category in ("What the adapters taught", "Scores", "Knowledge", "Training", "Settings"):
        assert category in document
    page = (answered.folder / "report.html").read_text()
    for caption in ("95 % bootstrap interval", "greedy decoding gives exactly", "The training loss by step"):
        assert caption in page
    assert len(colours) > 20


def test_what_a_text_says_is_no_code_in_the_report(answered):
    page = (answered.folder / "results/report.html").read_text()
    assert "<script>alert(1)" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; &lt;b&gt;who?" in page


def test_after_a_failure_the_page_names_the_passage(answered):
    rows = json.loads((answered.folder / "data/toy/aug/total.json").read_text())
    tiny.add_to_passage(rows[5], 0, " §")
    answered.write_rows(rows)
    template = answered.folder / "resources/models/tiny/chat_template.jinja"
    refusal = "{% if '§' in messages[0]['content'] %}{{ raise_exception('§ is not allowed') }}{% endif %}"
    template.write_text(refusal + tiny.CHATML)
    process = answered.snakemake(check=False)
    assert process.returncode != 0
    assert "Traceback" not in process.stdout
    page = (answered.folder / "results/report.html").read_text()
    assert "1 passage failed" in page
    assert "total/data_5/passage_0" in page
    assert "§ is not allowed" in page


def lorary(project, *arguments, run=subprocess.run, **settings):
    return run(
        [sys.executable, "-m", "lorary", *arguments],
        cwd=project.folder,
        text=True,
        env={**os.environ, "PYTHONPATH": str(project.folder / "workflow"), "CUDA_VISIBLE_DEVICES": ""},
        **(settings or {"capture_output": True}),
    )


def test_ask_finds_passages_and_shows_both_answers(answered):
    rows = json.loads((answered.folder / "data/toy/aug/total.json").read_text())
    passage = rows[7]["augment"][0]["passage"]
    asked = lorary(answered, "ask", passage, "--top", "2", "--methods", *METHODS, "--combine", "mixture")
    assert asked.returncode == 0, asked.stderr
    assert "  total/data_7/passage_0  (BM25 " in asked.stdout
    mixed = r"adapters \(mixture\)"
    names = f"bare model|passages in the prompt|{mixed}|{mixed} and passages"
    answers = dict(re.findall(rf"^({names}) +\| (.+)", asked.stdout, re.M))
    assert len(answers) == 4
    assert answers["bare model"] != answers["adapters (mixture)"]
    # named, with the question of the data: what `snakemake` has predicted
    found = predictions(answered)
    named = "total/data_20", "--max-new-tokens", "6", "--methods", "vanilla", "icl", "prag"
    asked = lorary(answered, "ask", rows[ALONE]["question"], "--passages", *named)
    assert "  total/data_20/passage_0\n    (no passage)\n" in asked.stdout
    told = dict(re.findall(r"^(bare model|passages in the prompt|adapters) +\| (.+)", asked.stdout, re.M))
    for method, name in (("vanilla", "bare model"), ("icl", "passages in the prompt"), ("prag", "adapters")):
        first = found[method][ALONE]["text"].strip().splitlines()[0]
        assert told[name] == first


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (("who?", "--run", "elsewhere"), "--run elsewhere names none of the runs"),
        (("who?", "--passages", "total/data_99"), "has no total/data_99"),
        (("qqq zzz?",), "No passage shares a word with this question"),
        (("who?", "--adapter-dir", "nowhere"), "there is no finished run below this folder"),
        (("who?", "--top", "0"), "a whole number from 1"),
    ],
)
def test_ask_says_what_is_wrong(answered, arguments, fault):
    asked = lorary(answered, "ask", *arguments)
    assert asked.returncode != 0
    assert fault in asked.stderr
    assert "Traceback" not in asked.stderr


def test_ask_takes_no_other_model_and_no_other_adapter(answered):
    file = answered.folder / "results/adapters" / RUN / "total/data_3/passage_0/adapter_model.safetensors"
    content = file.read_bytes()
    file.unlink()  # the store shares it
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    asked = lorary(answered, "ask", "who?", "--passages", "total/data_3")
    assert "adapter_model.safetensors is not what was trained (its sha256 differs)" in asked.stderr
    assert asked.returncode == 1
    fingerprint = answered.folder / "resources/models/tiny/fingerprint.json"
    about = json.loads(fingerprint.read_text())
    for part in ("weights", "tokenizer"):  # as of another model that was fetched under this name
        fingerprint.write_text(json.dumps(about | {part: 64 * "0"}))
        asked = lorary(answered, "ask", "who?", "--passages", "total/data_4")
        assert f"tiny is not the base model that these adapters were trained on: its {part} differ" in asked.stderr
        assert asked.returncode == 1


def test_serve_answers_as_predicted_and_ends_after_what_it_has_accepted(answered, tmp_path):
    """Questions of two methods at once; and a SIGTERM while others are on their way."""
    found = predictions(answered)
    with (tmp_path / "log").open("w") as log, ThreadPoolExecutor(16) as clients:
        server = lorary(answered, "serve", "--port", "0", run=subprocess.Popen, stderr=log)

        def told(pattern):
            return re.search(pattern, (tmp_path / "log").read_text(encoding="utf-8"))

        def get(path, said=None):
            request = urllib.request.Request(url + path, said and json.dumps(said).encode())
            request.add_header("content-type", "application/json")
            with urllib.request.urlopen(request, timeout=120) as reply:
                return json.loads(reply.read())

        def ask(method, answer, tokens=6):
            passages = {"passages": [f"total/data_{answer['test_id']}"]}
            said = {"model": method, "max_tokens": tokens, "lorary": passages}
            said["messages"] = [{"role": "user", "content": answer["question"]}]
            return get("v1/chat/completions", said)["choices"][0]["message"]["content"]

        try:
            wait_until(lambda: told("serving .* at http"), server)
            url = told(r"at (http://127\.0\.0\.1:\d+/)")[1]
            asked = [(method, answer) for method in ("icl", "prag") for answer in found[method]]
            texts = list(clients.map(lambda one: ask(*one), asked))
            assert texts == [answer["text"] for _, answer in asked]
            long = [clients.submit(ask, "prag", answer, 200) for answer in found["prag"][:4]]
            wait_until(lambda: get("health")["asked"] == len(asked) + 4, server)
            server.terminate()
            assert server.wait(120) == 0
            for text, answer in zip(long, found["prag"], strict=False):
                assert text.result().startswith(answer["text"])
        finally:
            server.kill()
            server.wait()
    counted = len(asked) + 4
    assert told(f"stopped: {counted} questions were taken, {counted} of them answered")
    assert len(re.findall(r"POST /v1/chat/completions 200", (tmp_path / "log").read_text())) == counted
    assert not told("Traceback")
    wrong = lorary(answered, "serve", "--adapter-dir", "nowhere")
    assert (wrong.returncode, "no finished run below this folder" in wrong.stderr) == (1, True)


def test_export_merges_what_is_named(answered):
    answered.snakemake("export", export=["total/data_0", "total/data_7/passage_0"])
    folder = answered.folder / "results/export" / RUN / "total_data_0+total_data_7_passage_0"
    assert json.loads((folder / "adapter_config.json").read_text())["r"] == 4
    assert (folder / "adapter_model.safetensors").is_file()
    process = answered.snakemake("export", check=False)
    assert process.returncode != 0
    assert "Say what to export" in process.stdout
    assert "Traceback" not in process.stdout


def test_an_adapter_that_was_tampered_with_answers_nothing(answered):
    file = answered.folder / "results/adapters" / RUN / "total/data_3/passage_0/adapter_model.safetensors"
    content = bytearray(file.read_bytes())
    file.unlink()
    content[-1] ^= 1
    file.write_bytes(content)
    shutil.rmtree(answered.folder / "results/predict")
    process = answered.snakemake(check=False, max_new_tokens=7, inference_methods=["prag"])
    assert process.returncode != 0
    assert "adapter_model.safetensors is not what was trained (its sha256 differs)" in process.stdout
    assert "Traceback" not in process.stdout
