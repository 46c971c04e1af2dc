"""Ways of working together, as a user calls them: answers, the page, and the table from question to adapter."""

import csv
import json

RUN = "tiny/rank=2_alpha=32/toy/lr=0.01_epoch=1_direct/aug_model=aug"


def test_two_ways_in_one_call(finished):
    finished.settings |= {"inference_methods": ["prag"], "combine_adapters": ["routed", "mixture"], "max_new_tokens": 4}
    finished.settings["export"] = "total"
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
