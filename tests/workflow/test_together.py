"""Ways of working together, as a user calls them: answers, the page, and the table from question to adapter; and a
task adapter under all of them."""

import csv
import json

import pytest

import tiny
from lorary.answer.ask import ask
from lorary.answer.score import cut
from lorary.core.errors import LoraryError

RUN = "tiny/rank=2_alpha=32/toy/lr=0.01_epoch=1_direct/aug_model=aug"


@pytest.mark.all  # tests/unit has what is answered in each way, and how it is planned
def test_two_ways_in_one_call(finished):
    """What is routed answers as its passage's own adapter does; beside it a mixture, which does not."""
    run = RUN.replace("0.01", "0.3")  # a rate that changes every answer
    rows = json.loads((finished.folder / "data/toy/aug/total.json").read_text())
    best = [1, 0, 1]
    for row, i in zip(rows, best, strict=True):
        row["question"] += f" {row['passages'][i]}"
    questions = [row["question"] for row in rows]
    finished.write_rows(rows)
    alone = [
        {"did": did, "pid": pid, "kind": "untrained", "question": question, "answer": "it"}
        for did, (pid, question) in enumerate(zip(best, questions, strict=True))
    ]
    tiny.write_rows(finished.folder / "alone.json", alone)
    finished.settings |= {"inference_methods": ["prag"], "max_new_tokens": 6, "learning_rate": 0.3}
    finished.settings |= {"combine_adapters": ["routed", "mixture"], "export": "total", "passages_per_job": 6}
    finished.settings["heldout_questions"] = "alone.json"
    finished.snakemake("all", "export")
    answers = finished.folder / f"results/predictions/{run}"

    def said(method):
        told = json.loads((answers / method / "total/predict.json").read_text())
        assert [answer["question"] for answer in told] == questions
        return [answer["eval_predict"] for answer in told]

    with (answers / "heldout.tsv").open(newline="") as file:
        assert said("prag_routed") == [cut(line["answer_own"], False) for line in csv.DictReader(file, delimiter="\t")]
    assert all(one != other for one, other in zip(said("prag_routed"), said("prag_mixture"), strict=True))
    assert not (answers / "prag").exists()
    page = (finished.folder / "results/report.html").read_text()
    assert "<h2>Adapters together" in page
    assert "for how many questions routing chose a right passage is not known" in page
    with (finished.folder / f"results/export/{run}/total_routed.tsv").open(newline="") as file:
        table = [line for line in csv.DictReader(file, delimiter="\t") if line["rank"] == "1"]
    assert [line["question"] for line in table] == questions
    assert [line["adapter"] for line in table] == [
        f"results/adapters/{run}/total/data_{did}/passage_{pid}" for did, pid in enumerate(best)
    ]
    assert all((finished.folder / line["adapter"] / "adapter_model.safetensors").is_file() for line in table)
    assert "Nothing to be done" in finished.snakemake("-n").stdout


@pytest.mark.all  # tests/unit has what is trained, answered and exported
def test_ways_over_a_task_adapter(finished, monkeypatch):
    finished.settings |= {"inference_methods": ["prag"], "combine_adapters": ["routed", "mixture"], "max_new_tokens": 4}
    task = f"results/adapters/{RUN}/total/data_0/passage_0"
    over = {"task_adapter": task, "adapter_dir": "over", "inference_methods": ["task", "prag"]}
    over |= {"passages_per_job": 6}
    finished.settings["runs"] = [{"export": "total"}, {**over, "combine_adapters": "mean", "export": "total/data_1"}]
    finished.snakemake("all", "export")
    answers = finished.folder / f"results/predictions/{RUN}"
    questions = [row["question"] for row in json.loads((finished.folder / "data/toy/aug/total.json").read_text())]
    for method in ("prag_routed", "prag_mixture"):
        assert [
            row["question"] for row in json.loads((answers / method / "total/predict.json").read_text())
        ] == questions
    assert not (answers / "prag").exists()
    page = (finished.folder / "results/report.html").read_text()
    assert "<h2>Adapters together" in page
    assert "for how many questions routing chose a right passage is not known" in page
    (order,) = (finished.folder / "results/routes").glob("*.tsv")
    with order.open(newline="") as file:
        best = [line for line in csv.DictReader(file, delimiter="\t") if line["rank"] == "1"]
    with (finished.folder / f"results/export/{RUN}/total_routed.tsv").open(newline="") as file:
        table = [line for line in csv.DictReader(file, delimiter="\t") if line["rank"] == "1"]
    assert [line["question"] for line in table] == questions
    assert [line["adapter"] for line in table] == [
        f"results/adapters/{RUN}/total/data_{line['did']}/passage_{line['pid']}" for line in best
    ]
    assert all((finished.folder / line["adapter"] / "adapter_model.safetensors").is_file() for line in table)
    assert "Nothing to be done" in finished.snakemake("-n").stdout

    monkeypatch.chdir(finished.folder)
    about = json.loads((finished.folder / f"over/{RUN}/run.json").read_text())
    assert about["config"][0]["task_adapter"] == about["task_adapter"]["path"] == task
    stored = [json.loads(file.read_text()) for file in finished.folder.glob("results/store/??/*/training.json")]
    assert [entry.get("task_adapter") for entry in stored].count(about["task_adapter"]["sha256"]) == 6
    exported = finished.folder / f"over_export/{RUN}/total_data_1_mean"
    assert json.loads((exported / "adapter_config.json").read_text())["r"] == 6
    assert json.loads((exported / "passages.json").read_text())[2] == task
    answers = finished.folder / f"over_predictions/{RUN}"
    found = [json.loads((answers / method / "total/predict.json").read_text()) for method in ("task", "prag_mean")]
    texts = [[answer["text"].strip() for answer in of_method] for of_method in found]
    did = max(range(3), key=lambda did: min(len(of_method[did]) for of_method in texts))  # which says most
    told = ask(questions[did], None, [f"total/data_{did}"], 3, ["vanilla", "task", "prag"], 4, "over", "mean")
    for title, of_method in zip(("task adapter alone", "adapters (mean)   "), texts, strict=True):
        first, *_ = of_method[did].splitlines() or ["(nothing)"]
        assert f"{title} | {first}\n" in f"{told}\n"
    (finished.folder / task / "adapter_model.safetensors").unlink()
    with pytest.raises(LoraryError, match=f"task_adapter: {task} .* is not there, or changed since"):
        ask(questions[did], None, ["total/data_1"], 3, ["prag"], 4, "over")
