"""Ways of working together, as a user calls them: answers, the page, and the table from question to adapter."""

import csv
import json

RUN = "tiny/rank=2_alpha=32/toy/lr=0.01_epoch=1_direct/aug_model=aug"


def test_two_ways_in_one_call(finished):
    file = finished.folder / "data/toy/aug/total.json"
    rows = json.loads(file.read_text())
    rows[1]["question"] = rows[1]["passages"][1]
    rows[1]["golden_passages"] = [rows[1]["passages"][1]]
    finished.write_rows(rows)
    finished.settings |= {"inference_methods": ["vanilla", "prag"], "max_new_tokens": 4}
    finished.settings |= {"combine_adapters": ["routed", "mixture"], "export": "total"}
    finished.snakemake("all", "export")
    found = {
        method: json.loads((finished.folder / f"results/predictions/{RUN}/{method}/total/predict.json").read_text())
        for method in ("vanilla", "prag_routed", "prag_mixture")
    }
    assert [[answer["question"] for answer in answers] for answers in found.values()] == [
        [row["question"] for row in rows]
    ] * 3
    assert not (finished.folder / f"results/predictions/{RUN}/prag").exists()
    page = (finished.folder / "results/report.html").read_text()
    assert "<h2>Adapters together" in page
    assert "routing chose a right passage for <b>1 of 1 questions</b> (100 %)" in page
    with (finished.folder / f"results/export/{RUN}/total_routed.tsv").open(newline="") as table:
        lines = list(csv.DictReader(table, delimiter="\t"))
    assert len(lines) == 6
    best = next(line for line in lines if line["did"] == "1")
    assert (best["rank"], best["question"]) == ("1", rows[1]["question"])
    assert best["adapter"] == f"results/adapters/{RUN}/total/data_1/passage_1"
    assert (finished.folder / best["adapter"] / "adapter_model.safetensors").is_file()
    assert "Nothing to be done" in finished.snakemake("all", "export", "-n").stdout
